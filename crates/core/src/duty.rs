//! What a server owes the clients of a service that it holds, now that this life of its lock manager runs.
//!
//! It is asked after every start of the agent and after every look at the lock manager, so that whatever was interrupted,
//! by a kill of the agent, a restart of NFS or a reboot, is finished by whoever comes next (I9).

use crate::incarnation::Incarnation;
use crate::takeover::{Journal, Phase};

/// What is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Its clients' locks live in the lock manager that runs, or there are none.
    Nothing,
    /// It has no clients and was never served: the life that runs is simply its first.
    BeginLife,
    /// Its clients were being told in this very life: the same run may go on, with its numbers and outcomes.
    Resume,
    /// An adoption was interrupted before the lock manager recognised: nothing proves what of it was done, so it is done
    /// anew, under a new generation and number.
    Redo,
    /// Its locks died with another life than the one that runs: self-adoption.
    Recover,
}

/// What is owed to the clients of a service with this journal.
///
/// `has_clients` says whether the store knows any; `reborn` whether the life that runs began under our eyes, and
/// nothing was done about it yet.
#[must_use]
pub fn duty(journal: &Journal, has_clients: bool, current: &Incarnation, reborn: bool) -> Duty {
    match (&journal.life, journal.phase) {
        (None, Phase::Claimed | Phase::Conveyed) => Duty::Redo,
        // What failed was said and is a person's to repeat; a restart of the lock manager is another matter.
        (_, Phase::Failed) if reborn => Duty::Recover,
        (None, Phase::Settled) if has_clients => Duty::Recover,
        (None, Phase::Settled) => Duty::BeginLife,
        (None, _) => Duty::Nothing,
        (Some(life), phase) if life == current => match phase.is_bound_to_a_life() {
            true => Duty::Resume,
            false => Duty::Nothing,
        },
        (Some(_), _) => Duty::Recover,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServerName;

    fn life(start: &str) -> Incarnation {
        Incarnation { boot: "b".into(), start: start.into(), reopened: 0 }
    }

    fn journal(phase: Phase, life: Option<Incarnation>) -> Journal {
        let server = ServerName::parse("nfs-b").unwrap();
        Journal { phase, life, ..Journal::quiet("r", &server, 0) }
    }

    fn ask(phase: Phase, known: Option<&str>, has_clients: bool, reborn: bool) -> Duty {
        duty(&journal(phase, known.map(life)), has_clients, &life("2"), reborn)
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
    fn what_was_not_recognised_is_done_anew() {
        assert_eq!(ask(Phase::Claimed, None, true, false), Duty::Redo);
        assert_eq!(ask(Phase::Conveyed, None, false, true), Duty::Redo);
    }

    #[test]
    fn records_that_belong_to_no_life_are_told_and_a_fresh_service_begins_one() {
        assert_eq!(ask(Phase::Settled, None, true, false), Duty::Recover);
        assert_eq!(ask(Phase::Settled, None, false, true), Duty::BeginLife);
    }

    #[test]
    fn what_failed_waits_for_a_person_or_for_the_next_restart() {
        assert_eq!(ask(Phase::Failed, Some("2"), true, false), Duty::Nothing);
        assert_eq!(ask(Phase::Failed, None, true, false), Duty::Nothing);
        assert_eq!(ask(Phase::Failed, None, true, true), Duty::Recover);
        assert_eq!(ask(Phase::Failed, Some("2"), true, true), Duty::Recover);
    }
}
