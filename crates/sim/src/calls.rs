//! Calls of the store, as an agent makes them. One may fail, with all, some or none of what was asked for done; its answer may
//! be lost though everything was done; and it may be late: the agent is told that it failed, and what it asked for is done
//! afterwards. Until then every other call fails, or the next one finds it done.

use std::collections::BTreeMap;

use heirlock_core::claim::{Authority, Claim};
use heirlock_core::store::{Change, Contents, ServerReport};
use heirlock_core::{Generation, ServerName, ServiceName};

use crate::Ms;
use crate::chance::Purpose;
use crate::losses::Disturbance;
use crate::outside::Out;
use crate::schedule::Level;
use crate::world::{Happening, World};

/// What every call that fails answers.
pub(crate) const STORE_FAILS: &str = "the store fails";

/// What becomes of a call.
enum Fate {
    Works,
    /// It fails, or the agent dies in it; this much of it is there all the same.
    Fails(Applied),
    /// It fails, and is done so much later. Until then it may hold up every other call.
    Late {
        after: Ms,
        holds_up: bool,
    },
}

#[derive(Clone, Copy)]
enum Applied {
    Nothing,
    Something,
    Everything,
}

/// What a call is to change.
#[derive(Debug)]
enum Write {
    Claim {
        service: ServiceName,
        claim: Claim,
        authority: Authority,
    },
    Release {
        service: ServiceName,
        generation: Generation,
    },
    Begin {
        service: ServiceName,
        generation: Generation,
        contents: Box<Contents>,
        goes_on_with: Option<Generation>,
    },
    Commit {
        service: ServiceName,
        generation: Generation,
        changes: Vec<Change>,
    },
    Beat(Box<ServerReport>),
}

/// What an agent asked for and was told to have failed. It is done later.
#[derive(Debug)]
pub(crate) struct Late {
    write: Write,
    /// Until it is done every other call fails.
    holds_up: bool,
}

