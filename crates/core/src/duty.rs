//! The duty of a server towards the clients of a service that it holds, now that this life of its lock manager runs.
//!
//! It is asked after every start of the agent and after every look at the lock manager, so that the next agent finishes a
//! run that was interrupted, by a kill of the agent, a restart of NFS or a reboot (I9).

use crate::grace::Probe;
use crate::incarnation::Incarnation;
use crate::names::ServiceName;
use crate::planted::{Bug, planted};
use crate::takeover::{Cause, Journal, Part, Phase, Redo, Until};

/// The duty of a server towards the clients of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Its clients' locks live in the lock manager that runs, or there are none.
    Nothing,
    /// It was never served in another life, or has no clients: the life that runs is simply its first.
    BeginLife,
    /// Its clients were recorded before any life was noted: in which life they locked is not known yet.
    FindOut,
    /// Its clients were being told in this very life: the same run may go on, with its numbers and outcomes.
    Resume,
    /// An adoption was interrupted before the lock manager recognised: nothing proves what of it was done, so it is done
    /// anew, under a new generation and number.
    Redo,
    /// Its locks died with another life than the one that runs: self-adoption.
    Recover,
}

/// Where the locks of clients are that were recorded before any life of the lock manager was noted for their service, which
/// was never adopted. Such clients are found where the agent is started for the first time beside a lock manager that
/// serves already, or was killed between its first look at the clients and its first look at the lock manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlierLocks {
    /// Nothing.
    #[default]
    Unknown,
    /// They may have locked in the life before the one that runs: it began under our eyes, or its grace is open, and
    /// clients that are told now can reclaim.
    Lost,
    /// They live in the life that runs, or nothing can be done for them: its grace is over.
    Alive,
}

impl EarlierLocks {
    /// The place of their locks by the lock manager's answer.
    #[must_use]
    pub fn told_by(probe: Probe) -> Self {
        match probe {
            Probe::InGrace => Self::Lost,
            Probe::NotInGrace => Self::Alive,
            Probe::NoAnswer => Self::Unknown,
        }
    }
}

/// The duty towards the clients of a service with this journal.
///
/// `has_clients` says whether the store knows any; `reborn` whether another life than the one that was known runs, and
/// nothing was done about it yet.
#[must_use]
pub fn duty(
    journal: &Journal,
    has_clients: bool,
    current: &Incarnation,
    reborn: bool,
    earlier_locks: EarlierLocks,
) -> Duty {
    match (&journal.life, journal.phase) {
        (None, Phase::Claimed | Phase::Conveyed) if planted(Bug::ForgetRedo) => Duty::Nothing,
        (None, Phase::Claimed | Phase::Conveyed) => Duty::Redo,
        // A failed run was reported, and an administrator repeats it; a restart of the lock manager is another matter.
        (_, Phase::Failed) if reborn => Duty::Recover,
        (None, Phase::Settled) if has_clients && journal.members.is_empty() => match earlier_locks {
            EarlierLocks::Unknown => Duty::FindOut,
            EarlierLocks::Lost => Duty::Recover,
            EarlierLocks::Alive => Duty::BeginLife,
        },
        (None, Phase::Settled) if has_clients => Duty::Recover,
        (None, Phase::Settled) => Duty::BeginLife,
        (None, _) => Duty::Nothing,
        (Some(life), phase) if life == current => match phase.is_bound_to_a_life() {
            true if planted(Bug::ForgetResume) => Duty::Nothing,
            true => Duty::Resume,
            false => Duty::Nothing,
        },
        (Some(_), _) => Duty::Recover,
    }
}

/// Whether a service with this journal is adopted for good: its clients were told, and their locks live in the life that
/// runs. To adopt it again would drop them for nothing. A service whose adoption failed, so that clients lost their locks
/// untold, is adopted again when that is asked for: its clients still believe that they hold their locks, and reclaim them
/// once they are told.
#[must_use]
pub fn is_adopted(journal: &Journal, has_lost: bool, current: Option<&Incarnation>) -> bool {
    journal.phase == Phase::Settled
        && !has_failed(journal, has_lost)
        && journal.life.is_some()
        && journal.life.as_ref() == current
}

