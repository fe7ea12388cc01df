//! Members of an etcd of the tests' own. They end with their owner.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Names the etcd that the tests run, where it is another one than Debian's in the path.
const PROGRAM: &str = "HEIRLOCK_TEST_ETCD";

/// Long, for a machine that does much else; the awaited event ends the wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines of each member's log, the last first, that a failure shows.
const LOG_LINES: usize = 8;

/// How long a member's answer is waited for. One that has no leader says so after seven seconds.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// The program that [`PROGRAM`] names, and must be there then; else the one that is installed (Debian: etcd-server).
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os(PROGRAM).map(PathBuf::from) {
        assert!(named.is_absolute() && named.is_file(), "{PROGRAM}: expected a program, found {named:?}");
        return Some(named);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("etcd")).find(|program| program.is_file())
}

/// The files of secured members: the authority's certificate, and a certificate with its key that serves for all.
pub(crate) type Tls = [PathBuf; 3];

/// Makes something in a network namespace, named by its file.
pub(crate) fn within<T: Send>(namespace: &Path, make: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            let namespace = File::open(namespace).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            make()
        });
        made.join().unwrap()
    })
}

/// Where a member runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// For clients and other members.
    pub(crate) address: IpAddr,
    /// A network namespace that is not the test's own.
    pub(crate) namespace: Option<PathBuf>,
}

impl Place {
    fn bind(&self, address: IpAddr) -> TcpListener {
        let bind = || TcpListener::bind((address, 0)).unwrap();
        self.namespace.as_ref().map_or_else(bind, |namespace| within(namespace, bind))
    }
}

/// Members of one cluster.
pub(crate) struct Members {
    all: Vec<Member>,
    /// Removed after them.
    _folder: tempfile::TempDir,
}

struct Member {
    arguments: Vec<String>,
    namespace: Option<PathBuf>,
    log: PathBuf,
    url: String,
    /// For the tests' own questions, unsecured: on the loopback interface, or at its address where it has a namespace of its own.
    own: SocketAddr,
    child: Option<Child>,
    /// By a signal.
    is_stopped: bool,
    /// By the network: no question of the test gets there.
    is_cut_off: bool,
}

impl Members {
    /// One at each of these addresses; nothing where no etcd is installed, which is noted.
    pub(crate) fn start(addresses: &[IpAddr], tls: Option<&Tls>) -> Option<Self> {
        let place = |address: &IpAddr| Place { address: *address, namespace: None };
        Self::start_at(&addresses.iter().map(place).collect::<Vec<_>>(), tls, &[])
    }

