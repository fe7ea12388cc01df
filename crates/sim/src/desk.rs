//! I1: the status monitor of one server (capture mode `nsm`), the lock manager that asks it, and its store.
//!
//! A small world beside the large one, where agents watch a directory and nothing is promised before a lock is granted.
//! Here everything is about the order of answer and commit: the store is slow, fails in part, or is away; the monitor is
//! killed while a commit is on; clients register, are unmonitored, are forgotten and come again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use heirlock_core::Moment;
use heirlock_core::monitor::{
    Action, Arrival, Caller, Event, Monitor, Persist, Rules, Ticket, WhenUnprotected,
};
use heirlock_nsm::{MonName, MonitorLine, MyName};

use crate::chance::{Chance, Purpose};
use crate::schedule::{Incident, Schedule};
use crate::server::client_address;
use crate::teller::Teller;
use crate::{Ms, Violation};

/// How long this world lasts.
pub(crate) const END: Ms = 40_000;
const MON_TIMEOUT: Ms = 500;
const CLIENTS: usize = 6;
/// The last of them is a server that this one mounts from: its SM_MON is never refused, for it protects no client.
const PEER: usize = CLIENTS - 1;

enum Happening {
    Ask(usize),
    Unmonitor(usize),
    Forget(usize),
    Committed { run: u32, batch: u64, arrivals: Vec<Arrival>, works: bool },
    Probed(u32),
    Kill,
    StoreAway(Ms),
    Tick,
}

struct Desk<'a> {
    now: Ms,
    queue: BTreeMap<(Ms, u64), Happening>,
    happened: u64,
    chance: Chance,
    teller: &'a Teller,
    name: MyName,
    rules: Rules,
    monitor: Monitor,
    /// Which run of the monitor: commits of an earlier one reach the store, and not this one.
    run: u32,
    /// The lines that it keeps under /run.
    kept: Vec<MonitorLine>,
    /// The durable clients, in truth.
    store: BTreeSet<MonName>,
    away_until: Ms,
    waiting: BTreeMap<Ticket, (usize, Ms)>,
    violation: Option<Violation>,
}

/// Lives through a schedule: the promise that was broken.
pub(crate) fn run(schedule: &Schedule, teller: &Teller) -> Option<Violation> {
    let when_unprotected =
        if schedule.desk_grants { WhenUnprotected::Grant } else { WhenUnprotected::Refuse };
    let rules = Rules { mon_timeout: Duration::from_millis(MON_TIMEOUT), when_unprotected };
    let mut desk = Desk {
        now: 0,
        queue: BTreeMap::new(),
        happened: 0,
        chance: Chance::new(schedule.streams),
        teller,
        name: MyName::parse("nfs-a").ok()?,
        rules,
        monitor: Monitor::new(rules, Vec::new()),
        run: 0,
        kept: Vec::new(),
        store: BTreeSet::new(),
        away_until: 0,
        waiting: BTreeMap::new(),
        violation: None,
    };
    (0..CLIENTS).for_each(|client| desk.after(10, Happening::Ask(client)));
    for (at, incident) in &schedule.incidents {
        match incident {
            Incident::KillDesk => desk.after(*at, Happening::Kill),
            Incident::DeskStoreAway { ms } => desk.after(*at, Happening::StoreAway(*ms)),
            _ => {}
        }
    }
    while let Some(entry) = desk.queue.first_entry() {
        let (at, _) = *entry.key();
        if at > END || desk.violation.is_some() {
            break;
        }
        let happening = entry.remove();
        desk.now = at;
        desk.happen(happening);
        desk.check();
    }
    desk.violation
}

