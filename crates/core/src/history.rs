//! The account of a generation after the fact: when and why it began, from whom the service came, how long its clients
//! were without it, and what became of them. Made of what lies in the store and of nothing else, so that any server can tell
//! it, whether an agent runs there or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::names::{Generation, ServerName};
use crate::outcome::Outcome;
use crate::takeover::{Cause, Journal, Milestone, OutcomeLine, Phase, Stamp};

/// One generation of a service, as it is told afterwards. Small: it is kept when the generation itself is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tenure {
    /// The generation.
    pub generation: Generation,
    /// The server that had it.
    pub owner: ServerName,
    /// How it came to be.
    pub beginning: Beginning,
    /// The server that had the service before; nothing where that is not known any more, or where no server had it.
    pub from: Option<ServerName>,
    /// When it began, in seconds since 1970 by the owner's clock.
    pub began_at_s: u64,
    /// When its owner gave it up in order, in seconds since 1970 by the owner's clock.
    pub released_at_s: Option<u64>,
    /// How far the run that began it came.
    pub phase: Phase,
    /// Why that run failed, where it did.
    pub failure: Option<String>,
    /// The number that its clients were told.
    pub state_number: Option<u32>,
    /// The outcomes of its clients.
    pub clients: Told,
    /// How long they were without the service.
    pub gap: Gap,
}

/// How a generation came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beginning {
    /// No server had claimed the service before.
    First,
    /// A person or a cluster manager had it adopted.
    Asked,
    /// The owner before had given it up in order, and a person or a cluster manager had it adopted.
    Moved,
    /// Its owner's heart had fallen silent.
    OwnerDead,
    /// The lock manager was restarted, or the server rebooted: the owner adopted from itself.
    OwnRestart,
    /// Its lock manager was made to restart by an adoption of another service.
    Alongside,
    /// No run began it, or what the run left can't be read.
    Unknown,
}

/// How many clients of a generation came to each outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Told {
    /// How many there were.
    pub clients: usize,
    /// How many were told: they answered, or registered again.
    pub told: usize,
    /// How many of them registered again.
    pub re_registered: usize,
    /// How many never answered.
    pub unreachable: usize,
    /// How many were not told in time.
    pub lost: usize,
    /// Of how many nothing is known.
    pub unknown: usize,
}

/// How long clients were without their service. All in milliseconds since the run began; negative for earlier moments.
/// Where the service was given away on another server two clocks are compared: good enough for people, and nothing is
/// decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Gap {
    /// The last sign that the service was served: its owner's last beat that was seen, or its release. Nothing is known
    /// of it where the lock manager was restarted.
    pub last_sign_ms: Option<i64>,
    /// When the service could be reached again.
    pub ready_ms: Option<i64>,
    /// When the last client that came back did.
    pub last_client_ms: Option<i64>,
}

impl Gap {
    /// From the last sign of life, or from the beginning of the run, until the service could be reached again, in
    /// milliseconds.
    #[must_use]
    pub fn until_ready_ms(&self) -> Option<u64> {
        self.until(self.ready_ms)
    }

    /// The same until the last client was back.
    #[must_use]
    pub fn until_last_client_ms(&self) -> Option<u64> {
        self.until(self.last_client_ms)
    }

    fn until(&self, end_ms: Option<i64>) -> Option<u64> {
        let since = self.last_sign_ms.unwrap_or(0);
        u64::try_from(end_ms?.saturating_sub(since)).ok()
    }
}

/// The documents that a generation's owner and its predecessor left in the store.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Its claim.
    pub claim: &'a Claim,
    /// The claim before it.
    pub claim_before: Option<&'a Claim>,
    /// When the generation before was given up in order, in seconds since 1970.
    pub released_before_s: Option<u64>,
    /// Its journal, where it has one that can be read.
    pub journal: Option<&'a Journal>,
    /// Its state number.
    pub state_number: Option<u32>,
    /// Whether this service was a target of the run.
    pub is_target: bool,
    /// Outcomes, in the order in which they were learnt.
    pub outcomes: &'a [OutcomeLine],
    /// Clients on record now.
    pub records: usize,
}

/// Tells of a generation.
#[must_use]
pub fn tenure(of: &Sources<'_>) -> Tenure {
    let Sources { claim, claim_before, journal, .. } = of;
    // A journal without a timeline is one that no run wrote.
    let run = journal.filter(|journal| !journal.timeline.is_empty());
    let began_at_s = journal.map_or(claim.claimed_at_s, |journal| journal.started_at_s);
    let is_over = journal.is_none_or(|journal| journal.phase.is_over());
    Tenure {
        generation: claim.generation,
        owner: claim.owner.clone(),
        beginning: beginning(of, run),
        from: claim_before.map(|before| before.owner.clone()),
        began_at_s,
        // A generation whose release failed after it was noted is not given up.
        released_at_s: journal.and_then(|journal| journal.released_at_s).filter(|_| claim.released),
        phase: journal.map_or(Phase::Claimed, |journal| journal.phase),
        failure: journal.and_then(|journal| journal.failure.clone()),
        state_number: of.state_number,
        clients: told(of.outcomes, of.records, is_over),
        gap: run.map_or_else(Gap::default, |run| gap(of, run)),
    }
}

