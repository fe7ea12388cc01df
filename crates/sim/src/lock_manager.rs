//! One lock manager of a server, with its status monitor, as Linux has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use heirlock_agent::InstanceNumber;
use heirlock_core::ServerName;
use heirlock_core::grace::Remembered;
use heirlock_core::incarnation::Observation;
use heirlock_core::ledger::{Folder, Problem, Scan, ScannedFile};
use heirlock_core::taken_away::TakenAway;
use heirlock_nsm::record::{parse_record, render_record};
use heirlock_nsm::{MonName, MonitorLine, MyName, StateNumber};

use crate::Ms;
use crate::asking::Asking;
use crate::callout::Callouts;
use crate::conveying::Conveying;
use crate::outside::LastLook;
use crate::schedule::{Capture, LockManagerPlan, SERVERS_MAX};
use crate::status_monitor::StatusMonitor;
use crate::telling::Notification;

/// How long a grace period lasts.
pub(crate) const GRACE_MS: Ms = 12_000;

/// A file of a service.
pub(crate) type FileAt = (usize, u8);

/// Which lock manager: its server, and which of that one's lock managers it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockManagerAt {
    pub(crate) server: usize,
    pub(crate) number: InstanceNumber,
}

impl LockManagerAt {
    /// The first one of a server.
    pub(crate) const fn first(server: usize) -> Self {
        Self { server, number: InstanceNumber::FIRST }
    }

    pub(crate) const fn is_first(self) -> bool {
        self.number.place() == 0
    }

    /// The owner of its streams of draws: for the first one that is its server.
    pub(crate) const fn stream(self) -> usize {
        self.server + SERVERS_MAX * self.number.place()
    }
}

/// The key that tells one life of a lock manager from another, in truth: the lock manager, the boot of its server, its start in
/// that boot, and how often it was killed in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) of: LockManagerAt,
    pub(crate) boot: u32,
    pub(crate) start: u32,
    pub(crate) reopened: u32,
}

impl Life {
    /// Whether another life remembers the clients that this one has registered: a SIGKILL leaves that memory.
    pub(crate) fn shares_memory_with(self, other: Self) -> bool {
        Self { reopened: 0, ..self } == Self { reopened: 0, ..other }
    }
}

/// Folders of a status monitor.
pub(crate) type Files = BTreeMap<MonName, Vec<u8>>;

/// One lock manager.
pub(crate) struct LockManager {
    pub(crate) at: LockManagerAt,
    /// In the story: its server, and its number where it is not the first one.
    pub(crate) name: String,
    /// The node name under which its status monitor registers clients.
    pub(crate) node: ServerName,
    /// 6.12: lockd ignores SIGKILL, and an orderly stop of nfsd unmonitors all clients. Else 6.1.
    pub(crate) is_newer: bool,
    /// How its agent notices records, and what it does in mode `nsm` with clients that it can't make durable.
    pub(crate) capture: Capture,
    pub(crate) grants_unprotected: bool,
    /// The boot of its server.
    pub(crate) boot: u32,
    /// Its wait for the status monitor, where that waits for the agent.
    pub(crate) asking: Asking,
    /// heirlock as the status monitor, in mode `nsm`.
    pub(crate) status_monitor: StatusMonitor,
    /// rpc.statd's callouts, in mode `callout`.
    pub(crate) callouts: Callouts,
    /// lockd's start in this boot; `None` while it doesn't run.
    pub(crate) lockd: Option<u32>,
    starts: u32,
    reopened: u32,
    /// The texts by which `/proc` shows the boot and lockd's start. Looks are many, and these change seldom.
    boot_id: String,
    lockd_id: String,
    /// SIGKILL was sent and no request has woken lockd since: until then the files lie.
    pub(crate) kill_pends: bool,
    pub(crate) grace_until: Ms,
    /// When each of its lives, and with it a grace period, began.
    pub(crate) graces_began: Vec<Ms>,
    /// Until then nothing that can be seen tells this life from the one before. For the checker.
    pub(crate) unseen_until: Ms,
    pub(crate) lockd_started: Ms,
    /// When it was last stopped.
    pub(crate) stopped_at: Ms,
    pub(crate) locks: BTreeMap<FileAt, usize>,
    /// Clients that this life of lockd has registered with the status monitor.
    pub(crate) registered: BTreeSet<usize>,
    /// The number of each client that lockd was last told in this life, and that rpc.statd has heard since it was started.
    pub(crate) told: BTreeMap<usize, StateNumber>,
    pub(crate) heard: BTreeMap<usize, StateNumber>,
    pub(crate) sm: Files,
    pub(crate) sm_bak: Files,
    /// The clients that the status monitor remembers: it writes no file for them.
    pub(crate) remembered: BTreeSet<usize>,
    cookies: u64,
    /// NSM state number.
    pub(crate) state: u32,
    /// The conveyor's memory of placed files; on the server's own disk.
    pub(crate) book: Arc<Files>,
    /// The tasks of its conveyor, in order.
    pub(crate) conveying: VecDeque<Conveying>,
    /// The disk hangs that its conveyor writes to.
    pub(crate) conveyor_hangs_until: Ms,
    /// An agent's note on the grace period that it saw open; a boot takes it away.
    pub(crate) grace: Option<Remembered>,
    /// An agent's note on the registrations when it recognised; a boot takes it away.
    pub(crate) registrations: Option<String>,
    /// The agents' note on addresses that releases took away. It survives a boot.
    pub(crate) taken_away: TakenAway,
    /// Work on it is being done: no agent looks at it meanwhile.
    pub(crate) is_worked_on: bool,
    /// Something changed in the status monitor's directory since its agent last forgot hints.
    pub(crate) is_hinted: bool,
    /// The services whose clients are being told.
    pub(crate) tellings: Vec<Notification>,
    /// A look at the status monitor's directory hung, and what it missed may not be in the store until then. For the checker.
    pub(crate) blind_until: Ms,
    /// Its agent's last look at the status monitor's directory, beside its loop or in it.
    pub(crate) last_look: Option<LastLook>,
    /// A filer that its server mounts from. The first lock manager has it, whose status monitor is the server's own.
    pub(crate) peer: Option<MonName>,
}

