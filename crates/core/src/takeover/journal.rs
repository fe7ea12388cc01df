//! The journal that an adoption leaves in the store, so that the next agent can finish it.

use serde::{Deserialize, Serialize};

use super::{Conveyance, Means, Phase, Strategy};
use crate::claim::Claim;
use crate::incarnation::Incarnation;
use crate::names::{Generation, ServerName, ServiceName};
use crate::outcome::Outcome;
use crate::records::RecordKey;

/// How far one generation of one service has come: `journal.json` beside its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Journal {
    /// The run: services that are taken over together share it.
    pub run: String,
    /// The server whose run it is.
    pub server: ServerName,
    /// The phase that is durable.
    pub phase: Phase,
    /// Where the run stops by itself.
    pub until: Until,
    /// Why it began.
    pub cause: Cause,
    /// How the lock manager is made to recognise.
    pub strategy: Strategy,
    /// How records are conveyed.
    pub convey: Conveyance,
    /// Every service of the run and whether it was taken from another server; the same in each member's journal.
    pub members: Vec<(ServiceName, Part)>,
    /// The life of the lock manager that this generation's locks live in; from `recognised` on.
    pub life: Option<Incarnation>,
    /// The life before it that this server's peers know of: where another boot has begun since, they are told of that.
    #[serde(default)]
    pub life_before: Option<Incarnation>,
    /// When the run began, in seconds since 1970 by the adoptive server's clock. For people.
    pub started_at_s: u64,
    /// The timeline.
    pub timeline: Vec<Stamp>,
    /// Why it failed, where it did.
    #[serde(default)]
    pub failure: Option<String>,
    /// Entries of a folder that are not what they should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
    /// How many clients of this service the run left to the servers that have services of theirs, and says nothing of: see
    /// [`Takeover::leave_to_others`](super::Takeover::leave_to_others).
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_to_others: usize,
    /// When its owner gave it up in order, in seconds since 1970 by that server's clock. For people: that it is given up is
    /// what the mark beside the claim says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_at_s: Option<u64>,
}

/// An entry of a folder that is not what it should be: of the store, or of the status monitor's directory. It concerns one
/// client, and the run goes on; but it did not go as it should (I8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trouble {
    /// Of which service.
    pub service: ServiceName,
    /// The entry, for people.
    pub entry: String,
    /// The error: what was expected, what was found, and the remedy for an administrator.
    pub why: String,
    /// It may stand for a client whose name can't be read: its fate is unknown.
    #[serde(default)]
    pub fate_unknown: bool,
}

/// There are none of them, and older versions know nothing of them.
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl Journal {
    /// The claim of its generation, where that can't be read any more (`why`): only the server that claimed a generation
    /// begins it. The mark beside the claim says whether it was given up.
    #[must_use]
    pub fn lost_claim(&self, generation: Generation, released: bool, why: String) -> Claim {
        let claim = Claim::new(generation, &self.server, &self.run, self.started_at_s);
        Claim { released, adopts: true, unreadable: Some(why), ..claim }
    }

    /// The journal of a generation that no adoption began, and that no life of a lock manager is known to serve yet.
    #[must_use]
    pub fn quiet(run: &str, server: &ServerName, started_at_s: u64) -> Self {
        Self {
            run: run.to_owned(),
            server: server.clone(),
            phase: Phase::Settled,
            until: Until::Settled,
            cause: Cause::Asked,
            strategy: Strategy::Notify,
            convey: Conveyance::Generate,
            members: Vec::new(),
            life: None,
            life_before: None,
            started_at_s,
            timeline: Vec::new(),
            failure: None,
            troubles: Vec::new(),
            left_to_others: 0,
            released_at_s: None,
        }
    }

    /// The journal of a generation that was claimed, and not begun before the agent ended. It is begun now, and the run is
    /// done anew: nothing tells which run that was, or which services it was to take over besides. `had_one` says whether
    /// there was a generation before. A claim before which there was none, and that took nothing over, meant no adoption.
    #[must_use]
    pub fn interrupted(
        self,
        service: &ServiceName,
        claim: &Claim,
        had_one: bool,
        means: Means,
        troubles: Vec<Trouble>,
    ) -> Self {
        if claim.generation == Generation::FIRST || !(had_one || claim.adopts) {
            return self;
        }
        let part = if service.is_host() { Part::Own } else { Part::Target };
        let members = vec![(service.clone(), part)];
        let Means { strategy, convey, .. } = means;
        Self { phase: Phase::Claimed, members, strategy, convey, troubles, ..self }
    }

    /// Whether this server has rebooted since its peers last heard of a life of it: then its own locks on them are gone,
    /// and they are told with its clients. Of a mere restart they are not.
    #[must_use]
    pub fn has_rebooted(&self) -> bool {
        let boots = (self.life_before.as_ref(), self.life.as_ref());
        matches!(boots, (Some(before), Some(now)) if before.boot != now.boot)
    }

    /// When the last of its events was, in seconds since 1970, rounded up: of a run that is over, its end.
    #[must_use]
    pub fn last_event_at_s(&self) -> u64 {
        let last_ms = self.timeline.iter().map(|stamp| stamp.at_ms).max().unwrap_or(0).max(0);
        self.started_at_s.saturating_add(last_ms.unsigned_abs().div_ceil(1_000))
    }

    /// The last life whose beginning the servers that this one mounts from have heard of, as far as they had to.
    #[must_use]
    pub fn life_told(&self) -> Option<&Incarnation> {
        let told = match self.phase {
            Phase::Notifying | Phase::Settling | Phase::Settled => self.life.as_ref(),
            _ => None,
        };
        told.or(self.life_before.as_ref()).or(self.life.as_ref())
    }
}

