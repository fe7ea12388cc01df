//! Several servers with an agent each, on one store, in one time.

use heirlock_core::store::ServerReport;

use super::*;

/// Servers whose agents run, and a server whose agent does not run and only beats.
pub(super) struct Several {
    pub(super) store: InMemory,
    pub(super) agents: Vec<Agent<Here>>,
    settings: Vec<Arc<Settings>>,
    /// Servers that live, though no agent of theirs does anything in this test, and how often each has beaten.
    pub(super) beating: BTreeMap<&'static str, u64>,
}

impl Several {
    /// An agent on each of these servers, configured alike.
    pub(super) fn on(store: InMemory, servers: &[&str], configured: &Settings) -> Self {
        let (mut agents, mut of_each) = (Vec::new(), Vec::new());
        for (server, numbers) in servers.iter().zip(1_u64..) {
            let server = server.parse().unwrap();
            let settings = Arc::new(Settings { server, ..configured.clone() });
            // Each draws numbers of its own.
            let numbers = numbers * 1_000;
            let world =
                World { now: Moment::of_process(Duration::ZERO), life: 1, numbers, ..World::default() };
            let mut agent = started(Arc::clone(&settings), &store, world);
            agent.take_up();
            agents.push(agent);
            of_each.push(settings);
        }
        Self { store, agents, settings: of_each, beating: BTreeMap::new() }
    }

    /// The servers that are alive and have no agent beat.
    fn beat(&mut self) {
        for (server, count) in &mut self.beating {
            *count += 1;
            let report = ServerReport::new(server.parse().unwrap(), "a run of its own");
            self.store.put_server(&ServerReport { beat: *count, ..report }).unwrap();
        }
    }

    /// Each agent does what is due and takes one message in; where there is none, time passes for all until something is due.
    pub(super) fn step(&mut self) {
        let mut is_idle = true;
        for agent in &mut self.agents {
            agent.do_what_is_due();
            if let Some(message) = agent.outside().next() {
                agent.handle(message);
                is_idle = false;
            }
        }
        if is_idle && let Some(due) = self.agents.iter().map(Agent::next_due).min() {
            self.beat();
            self.agents.iter().for_each(|agent| agent.outside().pass(due));
        }
    }

    /// The agent of this place is killed, and begins again in the same life of its lock manager.
    pub(super) fn restart(&mut self, at: usize) {
        let settings = Arc::clone(&self.settings[at]);
        let mut world = self.agents[at].outside().take();
        // Work that was begun ends with the process.
        world.said.clear();
        world.hanging.clear();
        let mut agent = started(settings, &self.store, world);
        agent.take_up();
        self.agents[at] = agent;
    }

    /// Steps are taken until this is so.
    pub(super) fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        let begun = |agent: &Agent<Here>| agent.outside().world().begun.clone();
        panic!("never: {what}; {:?}", self.agents.iter().map(begun).collect::<Vec<_>>());
    }

    /// Time passes for so long.
    pub(super) fn goes_on(&mut self, for_time: Duration) {
        let end = self.now() + for_time;
        self.until("time passes", |several| several.now() >= end);
    }

    pub(super) fn now(&self) -> Moment {
        self.agents[0].outside().now()
    }

    /// How often each agent began this work.
    pub(super) fn begun(&self, what: &str) -> Vec<usize> {
        let of =
            |agent: &Agent<Here>| agent.outside().world().begun.iter().filter(|begun| *begun == what).count();
        self.agents.iter().map(of).collect()
    }

    /// The server that holds a service.
    pub(super) fn owner_of(&self, name: &str) -> Option<String> {
        let claim = self.store.newest_claim(&service(name)).unwrap()?;
        (!claim.released).then(|| claim.owner.to_string())
    }
}
