//! The report, and whether all is well by the clients' own account: the agent's claims are checked against the clients'
//! observations.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use heirlock_core::Outcome;
use heirlock_core::takeover::Milestone;
use serde::Serialize;

use super::client::{Lock, Notification};
use super::crowd::{Crowd, address_of};
use super::picture::{self, Stretch};
use super::rival::{self, Answers};
use super::stage::PRIMARY_STATE;
use super::{Options, StoreKind, stage};
use crate::control::report::{AdoptionReport, Missed};

/// Clients that were not told which are named on the screen.
const NAMED_MAX: usize = 10;

/// Clients that are named as the slowest.
const SLOWEST_MAX: usize = 5;

/// The result of a demo, as `--json` prints it.
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
    /// The harm without heirlock.
    pub(crate) without_heirlock: Harm,
    /// The answers to a program on another machine that asked for one of the locks from the kill on.
    pub(crate) rival: Answers,
    /// The timeline, in milliseconds since the primary's agent was killed.
    pub(crate) timeline: Vec<TimelineEntry>,
    /// Clients that held their lock again last, in milliseconds since the same moment.
    pub(crate) slowest: Vec<Slow>,
    /// Clients that were not told, and why.
    pub(crate) failed: Vec<Missed>,
    /// Where the clients' own account is another than the agent's, in words. There is no such place where all is well.
    pub(crate) contradictions: Vec<String>,
    /// Where the records lie; gone with the demo's folder unless that is kept.
    pub(crate) records_at: String,
    /// Whether the folder is kept.
    pub(crate) kept: bool,
    /// The part of the folder in which the store lies.
    pub(crate) store: &'static str,
    #[serde(skip)]
    folder: String,
}

/// The fate of one lock without heirlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Harm {
    /// Another client got the lock.
    pub(crate) granted_to_another: bool,
    /// The client that held it was told nothing, and believes that it holds it.
    pub(crate) holder_still_believes: bool,
}

/// The story's knowledge besides the agent's report and the clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    pub(super) harm: Harm,
    pub(super) rival: Answers,
    /// When the last record was captured.
    pub(super) captured_at: Instant,
    /// When the primary was lost.
    pub(super) lost_at: Instant,
}

/// The clients' own observations.
#[derive(Debug, Default)]
struct Account {
    /// How many have not died.
    living: usize,
    /// When each was told first, in milliseconds since the primary was killed.
    told_at: Vec<i64>,
    /// How many were told as they should be.
    told: usize,
    held_again: usize,
    /// Clients that hold their lock again, the last one first.
    slowest: Vec<Slow>,
    /// Clients that were told as they should be, in vain.
    without: Vec<String>,
}

/// A client, and when it held its lock again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Slow {
    /// The client.
    pub(crate) client: String,
    /// When, in milliseconds since the primary's agent was killed.
    pub(crate) at_ms: i64,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TimelineEntry {
    /// The event.
    pub(crate) event: String,
    /// When.
    pub(crate) at_ms: i64,
}

impl DemoReport {
    pub(super) fn of(
        adoption: &AdoptionReport,
        crowd: &Crowd,
        scene: Scene,
        options: &Options,
        folder: &Path,
    ) -> Self {
        let Scene { harm, rival, captured_at, lost_at } = scene;
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
        let silent = silent(adoption, crowd);
        Self {
            clients: adoption.clients,
            acknowledged: adoption.acknowledged,
            re_registered: adoption.re_registered,
            unreachable: adoption.unreachable + silent.len(),
            lost: adoption.lost + adoption.unknown.saturating_sub(silent.len()),
            state_number: adoption.state_number,
            primary_state_number: PRIMARY_STATE.0,
            told: account.told,
            locks_held_again: account.held_again,
            without_heirlock: harm,
            rival,
            timeline,
            slowest: account.slowest.iter().take(SLOWEST_MAX).cloned().collect(),
            failed: [adoption.failed.clone(), silent].concat(),
            contradictions: [account.contradictions(adoption, options), scene.contradictions()].concat(),
            records_at: adoption.records_at.clone(),
            kept: options.keep,
            store: match options.store {
                StoreKind::Dir => "store",
                StoreKind::Etcd => "etcd",
            },
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
        let mut text = picture::draw(&self.stretches());
        let row = |text: &mut String, count: usize, what: &str| {
            let _ = writeln!(text, "  {count:>5}  {what}");
        };
        text.push('\n');
        row(&mut text, self.clients, "clients had a lock when nfs-a lost power");
        row(&mut text, self.told, "were told by nfs-b that their server was replaced");
        row(&mut text, self.locks_held_again, "have their lock back");
        if self.unreachable > 0 {
            row(&mut text, self.unreachable, "could not be told, for want of an answer");
        }
        if self.lost > 0 {
            row(&mut text, self.lost, "lost their lock: they were not told in time");
        }
        let Answers { refused, granted } = self.rival;
        let stolen = format!("locks went to another client meanwhile; it was refused {refused} times");
        row(&mut text, granted, &stolen);
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
                "\nThe store lies in {}/{}\nand the agents' logs beside it in {}.",
                self.folder, self.store, self.folder
            ),
            false => writeln!(
                text,
                "\n--keep keeps the store and the agents' logs to look at; --json has each step in\nmilliseconds."
            ),
        };
        for contradiction in &self.contradictions {
            let _ = writeln!(text, "\nThis should not be: {contradiction}.");
        }
        text
    }

    /// The timeline in three parts. A part whose beginning or end did not happen is left out.
    fn stretches(&self) -> Vec<Stretch> {
        let at =
            |event: &str| self.timeline.iter().find(|entry| entry.event == event).map(|entry| entry.at_ms);
        let parts = [
            ("nfs-b makes sure: nfs-a is gone", Some(0), at("claimed")),
            ("nfs-b takes over its records", at("claimed"), at("first-notified")),
            ("clients get their locks back", at("first-notified"), at("last-lock-held-again")),
        ];
        let whole = parts.into_iter().filter_map(|(what, from, until)| {
            from.zip(until).map(|(from_ms, until_ms)| Stretch { what, from_ms, until_ms })
        });
        whole.collect()
    }

    /// The last line.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.all_is_well() {
            "Every client has its lock back, and no other program could take it meanwhile."
        } else if self.contradictions.is_empty() {
            "Some clients could not be told. heirlock names them, and its exit code says so."
        } else {
            "The clients' own account is not the agent's: please report this."
        }
    }
}

