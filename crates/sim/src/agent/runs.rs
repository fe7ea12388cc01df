//! Runs: beginning, resuming and driving an adoption.

use std::collections::BTreeMap;

use heirlock_core::claim::{Authority, Claim, OwnerHeart, next_generation};
use heirlock_core::lives::Recognised;
use heirlock_core::store::{Change, Contents};
use heirlock_core::takeover::{
    Action, Base, Claimed, Claiming, Conveyance, End, Event, Found, HeldBefore, Journal, Order, Part,
    Persist, Queue, Recognition, Registrations, Remains, Strategy, Takeover, Todo, tells_peers, told_in,
};
use heirlock_core::{Batch, Generation, Moment, ServiceName};
use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use super::{Agent, Held, LIMITS, MARGIN, STORE_RETRY};
use crate::calls::STORE_FAILS;
use crate::cluster::Word;
use crate::outside::Out;

/// The run that is on.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) machine: Takeover,
    todo: Queue,
    pub(super) number: u32,
    pub(crate) before: Option<Registrations>,
    pub(super) reborn: bool,
}

/// Why a service was not claimed, or was and what it brings can't be read.
struct NotClaimed {
    why: String,
    made: bool,
}

impl From<String> for NotClaimed {
    fn from(why: String) -> Self {
        Self { why, made: false }
    }
}

impl Running {
    fn new(machine: Takeover, number: u32) -> Self {
        Self { machine, todo: Queue::default(), number, before: None, reborn: false }
    }

    /// See [`Queue::spare`].
    pub(crate) fn spare(&mut self, present: &BTreeMap<MonName, Vec<u8>>) {
        self.todo.spare(present);
    }

    /// See [`Queue::begins`].
    pub(crate) fn begins(&self, service: &ServiceName) -> bool {
        self.todo.begins(service)
    }

    pub(super) fn due(&self) -> Option<Moment> {
        self.todo.due().into_iter().chain(self.machine.next_timeout()).min()
    }
}

impl Agent {
    pub(super) fn begin_run(&mut self, out: &mut Out<'_>, now: Moment, order: Order) {
        self.runs_begun += 1;
        self.numbers += 1;
        let is_own_restart = order.is_own_restart();
        let run = format!("{}.{}.{}", out.s, self.id, self.runs_begun);
        let server = out.server().name.clone();
        let plan = order.plan(run, server, self.standing(out), out.means(), out.wall_s());
        out.say(|| {
            format!(
                "run {} begins: {:?} {:?}, own lost {:?}",
                plan.run, plan.cause, plan.targets, plan.standing.lost
            )
        });
        let mut running = Running::new(Takeover::new(now, plan), self.numbers);
        running.reborn = self.lives.is_reborn();
        if is_own_restart {
            running.before = Some(Registrations::of(running.machine.run(), &self.found.clients));
            self.run = Some(running);
            self.advance(out, now, Event::Start);
        } else {
            self.asked = Some(running);
            self.advance_asked(out, now, Event::Start);
        }
    }

    pub(super) fn resume_run(&mut self, out: &mut Out<'_>, now: Moment, run: &str) -> bool {
        let noted = out.server().registrations.as_ref().and_then(|text| Registrations::parse(text, run));
        let before = noted.unwrap_or_else(|| Registrations::of(run, &self.found.clients));
        let Ok(remains) = self.remains_of(out, run) else {
            self.failing = true;
            return true;
        };
        let found = Found {
            came: before.came(&self.found.clients),
            remains,
            held: self.held.keys().cloned().collect(),
        };
        let Some(mut machine) = Takeover::resume(now, MARGIN, LIMITS, found) else { return false };
        machine.begins(now, &Action::Recognise(Strategy::Notify));
        out.say(|| format!("run {run} goes on"));
        self.numbers += 1;
        let mut running = Running::new(machine, self.numbers);
        running.before = Some(before);
        self.run = Some(running);
        out.recognise(self.numbers, Strategy::Notify, self.lives.grace_seen(), false);
        true
    }

