//! One process of an agent: the product's agent, which takes in one message at a time, and when it does so.
//!
//! The world is behind a lock, for a store and a responder may be used by any thread. One thread alone uses it here, and it
//! holds the lock between two turns of an agent, never in one: then the agent's server and store enter the world at each call.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heirlock_agent::{Agent, Message, join_alike};
use heirlock_core::incarnation::Observation;

use crate::Ms;
use crate::calls::StoreOf;
use crate::happening::Happening;
use crate::lock_manager::LockManagerAt;
use crate::losses::Disturbance;
use crate::outside::{InstanceOf, OutsideOf};
use crate::schedule::Capture;
use crate::server::Death;
use crate::service::server_name;
use crate::settings::settings_of;
use crate::world::{World, millis};

/// A store that keeps an agent waiting for so long in one turn is what holds its work up.
const STORE_HOLDS_UP: Ms = 1_000;

/// Clients of a service that are compared at a time.
const COMPARED_AT_ONCE: usize = 2;

/// After which work of a run hangs. Longer than all work takes that does not.
const WORK_TIME_MAX: Duration = Duration::from_secs(12);

/// After which a look hangs, and after which it shows no more who has left.
const LOOK_TIME_MAX: Duration = Duration::from_secs(8);
const LOOK_BELIEVED_MAX: Duration = Duration::from_secs(2);

/// The world, as its agents and the simulation share it.
pub(crate) type Shared = Arc<Mutex<World>>;

/// Enters the world.
pub(crate) fn entered(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of an agent.
pub(crate) struct Process {
    pub(crate) agent: Agent<OutsideOf>,
    pub(crate) id: u64,
    pub(crate) started: Ms,
    pub(crate) busy_until: Ms,
    /// Messages that came while it was busy, in order.
    pub(crate) inbox: VecDeque<Message>,
    /// When it is woken without a message.
    wakes_at: Option<Ms>,
}

/// The agent whose turn it is.
#[derive(Debug)]
pub(crate) struct Driven {
    server: usize,
    died: Option<Death>,
    /// How long the store kept it waiting.
    delay: Ms,
    /// The lock managers that it makes drop all locks, each of the life that it saw last.
    pub(crate) drops_locks_of: Vec<(LockManagerAt, Observation)>,
}

/// An agent is to do something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    /// To begin.
    Start { server: usize },
    /// To take in what came, and to do what is due.
    GoOn { server: usize, agent: u64 },
}

impl World {
    /// Whether the agent of this server lives, in its turn.
    pub(crate) fn lives(&self, server: usize) -> bool {
        self.driven.as_ref().is_none_or(|driven| driven.server != server || driven.died.is_none())
    }

    /// One step further; whether it still lives.
    pub(crate) fn step(&mut self, server: usize) -> bool {
        if !self.lives(server) {
            return false;
        }
        let death = self.one_step(server);
        if let Some(death) = death {
            self.say(|| format!("{}: dies right here: {death:?}", server_name(server)));
            if let Some(driven) = &mut self.driven {
                driven.died = Some(death);
            }
        }
        death.is_none()
    }

    /// The store keeps the agent whose turn it is waiting.
    pub(crate) fn keeps_waiting(&mut self, delay: Ms) {
        if let Some(driven) = &mut self.driven {
            driven.delay += delay;
        }
    }

    /// How long the store has kept the agent of this server waiting in its turn; nothing where it has none.
    pub(crate) fn delay_of(&self, server: usize) -> Ms {
        self.driven.as_ref().filter(|driven| driven.server == server).map_or(0, |driven| driven.delay)
    }

    /// The agent whose turn it is writes a line into its log.
    pub(crate) fn say_of_driven(&self, level: &str, sentence: &str) {
        let server = self.driven.as_ref().map(|driven| server_name(driven.server));
        self.say(|| {
            format!("{}: {level} {sentence}", server.map_or_else(String::new, |server| server.to_string()))
        });
    }

    /// Something comes for an agent.
    pub(crate) fn hand_to_agent(&mut self, server: usize, agent: u64, message: Message) {
        self.hand_all_to_agent(server, agent, [message]);
    }

