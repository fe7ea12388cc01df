//! The meaning of a scan of the status monitor's directory for the store: which clients there are, which records are
//! to be written, and which deletions are to be believed (I2: nothing forgotten).
//!
//! A record that vanishes is not forgotten: it becomes a *tombstone*, and is believed to be gone only when the same
//! life of the lock manager served from before it vanished until the whole `tombstone-delay` after it. Everything that empties
//! the directory without meaning it (an orderly stop of nfsd on 6.12, Ganesha's start, a re-registration as DELETE
//! and CREATE, sm-notify moving `sm` to `sm.bak`) ends or lacks that life, or is undone within the delay.
//! So what this life never showed can't be deleted in it: a client that was told too late, or could not be reached, has
//! no record on the adoptive server, and is kept in the store until the next adoption or until it is forgotten by rule.
//! Tombstones live in memory alone: an agent that is restarted knows of none, and to any other server an
//! unbelieved tombstone is what it is in the store, a live record.

mod population;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heirlock_nsm::MonName;

pub use population::{Addresses, Population, learn, learn_from_record, lines_to_place, population};

use crate::incarnation::Incarnation;
use crate::limits;
use crate::moment::Moment;
use crate::planted::{Bug, planted};
use crate::records::{AsKey, Record, RecordChange, RecordKey, Records};

/// All that one look at a status monitor's directory found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Every file that is a monitor record, in both folders.
    pub files: Vec<ScannedFile>,
    /// Every file that is none but lies where one would, and why. They are left alone.
    pub problems: Vec<Problem>,
}

/// One monitor record as it lies in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedFile {
    /// The folder that it was found in.
    pub folder: Folder,
    /// Its file name: the name that nfs-utils made of the client's with the resolver of that moment.
    pub name: MonName,
    /// Its bytes.
    pub bytes: Record,
}

/// The two folders of an NSM state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    /// `sm`: clients that are monitored now.
    Sm,
    /// `sm.bak`: clients that a notifier has still to tell of an earlier restart. They may hold locks all the same.
    SmBak,
}

/// A file that is no monitor record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its path below the directory, with control characters escaped.
    pub path: String,
    /// The error: what was expected and found.
    pub why: String,
    /// It may be a record that is just being written: empty, or cut short. Worth saying only if it stays so.
    pub may_be_in_the_making: bool,
}

/// The hosts that are peers, and those that are clients for certain (I7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// Servers that this server mounts from: their records are its own lock manager's, as a client.
    pub peers: BTreeSet<MonName>,
    /// Addresses that are connected to this server's NFS or NLM port: clients, also where they are something else as well. The
    /// TCP table is a hint: it can make a host a client, never the contrary.
    pub connected: BTreeSet<MonName>,
}

impl Roles {
    /// Whether this is a server that we mount from and nothing else.
    #[must_use]
    pub fn is_peer(&self, name: &MonName) -> bool {
        self.peers.contains(name) && !self.connected.contains(name)
    }
}

/// A change whose commit failed, and may have come about all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A record was written.
    Put,
    /// It was removed.
    Removal,
}

/// The clients of one service in the store, and the changes that it is still to learn.
#[derive(Debug, Clone)]
pub struct Ledger {
    stored: Records,
    tombstones: BTreeMap<RecordKey, Moment>,
    /// Clients whose record was there since this life serves: only they can vanish in it.
    seen: BTreeSet<RecordKey>,
    /// Clients of whom the store may hold something else than `stored`, and the change that failed.
    doubted: BTreeMap<RecordKey, Doubt>,
    /// Clients that could not be told, and since when no look has found them.
    absent: BTreeMap<RecordKey, Moment>,
    /// Keys whose record was there when they became known as a peer and has been there ever since.
    peers: BTreeSet<RecordKey>,
    keeps_peers: bool,
    delay: Duration,
    life: Option<Incarnation>,
    refused: usize,
    arrived: u64,
}

