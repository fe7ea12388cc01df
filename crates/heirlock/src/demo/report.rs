//! What is shown, and whether all is well by the clients' own account: what the agent claims is checked against what
//! they saw.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use heirlock_core::takeover::Milestone;
use serde::Serialize;

use super::client::{Lock, Notification};
use super::crowd::Crowd;
use super::stage::{NAMES, PRIMARY_STATE};
use super::{Options, stage};
use crate::control::report::{AdoptionReport, Missed};

/// Clients that were not told which are named on the screen.
const NAMED_MAX: usize = 10;

/// Clients that are named as the slowest.
const SLOWEST_MAX: usize = 5;

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
    /// How many, by their own account, were told under that number and no other, and from the service's address.
    pub(crate) told: usize,
    /// How many, by their own account, hold their lock again.
    pub(crate) locks_held_again: usize,
    /// What happened when, in milliseconds since the primary's agent was killed.
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Those that held their lock again last, in milliseconds since the same moment.
    pub(crate) slowest: Vec<Slow>,
    /// Those that were not told, and why.
    pub(crate) failed: Vec<Missed>,
    /// Where the clients' own account is another than the agent's, in words. There is no such place where all is well.
    pub(crate) contradictions: Vec<String>,
    /// Where the records lie; gone with the demo's folder unless that is kept.
    pub(crate) records_at: String,
    /// Whether the folder is kept.
    pub(crate) kept: bool,
    #[serde(skip)]
    folder: String,
}

/// What the clients saw, and nobody else's word for it.
#[derive(Debug, Default)]
struct Account {
    /// How many have not died.
    living: usize,
    /// When each was told first, in milliseconds since the primary was killed.
    told_at: Vec<i64>,
    /// How many were told as they should be.
    told: usize,
    held_again: usize,
    /// Those that hold their lock again, the last one first.
    slowest: Vec<Slow>,
    /// Those that were told as they should be, in vain.
    without: Vec<String>,
}

/// A client, and when it held its lock again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Slow {
    /// Which.
    pub(crate) client: String,
    /// When, in milliseconds since the primary's agent was killed.
    pub(crate) at_ms: i64,
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
        let account = Account::of(crowd, adoption.state_number, lost_at);
        let shift = shift_ms(adoption, &account);
        let captured = -millis(lost_at.saturating_duration_since(captured_at).as_millis());
        let mut timeline = vec![entry("captured", captured), entry("primary-killed", 0)];
        // When clients were told is theirs to say.
        let by_the_agent = |event| {
            !matches!(event, Milestone::PrimaryLost | Milestone::FirstNotified | Milestone::LastNotified)
        };
        for stamp in adoption.timeline.iter().filter(|stamp| by_the_agent(stamp.event)) {
            timeline.push(entry(&word(stamp.event), stamp.at_ms + shift));
        }
        timeline.extend(account.told_at.iter().min().map(|at| entry("first-notified", *at)));
        timeline.extend(account.told_at.iter().max().map(|at| entry("last-notified", *at)));
        timeline.extend(account.slowest.first().map(|slow| entry("last-lock-held-again", slow.at_ms)));
        timeline.sort_by_key(|entry| entry.at_ms);
        Self {
            clients: adoption.clients,
            acknowledged: adoption.acknowledged,
            re_registered: adoption.re_registered,
            unreachable: adoption.unreachable,
            lost: adoption.lost + adoption.unknown,
            state_number: adoption.state_number,
            primary_state_number: PRIMARY_STATE.0,
            told: account.told,
            locks_held_again: account.held_again,
            timeline,
            slowest: account.slowest.iter().take(SLOWEST_MAX).cloned().collect(),
            failed: adoption.failed.clone(),
            contradictions: account.contradictions(adoption, options),
            records_at: adoption.records_at.clone(),
            kept: options.keep,
            folder: folder.display().to_string(),
        }
    }

    /// Whether every client was told under a new odd number and acknowledged, by both accounts.
    pub(crate) fn all_is_well(&self) -> bool {
        let new = self.state_number != self.primary_state_number && self.state_number % 2 == 1;
        let told = self.acknowledged == self.clients && self.told == self.clients;
        new && told && self.contradictions.is_empty()
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
            text.push_str("\nThe slowest, until they held their lock again:\n");
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
        for contradiction in &self.contradictions {
            let _ = writeln!(text, "\nThis should not be: {contradiction}.");
        }
        text
    }

    /// The last line.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.all_is_well() {
            "Every client was told in time, and nobody else could take its lock meanwhile."
        } else if self.contradictions.is_empty() {
            "Not every client was told. One that still lives has lost its locks."
        } else {
            "The clients' own account is not the agent's: please report this."
        }
    }
}

