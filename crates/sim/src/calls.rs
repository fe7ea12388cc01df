//! Calls of the store, as an agent makes them. One may fail, with all, some or none of what was asked for done; its answer may
//! be lost though everything was done; and it may be late: the agent is told that it takes too long, and it is done
//! afterwards. Until then every other call fails in the same way, or the next one finds it done. When it is done the agent is told
//! that the store answers again.
//!
//! Heartbeats have a thread of their own: a late call holds none of them up, and a late heartbeat holds up nothing else.

use std::sync::Arc;

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{
    Account, Beaten, Change, ClaimAnswer, Commit, Contents, Past, Place, ServerHearts, ServerReport, Store,
    StoreError, StoreErrorKind,
};
use heirlock_core::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};
use heirlock_core::{Generation, Record, RecordKey, ServiceName};
use heirlock_nsm::StateNumber;

use crate::Ms;
use crate::chance::Purpose;
use crate::happening::Happening;
use crate::losses::Disturbance;
use crate::process::{Shared, entered};
use crate::schedule::Level;
use crate::world::World;

type Answer<T> = Result<T, StoreError>;

/// The result of a late heartbeat is of use for so long.
const BEAT_LATE_MAX: Ms = 2_000;

/// The fate of a call.
#[derive(Clone, Copy)]
enum Fate {
    Works,
    /// It fails, or the agent dies in it; this much of it is there all the same.
    Fails(Applied),
    /// It takes too long, and is done so much later. Until then it may hold up every other call.
    Late {
        after: Ms,
        holds_up: bool,
    },
    /// One before it takes too long still.
    HeldUp,
}

#[derive(Clone, Copy)]
enum Applied {
    Nothing,
    Something,
    Everything,
}

/// The change that a call is to make.
#[derive(Debug)]
enum Write {
    /// It only reads.
    Nothing,
    Claim(ServiceName, Claim),
    Release(ServiceName, Generation),
    Begin(ServiceName, Generation, Box<Contents>),
    Commit(Vec<Commit>),
    KeepTenure(ServiceName, Box<Tenure>),
    Prune(ServiceName, Generation),
    Beat(Arc<ServerReport>),
}

/// A call that takes too long. Its change is made later.
#[derive(Debug)]
pub(crate) struct Late {
    write: Write,
    began: Ms,
    /// Until it is done every other call fails.
    holds_up: bool,
    /// The agent that is told.
    agent: u64,
}

/// The calls of one server that are late.
#[derive(Debug, Default)]
pub(crate) struct LateCalls {
    pub(crate) calls: Vec<Late>,
    beat: Option<Late>,
    /// The result of a heartbeat that ended after it was given up.
    found: Option<Beaten>,
}

/// The store, as one agent has it.
pub(crate) struct StoreOf {
    pub(crate) world: Shared,
    pub(crate) server: usize,
    pub(crate) agent: u64,
    pub(crate) memory: InMemory,
}

fn fails() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the store fails")
}

fn late() -> StoreError {
    StoreError::new(StoreErrorKind::TimedOut, "the store takes its time")
}

impl StoreOf {
    fn read<T>(&self, read: impl FnOnce(&InMemory) -> Answer<T>) -> Answer<T> {
        self.call(Write::Nothing, read)
    }

    /// Makes a call: its change, and its answer once that is made.
    fn call<T>(&self, write: Write, answer: impl FnOnce(&InMemory) -> Answer<T>) -> Answer<T> {
        let mut world = entered(&self.world);
        let is_held_up = world.late[self.server].calls.iter().any(|late| late.holds_up);
        if !is_held_up {
            world.land_calls_of(self.server);
        }
        let fate = world.fate(self.server, is_held_up);
        world.ask_store(self, fate, write)?;
        answer(&self.memory)
    }
}

