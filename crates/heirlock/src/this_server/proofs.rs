//! Proofs that grace is open, while clients are told: the lock manager is asked in threads, and the notifier waits for none of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::grace::{Grace, Leave, Probe, Questions};

use crate::clock::Clock;
use crate::host::Host;

/// How long the notifier sleeps at most where nothing may leave without a proof. Answers of clients wait in its sockets meanwhile.
const PATIENCE: Duration = Duration::from_millis(20);

/// A question to the lock manager, first through these addresses of this server.
type Ask = Arc<dyn Fn(&[IpAddr]) -> Probe + Send + Sync>;

/// The proofs for one notification.
pub(crate) struct Proofs {
    host: Host,
    clock: Clock,
    ask: Ask,
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
    /// Of this grace period, for which the lock manager is asked in this way. A question may take its time.
    pub(crate) fn of(
        grace: Grace,
        host: &Host,
        clock: Clock,
        ask: impl Fn(&[IpAddr]) -> Probe + Send + Sync + 'static,
    ) -> Self {
        let (answer, answers) = channel();
        let (host, ask, questions) = (host.clone(), Arc::new(ask), Questions::default());
        Self { host, clock, ask, grace, questions, answer, answers }
    }

    /// Whether a notification may leave now. Begins a question where one is due, first through the addresses that `first` names then.
    pub(crate) fn leave(&mut self, first: impl FnOnce() -> Vec<IpAddr>) -> Leave {
        while let Ok(answer) = self.answers.try_recv() {
            self.take_in(answer);
        }
        if self.questions.begins(self.clock.now(), &self.grace) {
            self.begin(first());
        }
        if self.grace.leave(self.clock.now()) == Leave::ProveFirst
            && let Ok(answer) = self.answers.recv_timeout(PATIENCE)
        {
            self.take_in(answer);
        }
        self.grace.leave(self.clock.now())
    }

    fn take_in(&mut self, (at, found): (Moment, Probe)) {
        self.questions.ended();
        self.grace.prove(at, found);
    }

    fn begin(&self, first: Vec<IpAddr>) {
        let asked = Asked { clock: self.clock, found: Probe::NoAnswer, answer: self.answer.clone() };
        let ask = Arc::clone(&self.ask);
        let begun = self.host.start("grace", move || asked.answer(ask(&first)));
        if let Err(error) = begun {
            tracing::error!(%error, "whether grace is open is not asked now: {error}");
        }
    }
}
