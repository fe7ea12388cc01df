//! Answers that wait for the status that follows from them. A caller that hears of an end, and asks for the status then, is told of
//! nothing that was before it.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::Line;

/// Answers that were given in this turn of the agent's loop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<Held>>>);

/// One of them, and where it goes.
type Held = (Sender<Line>, Line);

impl Outbox {
    /// The status is published: they are sent.
    pub(crate) fn send(&self) {
        for (to, line) in std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            // The client may be gone. What was done is done.
            let _ = to.send(line);
        }
    }

    pub(super) fn put(&self, to: Sender<Line>, line: Line) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((to, line));
    }
}

#[cfg(test)]
mod tests {
    use crate::control::{Answer, Responder};

    use super::*;

    #[test]
    fn an_answer_waits_for_the_status_and_progress_does_not() {
        let outbox = Outbox::default();
        let (responder, lines) = Responder::heard();
        let mut responder = responder.held_in(&outbox);
        let phase = heirlock_core::takeover::Phase::Claimed;
        let progress =
            crate::control::Progress { phase, clients: 3, answered: 1, wait: None, told: Vec::new() };
        assert!(responder.progress(&progress));
        assert!(matches!(lines.try_recv(), Ok(Line::Progress(_))));
        responder.done(Answer::unchanged(None, "as it was"));
        assert!(lines.try_recv().is_err(), "the status is not published yet");
        outbox.send();
        assert!(matches!(lines.try_recv(), Ok(Line::Done(_))));
        assert!(lines.recv().is_err(), "and that is the end of it");
    }
}