    fn remains_of(&self, out: &mut Out<'_>, run: &str) -> Result<Vec<Remains>, String> {
        let peer = out.server().peer.clone();
        let members = self.held.iter().filter(|(_, held)| held.journal.run == run);
        members
            .map(|(service, held)| {
                let mut remains = held.remains(service);
                if !tells_peers(service, held.journal.has_rebooted()) {
                    remains.clients.retain(|client| *client != peer);
                }
                let before = match held.claim.generation.before() {
                    Some(before) => out.load_newest(service, before)?,
                    None => None,
                };
                remains.begun_with = before.map(|before| before.records.into_keys().collect());
                Ok(remains)
            })
            .collect()
    }

    pub(super) fn advance(&mut self, out: &mut Out<'_>, now: Moment, event: Event) {
        let standing = self.standing(out);
        let Some(running) = &mut self.run else { return };
        running.machine.stands(standing);
        let before = running.machine.phase();
        let told = crate::check::event_word(&event);
        let batch = running.machine.step(now, event);
        let after = running.machine.phase();
        if told != "tick" || before != after {
            out.say(|| format!("run {}: {before} --{told}--> {after}", running.machine.run()));
        }
        self.carry_on(out, now, batch);
    }

    pub(super) fn carry_on(&mut self, out: &mut Out<'_>, now: Moment, batch: Batch<Persist, Action>) {
        let Some(running) = &mut self.run else { return };
        running.todo.extend(batch);
        self.carry_out(out, now);
    }

    /// For the run that is on, the one that was asked for, or one whose work outlived it.
    pub(super) fn worked_for(&mut self, out: &mut Out<'_>, now: Moment, run: u32, event: Event) {
        if self.is_on(run) {
            self.advance(out, now, event);
        } else if self.asked.as_ref().is_some_and(|asked| asked.number == run) {
            self.advance_asked(out, now, event);
        }
    }

    fn is_on(&self, run: u32) -> bool {
        self.run.as_ref().is_some_and(|running| running.number == run)
    }

    pub(super) fn recognised(
        &mut self,
        out: &mut Out<'_>,
        now: Moment,
        run: u32,
        done: Result<Recognised, String>,
    ) {
        let awaits = |running: &Running| running.number == run && running.machine.awaits_recognition();
        let awaited = self.run.as_ref().is_some_and(awaits);
        let recognition = done.and_then(|done| {
            let (begun, recognition) = self.lives.recognised(&done, awaited);
            if let Some(begun) = begun {
                self.life_began(out, now, &begun);
            }
            if let Ok(Recognition { life, grace_opened, .. }) = &recognition {
                out.note_grace(life, *grace_opened);
            }
            recognition
        });
        if let Some(running) = self.run.as_mut().filter(|running| running.number == run) {
            for (service, held) in &self.held {
                running.machine.captured(service, held.ledger.stored().keys());
            }
        }
        self.worked_for(out, now, run, Event::Recognised(recognition));
    }

    pub(super) fn tick_run(&mut self, out: &mut Out<'_>, now: Moment) {
        let Some(running) = &mut self.run else { return };
        if running.todo.tries_again(now) {
            self.carry_out(out, now);
        }
        if self.run.as_ref().is_some_and(|running| running.machine.is_due(now)) {
            if self.run.as_ref().is_some_and(|running| running.machine.wants_last_look(now)) {
                self.scan(out, now);
            }
            let present = self.found.clients.keys().cloned().collect();
            let looked_at = self.lives.looked_at();
            self.advance(out, now, Event::Tick { present, looked_at });
        }
    }

    fn carry_out(&mut self, out: &mut Out<'_>, now: Moment) {
        loop {
            let Some(running) = &mut self.run else { return };
            if running.todo.waits() || !out.step() {
                return;
            }
            let Some(next) = running.todo.take() else { return };
            match next {
                Todo::Act(action) => self.act(out, now, action),
                Todo::Persist(portion) => {
                    if let Err(why) = self.persist(out, &portion) {
                        self.failing = true;
                        let Some(running) = &mut self.run else { return };
                        running.todo.put_back(portion, now + STORE_RETRY, why);
                        return;
                    }
                }
            }
        }
    }