impl LockManager {
    pub(crate) fn new(at: LockManagerAt, node: ServerName, is_newer: bool, plan: &LockManagerPlan) -> Self {
        let name = match at.is_first() {
            true => node.to_string(),
            false => format!("{node}:{}", at.number.place()),
        };
        Self {
            at,
            name,
            node,
            is_newer,
            capture: plan.capture,
            grants_unprotected: plan.grants_unprotected,
            boot: 0,
            asking: Asking::default(),
            status_monitor: StatusMonitor::default(),
            callouts: Callouts::default(),
            lockd: None,
            starts: 0,
            reopened: 0,
            boot_id: String::new(),
            lockd_id: String::new(),
            kill_pends: false,
            grace_until: 0,
            graces_began: Vec::new(),
            unseen_until: 0,
            lockd_started: 0,
            stopped_at: 0,
            locks: BTreeMap::new(),
            registered: BTreeSet::new(),
            told: BTreeMap::new(),
            heard: BTreeMap::new(),
            sm: Files::new(),
            sm_bak: Files::new(),
            remembered: BTreeSet::new(),
            cookies: 0,
            state: plan.state,
            book: Arc::default(),
            conveying: VecDeque::new(),
            conveyor_hangs_until: 0,
            grace: None,
            registrations: None,
            taken_away: TakenAway::default(),
            is_worked_on: false,
            is_hinted: false,
            tellings: Vec::new(),
            blind_until: 0,
            last_look: None,
            peer: at.is_first().then(|| MonName::from_address(peer_address(at.server))),
        }
    }

    /// The life that runs.
    pub(crate) fn life(&self) -> Life {
        Life { of: self.at, boot: self.boot, start: self.starts, reopened: self.reopened }
    }

    /// Its server boots.
    pub(crate) fn boots(&mut self, boot: u32, boot_id: &str, now: Ms) {
        (self.boot, self.boot_id, self.is_worked_on) = (boot, boot_id.to_owned(), false);
        (self.grace, self.registrations) = (None, None);
        self.start_lockd(now);
        self.start_status_monitor();
        // The status monitor of mode `nsm` is asked for it.
        if self.capture != Capture::Nsm
            && let (Some(peer), Ok(name)) = (self.peer.clone(), MyName::parse(self.node.as_str()))
        {
            let line = MonitorLine::generated(peer.clone(), name);
            self.sm.insert(peer, render_record(&[line]));
        }
    }

    /// All plans for its agent are dropped: another one begins.
    pub(crate) fn forget_agent(&mut self) {
        (self.is_hinted, self.last_look) = (false, None);
        self.tellings.clear();
        self.conveying.clear();
        self.conveyor_hangs_until = 0;
        self.status_monitor.dies();
    }

