//! Traffic between servers and clients: datagrams, and calls of the lock manager with their answers.

use std::net::SocketAddr;

use heirlock_core::ServiceName;
use heirlock_core::notify::Transmit;
use heirlock_nsm::rpc::{Call as RpcCall, encode_success};
use heirlock_nsm::{StateNumber, rpcbind, sm};

use crate::Ms;
use crate::chance::Purpose;
use crate::client::{Ask, Verdict};
use crate::schedule::{Capture, Level};
use crate::server::{FileAt, Life, client_address, client_at};
use crate::world::{Happening, World};

impl World {
    pub(crate) fn send(&mut self, server: usize, service: &ServiceName, transmit: &Transmit) {
        let Some(at) = self.service(service) else { return };
        if self.address_of(at) != Some(server) {
            return; // no such address here: the call to the kernel fails
        }
        self.check_datagram(server, at, transmit);
        let Some(client) = client_at(transmit.to.ip()).filter(|c| *c < self.clients.len()) else { return };
        let (life, port) = (self.servers[server].life(), transmit.to.port());
        for after in self.deliveries(client) {
            let payload = transmit.payload.clone();
            self.after(after, Happening::ToClient { client, service: at, life, port, payload });
        }
    }

    /// When the copies of one datagram arrive: none where it is lost, two where it is doubled.
    fn deliveries(&mut self, client: usize) -> Vec<Ms> {
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
        if !self.is_busy || it.away_until > self.now || it.calls.contains_key(&file) {
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
        let Some(server) = self.address_of(file.0).filter(|server| self.servers[*server].serves()) else {
            return;
        };
        if self.must_wait(server, (client, file, number)) {
            return;
        }
        self.wake_lockd(server);
        let (in_grace, life) = (self.servers[server].in_grace(self.now), self.servers[server].life());
        let verdict = match call.ask {
            Ask::Lock | Ask::Unlock if in_grace => Verdict::WrongTime,
            Ask::Reclaim if !in_grace => Verdict::WrongTime,
            Ask::Unlock => {
                if self.servers[server].locks.get(&file) == Some(&client) {
                    self.servers[server].locks.remove(&file);
                }
                let after = self.chance(Purpose::LockManager, server).u64(8_000..30_000);
                self.after(after, Happening::Expire { server, life, client });
                Verdict::Granted
            }
            Ask::Lock | Ask::Reclaim => match self.grant(server, client, file) {
                Some(verdict) => verdict,
                None if self.servers[server].capture != Capture::Watch => return,
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
    fn grant(&mut self, server: usize, client: usize, file: FileAt) -> Option<Verdict> {
        let life = self.servers[server].life();
        let it = &mut self.servers[server];
        if !it.registered.contains(&client) {
            // rpc.statd writes no file for a client that it remembers, and runs no callout.
            if it.capture == Capture::Nsm
                || !it.remembered.contains(&client) && it.capture == Capture::Callout
            {
                return self.ask_for(server, client, file);
            }
            if !it.remembered.contains(&client) {
                it.create_record(client);
                self.after(15, Happening::Recorded { server, life, client });
                return None;
            }
            it.registered.insert(client);
            it.asking.remembers(client, it.callouts.has_acknowledged(client));
            self.checks.registered_at.insert((server, client), self.now);
        }
        let it = &mut self.servers[server];
        match it.locks.get(&file) {
            Some(holder) if *holder != client => return Some(Verdict::Denied),
            Some(_) => {}
            None => {
                it.locks.insert(file, client);
                self.check_grant(client, file);
            }
        }
        self.promise(server, client, file);
        Some(Verdict::Granted)
    }

    pub(crate) fn answer(&mut self, client: usize, file: FileAt, number: u64, verdict: Verdict, life: Life) {
        let server = &self.servers[life.0];
        // A connection ends with the life that it leads to, or with the address.
        if !server.serves() || server.life() != life || self.address_of(file.0) != Some(life.0) {
            return;
        }
        if self.clients[client].away_until > self.now {
            self.clients[client].note_kept_off(self.now);
            return;
        }
        let lost = self.clients[client].locks.get(&file).and_then(|held| held.loss.as_ref());
        let lost_on = lost.map(|loss| loss.on);
        let asked = self.clients[client].answered(file, number, verdict);
        if let Some(on) = lost_on.filter(|_| asked == Some(Ask::Reclaim) && verdict == Verdict::Granted) {
            self.checks.losses.make_good(on);
        }
        if asked == Some(Ask::Lock) && verdict == Verdict::Granted {
            self.say(|| format!("client {client} has {file:?}"));
        }
    }
}
