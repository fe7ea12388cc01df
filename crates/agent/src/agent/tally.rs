//! Counts of answered requests: counted where the answer leaves, for every part of the agent that gives one.

use std::sync::{Arc, OnceLock};

use crate::control::report::observed::{Answers, Requests};
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
    answered: Arc<OnceLock<How>>,
}

/// The counts of one verb.
type Verb = fn(&mut Requests) -> &mut Answers;

/// How a request was answered.
#[derive(Debug, Clone, Copy)]
enum How {
    Done,
    Unchanged,
    Refused,
    Failed,
}

/// Answers one request, and notes how.
#[derive(Debug)]
struct Noted {
    responder: Responder,
    answered: Arc<OnceLock<How>>,
}

impl Tally {
    /// Answers as this responder does, and counts that. A status is no verb that does anything, and is not counted.
    pub(crate) fn counted(&mut self, request: &Request, responder: Responder) -> Responder {
        let verb: Verb = match request {
            Request::Status | Request::Past => return responder,
            Request::Adopt { .. } => |requests| &mut requests.adopt,
            Request::Release { .. } => |requests| &mut requests.release,
            Request::Failback { .. } => |requests| &mut requests.failback,
            Request::Maintenance { .. } => |requests| &mut requests.maintenance,
            Request::Forget { .. } => |requests| &mut requests.forget,
            Request::Report { .. } => |requests| &mut requests.report,
        };
        verb(&mut self.counted).asked_total += 1;
        let answered = Arc::default();
        self.open.push(Open { verb, answered: Arc::clone(&answered) });
        Responder::new(Noted { responder, answered })
    }

    /// Counts those that were answered. One whose caller went away before is not heard of again.
    pub(crate) fn settle(&mut self) {
        let Self { counted, open } = self;
        open.retain(|one| match one.answered.get() {
            Some(how) => {
                how.counted_in((one.verb)(counted));
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
                how.counted_in((one.verb)(&mut requests));
            }
        }
        requests
    }
}

impl How {
    fn of(answer: &Result<Answer, Failure>) -> Self {
        match answer {
            Ok(Answer::Verb { changed: false, .. }) => Self::Unchanged,
            Ok(_) => Self::Done,
            Err(failure) if failure.refused => Self::Refused,
            Err(_) => Self::Failed,
        }
    }

    fn counted_in(self, answers: &mut Answers) {
        *match self {
            Self::Done => &mut answers.done_total,
            Self::Unchanged => &mut answers.unchanged_total,
            Self::Refused => &mut answers.refused_total,
            Self::Failed => &mut answers.failed_total,
        } += 1;
    }
}

impl Respond for Noted {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.responder.progress(progress)
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let _ = self.answered.set(How::of(&answer));
        self.responder.end(&answer);
    }
}
