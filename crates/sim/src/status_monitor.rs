//! The status monitor of a server in mode `nsm`: heirlock's own. Its machine is a part of the agent's process, and dies with it;
//! the registrations that it was told outlive that process under /run, and its sockets do as well. Its files follow after its
//! answers, and are lost with the server as far as they were not synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heirlock_agent::News;
use heirlock_agent::status_monitor::Wanted;
use heirlock_core::monitor::{Action, Caller, Event, Monitor, Persist, Rules, Ticket, WhenUnprotected, key};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};

use crate::Ms;
use crate::chance::Purpose;
use crate::process::entered;
use crate::schedule::Capture;
use crate::server::{Files, Life, client_address, client_at};
use crate::settings::MON_TIMEOUT;
use crate::world::{Happening, World, millis};

/// The status monitor of a server, with all that it leaves to the next agent.
#[derive(Debug, Default)]
pub(crate) struct StatusMonitor {
    /// While an agent runs that begun it.
    runs: Option<Runs>,
    /// Under /run; nothing where no agent of this boot has begun it.
    book: Option<Book>,
    /// Requests in its sockets that are not read yet.
    requests: VecDeque<Request>,
    /// When each file of its directory was written.
    written: BTreeMap<MonName, Ms>,
    /// The files of its directory that are durable.
    synced: Files,
}

/// The part of it that lives in the agent's process.
#[derive(Debug)]
struct Runs {
    machine: Monitor,
    /// When that process was started: from then on it counts its time.
    started: Ms,
    /// Requests that were read and are not answered yet, and since when.
    open: BTreeMap<Ticket, (Request, Ms)>,
    tickets: u64,
    /// Its directory was read.
    is_read: bool,
    /// When it is told that time has passed.
    ticks_at: Option<Ms>,
}

/// The part of it that outlives a kill, and no boot.
#[derive(Debug, Default)]
struct Book {
    lines: Vec<MonitorLine>,
    owed: BTreeMap<MonName, StateNumber>,
    written: Ms,
}

/// A request of the lock manager.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// SM_MON, by a life of the lock manager: for a client, or for the filer that this server mounts from.
    Mon { client: Option<usize>, line: MonitorLine, life: Life },
    /// SM_UNMON.
    Unmon(MonitorLine),
}

impl StatusMonitor {
    /// The clients that are registered, as far as an agent runs that knows them.
    pub(crate) fn clients(&self) -> BTreeSet<usize> {
        let lines = self.runs.iter().flat_map(|runs| runs.machine.all_lines());
        lines.filter_map(|line| client_at(line.mon_name.address()?)).collect()
    }

    /// A program writes a file of its directory now.
    pub(crate) fn wrote(&mut self, file: &MonName, now: Ms) {
        self.written.insert(file.clone(), now);
    }

    /// The directory is durable as it is.
    pub(crate) fn synced(&mut self, sm: &Files) {
        self.synced.clone_from(sm);
    }

    /// Its agent's process is gone. Requests that it has read and not answered are repeated by the lock manager.
    pub(crate) fn dies(&mut self) {
        let Some(runs) = self.runs.take() else { return };
        for (request, _) in runs.open.into_values().rev() {
            self.requests.push_front(request);
        }
    }

    /// The server is off: what lies in memory is gone, sockets included.
    pub(crate) fn loses_power(&mut self) {
        (self.runs, self.book) = (None, None);
        self.requests.clear();
        self.written.clear();
    }
}

impl World {
    fn rules_of(&self, server: usize) -> Rules {
        let when_unprotected = match self.servers[server].grants_unprotected {
            true => WhenUnprotected::Grant,
            false => WhenUnprotected::Refuse,
        };
        Rules { mon_timeout: MON_TIMEOUT, when_unprotected }
    }

