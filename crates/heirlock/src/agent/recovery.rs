//! The lives of the lock manager, and self-adoption: an owner whose lock manager begins another life adopts from itself.

use heirlock_core::Moment;
use heirlock_core::ServiceName;
use heirlock_core::claim::Authority;
use heirlock_core::duty::Duty;
use heirlock_core::incarnation::{Change, Incarnation};
use heirlock_core::takeover::{Cause, Event, Part, Until};

use super::Agent;
use super::holdings::Held;
use super::runs::Order;
use super::watch::Look;
use crate::store::{Change as StoreChange, journal_text};

impl Agent {
    /// The lock manager was looked at.
    pub(crate) fn observed(&mut self, look: Result<Look, String>) {
        let look = match look {
            Ok(look) => look,
            Err(why) => {
                tracing::warn!(why, "the lock manager can't be looked at");
                return;
            }
        };
        let looked_before = self.looked_at.replace(look.at);
        self.serving = look.observation.serving;
        let change = self.follower.observe(&look.observation);
        // It began after the look before. Where there was none, nothing is known of its age.
        self.life_changed(change, looked_before);
    }

    /// What became of the life of the lock manager, without a run that made it so. A new one began after `since`.
    pub(crate) fn life_changed(&mut self, change: Change, since: Option<Moment>) {
        match change {
            Change::Same => {}
            Change::Stopped => self.grace_seen = None,
            Change::Reborn(life) => {
                tracing::info!(%life, "another life of the lock manager begins: the locks of the one before are gone");
                self.grace_seen = since;
                self.reborn = true;
                if self.run.as_ref().is_some_and(|running| running.machine.phase().is_bound_to_a_life()) {
                    self.advance(Event::LifeChanged);
                }
            }
        }
    }

    /// Goes on with what was interrupted, and begins what a new life of the lock manager asks for.
    pub(crate) fn recover(&mut self, now: Moment) {
        if self.run.is_some() || !self.follower.runs() || !self.serving || self.health.error().is_some() {
            return;
        }
        let Some(life) = self.follower.current().cloned() else { return };
        self.give_life_to_fresh(&life);
        if self.resume_run(now, &life) || self.redo_interrupted(now, &life) {
            return;
        }
        let lost = self.to_recover(&life);
        self.reborn = false;
        if lost.is_empty() {
            return;
        }
        self.rebooted |= lost.iter().any(|service| self.died_with_the_boot(service, &life));
        self.begin_run(now, Order::own_restart());
    }

    /// Services whose locks are gone with the life that they lived in.
    pub(crate) fn to_recover(&self, life: &Incarnation) -> Vec<ServiceName> {
        // What can't be resumed is recovered: `recover` has tried to.
        let lost = |held: &Held| matches!(held.duty(life, self.reborn), Duty::Recover | Duty::Resume);
        self.held.iter().filter(|(_, held)| lost(held)).map(|(service, _)| service.clone()).collect()
    }

    /// The life that the store knows of, at the agent's start.
    pub(crate) fn known_life(&self) -> Option<Incarnation> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let lives = self.held.values().filter_map(|held| held.journal.life.clone());
        lives.filter(|life| life.boot == boot.trim()).max_by_key(|life| life.reopened)
    }

    /// What was conveyed by a run that nobody goes on with is taken away again.
    pub(crate) fn tidy_conveyed(&mut self) {
        let unfinished = self.held.values().any(|held| !held.journal.phase.is_over());
        if unfinished || self.conveyor.placed().is_empty() {
            return;
        }
        if let Err(error) = self.conveyor.clean_up() {
            tracing::warn!(%error, "records conveyed by an earlier run could not all be taken away");
        }
    }

    /// A service without clients and without a life lives in the one that runs.
    fn give_life_to_fresh(&mut self, life: &Incarnation) {
        let fresh = self.held.iter_mut().filter(|(_, held)| held.duty(life, false) == Duty::BeginLife);
        for (service, held) in fresh {
            let mut journal = held.journal.clone();
            journal.life = Some(life.clone());
            let change = StoreChange::PutJournal(journal_text(&journal));
            match self.store.commit(service, held.claim.generation, &[change]) {
                Ok(()) => held.journal = journal,
                Err(error) => {
                    tracing::warn!(%service, %error, "the life of the lock manager could not be noted");
                }
            }
        }
    }

    /// A run that was interrupted before the lock manager recognised is begun anew: with a generation and a number of
    /// its own, for nothing proves what of it was done (I9).
    fn redo_interrupted(&mut self, now: Moment, life: &Incarnation) -> bool {
        let Some(held) = self.held.values().find(|held| held.duty(life, self.reborn) == Duty::Redo) else {
            return false;
        };
        let journal = held.journal.clone();
        let targets: Vec<ServiceName> = journal
            .members
            .iter()
            .filter(|(service, part)| *part == Part::Target && self.held.contains_key(service))
            .map(|(service, _)| service.clone())
            .collect();
        tracing::info!(run = journal.run, ?targets, "a run that was interrupted is begun anew");
        let order = Order {
            cause: if targets.is_empty() { Cause::OwnRestart } else { Cause::Asked },
            targets,
            until: journal.until,
            authority: Authority::default(),
            waiting: Vec::new(),
            primary_lost: None,
        };
        self.begin_run(now, order);
        true
    }

    fn died_with_the_boot(&self, service: &ServiceName, life: &Incarnation) -> bool {
        let known = self.held.get(service).and_then(|held| held.journal.life.as_ref());
        known.is_some_and(|known| known.boot != life.boot)
    }
}

impl Order {
    /// Nobody asked: the lock manager was restarted.
    fn own_restart() -> Self {
        Self {
            cause: Cause::OwnRestart,
            targets: Vec::new(),
            until: Until::Settled,
            authority: Authority::default(),
            waiting: Vec::new(),
            primary_lost: None,
        }
    }
}
