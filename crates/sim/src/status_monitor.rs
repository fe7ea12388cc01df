//! The status monitor of a lock manager in mode `nsm`: heirlock's own. Its machine is a part of the agent's process, and dies with it;
//! the registrations that it was told outlive that process under /run, and its sockets do as well. Its files follow after its
//! answers, and are lost with the server as far as they were not synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heirlock_agent::News;
use heirlock_agent::status_monitor::Wanted;
use heirlock_core::claim::Claim;
use heirlock_core::monitor::{Action, Caller, Event, Monitor, Persist, Rules, Ticket, WhenUnprotected, key};
use heirlock_core::takeover::Phase;
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};

use crate::Ms;
use crate::announcing::Announcement;
use crate::chance::Purpose;
use crate::happening::Happening;
use crate::lock_manager::{Files, Life, LockManagerAt, client_address, client_at};
use crate::process::entered;
use crate::schedule::Capture;
use crate::settings::MON_TIMEOUT;
use crate::work::AgentAt;
use crate::world::{World, millis};

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
    /// Announcements that were read and are not answered yet. Where the process dies first, their senders send them again.
    announced: BTreeMap<Ticket, Announcement>,
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

/// A request of the lock manager, or of a host that was restarted.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// SM_MON, by a life of the lock manager: for a client, or for the filer that this server mounts from.
    Mon { client: Option<usize>, line: MonitorLine, life: Life },
    /// SM_UNMON.
    Unmon(MonitorLine),
    /// SM_NOTIFY, from elsewhere.
    Notified(Announcement),
}

impl StatusMonitor {
    /// The clients that are registered, as far as an agent runs that knows them.
    pub(crate) fn clients(&self) -> impl Iterator<Item = usize> {
        let lines = self.runs.iter().flat_map(|runs| runs.machine.all_lines());
        lines.filter_map(|line| client_at(line.mon_name.address()?))
    }

    /// A program writes a file of its directory now.
    pub(crate) fn wrote(&mut self, file: &MonName, now: Ms) {
        self.written.insert(file.clone(), now);
    }

    /// An announcement is dealt with, and to be answered by its sender's place in the world.
    pub(crate) fn takes_announcement(&mut self, ticket: Ticket) -> Option<Announcement> {
        self.runs.as_mut()?.announced.remove(&ticket)
    }

    /// Whether it runs, in an agent's process.
    pub(crate) fn runs(&self) -> bool {
        self.runs.is_some()
    }

    /// The directory is durable as it is.
    pub(crate) fn synced(&mut self, sm: &Files) {
        self.synced.clone_from(sm);
    }

