//! A caller that waits for a run, and the adoption that it asks for.

use heirlock_core::takeover::{Milestone, Takeover};
use heirlock_core::{Moment, ServiceName};

use crate::control::{AnswerWhen, Fenced, Responder};

/// How an adoption was asked for.
#[derive(Debug)]
pub struct Adoption {
    pub service: ServiceName,
    pub prepare: bool,
    pub fenced: Option<Fenced>,
    pub insisted: bool,
    /// The events that led to it, for its timeline.
    pub before: Vec<(Milestone, Moment)>,
}

/// A caller that waits for a run.
#[derive(Debug)]
pub struct Waiting {
    /// It waits for this service's clients, and for no other one's that is taken over besides.
    pub service: ServiceName,
    pub responder: Responder,
    pub until: AnswerWhen,
}

impl Waiting {
    /// Whether the run has come as far as this one waits for. The end of a run ends every wait.
    pub(crate) fn is_over(&self, machine: &Takeover) -> bool {
        match self.until {
            AnswerWhen::Accepted => machine.has_claimed(),
            // The answer names the records that could not be placed, and another program may go on with those that are.
            AnswerWhen::Prepared => machine.is_prepared() && !machine.is_placing(),
            AnswerWhen::Notified => machine.has_tried_all_of(&self.service) && !machine.is_placing(),
            AnswerWhen::Settled => machine.is_settled_for(&self.service),
        }
    }
}
