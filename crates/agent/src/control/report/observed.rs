//! The counts of an agent since it began: `status --json` shows them as `observed`, and metrics are made from them.
//!
//! A name that ends in `_total` only rises, and begins at zero with each agent. Times are in seconds. Every field is there from
//! the beginning, so no name comes from the network. Nothing is decided by any of it.

mod by_word;

use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::monitor::Refusals;
use heirlock_core::store::{Change, RecordChange};
use heirlock_core::takeover::{Cause, End, Event, Phase};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::OBSERVED_BUCKETS;

pub use by_word::{CallEnd, RunEnd, Verb, VerbEnd};

/// All that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// When this agent began, in seconds since 1970.
    pub began_at_s: u64,
    /// Records of clients, each counted once in every service that keeps it.
    pub records: Records,
    /// Clients that waited, or that rpc.statd's callout waited for, until they were durable.
    pub registrations: Registrations,
    /// Calls that made records, journals or outcomes durable.
    pub commits: Calls,
    /// This server's own heartbeats.
    pub heartbeats: Calls,
    /// Looks at the status monitor's directory.
    pub looks: Calls,
    /// As status monitor: requests that were not answered as they were meant.
    pub monitor: Monitored,
    /// Notices of a restart to clients.
    pub notices: Notices,
    /// The outcome of each client at the end of a run.
    pub outcomes: Outcomes,
    /// Adoptions and self-adoptions, by why they began.
    pub runs: Runs,
    /// How long runs were in each phase, as far as this agent lived it.
    pub phases: Phases,
    /// Hooks that were run.
    pub hooks: Hooks,
    /// Verbs of the control socket, by verb.
    pub requests: Requests,
    /// Log lines that a packet, or another user's program, causes.
    pub log_lines: LogLines,
}

/// Log lines that a packet, or another user's program, causes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLines {
    /// They were not written, since there were too many.
    pub suppressed_total: u64,
}

/// Records of clients in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Records {
    /// Records that were made durable, besides those that a generation began with.
    pub written_total: u64,
    /// Records that were removed, since a deletion was believed.
    pub removed_total: u64,
    /// Changes that the store did not take. Each is tried again, and counts each time.
    pub failed_total: u64,
}

/// Clients that waited until they were durable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registrations {
    /// Registrations that became durable, or were already.
    pub durable_total: u64,
    /// Registrations that did not.
    pub failed_total: u64,
    /// From when the agent heard of a batch of them until it answered.
    pub seconds: Times,
}

/// Calls of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calls {
    /// Calls that succeeded.
    pub done_total: u64,
    /// Calls that failed.
    pub failed_total: u64,
    /// How long each of them took, also those that failed.
    pub seconds: Times,
}

/// Requests that our own status monitor did not grant or answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Monitored {
    /// SM_MON refused: there was no room for one registration more.
    pub refused_no_room_total: u64,
    /// SM_MON refused: the store was failing already.
    pub refused_store_fails_total: u64,
    /// SM_MON refused: the store did not take the client in time.
    pub refused_late_total: u64,
    /// SM_MON refused: too many clients waited.
    pub refused_busy_total: u64,
    /// SM_MON refused: the lock manager holds no service, as whose client a client could be on record.
    pub refused_no_service_total: u64,
    /// SM_MON granted to a client that the store did not know.
    pub granted_at_risk_total: u64,
    /// SM_NOTIFY that was left unanswered, for want of room.
    pub left_unanswered_total: u64,
}

/// Notices of a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notices {
    /// Clients that were to be told.
    pub begun_total: u64,
    /// Clients that answered.
    pub answered_total: u64,
}

/// Clients, by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// They registered again.
    pub re_registered_total: u64,
    /// They answered.
    pub acknowledged_total: u64,
    /// They never answered.
    pub unreachable_total: u64,
    /// They were not told in time.
    pub lost_total: u64,
    /// The run ended before that was known.
    pub unknown_total: u64,
}

/// Runs, by why they began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Runs {
    /// A person or a cluster manager asked.
    pub asked: Ends,
    /// The owner's heart was silent.
    pub owner_dead: Ends,
    /// The lock manager was restarted.
    pub own_restart: Ends,
}

/// How runs ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends {
    /// Every client's outcome is known.
    pub settled_total: u64,
    /// They could not go on.
    pub failed_total: u64,
    /// They changed nothing.
    pub refused_total: u64,
}

