//! What happens beside the sending: names are looked up, and who has answered is taken off the list. Both in threads that
//! nothing waits for.

use std::collections::VecDeque;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heirlock_core::Moment;
use heirlock_core::grace::Leave;
use heirlock_nsm::MonName;

use crate::limits;
use crate::notifier::Principal;

use super::directory::{Client, Directory};
use super::to_look_up;

/// One round of notifications.
pub(super) struct Errand {
    began: Instant,
    until: Option<Duration>,
    resolved: Receiver<(MonName, Vec<IpAddr>)>,
    told: Sender<Vec<MonName>>,
    taker_off: JoinHandle<Vec<String>>,
}

impl Errand {
    pub(super) fn begin(directory: Directory, clients: &[Client], until: Option<Duration>) -> Self {
        let (told, answered) = channel();
        Self {
            began: Instant::now(),
            until,
            resolved: look_up(to_look_up(clients)),
            told,
            taker_off: thread::spawn(move || take_off(&directory, &answered)),
        }
    }

    /// Waits until all who have answered are off the list; says what went wrong with it.
    pub(super) fn end(self) -> Vec<String> {
        drop(self.told);
        self.taker_off.join().unwrap_or_else(|_| vec!["records were not all taken off the list".to_owned()])
    }
}

impl Principal for Errand {
    fn now(&self) -> Moment {
        Moment::at(self.began.elapsed())
    }

    fn may_leave(&mut self, now: Moment) -> Leave {
        let over = self.until.is_some_and(|until| now.since_start() >= until);
        if over { Leave::TooLate } else { Leave::Granted }
    }

    fn acknowledged(&mut self, clients: Vec<MonName>) {
        // The other end is there until this one is dropped.
        let _ = self.told.send(clients);
    }

    fn resolved(&mut self) -> Vec<(MonName, Vec<IpAddr>)> {
        self.resolved.try_iter().collect()
    }
}

fn take_off(directory: &Directory, answered: &Receiver<Vec<MonName>>) -> Vec<String> {
    let mut problems = Vec::new();
    for client in answered.iter().flatten() {
        problems.extend(directory.remove(&client).err());
    }
    problems.extend(directory.sync().err());
    problems
}

/// Asks for all names, a few at a time, and for those that were not found again after a while. The threads end with the
/// program.
fn look_up(names: Vec<MonName>) -> Receiver<(MonName, Vec<IpAddr>)> {
    let (found, resolved) = channel();
    let threads = names.len().min(limits::NOTIFY_LOOKUPS_AT_ONCE_MAX);
    let due = Instant::now();
    let row: VecDeque<(Instant, MonName)> = names.into_iter().map(|name| (due, name)).collect();
    let row = Arc::new(Mutex::new(row));
    for _ in 0..threads {
        let (row, found) = (Arc::clone(&row), found.clone());
        thread::spawn(move || {
            loop {
                // Not held while a name server is waited for.
                let next = row.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((due, name)) = next else { return };
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let addresses: Vec<IpAddr> = (name.as_str(), 0)
                    .to_socket_addrs()
                    .map(|list| list.map(|address| address.ip()).collect())
                    .unwrap_or_default();
                if addresses.is_empty() {
                    let again = Instant::now() + limits::RESOLVE_RETRY;
                    row.lock().unwrap_or_else(PoisonError::into_inner).push_back((again, name));
                } else if found.send((name, addresses)).is_err() {
                    return;
                }
            }
        });
    }
    resolved
}
