//! Proofs that grace is open, while clients are told: the lock manager is asked in threads, and the notifier waits for none of them.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::grace::{Grace, Leave, Probe, Questions};

use super::work::Workshop;
use crate::clock::Clock;
use crate::limits;

/// How long the notifier sleeps at most where nothing may leave without a proof. Answers of clients wait in its sockets meanwhile.
const PATIENCE: Duration = Duration::from_millis(20);

/// The proofs for one notification.
pub(crate) struct Proofs {
    grace: Grace,
    questions: Questions,
    answer: Sender<(Moment, Probe)>,
    answers: Receiver<(Moment, Probe)>,
}

/// A question that is asked: its end is told once, also where its thread has a fault.
struct Asked {
    clock: Clock,
    found: Probe,
    answer: Sender<(Moment, Probe)>,
}

impl Asked {
    fn answer(mut self, found: Probe) {
        self.found = found;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The notification may be over.
        let _ = self.answer.send((self.clock.now(), self.found));
    }
}

impl Proofs {
    /// Of this grace period.
    pub(crate) fn of(grace: Grace) -> Self {
        let (answer, answers) = channel();
        Self { grace, questions: Questions::default(), answer, answers }
    }

    /// Whether a notification may leave now. Begins a question where one is due; `first` are the addresses of this server that are
    /// tried before its others.
    pub(crate) fn leave(&mut self, shop: &Workshop, first: impl FnOnce() -> Vec<IpAddr>) -> Leave {
        while let Ok(answer) = self.answers.try_recv() {
            self.take_in(answer);
        }
        if self.questions.begins(shop.clock.now(), &self.grace) {
            self.ask(shop, first());
        }
        if self.grace.leave(shop.clock.now()) == Leave::ProveFirst
            && let Ok(answer) = self.answers.recv_timeout(PATIENCE)
        {
            self.take_in(answer);
        }
        self.grace.leave(shop.clock.now())
    }

    fn take_in(&mut self, (at, found): (Moment, Probe)) {
        self.questions.ended();
        self.grace.prove(at, found);
    }

    fn ask(&self, shop: &Workshop, first: Vec<IpAddr>) {
        let (clock, answer) = (shop.clock, self.answer.clone());
        let (asker, asked) = (shop.clone(), Asked { clock, found: Probe::NoAnswer, answer });
        let begun = shop.host.start("grace", move || {
            asked.answer(asker.probe_through(&first, limits::PROBE_AMONG_RECLAIMS_TIME_MAX).0);
        });
        if let Err(error) = begun {
            tracing::error!(%error, "whether grace is open is not asked now: {error}");
        }
    }
}
