//! One client: the locks that its processes believe to hold, and how its status monitor and its kernel react.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_nsm::{MonName, StateNumber};

use crate::Ms;
use crate::announcing::Manner;
use crate::excuse::GrantedBy;
use crate::lock_manager::{FileAt, Life, client_address};

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// Services that it mounts, by index.
    pub(crate) mounts: Vec<usize>,
    /// What it is called in the store, where its address is known.
    pub(crate) key: MonName,
    pub(crate) locks: BTreeMap<FileAt, Held>,
    /// The call that is out for a file. A hard RPC: repeated until it is answered.
    pub(crate) calls: BTreeMap<FileAt, Call>,
    pub(crate) numbers: u64,
    /// The last number that its status monitor saw of each service.
    pub(crate) seen: BTreeMap<usize, StateNumber>,
    /// Every number that reached it, and under which life of which lock manager it was sent. For the checker.
    pub(crate) heard: BTreeMap<(usize, u32), Life>,
    /// Cut off from all servers until then.
    pub(crate) away_until: Ms,
    /// When something stood between it and the servers.
    pub(crate) kept_off: Vec<Ms>,
    /// Datagrams to and from it that are lost, in percent.
    pub(crate) loss: u8,
    /// How often its host was restarted, and when last.
    pub(crate) boots: u32,
    pub(crate) restarted_at: Option<Ms>,
    /// How this boot announces itself, and the services at whose addresses it has yet to be answered.
    pub(crate) manner: Manner,
    pub(crate) announcing: BTreeSet<usize>,
}

/// A lock that a process believes to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Its kernel would reclaim it. Not so after a reclaim that was refused: the process isn't told.
    pub(crate) listed: bool,
    /// The lock manager dropped it, and it wasn't reclaimed since.
    pub(crate) loss: Option<Loss>,
}

/// How a lock came to be dropped by its lock manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) at: Ms,
    /// The lock manager that had granted it.
    pub(crate) by: GrantedBy,
    /// The client was on record in the store.
    pub(crate) captured: bool,
    /// Nothing that can be seen told of it.
    pub(crate) unseen: bool,
    /// The life that ended with it, until its agent looks.
    pub(crate) ended: Option<Life>,
    /// It was freed with the locks that its holder had before its host was restarted.
    pub(crate) freed: bool,
    /// Its holder was not on record, and a look that would have shown it hung.
    pub(crate) blind: bool,
}

/// A call to a lock manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) ask: Ask,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Lock,
    Reclaim,
    Unlock,
}

/// The answer of a lock manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Granted,
    Denied,
    /// NLM4_DENIED_GRACE_PERIOD: in grace and no reclaim, or a reclaim outside.
    WrongTime,
}

impl Client {
    pub(crate) fn new(at: usize, mounts: Vec<usize>, loss: u8) -> Self {
        Self {
            mounts,
            key: MonName::from_address(client_address(at)),
            locks: BTreeMap::new(),
            calls: BTreeMap::new(),
            numbers: 0,
            seen: BTreeMap::new(),
            heard: BTreeMap::new(),
            away_until: 0,
            kept_off: Vec::new(),
            loss,
            boots: 0,
            restarted_at: None,
            manner: Manner::default(),
            announcing: BTreeSet::new(),
        }
    }

    /// Its host is restarted: no process has a lock or waits for one, and its status monitor has seen no number. What calls
    /// were numbered stays, so that no answer to an earlier boot is taken for one to this.
    pub(crate) fn restarts(&mut self, now: Ms, manner: Manner) {
        self.boots += 1;
        (self.restarted_at, self.manner) = (Some(now), manner);
        self.locks.clear();
        self.calls.clear();
        self.seen.clear();
        self.announcing = self.mounts.iter().copied().collect();
    }

    /// Something stands between it and the servers now.
    pub(crate) fn note_kept_off(&mut self, now: Ms) {
        self.kept_off.push(now);
    }

    pub(crate) fn call(&mut self, file: FileAt, ask: Ask) -> u64 {
        self.numbers += 1;
        self.calls.insert(file, Call { number: self.numbers, ask });
        self.numbers
    }

    /// SM_NOTIFY of a service. Answers the locks that are to be reclaimed, where its number is news.
    pub(crate) fn notified(&mut self, service: usize, state: StateNumber) -> Vec<FileAt> {
        if !self.mounts.contains(&service) || self.seen.get(&service) == Some(&state) {
            return Vec::new();
        }
        self.seen.insert(service, state);
        let listed = self.locks.iter().filter(|(file, held)| {
            let is_leaving = self.calls.get(*file).is_some_and(|call| call.ask == Ask::Unlock);
            file.0 == service && held.listed && !is_leaving
        });
        listed.map(|(file, _)| *file).collect()
    }

    /// The answer to its call, and its meaning to the process.
    pub(crate) fn answered(&mut self, file: FileAt, number: u64, verdict: Verdict) -> Option<Ask> {
        let call = self.calls.get(&file).filter(|call| call.number == number)?.clone();
        match (call.ask, verdict) {
            (Ask::Lock, Verdict::Granted) => {
                self.locks.insert(file, Held { listed: true, loss: None });
            }
            (Ask::Reclaim, Verdict::Granted) => {
                if let Some(held) = self.locks.get_mut(&file) {
                    held.loss = None;
                }
            }
            (Ask::Reclaim, _) => {
                // The lock leaves the kernel's list; no process is told.
                if let Some(held) = self.locks.get_mut(&file) {
                    held.listed = false;
                }
            }
            (Ask::Unlock, Verdict::Granted) => drop(self.locks.remove(&file)),
            // Refused for the time being: tried again.
            (Ask::Lock | Ask::Unlock, Verdict::WrongTime) => return None,
            (Ask::Lock | Ask::Unlock, Verdict::Denied) => {}
        }
        self.calls.remove(&file);
        Some(call.ask)
    }
}
