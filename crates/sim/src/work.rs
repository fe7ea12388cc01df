//! Work that an agent begins on its server: it takes its time, and a message tells its result.

use std::sync::Arc;
use std::time::Duration;

use heirlock_agent::{Basis, Fit, Looked, Message, News, RunNumber, RunWork, Work};
use heirlock_core::grace::{Grace, Probe};
use heirlock_core::ledger::Addresses;
use heirlock_core::lives::{self, asks_first};
use heirlock_core::takeover::{End, Event, Hindrance, Part, Strategy, Takeover};
use heirlock_core::{Moment, ServerName, ServiceName};
use heirlock_nsm::MonName;

use crate::Ms;
use crate::chance::Purpose;
use crate::conveying::Conveying;
use crate::happening::Happening;
use crate::lock_manager::{LockManagerAt, client_address};
use crate::losses::Disturbance;
use crate::schedule::Level;
use crate::settings::grace_length;
use crate::telling::Notification;
use crate::world::World;

/// How long the lock manager is asked whether grace is open.
const PROVE_MS: Ms = 10_000;

/// A lock manager, and which run of its server's agent deals with it.
pub(crate) type AgentAt = (LockManagerAt, u64);

/// The lock manager is being made to recognise.
#[derive(Debug)]
pub(crate) struct Recognising {
    pub(crate) strategy: Strategy,
    pub(crate) before: Ms,
    pub(crate) grace_seen: Option<Moment>,
    /// Its answer right before, where it was asked.
    pub(crate) answer: Option<Probe>,
}

/// The answer to a probe of a lock manager.
pub(crate) fn probe(serves: bool, in_grace: bool) -> Probe {
    match (serves, in_grace) {
        (true, true) => Probe::InGrace,
        (true, false) => Probe::NotInGrace,
        (false, _) => Probe::NoAnswer,
    }
}

fn all_is_here() -> Fit {
    Fit { missing: Vec::new(), said: Vec::new() }
}

impl World {
    /// An agent hears something of its lock manager, after so long.
    pub(crate) fn tell_agent(&mut self, (of, agent): AgentAt, after: Ms, news: News) {
        let message = Box::new(Message::Of(of.number, news));
        self.after(after, Happening::ToAgent { server: of.server, agent, message });
    }

    /// Begins work for a run, which may hang.
    pub(crate) fn begin_for(&mut self, at: AgentAt, run: RunNumber, work: RunWork) {
        if let Some(work) = self.hang_for(at, run, work) {
            self.do_for(at, run, work);
        }
    }

    pub(crate) fn do_for(&mut self, at: AgentAt, run: RunNumber, work: RunWork) {
        match work {
            RunWork::CheckFit { .. } => self.tell_agent(at, 20, News::Fit(run, all_is_here())),
            RunWork::Place { services, how } => {
                self.begin_to_convey(at, Conveying::place(run, services, how));
            }
            RunWork::Fence(owners) => self.fence(at, run, owners),
            RunWork::Recognise { strategy, grace_seen, owes, targets } => {
                if strategy.drops_own_locks() {
                    self.check_restart(at, &targets);
                }
                self.recognise(at, run, strategy, grace_seen, owes);
            }
            RunWork::Prove(grace) => {
                let (of, agent) = at;
                let until = self.now + PROVE_MS;
                self.after(10, Happening::Prove { of, agent, run, grace, until });
            }
            RunWork::BringUp { services, last_call, .. } => {
                self.begin_to_bring_up(at, run, services, last_call);
            }
            RunWork::Tell { tellings, grace } => {
                for telling in tellings {
                    let seed = self.chance(Purpose::Notifier, at.0.stream()).u64(..);
                    let notification = Notification::new(run, telling, grace, seed, self.now);
                    self.begin_notification(at, notification);
                }
            }
        }
    }

    /// Begins work for no run, which may hang.
    pub(crate) fn begin(&mut self, at: AgentAt, work: Work) {
        if let Some(work) = self.hang(at, work) {
            self.do_work(at, work);
        }
    }

    pub(crate) fn do_work(&mut self, at: AgentAt, work: Work) {
        let (of, agent) = at;
        match work {
            Work::CheckHome(service) => {
                self.tell_agent(at, 20, News::HomeLookedFor(service, all_is_here()));
            }
            Work::GatherFacts => self.tell_agent(at, 5, News::Facts(Ok([].into()))),
            Work::AskGrace(life) => {
                let answer = (self.probe(of), "so it answers".to_owned());
                self.tell_agent(at, 2, News::GraceAsked(life, answer));
            }
            Work::LookUp(name) => {
                let addresses = client_called(&name).into_iter().map(client_address).collect();
                if let Some(after) = self.name_is_answered_after(of) {
                    self.tell_agent(at, 15 + after, News::Resolved(name, Ok(addresses)));
                }
            }
            Work::TakeAddressAway(service) => {
                if let Some(at) = self.service(&service) {
                    self.lift_address(at);
                }
                self.tell_agent(at, 200, News::AddressGone(service, Ok(())));
            }
            Work::BringAddressBack(service) => self.bring_address_back(at, service),
            // Where the agents decide, there is a hook for that.
            Work::LeaveAddress(service) => {
                if let Some(at) = self.service(&service).filter(|at| self.services[*at].automatic) {
                    self.move_address(at, None);
                }
            }
            Work::TakeVolumeAway(service) => {
                if let Some(at) = self.service(&service) {
                    self.let_go(of.server, at);
                }
                self.tell_agent(at, 30, News::VolumeGone(service, Ok(())));
            }
            Work::SyncDirectory => {
                self.after(20, Happening::DirectorySynced { of, agent });
            }
            Work::TakePlacedAway => self.begin_to_convey(at, Conveying::take_away()),
            Work::Discard(_) => {}
        }
    }