/// One service that this server holds, as far as its duties depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// How far its generation has come.
    pub journal: &'a Journal,
    /// The store knows clients of it.
    pub has_clients: bool,
    /// Its address has left this server, and its claim is being given up: the server that takes it next owes what is owed. A
    /// service whose address is still here is served here, also while its release is on.
    pub has_left: bool,
}

/// Whether the run that began the generation with this journal failed, as things are now. A self-adoption that failed matters as long
/// as clients are missed: it can't be asked for again.
#[must_use]
pub fn has_failed(journal: &Journal, has_missed: bool) -> bool {
    let matters = has_missed || journal.cause != Cause::OwnRestart;
    journal.phase == Phase::Failed || (journal.failure.is_some() && matters)
}

/// The duties towards all services of one lock manager together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owed {
    /// Services whose first life is the one that runs: to be noted, nothing else.
    pub fresh: Vec<ServiceName>,
    /// The run that may go on.
    pub resume: Option<String>,
    /// A run that was interrupted before it had recognised.
    pub redo: Option<Redo>,
    /// Services whose clients must be told by the next run, for their locks are gone. Services of a run that is to be
    /// resumed or done anew are among them, so that they are not left out where that can't be.
    pub lost: Vec<ServiceName>,
    /// Services of which it is not known whether their clients' locks are gone ([`EarlierLocks`]). A run that begins anyhow
    /// tells them too: inside grace that takes no lock from any client.
    pub unknown: Vec<ServiceName>,
}

/// The duties towards these services, in the life that runs.
#[must_use]
pub fn owed<'a>(
    holdings: impl IntoIterator<Item = Holding<'a>, IntoIter: Clone>,
    current: &Incarnation,
    reborn: bool,
    earlier_locks: EarlierLocks,
) -> Owed {
    let holdings = holdings.into_iter().filter(|holding| !holding.has_left);
    let mut owed = Owed::default();
    for holding in holdings.clone() {
        let service = || holding.service.clone();
        match duty(holding.journal, holding.has_clients, current, reborn, earlier_locks) {
            Duty::Nothing => {}
            Duty::BeginLife => owed.fresh.push(service()),
            Duty::FindOut => owed.unknown.push(service()),
            Duty::Recover => owed.lost.push(service()),
            Duty::Resume => {
                owed.lost.push(service());
                owed.resume.get_or_insert_with(|| holding.journal.run.clone());
            }
            Duty::Redo => {
                owed.lost.push(service());
                let redo = redo(holding.journal, &holdings);
                // A run that was to take services over comes first: it tells the clients of the others as well.
                if owed.redo.as_ref().is_none_or(|first| first.targets.is_empty()) {
                    owed.redo = Some(redo);
                }
            }
        }
    }
    owed
}

