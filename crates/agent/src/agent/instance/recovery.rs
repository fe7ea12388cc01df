//! The lives of the lock manager, and self-adoption: an owner whose lock manager begins another life adopts from itself.

use std::collections::BTreeSet;

use heirlock_core::Moment;
use heirlock_core::RecordKey;
use heirlock_core::ServiceName;
use heirlock_core::duty::{EarlierLocks, Holding, Owed};
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::{Incarnation, newest_of};
use heirlock_core::lives::{Begun, Next};
use heirlock_core::store::Change as StoreChange;
use heirlock_core::takeover::Event;

use super::Instance;
use crate::agent::common::Common;
use crate::agent::grace::GraceInquiry;
use crate::agent::look::Look;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::Commission;
use crate::agent::status;
use crate::agent::work::{RunNumber, Work};
use crate::control::report::{Problem, ProblemKind};
use crate::words::counted;

impl<O: Outside> Instance<O> {
    /// The lock manager was looked at.
    pub(crate) fn observed(&mut self, server: &mut Common<O>, look: Result<Look, String>) {
        let look = match look {
            Ok(look) => look,
            Err(why) => {
                tracing::warn!(why, "the lock manager can't be looked at: {why}");
                return;
            }
        };
        if let Some(begun) = self.lives.looked(look.at, &look.observation) {
            self.life_began(server, &begun);
        }
        if let Some(life) = self.lives.seen_closed(&look.observation) {
            self.grace_note.closed(life, look.at, &mut self.outside, server.clocks());
        }
    }

    /// Whether something is decided by the next looks at the lock manager: a run is on or owed, a service is being given up, a
    /// deletion waits to be believed, or no lock manager is known to run.
    pub(super) fn rests_upon_looks(&self) -> bool {
        self.run.is_some()
            || !self.asked.is_empty()
            || self.releases_are_on()
            || self.lives.is_reborn()
            || self.lives.running().is_none()
            || self.held.values().any(|held| held.ledger.next_tombstone_due().is_some())
    }

    /// Another life of the lock manager began, without a run that made it so.
    pub(crate) fn life_began(&mut self, server: &mut Common<O>, Begun { life, since }: &Begun) {
        match since {
            Some(since) => {
                tracing::info!(%life, "another life of the lock manager begins ({life}): the locks of the one before are gone");
                self.grace_note.opened(life, *since, &mut self.outside, server.clocks());
            }
            // Of locks of a life before it the look into the store knows.
            None => tracing::info!(%life, "the lock manager runs, in the life {life}"),
        }
        self.grace_inquiry = GraceInquiry::default();
        if self.run.as_ref().is_some_and(|running| running.machine.heeds_lives()) {
            self.advance(server, Event::LifeChanged);
        }
    }

    /// Goes on with what was interrupted, and begins what a new life of the lock manager asks for.
    pub(crate) fn recover(&mut self, server: &mut Common<O>, now: Moment) {
        if self.run.is_some() || server.health().error().is_some() || !self.holdings_known {
            return;
        }
        let Some(life) = self.lives.to_recover_in() else { return };
        let owed = self.owed();
        // Most turns find neither.
        if !owed.fresh.is_empty() || !owed.unknown.is_empty() {
            let life = life.clone();
            self.give_life_to_fresh(server, &owed.fresh, &life);
            self.find_out_about(now, &owed.unknown, &life);
        }
        if owed.resume.as_ref().is_some_and(|run| self.resume_run(server, now, run)) {
            return;
        }
        let next = self.lives.next(now, &owed, !self.asked.is_empty());
        let began = match next {
            Next::Later => return,
            Next::Nothing => false,
            Next::Begin(order) => {
                if let Some(redo) = &owed.redo {
                    tracing::info!(run = redo.run, targets = ?redo.targets, "{}: the run {} was interrupted and is begun anew", status::names(&redo.targets), redo.run);
                }
                self.begin_run(server, now, Commission::unasked(order));
                true
            }
        };
        self.lives.followed_up(began, self.run.is_some());
    }

    /// Asks the lock manager whether the clients of these services can have locked in a life before the one that runs.
    fn find_out_about(&mut self, now: Moment, unknown: &[ServiceName], life: &Incarnation) {
        if unknown.is_empty() {
            return;
        }
        let Some(is_first) = self.grace_inquiry.asks(now) else { return };
        if is_first {
            tracing::info!(services = ?unknown, "{}: clients were recorded before a life of the lock manager was noted: it is asked whether grace is open", status::names(unknown));
        }
        self.outside.begin(Work::AskGrace(life.clone()));
    }