/// Whether the servers that this one mounts from are told with the clients of this service. Of a reboot they are, as those
/// of `host.<server>`: this server's own locks on them died with it. Of a mere restart they are not
/// ([`Journal::has_rebooted`]).
#[must_use]
pub fn tells_peers(service: &ServiceName, has_rebooted: bool) -> bool {
    !service.is_host() || has_rebooted
}

/// A service's part in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It is being taken over: its records are conveyed.
    Target,
    /// It is served by the same lock manager, whose locks are dropped: its clients are told as well (I7).
    Own,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A person or a cluster manager asked.
    Asked,
    /// The owner's heart fell silent and the fence confirmed it.
    OwnerDead,
    /// The lock manager was restarted, or the server rebooted, without a failover: self-adoption.
    OwnRestart,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Asked, Self::OwnerDead, Self::OwnRestart];

    /// As the journal and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::OwnerDead => "owner-dead",
            Self::OwnRestart => "own-restart",
        }
    }
}

/// Where a run stops by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// When grace is proved; the cluster manager brings the address up and says `--finish`.
    Prepared,
    /// When every client's outcome is known.
    Settled,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stamp {
    /// The milestone.
    pub event: Milestone,
    /// Milliseconds since the run began; negative for earlier moments.
    pub at_ms: i64,
}

/// The milestones of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// The owner's last sign of life that was seen.
    PrimaryLost,
    /// The owner was asked to give it up (failback, move).
    Asked,
    /// The owner began to give it up: from then on clients may have been without it.
    GivingUp,
    /// The owner gave it up.
    GivenUp,
    /// Fenced.
    Fenced,
    /// Claimed.
    Claimed,
    /// Conveyed.
    Conveyed,
    /// Recognised: grace opened.
    Recognised,
    /// Grace was proved.
    Proved,
    /// Address, exports and NLM are there.
    Ready,
    /// The first client answered.
    FirstNotified,
    /// The last one that answered did.
    LastNotified,
    /// All outcomes are known.
    Settled,
    /// It failed.
    Failed,
}

/// One client's outcome, one line of `outcomes`. A later line replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OutcomeLine {
    /// Its key in the store.
    pub client: RecordKey,
    /// Its outcome.
    pub outcome: Outcome,
    /// Milliseconds since the run began.
    pub at_ms: i64,
    /// Why, where it isn't good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Nothing that is learnt later makes it better: the client's locks may be others' already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