fn redo<'a>(journal: &Journal, holdings: &(impl Iterator<Item = Holding<'a>> + Clone)) -> Redo {
    let held = |service: &ServiceName| holdings.clone().any(|holding| holding.service == service);
    let targets = journal.members.iter().filter(|(service, part)| *part == Part::Target && held(service));
    let targets: Vec<ServiceName> = targets.map(|(service, _)| service.clone()).collect();
    // Without a service to take over no `--finish` comes: the run would wait for it in vain.
    let until = if targets.is_empty() { Until::Settled } else { journal.until };
    Redo { run: journal.run.clone(), targets, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServerName;
    use crate::takeover::Standing;

    fn life(start: &str) -> Incarnation {
        Incarnation { boot: "b".into(), start: start.into(), reopened: 0 }
    }

    fn journal(phase: Phase, life: Option<Incarnation>) -> Journal {
        let server = ServerName::parse("nfs-b").unwrap();
        Journal { phase, life, ..Journal::quiet("r", &server, 0) }
    }

    fn ask(phase: Phase, known: Option<&str>, has_clients: bool, reborn: bool) -> Duty {
        duty(&journal(phase, known.map(life)), has_clients, &life("2"), reborn, EarlierLocks::Unknown)
    }

    #[test]
    fn locks_that_died_with_another_life_are_recovered_in_whatever_phase() {
        for phase in [Phase::Settled, Phase::Notifying, Phase::Settling, Phase::Proved, Phase::Failed] {
            assert_eq!(ask(phase, Some("1"), true, false), Duty::Recover, "{phase}");
        }
    }

    #[test]
    fn in_the_same_life_a_run_goes_on_and_a_settled_service_is_left_alone() {
        assert_eq!(ask(Phase::Notifying, Some("2"), true, false), Duty::Resume);
        assert_eq!(ask(Phase::Settled, Some("2"), true, false), Duty::Nothing);
    }

    #[test]
    fn an_adopted_service_is_left_alone_and_one_whose_adoption_failed_is_adopted_again() {
        let good = journal(Phase::Settled, Some(life("2")));
        let failed = Journal { failure: Some("no address".into()), ..good.clone() };
        let own = Journal { cause: Cause::OwnRestart, ..failed.clone() };
        let (now, later) = (life("2"), life("3"));
        assert!(is_adopted(&good, false, Some(&now)) && is_adopted(&good, true, Some(&now)));
        assert!(!is_adopted(&good, false, Some(&later)) && !is_adopted(&good, false, None));
        assert!(!is_adopted(&failed, true, Some(&now)) && !is_adopted(&failed, false, Some(&now)));
        assert!(!is_adopted(&own, true, Some(&now)));
        assert!(is_adopted(&own, false, Some(&now)), "there was no client to tell");
        assert!(!is_adopted(&journal(Phase::Settled, None), false, None), "no life serves it");
        assert!(!is_adopted(&journal(Phase::Failed, Some(life("2"))), false, Some(&now)));
    }

    #[test]
    fn a_run_that_had_not_recognised_is_done_anew() {
        assert_eq!(ask(Phase::Claimed, None, true, false), Duty::Redo);
        assert_eq!(ask(Phase::Conveyed, None, false, true), Duty::Redo);
    }

    #[test]
    fn after_an_adoption_records_that_belong_to_no_life_are_told() {
        let service = ServiceName::parse("nfs").unwrap();
        let adopted = Journal { members: vec![(service, Part::Own)], ..journal(Phase::Settled, None) };
        for earlier_locks in [EarlierLocks::Unknown, EarlierLocks::Lost, EarlierLocks::Alive] {
            assert_eq!(duty(&adopted, true, &life("2"), false, earlier_locks), Duty::Recover);
        }
    }

    #[test]
    fn a_fresh_service_begins_a_life() {
        assert_eq!(ask(Phase::Settled, None, false, true), Duty::BeginLife);
    }

    #[test]
    fn clients_without_a_noted_life_are_told_only_where_they_may_have_locked_in_another() {
        let met = |earlier_locks, reborn| {
            duty(&journal(Phase::Settled, None), true, &life("2"), reborn, earlier_locks)
        };
        for reborn in [false, true] {
            assert_eq!(met(EarlierLocks::Unknown, reborn), Duty::FindOut);
            assert_eq!(met(EarlierLocks::told_by(Probe::NoAnswer), reborn), Duty::FindOut);
            assert_eq!(met(EarlierLocks::told_by(Probe::InGrace), reborn), Duty::Recover);
            assert_eq!(met(EarlierLocks::told_by(Probe::NotInGrace), reborn), Duty::BeginLife);
        }
    }

    #[test]
    fn a_run_that_begins_while_clients_have_no_noted_life_tells_them_too() {
        let owed = owed_to(
            &[("new", journal(Phase::Settled, None)), ("nfs", journal(Phase::Settled, Some(life("1"))))],
            false,
        );
        assert_eq!((names(&owed.unknown), names(&owed.lost)), (vec!["new"], vec!["nfs"]));
        let standing = Standing { lost: owed.lost, unknown: owed.unknown, ..Standing::default() };
        assert!(["nfs", "new"].iter().all(|name| standing.owes(&ServiceName::parse(name).unwrap())));
    }

    #[test]
    fn a_failed_run_waits_for_a_person_or_for_the_next_restart() {
        assert_eq!(ask(Phase::Failed, Some("2"), true, false), Duty::Nothing);
        assert_eq!(ask(Phase::Failed, None, true, false), Duty::Nothing);
        assert_eq!(ask(Phase::Failed, None, true, true), Duty::Recover);
        assert_eq!(ask(Phase::Failed, Some("2"), true, true), Duty::Recover);
    }

    fn owed_to(journals: &[(&str, Journal)], reborn: bool) -> Owed {
        let named: Vec<(ServiceName, &Journal)> =
            journals.iter().map(|(name, journal)| (ServiceName::parse(name).unwrap(), journal)).collect();
        let holdings = named.iter().map(|(service, journal)| Holding {
            service,
            journal,
            has_clients: true,
            has_left: false,
        });
        owed(holdings, &life("2"), reborn, EarlierLocks::Unknown)
    }

    fn names(services: &[ServiceName]) -> Vec<&str> {
        services.iter().map(ServiceName::as_str).collect()
    }

    #[test]
    fn a_self_adoption_that_was_interrupted_is_done_anew_for_the_same_services() {
        let mut interrupted = journal(Phase::Conveyed, None);
        interrupted.members = vec![(ServiceName::parse("nfs").unwrap(), Part::Own)];
        interrupted.until = Until::Prepared;
        let owed = owed_to(&[("nfs", interrupted)], false);
        let redo = owed.redo.unwrap();
        assert_eq!((redo.targets, redo.until), (vec![], Until::Settled), "no --finish would come");
        assert_eq!(names(&owed.lost), ["nfs"], "a run without it would tell no client");
    }

    #[test]
    fn an_adoption_that_was_interrupted_is_done_anew_for_what_is_still_ours() {
        let mut interrupted = journal(Phase::Claimed, None);
        interrupted.members = ["nfs", "gone", "own"]
            .into_iter()
            .map(|name| {
                (ServiceName::parse(name).unwrap(), if name == "own" { Part::Own } else { Part::Target })
            })
            .collect();
        let owed = owed_to(&[("nfs", interrupted.clone()), ("own", interrupted)], false);
        assert_eq!(owed.redo.map(|redo| redo.targets), Some(vec![ServiceName::parse("nfs").unwrap()]));
        assert_eq!(names(&owed.lost), ["nfs", "own"]);
    }

    #[test]
    fn a_run_that_was_to_take_over_is_done_anew_before_one_that_was_not() {
        let interrupted = |name: &str, part| {
            let service = ServiceName::parse(name).unwrap();
            Journal { members: vec![(service, part)], ..journal(Phase::Claimed, None) }
        };
        let owed =
            owed_to(&[("a", interrupted("a", Part::Own)), ("b", interrupted("b", Part::Target))], false);
        assert_eq!(owed.redo.map(|redo| redo.targets), Some(vec![ServiceName::parse("b").unwrap()]));
    }

    #[test]
    fn a_new_life_owes_the_clients_of_a_run_that_failed_in_the_life_before() {
        let failed = journal(Phase::Failed, None);
        assert_eq!(owed_to(&[("nfs", failed.clone())], false), Owed::default());
        assert_eq!(names(&owed_to(&[("nfs", failed)], true).lost), ["nfs"]);
    }

    #[test]
    fn a_service_that_is_given_away_and_whose_address_is_gone_is_owed_nothing() {
        let service = ServiceName::parse("nfs").unwrap();
        let journal = journal(Phase::Settled, Some(life("1")));
        let holding = Holding { service: &service, journal: &journal, has_clients: true, has_left: true };
        assert_eq!(owed([holding], &life("2"), true, EarlierLocks::Lost), Owed::default());
    }
}