    /// Its server is off. A file that was being written is cut short, or not there at all.
    pub(crate) fn loses_power(&mut self) {
        self.lockd = None;
        self.asking.begin_anew();
        self.sm.retain(|_, bytes| !bytes.is_empty());
    }

    /// lockd begins another life, with new threads.
    pub(crate) fn start_lockd(&mut self, now: Ms) {
        self.starts += 1;
        self.lockd = Some(self.starts);
        self.lockd_started = now;
        self.open_grace(now);
        self.lockd_id = format!("{}@{now}", self.starts);
        (self.kill_pends, self.registered) = (false, BTreeSet::new());
        self.told.clear();
        self.asking.begin_anew();
    }

    fn open_grace(&mut self, now: Ms) {
        self.grace_until = now + GRACE_MS;
        self.graces_began.push(now);
    }

    /// Drops all locks, and answers which client held which.
    pub(crate) fn drop_locks(&mut self) -> Vec<(FileAt, usize)> {
        std::mem::take(&mut self.locks).into_iter().collect()
    }

    /// A request reaches lockd: a SIGKILL that was sent takes effect now.
    pub(crate) fn wake(&mut self, now: Ms) -> Vec<(FileAt, usize)> {
        if !std::mem::take(&mut self.kill_pends) {
            return Vec::new();
        }
        self.reopened += 1;
        self.open_grace(now);
        self.drop_locks()
    }

    /// Its server is on, and it runs.
    pub(crate) fn serves(&self) -> bool {
        self.lockd.is_some()
    }

    pub(crate) fn in_grace(&self, now: Ms) -> bool {
        self.serves() && now < self.grace_until
    }

    /// The result of a look at `/proc`.
    pub(crate) fn observe(&self, now: Ms) -> Observation {
        Observation {
            boot: self.boot_id.clone(),
            start: self.lockd.map(|_| self.lockd_id.clone()),
            in_grace: Some(self.in_grace(now) && !self.kill_pends),
            serving: self.lockd.is_some(),
        }
    }

    /// The status monitor creates a client's file; it is empty until [`LockManager::write_record`].
    pub(crate) fn create_record(&mut self, client: usize) {
        self.sm.entry(file_name(client)).or_default();
    }

    /// The status monitor has written the line of a registration: appended where the file exists.
    pub(crate) fn write_record(&mut self, client: usize) {
        let cookie = self.next_cookie();
        let mon_name = MonName::from_address(client_address(client));
        let Ok(my_name) = MyName::parse(self.node.as_str()) else { return };
        let line = MonitorLine { cookie, vers: 3, ..MonitorLine::generated(mon_name, my_name) };
        line.render(self.sm.entry(file_name(client)).or_default());
        self.remembered.insert(client);
    }

    /// The cookie of one registration more.
    pub(crate) fn next_cookie(&mut self) -> [u8; 16] {
        self.cookies += 1;
        let mut cookie = [0; 16];
        cookie[..8].copy_from_slice(&self.cookies.to_be_bytes());
        cookie[8] = u8::try_from(self.at.stream()).unwrap_or_default();
        cookie
    }

    /// The clients that its status monitor knows.
    pub(crate) fn monitored(&self) -> impl Iterator<Item = usize> {
        let is_ours = self.capture == Capture::Nsm;
        let by_us = is_ours.then(|| self.status_monitor.clients()).into_iter().flatten();
        self.remembered.iter().copied().filter(move |_| !is_ours).chain(by_us)
    }

    /// The files in the directory for a client, and whether they were placed. For the trace.
    pub(crate) fn files_of(&self, client: usize) -> String {
        let named = |name: &&MonName| {
            name.address() == Some(client_address(client)) || name.as_str() == format!("client{client}")
        };
        let show = |files: &Files| {
            let found = files.iter().filter(|(name, _)| named(name));
            found
                .map(|(name, bytes)| format!("{name}={}", String::from_utf8_lossy(bytes)))
                .collect::<String>()
        };
        format!(
            "remembered {} sm [{}] bak [{}] placed [{}]",
            self.remembered.contains(&client),
            show(&self.sm),
            show(&self.sm_bak),
            show(&self.book)
        )
    }