impl World {
    fn fate(&mut self, server: usize, is_held_up: bool) -> Fate {
        let lived = self.lives(server);
        let of = |level| self.levels.of(level);
        let (fails, slow) = (of(Level::StoreFails), of(Level::StoreSlow));
        let (lost, late) = (of(Level::StoreAnswersLost), of(Level::StoreLate));
        // Drawn always, so that a level that changes leaves the others where they are.
        let rng = self.chance(Purpose::Store, server);
        let applied = match rng.u8(0..3) {
            0 => Applied::Nothing,
            1 => Applied::Something,
            _ => Applied::Everything,
        };
        let fails = rng.u16(0..1_000) < fails;
        let delay = rng.u64(0..1_000) * Ms::from(slow) / 1_000;
        let is_lost = rng.u16(0..1_000) < lost;
        let (is_late, after, holds_up) = (rng.u16(0..1_000) < late, rng.u64(50..2_500), rng.bool());
        if !self.step(server) {
            return Fate::Fails(if lived { applied } else { Applied::Nothing });
        }
        if is_held_up {
            self.disturbed(Disturbance::Store);
            return Fate::HeldUp;
        }
        if self.store_is_away() || self.is_cut_off(server) {
            self.disturbed(Disturbance::Store);
            return Fate::Fails(Applied::Nothing);
        }
        if delay > 100 {
            self.disturbed(Disturbance::Store);
        }
        self.keeps_waiting(delay);
        let fate = match (fails, is_lost, is_late) {
            (true, _, _) => Fate::Fails(applied),
            (_, true, _) => Fate::Fails(Applied::Everything),
            (_, _, true) => Fate::Late { after, holds_up },
            _ => return Fate::Works,
        };
        self.disturbed(Disturbance::Store);
        fate
    }

    /// Carries a call out as the store does, by its fate.
    fn ask_store(&mut self, of: &StoreOf, fate: Fate, mut write: Write) -> Answer<()> {
        let server = of.server;
        match fate {
            Fate::HeldUp => return Err(late()),
            Fate::Fails(Applied::Nothing) => return Err(fails()),
            Fate::Fails(Applied::Something) => {
                let Write::Commit(work) = &mut write else { return Err(fails()) };
                for commit in work {
                    commit.changes.retain(|_| self.chance(Purpose::Store, server).bool());
                }
            }
            Fate::Works | Fate::Fails(Applied::Everything) | Fate::Late { .. } => {}
        }
        self.check_asked(server, &write);
        if let Fate::Late { after, holds_up } = fate {
            self.say(|| {
                format!("a call of the store is late by {after} ms, and holds up others: {holds_up}")
            });
            let call = Late { write, began: self.now, holds_up, agent: of.agent };
            match call.write {
                Write::Beat(_) => self.late[server].beat = Some(call),
                _ => self.late[server].calls.push(call),
            }
            self.after(after, Happening::Lands(server));
            return Err(late());
        }
        self.change_store(server, &of.memory, write)?;
        if matches!(fate, Fate::Works) { Ok(()) } else { Err(fails()) }
    }

    /// Judges what depends on what the agent knew when it asked.
    fn check_asked(&mut self, server: usize, write: &Write) {
        if let Write::Claim(service, claim) = write {
            self.check_claim(server, service, claim);
        }
    }

    fn change_store(&mut self, server: usize, memory: &InMemory, write: Write) -> Answer<()> {
        match write {
            Write::Nothing => Ok(()),
            Write::Claim(service, claim) => {
                if memory.claim(&service, &claim)? == ClaimAnswer::Won {
                    self.note_claim(&service);
                    self.claimed_at.entry((service, claim.generation)).or_insert(self.now);
                }
                Ok(())
            }
            Write::Release(service, generation) => {
                memory.release(&service, generation)?;
                self.note_claim(&service);
                self.released_at.entry((service, generation)).or_insert(self.now);
                Ok(())
            }
            Write::Begin(service, generation, contents) => {
                self.note_begin(server, &service, generation, &contents);
                self.store.begins(&service, generation, &contents);
                memory.begin_generation(&service, generation, &contents)
            }
            Write::Commit(work) => {
                // A commit that the store refuses changes nothing.
                let gave_way = |commit: &Commit| {
                    let newest = self.store.newest_claim(&commit.service);
                    newest.is_some_and(|newest| commit.by.gives_way_to(&newest))
                };
                if !work.iter().any(gave_way) {
                    for Commit { service, by, changes } in &work {
                        self.note_act(server, service, by.generation);
                        self.check_restarted_stay(server, service, changes);
                        for change in changes {
                            self.check_change(server, service, change);
                        }
                    }
                }
                memory.commit_each(&work)
            }
            Write::KeepTenure(service, tenure) => memory.keep_tenure(&service, &tenure),
            Write::Prune(service, keep_from) => memory.prune(&service, keep_from),
            Write::Beat(report) => {
                memory.put_report(report)?;
                self.beat_at[server] = Some(self.now);
                self.check_beats(server);
                Ok(())
            }
        }
    }

