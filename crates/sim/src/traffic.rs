//! Traffic between servers and clients: datagrams, and calls of the lock manager with their answers.

use std::net::SocketAddr;

use heirlock_core::ServiceName;
use heirlock_core::notify::Transmit;
use heirlock_nsm::rpc::{Call as RpcCall, encode_success};
use heirlock_nsm::{StateNumber, rpcbind, sm};

use crate::Ms;
use crate::chance::Purpose;
use crate::client::{Ask, Verdict};
use crate::happening::Happening;
use crate::lock_manager::{FileAt, Life, LockManagerAt, client_address, client_at};
use crate::schedule::{Capture, Level};
use crate::world::World;

impl World {
    pub(crate) fn send(&mut self, of: LockManagerAt, service: &ServiceName, transmit: &Transmit) {
        let Some(at) = self.service(service) else { return };
        self.check_sender(of, at);
        if self.serving(at) != Some(of) {
            return; // no such address here: the call to the kernel fails
        }
        self.check_datagram(of, at, transmit);
        let Some(client) = client_at(transmit.to.ip()).filter(|c| *c < self.clients.len()) else { return };
        let (life, port) = (self.servers[of].life(), transmit.to.port());
        for after in self.deliveries(client) {
            let payload = transmit.payload.clone();
            self.after(after, Happening::ToClient { client, service: at, life, port, payload });
        }
    }

    /// When the copies of one datagram arrive: none where it is lost, two where it is doubled.
    pub(crate) fn deliveries(&mut self, client: usize) -> Vec<Ms> {
        let now = self.now;
        let (doubled, late) = (self.levels.of(Level::DatagramsDoubled), self.levels.of(Level::DatagramsLate));
        let rng = self.chance(Purpose::Datagram, client);
        // Drawn always, so that a level that changes leaves the others where they are.
        let (loss, copies) = (rng.u8(0..100), 1 + usize::from(rng.u16(0..100) < doubled));
        let arrivals = [(); 2].map(|()| {
            let (is_late, far, near) = (rng.u16(0..100) < late, rng.u64(200..2_000), rng.u64(1..30));
            if is_late { far } else { near }
        });
        let it = &mut self.clients[client];
        if it.away_until > now {
            it.note_kept_off(now);
            return Vec::new();
        }
        if loss < it.loss { Vec::new() } else { arrivals[..copies].to_vec() }
    }

    pub(crate) fn arrive_at_client(
        &mut self,
        client: usize,
        service: usize,
        life: Life,
        port: u16,
        payload: &[u8],
    ) {
        if self.clients[client].away_until > self.now {
            self.clients[client].note_kept_off(self.now);
            return;
        }
        let Ok(call) = RpcCall::decode(payload) else { return };
        let status_monitor = 4_000 + u16::try_from(client).unwrap_or_default();
        let reply = match (port, call.prog) {
            (111, rpcbind::PROGRAM) => {
                encode_success(call.xid, &rpcbind::encode_getport_result(Some(status_monitor)))
            }
            (port, sm::PROGRAM) if port == status_monitor => {
                let Ok(notify) = sm::Notify::decode(call.args) else { return };
                self.hear(client, service, life, notify.state);
                encode_success(call.xid, &[])
            }
            _ => return,
        };
        let from = SocketAddr::new(client_address(client), port);
        for after in self.deliveries(client) {
            let mut payload = reply.clone();
            let rng = self.chance(Purpose::Datagram, client);
            let (is_cut_short, len) = (rng.u8(0..5) == 0, rng.usize(0..payload.len()));
            if self.has_garbage && is_cut_short {
                payload.truncate(len);
            }
            self.after(after, Happening::ToServer { service, from, payload });
        }
    }

    fn hear(&mut self, client: usize, service: usize, life: Life, state: StateNumber) {
        self.check_number(client, service, life, state);
        let files = self.clients[client].notified(service, state);
        if !files.is_empty() {
            self.say(|| format!("client {client} heard number {state} and reclaims {files:?}"));
        }
        for file in files {
            let number = self.clients[client].call(file, Ask::Reclaim);
            let after = self.chance(Purpose::Call, client).u64(1..40);
            self.after(after, Happening::Call { client, file, number });
        }
    }

    // Clients and lock managers.

    pub(crate) fn act(&mut self, client: usize) {
        let mounts = self.clients[client].mounts.len();
        let rng = self.chance(Purpose::Process, client);
        let (after, mount, file) = (rng.u64(300..4_000), rng.usize(0..mounts), rng.u8(0..2));
        let keeps = rng.u8(0..4) > 0;
        self.after(after, Happening::Act(client));
        let it = &self.clients[client];
        let file = (it.mounts[mount], file);
        if !self.is_busy || it.away_until > self.now || it.waits_to_be_heard() || it.calls.contains_key(&file)
        {
            return;
        }
        let ask = match it.locks.contains_key(&file) {
            true if keeps => return,
            true => Ask::Unlock,
            false => Ask::Lock,
        };
        let number = self.clients[client].call(file, ask);
        self.after(1, Happening::Call { client, file, number });
    }