fn beginning(of: &Sources<'_>, run: Option<&Journal>) -> Beginning {
    let Some(run) = run else {
        let is_first = of.claim.generation == Generation::FIRST && of.journal.is_some();
        return if is_first { Beginning::First } else { Beginning::Unknown };
    };
    let was_released = of.claim_before.is_some_and(|before| before.released);
    match run.cause {
        Cause::OwnRestart => Beginning::OwnRestart,
        _ if !of.is_target => Beginning::Alongside,
        Cause::OwnerDead => Beginning::OwnerDead,
        Cause::Asked if was_released => Beginning::Moved,
        Cause::Asked => Beginning::Asked,
    }
}

/// Counts clients by their outcomes. A later outcome of a client replaces an earlier one. While a run is on, clients on record
/// without an outcome are yet to be told; afterwards they came later.
#[must_use]
pub fn told(outcomes: &[OutcomeLine], records: usize, is_over: bool) -> Told {
    let last: BTreeMap<&str, Outcome> =
        outcomes.iter().map(|line| (line.client.as_str(), line.outcome)).collect();
    let count = |wanted: fn(Outcome) -> bool| last.values().filter(|outcome| wanted(**outcome)).count();
    let unknown = if is_over { 0 } else { records.saturating_sub(last.len()) };
    Told {
        clients: last.len() + unknown,
        told: count(Outcome::is_good),
        re_registered: count(|outcome| outcome == Outcome::ReRegistered),
        unreachable: count(|outcome| outcome == Outcome::Unreachable),
        lost: count(|outcome| outcome == Outcome::Lost),
        unknown,
    }
}

fn gap(of: &Sources<'_>, run: &Journal) -> Gap {
    let last_sign_ms = match run.cause {
        Cause::OwnRestart => None,
        // A service that was served here all the time went when the lock manager was made to recognise, and not with the
        // target's owner.
        _ if !of.is_target => recognition_began(run),
        _ => last_sign(&run.timeline, of.released_before_s, run.started_at_s),
    };
    Gap {
        last_sign_ms,
        ready_ms: first(&run.timeline, Milestone::Ready),
        last_client_ms: of.outcomes.iter().filter(|line| line.outcome.is_good()).map(|line| line.at_ms).max(),
    }
}

/// When the lock manager began to be made to recognise: once all was placed, or right after the claim, beside that.
fn recognition_began(run: &Journal) -> Option<i64> {
    let waited = first(&run.timeline, Milestone::Conveyed).filter(|_| run.strategy.reads_placed());
    waited.or_else(|| first(&run.timeline, Milestone::Claimed))
}

fn last_sign(timeline: &[Stamp], released_before_s: Option<u64>, started_at_s: u64) -> Option<i64> {
    // Where this owner asked for it, it saw by its own clock when the service began to be given up.
    if let Some(giving_up) = first(timeline, Milestone::GivingUp) {
        return Some(giving_up);
    }
    let released = released_before_s.map(|at_s| {
        let (at_s, started_at_s) = (signed(at_s), signed(started_at_s));
        // A clock that is ahead would make the release later than the adoption that followed it.
        at_s.saturating_sub(started_at_s).saturating_mul(1_000).min(0)
    });
    released.or_else(|| first(timeline, Milestone::PrimaryLost))
}

