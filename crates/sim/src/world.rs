//! The world: one queue of happenings, and the servers, services and clients that they happen to.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use heirlock_agent::{Look, Message, News};
use heirlock_core::{Generation, Moment, ServiceName};
use heirlock_nsm::MonName;

use crate::Ms;
use crate::calls::LateCalls;
use crate::chance::{Chance, Purpose};
use crate::check::Checks;
use crate::client::{Ask, Client, Loss};
use crate::cluster::Cluster;
use crate::excuse::GrantedBy;
use crate::happening::Happening;
use crate::lock_manager::{FileAt, Life, LockManagerAt};
use crate::losses::Disturbance;
use crate::process::{Driven, Process, Turn};
use crate::queue::Queue;
use crate::schedule::{Capture, Level, Levels, Schedule};
use crate::server::{Death, Server, Servers};
use crate::service::{Service, server_name};
use crate::store::SharedStore;
use crate::teller::Teller;
use crate::work::AgentAt;

/// Everything.
pub(crate) struct World {
    pub(crate) now: Ms,
    /// The same, for agents: each asks for it many times in a turn.
    pub(crate) clock: Arc<AtomicU64>,
    queue: Queue<Happening>,
    chance: Chance,
    pub(crate) levels: Levels,
    /// Hostile texts lie in the status monitors' directories, and answers of clients are cut short.
    pub(crate) has_garbage: bool,
    /// No server can reach the store until then.
    pub(crate) store_away_until: Ms,
    /// The calls of each server's agent that the store makes wait too long.
    pub(crate) late: Vec<LateCalls>,
    pub(crate) services: Vec<Service>,
    pub(crate) servers: Servers,
    /// The agents; not there is the one whose turn it is.
    pub(crate) agents: Vec<Option<Box<Process>>>,
    pub(crate) driven: Option<Driven>,
    /// The next turns of agents.
    pub(crate) turns: VecDeque<Turn>,
    pub(crate) clients: Vec<Client>,
    pub(crate) store: SharedStore,
    pub(crate) cluster: Cluster,
    /// Where each service's address is.
    addresses: Vec<Option<usize>>,
    /// When each generation was claimed and released, and when each server last wrote its heartbeat. For the checkers.
    pub(crate) claimed_at: BTreeMap<(ServiceName, Generation), Ms>,
    pub(crate) released_at: BTreeMap<(ServiceName, Generation), Ms>,
    pub(crate) beat_at: Vec<Option<Ms>>,
    pub(crate) checks: Checks,
    /// Clients take and give up locks.
    pub(crate) is_busy: bool,
    /// Agents that were started, and services whose clients were told.
    starts: u64,
    pub(crate) notifications: u64,
    pub(crate) teller: Teller,
}

impl World {
    pub(crate) fn new(schedule: &Schedule, teller: Teller) -> Self {
        let plans = schedule.servers.iter().enumerate();
        let servers: Vec<Server> = plans.map(|(at, plan)| Server::new(at, server_name(at), plan)).collect();
        let plans = schedule.services.iter().enumerate();
        let mut services: Vec<Service> = plans.map(|(at, plan)| Service::floating(at, plan)).collect();
        services.extend(servers.iter().map(|server| Service::of_host(server, servers.len())));
        let mut cluster =
            Cluster::new(services.iter().filter(|s| s.host_of.is_none()).map(|s| s.name.clone()));
        cluster.is_hasty = schedule.is_hasty;
        let mut world = Self {
            now: 0,
            clock: Arc::default(),
            queue: Queue::default(),
            chance: Chance::new(schedule.streams),
            addresses: vec![None; services.len()],
            agents: servers.iter().map(|_| None).collect(),
            beat_at: vec![None; servers.len()],
            levels: schedule.levels.clone(),
            has_garbage: schedule.has_garbage,
            store_away_until: 0,
            late: servers.iter().map(|_| LateCalls::default()).collect(),
            driven: None,
            turns: VecDeque::new(),
            services,
            servers: Servers::new(servers),
            clients: schedule
                .clients
                .iter()
                .enumerate()
                .map(|(at, plan)| Client::new(at, plan.mounts.clone(), plan.loss))
                .collect(),
            store: SharedStore::new(),
            cluster,
            claimed_at: BTreeMap::new(),
            released_at: BTreeMap::new(),
            checks: Checks::default(),
            is_busy: true,
            starts: 0,
            notifications: 0,
            teller,
        };
        (0..world.servers.len()).for_each(|server| world.after(10, Happening::Boot(server)));
        (0..world.clients.len()).for_each(|client| world.after(5_000, Happening::Act(client)));
        world.after(1_000, Happening::Second);
        for (at, incident) in &schedule.incidents {
            world.after(*at, Happening::Incident(incident.clone()));
        }
        world
    }

