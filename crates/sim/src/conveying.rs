//! The conveyor of a lock manager: it places lines into the status monitor's directory, file by file, and takes them away. It does one
//! thing after the other, beside its agent's loop.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use heirlock_agent::{News, Placing, RunNumber, Unplaced};
use heirlock_core::ledger::lines_to_place;
use heirlock_core::takeover::Conveyance;
use heirlock_core::{Record, ServiceName};
use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonName, MonitorLine, MyName};

use crate::Ms;
use crate::chance::Purpose;
use crate::happening::Happening;
use crate::lock_manager::{LockManagerAt, holds};
use crate::work::AgentAt;
use crate::world::World;

/// Lines by file.
type Lines = VecDeque<(MonName, Vec<u8>)>;

/// A task of a conveyor.
#[derive(Debug)]
pub(crate) struct Conveying {
    task: Task,
    /// Files that are left, once it has begun.
    left: Option<Lines>,
}

#[derive(Debug)]
enum Task {
    /// For this run: the lines that are to lie there, as the records have them.
    Place { run: RunNumber, services: Vec<ServiceName>, planned: Lines },
    /// All that was placed goes.
    TakeAway,
}

impl Conveying {
    /// Records are to be placed.
    pub(crate) fn place(run: RunNumber, services: Vec<Placing>, how: Conveyance) -> Self {
        let line = |client: &MonName, record: &Record, my_name: &MyName| match how {
            Conveyance::Copy => record.to_vec(),
            Conveyance::Generate => render_record(&[MonitorLine::generated(client.clone(), my_name.clone())]),
        };
        let names = services.iter().map(|placing| placing.service.clone()).collect();
        let planned = services.into_iter().flat_map(|Placing { records, my_name, .. }| {
            let lines = records.conveyed().map(|(client, record)| {
                let line = line(client, record, &my_name);
                (client.clone(), line)
            });
            lines.collect::<Lines>()
        });
        Self { task: Task::Place { run, services: names, planned: planned.collect() }, left: None }
    }

    /// All that was placed is to be taken away.
    pub(crate) fn take_away() -> Self {
        Self { task: Task::TakeAway, left: None }
    }
}

impl World {
    pub(crate) fn begin_to_convey(&mut self, at: AgentAt, conveying: Conveying) {
        let (of, agent) = at;
        let waiting = &mut self.servers[of].conveying;
        waiting.push_back(conveying);
        if waiting.len() == 1 {
            self.convey_later((of, agent));
        }
    }

    fn convey_later(&mut self, (of, agent): AgentAt) {
        let rng = self.chance(Purpose::Conveyor, of.stream());
        let (quick, is_slow, slow): (Ms, bool, Ms) =
            (rng.u64(1..20), rng.u8(0..40) == 0, rng.u64(100..2_500));
        let hangs = self.servers[of].conveyor_hangs_until.saturating_sub(self.now);
        let after = if is_slow { slow } else { quick };
        self.after(after.max(hangs), Happening::Convey { of, agent });
    }

    /// One step of the conveyor of this agent: the plan is remembered before the first file, and then a file.
    pub(crate) fn convey(&mut self, (of, agent): AgentAt) {
        let now = self.now;
        if self.servers[of.server].agent != agent {
            return;
        }
        let Some(mut conveying) = self.servers[of].conveying.pop_front() else { return };
        match &mut conveying.left {
            None => conveying.left = Some(self.plan(of, &mut conveying.task)),
            Some(left) => {
                if let Some((client, lines)) = left.pop_front() {
                    match conveying.task {
                        Task::Place { .. } => self.servers[of].place(&client, &lines, now),
                        Task::TakeAway => self.servers[of].take_away(&client, &lines, now),
                    }
                    // Else a line that was taken away would be there again after a loss of power, in no conveyor's memory.
                    let it = &mut self.servers[of];
                    it.status_monitor.synced_file(&client, it.sm.get(&client));
                }
            }
        }
        if conveying.left.as_ref().is_some_and(VecDeque::is_empty) {
            self.conveyed((of, agent), conveying.task);
        } else {
            self.servers[of].conveying.push_front(conveying);
        }
        if !self.servers[of].conveying.is_empty() {
            self.convey_later((of, agent));
        }
    }

    /// The plan of a task, file by file. Lines that are to be placed are in the book from now on.
    fn plan(&mut self, of: LockManagerAt, task: &mut Task) -> Lines {
        let Task::Place { planned, .. } = task else {
            return self.servers[of].book.iter().map(|(name, lines)| (name.clone(), lines.clone())).collect();
        };
        let mut left = Lines::new();
        for (client, bytes) in mem::take(planned) {
            self.check_name(&client);
            let it = &mut self.servers[of];
            let there = it.sm.get(&client).map(Vec::as_slice).unwrap_or_default();
            let remembered = it.book.get(&client).map(Vec::as_slice).unwrap_or_default();
            let to_place = lines_to_place(there, remembered, &bytes, it.node.as_str());
            if !to_place.is_empty() {
                let remembered = Arc::make_mut(&mut it.book).entry(client.clone()).or_default();
                if !holds(remembered, &to_place) {
                    remembered.extend(&to_place);
                }
                left.push_back((client, to_place));
            }
        }
        left
    }

    fn conveyed(&mut self, at: AgentAt, task: Task) {
        let message = match task {
            Task::Place { run, services, .. } => News::Placed(
                run,
                services.into_iter().map(|service| (service, Ok(Unplaced::new()))).collect(),
            ),
            Task::TakeAway => {
                self.servers[at.0].book = Arc::default();
                News::PlacedTakenAway(Ok(Unplaced::new()))
            }
        };
        self.tell_agent(at, 1, message);
    }
}