    /// An agent begins, and its status monitor with it. The clients whose files are to follow, where its directory was read: an
    /// earlier agent of this boot has left what it was told, and the directory is read afterwards.
    pub(crate) fn begin_monitoring(&mut self, server: usize) -> Option<BTreeSet<MonName>> {
        let (now, rules, agent) = (self.now, self.rules_of(server), self.servers[server].agent);
        let it = &mut self.servers[server].status_monitor;
        let resumes = it.book.is_some();
        let book = it.book.get_or_insert_default();
        let machine = Monitor::resumed(rules, book.lines.clone(), book.owed.clone());
        it.runs = Some(Runs {
            machine,
            started: now,
            open: BTreeMap::new(),
            tickets: 0,
            is_read: false,
            ticks_at: None,
        });
        let differing = (!resumes).then(|| self.read_directory(server));
        if resumes {
            let after = self.chance(Purpose::StatusMonitor, server).u64(5..400);
            self.after(after, Happening::DirectoryRead { server, agent });
        }
        self.after(1, Happening::MonitorReads { server, agent });
        differing
    }

    /// The thread that reads the directory at the start is done.
    pub(crate) fn directory_was_read(&mut self, server: usize, agent: u64) {
        if self.servers[server].agent == agent && self.servers[server].status_monitor.runs.is_some() {
            let differing = self.read_directory(server);
            self.tell_agent((server, agent), 1, News::DirectoryRead(Box::new(Ok(differing))));
        }
    }

    /// Makes the machine know what lies in the directory, and answers of which clients the files are to follow.
    fn read_directory(&mut self, server: usize) -> BTreeSet<MonName> {
        let booted = self.servers[server].booted_at;
        let it = &self.servers[server];
        let since = it.status_monitor.book.as_ref().map_or(0, |book| book.written);
        let conveyed = conveyed(&it.book);
        let (mut current, mut found) = (BTreeSet::new(), Vec::new());
        let mut there: BTreeMap<MonName, Vec<MonitorLine>> = BTreeMap::new();
        let mut misnamed = BTreeSet::new();
        for (file, bytes) in &it.sm {
            let at = it.status_monitor.written.get(file).copied().filter(|at| *at >= booted);
            for line in lines_in(bytes).into_iter().filter(|line| !conveyed.contains(line)) {
                let client = key(&line.mon_name);
                there.entry(client.clone()).or_default().push(line.clone());
                if *file != client {
                    misnamed.insert(client.clone());
                }
                if let Some(at) = at {
                    current.insert(client);
                    found.extend((at >= since).then_some(line));
                }
            }
        }
        let first = self.servers[server].status_monitor.runs.as_mut();
        if first.is_some_and(|runs| !std::mem::replace(&mut runs.is_read, true)) {
            self.monitor_hears(server, Event::Found(found));
        }
        let Some(runs) = &self.servers[server].status_monitor.runs else { return BTreeSet::new() };
        current.extend(runs.machine.all_lines().map(|line| key(&line.mon_name)));
        let differs = |client: &MonName| {
            let own = there.get(client).map(Vec::as_slice).unwrap_or_default();
            own != runs.machine.lines(client) || misnamed.contains(client)
        };
        current.into_iter().filter(differs).collect()
    }

    /// The lock manager registers a client, or the filer that its server mounts from.
    pub(crate) fn ask_status_monitor_for(&mut self, server: usize, client: Option<usize>) {
        let it = &mut self.servers[server];
        let Ok(my_name) = MyName::parse(it.name.as_str()) else { return };
        let mon_name = match client {
            Some(client) => MonName::from_address(client_address(client)),
            None => it.peer.clone(),
        };
        let line =
            MonitorLine { cookie: it.next_cookie(), vers: 3, ..MonitorLine::generated(mon_name, my_name) };
        let life = it.life();
        self.ask_status_monitor(server, Request::Mon { client, line, life });
    }

    /// The lock manager has a client unmonitored.
    pub(crate) fn ask_status_monitor_to_forget(&mut self, server: usize, client: usize) {
        let mon_name = MonName::from_address(client_address(client));
        let Ok(my_name) = MyName::parse(self.servers[server].name.as_str()) else { return };
        let line = MonitorLine { vers: 3, ..MonitorLine::generated(mon_name, my_name) };
        self.ask_status_monitor(server, Request::Unmon(line));
    }