    /// Where the agents decide, there is a hook for that. Elsewhere the cluster manager brings an address back.
    fn bring_address_back(&mut self, at: AgentAt, service: ServiceName) {
        let here = self.service(&service).filter(|of| self.services[*of].automatic);
        if let Some(of) = here {
            self.move_address(of, Some(at.0.server));
        }
        let back = here.map(drop).ok_or_else(|| "the cluster manager brings it".to_owned());
        self.tell_agent(at, 200, News::AddressBack(service, back));
    }

    pub(crate) fn directory_is_synced(&mut self, (of, agent): AgentAt) {
        if self.servers[of.server].agent == agent {
            let it = &mut self.servers[of];
            it.status_monitor.synced(&it.sm);
            self.tell_agent((of, agent), 1, News::DirectorySynced(Ok(())));
        }
    }

    /// A look beside the loop sees what is there some milliseconds later.
    pub(crate) fn begin_look(&mut self, (of, agent): AgentAt, basis: Basis, addresses: Arc<Addresses>) {
        let mut after = self.chance(Purpose::Look, of.stream()).u64(1..12);
        let mut hangs = 1;
        if let Some(hung) = self.directory_hangs_for(of) {
            *if hung.has_read { &mut hangs } else { &mut after } += hung.ms;
        }
        let basis = Box::new(basis);
        self.after(after, Happening::LookAtDirectory { of, agent, basis, addresses, hangs });
    }

    pub(crate) fn look_beside(&mut self, at: AgentAt, basis: Basis, addresses: &Addresses, hangs: Ms) {
        let found = self.look_at_directory(at.0, &basis.placed, addresses);
        self.tell_agent(at, hangs, News::Looked(Box::new(Looked { basis, found: Ok(found) })));
    }

    fn fence(&mut self, at: AgentAt, run: RunNumber, owners: Vec<(ServiceName, ServerName)>) {
        let fails = self.levels.of(Level::FenceFails);
        let confirmed = self.chance(Purpose::Fence, at.0.stream()).u16(0..100) >= fails;
        if confirmed {
            self.power_off_all(owners);
        }
        let outcome = if confirmed { Ok(()) } else { Err("no fence confirms it".to_owned()) };
        self.tell_agent(at, 900, News::Event(run, Event::Fenced(outcome)));
    }

    /// A fence does what it is for.
    pub(crate) fn power_off_all(&mut self, owners: Vec<(ServiceName, ServerName)>) {
        for (_, owner) in owners {
            if let Some(of) = self.servers.iter().position(|server| server.name == owner) {
                self.say(|| format!("{owner} is fenced"));
                self.power_off(of);
                self.servers[of].fenced_until = self.now + 5_000;
            }
        }
    }

    fn recognise(
        &mut self,
        (of, agent): AgentAt,
        run: RunNumber,
        strategy: Strategy,
        grace_seen: Option<Moment>,
        owes: bool,
    ) {
        if strategy.drops_own_locks() {
            let seen = self.servers[of].observe(self.now);
            if let Some(driven) = &mut self.driven {
                driven.drops_locks_of.push((of, seen));
            }
        }
        let answer = asks_first(strategy, owes).then(|| self.probe(of));
        self.servers[of].is_worked_on = true;
        let takes = match strategy {
            Strategy::RestartNfs => {
                self.after(150, Happening::StopNfs(of));
                self.after(600, Happening::StartNfs(of));
                650
            }
            Strategy::RestartLockManager => {
                self.after(100, Happening::KillLockd(of));
                self.after(150, Happening::WakeLockd(of));
                160
            }
            Strategy::Notify | Strategy::Command => 5,
        };
        let work = Recognising { strategy, before: self.now, grace_seen, answer };
        self.after(takes, Happening::Recognised { of, agent, run, work });
    }

    pub(crate) fn recognised(&mut self, at: AgentAt, run: RunNumber, work: &Recognising) {
        let (of, _) = at;
        let Recognising { strategy, before, grace_seen, answer } = *work;
        self.servers[of].is_worked_on = false;
        let Some(started) = self.started(at) else { return };
        let it = &self.servers[of];
        let now = self.moment(started);
        let before = Moment::of_process(Duration::from_millis(before - started));
        let in_place = strategy == Strategy::RestartLockManager;
        let age = it.lockd.is_some().then(|| Duration::from_millis(self.now - it.lockd_started));
        let work = lives::Recognising { strategy, before, grace_seen, answer };
        let done = work.done(now, it.observe(self.now), in_place, age, grace_length());
        let after = self.chance(Purpose::LockManager, of.stream()).u64(1..15);
        self.tell_agent(at, after, News::Recognised(run, Box::new(done)));
    }

