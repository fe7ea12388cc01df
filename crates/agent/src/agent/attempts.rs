//! The claims that a run has tried to make, until the store has said what became of each.

use std::collections::BTreeMap;

use heirlock_core::claim::Claim;
use heirlock_core::{Generation, ServiceName};

/// Whether a claim that failed with a call of the store is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is.
    Left,
    /// It was for long enough.
    Over,
}

/// The newest claim of a service, of which nothing is known but its number.
#[derive(Debug)]
pub(crate) struct LostClaim {
    pub(super) generation: Generation,
    pub(super) why: String,
}

/// Claims that a run has tried to make and of which the store did not say in time whether it made them.
pub type Attempts = BTreeMap<ServiceName, Attempt>;

/// One of them, and the claim before it.
#[derive(Debug)]
pub struct Attempt {
    pub(super) claim: Claim,
    pub(super) newest: Option<Claim>,
    pub(super) lost: Option<LostClaim>,
}

impl Attempt {
    /// Whether the newest claim is this one.
    pub(super) fn came_about(&self, newest: Option<&Claim>) -> bool {
        newest
            .is_some_and(|newest| newest.generation == self.claim.generation && newest.is_still(&self.claim))
    }
}