    pub(crate) fn call(&mut self, client: usize, file: FileAt, number: u64) {
        if self.clients[client].calls.get(&file).is_none_or(|call| call.number != number) {
            return;
        }
        self.after(1_000, Happening::Call { client, file, number });
        if self.clients[client].away_until > self.now {
            self.clients[client].note_kept_off(self.now);
            return;
        }
        self.arrives(client, file, number);
    }

    /// A call arrives at the lock manager that has the address, or has waited there.
    pub(crate) fn arrives(&mut self, client: usize, file: FileAt, number: u64) {
        let Some(call) = self.clients[client].calls.get(&file).filter(|c| c.number == number).cloned() else {
            return;
        };
        let Some(of) = self.serving(file.0).filter(|of| self.servers[*of].serves()) else { return };
        if self.must_wait(of, (client, file, number)) {
            return;
        }
        self.wake_lockd(of);
        let (in_grace, life) = (self.servers[of].in_grace(self.now), self.servers[of].life());
        let verdict = match call.ask {
            Ask::Lock | Ask::Unlock if in_grace => Verdict::WrongTime,
            Ask::Reclaim if !in_grace => Verdict::WrongTime,
            Ask::Unlock => {
                if self.servers[of].locks.get(&file) == Some(&client) {
                    self.servers[of].locks.remove(&file);
                }
                let after = self.chance(Purpose::LockManager, of.stream()).u64(8_000..30_000);
                self.after(after, Happening::Expire { life, client });
                Verdict::Granted
            }
            Ask::Lock | Ask::Reclaim => match self.grant(of, client, file) {
                Some(verdict) => verdict,
                None if self.servers[of].capture != Capture::Watch => return,
                None => return self.after(25, Happening::Call { client, file, number }),
            },
        };
        if verdict == Verdict::WrongTime && call.ask == Ask::Reclaim {
            self.say(|| format!("client {client} may not reclaim {file:?}: grace is over"));
        }
        let after = self.chance(Purpose::Call, client).u64(1..20);
        self.after(after, Happening::Answer { client, file, number, verdict, life });
    }

    /// `None` while the client is being registered with the status monitor.
    fn grant(&mut self, of: LockManagerAt, client: usize, file: FileAt) -> Option<Verdict> {
        let life = self.servers[of].life();
        let it = &mut self.servers[of];
        if !it.registered.contains(&client) {
            self.checks.asked_for.insert((of, client));
            // rpc.statd writes no file for a client that it remembers, and runs no callout.
            if it.capture == Capture::Nsm
                || !it.remembered.contains(&client) && it.capture == Capture::Callout
            {
                return self.ask_for(of, client, file);
            }
            if !it.remembered.contains(&client) {
                it.create_record(client);
                self.after(15, Happening::Recorded { life, client });
                return None;
            }
            it.registered.insert(client);
            it.asking.remembers(client, it.callouts.has_acknowledged(client));
            self.checks.registered_at.insert((of, client), self.now);
        }
        let it = &mut self.servers[of];
        match it.locks.get(&file) {
            Some(holder) if *holder != client => return Some(Verdict::Denied),
            Some(_) => {}
            None => {
                it.locks.insert(file, client);
                self.check_grant(client, file);
            }
        }
        self.promise(of, client, file);
        Some(Verdict::Granted)
    }

    pub(crate) fn answer(&mut self, client: usize, file: FileAt, number: u64, verdict: Verdict, life: Life) {
        let it = &self.servers[life.of];
        // A connection ends with the life that it leads to, or with the address.
        if !it.serves() || it.life() != life || self.serving(file.0) != Some(life.of) {
            return;
        }
        if self.clients[client].away_until > self.now {
            self.clients[client].note_kept_off(self.now);
            return;
        }
        let lost = self.clients[client].locks.get(&file).and_then(|held| held.loss.as_ref());
        let granted_by = lost.map(|loss| loss.by);
        let asked = self.clients[client].answered(file, number, verdict);
        if let Some(by) = granted_by.filter(|_| asked == Some(Ask::Reclaim) && verdict == Verdict::Granted) {
            self.checks.losses.make_good(by);
        }
        if asked == Some(Ask::Lock) && verdict == Verdict::Granted {
            self.say(|| format!("client {client} has {file:?}"));
        }
    }
}
