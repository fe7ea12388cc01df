//! A server of the simulation as its agent deals with it. The agent may die at each call that changes something.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use heirlock_agent::control::report::StatusReport;
use heirlock_agent::status_monitor::Said;
use heirlock_agent::store_memory::StoreMemory;
use heirlock_agent::{
    Basis, Found, InstanceOutside, Outside, Placed, Recall, RunNumber, RunWork, Unready, Work,
};
use heirlock_core::Moment;
use heirlock_core::grace::Remembered;
use heirlock_core::ledger::{Addresses, Population, Problem, Roles, population};
use heirlock_core::monitor::{Event as MonitorEvent, Standing};
use heirlock_core::notify::Destination;
use heirlock_core::store::StoreError;
use heirlock_core::taken_away::TakenAway;
use heirlock_core::takeover::{End, Registrations, Takeover};
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use crate::Ms;
use crate::chance::Purpose;
use crate::lock_manager::{Files, LockManagerAt};
use crate::process::{Shared, entered};
use crate::settings::host_address;
use crate::world::World;

/// A server as one agent has it.
#[derive(Clone)]
pub(crate) struct OutsideOf {
    world: Shared,
    server: usize,
    clock: Arc<AtomicU64>,
    started: Ms,
}

/// A lock manager of it.
#[derive(Clone)]
pub(crate) struct InstanceOf {
    pub(crate) world: Shared,
    pub(crate) of: LockManagerAt,
    agent: u64,
}

/// The basis of a look into the status monitor's directory, and its result.
pub(crate) struct LastLook {
    sm: Files,
    sm_bak: Files,
    placed: Placed,
    addresses: Addresses,
    population: Population,
    problems: Vec<Problem>,
}

impl OutsideOf {
    /// That of the agent which begins now.
    pub(crate) fn new(shared: Shared, world: &World, server: usize) -> Self {
        Self { world: shared, server, clock: Arc::clone(&world.clock), started: world.now }
    }

    /// The world that it shows.
    pub(crate) fn shared(&self) -> Shared {
        Arc::clone(&self.world)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        entered(&self.world)
    }
}

impl InstanceOf {
    /// That of the agent which begins now.
    pub(crate) fn new(world: Shared, inside: &World, of: LockManagerAt) -> Self {
        Self { world, of, agent: inside.servers[of.server].agent }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        entered(&self.world)
    }

    /// The world, if the agent lives one step further.
    pub(crate) fn step(&self) -> Option<MutexGuard<'_, World>> {
        let mut world = self.world();
        world.step(self.of.server).then_some(world)
    }

    /// The world, if the agent lives.
    pub(crate) fn alive(&self) -> Option<MutexGuard<'_, World>> {
        Some(self.world()).filter(|world| world.lives(self.of.server))
    }
}

impl World {
    /// The result of a look at the directory of a lock manager. Half of the time that a seed takes would go into looks with the same
    /// result as the one before.
    pub(crate) fn look_at_directory(
        &mut self,
        of: LockManagerAt,
        placed: &Placed,
        addresses: &Addresses,
    ) -> Found {
        let it = &mut self.servers[of];
        let is_as_before = |last: &&LastLook| {
            (&last.sm, &last.sm_bak) == (&it.sm, &it.sm_bak)
                && Arc::ptr_eq(&last.placed, placed)
                && last.addresses == *addresses
        };
        if let Some(last) = it.last_look.as_ref().filter(is_as_before) {
            let (population, problems) = (last.population.clone(), last.problems.clone());
            return Found { population, problems, opened: 0 };
        }
        let scan = it.scan();
        let found = population(&scan, placed, addresses);
        let (population, problems) = (found.clone(), scan.problems.clone());
        it.last_look = Some(LastLook {
            sm: it.sm.clone(),
            sm_bak: it.sm_bak.clone(),
            placed: Arc::clone(placed),
            addresses: addresses.clone(),
            population: found,
            problems: scan.problems,
        });
        Found { population, problems, opened: scan.files.len() }
    }
}

