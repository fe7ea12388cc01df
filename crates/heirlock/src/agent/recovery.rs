//! The lives of the lock manager, and self-adoption: an owner whose lock manager begins another life adopts from itself.

use heirlock_core::Moment;
use heirlock_core::ServiceName;
use heirlock_core::claim::Authority;
use heirlock_core::duty::{Owed, Redo, Strangers, owed};
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::{Change, Incarnation};
use heirlock_core::takeover::{Cause, Event, Until};

use super::Agent;
use super::runs::Order;
use super::watch::Look;
use crate::control::report::{Problem, ProblemKind};
use crate::files::trusted;
use crate::limits;
use crate::store::{Change as StoreChange, journal_text};

/// What is known of clients that were recorded before any life of the lock manager was noted ([`Strangers`]).
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    /// What the lock manager's answer told, in the life that runs.
    told: Strangers,
    /// The life that runs began after an earlier look, and what follows from that isn't done yet.
    began_under_our_eyes: bool,
    /// When it was last asked.
    asked_at: Option<Moment>,
    /// Why the last answer told nothing.
    silent: Option<String>,
}

impl Meeting {
    fn strangers(&self) -> Strangers {
        if self.began_under_our_eyes { Strangers::Lost } else { self.told }
    }
}

impl Agent {
    /// The lock manager was looked at.
    pub(crate) fn observed(&mut self, look: Result<Look, String>) {
        let look = match look {
            Ok(look) => look,
            Err(why) => {
                tracing::warn!(why, "the lock manager can't be looked at: {why}");
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
            Change::Stopped => self.grace_seen.forget(),
            Change::Reborn(life) => {
                match since {
                    Some(_) => {
                        tracing::info!(%life, "another life of the lock manager begins ({life}): the locks of the one before are gone");
                    }
                    // Of locks of a life before it the look into the store knows.
                    None => tracing::info!(%life, "the lock manager runs, in the life {life}"),
                }
                match since {
                    Some(since) => self.grace_seen.note(&life, since, self.clock),
                    None => self.grace_seen.forget(),
                }
                self.reborn = true;
                self.meeting = Meeting { began_under_our_eyes: since.is_some(), ..Meeting::default() };
                if self.run.as_ref().is_some_and(|running| running.machine.phase().is_bound_to_a_life()) {
                    self.advance(Event::LifeChanged);
                }
            }
        }
    }

    /// Goes on with what was interrupted, and begins what a new life of the lock manager asks for.
    pub(crate) fn recover(&mut self, now: Moment) {
        if self.run.is_some()
            || !self.follower.runs()
            || !self.serving
            || self.health.error().is_some()
            || !self.holdings_known
        {
            return;
        }
        let Some(life) = self.follower.current().cloned() else { return };
        let owed = self.owed();
        self.give_life_to_fresh(&owed.fresh, &life);
        self.find_out_about(now, &owed.unknown, &life);
        if owed.resume.is_some_and(|run| self.resume_run(now, &run)) {
            return;
        }
        let any_lost = !owed.lost.is_empty();
        if any_lost {
            let lately = |at: Moment| now.since(at) < limits::REDO_INTERVAL;
            let order = match owed.redo {
                Some(_) if self.refused_at.is_some_and(lately) => return,
                Some(redo) => Order::redo(redo),
                None => Order::own_restart(),
            };
            if order.cause != Cause::OwnRestart && self.asked.is_some() {
                return; // it tells them as well, once it has claimed, and else this is begun
            }
            self.begin_run(now, order);
            // What grace was open for is being done. Whoever is met later is asked about again.
            if self.meeting.told == Strangers::Lost {
                self.meeting.told = Strangers::Unknown;
            }
        }
        // Where the run was refused, what the next one must tell of still depends on it.
        self.reborn &= any_lost && self.run.is_none();
        self.meeting.began_under_our_eyes &= self.reborn;
    }

    /// Asks the lock manager whether the clients of these services can have locked in a life before the one that runs.
    fn find_out_about(&mut self, now: Moment, unknown: &[ServiceName], life: &Incarnation) {
        let asked_lately = |at: Moment| now.since(at) < limits::ASK_GRACE_INTERVAL;
        if unknown.is_empty() || self.meeting.asked_at.is_some_and(asked_lately) {
            return;
        }
        if self.meeting.asked_at.replace(now).is_none() {
            tracing::info!(services = ?unknown, "{}: clients were recorded before a life of the lock manager was noted: it is asked whether grace is open", super::status::names(unknown));
        }
        self.workshop.ask_grace(life.clone());
    }

    /// The lock manager was asked whether grace is open.
    pub(crate) fn grace_asked(&mut self, life: &Incarnation, (answer, why): (Probe, String)) {
        if self.follower.current() != Some(life) {
            return; // another life has begun meanwhile
        }
        self.meeting.told = Strangers::told_by(answer);
        let silent = (self.meeting.told == Strangers::Unknown).then_some(why);
        let is_news = self.meeting.silent.is_some() != silent.is_some();
        self.meeting.silent = silent;
        match self.meeting.told {
            Strangers::Unknown if is_news => {
                let why = self.meeting.silent.as_deref().unwrap_or_default();
                for service in &self.owed().unknown {
                    tracing::warn!(%service, why, "{service}: its clients were there before this agent, and may have lost their locks; the lock manager doesn't say whether it is in grace: {why}");
                }
            }
            Strangers::Unknown => {}
            Strangers::Lost => tracing::info!("grace is open: the clients are told"),
            Strangers::AtHome => {
                tracing::info!("no grace is open: the clients' locks belong to the life that runs");
            }
        }
    }

    /// What `status` says of clients of whom nobody knows whether their locks are gone.
    pub(crate) fn stranger_problems(&self) -> Vec<Problem> {
        let Some(why) = &self.meeting.silent else { return Vec::new() };
        let problem =
            |service: &ServiceName| Problem::new(ProblemKind::GraceUnknown).of(service.as_str()).saying(why);
        self.owed().unknown.iter().map(problem).collect()
    }

    /// What is owed to the clients of all that is held, in the life that runs.
    pub(crate) fn owed(&self) -> Owed {
        let Some(life) = self.follower.current() else { return Owed::default() };
        let holdings = self.held.iter().map(|(service, held)| held.holding(service));
        owed(holdings, life, self.reborn, self.meeting.strangers())
    }

    /// The life that the store knows of, at the agent's start.
    pub(crate) fn known_life(&self) -> Option<Incarnation> {
        let boot = trusted::read_system("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let lives = self.held.values().filter_map(|held| held.journal.life.clone());
        lives.filter(|life| life.boot == boot.trim()).max_by_key(|life| life.reopened)
    }

    /// What was conveyed by a run that nobody goes on with is taken away again.
    pub(crate) fn tidy_conveyed(&mut self) {
        let unfinished = self.held.values().any(|held| !held.journal.phase.is_over());
        if unfinished || self.conveyor.placed().is_empty() {
            return;
        }
        self.take_conveyed_away();
    }

    /// A service without clients and without a life lives in the one that runs.
    fn give_life_to_fresh(&mut self, fresh: &[ServiceName], life: &Incarnation) {
        for (service, held) in self.held.iter_mut().filter(|(service, _)| fresh.contains(service)) {
            let mut journal = held.journal.clone();
            journal.life = Some(life.clone());
            let change = StoreChange::PutJournal(journal_text(&journal));
            match self.store.commit(service, held.claim.generation, &[change]) {
                Ok(()) => held.journal = journal,
                Err(error) => {
                    tracing::warn!(%service, %error, "{service}: the life of the lock manager could not be noted: {error}");
                }
            }
        }
    }
}

impl Order {
    /// A run that was interrupted before the lock manager recognised is begun anew: with a generation and a number of
    /// its own, for nothing proves what of it was done (I9).
    fn redo(redo: Redo) -> Self {
        tracing::info!(run = redo.run, targets = ?redo.targets, "{}: the run {} was interrupted and is begun anew", super::status::names(&redo.targets), redo.run);
        let own = Self::own_restart();
        let cause = if redo.targets.is_empty() { Cause::OwnRestart } else { Cause::Asked };
        Self { cause, targets: redo.targets, until: redo.until, ..own }
    }

    /// Nobody asked: the lock manager was restarted.
    fn own_restart() -> Self {
        Self {
            cause: Cause::OwnRestart,
            targets: Vec::new(),
            until: Until::Settled,
            authority: Authority::default(),
            waiting: Vec::new(),
            // It was accepted before, or nobody asks for it.
            insists: true,
            before: Vec::new(),
            primary_lost: None,
        }
    }
}

#[cfg(test)]
mod tests;