    /// All that this server's agent asked for, and was told to take too long, is done.
    pub(crate) fn land_all_of(&mut self, server: usize) {
        self.land_calls_of(server);
        self.land_beat_of(server);
    }

    fn land_beat_of(&mut self, server: usize) {
        let Some(late) = self.late[server].beat.take() else { return };
        let (memory, found) = (self.store.memory.clone(), self.store.memory.hearts());
        let taken = if let Write::Beat(report) = &late.write { report.beat } else { 0 };
        let done = self.change_store(server, &memory, late.write);
        if let (Ok(()), Ok(hearts)) = (done, found)
            && self.now <= late.began + BEAT_LATE_MAX
        {
            self.late[server].found = Some(Beaten { hearts, taken });
        }
    }

    fn land_calls_of(&mut self, server: usize) {
        if self.late[server].calls.is_empty() {
            return;
        }
        let memory = self.store.memory.clone();
        for late in std::mem::take(&mut self.late[server].calls) {
            self.say(|| "what was late is in the store now".into());
            // Its answer is thrown away.
            let _ = self.change_store(server, &memory, late.write);
            self.after(1, Happening::StoreAnswers { server, agent: late.agent });
        }
    }
}

impl Store for StoreOf {
    fn describe(&self) -> String {
        self.memory.describe()
    }

    fn place(&self, of: Place<'_>) -> String {
        self.memory.place(of)
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        self.memory.wrong(why)
    }

    fn older(&self, why: OlderStore) -> StoreError {
        self.memory.older(why)
    }

    fn is_busy(&self) -> bool {
        !entered(&self.world).late[self.server].calls.is_empty()
    }

    fn progress(&self) -> u64 {
        0
    }

    fn probe(&self) -> Answer<()> {
        self.read(Store::probe)
    }