    fn persist(&mut self, out: &mut Out<'_>, portion: &[Persist]) -> Result<(), String> {
        let mut changes = Vec::new();
        for one in portion {
            match one {
                Persist::Begin { service, generation, state, records, journal } => {
                    let contents = self.begin(out, service, *generation, *state, records.clone(), journal)?;
                    let claim = self.our_claim(out, *generation);
                    self.held.insert(
                        service.clone(),
                        Held::new(claim, &contents, journal.clone(), service.is_host()),
                    );
                }
                Persist::Journal { journal, .. } => {
                    changes.push(Change::PutJournal(Box::new(journal.clone())));
                }
                Persist::Outcomes { lines, .. } => {
                    changes.extend(lines.iter().cloned().map(Change::AppendOutcome));
                }
                Persist::Retire { clients, .. } => {
                    changes.extend(clients.iter().cloned().map(Change::remove));
                }
            }
        }
        if !changes.is_empty() {
            let (service, generation) = portion[0].generation();
            let committed = out.commit(service, generation, changes);
            if let (Err(_), Some(held)) = (&committed, self.held.get_mut(service)) {
                portion.iter().for_each(|one| held.ledger.uncommitted(&one.removals()));
            }
            committed?;
        }
        for one in portion {
            let Some(held) = self.held.get_mut(one.generation().0) else { continue };
            match one {
                Persist::Begin { .. } => {}
                Persist::Journal { journal, .. } => held.journal = journal.clone(),
                Persist::Outcomes { lines, .. } => held.outcomes.extend(lines.iter().cloned()),
                Persist::Retire { .. } => held.ledger.committed(&one.removals()),
            }
        }
        Ok(())
    }

    pub(super) fn begin(
        &mut self,
        out: &mut Out<'_>,
        service: &ServiceName,
        generation: Generation,
        state: StateNumber,
        records: BTreeMap<MonName, Vec<u8>>,
        journal: &Journal,
    ) -> Result<Contents, String> {
        let (state, journal) = (Some(state), Some(journal.clone()));
        let contents = Contents { state, records, journal, ..Contents::default() };
        out.begin(service, generation, contents.clone(), None)?;
        Ok(contents)
    }

    fn act(&mut self, out: &mut Out<'_>, now: Moment, action: Action) {
        let Some(running) = &mut self.run else { return };
        let number = running.number;
        running.machine.begins(now, &action);
        match action {
            Action::CheckFit(_) | Action::Fence(_) => {}
            Action::Claim { services, authority } => {
                let claimed = self.claim_all(out, now, services, &authority);
                self.advance(out, now, claimed);
            }
            Action::Convey { services, how } => {
                for (service, records) in services {
                    let Some(name) = out.names_of(&service).into_iter().next() else { continue };
                    let planned: Vec<(MonName, Vec<u8>)> = records
                        .into_iter()
                        .map(|(client, record)| match how {
                            Conveyance::Copy => (client, record),
                            Conveyance::Generate => {
                                let line = MonitorLine::generated(client.clone(), name.clone());
                                (client, render_record(&[line]))
                            }
                        })
                        .collect();
                    out.place(&planned);
                }
                self.advance(out, now, Event::Conveyed(Ok(Vec::new())));
            }
            Action::Recognise(strategy) => {
                if strategy.drops_own_locks() {
                    self.scan(out, now);
                    self.check_members(out);
                }
                let Some(running) = &mut self.run else { return };
                let (run, found) = (running.machine.run().to_owned(), &self.found.clients);
                let before = running.before.get_or_insert_with(|| Registrations::of(&run, found));
                out.note_registrations(before);
                let owes = running.machine.owes_already();
                out.recognise(number, strategy, self.lives.grace_seen(), owes);
            }
            Action::Prove => match self.run.as_ref().and_then(|run| run.machine.grace().copied()) {
                Some(grace) => out.prove(number, grace),
                None => self.advance(out, now, Event::Proved(Err("no grace period is known".into()))),
            },
            Action::BringUp(services) => {
                let grace = self.run.as_ref().and_then(|run| run.machine.grace());
                let last_call = grace.map_or(now, heirlock_core::grace::Grace::last_call);
                out.bring_up(number, services, last_call);
            }
            Action::Notify(notices) => self.notify(out, notices),
            Action::StopNotifying => self.tellings.iter_mut().for_each(|telling| *telling = None),
            Action::CleanUp => out.clean_up(),
            Action::AwaitFinish => {
                if let Some(target) = self.run.as_ref().and_then(|run| run.machine.targets().first().cloned())
                {
                    out.answer(&target, Word::Prepared);
                }
            }
            Action::Over(end) => self.over(out, now, &end),
        }
    }