    fn ask_status_monitor(&mut self, server: usize, request: Request) {
        let after = self.chance(Purpose::StatusMonitor, server).u64(1..4);
        let agent = self.servers[server].agent;
        self.servers[server].status_monitor.requests.push_back(request);
        self.after(after, Happening::MonitorReads { server, agent });
    }

    /// The status monitor's thread reads what lies in its sockets.
    pub(crate) fn monitor_reads(&mut self, server: usize, agent: u64) {
        while self.servers[server].agent == agent {
            let it = &mut self.servers[server];
            let memory = it.life();
            let Some(runs) = &mut it.status_monitor.runs else { return };
            let Some(request) = it.status_monitor.requests.pop_front() else { return };
            let event = match &request {
                // The lock manager that asked is gone.
                Request::Mon { life, .. } if (life.1, life.2) != (memory.1, memory.2) => continue,
                Request::Mon { client, line, .. } => {
                    runs.tickets += 1;
                    let ticket = Ticket(runs.tickets);
                    runs.open.insert(ticket, (request.clone(), self.now));
                    Event::Mon { ticket, line: line.clone(), peer: client.is_none() }
                }
                Request::Unmon(line) => {
                    let MonitorLine { mon_name, my_name, prog, vers, proc_, .. } = line.clone();
                    Event::Unmon { mon_name, caller: Caller { my_name, prog, vers, proc_ } }
                }
            };
            self.monitor_hears(server, event);
            if self.monitor_dies(server) {
                return;
            }
        }
    }

    /// Time has passed.
    pub(crate) fn monitor_ticks(&mut self, server: usize, agent: u64) {
        let now = self.now;
        let it = &mut self.servers[server];
        let Some(runs) = it.status_monitor.runs.as_mut().filter(|_| it.agent == agent) else { return };
        if runs.ticks_at.take_if(|at| *at <= now).is_some() {
            self.monitor_hears(server, Event::Tick);
            self.monitor_dies(server);
        }
    }

    /// A step of the status monitor's thread may be the last one of its process.
    fn monitor_dies(&mut self, server: usize) -> bool {
        let death = self.one_step(server);
        if let Some(death) = death {
            self.say(|| {
                format!("{}: its status monitor dies right here: {death:?}", self.servers[server].name)
            });
            self.died(server, death);
        }
        death.is_some()
    }

    /// An event for the machine. Changes that must survive a kill are written down, and then it acts; in the middle of its
    /// agent's turn once the store has done what it was asked for in that turn.
    pub(crate) fn monitor_hears(&mut self, server: usize, event: Event) {
        let (now, wait) = (self.now, self.delay_of(server));
        let agent = self.servers[server].agent;
        let it = &mut self.servers[server].status_monitor;
        let Some(runs) = &mut it.runs else { return };
        let moment = |at: Ms| Moment::of_process(Duration::from_millis(at - runs.started));
        let step = runs.machine.step(moment(now), event);
        let book = it.book.get_or_insert_default();
        for one in step.persist {
            book.written = now;
            match one {
                Persist::Keep(line) => {
                    book.lines.retain(|other| !is_same(other, &line));
                    book.lines.push(line);
                }
                Persist::Drop(line) => book.lines.retain(|other| *other != line),
                Persist::Owe(client, state) => drop(book.owed.insert(client, state)),
                Persist::Paid(client) => drop(book.owed.remove(&client)),
            }
        }
        let due = runs.machine.next_timeout().map(|due| now + millis(due.since(moment(now))).max(1));
        let is_news = due.is_some() && runs.ticks_at.is_none_or(|at| due < Some(at));
        if let Some(due) = due.filter(|_| is_news) {
            runs.ticks_at = Some(due);
            self.after(due - now, Happening::MonitorTicks { server, agent });
        }
        for action in step.then {
            if let Action::Answer { ticket, granted } = action {
                self.answer_registration((server, agent), ticket, granted, wait);
            } else {
                self.monitor_acts((server, agent), action, wait);
            }
        }
    }

