//! Tells the story of a run, to a person or to a test.

use std::cell::RefCell;
use std::io::Write as _;

use crate::Ms;

/// How a story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Not at all.
    Silent,
    /// On standard output, as it happens.
    Aloud,
    /// It is kept, for [`crate::Story::told`].
    Kept,
}

/// Tells it.
#[derive(Debug)]
pub(crate) struct Teller {
    how: Trace,
    kept: RefCell<Vec<String>>,
}

impl Teller {
    pub(crate) fn new(how: Trace) -> Self {
        Self { how, kept: RefCell::default() }
    }

    /// A line of the story. It is made only where it is told.
    pub(crate) fn say(&self, of: &str, now: Ms, what: impl FnOnce() -> String) {
        let line = || format!("{of}{:>4}.{:03} {}", now / 1_000, now % 1_000, what());
        match self.how {
            Trace::Silent => {}
            // A reader may stop before the end of the story.
            Trace::Aloud => drop(writeln!(std::io::stdout(), "{}", line())),
            Trace::Kept => self.kept.borrow_mut().push(line()),
        }
    }

    /// All that was told.
    pub(crate) fn told(&self) -> Vec<String> {
        self.kept.take()
    }
}
