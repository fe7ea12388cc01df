//! Where the answer to a request goes. The agent hands its words over, and never waits for the client that asked.

use std::fmt;

use super::{Answer, Failure, Progress};

/// The connection of one request. No method waits for the client.
pub trait Respond: fmt::Debug + Send {
    /// Says how far it is; `false` where no client listens any more. A client that reads slowly may miss some of it.
    fn progress(&mut self, progress: &Progress) -> bool;

    /// Says how it ended. The client may be gone: the work that was done is done.
    fn end(self: Box<Self>, answer: Result<Answer, Failure>);
}

/// Answers one request.
#[derive(Debug)]
pub struct Responder(Box<dyn Respond>);

/// The end of a connection that no client waits at.
#[derive(Debug)]
struct NoClient;

impl Respond for NoClient {
    fn progress(&mut self, _: &Progress) -> bool {
        false
    }

    fn end(self: Box<Self>, _: Result<Answer, Failure>) {}
}

impl Responder {
    /// A responder that answers over this connection.
    pub fn new(connection: impl Respond + 'static) -> Self {
        Self(Box::new(connection))
    }

    /// For work that goes on although no client waits for it.
    #[must_use]
    pub fn without_client() -> Self {
        Self::new(NoClient)
    }

    /// Says how far it is; `false` where no client listens any more.
    pub fn progress(&mut self, progress: &Progress) -> bool {
        self.0.progress(progress)
    }

    /// It is done.
    pub fn done(self, answer: Answer) {
        self.0.end(Ok(answer));
    }

    /// A run that was waited for is over, for this one and perhaps for others.
    pub fn end(self, answer: &Result<Answer, Failure>) {
        self.0.end(answer.clone());
    }

    /// It is not done.
    pub fn failed(self, message: &str, refused: bool) {
        self.fail(Failure { message: message.to_owned(), refused, report: None, missing: Vec::new() });
    }

    /// It is not done, and this is known.
    pub fn fail(self, failure: Failure) {
        self.0.end(Err(failure));
    }
}