    /// The same for several that come together, and are taken in by one turn.
    pub(crate) fn hand_all_to_agent(
        &mut self,
        server: usize,
        agent: u64,
        messages: impl IntoIterator<Item = Message>,
    ) {
        let is_stopped = self.is_stopped(server);
        let Some(it) = self.agents[server].as_mut().filter(|it| it.id == agent) else { return };
        it.inbox.extend(messages);
        if is_stopped {
            return;
        }
        let until = it.busy_until;
        match until <= self.now {
            true => self.turns.push_back(Turn::GoOn { server, agent }),
            false => self.wake_at(server, until),
        }
    }

    /// An agent goes on at this moment, or before.
    fn wake_at(&mut self, server: usize, at: Ms) {
        let Some(it) = &mut self.agents[server] else { return };
        if it.wakes_at.is_none_or(|wakes_at| wakes_at <= self.now || wakes_at > at) {
            it.wakes_at = Some(at);
            let agent = it.id;
            self.after(at - self.now, Happening::Wake { server, agent });
        }
    }

    /// It is time for an agent to look what is due.
    pub(crate) fn wake(&mut self, server: usize, agent: u64) {
        let is_due =
            self.agents[server].as_ref().is_some_and(|it| it.id == agent && it.wakes_at == Some(self.now));
        if is_due {
            self.turns.push_back(Turn::GoOn { server, agent });
        }
    }

    fn begin_turn(&mut self, server: usize) {
        self.driven = Some(Driven { server, died: None, delay: 0, drops_locks_of: Vec::new() });
    }

    /// A turn is over. The agent is given back where it must be dropped: not in here, where it might enter the world again.
    fn end_turn(&mut self, server: usize, mut it: Box<Process>, due: Ms, ends: bool) -> Option<Box<Process>> {
        let driven = self.driven.take();
        let (died, delay) = driven.as_ref().map_or((None, 0), |driven| (driven.died, driven.delay));
        if let Some(death) = died.or(ends.then_some(Death::Agent)) {
            self.died(server, death);
            return Some(it);
        }
        for (of, seen) in driven.into_iter().flat_map(|driven| driven.drops_locks_of) {
            self.check_members(of, &it.agent, &seen);
        }
        it.busy_until = self.now + delay;
        if delay >= STORE_HOLDS_UP {
            // A turn takes no time in here: what follows from its calls comes when they are over.
            self.after(delay, Happening::Disturbed(Disturbance::Store));
        }
        for of in self.servers.lock_managers_of(server) {
            self.check_bounds(of, it.agent.run_count_of(of.number));
        }
        self.agents[server] = Some(it);
        self.wake_at(server, self.now + due.max(delay).max(1));
        None
    }
}

/// A world in which time passes.
pub(crate) struct Simulation {
    pub(crate) world: Shared,
}

impl Simulation {
    pub(crate) fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Lets time pass until `end`, or until a checker fires.
    pub(crate) fn run_until(&self, end: Ms) {
        loop {
            let mut world = entered(&self.world);
            while world.turns.is_empty() {
                if !world.happen_next(end) {
                    return;
                }
            }
            let turns = mem::take(&mut world.turns);
            drop(world);
            turns.into_iter().for_each(|turn| self.take(turn));
        }
    }

    fn take(&self, turn: Turn) {
        match turn {
            Turn::Start { server } => self.start(server),
            Turn::GoOn { server, agent } => self.turn(server, agent),
        }
    }

    fn start(&self, server: usize) {
        let mut world = entered(&self.world);
        world.begin_turn(server);
        let (id, started, memory) = (world.servers[server].agent, world.now, world.store.memory.clone());
        let settings = Arc::new(settings_of(&world, server));
        let outside = OutsideOf::new(Arc::clone(&self.world), &world, server);
        let lock_managers = world.servers.lock_managers_of(server);
        let lock_managers = lock_managers.map(|of| InstanceOf::new(Arc::clone(&self.world), &world, of));
        let lock_managers = lock_managers.collect();
        drop(world);
        let store = StoreOf { world: Arc::clone(&self.world), server, agent: id, memory };
        let Ok(mut agent) = Agent::new(settings, Box::new(store), outside, lock_managers) else {
            let mut world = entered(&self.world);
            world.driven = None;
            return world.died(server, Death::Agent);
        };
        agent.compare_at_once(COMPARED_AT_ONCE);
        agent.limit_work(WORK_TIME_MAX);
        agent.limit_looks(LOOK_TIME_MAX, LOOK_BELIEVED_MAX);
        self.begin_capture(server, &mut agent);
        agent.take_up();
        let inbox = VecDeque::new();
        let it = Box::new(Process { agent, id, started, busy_until: 0, inbox, wakes_at: None });
        let mut world = entered(&self.world);
        let dead = world.end_turn(server, it, 1, false);
        if dead.is_none() {
            world.after(1, Happening::Look { server, agent: id });
        }
        drop(world);
    }