    /// Whether the status monitor's directory holds the client's own registration.
    pub(crate) fn has_record(&self, client: usize) -> bool {
        self.sm.get(&file_name(client)).is_some_and(|bytes| lines(bytes).iter().any(|line| self.is_own(line)))
    }

    /// SM_UNMON: the line of the registration goes.
    pub(crate) fn unmonitor(&mut self, client: usize) {
        if !self.remembered.remove(&client) {
            return;
        }
        self.callouts.forget(client);
        let name = file_name(client);
        let own = self.sm.get(&name).map(|bytes| lines(bytes)).unwrap_or_default();
        let own: Vec<MonitorLine> = own.into_iter().filter(|line| self.is_own(line)).collect();
        self.take_away(&name, &render_record(&own), 0);
    }

    /// The status monitor starts: it remembers the clients that its files name as its own.
    pub(crate) fn start_status_monitor(&mut self) {
        let own = self.sm.values().flat_map(|bytes| lines(bytes)).filter(|line| self.is_own(line));
        self.remembered = own.filter_map(|line| client_at(line.mon_name.address()?)).collect();
        self.heard.clear();
    }

    /// Something moves all files of the status monitor to `sm.bak`. The clients that lines in them are of.
    pub(crate) fn move_to_bak(&mut self) -> BTreeSet<usize> {
        let moved = std::mem::take(&mut self.sm);
        let all = moved.values().flat_map(|bytes| lines(bytes));
        let clients = all.filter_map(|line| client_at(line.mon_name.address()?)).collect();
        self.sm_bak.extend(moved);
        clients
    }

    fn is_own(&self, line: &MonitorLine) -> bool {
        line.my_name.as_str() == self.node.as_str() && line.vers == 3
    }

    /// The scan of the detector.
    pub(crate) fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        for (folder, files) in [(Folder::Sm, &self.sm), (Folder::SmBak, &self.sm_bak)] {
            for (name, bytes) in files {
                match parse_record(bytes) {
                    Ok(_) => {
                        scan.files.push(ScannedFile {
                            folder,
                            name: name.clone(),
                            bytes: bytes.as_slice().into(),
                        });
                    }
                    Err(error) => scan.problems.push(Problem {
                        path: format!("sm/{name}"),
                        why: error.to_string(),
                        may_be_in_the_making: true,
                    }),
                }
            }
        }
        scan
    }

    /// The conveyor adds lines to a file that may be the status monitor's.
    pub(crate) fn place(&mut self, client: &MonName, bytes: &[u8], now: Ms) {
        self.status_monitor.wrote(client, now);
        let there = self.sm.entry(client.clone()).or_default();
        if !holds(there, bytes) {
            there.extend(bytes);
        }
    }

    /// The conveyor takes its lines away again.
    pub(crate) fn take_away(&mut self, client: &MonName, bytes: &[u8], now: Ms) {
        self.status_monitor.wrote(client, now);
        let Some(there) = self.sm.get(client).and_then(|there| parse_record(there).ok()) else { return };
        let placed = lines(bytes);
        let kept: Vec<MonitorLine> = there.lines.into_iter().filter(|line| !placed.contains(line)).collect();
        match kept.is_empty() {
            true => drop(self.sm.remove(client)),
            false => drop(self.sm.insert(client.clone(), render_record(&kept))),
        }
    }
}

/// Whether all of these lines are there already.
pub(crate) fn holds(there: &[u8], wanted: &[u8]) -> bool {
    let there = lines(there);
    lines(wanted).iter().all(|line| there.contains(line))
}

fn lines(bytes: &[u8]) -> Vec<MonitorLine> {
    parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default()
}

/// A client's address.
pub(crate) fn client_address(client: usize) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, u8::try_from(client + 1).unwrap_or_default()).into()
}

/// The client that has an address.
pub(crate) fn client_at(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(v4) if v4.octets()[..3] == [10, 1, 0] => usize::from(v4.octets()[3]).checked_sub(1),
        _ => None,
    }
}

/// The address of the filer that a server mounts from.
pub(crate) fn peer_address(server: usize) -> IpAddr {
    Ipv4Addr::new(10, 3, 0, u8::try_from(server + 1).unwrap_or_default()).into()
}

/// As the resolver calls it: every second client has a name there.
fn file_name(client: usize) -> MonName {
    match client % 2 {
        0 => MonName::from_address(client_address(client)),
        _ => MonName::parse(&format!("client{client}"))
            .unwrap_or(MonName::from_address(client_address(client))),
    }
}