impl Desk<'_> {
    fn after(&mut self, after: Ms, happening: Happening) {
        self.happened += 1;
        self.queue.insert((self.now + after, self.happened), happening);
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.teller.say("desk", self.now, what);
    }

    fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    fn of_client(&mut self, client: usize) -> &mut Rng {
        self.chance.of(Purpose::DeskClient, client, self.now)
    }

    fn violated(&mut self, invariant: u8, what: String) {
        self.say(|| format!("I{invariant} VIOLATED: {what}"));
        let at = self.now;
        self.violation.get_or_insert(Violation { invariant, what, at });
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Ask(client) => {
                let ticket = Ticket(self.happened);
                self.waiting.insert(ticket, (client, self.now));
                self.step(Event::Mon { ticket, line: self.line(client), peer: client == PEER });
                let rng = self.of_client(client);
                let (again, gone) = (rng.u64(20..4_000), rng.u64(100..4_000));
                self.after(again, Happening::Ask(client));
                self.after(gone, Happening::Unmonitor(client));
            }
            Happening::Unmonitor(client) => {
                let MonitorLine { mon_name, my_name, prog, vers, proc_, .. } = self.line(client);
                self.step(Event::Unmon { mon_name, caller: Caller { my_name, prog, vers, proc_ } });
                let after = self.of_client(client).u64(1..2_000);
                self.after(after, Happening::Forget(client));
            }
            // The ledger believes a deletion: removed unless the monitor objects.
            Happening::Forget(client) => {
                let client = name(client);
                if !self.is_away() && self.monitor.may_forget(&client) {
                    self.say(|| format!("{client} is forgotten"));
                    self.store.remove(&client);
                }
            }
            Happening::Committed { run, batch, arrivals, works } => {
                for arrival in arrivals {
                    let is_there = self.chance.of(Purpose::DeskStore, 0, self.now).bool();
                    if works || is_there {
                        self.store.insert(arrival.line.mon_name);
                    }
                }
                if run == self.run {
                    self.step(Event::Committed { batch, durable: works });
                }
            }
            Happening::Probed(run) if run == self.run => self.step(Event::Probed(!self.is_away())),
            Happening::Probed(_) => {}
            Happening::Kill => {
                self.say(|| "the monitor is killed, and starts again".into());
                self.run += 1;
                self.waiting.clear();
                self.monitor = Monitor::new(self.rules, self.kept.clone());
                if !self.is_away() {
                    self.step(Event::Durable(self.store.clone()));
                }
            }
            Happening::StoreAway(ms) => {
                self.say(|| format!("the store is away for {ms} ms"));
                self.away_until = self.away_until.max(self.now + ms);
            }
            Happening::Tick => self.step(Event::Tick),
        }
    }

    fn step(&mut self, event: Event) {
        let batch = self.monitor.step(Moment::of_process(Duration::from_millis(self.now)), event);
        for one in batch.persist {
            match one {
                Persist::Keep(line) => self.kept.push(line),
                Persist::Drop(line) => self.kept.retain(|kept| *kept != line),
                // No client is restarted in this world.
                Persist::Owe(..) | Persist::Paid(_) => {}
            }
        }
        batch.then.into_iter().for_each(|action| self.act(action));
        if let Some(due) = self.monitor.next_timeout() {
            let now = Moment::of_process(Duration::from_millis(self.now));
            let after = crate::world::millis(due.since(now)).max(1);
            self.after(after, Happening::Tick);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer { ticket, granted } => self.check_answer(ticket, granted),
            Action::Commit { batch, arrivals } => {
                let rng = self.chance.of(Purpose::DeskStore, 0, self.now);
                let (fails, is_slow) = (rng.u8(0..10) == 0, rng.u8(0..8) == 0);
                let (long, short) = (rng.u64(200..2_000), rng.u64(1..30));
                let (works, after) = (!fails && !self.is_away(), if is_slow { long } else { short });
                self.after(after, Happening::Committed { run: self.run, batch, arrivals, works });
            }
            Action::Probe => self.after(20, Happening::Probed(self.run)),
            Action::Changed(_)
            | Action::Call { .. }
            | Action::LookUp { .. }
            | Action::Acknowledge(_)
            | Action::LeaveUnanswered(_) => {}
        }
    }

    fn check_answer(&mut self, ticket: Ticket, granted: bool) {
        let Some((client, asked)) = self.waiting.remove(&ticket) else { return };
        self.say(|| format!("SM_MON of client {client} is answered: granted {granted}"));
        if self.now > asked + MON_TIMEOUT + 1 {
            let took = self.now - asked;
            self.violated(1, format!("client {client} waited {took} ms for the answer to its SM_MON"));
        }
        let is_durable = self.store.contains(&name(client));
        let may_be_at_risk = client == PEER || self.rules.when_unprotected == WhenUnprotected::Grant;
        if granted && !is_durable && !may_be_at_risk {
            self.violated(1, format!("client {client} is granted, and its record is not in the store"));
        }
    }

    /// A registered client stays durable, or is listed as at risk.
    fn check(&mut self) {
        let at_risk = self.monitor.standing().at_risk;
        let peer = name(PEER);
        let is_exposed = |line: &&MonitorLine| {
            let client = &line.mon_name;
            *client != peer && !self.store.contains(client) && !at_risk.contains(client)
        };
        // A monitor that was killed lists no client until it is asked again.
        let lists = self.rules.when_unprotected == WhenUnprotected::Refuse || self.run == 0;
        let exposed = self.monitor.all_lines().find(is_exposed).map(|line| line.mon_name.clone());
        if let Some(client) = exposed.filter(|_| lists) {
            self.violated(
                1,
                format!("{client} is registered, and neither in the store nor listed as at risk"),
            );
        }
        let late = self.waiting.values().find(|(_, asked)| self.now > asked + MON_TIMEOUT + 1).copied();
        if let Some((client, _)) = late {
            self.violated(1, format!("client {client} still waits for the answer to its SM_MON"));
        }
    }

    fn line(&self, client: usize) -> MonitorLine {
        MonitorLine::generated(name(client), self.name.clone())
    }
}

fn name(client: usize) -> MonName {
    MonName::from_address(client_address(client))
}
