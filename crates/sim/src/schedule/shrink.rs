//! Leaves out of a schedule what a broken promise does not need.

use heirlock_agent::InstanceNumber;

use super::{Levels, Schedule};
use crate::{Trace, run};

/// A schedule that still breaks this invariant first, with as little in it as was found: nothing that is left can be left out
/// by itself.
#[must_use]
pub fn shrink(schedule: &Schedule, invariant: u8) -> Schedule {
    let mut best = schedule.clone();
    let breaks = |candidate: &Schedule| {
        run(candidate, Trace::Silent).violation.is_some_and(|broken| broken.invariant == invariant)
    };
    loop {
        let before = best.clone();
        let mut many = best.incidents.len();
        while many > 0 {
            leave_out(&mut best, many, &breaks);
            many /= 2;
        }
        let smaller = without_manner(&best);
        for candidate in smaller {
            if breaks(&candidate) {
                best = candidate;
                break;
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Leaves out so many incidents at a time, wherever that leaves the promise broken.
fn leave_out(best: &mut Schedule, many: usize, breaks: &impl Fn(&Schedule) -> bool) {
    let mut from = 0;
    while from < best.incidents.len() {
        let mut candidate = best.clone();
        candidate.incidents.drain(from..(from + many).min(best.incidents.len()));
        if breaks(&candidate) {
            *best = candidate;
        } else {
            from += many;
        }
    }
}

/// The same with one thing fewer that goes wrong all the time.
fn without_manner(schedule: &Schedule) -> Vec<Schedule> {
    let mut all = vec![
        Schedule { levels: Levels::default(), ..schedule.clone() },
        Schedule { is_hasty: false, ..schedule.clone() },
        Schedule { has_garbage: false, ..schedule.clone() },
    ];
    for at in 0..schedule.levels.0.len() {
        let mut fewer = schedule.clone();
        fewer.levels.0[at] = 0;
        all.push(fewer);
    }
    for at in 0..schedule.clients.len() {
        let mut fewer = schedule.clone();
        fewer.clients[at].loss = 0;
        all.push(fewer);
    }
    for at in 0..schedule.services.len() {
        let mut fewer = schedule.clone();
        fewer.services[at].candidates.clear();
        all.push(fewer);
    }
    all.extend((0..schedule.servers.len()).filter_map(|server| schedule.with_fewer_lock_managers(server)));
    all.retain(|fewer| fewer != schedule);
    all
}

impl Schedule {
    /// The same without the last lock manager of a server, where it has several: the first one serves what that one did.
    fn with_fewer_lock_managers(&self, server: usize) -> Option<Self> {
        let mut fewer = self.clone();
        let last = self.servers[server].lock_managers_at(server).last().filter(|last| !last.is_first())?;
        fewer.servers[server].lock_managers.pop();
        fewer.incidents.retain(|(_, incident)| incident.lock_manager() != Some(last));
        for by in fewer.services.iter_mut().map(|service| &mut service.served_by[server]) {
            if *by == last.number {
                *by = InstanceNumber::FIRST;
            }
        }
        Some(fewer)
    }
}