    fn monitor_acts(&mut self, at: (usize, u64), action: Action, wait: Ms) {
        let wanted = match action {
            Action::Commit { batch, arrivals } => Wanted::Commit { batch, arrivals },
            Action::Probe => Wanted::Probe,
            Action::Changed(client) => Wanted::Changed(client),
            // No client is restarted in this world.
            _ => return,
        };
        let after = self.chance(Purpose::StatusMonitor, at.0).u64(1..3);
        self.tell_agent(at, wait + after, News::Monitor(wanted));
    }

    /// SM_MON is answered. I1: the client is durable, or it is at risk by the rules and listed as such; and it did not wait long.
    fn answer_registration(&mut self, at: (usize, u64), ticket: Ticket, granted: bool, wait: Ms) {
        let server = at.0;
        let Some(runs) = &mut self.servers[server].status_monitor.runs else { return };
        let Some((Request::Mon { client, line, life }, asked)) = runs.open.remove(&ticket) else { return };
        let at_risk = runs.machine.standing().at_risk.contains(&key(&line.mon_name));
        let us = self.servers[server].name.clone();
        self.say(|| format!("{us}: SM_MON of {} is answered: granted {granted}", line.mon_name));
        let was_stopped = self.servers[server].resumed_at >= asked;
        if self.now > asked + millis(MON_TIMEOUT) + 1 && !was_stopped {
            let took = self.now - asked;
            self.violated(
                1,
                format!("{} waited {took} ms for the answer to its SM_MON at {us}", line.mon_name),
            );
        }
        let Some(client) = client else {
            if !granted {
                self.violated(1, format!("{us} refuses its own server's SM_MON of {}", line.mon_name));
            }
            return;
        };
        let is_at_risk = self.servers[server].grants_unprotected && at_risk;
        let lacking = self.lacks_record(server, client).filter(|_| granted && !is_at_risk);
        if let Some(service) = lacking {
            let what = format!(
                "{us} grants the SM_MON of client {client}, and its record is not in the store, as a client of {service}"
            );
            self.violated(1, what);
        }
        if granted {
            self.checks.recorded_at.insert((server, client), self.now);
        }
        let acknowledged = granted && !is_at_risk;
        self.after(wait + 1, Happening::Registered { server, life, client, granted, acknowledged });
    }

    /// A service that this server holds, in whose generation a client is not on record. A service is held once the generation of
    /// its claim is begun.
    pub(crate) fn lacks_record(&self, server: usize, client: usize) -> Option<ServiceName> {
        let (us, key) = (&self.servers[server].name, &self.clients[client].key);
        let host = ServiceName::host(us);
        let lacks = |name: &&ServiceName| {
            let claim = self.store.newest_claim(name).filter(|claim| claim.owner == *us && !claim.released);
            let is_on_record = claim.and_then(|claim| {
                self.store.see(name, claim.generation, |contents| contents.records.contains_key(key))
            });
            is_on_record == Some(false)
        };
        let mut all = self.services.iter().map(|service| &service.name).chain([&host]);
        all.find(lacks).cloned()
    }

    /// Once a second. I1: no SM_MON waits longer than it may.
    pub(crate) fn check_waiting_registrations(&mut self) {
        for server in 0..self.servers.len() {
            let it = &self.servers[server];
            if self.is_stopped(server) {
                continue;
            }
            let since = |asked: Ms| asked.max(it.resumed_at) + millis(MON_TIMEOUT) + 1;
            let open = it.status_monitor.runs.iter().flat_map(|runs| runs.open.values());
            let late = open.filter(|(_, asked)| self.now > since(*asked)).map(|(request, _)| request).next();
            if let Some(Request::Mon { line, .. }) = late {
                let what =
                    format!("{} still waits for the answer to its SM_MON at {}", line.mon_name, it.name);
                return self.violated(1, what);
            }
        }
    }

