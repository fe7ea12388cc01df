//! Answers that wait for the status that follows from them. A caller that hears of an end, and asks for the status then, is told of
//! nothing that was before it.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Failure, Progress, Respond, Responder};

/// Answers that were given in this turn of the agent's loop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<Held>>>);

/// One of them, and the responder that it goes to.
type Held = (Responder, Result<Answer, Failure>);

/// One whose answer waits.
#[derive(Debug)]
struct Waiting {
    responder: Responder,
    outbox: Outbox,
}

impl Outbox {
    /// The same responder, whose answer waits here.
    pub(crate) fn hold(&self, responder: Responder) -> Responder {
        Responder::new(Waiting { responder, outbox: self.clone() })
    }

    /// The status is published: they are sent.
    pub(crate) fn send(&self) {
        let answered = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (to, answer) in answered {
            match answer {
                Ok(answer) => to.done(answer),
                Err(failure) => to.fail(failure),
            }
        }
    }
}

impl Respond for Waiting {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.responder.progress(progress)
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let Self { responder, outbox } = *self;
        outbox.0.lock().unwrap_or_else(PoisonError::into_inner).push((responder, answer));
    }
}

#[cfg(test)]
mod tests {
    use crate::control::{Line, heard};

    use super::*;

    #[test]
    fn an_answer_waits_for_the_status_and_progress_does_not() {
        let outbox = Outbox::default();
        let (responder, lines) = heard();
        let mut responder = outbox.hold(responder);
        let phase = heirlock_core::takeover::Phase::Claimed;
        let progress = Progress { phase, clients: 3, answered: 1, wait: None, told: Vec::new() };
        assert!(responder.progress(&progress));
        assert!(matches!(lines.try_recv(), Ok(Line::Progress(_))));
        responder.done(Answer::unchanged(None, "as it was"));
        assert!(lines.try_recv().is_err(), "the status is not published yet");
        outbox.send();
        assert!(matches!(lines.try_recv(), Ok(Line::Done(_))));
        assert!(lines.recv().is_err(), "and that is the end of it");
    }
}