    /// Begins to learn of records in the way that is configured, besides looking at the directory.
    fn begin_capture(&self, server: usize, agent: &mut Agent<OutsideOf>) {
        let world = || entered(&self.world);
        let lock_managers: Vec<LockManagerAt> = world().servers.lock_managers_of(server).collect();
        let mode = |of: LockManagerAt| world().servers[of].capture;
        if lock_managers.iter().any(|of| mode(*of) == Capture::Callout) {
            agent.take_in_spool();
        }
        for of in lock_managers.into_iter().filter(|of| mode(*of) == Capture::Nsm) {
            let differing = world().begin_monitoring(of);
            agent.monitors(of.number, differing);
        }
    }

    /// The agent takes in what has come, all of it together, and does what is due: as the product's loop has it.
    fn turn(&self, server: usize, agent: u64) {
        let mut world = entered(&self.world);
        let now = world.now;
        let is_its_turn = |it: &mut Box<Process>| it.id == agent && it.busy_until <= now;
        let Some(mut it) = world.agents[server].take_if(is_its_turn) else { return };
        world.begin_turn(server);
        drop(world);
        for message in join_alike(mem::take(&mut it.inbox).into_iter()) {
            it.agent.handle(message);
        }
        let mut ends = false;
        if entered(&self.world).lives(server) {
            it.agent.do_what_is_due();
            ends = it.agent.must_end().is_some();
        }
        let due = it.agent.next_due();
        let mut world = entered(&self.world);
        let due = millis(due.since(world.moment(it.started)));
        let dead = world.end_turn(server, it, due, ends);
        drop(world);
        drop(dead);
    }

    /// The world when all is over. Its parts that lead back to it are taken out before.
    pub(crate) fn end<T>(self, told: impl FnOnce(&mut World) -> T) -> T {
        let mut world = entered(&self.world);
        let agents: Vec<Option<Box<Process>>> = world.agents.iter_mut().map(Option::take).collect();
        let queue = world.clear_queue();
        let told = told(&mut world);
        drop(world);
        drop((agents, queue));
        told
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use heirlock_agent::{InstanceNumber, News};

    use crate::schedule::{Incident, Levels, Schedule};
    use crate::teller::{Teller, Trace};

    fn quiet() -> Simulation {
        let schedule = Schedule { levels: Levels::default(), incidents: Vec::new(), ..Schedule::draw(1) };
        Simulation::new(World::new(&schedule, Teller::new(Trace::Silent)))
    }

    pub(crate) fn quiet_world() -> Shared {
        quiet().world
    }

    #[test]
    fn an_agent_that_is_stopped_takes_nothing_in_and_does_so_when_it_goes_on() {
        let simulation = quiet();
        let world = || entered(&simulation.world);
        simulation.run_until(6_000);
        let beat = world().beat_at[0];
        assert!(beat.is_some(), "it began");
        world().befall(&Incident::StopAgent { server: 0, ms: 8_000 });
        let agent = world().servers[0].agent;
        world().after(
            10,
            Happening::ToAgent {
                server: 0,
                agent,
                message: Box::new(Message::Of(InstanceNumber::FIRST, News::Changed)),
            },
        );
        simulation.run_until(13_900);
        let waiting = || world().agents[0].as_ref().map(|it| it.inbox.len());
        assert_eq!(world().beat_at[0], beat, "its heart is silent");
        assert!(waiting() >= Some(1), "what comes for it waits");
        simulation.run_until(15_500);
        assert!(world().beat_at[0] >= Some(14_000), "it beats again");
        assert_eq!(waiting(), Some(0));
    }
}
