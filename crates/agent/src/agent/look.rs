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
pub struct Basis {
    /// The turn of the loop in which it began.
    pub began: Moment,
    /// When it began, for `status`.
    pub began_at: Moment,
    /// The life of the lock manager in which a deletion meant something then.
    pub life: Option<Incarnation>,
    /// What is no registration, as it was when the look began.
    pub placed: Placed,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    /// Who is there.
    pub population: Population,
    /// What is no record.
    pub problems: Vec<Problem>,
    /// How many files had to be opened.
    pub opened: usize,
}

/// A look is over.
#[derive(Debug)]
pub struct Looked {
    /// What it rests upon.
    pub basis: Basis,
    /// What it found, or why the directory can't be seen.
    pub found: Result<Found, String>,
}

/// What the loop's own looks remember of what they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    /// Nothing that earlier looks read is relied upon.
    pub anew: bool,
    /// The next look may rely upon what this one read.
    pub kept: bool,
}