    /// Lets the next happening happen, where it is before `end` and no checker has fired.
    pub(crate) fn happen_next(&mut self, end: Ms) -> bool {
        let goes_on = self.checks.violation.is_none();
        let Some((at, happening)) = goes_on.then(|| self.queue.pop_until(end)).flatten() else {
            self.becomes(self.now.max(end));
            return false;
        };
        self.becomes(at);
        self.happen(happening);
        true
    }

    fn becomes(&mut self, now: Ms) {
        self.now = now;
        self.clock.store(now, Ordering::Relaxed);
    }

    /// Lets conveyors work until there is a message for an agent, and nothing else happen.
    #[cfg(test)]
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        loop {
            let (at, happening) = self.queue.pop_until(Ms::MAX)?;
            self.becomes(at);
            match happening {
                Happening::ToAgent { message, .. } => return Some(*message),
                Happening::Convey { of, agent } => self.convey((of, agent)),
                _ => {}
            }
        }
    }

    /// All that was to happen, which does not happen any more.
    pub(crate) fn clear_queue(&mut self) -> impl Sized + use<> {
        mem::take(&mut self.queue)
    }

    pub(crate) fn after(&mut self, after: Ms, happening: Happening) {
        self.queue.insert(self.now + after, happening);
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        self.teller.say("", self.now, what);
    }

    /// The stream of draws for a purpose.
    pub(crate) fn chance(&mut self, purpose: Purpose, whose: usize) -> &mut Rng {
        self.chance.of(purpose, whose, self.now)
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Option<usize> {
        self.services.iter().position(|service| service.name == *name)
    }

    /// Now, as an agent that was started then tells it.
    pub(crate) fn moment(&self, started: Ms) -> Moment {
        Moment::of_process(Duration::from_millis(self.now - started))
    }

    /// The server that has this service's address now.
    pub(crate) fn address_of(&self, service: usize) -> Option<usize> {
        let at = self.services[service].host_of.or(self.addresses[service])?;
        self.servers[at].on.then_some(at)
    }

    /// The lock manager that serves this service now: on the server that has its address.
    pub(crate) fn serving(&self, service: usize) -> Option<LockManagerAt> {
        self.address_of(service).map(|server| self.services[service].lock_manager_on(server))
    }

    /// The lock manager that serves a service on this server.
    pub(crate) fn lock_manager_of(&self, server: usize, service: &ServiceName) -> Option<LockManagerAt> {
        Some(self.services[self.service(service)?].lock_manager_on(server))
    }

    /// The server whose agent does this, or takes it in, with a thread of its own.
    fn done_by_agent(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Look { server, .. } => Some(*server),
            Happening::LookAtDirectory { of, .. }
            | Happening::Tell { of, .. }
            | Happening::KillLockd(of)
            | Happening::WakeLockd(of)
            | Happening::Recognised { of, .. }
            | Happening::Convey { of, .. }
            | Happening::MonitorReads { of, .. }
            | Happening::MonitorTicks { of, .. }
            | Happening::DirectoryRead { of, .. }
            | Happening::DirectorySynced { of, .. }
            | Happening::AnnouncedLookedUp { of, .. }
            | Happening::Downcall { of, .. }
            | Happening::GoesOnFor { of, .. }
            | Happening::GoesOn { of, .. }
            | Happening::Prove { of, .. }
            | Happening::BringUp { of, .. }
            | Happening::AwaitAddresses { of, .. } => Some(of.server),
            Happening::ToServer { service, .. } => self.address_of(*service),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(server) = self.done_by_agent(&happening).filter(|server| self.is_stopped(*server)) {
            let wait = self.servers[server].stopped_until - self.now;
            return self.after(wait, happening);
        }
        match happening {
            Happening::Second => self.second(),
            Happening::Incident(incident) => self.befall(&incident),
            Happening::Disturbed(how) => self.disturbed(how),
            Happening::Lands(server) => self.land_all_of(server),
            Happening::Resume { server, agent } => self.resume(server, agent),
            Happening::Boot(server) => self.boot(server),
            Happening::StartAgent { server, boot } => self.start_agent(server, boot),
            Happening::Look { server, agent } => self.look(server, agent),
            Happening::Observed { server, agent, seen } => self.hand_all_to_agent(server, agent, seen),
            Happening::LookAtDirectory { of, agent, basis, addresses, hangs } => {
                self.look_beside((of, agent), *basis, &addresses, hangs);
            }
            Happening::Hint { of, agent } => self.hinted((of, agent)),
            Happening::ToAgent { server, agent, message } => self.hand_to_agent(server, agent, *message),
            Happening::Asks { server, agent, asked } => self.asks(server, agent, asked),
            Happening::StoreAnswers { server, agent } => {
                self.hand_to_agent(server, agent, Message::StoreAnswers);
            }
            // It looks for itself what is due when it goes on.
            Happening::Wake { server, .. } if self.is_stopped(server) => {}
            Happening::Wake { server, agent } => self.wake(server, agent),
            Happening::Tell { of, agent, number } => self.tell((of, agent), number),
            Happening::StopNfs(of) => self.stop_nfs(of),
            Happening::StartNfs(of) if self.servers[of.server].on => {
                let now = self.now;
                self.servers[of].start_lockd(now);
                self.register_peer_soon(of);
            }
            Happening::StartNfs(_) => {}
            Happening::KillLockd(of) => self.kill_lockd(of),
            Happening::WakeLockd(of) => self.wake_lockd(of),
            Happening::Recognised { of, agent, run, work } => self.recognised((of, agent), run, &work),
            Happening::Convey { of, agent } => self.convey((of, agent)),
            Happening::Prove { of, agent, run, grace, until } => {
                self.prove((of, agent), run, grace, until);
            }
            Happening::BringUp { of, agent, run, services, last_call } => {
                self.bring_up((of, agent), run, services, last_call);
            }
            Happening::AwaitAddresses { of, agent, run, services, last_call } => {
                self.await_addresses((of, agent), run, services, last_call);
            }
            Happening::Recorded { life, client } => self.recorded(life, client),
            Happening::EndMaintenance(server) => self.operator_ends_maintenance(server),
            Happening::GoesOnFor { of, agent, run, work } => self.go_on_for((of, agent), run, *work),
            Happening::GoesOn { of, agent, work } => self.go_on_with((of, agent), *work),
            Happening::Expire { life, client } => self.expire(life, client),
            Happening::ToClient { client, service, life, port, payload } => {
                self.arrive_at_client(client, service, life, port, &payload);
            }
            Happening::ToServer { service, from, payload } => {
                let Some(of) = self.serving(service) else { return };
                let name = self.services[service].name.clone();
                self.heard(of, &name, from, &payload);
            }
            Happening::Act(client) => self.act(client),
            Happening::Call { client, file, number } => self.call(client, file, number),
            Happening::Arrives { client, file, number } => self.arrives(client, file, number),
            Happening::Answer { client, file, number, verdict, life } => {
                self.answer(client, file, number, verdict, life);
            }
            other => self.happen_to_registrations(other),
        }
    }

    // Agents.

    fn start_agent(&mut self, server: usize, boot: u32) {
        if !self.servers[server].on || self.servers[server].boot != boot || self.agents[server].is_some() {
            return;
        }
        self.starts += 1;
        // A process ends when its last call has ended.
        self.land_all_of(server);
        self.servers[server].forget_agent();
        let agent = self.starts;
        self.servers[server].agent = agent;
        self.say(|| format!("agent {agent} starts on {}", server_name(server)));
        self.turns.push_back(Turn::Start { server });
    }

    /// An agent's thread looks at all lock managers of its server.
    fn look(&mut self, server: usize, agent: u64) {
        let Some(started) = self.started((LockManagerAt::first(server), agent)) else { return };
        let at = self.moment(started);
        let mut seen = Vec::new();
        for of in self.servers.lock_managers_of(server) {
            if !self.servers[of].is_worked_on {
                self.notice_ends(of);
                let look = Look { at, observation: self.servers[of].observe(self.now) };
                seen.push(Message::Of(of.number, News::Observed(Box::new(Ok(look)))));
            }
        }
        if !seen.is_empty() {
            self.after(1, Happening::Observed { server, agent, seen });
        }
        self.after(500, Happening::Look { server, agent });
    }

    pub(crate) fn died(&mut self, server: usize, death: Death) {
        self.forget_agent(server);
        match death {
            Death::Server => self.power_off(server),
            Death::Agent => {
                self.disturbed(Disturbance::Failure);
                let (after, boot) =
                    (self.chance(Purpose::AgentStart, server).u64(200..6_000), self.servers[server].boot);
                self.after(after, Happening::StartAgent { server, boot });
            }
        }
    }

    fn forget_agent(&mut self, server: usize) {
        self.servers.lock_managers_of(server).for_each(|of| self.hang_up_on_callouts(of));
        self.agents[server] = None;
        self.servers[server].forget_agent();
        self.cluster.forget_authority_given_to(server);
    }

    // Servers.

    fn boot(&mut self, server: usize) {
        if self.servers[server].on {
            return;
        }
        if self.cluster.holds_off() || self.now < self.servers[server].fenced_until {
            return self.after(2_000, Happening::Boot(server));
        }
        self.say(|| format!("{} boots", server_name(server)));
        let now = self.now;
        self.servers[server].boots(now);
        for of in self.servers.lock_managers_of(server) {
            self.register_peer_soon(of);
            if self.has_garbage {
                self.plant_hostile_texts(of);
            }
        }
        let (after, boot) =
            (self.chance(Purpose::AgentStart, server).u64(100..2_500), self.servers[server].boot);
        self.after(after, Happening::StartAgent { server, boot });
    }

    /// Plants the names of a hostile client, and the words of a hostile server in the store.
    fn plant_hostile_texts(&mut self, of: LockManagerAt) {
        const LINE: &str = "0100007f 000186b5 00000003 00000010 00000000000000000000000000000000";
        if let Ok(file) = MonName::parse("hostile") {
            self.servers[of].sm.insert(file, format!("{LINE} ../../etc/passwd nfs-a\n").into_bytes());
        }
        for text in ["../../etc", "a/b", ".hidden", "a\n", ""] {
            let name = ServiceName::try_from(text.to_owned());
            if let Ok(name) = name {
                self.violated(11, format!("{name:?} becomes the name of a directory"));
            }
        }
    }

    pub(crate) fn power_off(&mut self, server: usize) {
        if !self.servers[server].on {
            return;
        }
        self.say(|| format!("{} is off", server_name(server)));
        self.disturbed(Disturbance::Failure);
        let all: Vec<LockManagerAt> = self.servers.lock_managers_of(server).collect();
        for of in &all {
            self.ends_stay_unnoticed(*of);
            let dropped = self.servers[*of].drop_locks();
            self.lose(*of, dropped, false, None);
        }
        self.servers[server].on = false;
        all.iter().for_each(|of| self.servers[*of].loses_power());
        self.forget_agent(server);
        for of in all {
            self.lose_unsynced(of);
            let keeps_notes = self.servers[of].capture != Capture::Callout
                || self.chance(Purpose::Callout, of.stream()).bool();
            self.servers[of].callouts.lose_power(keeps_notes);
            self.servers[of].status_monitor.loses_power();
        }
        for address in &mut self.addresses {
            address.take_if(|at| *at == server);
        }
        let after = self.chance(Purpose::Boot, server).u64(1_500..25_000);
        self.after(after, Happening::Boot(server));
    }

    /// An orderly stop: the status monitor forgets the clients that the kernel unmonitors on the way.
    pub(crate) fn stop_nfs(&mut self, of: LockManagerAt) {
        if self.servers[of].lockd.is_none() {
            return;
        }
        self.say(|| format!("NFS stops on {}", self.servers[of].name));
        let it = &mut self.servers[of];
        let holding: Vec<usize> = it.locks.values().copied().collect();
        let gone: Vec<usize> =
            it.registered.iter().copied().filter(|c| it.is_newer || !holding.contains(c)).collect();
        let dropped = it.drop_locks();
        it.lockd = None;
        it.stopped_at = self.now;
        let ended = it.life();
        gone.into_iter().for_each(|client| self.unmonitor(of, client));
        self.lose(of, dropped, false, Some(ended));
        self.servers[of].asking.begin_anew();
        self.hint(of);
    }

    pub(crate) fn kill_lockd(&mut self, of: LockManagerAt) {
        let it = &mut self.servers[of];
        if it.lockd.is_some() && !it.is_newer {
            if it.capture != Capture::Nsm {
                it.start_status_monitor();
            }
            it.kill_pends = true;
        }
    }

    pub(crate) fn wake_lockd(&mut self, of: LockManagerAt) {
        let now = self.now;
        // lockd that is killed while grace is open, or was at the last look, opens another: from outside they can't be
        // told apart.
        let grace_before = self.servers[of].grace_until;
        let has_agent = self.agents[of.server].is_some() && !self.is_stopped(of.server);
        let unseen = now < grace_before + 1_000 || !has_agent;
        let (by_us, reopened) = (self.servers[of].is_worked_on, self.servers[of].kill_pends);
        let dropped = self.servers[of].wake(now);
        if unseen && !by_us && reopened {
            let it = &mut self.servers[of];
            it.unseen_until = if has_agent { grace_before + 1_000 } else { it.grace_until };
        }
        self.lose(of, dropped, unseen && !by_us, None);
    }

    /// The lock manager of a service on this server drops the locks of that service.
    pub(crate) fn let_go(&mut self, server: usize, service: usize) {
        let of = self.services[service].lock_manager_on(server);
        let it = &mut self.servers[of];
        let gone: Vec<(FileAt, usize)> =
            it.locks.iter().filter(|(file, _)| file.0 == service).map(|(f, c)| (*f, *c)).collect();
        it.locks.retain(|file, _| file.0 != service);
        self.lose(of, gone, false, None);
    }

    pub(crate) fn lift_address(&mut self, service: usize) {
        self.addresses[service] = None;
    }

    pub(crate) fn move_address(&mut self, service: usize, to: Option<usize>) {
        if self.addresses[service] == to {
            return;
        }
        self.addresses[service] = to;
        // The server that had it keeps locks that no client can reach any more.
        for from in (0..self.servers.len()).filter(|from| Some(*from) != to) {
            self.let_go(from, service);
        }
        let (name, to) = (self.services[service].name.clone(), to.map(server_name));
        self.say(|| format!("the address of {name} is on {to:?}"));
    }

    /// A client gives a lock up, and waits for the answer.
    fn is_leaving(&self, client: usize, file: FileAt) -> bool {
        self.clients[client].calls.get(&file).is_some_and(|call| call.ask == Ask::Unlock)
    }

    /// These locks of a lock manager are gone, and their holders don't know; with the life that `ended`, where its end can be missed.
    pub(crate) fn lose(
        &mut self,
        of: LockManagerAt,
        dropped: Vec<(FileAt, usize)>,
        unseen: bool,
        ended: Option<Life>,
    ) {
        for (file, client) in dropped {
            // Locks that were left behind by a service that has moved on are no loss.
            let holder = self.services[file.0].host_of.or(self.addresses[file.0]);
            let holder = holder.map(|server| self.services[file.0].lock_manager_on(server));
            if holder.is_some_and(|at| self.servers[at].locks.get(&file) == Some(&client)) {
                continue;
            }
            let (key, name) = (&self.clients[client].key, &self.services[file.0].name);
            let captured = self.store.see_newest(name, |contents| contents.records.contains_key(key));
            let captured = captured.unwrap_or_default();
            let at = self.now;
            let is_promised = self.servers[of].asking.has_promised(file, client);
            if is_promised && !captured && !self.is_leaving(client, file) {
                let what = format!(
                    "client {client} loses {file:?} of {name}: it was said to be on record, and is not"
                );
                self.violated(1, what);
            }
            let (mode, count) = (self.servers[of].capture, self.servers[of.server].lock_managers.len());
            let by = GrantedBy { mode, of: count };
            let blind = !captured && self.servers[of].blind_until > at;
            if let Some(held) = self.clients[client].locks.get_mut(&file) {
                held.loss.get_or_insert(Loss { at, by, captured, unseen, ended, freed: false, blind });
                self.say(|| format!("client {client} loses {file:?}, captured: {captured}"));
            }
        }
    }

    pub(crate) fn hint(&mut self, of: LockManagerAt) {
        if self.servers[of].capture == Capture::Nsm {
            return; // nothing watches its directory
        }
        let hints_lost = self.levels.of(Level::HintsLost);
        let rng = self.chance(Purpose::Hint, of.stream());
        let (is_lost, after, is_doubled) = (rng.u16(0..100) < hints_lost, rng.u64(1..20), rng.u8(0..10) == 0);
        if !is_lost {
            let agent = self.servers[of.server].agent;
            for _ in 0..1 + u8::from(is_doubled) {
                self.after(after, Happening::Hint { of, agent });
            }
        }
    }

    /// However many hints come, they are one until they are forgotten.
    fn hinted(&mut self, (of, agent): AgentAt) {
        if self.servers[of.server].agent == agent && !mem::replace(&mut self.servers[of].is_hinted, true) {
            self.hand_to_agent(of.server, agent, Message::Of(of.number, News::Changed));
        }
    }

    /// lockd forgets a client that holds nothing, and has it unmonitored.
    fn expire(&mut self, life: Life, client: usize) {
        let of = life.of;
        let it = &mut self.servers[of];
        let holds = it.locks.values().any(|holder| *holder == client);
        if it.life() == life && it.serves() && !holds && it.registered.remove(&client) {
            self.unmonitor(of, client);
            self.hint(of);
        }
    }

    // Once a second.

    fn second(&mut self) {
        self.after(1_000, Happening::Second);
        self.manage();
        self.check_each_second();
    }
}

pub(crate) fn millis(time: Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}
