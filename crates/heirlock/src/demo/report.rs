//! What is shown, and whether all is well by the clients' own account: what the agent claims is checked against what
//! they saw.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use heirlock_core::takeover::Milestone;
use serde::Serialize;

use super::client::{Lock, Notes};
use super::crowd::Crowd;
use super::stage::{NAMES, PRIMARY_STATE};
use super::{Options, stage};
use crate::control::report::{AdoptionReport, Missed, Slow};

/// Clients that were not told which are named on the screen.
const NAMED_MAX: usize = 10;

/// What came of a demo, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DemoReport {
    /// How many clients there were.
    pub(crate) clients: usize,
    /// How many acknowledged, by the adoptive agent's report.
    pub(crate) acknowledged: usize,
    /// How many of these registered again with the adoptive server.
    pub(crate) re_registered: usize,
    /// How many never answered.
    pub(crate) unreachable: usize,
    /// How many were not told in time.
    pub(crate) lost: usize,
    /// The number they were told.
    pub(crate) state_number: u32,
    /// The number they knew before.
    pub(crate) primary_state_number: u32,
    /// How many, by their own account, were told under that number and no other.
    pub(crate) told: usize,
    /// How many, by their own account, hold their lock again.
    pub(crate) locks_held_again: usize,
    /// What happened when, in milliseconds since the primary's agent was killed.
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Those that answered last, in milliseconds since the same moment.
    pub(crate) slowest: Vec<Slow>,
    /// Those that were not told, and why.
    pub(crate) failed: Vec<Missed>,
    /// Where the records lie; gone with the demo's folder unless that is kept.
    pub(crate) records_at: String,
    /// Whether the folder is kept.
    pub(crate) kept: bool,
    #[serde(skip)]
    folder: String,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TimelineEntry {
    /// What happened.
    pub(crate) event: String,
    /// When.
    pub(crate) at_ms: i64,
}

impl DemoReport {
    pub(super) fn of(
        adoption: &AdoptionReport,
        crowd: &Crowd,
        captured_at: Instant,
        lost_at: Instant,
        options: &Options,
        folder: &Path,
    ) -> Self {
        let notes: Vec<Notes> = crowd.clients().iter().map(|client| client.notes().clone()).collect();
        let number = adoption.state_number;
        let was_told = |notes: &&Notes| {
            !notes.notifications.is_empty() && notes.notifications.iter().all(|n| n.state.0 == number)
        };
        let shift = shift_ms(adoption, &notes, lost_at);
        let since_lost = |at: Instant| millis(at.saturating_duration_since(lost_at).as_millis());
        let captured = -millis(lost_at.saturating_duration_since(captured_at).as_millis());
        let mut timeline = vec![entry("captured", captured), entry("primary-killed", 0)];
        for stamp in adoption.timeline.iter().filter(|stamp| stamp.event != Milestone::PrimaryLost) {
            timeline.push(entry(&word(stamp.event), stamp.at_ms + shift));
        }
        let back = notes.iter().filter_map(|notes| match notes.lock {
            Lock::HeldAgain(at) => Some(since_lost(at)),
            _ => None,
        });
        timeline.extend(back.clone().max().map(|at| entry("last-lock-held-again", at)));
        timeline.sort_by_key(|entry| entry.at_ms);
        Self {
            clients: adoption.clients,
            acknowledged: adoption.acknowledged,
            re_registered: adoption.re_registered,
            unreachable: adoption.unreachable,
            lost: adoption.lost + adoption.unknown,
            state_number: number,
            primary_state_number: PRIMARY_STATE.0,
            told: notes.iter().filter(was_told).count(),
            locks_held_again: back.count(),
            timeline,
            slowest: adoption
                .slowest
                .iter()
                .map(|slow| Slow { client: slow.client.clone(), at_ms: slow.at_ms + shift })
                .collect(),
            failed: adoption.failed.clone(),
            records_at: adoption.records_at.clone(),
            kept: options.keep,
            folder: folder.display().to_string(),
        }
    }