impl Ledger {
    /// The ledger of a generation that holds `stored`. The implicit service `host` keeps peers as well, since
    /// a reboot must be told to them; no other service does.
    #[must_use]
    pub fn new(stored: Records, keeps_peers: bool, delay: Duration) -> Self {
        Self {
            stored,
            tombstones: BTreeMap::new(),
            seen: BTreeSet::new(),
            doubted: BTreeMap::new(),
            absent: BTreeMap::new(),
            peers: BTreeSet::new(),
            keeps_peers,
            delay,
            life: None,
            refused: 0,
            arrived: 0,
        }
    }

    /// Clients that are in the store, could not be told, and are gone: no look has found them since this was first asked, for
    /// so long that a deletion is believed as well. To be asked in one life of the lock manager, and of nothing but looks that
    /// could see the directory; else [`Ledger::lose_sight`].
    pub fn long_absent<'a>(
        &mut self,
        now: Moment,
        untold: impl Iterator<Item = &'a RecordKey>,
        found: &Population,
    ) -> Vec<RecordKey> {
        let is_back = |key: &RecordKey| found.may_hold(key) && !planted(Bug::ForgetReturned);
        let absent = untold.filter(|key| self.stored.contains_key(*key) && !is_back(key));
        let since = |key: &RecordKey| (key.clone(), self.absent.get(key).copied().unwrap_or(now));
        self.absent = absent.map(since).collect();
        let long = self.absent.iter().filter(|(_, since)| now.since(**since) >= self.delay);
        long.map(|(key, _)| key.clone()).collect()
    }

    /// Nothing is known of those that no look has found.
    pub fn lose_sight(&mut self) {
        self.absent.clear();
    }

    /// Compares a scan with what the store holds. The answer is what to commit, and [`Ledger::committed`] must be
    /// told of it, or [`Ledger::uncommitted`] of one that failed: it is asked for again at the next scan.
    ///
    /// `now` is when the scan began. `life` is the life of the lock manager that has served from then on, `None` where none
    /// does or where one is being made to recognise: no deletion is believed then, and none that was seen before.
    pub fn compare(
        &mut self,
        now: Moment,
        found: &Population,
        roles: &Roles,
        life: Option<&Incarnation>,
    ) -> Vec<RecordChange> {
        let mut comparison = self.begin_comparison();
        self.compare_some(&mut comparison, now, found, roles, life, Portion::ALL)
    }

    /// Begins to compare in portions, so that hundreds of thousands of clients hold nothing up that comes in between.
    pub fn begin_comparison(&mut self) -> Comparison {
        self.refused = 0;
        Comparison::Arrivals { after: None, alone: false }
    }

    /// The same with a scan that took so long that a client which it lacks may have come back since: it shows which clients have
    /// come, and none to have left.
    pub fn begin_arrivals(&mut self) -> Comparison {
        self.refused = 0;
        Comparison::Arrivals { after: None, alone: true }
    }

    /// The next portion of [`Ledger::compare`]: the changes that it returns are to be committed before the one after it is
    /// asked for. The scan may grow between two portions, and `life` end; a client that was passed already is compared at the
    /// next scan.
    pub fn compare_some(
        &mut self,
        comparison: &mut Comparison,
        now: Moment,
        found: &Population,
        roles: &Roles,
        life: Option<&Incarnation>,
        portion: Portion,
    ) -> Vec<RecordChange> {
        self.follow_life(life);
        let mut changes = Vec::new();
        if let Comparison::Arrivals { after, alone } = comparison {
            *after = self.arrivals(found, roles, life.is_some(), after.as_ref(), portion, &mut changes);
            if after.is_some() {
                return changes;
            }
            if *alone {
                *comparison = Comparison::Over;
                return changes;
            }
            self.peers.retain(|peer| found.clients.contains_key(peer));
            *comparison = Comparison::Departures { after: None };
            if portion.is_a_part() {
                return changes;
            }
        }
        if let Comparison::Departures { after } = comparison {
            *after = self.departures(now, found, life.is_some(), after.as_ref(), portion, &mut changes);
            if after.is_none() {
                *comparison = Comparison::Over;
            }
        }
        changes
    }

    /// These changes are durable.
    pub fn committed(&mut self, changes: &[RecordChange]) {
        for entry in changes {
            let was_held = self.holds(entry.key());
            self.doubted.remove(entry.key());
            match entry {
                RecordChange::Put(key, record) => {
                    self.stored.insert(key, record.clone());
                    self.arrived += u64::from(!was_held);
                    self.tombstones.remove(key);
                }
                RecordChange::Remove(key) => {
                    self.stored.remove(key);
                    self.tombstones.remove(key);
                    self.seen.remove(key);
                }
            }
        }
    }

    /// The commit of these changes failed, and may have come about all the same: a record whose removal failed may be gone,
    /// and one that was to be replaced may be. So these clients are written anew as soon as they are found again.
    pub fn uncommitted(&mut self, changes: &[RecordChange]) {
        let doubt = |change: &RecordChange| match change {
            RecordChange::Put(..) => Doubt::Put,
            RecordChange::Remove(_) => Doubt::Removal,
        };
        self.doubted.extend(changes.iter().map(|change| (change.key().clone(), doubt(change))));
    }

    /// The last change of this client, where its commit failed and may have come about all the same.
    #[must_use]
    pub fn doubt(&self, key: &impl AsKey) -> Option<Doubt> {
        let doubted: &dyn AsKey = key;
        self.doubted.get(doubted).copied()
    }

    /// Whether the store holds a record of this client for certain.
    #[must_use]
    pub fn holds(&self, key: &impl AsKey) -> bool {
        self.stored.contains_key(key) && self.doubt(key).is_none()
    }

    /// This client is registered in this life of the lock manager, as [`Ledger::compare`] has it: it need not be there
    /// still at the next scan to have been seen.
    pub fn saw(&mut self, client: impl Into<RecordKey>, life: Option<&Incarnation>) {
        self.follow_life(life);
        // A client that had vanished has come back: if it vanishes again, its time begins anew.
        let key = client.into();
        self.tombstones.remove(&key);
        if life.is_some() {
            self.seen.insert(key);
        }
    }

    /// The records that the store holds, as far as this server knows: see [`Ledger::holds`].
    #[must_use]
    pub fn stored(&self) -> &Records {
        &self.stored
    }

    /// How many clients this ledger has come to know since it was made, those that have gone again counted as well: a number
    /// that differs whenever a client has arrived, which the number of clients does not.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Deletions that wait to be believed.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// When the next tombstone may be believed: time for a scan even without a hint.
    #[must_use]
    pub fn next_tombstone_due(&self) -> Option<Moment> {
        self.tombstones.values().min().map(|since| *since + self.delay)
    }

    /// Whether it knows peers, mounted still or not: a host that is connected may be none any more.
    #[must_use]
    pub fn remembers_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Records that found no place because the service has [`limits::RECORDS_MAX`] of them.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    fn follow_life(&mut self, life: Option<&Incarnation>) {
        if life.is_none() || self.life.as_ref() != life {
            // A record that vanished in another life, or while no lock manager served, says nothing about this life.
            self.tombstones.clear();
            self.seen.clear();
            self.life = life.cloned();
        }
    }

    /// Takes in the records that were found beyond `after`. Answers up to where, unless it is all.
    fn arrivals(
        &mut self,
        found: &Population,
        roles: &Roles,
        serves: bool,
        after: Option<&RecordKey>,
        mut portion: Portion,
        changes: &mut Vec<RecordChange>,
    ) -> Option<RecordKey> {
        let mut arriving = 0;
        let mut last: Option<&RecordKey> = None;
        for (key, lines) in found.clients.after(after) {
            if !portion.take_one(changes.len() < portion.puts_max) {
                return last.cloned().filter(|_| !planted(Bug::FirstPortion));
            }
            last = Some(key);
            if serves && !self.seen.contains(key) {
                self.seen.insert(key.clone());
            }
            self.tombstones.remove(key);
            if planted(Bug::TrustHint) && !roles.connected.contains(key.client()) {
                continue;
            }
            let record = found.record_of(key, lines);
            if let Some(known) = self.stored.get(key)
                && *known == record
                && self.doubt(key).is_none()
            {
                // What is found and what is stored is kept once, where it is one file's bytes.
                if record.is_shared_with(lines) && !known.is_shared_with(&record) {
                    self.stored.share(key, &record);
                }
                continue;
            }
            let is_new = !self.stored.contains_key(key);
            if !self.keeps_peers && is_new && self.is_peer(key, roles) {
                continue;
            }
            if is_new && self.stored.len() + arriving >= limits::RECORDS_MAX {
                self.refused += 1;
                continue;
            }
            arriving += usize::from(is_new);
            changes.push(RecordChange::Put(key.clone(), record));
        }
        None
    }

    fn is_peer(&mut self, key: &RecordKey, roles: &Roles) -> bool {
        if roles.connected.contains(key.client()) || planted(Bug::TellPeers) {
            self.peers.remove(key);
            return false;
        }
        // A mount that ends leaves its record behind for minutes; that doesn't make its server a client.
        if roles.peers.contains(key.client()) {
            self.peers.insert(key.clone());
        }
        self.peers.contains(key)
    }

    /// Takes in the stored records beyond `after` that were not found: by another key, where its name leads to another than
    /// before, or not at all. Answers up to where, unless it is all.
    fn departures(
        &mut self,
        now: Moment,
        found: &Population,
        serves: bool,
        after: Option<&RecordKey>,
        mut portion: Portion,
        changes: &mut Vec<RecordChange>,
    ) -> Option<RecordKey> {
        // Clients that are not stored yet, and will be in the same commit.
        let arriving: BTreeSet<RecordKey> =
            changes.iter().filter_map(RecordChange::written).cloned().collect();
        let mut last: Option<&RecordKey> = None;
        for (key, record) in self.stored.after(after) {
            if !portion.take_one(changes.len() < portion.removals_max) {
                return last.cloned();
            }
            last = Some(key);
            if found.clients.contains_key(key) {
                continue;
            }
            let moved_to = found.moved_to(key, record);
            if !moved_to.is_empty() {
                // A client whose name leads to another key than before is one client, and not one that left: its old key is
                // removed as soon as the new one is on record. While a run is on no client changes its key, so that each
                // outcome belongs to one client.
                let is_known = |other: &MonName| {
                    let other: &dyn AsKey = other;
                    self.stored.contains_key(&other) || arriving.contains(other)
                };
                if serves && moved_to.into_iter().all(is_known) {
                    changes.push(RecordChange::Remove(key.clone()));
                }
                continue;
            }
            // Where no lock manager serves, no client is seen.
            if !self.seen.contains(key) {
                continue;
            }
            if found.may_hold(key) {
                self.tombstones.remove(key);
                continue;
            }
            let since = *self.tombstones.entry(key.clone()).or_insert(now);
            if now.since(since) >= self.delay || planted(Bug::BelieveDeletions) {
                changes.push(RecordChange::Remove(key.clone()));
            }
        }
        None
    }
}

