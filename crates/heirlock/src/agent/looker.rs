//! Looks at the status monitor's directory in a thread of its own: with hundreds of thousands of records a look takes
//! seconds, and the loop has none to give while new clients wait for it.
//!
//! A look counts only if nothing has changed meanwhile on which it rests ([`Basis`]). Where what was registered before some
//! moment must be known exactly, as when a service is claimed or given up, the loop looks itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use heirlock_core::Moment;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Addresses, Population, Problem, population};
use heirlock_nsm::MonName;

use super::Message;
use super::outside::Placed;
use crate::{detector, threads};

/// What a look rests upon.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// When it began.
    pub(crate) began: Moment,
    /// The same, for `status`.
    pub(crate) began_at: Instant,
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

impl Found {
    /// Looks, now. `memory` is what earlier looks read.
    ///
    /// # Errors
    /// Why the directory can't be seen, in words.
    pub(crate) fn look(
        state_directory: &Path,
        memory: &mut detector::Memory,
        placed: &BTreeMap<MonName, Vec<u8>>,
        addresses: &Addresses,
    ) -> Result<Self, String> {
        let scan = detector::look(state_directory, memory).map_err(|error| error.to_string())?;
        let population = population(&scan, placed, addresses);
        Ok(Self { population, problems: scan.problems, opened: memory.opened() })
    }
}

enum Task {
    Look {
        basis: Basis,
        addresses: Arc<Addresses>,
        anew: bool,
    },
    /// To take down what hundreds of thousands of records were kept in takes long enough to be felt.
    Discard(Population),
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Looker {
    state_directory: PathBuf,
    inbox: Sender<Message>,
    tasks: Option<Sender<Task>>,
}

impl Looker {
    /// One that has nothing to do yet.
    pub(crate) fn new(state_directory: PathBuf, inbox: Sender<Message>) -> Self {
        Self { state_directory, inbox, tasks: None }
    }

    /// Begins a look, which reports by [`Message::Looked`] whatever becomes of it. `anew`: nothing that earlier looks read is
    /// relied upon.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub(crate) fn look(&mut self, basis: Basis, addresses: Arc<Addresses>, anew: bool) -> io::Result<()> {
        self.give(Task::Look { basis, addresses, anew })
    }

    /// Takes down what is not needed any more.
    pub(crate) fn discard(&mut self, population: Population) {
        // Without a thread it is taken down here.
        let _ = self.give(Task::Discard(population));
    }

    fn give(&mut self, task: Task) -> io::Result<()> {
        let task = match &self.tasks {
            Some(tasks) => match tasks.send(task) {
                Ok(()) => return Ok(()),
                // It has ended, which it reported.
                Err(back) => back.0,
            },
            None => task,
        };
        let (tasks, given) = channel();
        let (state_directory, inbox) = (self.state_directory.clone(), self.inbox.clone());
        threads::start("look", move || work(&state_directory, &given, &inbox))?;
        // It lives: it waits for this.
        let _ = tasks.send(task);
        self.tasks = Some(tasks);
        Ok(())
    }
}

fn work(state_directory: &Path, tasks: &Receiver<Task>, inbox: &Sender<Message>) {
    let mut memory = detector::Memory::default();
    for task in tasks {
        let (basis, addresses, anew) = match task {
            Task::Look { basis, addresses, anew } => (basis, addresses, anew),
            Task::Discard(population) => {
                drop(population);
                continue;
            }
        };
        if anew {
            memory = detector::Memory::default();
        }
        let placed = Arc::clone(&basis.placed);
        let mut report = Report { inbox, looked: Some(Looked { basis, found: Err(ENDED.to_owned()) }) };
        let found = Found::look(state_directory, &mut memory, &placed, &addresses);
        report.looked = report.looked.take().map(|looked| Looked { found, ..looked });
    }
}

/// What is said of a look whose thread ended in the middle of it.
const ENDED: &str = "the thread that looked at it has ended";

/// Reports when it goes, also where the thread does.
struct Report<'a> {
    inbox: &'a Sender<Message>,
    looked: Option<Looked>,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if let Some(looked) = self.looked.take() {
            let _ = self.inbox.send(Message::Looked(Box::new(looked)));
        }
    }
}