/// How long runs were in each phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Their needs were looked for, and the owner fenced.
    pub intent: Times,
    /// The owner was off, and nothing was claimed yet.
    pub fenced: Times,
    /// Until the records were conveyed.
    pub claimed: Times,
    /// Until the lock manager had recognised.
    pub conveyed: Times,
    /// Until grace was proved to be open.
    pub recognised: Times,
    /// Until an address was ready.
    pub proved: Times,
    /// Until the first client was told.
    pub ready: Times,
    /// Until every client had answered or could not be told any more.
    pub notifying: Times,
    /// Until grace was over.
    pub settling: Times,
}

/// Hooks that were run, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Confirms that a server is off.
    pub fence: Calls,
    /// Brings a volume up.
    pub volume_up: Calls,
    /// Brings an address up.
    pub address_up: Calls,
    /// Takes an address away.
    pub address_down: Calls,
    /// Takes a volume away.
    pub volume_down: Calls,
}

/// Verbs, by verb.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// `adopt`, also with `--prepare` and `--finish`.
    pub adopt: Answers,
    /// `release`.
    pub release: Answers,
    /// `failback`.
    pub failback: Answers,
    /// `move`.
    pub r#move: Answers,
    /// `maintenance`.
    pub maintenance: Answers,
    /// `records forget`.
    pub forget: Answers,
    /// `report`.
    pub report: Answers,
}

/// How verbs were answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answers {
    /// They came. A caller that goes away before the answer counts here alone.
    pub asked_total: u64,
    /// They are done.
    pub done_total: u64,
    /// There was nothing to do.
    pub unchanged_total: u64,
    /// Refused; nothing was changed.
    pub refused_total: u64,
    /// They failed.
    pub failed_total: u64,
}

/// How long things took, as a histogram of Prometheus has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Seconds,
    /// The longest.
    pub max: Seconds,
    /// How many took no longer than each bound; bounds rise.
    pub buckets: Vec<Bucket>,
}

/// How many took no longer than a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound.
    pub le: Seconds,
    /// How many.
    pub count: u64,
}

/// A time in seconds, with a fraction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Default for Times {
    fn default() -> Self {
        let buckets = OBSERVED_BUCKETS.map(|le| Bucket { le: Seconds(le), count: 0 });
        Self { count: 0, sum: Seconds::default(), max: Seconds::default(), buckets: buckets.into() }
    }
}

impl Times {
    /// One more took so long.
    pub(crate) fn took(&mut self, time: Duration) {
        self.count += 1;
        self.sum = Seconds(self.sum.0.saturating_add(time));
        self.max = self.max.max(Seconds(time));
        for bucket in self.buckets.iter_mut().filter(|bucket| time <= bucket.le.0) {
            bucket.count += 1;
        }
    }
}

impl Calls {
    /// One more took so long, and succeeded or failed.
    pub(crate) fn ended(&mut self, time: Duration, is_done: bool) {
        *self.of_mut(if is_done { CallEnd::Done } else { CallEnd::Failed }) += 1;
        self.seconds.took(time);
    }
}

impl Observed {
    /// A run that began for this reason has ended so.
    pub(crate) fn ended(&mut self, cause: Cause, end: &End) {
        let (end, summaries) = match end {
            End::Refused(_) => (RunEnd::Refused, &[][..]),
            End::Unbegun { .. } => (RunEnd::Failed, &[][..]),
            End::Failed { summaries, .. } => (RunEnd::Failed, summaries.as_slice()),
            End::Settled(summaries) => (RunEnd::Settled, summaries.as_slice()),
        };
        *self.runs.of_mut(cause).of_mut(end) += 1;
        let clients = summaries.iter().flat_map(|summary| &summary.clients);
        clients.for_each(|client| *self.outcomes.of_mut(client.outcome) += 1);
    }
}

impl Records {
    /// The store was to take this change.
    pub(crate) fn changed(&mut self, change: &Change, is_done: bool) {
        *match change {
            Change::Record(_) if !is_done => &mut self.failed_total,
            Change::Record(RecordChange::Put(..)) => &mut self.written_total,
            Change::Record(RecordChange::Remove(_)) => &mut self.removed_total,
            Change::PutState(_) | Change::PutJournal(_) | Change::AppendOutcome(_) => return,
        } += 1;
    }
}

impl Registrations {
    /// So many have waited for so long.
    pub(crate) fn answered(&mut self, waited: Duration, count: usize, are_durable: bool) {
        for _ in 0..count {
            *if are_durable { &mut self.durable_total } else { &mut self.failed_total } += 1;
            self.seconds.took(waited);
        }
    }
}

impl Notices {
    /// So many clients are to be told.
    pub(crate) fn begin(&mut self, clients: usize) {
        self.begun_total += clients as u64;
    }