impl OutcomeLine {
    /// The outcome of this client by then, without a reason and not for good.
    #[must_use]
    pub fn new(client: impl Into<RecordKey>, outcome: Outcome, at_ms: i64) -> Self {
        Self { client: client.into(), outcome, at_ms, why: None, is_final: false }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TimeLimits;
    use super::*;

    #[test]
    fn the_journal_and_the_mark_tell_the_content_of_an_unreadable_claim() {
        let server = ServerName::parse("nfs-b").unwrap();
        let journal = Journal { released_at_s: Some(9), ..Journal::quiet("run", &server, 8) };
        let told = journal.lost_claim(Generation(4), false, "torn".into());
        assert_eq!((told.generation, &told.owner, told.claimed_at_s), (Generation(4), &server, 8));
        assert!(!told.released, "the release may have failed after it was noted");
        assert!(journal.lost_claim(Generation(4), true, "torn".into()).released);
        assert!(!crate::claim::goes_on(&told, Generation(3)), "its predecessor is not known");
    }

    #[test]
    fn an_outcome_line_names_the_client_of_an_nsm_record_as_it_always_has() {
        let text =
            r#"{"client":"10.0.0.1","outcome":"unreachable","at-ms":7,"why":"no answer","is-final":true}"#;
        let line: OutcomeLine = serde_json::from_str(text).unwrap();
        assert_eq!(line.client, RecordKey::parse("10.0.0.1").unwrap());
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        for name in ["", "../10.0.0.1", ".hidden", "a b"] {
            let senseless = text.replace("10.0.0.1", name);
            assert!(serde_json::from_str::<OutcomeLine>(&senseless).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_cause_is_spelled_as_in_the_journal() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }

    #[test]
    fn the_last_event_of_a_run_counts_from_when_it_began_and_what_came_before_that_does_not() {
        let us = ServerName::parse("nfs-b").unwrap();
        let at = |stamps: &[i64]| {
            let stamp = |at_ms: &i64| Stamp { event: Milestone::Settled, at_ms: *at_ms };
            let timeline = stamps.iter().map(stamp).collect();
            Journal { timeline, ..Journal::quiet("run", &us, 100) }.last_event_at_s()
        };
        assert_eq!([at(&[]), at(&[-9_000]), at(&[-9_000, 32_598]), at(&[32_000])], [100, 100, 133, 132]);
    }

    #[test]
    fn a_claim_that_was_not_begun_is_done_anew_where_it_meant_to_take_a_service_over() {
        let us = ServerName::parse("nfs-b").unwrap();
        let (nfs, host) = (ServiceName::parse("nfs").unwrap(), ServiceName::host(&us));
        let means = Means {
            strategy: Strategy::RestartNfs,
            convey: Conveyance::Copy,
            margin: Duration::ZERO,
            limits: TimeLimits::each(Duration::ZERO),
        };
        let begun = |service: &ServiceName, generation: u64, adopts: bool, had_one: bool| {
            let claim = Claim { adopts, ..Claim::new(Generation(generation), &us, "agent", 0) };
            Journal::quiet("r", &us, 0).interrupted(service, &claim, had_one, means, Vec::new())
        };
        let quiet = Journal::quiet("r", &us, 0);
        assert_eq!(begun(&nfs, 1, true, false), quiet, "the first claim took over nothing");
        assert_eq!(begun(&nfs, 5, false, false), quiet, "nor one that goes on in another store");
        for (service, adopts, had_one, part) in [
            (&nfs, true, false, Part::Target),
            (&nfs, false, true, Part::Target),
            (&host, false, true, Part::Own),
        ] {
            let journal = begun(service, 5, adopts, had_one);
            assert_eq!((journal.phase, &journal.members), (Phase::Claimed, &vec![(service.clone(), part)]));
            assert_eq!((journal.strategy, journal.convey), (means.strategy, means.convey));
        }
    }

    #[test]
    fn peers_are_told_of_a_reboot_and_as_clients_of_what_was_taken_over() {
        let host = ServiceName::host(&ServerName::parse("nfs-b").unwrap());
        let nfs = ServiceName::parse("nfs").unwrap();
        assert!(tells_peers(&nfs, false) && tells_peers(&nfs, true));
        assert!(!tells_peers(&host, false) && tells_peers(&host, true));
    }
}