impl Out<'_> {
    fn fate(&mut self) -> Fate {
        let is_held_up = self.w.late_writes[self.s].iter().any(|late| late.holds_up);
        if !is_held_up {
            self.w.land_all_of(self.s);
        }
        let lived = self.died.is_none();
        let of = |level| self.w.levels.of(level);
        let (fails, slow) = (of(Level::StoreFails), of(Level::StoreSlow));
        let (lost, late) = (of(Level::StoreAnswersLost), of(Level::StoreLate));
        // Drawn always, so that a level that changes leaves the others where they are.
        let rng = self.w.chance(Purpose::Store, self.s);
        let applied = match rng.u8(0..3) {
            0 => Applied::Nothing,
            1 => Applied::Something,
            _ => Applied::Everything,
        };
        let fails = rng.u16(0..1_000) < fails;
        let delay = rng.u64(0..1_000) * Ms::from(slow) / 1_000;
        let is_lost = rng.u16(0..1_000) < lost;
        let (is_late, after, holds_up) = (rng.u16(0..1_000) < late, rng.u64(50..2_500), rng.bool());
        if !self.step() {
            return Fate::Fails(if lived { applied } else { Applied::Nothing });
        }
        if self.w.store_is_away() || self.w.is_cut_off(self.s) || is_held_up {
            self.w.disturbed(Disturbance::Store);
            return Fate::Fails(Applied::Nothing);
        }
        if delay > 100 {
            self.w.disturbed(Disturbance::Store);
        }
        self.delay += delay;
        let fate = match (fails, is_lost, is_late) {
            (true, _, _) => Fate::Fails(applied),
            (_, true, _) => Fate::Fails(Applied::Everything),
            (_, _, true) => Fate::Late { after, holds_up },
            _ => return Fate::Works,
        };
        self.w.disturbed(Disturbance::Store);
        fate
    }

    fn read(&mut self) -> Result<(), String> {
        match self.fate() {
            Fate::Works => Ok(()),
            Fate::Fails(_) | Fate::Late { .. } => Err(STORE_FAILS.into()),
        }
    }

    fn write(&mut self, mut write: Write) -> Result<(), String> {
        let fate = self.fate();
        match fate {
            Fate::Fails(Applied::Nothing) => return Err(STORE_FAILS.into()),
            Fate::Fails(Applied::Something) => {
                let Write::Commit { changes, .. } = &mut write else { return Err(STORE_FAILS.into()) };
                changes.retain(|_| self.w.chance(Purpose::Store, self.s).bool());
            }
            Fate::Works | Fate::Fails(Applied::Everything) | Fate::Late { .. } => {}
        }
        self.w.check_asked(self.s, &write);
        if let Fate::Late { after, holds_up } = fate {
            self.say(|| {
                format!("a call of the store is late by {after} ms, and holds up others: {holds_up}")
            });
            self.w.late_writes[self.s].push(Late { write, holds_up });
            let server = self.s;
            self.w.after(after, Happening::Lands(server));
        } else {
            self.w.change_store(self.s, write);
        }
        if matches!(fate, Fate::Works) { Ok(()) } else { Err(STORE_FAILS.into()) }
    }

    pub(crate) fn newest_claim(&mut self, service: &ServiceName) -> Result<Option<Claim>, String> {
        self.read()?;
        Ok(self.w.store.newest_claim(service).cloned())
    }

    pub(crate) fn load_newest(
        &mut self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Contents>, String> {
        self.read()?;
        let newest = self.w.store.newest_generation(service, at_most);
        Ok(newest.and_then(|generation| self.w.store.contents(service, generation)).cloned())
    }

    /// The newest generation that is no later, and whose journal it has.
    pub(crate) fn newest_journal(
        &mut self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<(Generation, Option<ServerName>)>, String> {
        self.read()?;
        let newest = self.w.store.newest_generation(service, at_most);
        let server =
            |generation| Some(self.w.store.contents(service, generation)?.journal.as_ref()?.server.clone());
        Ok(newest.map(|generation| (generation, server(generation))))
    }

    /// The claim that has the generation.
    pub(crate) fn claim(
        &mut self,
        service: &ServiceName,
        claim: &Claim,
        authority: &Authority,
    ) -> Result<Claim, String> {
        let (service, authority) = (service.clone(), authority.clone());
        self.write(Write::Claim { service: service.clone(), claim: claim.clone(), authority })?;
        Ok(self.w.store.claim(&service, claim))
    }

    pub(crate) fn release(&mut self, service: &ServiceName, generation: Generation) -> Result<(), String> {
        self.write(Write::Release { service: service.clone(), generation })
    }

    pub(crate) fn begin(
        &mut self,
        service: &ServiceName,
        generation: Generation,
        contents: Contents,
        goes_on_with: Option<Generation>,
    ) -> Result<(), String> {
        let (service, contents) = (service.clone(), Box::new(contents));
        self.write(Write::Begin { service, generation, contents, goes_on_with })
    }

    pub(crate) fn commit(
        &mut self,
        service: &ServiceName,
        generation: Generation,
        changes: Vec<Change>,
    ) -> Result<(), String> {
        self.write(Write::Commit { service: service.clone(), generation, changes })
    }

    /// Writes our heartbeat and reads all of them.
    pub(crate) fn beat(
        &mut self,
        report: ServerReport,
    ) -> Result<BTreeMap<ServerName, ServerReport>, String> {
        self.write(Write::Beat(Box::new(report)))?;
        Ok(self.w.store.reports.clone())
    }

    /// All heartbeats.
    pub(crate) fn reports(&mut self) -> Result<BTreeMap<ServerName, ServerReport>, String> {
        self.read()?;
        Ok(self.w.store.reports.clone())
    }
}

impl World {
    /// Judges what depends on what the agent knew when it asked.
    fn check_asked(&mut self, server: usize, write: &Write) {
        match write {
            Write::Claim { service, claim, authority } => self.check_claim(server, service, claim, authority),
            Write::Begin { service, generation, contents, .. } => {
                self.check_begin(service, *generation, contents);
            }
            Write::Release { .. } | Write::Commit { .. } | Write::Beat(_) => {}
        }
    }

    fn change_store(&mut self, server: usize, write: Write) {
        match write {
            Write::Claim { service, claim, .. } => {
                self.store.claim(&service, &claim);
                self.claimed_at.entry((service, claim.generation)).or_insert(self.now);
            }
            Write::Release { service, generation } => {
                self.store.release(&service, generation);
                self.released_at.entry((service, generation)).or_insert(self.now);
            }
            Write::Begin { service, generation, contents, goes_on_with } => {
                self.check_writer(server, &service, generation);
                self.store.begin(&service, generation, *contents, goes_on_with);
            }
            Write::Commit { service, generation, changes } => {
                for change in changes {
                    self.check_writer(server, &service, generation);
                    self.check_change(server, &service, &change);
                    self.store.apply(&service, generation, change);
                }
            }
            Write::Beat(report) => {
                self.store.reports.insert(report.server.clone(), *report);
                self.beat_at[server] = Some(self.now);
            }
        }
    }

    /// What this server's agent asked for, and was told to have failed, is done.
    pub(crate) fn land_all_of(&mut self, server: usize) {
        for late in std::mem::take(&mut self.late_writes[server]) {
            self.say(|| "what was late is in the store now".into());
            self.change_store(server, late.write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;
    use crate::teller::{Teller, Trace};
    use crate::world::server_name;

    /// A claim that is made while the store does this, and the world afterwards.
    fn claimed_while(level: Level) -> (Result<Claim, String>, Claim, World) {
        let schedule = Schedule { levels: Default::default(), incidents: Vec::new(), ..Schedule::draw(1) };
        let mut world = World::new(&schedule, Teller::new(Trace::Silent));
        world.levels.set(level, 1_000);
        let claim = Claim::new(Generation::FIRST, &server_name(0), "agent", 0);
        let (service, authority) = (world.services[0].name.clone(), Authority::default());
        let answer = out(&mut world).claim(&service, &claim, &authority);
        world.levels.set(level, 0);
        (answer, claim, world)
    }

    fn out(world: &mut World) -> Out<'_> {
        Out { w: world, s: 0, id: 1, started: 0, died: None, delay: 0 }
    }

    #[test]
    fn a_call_whose_answer_is_lost_has_failed_for_its_caller_and_is_done() {
        let (answer, claim, world) = claimed_while(Level::StoreAnswersLost);
        assert_eq!(answer, Err(STORE_FAILS.to_owned()));
        assert_eq!(world.store.newest_claim(&world.services[0].name), Some(&claim));
    }

    #[test]
    fn a_late_call_has_failed_for_its_caller_and_is_done_before_the_next_one() {
        let (answer, claim, mut world) = claimed_while(Level::StoreLate);
        let service = world.services[0].name.clone();
        assert_eq!(answer, Err(STORE_FAILS.to_owned()));
        assert_eq!(world.store.newest_claim(&service), None, "not yet");
        world.late_writes[0][0].holds_up = true;
        assert_eq!(out(&mut world).newest_claim(&service), Err(STORE_FAILS.to_owned()), "it is held up");
        assert_eq!(world.store.newest_claim(&service), None, "not yet");
        world.late_writes[0][0].holds_up = false;
        assert_eq!(out(&mut world).newest_claim(&service), Ok(Some(claim)));
    }
}