    pub(crate) fn probe(&mut self, of: LockManagerAt) -> Probe {
        self.wake_lockd(of);
        probe(self.servers[of].serves(), self.servers[of].in_grace(self.now))
    }

    pub(crate) fn prove(&mut self, at: AgentAt, run: RunNumber, grace: Grace, until: Ms) {
        let (of, agent) = at;
        let Some(started) = self.started(at) else { return };
        self.wake_lockd(of);
        let proved = match self.servers[of].in_grace(self.now) {
            true => Ok(()),
            false if grace.is_over(self.moment(started)) => Err("grace is over".to_owned()),
            false if self.now >= until => Err("grace is not open".to_owned()),
            false => return self.after(100, Happening::Prove { of, agent, run, grace, until }),
        };
        self.tell_agent(at, 2, News::Event(run, Event::Proved(proved)));
    }

    /// Where the agents decide, their hooks move the address; elsewhere the cluster manager does.
    fn begin_to_bring_up(
        &mut self,
        (of, agent): AgentAt,
        run: RunNumber,
        services: Vec<(ServiceName, Part)>,
        last_call: Moment,
    ) {
        self.bring_addresses(of.server, &services);
        self.after(100, Happening::BringUp { of, agent, run, services, last_call });
    }

    pub(crate) fn bring_addresses(&mut self, server: usize, services: &[(ServiceName, Part)]) {
        for (service, _) in services {
            let Some(at) = self.service(service) else { continue };
            if self.services[at].automatic {
                self.move_address(at, Some(server));
            }
        }
    }

    pub(crate) fn bring_up(
        &mut self,
        at: AgentAt,
        run: RunNumber,
        services: Vec<(ServiceName, Part)>,
        last_call: Moment,
    ) {
        let (of, agent) = at;
        let Some(started) = self.started(at) else { return };
        let is_here = |service: &ServiceName| {
            self.service(service).is_some_and(|service| self.serving(service) == Some(of))
        };
        let here: Vec<ServiceName> =
            services.iter().map(|(service, _)| service).filter(|of| is_here(of)).cloned().collect();
        let brought = match !here.is_empty() && self.servers[of].serves() {
            true => Ok(()),
            false if self.moment(started) >= last_call => Err("an address is not on this server".to_owned()),
            false => return self.after(100, Happening::BringUp { of, agent, run, services, last_call }),
        };
        let served = here.iter().cloned().map(Event::Served).filter(|_| brought.is_ok());
        for event in served.chain([Event::BroughtUp(brought.clone())]) {
            self.tell_agent(at, 2, News::Event(run, event));
        }
        let awaited =
            services.into_iter().map(|(service, _)| service).filter(|service| !here.contains(service));
        let awaited: Vec<ServiceName> = awaited.filter(|service| !service.is_host()).collect();
        if brought.is_ok() && !awaited.is_empty() {
            self.after(100, Happening::AwaitAddresses { of, agent, run, services: awaited, last_call });
        }
    }

    /// The other addresses are used as soon as they are here.
    pub(crate) fn await_addresses(
        &mut self,
        at: AgentAt,
        run: RunNumber,
        mut services: Vec<ServiceName>,
        last_call: Moment,
    ) {
        let (of, agent) = at;
        let Some(started) = self.started(at) else { return };
        let is_here = |service: &mut ServiceName| {
            self.service(service).is_some_and(|service| self.serving(service) == Some(of))
        };
        for service in services.extract_if(.., is_here).collect::<Vec<_>>() {
            self.tell_agent(at, 2, News::Event(run, Event::Served(service)));
        }
        if !services.is_empty() && self.moment(started) < last_call {
            self.after(100, Happening::AwaitAddresses { of, agent, run, services, last_call });
        }
    }

    /// When this agent was started; nothing where it is not there any more.
    pub(crate) fn started(&self, (of, agent): AgentAt) -> Option<Ms> {
        self.agents[of.server].as_ref().filter(|it| it.id == agent).map(|it| it.started)
    }

    /// A run of an agent is over.
    pub(crate) fn run_ended(&mut self, of: LockManagerAt, run: &Takeover, end: &End) {
        let name = self.servers[of].name.clone();
        self.say(|| format!("{name}: run {} is over: {}", run.run(), crate::check::in_words(end)));
        self.check_end(of, run, end);
        if let End::Failed { hindrance: Hindrance::BringUp | Hindrance::NoClientCalled, .. } = end {
            self.disturbed_at(of, Disturbance::Address);
        }
    }
}

/// The client whose resolver name this is.
fn client_called(name: &MonName) -> Option<usize> {
    name.as_str().strip_prefix("client")?.parse().ok()
}