    /// One file is durable as it is, or is gone for good.
    pub(crate) fn synced_file(&mut self, file: &MonName, bytes: Option<&Vec<u8>>) {
        match bytes {
            Some(bytes) => drop(self.synced.insert(file.clone(), bytes.clone())),
            None => drop(self.synced.remove(file)),
        }
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
    fn rules_of(&self, of: LockManagerAt) -> Rules {
        let when_unprotected = match self.servers[of].grants_unprotected {
            true => WhenUnprotected::Grant,
            false => WhenUnprotected::Refuse,
        };
        Rules { mon_timeout: MON_TIMEOUT, when_unprotected }
    }

    /// An agent begins, and its status monitor with it. The clients whose files are to follow, where its directory was read: an
    /// earlier agent of this boot has left what it was told, and the directory is read afterwards.
    pub(crate) fn begin_monitoring(&mut self, of: LockManagerAt) -> Option<BTreeSet<MonName>> {
        let (now, rules, agent) = (self.now, self.rules_of(of), self.servers[of.server].agent);
        let it = &mut self.servers[of].status_monitor;
        let resumes = it.book.is_some();
        let book = it.book.get_or_insert_default();
        let machine = Monitor::resumed(rules, book.lines.clone(), book.owed.clone());
        it.runs = Some(Runs {
            machine,
            started: now,
            open: BTreeMap::new(),
            announced: BTreeMap::new(),
            tickets: 0,
            is_read: false,
            ticks_at: None,
        });
        let differing = (!resumes).then(|| self.read_directory(of));
        if resumes {
            let after = self.chance(Purpose::StatusMonitor, of.stream()).u64(5..400);
            let hangs = self.directory_hangs_for(of).map_or(0, |hung| hung.ms);
            self.after(after + hangs, Happening::DirectoryRead { of, agent });
        }
        self.after(1, Happening::MonitorReads { of, agent });
        differing
    }

    /// The thread that reads the directory at the start is done.
    pub(crate) fn directory_was_read(&mut self, (of, agent): AgentAt) {
        if self.servers[of.server].agent == agent && self.servers[of].status_monitor.runs.is_some() {
            let differing = self.read_directory(of);
            self.tell_agent((of, agent), 1, News::DirectoryRead(Box::new(Ok(differing))));
        }
    }

    /// Makes the machine know what lies in the directory, and answers of which clients the files are to follow.
    fn read_directory(&mut self, of: LockManagerAt) -> BTreeSet<MonName> {
        let booted = self.servers[of.server].booted_at;
        let it = &self.servers[of];
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
        let first = self.servers[of].status_monitor.runs.as_mut();
        if first.is_some_and(|runs| !std::mem::replace(&mut runs.is_read, true)) {
            self.monitor_hears(of, Event::Found(found));
        }
        let Some(runs) = &self.servers[of].status_monitor.runs else { return BTreeSet::new() };
        current.extend(runs.machine.all_lines().map(|line| key(&line.mon_name)));
        let differs = |client: &MonName| {
            let own = there.get(client).map(Vec::as_slice).unwrap_or_default();
            own != runs.machine.lines(client) || misnamed.contains(client)
        };
        current.into_iter().filter(differs).collect()
    }

    /// The lock manager registers a client, or the filer that its server mounts from.
    pub(crate) fn ask_status_monitor_for(&mut self, of: LockManagerAt, client: Option<usize>) {
        let it = &mut self.servers[of];
        let Ok(my_name) = MyName::parse(it.node.as_str()) else { return };
        let mon_name = match client {
            Some(client) => MonName::from_address(client_address(client)),
            None => match it.peer.clone() {
                Some(peer) => peer,
                None => return,
            },
        };
        let line =
            MonitorLine { cookie: it.next_cookie(), vers: 3, ..MonitorLine::generated(mon_name, my_name) };
        let life = it.life();
        self.ask_status_monitor(of, Request::Mon { client, line, life });
    }

    /// The lock manager has a client unmonitored.
    pub(crate) fn ask_status_monitor_to_forget(&mut self, of: LockManagerAt, client: usize) {
        let mon_name = MonName::from_address(client_address(client));
        let Ok(my_name) = MyName::parse(self.servers[of].node.as_str()) else { return };
        let line = MonitorLine { vers: 3, ..MonitorLine::generated(mon_name, my_name) };
        self.ask_status_monitor(of, Request::Unmon(line));
    }

    pub(crate) fn ask_status_monitor(&mut self, of: LockManagerAt, request: Request) {
        let after = self.chance(Purpose::StatusMonitor, of.stream()).u64(1..4);
        let agent = self.servers[of.server].agent;
        self.servers[of].status_monitor.requests.push_back(request);
        self.after(after, Happening::MonitorReads { of, agent });
    }

    /// The status monitor's thread reads what lies in its sockets.
    pub(crate) fn monitor_reads(&mut self, (of, agent): AgentAt) {
        while self.servers[of.server].agent == agent {
            let it = &mut self.servers[of];
            let memory = it.life();
            let Some(runs) = &mut it.status_monitor.runs else { return };
            let Some(request) = it.status_monitor.requests.pop_front() else { return };
            let event = match &request {
                // The lock manager that asked is gone.
                Request::Mon { life, .. } if !life.shares_memory_with(memory) => continue,
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
                Request::Notified(announcement) => {
                    runs.tickets += 1;
                    let ticket = Ticket(runs.tickets);
                    runs.announced.insert(ticket, announcement.clone());
                    let Announcement { name, source, state, .. } = announcement.clone();
                    Event::Notified { ticket, name, source, state }
                }
            };
            self.monitor_hears(of, event);
            if self.monitor_dies(of) {
                return;
            }
        }
    }

    /// Time has passed.
    pub(crate) fn monitor_ticks(&mut self, (of, agent): AgentAt) {
        let (now, is_there) = (self.now, self.servers[of.server].agent == agent);
        let it = &mut self.servers[of];
        let Some(runs) = it.status_monitor.runs.as_mut().filter(|_| is_there) else { return };
        if runs.ticks_at.take_if(|at| *at <= now).is_some() {
            self.monitor_hears(of, Event::Tick);
            self.monitor_dies(of);
        }
    }

    /// A step of the status monitor's thread may be the last one of its process.
    pub(crate) fn monitor_dies(&mut self, of: LockManagerAt) -> bool {
        let death = self.one_step(of.server);
        if let Some(death) = death {
            self.say(|| format!("{}: its status monitor dies right here: {death:?}", self.servers[of].name));
            self.died(of.server, death);
        }
        death.is_some()
    }

    /// An event for the machine. Changes that must survive a kill are written down, and then it acts; in the middle of its
    /// agent's turn once the store has done what it was asked for in that turn.
    pub(crate) fn monitor_hears(&mut self, of: LockManagerAt, event: Event) {
        let (now, wait) = (self.now, self.delay_of(of.server));
        let agent = self.servers[of.server].agent;
        let it = &mut self.servers[of].status_monitor;
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
            self.after(due - now, Happening::MonitorTicks { of, agent });
        }
        for action in step.then {
            if let Action::Answer { ticket, granted } = action {
                self.answer_registration((of, agent), ticket, granted, wait);
            } else {
                self.monitor_acts((of, agent), action, wait);
            }
        }
    }

