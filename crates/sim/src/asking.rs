//! A lock manager that waits for its status monitor (modes `nsm` and `callout`): in its only thread, so that all other calls
//! wait as well.

use std::collections::BTreeSet;

use crate::chance::Purpose;
use crate::client::Verdict;
use crate::schedule::Capture;
use crate::server::{FileAt, Life};
use crate::world::{Happening, World};

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

/// The life of a lock manager in whose memory a client is registered: a SIGKILL leaves that memory.
fn memory(life: Life) -> (usize, u32, u32) {
    (life.0, life.1, life.2)
}

impl World {
    /// What happens between lock managers, status monitors and agents.
    pub(crate) fn happen_to_registrations(&mut self, happening: &Happening) {
        match *happening {
            Happening::CallsOut { server, number } => self.calls_out(server, number),
            Happening::CalloutAnswered { server, number, is_durable } => {
                self.callout_answered(server, number, is_durable);
            }
            Happening::CalloutEnds { server, number } => self.callout_ends(server, number),
            Happening::MonitorReads { server, agent } => self.monitor_reads(server, agent),
            Happening::MonitorTicks { server, agent } => self.monitor_ticks(server, agent),
            Happening::DirectoryRead { server, agent } => self.directory_was_read(server, agent),
            Happening::DirectorySynced { server, agent } => self.directory_is_synced(server, agent),
            Happening::RegisterPeer { server, life } => self.register_peer(server, life),
            Happening::Registered { server, life, client, granted, acknowledged } => {
                self.registered(server, life, client, granted, acknowledged);
            }
            _ => {}
        }
    }

    /// Parks a call while the lock manager waits, or asks the status monitor for its client. The verdict, where it is refused.
    pub(crate) fn ask_for(&mut self, server: usize, client: usize, file: FileAt) -> Option<Verdict> {
        let number = self.clients[client].calls.get(&file)?.number;
        let it = &mut self.servers[server];
        if it.asking.refused.remove(&(client, file, number)) {
            return Some(Verdict::Denied);
        }
        let life = it.life();
        it.asking.parked.insert((client, file, number));
        it.asking.on = Some(((client, file, number), life));
        match it.capture {
            Capture::Watch | Capture::Callout => {
                it.create_record(client);
                self.after(15, Happening::Recorded { server, life, client });
            }
            Capture::Nsm => self.ask_status_monitor_for(server, Some(client)),
        }
        None
    }

    /// Whether a call has to wait, since the lock manager waits for its status monitor.
    pub(crate) fn must_wait(&mut self, server: usize, called: Called) -> bool {
        let asking = &mut self.servers[server].asking;
        let waits = asking.on.is_some();
        if waits {
            asking.parked.insert(called);
        }
        waits
    }

    /// The status monitor has answered the lock manager's SM_MON. `acknowledged`: the client's record is said to be durable.
    pub(crate) fn registered(
        &mut self,
        server: usize,
        life: Life,
        client: usize,
        granted: bool,
        acknowledged: bool,
    ) {
        let now = self.now;
        let it = &mut self.servers[server];
        if memory(life) != memory(it.life()) || !it.serves() {
            return;
        }
        let Some((called, _)) = it.asking.on.take_if(|(called, _)| called.0 == client) else { return };
        match granted {
            true => {
                it.registered.insert(client);
                it.asking.remembers(client, acknowledged);
                self.checks.registered_at.insert((server, client), now);
            }
            false => drop(it.asking.refused.insert(called)),
        }
        let parked = std::mem::take(&mut self.servers[server].asking.parked);
        for (client, file, number) in parked {
            self.after(1, Happening::Arrives { client, file, number });
        }
    }

    /// A lock is granted: with the promise that its holder is on record, where the mode of the server makes one.
    pub(crate) fn promise(&mut self, server: usize, client: usize, file: FileAt) {
        let name = &self.services[file.0].name;
        let it = &self.servers[server];
        let claim = self.store.newest_claim(name);
        let is_ours = claim.is_some_and(|claim| claim.owner == it.name && !claim.released);
        let is_promised = is_ours
            && it.capture != Capture::Watch
            && it.registered.contains(&client)
            && !it.asking.unprotected.contains(&client);
        let key = &self.clients[client].key;
        let is_there = self.store.see_newest(name, |contents| contents.records.contains_key(key));
        let (us, name) = (it.name.clone(), name.clone());
        let asking = &mut self.servers[server].asking;
        if !is_promised {
            asking.promised.remove(&(file, client));
            return;
        }
        asking.promised.insert((file, client));
        if is_there != Some(true) {
            let what = format!(
                "{us} grants {file:?} to client {client}, which is not on record in the store, as a client of {name}"
            );
            self.violated(1, what);
        }
    }

    /// The lock manager has a client unmonitored.
    pub(crate) fn unmonitor(&mut self, server: usize, client: usize) {
        match self.servers[server].capture {
            Capture::Watch | Capture::Callout => self.servers[server].unmonitor(client),
            Capture::Nsm => self.ask_status_monitor_to_forget(server, client),
        }
    }

    /// rpc.statd has written the record of a client, and answers; in mode `callout` after its callout.
    pub(crate) fn recorded(&mut self, server: usize, life: Life, client: usize) {
        let it = &mut self.servers[server];
        if !it.on || it.boot != life.1 {
            return;
        }
        it.write_record(client);
        self.checks.recorded_at.insert((server, client), self.now);
        self.hint(server);
        match self.servers[server].capture {
            Capture::Callout => self.call_out(server, client, life),
            _ if self.servers[server].life() == life => {
                self.servers[server].registered.insert(client);
                self.checks.registered_at.insert((server, client), self.now);
            }
            _ => {}
        }
    }

    pub(crate) fn register_peer_soon(&mut self, server: usize) {
        if self.servers[server].capture == Capture::Nsm {
            let life = self.servers[server].life();
            let after = self.chance(Purpose::StatusMonitor, server).u64(500..6_000);
            self.after(after, Happening::RegisterPeer { server, life });
        }
    }

    pub(crate) fn register_peer(&mut self, server: usize, life: Life) {
        if self.servers[server].life() == life && self.servers[server].serves() {
            self.ask_status_monitor_for(server, None);
        }
    }
}
