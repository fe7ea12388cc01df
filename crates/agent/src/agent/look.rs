//! Looks at the status monitor's directory and at the lock manager: their basis, and their result.
//!
//! With hundreds of thousands of records a look takes seconds, and the loop has none to give while new clients wait for it: it
//! is made beside the loop. It counts only if nothing has changed meanwhile on which it rests ([`Basis`]). Where what was
//! registered before some moment must be known exactly, as when a service is claimed or given up, the loop looks itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use heirlock_core::Moment;
use heirlock_core::incarnation::{Incarnation, Observation};
use heirlock_core::ledger::{Population, Problem};
use heirlock_nsm::MonName;

/// The lines that were placed, by file.
pub type Placed = Arc<BTreeMap<MonName, Vec<u8>>>;

/// The basis of a look.
#[derive(Debug, Clone)]
pub struct Basis {
    /// The turn of the loop in which it began.
    pub began: Moment,
    /// When it began, for `status`.
    pub began_at: Moment,
    /// The life of the lock manager in which a deletion meant something then.
    pub life: Option<Incarnation>,
    /// The placed records, which are no registrations, as they were when the look began.
    pub placed: Placed,
}

/// The result of a look.
#[derive(Debug, Default)]
pub struct Found {
    /// The clients that are there.
    pub population: Population,
    /// The entries that are no record.
    pub problems: Vec<Problem>,
    /// How many files had to be opened.
    pub opened: usize,
}

/// A look is over.
#[derive(Debug)]
pub struct Looked {
    /// Its basis.
    pub basis: Basis,
    /// Its result, or why the directory can't be seen.
    pub found: Result<Found, String>,
}

/// The memory of the loop's own looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    /// Nothing that earlier looks read is relied upon.
    pub anew: bool,
    /// The next look may rely upon what this one read.
    pub kept: bool,
}

/// A look at the lock manager.
#[derive(Debug)]
pub struct Look {
    /// When it began.
    pub at: Moment,
    /// The observation.
    pub observation: Observation,
}
