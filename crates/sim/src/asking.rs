//! A lock manager that waits for its status monitor (modes `nsm` and `callout`): in its only thread, so that all other calls
//! wait as well.

use std::collections::BTreeSet;

use heirlock_core::claim::Claim;
use heirlock_core::takeover::Phase;
use heirlock_core::{RecordKey, ServiceName};

use crate::chance::Purpose;
use crate::client::Verdict;
use crate::happening::Happening;
use crate::lock_manager::{FileAt, Life, LockManagerAt};
use crate::schedule::Capture;
use crate::world::World;

/// A call to a lock manager: the client, the file, and the number of the call.
type Called = (usize, FileAt, u64);

/// A lock manager's wait for the answer to its SM_MON.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// The call that needs the answer, and the life of the lock manager that asks.
    on: Option<(Called, Life)>,
    /// Calls that came meanwhile, and that call itself.
    parked: BTreeSet<Called>,
    /// Calls whose client was refused.
    refused: BTreeSet<Called>,
    /// Clients that this life has registered although no record of theirs was said to be durable.
    unprotected: BTreeSet<usize>,
    /// Locks that were granted with the promise that their holder is on record.
    promised: BTreeSet<(FileAt, usize)>,
}

impl Asking {
    /// Whether the lock manager's only thread waits for its status monitor.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Whether a lock was granted with the promise that its holder is on record.
    pub(crate) fn has_promised(&self, file: FileAt, client: usize) -> bool {
        self.promised.contains(&(file, client))
    }

    /// A client is registered that rpc.statd remembers. `acknowledged`: its record was said to be durable.
    pub(crate) fn remembers(&mut self, client: usize, acknowledged: bool) {
        match acknowledged {
            true => self.unprotected.remove(&client),
            false => self.unprotected.insert(client),
        };
    }

    /// The lock manager begins another life, and knows nothing of all that.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl World {
    /// What happens between lock managers, status monitors and agents.
    pub(crate) fn happen_to_registrations(&mut self, happening: Happening) {
        match happening {
            Happening::CallsOut { of, number } => self.calls_out(of, number),
            Happening::CalloutAnswered { of, number, is_durable } => {
                self.callout_answered(of, number, is_durable);
            }
            Happening::CalloutEnds { of, number } => self.callout_ends(of, number),
            Happening::MonitorReads { of, agent } => self.monitor_reads((of, agent)),
            Happening::MonitorTicks { of, agent } => self.monitor_ticks((of, agent)),
            Happening::DirectoryRead { of, agent } => self.directory_was_read((of, agent)),
            Happening::DirectorySynced { of, agent } => self.directory_is_synced((of, agent)),
            Happening::RegisterPeer { life } => self.register_peer(life),
            Happening::Registered { life, client, granted, acknowledged } => {
                self.registered(life, client, granted, acknowledged);
            }
            other => self.happen_to_announcements(other),
        }
    }

    /// Parks a call while the lock manager waits, or asks the status monitor for its client. The verdict, where it is refused.
    pub(crate) fn ask_for(&mut self, of: LockManagerAt, client: usize, file: FileAt) -> Option<Verdict> {
        let number = self.clients[client].calls.get(&file)?.number;
        let it = &mut self.servers[of];
        if it.asking.refused.remove(&(client, file, number)) {
            return Some(Verdict::Denied);
        }
        let life = it.life();
        it.asking.parked.insert((client, file, number));
        it.asking.on = Some(((client, file, number), life));
        match it.capture {
            Capture::Watch | Capture::Callout => {
                it.create_record(client);
                self.after(15, Happening::Recorded { life, client });
            }
            Capture::Nsm => self.ask_status_monitor_for(of, Some(client)),
        }
        None
    }

    /// Whether a call has to wait, since the lock manager waits for its status monitor.
    pub(crate) fn must_wait(&mut self, of: LockManagerAt, called: Called) -> bool {
        let asking = &mut self.servers[of].asking;
        let waits = asking.on.is_some();
        if waits {
            asking.parked.insert(called);
        }
        waits
    }

