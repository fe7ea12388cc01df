//! The work beside the sending: names are looked up, and clients that have answered are taken off the list. Both in
//! threads that nothing waits for.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heirlock_core::Moment;
use heirlock_core::grace::Leave;
use heirlock_core::notify::Destination;
use heirlock_nsm::MonName;

use crate::arp;
use crate::notifier::{LookUp, Principal};
use crate::threads;

use super::directory::{Client, Directory};
use super::to_look_up;

/// One round of notifications.
pub(super) struct Notification {
    began: Instant,
    until: Option<Duration>,
    names: LookUp,
    told: Sender<Vec<MonName>>,
    taker_off: JoinHandle<Vec<String>>,
}

impl Notification {
    pub(super) fn begin(
        directory: Directory,
        clients: &[Client],
        until: Option<Duration>,
    ) -> io::Result<Self> {
        let (told, answered) = channel();
        Ok(Self {
            began: Instant::now(),
            until,
            names: LookUp::begin(to_look_up(clients)),
            told,
            taker_off: threads::start("take-off", move || take_off(&directory, &answered))?,
        })
    }

    /// Waits until all clients that have answered are off the list; returns the errors.
    pub(super) fn end(self) -> Vec<String> {
        drop(self.told);
        self.taker_off.join().unwrap_or_else(|_| vec!["records were not all taken off the list".to_owned()])
    }
}

impl Principal for Notification {
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

    fn announce(&mut self, address: IpAddr) {
        arp::announce_again(address);
    }

    fn resolved(&mut self) -> Vec<(MonName, Vec<Destination>)> {
        self.names.found()
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
