//! For tests: an etcd of their own on the loopback interface, and a proxy before it that loses what a test wants lost.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::EtcdStore;
use super::client::Purpose;
use super::wire::{Op, Span, Txn};
use crate::config::EtcdSettings;

/// Lines of each member's log, the last first, that a failure shows.
const LOG_LINES: usize = 8;

/// The program, where it is installed (Debian: etcd-server).
pub(crate) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("etcd")).find(|program| program.is_file())
}

/// Members of one cluster, which end with it.
pub(crate) struct Etcd {
    members: Vec<Member>,
    /// Removed after them.
    _folder: tempfile::TempDir,
    security: Security,
}

struct Member {
    arguments: Vec<String>,
    log: PathBuf,
    url: String,
    child: Option<Child>,
}

/// How members and clients know each other.
#[derive(Default)]
struct Security {
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    user: Option<(String, PathBuf)>,
}

impl Etcd {
    /// So many members; nothing where no etcd is installed, which is noted.
    pub(crate) fn start(members: usize) -> Option<Self> {
        Self::start_secured(members, None)
    }

    /// The same over TLS, with these files: the authority's certificate, and a certificate with its key that serves for all.
    pub(crate) fn start_secured(members: usize, tls: Option<&[PathBuf; 3]>) -> Option<Self> {
        let Some(program) = program() else {
            crate::left_out::leave_out("etcd (Debian: etcd-server)");
            return None;
        };
        // The ports are free now, and another program may take one before etcd does.
        (0..5).find_map(|_| Self::try_start(&program, members, tls))
    }

