//! All that an agent can do to the world, one step at a time. It may die at any of them.

use std::time::Duration;

use heirlock_core::grace::{Grace, Probe, Recalled, Remembered};
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Roles, lines_to_place};
use heirlock_core::lives::asks_first;
use heirlock_core::notify::Transmit;
use heirlock_core::takeover::{
    Conveyance, End, Event, Hindrance, Means, Part, Registrations, Strategy, Takeover,
};
use heirlock_core::{Moment, ServerName, ServiceName};
use heirlock_nsm::{MonName, MyName};

use crate::Ms;
use crate::agent::{self, Message};
use crate::chance::Purpose;
use crate::cluster::Word;
use crate::losses::Disturbance;
use crate::schedule::Level;
use crate::server::Server;
use crate::world::{Death, Happening, Recognising, World};

/// The world as one run of one agent sees it.
pub(crate) struct Out<'a> {
    pub(crate) w: &'a mut World,
    /// Which server's.
    pub(crate) s: usize,
    pub(crate) id: u64,
    pub(crate) started: Ms,
    pub(crate) died: Option<Death>,
    /// How long the store kept it waiting.
    pub(crate) delay: Ms,
}

impl Out<'_> {
    pub(crate) fn now(&self) -> Moment {
        self.w.moment(self.started)
    }

    pub(crate) fn server(&self) -> &Server {
        &self.w.servers[self.s]
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        let name = self.w.servers[self.s].name.clone();
        self.w.say(|| format!("{name}: {}", what()));
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.died.is_some()
    }

    /// One step further; whether it still lives.
    pub(crate) fn step(&mut self) -> bool {
        if self.died.is_none() {
            self.died = self.w.one_step(self.s);
            if let Some(death) = self.died {
                self.say(|| format!("dies right here: {death:?}"));
            }
        }
        self.died.is_none()
    }

    pub(crate) fn wall_s(&self) -> u64 {
        self.w.wall_s(self.s)
    }

    /// Where the numbers of a notifier's calls begin.
    pub(crate) fn notifier_seed(&mut self) -> u64 {
        self.w.chance(Purpose::Notifier, self.s).u64(..)
    }

    pub(crate) fn strategy(&self) -> Strategy {
        match self.server().is_newer || self.s == 1 {
            true => Strategy::RestartNfs,
            false => Strategy::RestartLockManager,
        }
    }

    pub(crate) fn means(&self) -> Means {
        let convey = if self.s == 0 { Conveyance::Copy } else { Conveyance::Generate };
        Means { strategy: self.strategy(), convey, margin: agent::MARGIN, limits: agent::LIMITS }
    }

    pub(crate) fn roles(&self) -> Roles {
        agent::roles(&self.server().peer)
    }

    // What is configured.

    pub(crate) fn configured(&self) -> Vec<ServiceName> {
        let ours = |at: &&crate::world::Service| at.host_of.is_none_or(|server| server == self.s);
        self.w.services.iter().filter(ours).map(|service| service.name.clone()).collect()
    }

    pub(crate) fn is_at_home(&self, service: &ServiceName) -> bool {
        self.w.service(service).is_some_and(|at| self.w.services[at].home == self.s)
    }

    pub(crate) fn automatic(&self) -> Vec<ServiceName> {
        self.w.services.iter().filter(|service| service.automatic).map(|s| s.name.clone()).collect()
    }

    pub(crate) fn names_of(&self, service: &ServiceName) -> Vec<MyName> {
        self.w.service(service).map(|at| self.w.services[at].names.clone()).unwrap_or_default()
    }

    pub(crate) fn has_address(&self, service: &ServiceName) -> bool {
        self.w.service(service).is_some_and(|at| self.w.address_of(at) == Some(self.s))
    }

    // Work that takes its time, and reports by an event.

    fn message(&mut self, after: Ms, message: Message) {
        let (server, agent) = (self.s, self.id);
        self.w.after(after, Happening::ToAgent { server, agent, message });
    }

    pub(crate) fn later(&mut self, after: Ms, run: u32, event: Event) {
        if !self.is_dead() {
            self.message(after, Message::Event(run, event));
        }
    }

    pub(crate) fn tell_later(&mut self, index: usize, after: Ms) {
        let (server, agent) = (self.s, self.id);
        self.w.after(after, Happening::Tell { server, agent, index });
    }

    pub(crate) fn fence(&mut self, run: u32, services: &[ServiceName]) {
        if !self.step() {
            return;
        }
        let owners: Vec<ServerName> =
            services.iter().filter_map(|s| Some(self.w.store.newest_claim(s)?.owner.clone())).collect();
        let fails = self.w.levels.of(Level::FenceFails);
        let confirmed = self.w.chance(Purpose::Fence, self.s).u16(0..100) >= fails;
        if confirmed {
            for owner in owners {
                if let Some(at) = self.w.servers.iter().position(|server| server.name == owner) {
                    self.say(|| format!("fences {owner}"));
                    self.w.power_off(at);
                    self.w.servers[at].fenced_until = self.w.now + 5_000;
                }
            }
        }
        let outcome = if confirmed { Ok(()) } else { Err("nobody confirms it".into()) };
        self.later(900, run, Event::Fenced(outcome));
    }

    pub(crate) fn place(&mut self, planned: &[(MonName, Vec<u8>)]) {
        if !self.step() {
            return;
        }
        let mut lines = Vec::new();
        for (client, bytes) in planned {
            self.w.check_name(client);
            let it = &mut self.w.servers[self.s];
            let there = it.sm.get(client).map(Vec::as_slice).unwrap_or_default();
            let remembered = it.book.get(client).map(Vec::as_slice).unwrap_or_default();
            let to_place = lines_to_place(there, remembered, bytes, it.name.as_str());
            if !to_place.is_empty() {
                let remembered = it.book.entry(client.clone()).or_default();
                if !crate::server::holds(remembered, &to_place) {
                    remembered.extend(&to_place);
                }
                lines.push((client, to_place));
            }
        }
        for (client, bytes) in &lines {
            if !self.step() {
                return;
            }
            self.w.servers[self.s].place(client, bytes);
        }
    }

    pub(crate) fn clean_up(&mut self) {
        for (client, bytes) in self.server().book.clone() {
            if !self.step() {
                return;
            }
            self.w.servers[self.s].take_away(&client, &bytes);
        }
        self.w.servers[self.s].book.clear();
    }

    /// What the agent before this one left of the same life, in a file that a boot takes away.
    pub(crate) fn recall_grace(&self, life: &Incarnation) -> Recalled {
        let noted = self.server().grace.as_ref();
        noted
            .map(|noted| noted.recall(life, self.now(), Duration::from_millis(self.w.now)))
            .unwrap_or_default()
    }

    pub(crate) fn note_grace_closed(&mut self, life: &Incarnation) {
        let since_boot = Duration::from_millis(self.w.now);
        let noted = self.w.servers[self.s].grace.get_or_insert_with(|| Remembered::of(life.clone()));
        noted.sees_closed(life, since_boot);
    }

    pub(crate) fn note_grace(&mut self, life: &Incarnation, since: Moment) {
        let noted = Remembered::opened(life.clone(), since, self.now(), Duration::from_millis(self.w.now));
        self.w.servers[self.s].grace = Some(noted);
    }

    pub(crate) fn note_registrations(&mut self, before: &Registrations) {
        if self.step() {
            self.w.servers[self.s].registrations = Some(before.render());
        }
    }

    pub(crate) fn recognise(&mut self, run: u32, strategy: Strategy, grace_seen: Option<Moment>, owes: bool) {
        if !self.step() {
            return;
        }
        let answer = asks_first(strategy, owes).then(|| self.probe());
        let (server, agent, before) = (self.s, self.id, self.w.now);
        self.w.servers[server].is_worked_on = true;
        let takes = match strategy {
            Strategy::RestartNfs => {
                self.w.after(150, Happening::StopNfs(server));
                self.w.after(600, Happening::StartNfs(server));
                650
            }
            Strategy::RestartLockManager => {
                self.w.after(100, Happening::KillLockd(server));
                self.w.after(150, Happening::WakeLockd(server));
                160
            }
            Strategy::Notify | Strategy::Command => 5,
        };
        let work = Recognising { strategy, before, grace_seen, answer };
        self.w.after(takes, Happening::Recognised { server, agent, run, work });
    }

    pub(crate) fn probe(&mut self) -> Probe {
        self.w.wake_lockd(self.s);
        agent::probe(self.server().serves(), self.server().in_grace(self.w.now))
    }

    pub(crate) fn prove(&mut self, run: u32, grace: Grace) {
        let (server, agent, until) = (self.s, self.id, self.w.now + 10_000);
        self.w.after(10, Happening::Prove { server, agent, run, grace, until });
    }

    pub(crate) fn bring_up(&mut self, run: u32, services: Vec<(ServiceName, Part)>, last_call: Moment) {
        if !self.step() {
            return;
        }
        // Where the agents decide, their hooks move the address; elsewhere the cluster manager does.
        for (service, part) in &services {
            let Some(at) = self.w.service(service) else { continue };
            if self.w.services[at].automatic && *part == Part::Target {
                self.w.move_address(at, Some(self.s));
            }
        }
        let (server, agent) = (self.s, self.id);
        self.w.after(100, Happening::BringUp { server, agent, run, services, last_call });
    }

    pub(crate) fn take_address_away(&mut self, service: usize) {
        if self.step() {
            self.w.lift_address(service);
            self.message(200, Message::AddressGone(service));
        }
    }

    /// Where the agents decide, there is a hook that takes the address away.
    pub(crate) fn leave_address(&mut self, service: &ServiceName) {
        let Some(at) = self.w.service(service).filter(|at| self.w.services[*at].automatic) else { return };
        if self.step() {
            self.w.move_address(at, None);
        }
    }

    pub(crate) fn let_go(&mut self, service: usize) {
        if self.step() {
            self.w.let_go(self.s, service);
        }
    }

    pub(crate) fn send(&mut self, service: &ServiceName, transmit: &Transmit) {
        if !self.is_dead() {
            self.w.send(self.s, service, transmit);
        }
    }

    pub(crate) fn answer(&mut self, service: &ServiceName, word: Word) {
        if !self.is_dead() {
            self.say(|| format!("answers for {service}: {word:?}"));
            let server = self.s;
            self.w.cluster.words.push((service.clone(), server, word));
        }
    }

    pub(crate) fn run_ended(&mut self, machine: &Takeover, end: &End) {
        self.say(|| format!("run {} is over: {}", machine.run(), crate::check::in_words(end)));
        if self.is_dead() {
            return;
        }
        self.w.check_end(machine, end);
        if let End::Failed { hindrance: Hindrance::BringUp | Hindrance::NobodyCalled, .. } = end {
            self.w.disturbed(Disturbance::Address);
        }
        let word = match end {
            End::Settled(_) => Word::Settled,
            End::Failed { .. } | End::Unbegun { .. } => Word::Failed,
            End::Refused(_) => Word::Refused,
        };
        for target in machine.targets().to_vec() {
            self.answer(&target, word);
        }
    }
}

/// How long a grace period lasts at the least.
pub(crate) fn grace_length() -> Duration {
    Duration::from_millis(crate::server::GRACE_MS)
}