    /// The same, where each of them may have a network namespace of its own; with these options besides.
    pub(crate) fn start_at(places: &[Place], tls: Option<&Tls>, options: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            crate::left_out::leave_out("etcd (Debian: etcd-server)");
            return None;
        };
        // The ports are free now, and another program may take one before etcd does.
        (0..5).find_map(|_| Self::try_start(&program, places, tls, options))
    }

    fn try_start(program: &Path, places: &[Place], tls: Option<&Tls>, options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<[TcpListener; 3]> = places
            .iter()
            .map(|place| {
                let is_reached = place.address.is_loopback() || place.namespace.is_some();
                let own = if is_reached { place.address } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
                [place.address, place.address, own].map(|address| place.bind(address))
            })
            .collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |port: &TcpListener| format!("{scheme}://{}", port.local_addr().unwrap());
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(at, [_, peer, _])| format!("m{at}={}", url(peer))).collect();
        let members = ports.iter().enumerate().map(|(at, [client, peer, own])| {
            let (client, peer, own) = (url(client), url(peer), own.local_addr().unwrap());
            let mut arguments: Vec<String> = [
                ("--name", format!("m{at}")),
                ("--data-dir", folder.path().join(format!("m{at}")).display().to_string()),
                ("--listen-client-urls", format!("{client},http://{own}")),
                ("--advertise-client-urls", client.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
            ]
            .into_iter()
            .flat_map(|(key, value)| [key.to_owned(), value])
            .collect();
            arguments.extend(tls.map(of_tls).unwrap_or_default());
            arguments.extend(options.iter().map(|option| (*option).to_owned()));
            let log = folder.path().join(format!("log-{at}"));
            let namespace = places[at].namespace.clone();
            Member {
                arguments,
                namespace,
                log,
                url: client,
                own,
                child: None,
                is_stopped: false,
                is_cut_off: false,
            }
        });
        let mut members = Self { all: members.collect(), _folder: folder };
        drop(ports);
        (0..places.len()).for_each(|member| members.start_member(program, member));
        members.is_up().then_some(members)
    }

    fn start_member(&mut self, program: &Path, member: usize) {
        let member = &mut self.all[member];
        let log = File::options().create(true).append(true).open(&member.log).unwrap();
        let mut command = match &member.namespace {
            Some(namespace) => {
                // It becomes the member: it has the same process.
                let mut command = Command::new("/usr/bin/nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(&member.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        (member.child, member.is_stopped) = (Some(child.unwrap()), false);
    }

    /// Begins a member again.
    pub(crate) fn restart(&mut self, member: usize) {
        let program = program().unwrap();
        self.start_member(&program, member);
    }

    /// Kills a member.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.all[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops a member where it is, or lets it go on.
    pub(crate) fn stop(&mut self, member: usize, is_stopped: bool) {
        let member = &mut self.all[member];
        let pid = member.child.as_ref().unwrap().id().to_string();
        let signal = if is_stopped { "STOP" } else { "CONT" };
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        member.is_stopped = is_stopped;
    }

    /// From now on the network keeps the test from a member, or does no more.
    pub(crate) fn note_cut_off(&mut self, member: usize, is_cut_off: bool) {
        self.all[member].is_cut_off = is_cut_off;
    }

    /// The process of a member that was not killed.
    pub(crate) fn pid(&self, member: usize) -> u32 {
        self.all[member].child.as_ref().unwrap().id()
    }

    /// Whether it was neither killed nor stopped nor cut off.
    pub(crate) fn runs(&self, member: usize) -> bool {
        let member = &self.all[member];
        member.child.is_some() && !member.is_stopped && !member.is_cut_off
    }

    /// Makes a member the leader.
    pub(crate) fn make_leader(&self, member: usize) {
        let began = Instant::now();
        loop {
            let leader = self.leader();
            if leader == member {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "member {member} does not lead: {}", self.logs());
            let status = post(self.own(member), "/v3/maintenance/status", "{}").unwrap_or_default();
            if let Some(id) = number(&status, "member_id") {
                let to = format!("{{\"targetID\":\"{id}\"}}");
                post(self.own(leader), "/v3/maintenance/transfer-leadership", &to);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The leader, as the members that run see it.
    pub(crate) fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            let statuses = (0..self.all.len()).filter(|member| self.runs(*member)).filter_map(|member| {
                let answer = post(self.own(member), "/v3/maintenance/status", "{}")?;
                Some((member, number(&answer, "member_id")?, number(&answer, "leader")?))
            });
            if let Some((member, ..)) = statuses.into_iter().find(|(_, own, leader)| own == leader) {
                return member;
            }
            assert!(began.elapsed() < PATIENCE, "no member leads: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all of them answer. Answers whether they did so before one of them ended.
    fn is_up(&mut self) -> bool {
        let began = Instant::now();
        loop {
            if (0..self.all.len()).all(|member| self.serves(member)) {
                return true;
            }
            let ended = self.all.iter_mut().filter_map(|member| member.child.as_mut());
            if ended.into_iter().any(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "no etcd came up: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it answers a question for which it needs the leader. With users switched on it says who may ask, and that needs the
    /// leader too.
    fn serves(&self, member: usize) -> bool {
        let answer = post(self.own(member), "/v3/kv/range", r#"{"key":"AA==","limit":"1"}"#);
        answer
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200") || answer.contains("user name is empty"))
    }

    /// Waits until a member answers by itself.
    pub(crate) fn wait_for(&self, member: usize) {
        let began = Instant::now();
        while !self.serves(member) {
            assert!(began.elapsed() < PATIENCE, "member {member} is away: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The first good answer of a member that runs.
    pub(crate) fn answer(&self, path: &str, body: &str) -> String {
        let began = Instant::now();
        loop {
            let running = (0..self.all.len()).filter(|member| self.runs(*member));
            let mut answers = running.filter_map(|member| post(self.own(member), path, body));
            if let Some(answer) = answers.find(|answer| answer.starts_with("HTTP/1.1 200")) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "no member answers: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let logs = self.all.iter().map(|member| fs::read_to_string(&member.log).unwrap_or_default());
        logs.flat_map(|log| {
            log.lines().rev().take(LOG_LINES).map(|line| format!("{line}\n")).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Their URLs for clients.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.all.iter().map(|member| member.url.clone()).collect()
    }

    /// Where a member answers the tests' own questions.
    pub(crate) fn own(&self, member: usize) -> SocketAddr {
        self.all[member].own
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.all {
            if let Some(child) = &mut member.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A number in an answer, as etcd spells those of 64 bits.
fn number(answer: &str, key: &str) -> Option<String> {
    let rest = answer.split_once(&format!("\"{key}\":\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

fn of_tls([ca, certificate, key]: &Tls) -> Vec<String> {
    let files = [
        ("--trusted-ca-file", ca),
        ("--cert-file", certificate),
        ("--key-file", key),
        ("--peer-trusted-ca-file", ca),
        ("--peer-cert-file", certificate),
        ("--peer-key-file", key),
    ];
    let files = files.into_iter().flat_map(|(option, file)| [option.to_owned(), file.display().to_string()]);
    files.chain(["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()]).collect()
}

/// The answer of a member, head and all, to a question that no store asks.
pub(crate) fn post(member: SocketAddr, path: &str, body: &str) -> Option<String> {
    let length = body.len();
    let question = format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}");
    Some(String::from_utf8_lossy(&ask(member, question.as_bytes())?).into_owned())
}

/// Asks a member, and reads its answer whole.
pub(crate) fn ask(member: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let mut upstream = TcpStream::connect(member).ok()?;
    upstream.set_nodelay(true).unwrap();
    upstream.set_read_timeout(Some(ANSWER_TIME)).unwrap();
    upstream.write_all(question).ok()?;
    read_message(&mut BufReader::new(upstream))
}

/// A question or an answer of HTTP, head and body.
pub(crate) fn read_message(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut message, mut length, mut is_chunked) = (Vec::new(), 0, false);
    loop {
        let start = message.len();
        if from.read_until(b'\n', &mut message).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&message[start..]).trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        is_chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
    }
    while is_chunked {
        let start = message.len();
        from.read_until(b'\n', &mut message).ok()?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&message[start..]).trim(), 16).ok()?;
        is_chunked = size > 0;
        if is_chunked {
            read_exactly(from, size + 2, &mut message)?;
        }
        // Lines may follow the last chunk, as they do where etcd refuses something.
        while !is_chunked && !message.ends_with(b"\r\n\r\n") {
            from.read_until(b'\n', &mut message).ok().filter(|read| *read > 0)?;
        }
    }
    read_exactly(from, length, &mut message)?;
    Some(message)
}

fn read_exactly(from: &mut impl Read, length: usize, message: &mut Vec<u8>) -> Option<()> {
    let start = message.len();
    message.resize(start + length, 0);
    from.read_exact(&mut message[start..]).ok()
}