impl Outside for OutsideOf {
    type Instance = InstanceOf;

    fn now(&self) -> Moment {
        let now = self.clock.load(Ordering::Relaxed);
        Moment::of_process(Duration::from_millis(now - self.started))
    }

    fn wall_s(&self) -> u64 {
        self.world().wall_s(self.server)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.world().now)
    }

    fn random(&mut self) -> u64 {
        self.world().chance(Purpose::Number, self.server).u64(..)
    }

    fn may_say(&self, _: &'static str) -> bool {
        true
    }

    fn say_suppressed_lines(&self, _: bool) {}

    fn boot(&self) -> Option<String> {
        Some(self.world().servers[self.server].boot_id.clone())
    }

    fn interface_addresses(&self) -> Vec<IpAddr> {
        let world = self.world();
        let here = (0..world.services.len()).filter(|at| world.address_of(*at) == Some(self.server));
        here.filter_map(|at| world.services[at].address).chain([host_address(self.server)]).collect()
    }

    fn is_maintained(&self) -> bool {
        self.world().servers[self.server].is_maintained
    }

    fn maintain(&mut self, on: bool) -> Result<(), String> {
        let mut world = self.world();
        if world.step(self.server) {
            world.servers[self.server].is_maintained = on;
        }
        Ok(())
    }

    fn store_memory(&self) -> Result<StoreMemory, StoreError> {
        Ok(self.world().servers[self.server].memory.clone())
    }

    fn had_store(&self) -> bool {
        false
    }

    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError> {
        let lives = self.world().step(self.server);
        let mut memory = self.store_memory()?;
        change(&mut memory);
        if lives {
            self.world().servers[self.server].memory = memory.clone();
        }
        Ok(memory)
    }

    fn shows_status(&self) -> bool {
        false
    }

    fn publish(&self, _: StatusReport, _: Option<Moment>) {}
}

impl InstanceOutside for InstanceOf {
    fn node(&self) -> Option<String> {
        Some(self.world().servers[self.of].node.to_string())
    }

    fn is_present(&self, address: IpAddr) -> bool {
        let world = self.world();
        let service = world.services.iter().position(|service| service.address == Some(address));
        match service {
            Some(service) => world.serving(service) == Some(self.of),
            None => self.of.is_first() && address == host_address(self.of.server),
        }
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        name.address().map(Destination::from)
    }

    fn roles(&mut self, _: &[u16], _: bool) -> Roles {
        let peer = self.world().servers[self.of].peer.clone();
        Roles { peers: peer.into_iter().collect(), connected: BTreeSet::new() }
    }

    fn own_state(&self) -> Option<StateNumber> {
        Some(StateNumber(self.world().servers[self.of].state))
    }

    fn grace_note(&self) -> Option<Remembered> {
        self.world().servers[self.of].grace.clone()
    }

    fn note_grace(&mut self, noted: &Remembered) {
        if let Some(mut world) = self.step() {
            world.servers[self.of].grace = Some(noted.clone());
        }
    }

    fn registrations(&self, run: &str) -> Option<Registrations> {
        Registrations::parse(self.world().servers[self.of].registrations.as_ref()?, run)
    }

    fn note_registrations(&mut self, registrations: &Registrations) {
        if let Some(mut world) = self.step() {
            world.servers[self.of].registrations = Some(registrations.render());
        }
    }

    fn taken_away(&self) -> Result<TakenAway, String> {
        Ok(self.world().servers[self.of].taken_away.clone())
    }

    fn note_taken_away(&mut self, noted: &TakenAway) -> Result<(), String> {
        if let Some(mut world) = self.step() {
            world.servers[self.of].taken_away = noted.clone();
        }
        Ok(())
    }

    fn placed(&self) -> Placed {
        Arc::clone(&self.world().servers[self.of].book)
    }

    fn is_hinted(&self) -> bool {
        self.world().servers[self.of].is_hinted
    }

