//! For tests: an etcd of their own on the loopback interface, and a proxy before it that loses what a test wants lost.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::EtcdStore;
use super::client::Purpose;
use super::wire::{Op, Span, Txn};
use crate::config::EtcdSettings;
use members::{Members, Tls, ask, read_message};

/// Certificates, which integration tests use too.
#[path = "../../../tests/etcd/certificates.rs"]
pub(crate) mod certificates;
/// The members, which integration tests start too.
#[path = "../../../tests/etcd/members.rs"]
#[expect(dead_code, reason = "tests with agents use the rest")]
pub(crate) mod members;

/// A cluster, and stores in it.
pub(crate) struct Etcd {
    members: Members,
    security: Security,
}

/// How members and clients know each other.
#[derive(Default)]
struct Security {
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    user: Option<(String, PathBuf)>,
}

impl Deref for Etcd {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.members
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Members {
        &mut self.members
    }
}

impl Etcd {
    /// So many members; nothing where no etcd is installed, which is noted.
    pub(crate) fn start(members: usize) -> Option<Self> {
        Self::start_secured(members, None)
    }

    /// The same over TLS, with these files.
    pub(crate) fn start_secured(members: usize, tls: Option<&Tls>) -> Option<Self> {
        let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST); members];
        let security = Security {
            ca: tls.map(|[ca, ..]| ca.clone()),
            certificate: tls.map(|[_, certificate, key]| (certificate.clone(), key.clone())),
            user: None,
        };
        Some(Self { members: Members::start(&addresses, tls)?, security })
    }

    /// From now on its stores name a user.
    pub(crate) fn set_user(&mut self, name: &str, password_file: PathBuf) {
        self.security.user = Some((name.to_owned(), password_file));
    }

    /// The settings of a store below this prefix.
    pub(crate) fn settings(&self, prefix: &str) -> EtcdSettings {
        EtcdSettings {
            endpoints: self.urls(),
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
        self.urls()[member].split_once("://").unwrap().1.parse().unwrap()
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