    /// Whether every client was told under a new odd number and acknowledged, by both accounts.
    pub(crate) fn all_is_well(&self) -> bool {
        let new = self.state_number != self.primary_state_number && self.state_number % 2 == 1;
        new && self.acknowledged == self.clients && self.told == self.clients
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("What happened, counted from the kill:\n\n");
        for entry in &self.timeline {
            let _ = writeln!(text, "  {:>8} ms  {}", entry.at_ms, in_words(&entry.event));
        }
        let _ = writeln!(
            text,
            "\nOf {} clients {} acknowledged the new state number {} (before: {}), {} were\nunreachable, {} lost. \
             By their own account {} were told, and {} hold\ntheir lock again.",
            self.clients,
            self.acknowledged,
            self.state_number,
            self.primary_state_number,
            self.unreachable,
            self.lost,
            self.told,
            self.locks_held_again,
        );
        if !self.slowest.is_empty() {
            text.push_str("\nThe slowest:\n");
            for slow in &self.slowest {
                let _ = writeln!(text, "  {:>8} ms  {}", slow.at_ms, slow.client);
            }
        }
        if !self.failed.is_empty() {
            text.push_str("\nNot told:\n");
            for missed in self.failed.iter().take(NAMED_MAX) {
                let _ = writeln!(text, "  {:<15}  {}: {}", missed.client, missed.outcome, missed.why);
            }
            if self.failed.len() > NAMED_MAX {
                let _ = writeln!(text, "  and {} more", self.failed.len() - NAMED_MAX);
            }
        }
        let _ = match self.kept {
            true => writeln!(
                text,
                "\nThe records lie in {}\nand the agents' logs beside them in {}.",
                self.records_at, self.folder
            ),
            false => writeln!(
                text,
                "\nThe records lay in\n  {}\nand are gone with the demo; with --keep they stay, and the agents' logs too.",
                self.records_at
            ),
        };
        text.push_str(match self.all_is_well() {
            true => "\nEvery client was told in time, and nobody else could take its lock meanwhile.\n",
            false => {
                "\nNot every client was told. Its programs must be restarted: they have lost their locks.\n"
            }
        });
        text
    }
}

/// What the screen says first.
pub(super) fn opening(options: &Options, folder: &Path) -> String {
    let dead = match options.unreachable {
        0 => String::new(),
        dead => format!(" {dead} of them will be dead by then."),
    };
    format!(
        "heirlock demo: the locks of {} clients survive the loss of their server\n\n\
         Two agents, nfs-a (primary) and nfs-b (standby), keep a store of files in\n{}.\n\
         The clients mount {} at {} and take a lock each.{dead}\n\
         Then the primary's agent is killed, and nobody is asked what to do.\n",
        options.clients,
        folder.display(),
        NAMES[0],
        stage::ADDRESS,
    )
}

/// What is to be added to the agent's times, which count from the moment at which it began to act, to make them count from
/// the kill: the first acknowledgement was seen from both sides.
fn shift_ms(adoption: &AdoptionReport, notes: &[Notes], lost_at: Instant) -> i64 {
    let first = notes.iter().flat_map(|notes| &notes.notifications).map(|n| n.at).min();
    let first = first.map(|at| millis(at.saturating_duration_since(lost_at).as_millis()));
    let told = adoption.timeline.iter().find(|stamp| stamp.event == Milestone::FirstNotified);
    let lost = adoption.timeline.iter().find(|stamp| stamp.event == Milestone::PrimaryLost);
    match (first, told, lost) {
        (Some(first), Some(told), _) => first - told.at_ms,
        // The last sign of life came a heartbeat before the kill at most.
        (_, _, Some(lost)) => -lost.at_ms,
        _ => 0,
    }
}

fn millis(ms: u128) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn entry(event: &str, at_ms: i64) -> TimelineEntry {
    TimelineEntry { event: event.to_owned(), at_ms }
}

fn word(event: Milestone) -> String {
    serde_json::to_value(event).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn in_words(event: &str) -> &str {
    match event {
        "captured" => "captured: the last record is durable in the store",
        "primary-killed" => "primary lost: its agent gets SIGKILL",
        "fenced" => "fenced: the primary is confirmed off",
        "claimed" => "claimed: the next generation belongs to the standby",
        "conveyed" => "conveyed: the records lie with its status monitor",
        "recognised" => "recognised: its lock manager opened a grace period",
        "proved" => "proved: the lock manager itself says that it is in grace",
        "ready" => "ready: the service's address answers",
        "first-notified" => "first client notified",
        "last-notified" => "last client notified",
        "last-lock-held-again" => "the last lock is held again",
        "settled" => "settled: every client's outcome is known",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DemoReport {
        DemoReport {
            clients: 2,
            acknowledged: 2,
            re_registered: 2,
            unreachable: 0,
            lost: 0,
            state_number: 9,
            primary_state_number: 7,
            told: 2,
            locks_held_again: 2,
            timeline: vec![entry("captured", -12), entry("claimed", 3_010)],
            slowest: vec![Slow { client: "127.201.0.1".into(), at_ms: 3_100 }],
            failed: Vec::new(),
            records_at: "/tmp/x/store/services/homes/2/sm".into(),
            kept: false,
            folder: "/tmp/x".into(),
        }
    }

    #[test]
    fn all_is_well_only_under_a_new_odd_number_that_every_client_saw() {
        assert!(report().all_is_well());
        for bad in [
            DemoReport { state_number: 7, ..report() },
            DemoReport { state_number: 8, ..report() },
            DemoReport { acknowledged: 1, unreachable: 1, ..report() },
            DemoReport { told: 1, ..report() },
        ] {
            assert!(!bad.all_is_well(), "{bad:?}");
            assert!(bad.text().contains("Not every client was told"));
        }
    }

    #[test]
    fn the_screen_fits_and_names_what_is_gone() {
        let text = report().text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("    3010 ms  claimed") && text.contains("are gone with the demo"), "{text}");
    }
}