impl Account {
    fn of(crowd: &Crowd, number: u32, lost_at: Instant) -> Self {
        let since_lost = |at: Instant| millis(at.saturating_duration_since(lost_at).as_millis());
        let mut account = Self { living: crowd.count(|client| !client.is_dead()), ..Self::default() };
        for client in crowd.clients() {
            let notes = client.notes();
            account.told_at.extend(notes.notifications.first().map(|first| since_lost(first.at)));
            let as_it_should_be =
                |n: &Notification| n.state.0 == number && n.from.ip() == std::net::IpAddr::V4(stage::ADDRESS);
            let told = !notes.notifications.is_empty() && notes.notifications.iter().all(as_it_should_be);
            account.told += usize::from(told);
            match notes.lock {
                Lock::HeldAgain(at) => {
                    account.held_again += 1;
                    account.slowest.push(Slow { client: client.address.to_string(), at_ms: since_lost(at) });
                }
                _ if told => account.without.push(client.address.to_string()),
                _ => {}
            }
        }
        account.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.at_ms));
        account
    }

    /// What the agent's report says that the clients don't.
    fn contradictions(&self, adoption: &AdoptionReport, options: &Options) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect = |so: bool, what: String| found.extend((!so).then_some(what));
        let (reported, there) = (adoption.clients, options.clients);
        expect(reported == there, format!("the agent reports {reported} clients, and there are {there}"));
        let (acknowledged, told) = (adoption.acknowledged, self.told);
        expect(
            acknowledged == told,
            format!("{acknowledged} clients acknowledged, and {told} were told as they should be"),
        );
        let living = self.living;
        expect(told == living, format!("{living} clients live, and {told} were told as they should be"));
        let first = self.without.first().map(String::as_str).unwrap_or_default();
        let count = self.without.len();
        expect(
            count == 0,
            format!("{count} clients were told, and don't hold their lock again; the first is {first}"),
        );
        found
    }
}

/// What the screen says first.
pub(super) fn opening(options: &Options, folder: &Path) -> String {
    let dead = match options.unreachable {
        0 => String::new(),
        dead => format!("{dead} of them will be dead by the time they are to be told.\n"),
    };
    format!(
        "heirlock demo: the locks of {} clients survive the loss of their server\n\n\
         Two agents, nfs-a (primary) and nfs-b (standby), keep a store of files in\n{}.\n\
         The clients mount {} at {} and take a lock each.\n{dead}\
         Then the primary's agent is killed, and nobody is asked what to do.\n",
        options.clients,
        folder.display(),
        NAMES[0],
        stage::ADDRESS,
    )
}

/// What is to be added to the agent's times, which count from the moment at which it began to act, to make them count from
/// the kill. The agent notes an acknowledgement after its client was told, and settles after the last was: of what both
/// bounds allow, the earliest.
fn shift_ms(adoption: &AdoptionReport, account: &Account) -> i64 {
    let at = |event| adoption.timeline.iter().find(|stamp| stamp.event == event).map(|stamp| stamp.at_ms);
    let bounds = [
        account.told_at.iter().min().zip(at(Milestone::FirstNotified)),
        account.told_at.iter().max().zip(at(Milestone::Settled)),
    ];
    let shift = bounds.into_iter().flatten().map(|(told_at, noted_at)| told_at - noted_at).max();
    // Where nobody was told: the last sign of life came a heartbeat before the kill at most.
    shift.or(at(Milestone::PrimaryLost).map(|lost_at| -lost_at)).unwrap_or(0)
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
mod tests;
