//! Looks at the status monitor's directory, in a thread of its own or at once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use heirlock_agent::News;
use heirlock_agent::{Basis, Found, Looked};
use heirlock_core::ledger::{Addresses, Population, population};
use heirlock_nsm::MonName;

use super::inbox::Inbox;
use crate::{detector, threads};

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
pub(super) struct Looker {
    state_directory: PathBuf,
    inbox: Inbox,
    tasks: Option<Sender<Task>>,
}

impl Looker {
    /// A looker that has nothing to do yet.
    pub(super) fn new(state_directory: PathBuf, inbox: Inbox) -> Self {
        Self { state_directory, inbox, tasks: None }
    }

    /// Begins a look, which reports by [`News::Looked`], also where it fails. `anew`: nothing that earlier looks read is
    /// relied upon.
    ///
    /// # Errors
    /// Where there is no thread for it.
    pub(super) fn look(&mut self, basis: Basis, addresses: Arc<Addresses>, anew: bool) -> io::Result<()> {
        self.give(Task::Look { basis, addresses, anew })
    }

    /// Takes down what is not needed any more.
    pub(super) fn discard(&mut self, population: Population) {
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

/// Looks, now. `memory` is what earlier looks read.
///
/// # Errors
/// Why the directory can't be seen, in words.
pub(super) fn look(
    state_directory: &Path,
    memory: &mut detector::Memory,
    placed: &BTreeMap<MonName, Vec<u8>>,
    addresses: &Addresses,
) -> Result<Found, String> {
    let scan = detector::look(state_directory, memory).map_err(|error| error.to_string())?;
    let population = population(&scan, placed, addresses);
    Ok(Found { population, problems: scan.problems, opened: memory.opened() })
}

fn work(state_directory: &Path, tasks: &Receiver<Task>, inbox: &Inbox) {
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
            memory.distrust();
        }
        let placed = Arc::clone(&basis.placed);
        let mut report = Report { inbox, looked: Some(Looked { basis, found: Err(ENDED.to_owned()) }) };
        let found = look(state_directory, &mut memory, &placed, &addresses);
        report.looked = report.looked.take().map(|looked| Looked { found, ..looked });
    }
}

/// The error of a look whose thread ended in the middle of it.
const ENDED: &str = "the thread that looked at it has ended";

/// Reports when it goes, also where the thread does.
struct Report<'a> {
    inbox: &'a Inbox,
    looked: Option<Looked>,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if let Some(looked) = self.looked.take() {
            let _ = self.inbox.send(News::Looked(Box::new(looked)));
        }
    }
}