/// How far a comparison in portions has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Clients that were found, up to this one.
    Arrivals {
        /// the last that was compared
        after: Option<RecordKey>,
        /// those that are stored are not compared then
        alone: bool,
    },
    /// Clients that are stored, up to this one.
    Departures {
        /// the last that was compared
        after: Option<RecordKey>,
    },
    /// Everything was compared.
    Over,
}

/// How much is compared at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    clients: usize,
    puts_max: usize,
    removals_max: usize,
}

impl Portion {
    /// Everything.
    pub const ALL: Self = Self { clients: usize::MAX, puts_max: usize::MAX, removals_max: usize::MAX };

    /// A part of those that were found, or of those that are stored: so many clients at most, and no further one once so many
    /// records are to be written, or so many to be removed. One client at least.
    #[must_use]
    pub fn of(clients: usize, puts_max: usize, removals_max: usize) -> Self {
        Self { clients: clients.max(1), puts_max: puts_max.max(1), removals_max: removals_max.max(1) }
    }

    fn is_a_part(self) -> bool {
        self != Self::ALL
    }

    /// Whether one more client belongs to it; `has_room` where not enough is to be committed yet.
    fn take_one(&mut self, has_room: bool) -> bool {
        let takes = has_room && self.clients > 0;
        self.clients -= usize::from(takes);
        takes
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