    fn forget_hints(&mut self) {
        if let Some(mut world) = self.alive() {
            world.servers[self.of].is_hinted = false;
        }
    }

    fn look(&mut self, addresses: &Addresses, _: Recall) -> Result<Found, String> {
        let mut world = entered(&self.world);
        let placed = Arc::clone(&world.servers[self.of].book);
        Ok(world.look_at_directory(self.of, &placed, addresses))
    }

    fn begin_look(&mut self, basis: Basis, addresses: Arc<Addresses>, _: bool) -> Result<(), String> {
        if let Some(mut world) = self.alive() {
            world.begin_look((self.of, self.agent), basis, addresses);
        }
        Ok(())
    }

    // Of callouts see `callout.rs`, of heirlock as the status monitor `status_monitor.rs`.

    fn noted_by_callouts(&mut self) -> Result<Vec<Said>, String> {
        Ok(self.read_notes())
    }

    fn noted_is_durable(&mut self) -> Result<(), String> {
        self.put_notes_away();
        Ok(())
    }

    fn tell_monitor(&self, event: MonitorEvent) {
        self.tell_our_monitor(event);
    }

    fn registered_lines(&self, client: &MonName) -> Vec<MonitorLine> {
        self.with_machine(Vec::new(), |machine| machine.lines(client).to_vec())
    }

    fn all_registered_lines(&self) -> Vec<MonitorLine> {
        self.with_machine(Vec::new(), |machine| machine.all_lines().cloned().collect())
    }

    fn may_forget(&self, client: &MonName) -> bool {
        self.with_machine(true, |machine| machine.may_forget(client))
    }

    fn monitor_standing(&self) -> Option<Standing> {
        self.with_machine(None, |machine| Some(machine.standing()))
    }

    fn read_directory(&mut self) -> Result<BTreeSet<MonName>, String> {
        Ok(self.read_directory_now())
    }

    fn write_registrations(&mut self, client: &MonName, lines: &[MonitorLine]) -> Result<(), String> {
        self.update_directory(client, lines)
    }

    fn begin_for(&mut self, run: RunNumber, work: RunWork) {
        if let Some(mut world) = self.step() {
            world.begin_for((self.of, self.agent), run, work);
        }
    }

    fn begin(&mut self, work: Work) {
        if matches!(work, Work::Discard(_)) {
            return;
        }
        if let Some(mut world) = self.step() {
            world.begin((self.of, self.agent), work);
        }
    }

    fn stop_telling(&mut self) {
        if let Some(mut world) = self.alive() {
            world.servers[self.of].tellings.clear();
        }
    }

    // No checker reads this part of a report.
    fn unready(&self) -> Vec<Unready> {
        Vec::new()
    }

    fn lock_manager(&self) -> String {
        "a simulated lock manager".to_owned()
    }

    fn run_ended(&mut self, run: &Takeover, end: &End) {
        if let Some(mut world) = self.alive() {
            world.run_ended(self.of, run, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use heirlock_agent::Message;
    use heirlock_agent::agent::outside::contract::{
        a_lock_manager_keeps_its_promises, a_server_keeps_its_promises,
    };

    use super::*;
    use crate::process::tests::quiet_world;

    #[test]
    fn a_server_of_the_simulation_and_its_lock_manager_keep_their_promises() {
        let world = quiet_world();
        let begun = || OutsideOf::new(Arc::clone(&world), &entered(&world), 0);
        a_server_keeps_its_promises(begun(), |before| {
            drop(before);
            begun()
        });
        let begun = || InstanceOf::new(Arc::clone(&world), &entered(&world), LockManagerAt::first(0));
        let anew = |before| {
            drop(before);
            begun()
        };
        let next = |_: &mut InstanceOf| match entered(&world).next_message().unwrap() {
            Message::Of(_, news) => news,
            _ => panic!("the store does not answer late here"),
        };
        a_lock_manager_keeps_its_promises(begun(), next, anew);
    }
}
