//! Counts of answered requests: counted where the answer leaves, for every part of the agent that gives one.

use std::sync::{Arc, OnceLock};

use crate::control::report::observed::{Requests, Verb, VerbEnd};
use crate::control::{Answer, Failure, Progress, Request, Respond, Responder};

/// How the requests of each verb were answered.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counted: Requests,
    /// Requests that are not counted as answered yet: as many as there are connections.
    open: Vec<Open>,
}

/// A request whose answer is not counted yet.
#[derive(Debug)]
struct Open {
    verb: Verb,
    /// How it was answered, once it is.
    answered: Arc<OnceLock<VerbEnd>>,
}

/// Answers one request, and notes how.
#[derive(Debug)]
struct Noted {
    responder: Responder,
    answered: Arc<OnceLock<VerbEnd>>,
}

impl Tally {
    /// Answers as this responder does, and counts that. A status is no verb that does anything, and is not counted.
    pub(crate) fn counted(&mut self, request: &Request, responder: Responder) -> Responder {
        let Some(verb) = request.verb() else { return responder };
        self.counted.of_mut(verb).asked_total += 1;
        let answered = Arc::default();
        self.open.push(Open { verb, answered: Arc::clone(&answered) });
        Responder::new(Noted { responder, answered })
    }

    /// Counts those that were answered. One whose caller went away before is not heard of again.
    pub(crate) fn settle(&mut self) {
        let Self { counted, open } = self;
        open.retain(|one| match one.answered.get() {
            Some(how) => {
                *counted.of_mut(one.verb).of_mut(*how) += 1;
                false
            }
            None => Arc::strong_count(&one.answered) > 1,
        });
    }

    /// The counts.
    pub(crate) fn requests(&self) -> Requests {
        let mut requests = self.counted.clone();
        for one in &self.open {
            if let Some(how) = one.answered.get() {
                *requests.of_mut(one.verb).of_mut(*how) += 1;
            }
        }
        requests
    }
}

fn end_of(answer: &Result<Answer, Failure>) -> VerbEnd {
    match answer {
        Ok(Answer::Verb { changed: false, .. } | Answer::Moved { changed: false, .. }) => VerbEnd::Unchanged,
        Ok(_) => VerbEnd::Done,
        Err(failure) if failure.refused => VerbEnd::Refused,
        Err(_) => VerbEnd::Failed,
    }
}

impl Respond for Noted {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.responder.progress(progress)
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let _ = self.answered.set(end_of(&answer));
        self.responder.end(&answer);
    }
}
