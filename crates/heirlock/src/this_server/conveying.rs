//! The thread that places records and takes them away: one after the other, in the order in which it was begun.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use heirlock_agent::News;
use heirlock_agent::{PlacedOf, Placing, RunNumber};
use heirlock_core::ServiceName;
use heirlock_core::takeover::Conveyance;

use super::inbox::Inbox;
use super::work::Report;
use crate::convey::Conveyor;
use crate::threads;

/// Done by the thread. A task that is dropped undone, as where the thread has ended, reports that.
type Task = Box<dyn FnOnce(&Conveyor) + Send>;

/// The thread.
pub(super) struct Conveying {
    conveyor: Conveyor,
    inbox: Inbox,
    tasks: Option<Sender<Task>>,
}

impl Conveying {
    /// A conveying thread that has nothing to do yet.
    pub(super) fn new(conveyor: Conveyor, inbox: Inbox) -> Self {
        Self { conveyor, inbox, tasks: None }
    }

    /// See [`RunWork::Place`](heirlock_agent::RunWork::Place).
    pub(super) fn place(&mut self, run: RunNumber, services: Vec<Placing>, how: Conveyance) {
        let names: Vec<ServiceName> = services.iter().map(|placing| placing.service.clone()).collect();
        let of_all = move |why: String| names.into_iter().map(|name| (name, Err(why.clone()))).collect();
        let message =
            move |done: Result<Vec<PlacedOf>, String>| News::Placed(run, done.unwrap_or_else(of_all));
        let mut report = Report::new(self.inbox.clone(), message);
        self.give(Box::new(move |conveyor| {
            let place = |placing: Placing| {
                let placed = conveyor.place(&placing.records, how, &placing.my_name);
                (placing.service, placed.map_err(|error| error.to_string()))
            };
            let done = services.into_iter().map(place).collect();
            report.send(Ok(done));
        }));
    }

    /// See [`Work::TakePlacedAway`](heirlock_agent::Work::TakePlacedAway).
    pub(super) fn take_away(&mut self) {
        let mut report = Report::new(self.inbox.clone(), News::PlacedTakenAway);
        self.give(Box::new(move |conveyor| {
            report.send(conveyor.clean_up().map_err(|error| error.to_string()));
        }));
    }

    fn give(&mut self, task: Task) {
        let task = match &self.tasks {
            Some(tasks) => match tasks.send(task) {
                Ok(()) => return,
                // It has ended, which it reported.
                Err(back) => back.0,
            },
            None => task,
        };
        match self.start() {
            // It lives: it waits for this.
            Ok(tasks) => drop(tasks.send(task)),
            Err(error) => tracing::error!(%error, "records can be neither placed nor taken away: {error}"),
        }
    }

    fn start(&mut self) -> io::Result<&Sender<Task>> {
        let (tasks, given): (Sender<Task>, Receiver<Task>) = channel();
        let conveyor = self.conveyor.clone();
        threads::start("convey", move || given.into_iter().for_each(|task| task(&conveyor)))?;
        Ok(self.tasks.insert(tasks))
    }
}