    /// The status monitor has answered the lock manager's SM_MON. `acknowledged`: the client's record is said to be durable.
    pub(crate) fn registered(&mut self, life: Life, client: usize, granted: bool, acknowledged: bool) {
        let (now, of) = (self.now, life.of);
        let it = &mut self.servers[of];
        if !life.shares_memory_with(it.life()) || !it.serves() {
            return;
        }
        let Some((called, _)) = it.asking.on.take_if(|(called, _)| called.0 == client) else { return };
        match granted {
            true => {
                it.registered.insert(client);
                it.asking.remembers(client, acknowledged);
                self.checks.registered_at.insert((of, client), now);
            }
            false => drop(it.asking.refused.insert(called)),
        }
        let parked = std::mem::take(&mut self.servers[of].asking.parked);
        for (client, file, number) in parked {
            self.after(1, Happening::Arrives { client, file, number });
        }
    }

    /// A lock is granted: with the promise that its holder is on record, where the mode of the server makes one.
    pub(crate) fn promise(&mut self, of: LockManagerAt, client: usize, file: FileAt) {
        let name = &self.services[file.0].name;
        let it = &self.servers[of];
        let claim = self.store.newest_claim(name);
        let ours = claim.filter(|claim| claim.owner == it.node && !claim.released);
        let is_promised = ours
            .is_some_and(|claim| !self.is_taken_over_since_registered(of, client, name, &claim))
            && it.capture != Capture::Watch
            && it.registered.contains(&client)
            && !it.asking.unprotected.contains(&client);
        let key = &self.clients[client].key;
        let is_there = self.store.see_newest(name, |contents| contents.records.contains_key(key));
        let (us, name) = (it.name.clone(), name.clone());
        let asking = &mut self.servers[of].asking;
        if !is_promised {
            asking.promised.remove(&(file, client));
            return;
        }
        asking.promised.insert((file, client));
        self.checks.history.granted(&name, &RecordKey::from(self.clients[client].key.clone()));
        if is_there != Some(true) {
            let what = format!(
                "{us} grants {file:?} to client {client}, which is not on record in the store, as a client of {name}"
            );
            self.violated(1, what);
        }
    }

    /// Whether a service was taken over after a client had registered, and its generation is not conveyed yet. Its address was here
    /// before it was this server's, against all warnings: the client comes onto record as one of the service with the others, and
    /// then the lock manager is restarted, and the client told.
    fn is_taken_over_since_registered(
        &self,
        of: LockManagerAt,
        client: usize,
        name: &ServiceName,
        claim: &Claim,
    ) -> bool {
        let journal = self.store.journal(name, claim.generation);
        let is_conveyed = journal.is_some_and(|journal| journal.phase != Phase::Claimed);
        let claimed = self.claimed_at.get(&(name.clone(), claim.generation));
        let is_since = self.checks.registered_at.get(&(of, client)) < claimed;
        claim.adopts && is_since && !is_conveyed
    }

    /// The lock manager has a client unmonitored.
    pub(crate) fn unmonitor(&mut self, of: LockManagerAt, client: usize) {
        match self.servers[of].capture {
            Capture::Watch | Capture::Callout => self.servers[of].unmonitor(client),
            Capture::Nsm => self.ask_status_monitor_to_forget(of, client),
        }
    }

    /// rpc.statd has written the record of a client, and answers; in mode `callout` after its callout.
    pub(crate) fn recorded(&mut self, life: Life, client: usize) {
        let of = life.of;
        if !self.servers[of.server].on || self.servers[of.server].boot != life.boot {
            return;
        }
        self.servers[of].write_record(client);
        self.checks.recorded_at.insert((of, client), self.now);
        self.hint(of);
        match self.servers[of].capture {
            Capture::Callout => self.call_out(client, life),
            _ if self.servers[of].life() == life => {
                self.servers[of].registered.insert(client);
                self.checks.registered_at.insert((of, client), self.now);
            }
            _ => {}
        }
    }

    pub(crate) fn register_peer_soon(&mut self, of: LockManagerAt) {
        if self.servers[of].capture == Capture::Nsm && self.servers[of].peer.is_some() {
            let life = self.servers[of].life();
            let after = self.chance(Purpose::StatusMonitor, of.stream()).u64(500..6_000);
            self.after(after, Happening::RegisterPeer { life });
        }
    }

    pub(crate) fn register_peer(&mut self, life: Life) {
        let of = life.of;
        if self.servers[of].life() == life && self.servers[of].serves() {
            self.ask_status_monitor_for(of, None);
        }
    }
}
