//! A look at the status monitor's directory: what it rests upon, and what it found.
//!
//! With hundreds of thousands of records a look takes seconds, and the loop has none to give while new clients wait for it: it
//! is made beside the loop. It counts only if nothing has changed meanwhile on which it rests ([`Basis`]). Where what was
//! registered before some moment must be known exactly, as when a service is claimed or given up, the loop looks itself.

use heirlock_core::Moment;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Population, Problem};

use super::outside::Placed;

/// What a look rests upon.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// The turn of the loop in which it began.
    pub(crate) began: Moment,
    /// When it began, for `status`.
    pub(crate) began_at: Moment,
    /// The life of the lock manager in which a deletion meant something then.
    pub(crate) life: Option<Incarnation>,
    /// What is no registration, as it was when the look began.
    pub(crate) placed: Placed,
}

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Who is there.
    pub(crate) population: Population,
    /// What is no record.
    pub(crate) problems: Vec<Problem>,
    /// How many files had to be opened.
    pub(crate) opened: usize,
}

/// A look is over.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What it rests upon.
    pub(crate) basis: Basis,
    /// What it found, or why the directory can't be seen.
    pub(crate) found: Result<Found, String>,
}

/// What the loop's own looks remember of what they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recall {
    /// Nothing that earlier looks read is relied upon.
    pub(crate) anew: bool,
    /// The next look may rely upon what this one read.
    pub(crate) kept: bool,
}
