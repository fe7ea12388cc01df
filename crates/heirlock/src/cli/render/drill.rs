//! The report of a drill, as text: a sentence, a line for each check, and a table of the clients that would not be told.

use heirlock_core::drill::estimate::Estimate;
use heirlock_core::drill::{Check, Finding, Verdict};

use super::history::seconds;
use super::{Look, counted, plain, wrapped};
use crate::control::report::{DrillReport, DrillStatus};

/// Clients that are shown one by one; the JSON document names more.
const CLIENTS_SHOWN_MAX: usize = 50;

/// Width of the column of clients, at most: an IPv6 address.
const CLIENT_MAX: usize = 39;

/// Width of the first column.
const WORD: usize = 11;

/// The report in words.
pub(in crate::cli) fn drill(report: &DrillReport, look: &Look) -> String {
    let mut text = format!("{}: {}\n", look.strong(&plain(&report.service)), verdict(report, look));
    text.push_str(&wrapped("  ", &on_clients(report)));
    for line in duration(&report.estimate) {
        text.push_str(&wrapped("  ", &line));
    }
    text.push_str("\nchecks\n");
    for check in &report.checks {
        text.push_str(&line_of(check, look));
    }
    text.push_str(&unreached(report, look));
    text
}

/// The last drill of a service in one line, for `status`.
pub(in crate::cli) fn last_drill(drill: &DrillStatus, look: &Look) -> String {
    let outcome = match drill.verdict {
        Verdict::Works => look.good("an adoption here would work, and every client answered"),
        Verdict::LeavesOut => {
            look.bad(&format!("{} would not be told of an adoption here", counted(drill.left_out, "client")))
        }
        Verdict::Fails => look.bad("an adoption here would not work"),
        Verdict::StoreFails => look.bad("an adoption here would not work: the store could not be read"),
        Verdict::Unproved => {
            "nothing spoke against an adoption here, and not all could be checked".to_owned()
        }
        Verdict::HeldHere if drill.left_out > 0 => {
            format!("it was held here, and {} did not answer", counted(drill.left_out, "client"))
        }
        Verdict::HeldHere => "it was held here, and every client answered".to_owned(),
    };
    let why = drill.why.as_ref().filter(|_| drill.verdict != Verdict::HeldHere);
    let why = why.map(|why| format!(": {}", plain(why))).unwrap_or_default();
    format!("last drill {} ago: {outcome}{why}", look.age(drill.at_s))
}

fn verdict(report: &DrillReport, look: &Look) -> String {
    let server = plain(&report.server);
    match report.verdict {
        Verdict::Works => look.good(&format!("an adoption by {server} would work")),
        Verdict::LeavesOut => {
            let left_out = counted(report.left_out, "client");
            look.bad(&format!("an adoption by {server} would work and leave {left_out} out"))
        }
        Verdict::Fails => look.bad(&format!("an adoption by {server} would not work")),
        Verdict::StoreFails => {
            look.bad(&format!("an adoption by {server} would not work: the store can't be read"))
        }
        Verdict::Unproved => {
            format!("nothing speaks against an adoption by {server}, and not all could be checked")
        }
        Verdict::HeldHere => format!("{server} holds it, so another server would adopt it"),
    }
}

fn on_clients(report: &DrillReport) -> String {
    let from = match report.asked_from.as_slice() {
        [] => "from this server's own addresses, which a firewall may treat otherwise than the service's"
            .to_owned(),
        from => format!("from {}", plain(&from.join(", "))),
    };
    match report.clients {
        0 => "no client was asked, for none is known to be on record".to_owned(),
        all => format!("{} of {} answered, asked {from}", report.answered, counted(all, "client")),
    }
}

/// How long an adoption would take, and what that rests upon.
fn duration(estimate: &Estimate) -> Vec<String> {
    let telling = estimate.telling_ms.map(|ms| format!("telling the clients would take {}", seconds(ms)));
    let (Some(served), Some(told)) = (estimate.until_served_ms, estimate.until_told_ms) else {
        let unknown = "how long an adoption would take is not known: none was measured yet".to_owned();
        return std::iter::once(unknown).chain(telling).collect();
    };
    let of = if estimate.is_of_others { " by other servers" } else { " by this server" };
    let mut line = format!(
        "an adoption would take {} until the service is served and {} until the last client is told",
        seconds(served),
        seconds(told)
    );
    if let Some(ms) = estimate.until_settled_ms {
        line.push_str(&format!("; it settles within {}", seconds(ms)));
    }
    line.push_str(&format!(
        " (the slowest of {}{of}, and the answers of this drill)",
        counted(estimate.adoptions, "adoption")
    ));
    vec![line]
}

fn line_of(check: &Check, look: &Look) -> String {
    let word = format!("{:<WORD$}", check.finding.as_str());
    let word = match check.finding {
        Finding::Met => look.good(&word),
        Finding::Unmet => look.bad(&word),
        Finding::Noted | Finding::Unchecked => word,
    };
    // Colours have no width, so they come in after the lines are broken.
    let text = wrapped(&format!("  {:WORD$} ", ""), &format!("{}: {}", check.check, plain(&check.found)));
    let mut text = text.replacen(&format!("  {:WORD$} ", ""), &format!("  {word} "), 1);
    if let Some(remedy) = &check.remedy {
        text.push_str(&wrapped(&format!("  {:WORD$} ", ""), &plain(remedy)));
    }
    text
}

fn unreached(report: &DrillReport, look: &Look) -> String {
    if report.left_out == 0 {
        return String::new();
    }
    let mut text =
        format!("\n{}\n", look.bad(&format!("would not be told: {}", counted(report.left_out, "client"))));
    let shown: Vec<_> = report.unreached.iter().take(CLIENTS_SHOWN_MAX).collect();
    let width = shown.iter().map(|client| client.client.chars().count()).max().unwrap_or(0).min(CLIENT_MAX);
    for client in shown {
        let names = if client.names.is_empty() {
            String::new()
        } else {
            format!("{}: ", plain(&client.names.join(", ")))
        };
        // A reason is never cut: it says what is to be mended.
        text.push_str(&wrapped(
            &format!("  {:width$}  ", plain(&client.client)),
            &format!("{names}{}", plain(&client.why)),
        ));
    }
    if let Some(more) = report.left_out.checked_sub(CLIENTS_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more: --json names them\n"));
    }
    let service = plain(&report.service);
    text.push_str(&wrapped(
        "  what it means: ",
        "such a client would not hear of the adoption: its locks would be lost, and its programs would go on as if they had them",
    ));
    text.push_str(&wrapped(
        "  what to do: ",
        &format!(
            "where it is up, let this server and the service's addresses through its firewall, to port 111 and to its status \
             monitor, and start that (rpc-statd); where it is gone for good, say 'heirlock records forget {service} CLIENT' on the \
             server that holds {service}"
        ),
    ));
    text
}

#[cfg(test)]
mod tests;