    fn monitor_acts(&mut self, at: AgentAt, action: Action, wait: Ms) {
        let wanted = match action {
            Action::Commit { batch, arrivals } => Wanted::Commit { batch, arrivals },
            Action::Probe => Wanted::Probe,
            Action::Changed(client) => Wanted::Changed(client),
            other => return self.monitor_acts_on_announcements(at, other, wait),
        };
        let after = self.chance(Purpose::StatusMonitor, at.0.stream()).u64(1..3);
        self.tell_agent(at, wait + after, News::Monitor(wanted));
    }

    /// SM_MON is answered. I1: the client is durable, or it is at risk by the rules and listed as such; and it did not wait long.
    fn answer_registration(&mut self, at: AgentAt, ticket: Ticket, granted: bool, wait: Ms) {
        let of = at.0;
        let Some(runs) = &mut self.servers[of].status_monitor.runs else { return };
        let Some((Request::Mon { client, line, life }, asked)) = runs.open.remove(&ticket) else { return };
        let at_risk = runs.machine.standing().at_risk.contains(&key(&line.mon_name));
        let us = self.servers[of].name.clone();
        self.say(|| format!("{us}: SM_MON of {} is answered: granted {granted}", line.mon_name));
        let was_stopped = self.servers[of.server].resumed_at >= asked;
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
        let is_at_risk = self.servers[of].grants_unprotected && at_risk;
        let lacking = self.lacks_record(of, client).filter(|_| granted && !is_at_risk);
        if let Some(service) = lacking {
            let what = format!(
                "{us} grants the SM_MON of client {client}, and its record is not in the store, as a client of {service}"
            );
            self.violated(1, what);
        }
        if granted {
            self.checks.recorded_at.insert((of, client), self.now);
        }
        // Of a commit that failed a part may be in the store: a client that is listed as at risk is promised nothing.
        let acknowledged = granted && !at_risk && self.holds_a_service(of);
        self.after(wait + 1, Happening::Registered { life, client, granted, acknowledged });
    }

    /// A service of this lock manager that its server holds, in whose generation a client is not on record. A service is held once
    /// the generation of its claim is begun.
    pub(crate) fn lacks_record(&self, of: LockManagerAt, client: usize) -> Option<ServiceName> {
        let key = &self.clients[client].key;
        let lacks = |name: &ServiceName, claim: &Claim| {
            let there = self.store.see(name, claim.generation, |contents| {
                let phase = contents.journal.as_ref().map(|journal| journal.phase);
                (contents.records.contains_key(key), phase == Some(Phase::Claimed))
            });
            // A service that was claimed a moment ago, and whose address is elsewhere: no client has a lock here by it. The agent may
            // not know yet that its generation was begun, for the store said that the call had failed.
            let is_away = self.service(name).is_some_and(|service| self.serving(service) != Some(of));
            there.is_some_and(|(is_there, is_claimed)| !(is_there || (is_claimed && is_away)))
        };
        self.held_by(of).find(|(name, claim)| lacks(name, claim)).map(|(name, _)| name)
    }

