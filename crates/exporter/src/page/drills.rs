//! The last drill of each service here: what an adoption by this server would have come to, and which clients it would not have told.

use heirlock_agent::control::report::{DrillStatus, StatusReport};
use heirlock_core::drill::Verdict;

use super::now::{Now, lasted};
use super::tables::{cell, table};
use super::verdict::clients as counted;
use crate::html::Html;
use crate::limits::SERVICES_MAX;

/// A drill that is older says little of now: the timer makes one each week, and may miss one.
const OLD_AFTER_S: u64 = 15 * 86_400;

/// The section; nothing where none was made.
pub(super) fn section(html: &mut Html, status: &StatusReport, now: &Now) {
    if status.drills.is_empty() {
        return;
    }
    html.within("section", &[("aria-labelledby", "drills")], |html| {
        html.element("h2", &[("id", "drills")], "Drills on this server");
        let heads = [
            ("Service", ""),
            ("Would an adoption here work?", ""),
            ("Clients not reached", "number"),
            ("It would take", "number"),
            ("When", ""),
        ];
        table(html, "Drills on this server", &heads, |html| {
            for drill in status.drills.iter().take(SERVICES_MAX) {
                html.within("tr", &[], |html| row(html, drill, now));
            }
        });
        if status.drills.len() > SERVICES_MAX {
            html.element("p", &[], &format!("{} more.", status.drills.len() - SERVICES_MAX));
        }
    });
}

fn row(html: &mut Html, drill: &DrillStatus, now: &Now) {
    html.element("th", &[("scope", "row")], &drill.service);
    let (class, word) = match drill.verdict {
        Verdict::Works => ("good", "yes"),
        Verdict::LeavesOut => ("warn", "yes, but some clients would not be told"),
        Verdict::Unproved => ("warn", "nothing spoke against it, and not all could be checked"),
        Verdict::HeldHere => ("warn", "another server would adopt it, for it was held here"),
        Verdict::Fails => ("bad", "no"),
        Verdict::StoreFails => ("bad", "no, for the store could not be read"),
    };
    let why = drill.why.as_ref().map(|why| format!("{word}: {why}"));
    cell(html, "Would an adoption here work?", class, &why.unwrap_or_else(|| word.to_owned()));
    let named = match drill.unreached.as_slice() {
        [] => format!("{} of {}", drill.left_out, counted(drill.clients)),
        some => {
            let more = if drill.left_out > some.len() { ", …" } else { "" };
            format!("{} of {}: {}{more}", drill.left_out, counted(drill.clients), some.join(", "))
        }
    };
    cell(html, "Clients not reached", "number", &named);
    let told = drill.until_told_ms.map(|ms| lasted(i64::try_from(ms).unwrap_or(i64::MAX)));
    cell(html, "It would take", "number", &told.unwrap_or_else(|| "not known".to_owned()));
    let is_old = now.s.saturating_sub(drill.at_s) > OLD_AFTER_S;
    let when = format!("{}, {}", now.time(drill.at_s), now.ago(drill.at_s));
    cell(
        html,
        "When",
        if is_old { "warn" } else { "" },
        &if is_old { format!("{when}: too old") } else { when },
    );
}