    /// What drops a server's own locks must tell its own clients (I7).
    fn check_members(&self, out: &mut Out<'_>) {
        let Some(running) = &self.run else { return };
        for (service, held) in &self.held {
            let lives_here =
                held.journal.life.is_some() && held.journal.life.as_ref() == self.lives.current();
            if lives_here
                && !held.ledger.stored().is_empty()
                && !running.machine.has_member(service)
                && !held.frozen
            {
                out.w.violated(7, format!("{service} loses its locks, and nobody will tell its clients"));
            }
        }
    }

    pub(super) fn claim_all(
        &mut self,
        out: &mut Out<'_>,
        now: Moment,
        services: Vec<(ServiceName, Part)>,
        authority: &Authority,
    ) -> Event {
        self.scan(out, now);
        let mut claiming = Claiming::new(services);
        if let Some(nothing) = claiming.look_ahead(|service, _| self.look_ahead(out, service)) {
            return nothing;
        }
        while let Some(service) = claiming.take() {
            match self.claim(out, now, &service, authority) {
                Ok(claimed) => claiming.won(claimed),
                Err(NotClaimed { why, made }) => {
                    match why == STORE_FAILS {
                        true => self.failing = true,
                        false => self.beat_due = now,
                    }
                    match made {
                        true => claiming.unread(service, why),
                        false => claiming.refused(service, why),
                    }
                }
            }
        }
        claiming.over()
    }

    fn look_ahead(&mut self, out: &mut Out<'_>, service: &ServiceName) -> Result<(), String> {
        let looked = out.newest_claim(service).and_then(|_| out.load_newest(service, Generation(u64::MAX)));
        self.failing |= looked.is_err();
        looked.map(drop)
    }

    fn claim(
        &mut self,
        out: &mut Out<'_>,
        now: Moment,
        service: &ServiceName,
        authority: &Authority,
    ) -> Result<Claimed, NotClaimed> {
        let newest = out.newest_claim(service)?;
        let us = out.server().name.clone();
        let heart = match &newest {
            Some(claim) if claim.owner != us => {
                let reports = out.reports().inspect_err(|_| self.hearts.blind())?;
                self.saw(out, now, reports);
                self.hearts.heart_of(&claim.owner, now)
            }
            _ => OwnerHeart::NeverSeen,
        };
        let generation = next_generation(service, newest.as_ref(), &us, heart, authority)
            .map_err(|refusal| refusal.to_string())?;
        let claim = self.our_claim(out, generation).following(newest.as_ref());
        let winner = out.claim(service, &claim, authority)?;
        if !winner.is_still(&claim) {
            return Err(format!("{service} was claimed by {} at the same moment", winner.owner).into());
        }
        out.say(|| format!("claimed {service} as generation {generation}"));
        let mut base = Base { sent: vec![StateNumber(out.server().state)], ..Base::default() };
        let loaded = out.load_newest(service, generation);
        if let Some(contents) = loaded.map_err(|why| NotClaimed { why, made: true })? {
            base.sent.extend(contents.state);
            base.records = contents.records;
        }
        if let Some(report) = newest.and_then(|claim| self.reports.get(&claim.owner)) {
            base.sent.extend(report.state.map(StateNumber));
        }
        let held = self.held.get(service).map(|held| {
            let told = told_in(&held.journal, &held.outcomes, self.lives.current());
            HeldBefore { records: held.ledger.stored(), told, is_own: !claim.adopts }
        });
        Ok(Claimed::new(service.clone(), &claim, base, held))
    }

    pub(super) fn our_claim(&self, out: &Out<'_>, generation: Generation) -> Claim {
        Claim::new(generation, &out.server().name, &self.id.to_string(), out.wall_s())
    }

    fn over(&mut self, out: &mut Out<'_>, now: Moment, end: &End) {
        let Some(running) = self.run.take() else { return };
        self.tellings.iter_mut().for_each(|telling| *telling = None);
        self.conclude(out, now, &running, end);
        self.scan_due = Some(now);
    }

    pub(super) fn conclude(&mut self, out: &mut Out<'_>, now: Moment, running: &Running, end: &End) {
        self.lives.run_ended(now, end, running.reborn);
        out.run_ended(&running.machine, end);
    }
}