    /// Whether a client is on record as one of a service.
    pub(crate) fn is_client_of(&self, client: usize, service: &ServiceName) -> bool {
        let key = &self.clients[client].key;
        self.store.see_newest(service, |contents| contents.records.contains_key(key)) == Some(true)
    }

    /// Whether a lock manager has a service that its server holds. One whose services have all been claimed by other servers, which
    /// its agent learns a moment later, promises nothing.
    pub(crate) fn holds_a_service(&self, of: LockManagerAt) -> bool {
        self.held_by(of).next().is_some()
    }

    /// The services of a lock manager that its server holds, as the store says. The first one has that of the server itself.
    fn held_by(&self, of: LockManagerAt) -> impl Iterator<Item = (ServiceName, Arc<Claim>)> {
        let server = &self.servers[of.server].name;
        let its = self.services.iter().filter(move |service| service.lock_manager_on(of.server) == of);
        let host = of.is_first().then(|| ServiceName::host(server));
        let all = its.map(|service| service.name.clone()).chain(host);
        all.filter_map(move |name| {
            let claim = self.store.newest_claim(&name)?;
            (claim.owner == *server && !claim.released).then_some((name, claim))
        })
    }

    /// Once a second. I1: no SM_MON waits longer than it may.
    pub(crate) fn check_waiting_registrations(&mut self) {
        for of in self.servers.lock_managers() {
            let (it, resumed_at) = (&self.servers[of], self.servers[of.server].resumed_at);
            if self.is_stopped(of.server) {
                continue;
            }
            let since = |asked: Ms| asked.max(resumed_at) + millis(MON_TIMEOUT) + 1;
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
    fn write_registrations(&mut self, of: LockManagerAt, client: &MonName, lines: &[MonitorLine]) {
        let now = self.now;
        let it = &mut self.servers[of];
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
    pub(crate) fn lose_unsynced(&mut self, of: LockManagerAt) {
        if self.servers[of].capture != Capture::Nsm {
            return;
        }
        let (synced, sm) = (self.servers[of].status_monitor.synced.clone(), self.servers[of].sm.clone());
        let names: BTreeSet<MonName> = synced.keys().chain(sm.keys()).cloned().collect();
        for name in names.into_iter().filter(|name| synced.get(name) != sm.get(name)) {
            if self.chance(Purpose::StatusMonitor, of.stream()).bool() {
                match synced.get(&name) {
                    Some(older) => drop(self.servers[of].sm.insert(name, older.clone())),
                    None => drop(self.servers[of].sm.remove(&name)),
                }
            }
        }
        let it = &mut self.servers[of];
        it.status_monitor.synced(&it.sm);
    }
}

/// The status monitor as its agent deals with it.
impl crate::outside::InstanceOf {
    pub(crate) fn tell_our_monitor(&self, event: Event) {
        if let Some(mut world) = self.alive() {
            world.monitor_hears(self.of, event);
        }
    }

    pub(crate) fn with_machine<T>(&self, otherwise: T, ask: impl FnOnce(&mut Monitor) -> T) -> T {
        let mut world = entered(&self.world);
        match &mut world.servers[self.of].status_monitor.runs {
            Some(runs) => ask(&mut runs.machine),
            None => otherwise,
        }
    }

    pub(crate) fn read_directory_now(&mut self) -> BTreeSet<MonName> {
        self.alive().map(|mut world| world.read_directory(self.of)).unwrap_or_default()
    }

    pub(crate) fn update_directory(&mut self, client: &MonName, lines: &[MonitorLine]) -> Result<(), String> {
        let Some(mut world) = self.step() else { return Ok(()) };
        let runs = &world.servers[self.of].status_monitor.runs;
        if runs.as_ref().is_some_and(|runs| !runs.is_read) {
            return Err("the status monitor's directory was not read yet".to_owned());
        }
        world.write_registrations(self.of, client, lines);
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