    /// A run that is on heard this.
    pub(crate) fn heard(&mut self, event: &Event) {
        if let Event::Acknowledged { clients, .. } = event {
            self.answered_total += clients.len() as u64;
        }
    }
}

impl Phases {
    /// A run that was in this phase, if in one, is in it no longer.
    pub(crate) fn passed(&mut self, phase: Option<Phase>, since: &mut Moment, now: Moment) {
        if let Some(times) = phase.and_then(|phase| self.of_mut(phase)) {
            times.took(now.since(*since));
        }
        *since = now;
    }
}

impl Monitored {
    /// Those of a status monitor more, as its machine has counted them.
    pub(crate) fn add(&mut self, refusals: &Refusals, left_unanswered: u64) {
        self.refused_no_room_total += refusals.no_room;
        self.refused_store_fails_total += refusals.store_fails;
        self.refused_late_total += refusals.late;
        self.refused_busy_total += refusals.busy;
        self.refused_no_service_total += refusals.no_service;
        self.granted_at_risk_total += refusals.granted_all_the_same;
        self.left_unanswered_total += left_unanswered;
    }
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::{MonName, StateNumber};

    use super::*;

    #[test]
    fn times_are_counted_in_every_bucket_that_they_do_not_exceed() {
        let mut times = Times::default();
        for millis in [1, 3, 60_000] {
            times.took(Duration::from_millis(millis));
        }
        let at = |millis| {
            let bound = Seconds(Duration::from_millis(millis));
            times.buckets.iter().find(|bucket| bucket.le == bound).unwrap().count
        };
        assert_eq!([at(1), at(5), at(30_000)], [1, 2, 2]);
        assert_eq!((times.count, times.sum.0, times.max.0.as_secs()), (3, Duration::from_millis(60_004), 60));
        assert!(times.buckets.is_sorted_by_key(|bucket| bucket.le), "{times:?}");
    }

    #[test]
    fn a_record_that_the_store_does_not_take_counts_as_neither_written_nor_removed() {
        let client = MonName::parse("10.0.0.1").unwrap();
        let changes = [Change::put(client.clone(), Vec::new()), Change::remove(client)];
        let mut records = Records::default();
        changes.iter().for_each(|change| records.changed(change, false));
        assert_eq!(records, Records { failed_total: 2, ..Records::default() });
        changes.iter().for_each(|change| records.changed(change, true));
        records.changed(&Change::PutState(StateNumber(5)), true);
        assert_eq!(records, Records { written_total: 1, removed_total: 1, failed_total: 2 });
    }

    #[test]
    fn observed_numbers_are_the_same_after_they_were_written_and_read() {
        let mut observed = Observed { began_at_s: 5, ..Observed::default() };
        observed.commits.ended(Duration::from_micros(1_234_567), true);
        observed.phases.of_mut(Phase::Settling).unwrap().took(Duration::from_nanos(90_000_000_001));
        let text = serde_json::to_string(&observed).unwrap();
        assert!(text.contains(r#""sum":1.234567"#), "{text}");
        assert_eq!(serde_json::from_str::<Observed>(&text).unwrap(), observed);
        // An agent of another version counts other things.
        let other: Observed = serde_json::from_str(r#"{"began_at_s":7,"later":1}"#).unwrap();
        assert_eq!(other, Observed { began_at_s: 7, ..Observed::default() });
    }

    /// Its description for administrators.
    const DOCUMENT: &str = include_str!("../../../../../docs/observed.md");

    #[test]
    fn every_observed_number_has_a_name_with_its_unit_and_is_in_its_document() {
        fn names(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
            let serde_json::Value::Object(fields) = value else { return found.push(path.to_owned()) };
            for (name, value) in fields {
                names(value, &format!("{path}.{name}"), found);
            }
        }
        let mut found = Vec::new();
        names(&serde_json::to_value(Observed::default()).unwrap(), "observed", &mut found);
        assert!(found.len() > 60, "{found:?}");
        let times = ["count", "sum", "max", "buckets"];
        for name in found {
            let last = name.rsplit('.').next().unwrap();
            assert!(last == "began_at_s" || last.ends_with("_total") || times.contains(&last), "{name}");
            for word in name.split('.') {
                let is_there = DOCUMENT.contains(&format!("`{word}`"))
                    || ["runs", "requests", "hooks"]
                        .iter()
                        .any(|of| DOCUMENT.contains(&format!("`{of}.{word}`")))
                    || ["runs", "requests", "hooks"].contains(&word);
                assert!(is_there, "{word} of {name}");
            }
        }
    }
}