    fn try_start(program: &Path, count: usize, tls: Option<&[PathBuf; 3]>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = |at: usize| format!("{scheme}://{}", ports[at].local_addr().unwrap());
        let name = |member: usize| format!("m{member}");
        let cluster: Vec<String> =
            (0..count).map(|member| format!("{}={}", name(member), url(2 * member + 1))).collect();
        let members = (0..count).map(|member| {
            let (client, peer) = (url(2 * member), url(2 * member + 1));
            let data = folder.path().join(name(member)).display().to_string();
            let mut arguments: Vec<String> = [
                ("--name", name(member)),
                ("--data-dir", data),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", cluster.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
            ]
            .into_iter()
            .flat_map(|(key, value)| [key.to_owned(), value])
            .collect();
            if let Some([ca, certificate, key]) = tls {
                let [ca, certificate, key] = [ca, certificate, key].map(|path| path.display().to_string());
                for (option, value) in [
                    ("--trusted-ca-file", &ca),
                    ("--cert-file", &certificate),
                    ("--key-file", &key),
                    ("--peer-trusted-ca-file", &ca),
                    ("--peer-cert-file", &certificate),
                    ("--peer-key-file", &key),
                ] {
                    arguments.extend([option.to_owned(), value.clone()]);
                }
                arguments.extend(["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()]);
            }
            let log = folder.path().join(format!("log-{member}"));
            Member { arguments, log, url: client, child: None }
        });
        let members = members.collect();
        drop(ports);
        let security = Security {
            ca: tls.map(|[ca, ..]| ca.clone()),
            certificate: tls.map(|[_, certificate, key]| (certificate.clone(), key.clone())),
            user: None,
        };
        let mut etcd = Self { members, _folder: folder, security };
        (0..count).for_each(|member| etcd.start_member(program, member));
        etcd.is_up().then_some(etcd)
    }

    fn start_member(&mut self, program: &Path, member: usize) {
        let member = &mut self.members[member];
        let log = File::options().create(true).append(true).open(&member.log).unwrap();
        let child = Command::new(program)
            .args(&member.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        member.child = Some(child.unwrap());
    }

    /// Begins a member again.
    pub(crate) fn restart(&mut self, member: usize) {
        let program = program().unwrap();
        self.start_member(&program, member);
    }

    /// Kills a member.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until it takes a write. Answers whether it did so before one of its members ended.
    fn is_up(&mut self) -> bool {
        let store = self.store("/up/");
        let began = Instant::now();
        loop {
            if crate::store::StoreOnHost::set_up(&store).is_ok() {
                return true;
            }
            let ended = self.members.iter_mut().filter_map(|member| member.child.as_mut());
            if ended.into_iter().any(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "no etcd came up: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a member answers for this prefix by itself.
    pub(crate) fn wait_for(&self, prefix: &str, member: usize) {
        let settings = self.settings(prefix);
        let alone = EtcdSettings { endpoints: vec![self.members[member].url.clone()], ..settings };
        let began = Instant::now();
        while crate::store::Store::found(&EtcdStore::at(&alone)).is_err_and(|error| error.may_pass()) {
            assert!(began.elapsed() < Duration::from_secs(120), "member {member} is away: {}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let logs = self.members.iter().map(|member| std::fs::read_to_string(&member.log).unwrap_or_default());
        logs.flat_map(|log| {
            log.lines().rev().take(LOG_LINES).map(|line| format!("{line}\n")).collect::<Vec<_>>()
        })
        .collect()
    }

    /// From now on its stores name a user.
    pub(crate) fn set_user(&mut self, name: &str, password_file: PathBuf) {
        self.security.user = Some((name.to_owned(), password_file));
    }

    /// The settings of a store below this prefix.
    pub(crate) fn settings(&self, prefix: &str) -> EtcdSettings {
        EtcdSettings {
            endpoints: self.members.iter().map(|member| member.url.clone()).collect(),
            prefix: prefix.to_owned(),
            ca: self.security.ca.clone(),
            certificate: self.security.certificate.clone(),
            user: self.security.user.clone(),
            // Tests judge by order: on a loaded machine nothing fails because it takes its time.
            connect_time: Duration::from_secs(20),
            answer_time: Duration::from_secs(20),
        }
    }

    /// Removes all that is kept.
    pub(crate) fn clear(&self) {
        let store = self.store("/");
        let all = Op::Delete(Span::between("/", "0"));
        store.client.txn(&Txn { then: vec![all], ..Txn::default() }, Purpose::Call).unwrap();
    }

    /// A store below this prefix, which need not be there yet.
    pub(crate) fn store(&self, prefix: &str) -> EtcdStore {
        EtcdStore::at(&self.settings(prefix))
    }

    /// The address of a member for clients.
    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        self.members[member].url.split_once("://").unwrap().1.parse().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is asked and answered.
    Passes,
    /// It is not asked: the connection ends.
    NeverAsked,
    /// It is asked, and its answer is lost: the connection ends.
    Swallowed,
    /// It is asked, and half of its answer comes.
    Cut,
    /// It is asked after the next three were answered, and its caller has given it up by then.
    Late,
}

/// A question as a plan sees it.
pub(crate) struct Asked {
    /// How many came, with it, since the plan was made.
    pub(crate) number: usize,
    /// The same one came before.
    pub(crate) is_repeated: bool,
}

/// Says what becomes of a question.
pub(crate) type Plan = Box<dyn FnMut(&Asked) -> Fate + Send>;

/// The plan, and the questions since it was made.
struct Planned {
    plan: Plan,
    number: usize,
    seen: HashSet<Vec<u8>>,
}

impl Planned {
    fn new(plan: Plan) -> Self {
        Self { plan, number: 0, seen: HashSet::new() }
    }
}

/// How many answers come before a question that is late.
const LATE_AFTER: usize = 3;

/// A proxy before one member.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    planned: Mutex<Planned>,
    /// Questions that are asked later, and how many answers are still to come before each.
    late: Mutex<Vec<(usize, Vec<u8>)>>,
}

impl Proxy {
    /// One that lets all pass.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let planned = Mutex::new(Planned::new(Box::new(|_| Fate::Passes)));
        let state = Arc::new(State { upstream, planned, late: Mutex::default() });
        let serving = Arc::clone(&state);
        // It ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                thread::spawn(move || serve(&client, &serving));
            }
        });
        Self { address, state }
    }

    /// From now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Asked) -> Fate + Send + 'static) {
        *self.state.planned.lock().unwrap() = Planned::new(Box::new(plan));
    }

    /// How many questions came since the plan was made.
    pub(crate) fn asked(&self) -> usize {
        self.state.planned.lock().unwrap().number
    }

    /// Its own URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(client: &TcpStream, state: &State) -> Option<()> {
    client.set_nodelay(true).unwrap();
    let mut from_client = BufReader::new(client.try_clone().unwrap());
    loop {
        let question = read_message(&mut from_client)?;
        let fate = {
            let mut planned = state.planned.lock().unwrap();
            planned.number += 1;
            let (number, is_repeated) = (planned.number, !planned.seen.insert(question.clone()));
            (planned.plan)(&Asked { number, is_repeated })
        };
        let half = |answer: &[u8]| answer[..answer.len() / 2].to_vec();
        match fate {
            Fate::NeverAsked => return None,
            Fate::Late => {
                state.late.lock().unwrap().push((LATE_AFTER, question));
                return None;
            }
            Fate::Swallowed => return ask(state.upstream, &question).map(drop).and(None),
            Fate::Cut => {
                let answer = ask(state.upstream, &question)?;
                let _ = (&mut &*client).write_all(&half(&answer));
                return None;
            }
            Fate::Passes => {
                let answer = ask(state.upstream, &question)?;
                let mut late = state.late.lock().unwrap();
                late.iter_mut().for_each(|(after, _)| *after -= 1);
                late.extract_if(.., |(after, _)| *after == 0)
                    .for_each(|(_, late)| drop(ask(state.upstream, &late)));
                drop(late);
                (&mut &*client).write_all(&answer).ok()?;
            }
        }
    }
}

/// The answer of a member, head and all, to a question that no store asks.
pub(crate) fn post(member: SocketAddr, path: &str, body: &str) -> String {
    let length = body.len();
    let question = format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}");
    String::from_utf8(ask(member, question.as_bytes()).unwrap()).unwrap()
}

fn ask(member: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let mut upstream = TcpStream::connect(member).ok()?;
    upstream.set_nodelay(true).unwrap();
    upstream.write_all(question).ok()?;
    read_message(&mut BufReader::new(upstream))
}

/// A question or an answer of HTTP, head and body.
fn read_message(from: &mut impl BufRead) -> Option<Vec<u8>> {
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