    /// The lock manager was asked whether grace is open.
    pub(crate) fn grace_asked(&mut self, life: &Incarnation, (answer, why): (Probe, String)) {
        let Some(told) = self.lives.told_of_earlier_locks(life, answer) else {
            return; // another life has begun meanwhile
        };
        let silent = (told == EarlierLocks::Unknown).then_some(why);
        let is_news = self.grace_inquiry.told(silent);
        match told {
            EarlierLocks::Unknown if is_news => {
                let why = self.grace_inquiry.silent().unwrap_or_default();
                for service in &self.owed().unknown {
                    tracing::warn!(%service, why, "{service}: its clients were there before this agent, and may have lost their locks; the lock manager doesn't say whether it is in grace: {why}");
                }
            }
            EarlierLocks::Unknown => {}
            EarlierLocks::Lost => tracing::info!("grace is open: the clients are told"),
            EarlierLocks::Alive => {
                tracing::info!("no grace is open: the clients' locks belong to the life that runs");
            }
        }
    }

    /// Grace is not proved to be open, and this server exports nothing. Clients on record with services that are not this server's
    /// are theirs to tell: a record belongs to every service of the lock manager that was left, and so to this server's own.
    pub(crate) fn serves_nobody(&mut self, server: &mut Common<O>, run: RunNumber, why: String) {
        let elsewhere = self.clients_elsewhere(server);
        if let Some(running) = self.running(run) {
            let count = running.machine.leave_to_others(&elsewhere);
            if count > 0 {
                tracing::info!(
                    count,
                    "nothing is exported here: {} on record with services that are not this server's, and not told by it",
                    are(count)
                );
            }
        }
        self.worked_for(server, run, Event::Proved(Err(why)));
    }

    /// The clients on record with services of this lock manager that this server does not hold, as far as the store can tell.
    fn clients_elsewhere(&self, server: &Common<O>) -> BTreeSet<RecordKey> {
        let services = self.others.iter().filter(|(service, _)| !self.held.contains_key(*service));
        let accounts = services.filter_map(|(service, claim)| {
            let begun = server.store().newest_generation(service, claim.generation).ok()??;
            server.store().account(service, begun).ok()
        });
        accounts.flat_map(|account| account.keys).collect()
    }

    /// The problems, for `status`, with clients of which it is not known whether their locks are gone.
    pub fn earlier_lock_problems(&self) -> Vec<Problem> {
        let Some(why) = self.grace_inquiry.silent() else { return Vec::new() };
        let problem =
            |service: &ServiceName| Problem::new(ProblemKind::GraceUnknown).of(service.as_str()).saying(why);
        self.owed().unknown.iter().map(problem).collect()
    }

    /// The duties towards the clients of all services that are held, in the life that runs.
    pub(crate) fn owed(&self) -> Owed {
        self.lives.owed(self.holdings())
    }

    /// All that is held, as far as duties depend on it.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = Holding<'_>> + Clone {
        self.held.iter().map(|(service, held)| held.holding(service, self.releases.has_no_address(service)))
    }

    /// The life that the store knows of, at the agent's start.
    pub(crate) fn known_life(&self, server: &Common<O>) -> Option<Incarnation> {
        let boot = server.outside().boot()?;
        let lives = self.held.values().filter_map(|held| held.journal.life.as_ref());
        newest_of(&boot, lives).cloned()
    }

    /// Takes the records away that were conveyed by a run which does not go on: once, when all that this server holds is known.
    /// A person may work with those of a run that goes on.
    pub(crate) fn tidy_conveyed(&mut self, server: &mut Common<O>) {
        if !self.unread.is_empty() || std::mem::replace(&mut self.is_tidied, true) {
            return;
        }
        let unfinished = self.held.values().any(|held| !held.journal.phase.is_over());
        if unfinished || self.outside.placed().is_empty() {
            return;
        }
        self.take_conveyed_away(server);
    }

    /// A service without clients and without a life lives in the one that runs.
    fn give_life_to_fresh(&mut self, server: &Common<O>, fresh: &[ServiceName], life: &Incarnation) {
        for (service, held) in self.held.iter_mut().filter(|(service, _)| fresh.contains(service)) {
            let mut journal = held.journal.clone();
            journal.life = Some(life.clone());
            let change = StoreChange::PutJournal(Box::new(journal.clone()));
            match server.store().commit(service, &held.claim, &[change]) {
                Ok(()) => held.journal = journal,
                Err(error) => {
                    tracing::warn!(%service, %error, "{service}: the life of the lock manager could not be noted: {error}");
                }
            }
        }
    }
}

fn are(count: usize) -> String {
    format!("{} {}", counted(count, "client"), if count == 1 { "is" } else { "are" })
}