    /// Makes the files of a client say what is registered. Lines that were conveyed stay.
    fn write_registrations(&mut self, server: usize, client: &MonName, lines: &[MonitorLine]) {
        let now = self.now;
        let it = &mut self.servers[server];
        let mut files: BTreeSet<MonName> = it
            .sm
            .iter()
            .filter(|(_, bytes)| lines_in(bytes).iter().any(|line| key(&line.mon_name) == *client))
            .map(|(file, _)| file.clone())
            .collect();
        files.insert(client.clone());
        for file in files {
            let there = it.sm.get(&file).map(|bytes| lines_in(bytes)).unwrap_or_default();
            let conveyed = it.book.get(&file).map(|bytes| lines_in(bytes)).unwrap_or_default();
            let stays = |line: &&MonitorLine| conveyed.contains(line) || key(&line.mon_name) != *client;
            let mut wanted: Vec<MonitorLine> = there.iter().filter(stays).cloned().collect();
            if file == *client {
                wanted.extend(lines.iter().cloned());
            }
            if wanted == there {
                continue;
            }
            match wanted.is_empty() {
                true => drop(it.sm.remove(&file)),
                false => drop(it.sm.insert(file.clone(), render_record(&wanted))),
            }
            it.status_monitor.wrote(&file, now);
        }
    }

    /// The server is off: of each file that was not synced, the disk has the older text or the newer one.
    pub(crate) fn lose_unsynced(&mut self, server: usize) {
        if self.servers[server].capture != Capture::Nsm {
            return;
        }
        let (synced, sm) =
            (self.servers[server].status_monitor.synced.clone(), self.servers[server].sm.clone());
        let names: BTreeSet<MonName> = synced.keys().chain(sm.keys()).cloned().collect();
        for name in names.into_iter().filter(|name| synced.get(name) != sm.get(name)) {
            if self.chance(Purpose::StatusMonitor, server).bool() {
                match synced.get(&name) {
                    Some(older) => drop(self.servers[server].sm.insert(name, older.clone())),
                    None => drop(self.servers[server].sm.remove(&name)),
                }
            }
        }
        let it = &mut self.servers[server];
        it.status_monitor.synced(&it.sm);
    }
}

/// The status monitor as its agent deals with it.
impl crate::outside::OutsideOf {
    pub(crate) fn tell_our_monitor(&self, event: Event) {
        if let Some(mut world) = self.alive() {
            world.monitor_hears(self.server, event);
        }
    }

    pub(crate) fn with_machine<T>(&self, otherwise: T, ask: impl FnOnce(&mut Monitor) -> T) -> T {
        let mut world = entered(&self.world);
        match &mut world.servers[self.server].status_monitor.runs {
            Some(runs) => ask(&mut runs.machine),
            None => otherwise,
        }
    }

    pub(crate) fn read_directory_now(&mut self) -> BTreeSet<MonName> {
        self.alive().map(|mut world| world.read_directory(self.server)).unwrap_or_default()
    }

    pub(crate) fn update_directory(&mut self, client: &MonName, lines: &[MonitorLine]) -> Result<(), String> {
        let Some(mut world) = self.step() else { return Ok(()) };
        let runs = &world.servers[self.server].status_monitor.runs;
        if runs.as_ref().is_some_and(|runs| !runs.is_read) {
            return Err("the status monitor's directory was not read yet".to_owned());
        }
        world.write_registrations(self.server, client, lines);
        Ok(())
    }
}

fn lines_in(bytes: &[u8]) -> Vec<MonitorLine> {
    parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default()
}

fn conveyed(placed: &Arc<Files>) -> Vec<MonitorLine> {
    placed.values().flat_map(|bytes| lines_in(bytes)).collect()
}

/// The same registration, whatever its cookie.
fn is_same(a: &MonitorLine, b: &MonitorLine) -> bool {
    (&a.mon_name, &a.my_name, a.prog, a.vers, a.proc_) == (&b.mon_name, &b.my_name, b.prog, b.vers, b.proc_)
}