/// Clients without power that the agent still calls: they never answer.
fn silent(adoption: &AdoptionReport, crowd: &Crowd) -> Vec<Missed> {
    let known = |address: &str| adoption.failed.iter().any(|missed| missed.client == address);
    let dead = crowd.clients().iter().filter(|client| client.is_dead());
    let silent = dead.map(|client| client.address.to_string()).filter(|address| !known(address));
    let missed = silent.map(|client| Missed {
        client,
        outcome: Outcome::Unreachable,
        why: "it has lost its power, and does not answer".to_owned(),
    });
    missed.take(adoption.unknown).collect()
}

impl Scene {
    /// The expectations of the story that were not met.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let Harm { granted_to_another, holder_still_believes } = self.harm;
        if !(granted_to_another && holder_still_believes) {
            found.push("without heirlock the lock was not granted twice".to_owned());
        }
        if self.rival.granted > 0 {
            found.push("another client got a lock that was to survive".to_owned());
        }
        found
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

    /// The claims in the agent's report that the clients contradict.
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

/// The first text on the screen.
pub(super) fn first_part() -> String {
    format!(
        "What happens to file locks when an NFS server dies?\n\n\
         A lock keeps two programs from writing to the same file at the same time. The\n\
         NFS server keeps the list of locks in its memory, and nowhere else.\n\
         Servers and clients are played on this machine. The heirlock agents are real,\n\
         and so is every message on the network.\n\n\
         1. Without heirlock\n\n\
         \x20  A program on client {} locks a file.\n\
         \x20  Its server nfs-a loses power. nfs-b takes over, and its list is empty.",
        address_of(0)
    )
}

/// The text at the end of the first part.
pub(super) fn outcome_of_the_first_part(harm: Harm) -> String {
    let answer = if harm.granted_to_another { "and gets it" } else { "and is refused" };
    let belief = match harm.holder_still_believes {
        true => "was told nothing, and believes that it still has the lock.",
        false => "knows that it has lost the lock.",
    };
    let end = match harm {
        Harm { granted_to_another: true, holder_still_believes: true } => {
            "\n   Two programs write to the same file now, and neither is told."
        }
        _ => "",
    };
    format!(
        "   A program on {} asks for the same lock, {answer}.\n   {} {belief}{end}\n",
        rival::ADDRESS,
        address_of(0)
    )
}

/// The text before the second part.
pub(super) fn second_part(options: &Options) -> String {
    let clients = match options.clients {
        1 => "1 client locks a file".to_owned(),
        clients => format!("{clients} clients lock a file each"),
    };
    let dead = match options.unreachable {
        0 => String::new(),
        dead => format!("   {dead} of them lose power at the same time.\n"),
    };
    format!(
        "2. With heirlock\n\n   {clients}. The agent on nfs-a notes each client in a\n   \
         store that survives nfs-a. Then nfs-a loses power. The agent on nfs-b does\n   \
         the rest by itself.\n{dead}"
    )
}

/// The shift that makes the agent's times count from the kill. They count from the moment at which the agent began to act.
/// The agent notes an acknowledgement after its client was told, and settles after the last was: the earliest shift that
/// both bounds allow.
fn shift_ms(adoption: &AdoptionReport, account: &Account) -> i64 {
    let at = |event| adoption.timeline.iter().find(|stamp| stamp.event == event).map(|stamp| stamp.at_ms);
    let bounds = [
        account.told_at.iter().min().zip(at(Milestone::FirstNotified)),
        account.told_at.iter().max().zip(at(Milestone::Settled)),
    ];
    let shift = bounds.into_iter().flatten().map(|(told_at, noted_at)| told_at - noted_at).max();
    // Where no client was told: the last sign of life came a heartbeat before the kill at most.
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

#[cfg(test)]
mod tests;