    fn found(&self) -> Answer<Found> {
        self.read(Store::found)
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Answer<StoreIdentity> {
        self.read(|memory| memory.give_identity(identity))
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        self.memory.expect(identity);
    }

    fn services(&self) -> Answer<Vec<ServiceName>> {
        self.read(Store::services)
    }

    fn newest_claim(&self, service: &ServiceName) -> Answer<Option<Claim>> {
        self.read(|memory| memory.newest_claim(service))
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Answer<ClaimAnswer> {
        // To repeat a claim that was won is a win, and one that was lost is answered with what won.
        self.call(Write::Claim(service.clone(), claim.clone()), |memory| memory.claim(service, claim))
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Answer<()> {
        self.read(|memory| memory.restore_claim(service, claim))
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        self.call(Write::Release(service.clone(), generation), |_| Ok(()))
    }

    fn newest_generation(&self, service: &ServiceName, at_most: Generation) -> Answer<Option<Generation>> {
        self.read(|memory| memory.newest_generation(service, at_most))
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Answer<()> {
        self.read(|memory| memory.check_records(service, generation))
    }

    fn number_of(&self, service: &ServiceName, generation: Generation) -> Answer<Option<StateNumber>> {
        self.read(|memory| memory.number_of(service, generation))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Answer<()> {
        self.call(Write::Begin(service.clone(), generation, Box::new(contents.clone())), |_| Ok(()))
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Answer<Contents> {
        self.read(|memory| memory.load(service, generation))
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Answer<()> {
        self.commit_each(&[Commit { service: service.clone(), by: by.clone(), changes: changes.to_vec() }])
    }

    fn commit_each(&self, work: &[Commit]) -> Answer<()> {
        self.call(Write::Commit(work.to_vec()), |_| Ok(()))
    }

    fn past(&self, service: &ServiceName) -> Answer<Past> {
        self.read(|memory| memory.past(service))
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Answer<Account> {
        self.read(|memory| memory.account(service, generation))
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Answer<()> {
        self.call(Write::KeepTenure(service.clone(), Box::new(tenure.clone())), |_| Ok(()))
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        self.read(|memory| Ok(memory.record(service, generation, key))).ok().flatten()
    }

    fn written_at_s(&self, _: &ServiceName, _: Generation, _: &RecordKey) -> Option<u64> {
        None
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Answer<()> {
        self.call(Write::Prune(service.clone(), keep_from), |_| Ok(()))
    }

    fn put_server(&self, report: &ServerReport) -> Answer<()> {
        self.call(Write::Beat(Arc::new(report.clone())), |_| Ok(()))
    }

    fn hearts(&self) -> Answer<ServerHearts> {
        self.read(Store::hearts)
    }

    fn beat(&self, report: &ServerReport) -> Answer<Beaten> {
        let mut world = entered(&self.world);
        let earlier = world.late[self.server].found.take();
        let is_held_up = match &world.late[self.server].beat {
            Some(late) if late.holds_up => true,
            Some(_) => {
                world.land_beat_of(self.server);
                false
            }
            None => false,
        };
        let fate = world.fate(self.server, is_held_up);
        let found = self.memory.hearts();
        let beaten = world.ask_store(self, fate, Write::Beat(Arc::new(report.clone())));
        match (beaten.and(found), earlier) {
            (Ok(hearts), _) => Ok(Beaten { hearts, taken: report.beat }),
            (Err(_), Some(earlier)) => Ok(earlier),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::quiet_world;
    use crate::service::server_name;

    /// A claim that is made while the store does this, and the store of the server that makes it.
    fn claimed_while(level: Level) -> (Answer<ClaimAnswer>, Claim, StoreOf) {
        let world = quiet_world();
        let memory = entered(&world).store.memory.clone();
        let store = StoreOf { memory, world, server: 0, agent: 1 };
        entered(&store.world).levels.set(level, 1_000);
        let claim = Claim::new(Generation::FIRST, &server_name(0), "agent", 0);
        let answer = store.claim(&service(&store), &claim);
        entered(&store.world).levels.set(level, 0);
        (answer, claim, store)
    }

    fn service(store: &StoreOf) -> ServiceName {
        entered(&store.world).services[0].name.clone()
    }

    #[test]
    fn a_call_whose_answer_is_lost_has_failed_for_its_caller_and_is_done() {
        let (answer, claim, store) = claimed_while(Level::StoreAnswersLost);
        assert_eq!(answer, Err(fails()));
        assert_eq!(store.memory.newest_claim(&service(&store)), Ok(Some(claim)));
    }

    #[test]
    fn a_late_call_has_failed_for_its_caller_and_is_done_before_the_next_one() {
        let (answer, claim, store) = claimed_while(Level::StoreLate);
        let of = service(&store);
        assert_eq!(answer, Err(late()));
        assert!(store.is_busy());
        assert_eq!(store.memory.newest_claim(&of), Ok(None), "not yet");
        entered(&store.world).late[0].calls[0].holds_up = true;
        assert_eq!(store.newest_claim(&of), Err(late()), "it is held up");
        assert_eq!(store.memory.newest_claim(&of), Ok(None), "not yet");
        entered(&store.world).late[0].calls[0].holds_up = false;
        assert_eq!(store.newest_claim(&of), Ok(Some(claim)));
        assert!(!store.is_busy());
    }
}