fn first(timeline: &[Stamp], event: Milestone) -> Option<i64> {
    timeline.iter().filter(|stamp| stamp.event == event).map(|stamp| stamp.at_ms).min()
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceName;
    use crate::records::RecordKey;
    use crate::takeover::{Part, Strategy};

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn claim(generation: u64, owner: &str, released: bool) -> Claim {
        Claim { released, ..Claim::new(Generation(generation), &server(owner), "agent", 50) }
    }

    fn stamp(event: Milestone, at_ms: i64) -> Stamp {
        Stamp { event, at_ms }
    }

    fn journal(cause: Cause, timeline: Vec<Stamp>) -> Journal {
        let members = vec![(ServiceName::parse("nfs").unwrap(), Part::Target)];
        Journal { cause, timeline, members, ..Journal::quiet("run", &server("nfs-b"), 1_000) }
    }

    fn line(client: &str, outcome: Outcome, at_ms: i64) -> OutcomeLine {
        OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, at_ms)
    }

    fn sources<'a>(claim: &'a Claim, journal: Option<&'a Journal>) -> Sources<'a> {
        Sources {
            claim,
            claim_before: None,
            released_before_s: None,
            journal,
            state_number: Some(11),
            is_target: true,
            outcomes: &[],
            records: 0,
        }
    }

    #[test]
    fn a_failover_is_told_from_the_last_beat_to_the_last_client() {
        let (before, claim) = (claim(3, "nfs-a", false), claim(4, "nfs-b", false));
        let journal = journal(
            Cause::OwnerDead,
            vec![
                stamp(Milestone::PrimaryLost, -10_200),
                stamp(Milestone::Claimed, 4),
                stamp(Milestone::Ready, 1_800),
                stamp(Milestone::Ready, 3_000),
                stamp(Milestone::Settled, 91_000),
            ],
        );
        let outcomes = [
            line("192.0.2.1", Outcome::Acknowledged, 1_900),
            line("192.0.2.2", Outcome::Acknowledged, 2_000),
            line("192.0.2.1", Outcome::ReRegistered, 4_300),
            line("192.0.2.3", Outcome::Unreachable, 80_000),
            line("192.0.2.4", Outcome::Lost, 91_000),
        ];
        let of = Sources {
            claim_before: Some(&before),
            outcomes: &outcomes,
            records: 9,
            ..sources(&claim, Some(&journal))
        };
        let tenure = tenure(&of);
        assert_eq!((tenure.beginning, tenure.from), (Beginning::OwnerDead, Some(server("nfs-a"))));
        assert_eq!(
            (tenure.generation, tenure.owner, tenure.began_at_s),
            (Generation(4), server("nfs-b"), 1_000)
        );
        let counted = Told { clients: 4, told: 2, re_registered: 1, unreachable: 1, lost: 1, unknown: 0 };
        assert_eq!(tenure.clients, counted, "the nine on record came later, some of them");
        assert_eq!(tenure.gap.until_ready_ms(), Some(12_000));
        assert_eq!(tenure.gap.until_last_client_ms(), Some(14_500));
    }

    #[test]
    fn a_planned_move_counts_from_the_release_and_a_clock_that_is_ahead_does_no_harm() {
        let (before, claim) = (claim(3, "nfs-a", true), claim(4, "nfs-b", false));
        let journal = journal(Cause::Asked, vec![stamp(Milestone::Ready, 2_000)]);
        let told = |released_before_s| {
            let before = Some(&before);
            tenure(&Sources { claim_before: before, released_before_s, ..sources(&claim, Some(&journal)) })
        };
        assert_eq!(told(Some(993)).beginning, Beginning::Moved);
        assert_eq!(told(Some(993)).gap.until_ready_ms(), Some(9_000));
        assert_eq!(told(Some(2_000)).gap.until_ready_ms(), Some(2_000));
        assert_eq!(told(None).gap.until_ready_ms(), Some(2_000));
        // An owner that was asked for it says when it began, and no clock of another server is needed.
        let stamps = vec![stamp(Milestone::GivingUp, -3_500), stamp(Milestone::Ready, 2_000)];
        let asked = self::journal(Cause::Asked, stamps);
        let (before, sources) = (Some(&before), sources(&claim, Some(&asked)));
        let told = tenure(&Sources { claim_before: before, released_before_s: Some(993), ..sources });
        assert_eq!(told.gap.until_ready_ms(), Some(5_500));
    }

    #[test]
    fn a_run_that_is_on_has_clients_of_whom_nothing_is_known_yet() {
        let claim = claim(4, "nfs-b", false);
        let journal = Journal {
            phase: Phase::Notifying,
            ..journal(Cause::OwnRestart, vec![stamp(Milestone::Claimed, 1)])
        };
        let outcomes = [line("192.0.2.1", Outcome::Acknowledged, 1_900)];
        let of = Sources { outcomes: &outcomes, records: 3, ..sources(&claim, Some(&journal)) };
        let tenure = tenure(&of);
        assert_eq!((tenure.clients.clients, tenure.clients.told, tenure.clients.unknown), (3, 1, 2));
        assert_eq!(tenure.beginning, Beginning::OwnRestart);
    }

    #[test]
    fn a_generation_that_began_without_a_run_is_told_from_one_that_was_never_begun() {
        let (first, later) = (claim(1, "nfs-a", false), claim(2, "nfs-a", false));
        let quiet = Journal::quiet("run", &server("nfs-a"), 60);
        assert_eq!(tenure(&sources(&first, Some(&quiet))).beginning, Beginning::First);
        let interrupted = tenure(&sources(&later, None));
        assert_eq!((interrupted.beginning, interrupted.phase), (Beginning::Unknown, Phase::Claimed));
        assert_eq!((interrupted.began_at_s, interrupted.gap.until_ready_ms()), (50, None));
    }

    #[test]
    fn a_service_that_came_along_was_no_target() {
        let claim = claim(2, "nfs-b", false);
        let lost = stamp(Milestone::PrimaryLost, -10_000);
        let (claimed, conveyed) = (stamp(Milestone::Claimed, 200), stamp(Milestone::Conveyed, 300));
        let ready = stamp(Milestone::Ready, 900);
        let journal = journal(Cause::OwnerDead, vec![lost, claimed, conveyed, ready]);
        for (strategy, served_until_ms) in [(Strategy::Command, 600), (Strategy::RestartNfs, 700)] {
            let journal = Journal { strategy, ..journal.clone() };
            let tenure = tenure(&Sources { is_target: false, ..sources(&claim, Some(&journal)) });
            assert_eq!(tenure.beginning, Beginning::Alongside);
            assert_eq!(tenure.gap.until_ready_ms(), Some(served_until_ms), "it was served until then");
        }
    }
}
