//! Tells the lock manager that a client, or a server that it has locks on, was restarted: the call that was registered
//! with SM_MON, to 127.0.0.1, from a privileged port (lockd takes it from no other).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Credential, encode_call};
use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm::Downcall;
use heirlock_nsm::{MonitorLine, StateNumber};

use super::desk::Desk;
use crate::rpc_client;

/// How often it is tried, as rpc.statd does (utils/statd/statd.h).
const TRIES: u32 = 5;

/// Between two tries.
const RETRY: Duration = Duration::from_secs(5);

/// How long one try waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a port that was found is believed in.
const PORT_AGE_MAX: Duration = Duration::from_secs(5);

/// The thread that calls.
pub(super) struct Caller(Sender<Call>);

struct Call {
    line: MonitorLine,
    state: StateNumber,
    tries: u32,
    due: Instant,
}

struct Work {
    desk: Desk,
    rpcbind_port: u16,
    places: HashMap<(u32, u32), (SocketAddr, Transport, Instant)>,
    later: VecDeque<Call>,
}

/// Begins to call. One thread: the lock manager takes one call at a time in any case.
pub(super) fn start(desk: Desk, rpcbind_port: u16) -> Caller {
    let (sender, calls) = channel();
    let mut work = Work { desk, rpcbind_port, places: HashMap::new(), later: VecDeque::new() };
    thread::spawn(move || work.run(&calls));
    Caller(sender)
}

impl Caller {
    /// Tells the lock manager of this client.
    pub(super) fn call(&self, line: MonitorLine, state: StateNumber) {
        // The other end ends only with the process.
        let _ = self.0.send(Call { line, state, tries: 0, due: Instant::now() });
    }
}

impl Work {
    fn run(&mut self, calls: &Receiver<Call>) {
        loop {
            // All wait equally long, so the first to be put off is the first that is due.
            let wait = self.later.front().map(|call| call.due.saturating_duration_since(Instant::now()));
            let next = match wait {
                Some(wait) => calls.recv_timeout(wait),
                None => calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let call = match next {
                Ok(call) => Some(call),
                Err(RecvTimeoutError::Timeout) => self.later.pop_front(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(call) = call {
                self.try_call(call);
            }
        }
    }

    fn try_call(&mut self, mut call: Call) {
        let (client, state) = (call.line.mon_name.clone(), call.state);
        call.tries += 1;
        match self.call(&call.line, state) {
            Ok(()) => {
                tracing::info!(%client, %state, "the lock manager was told of a restart");
                self.desk.called(client, state, true);
            }
            Err(why) if call.tries < TRIES => {
                tracing::debug!(%client, why, tries = call.tries, "the lock manager was not told; it is tried again");
                call.due = Instant::now() + RETRY;
                self.later.push_back(call);
            }
            Err(why) => {
                tracing::error!(%client, %state, why, "the lock manager could not be told of a restart: it keeps locks that nobody holds");
                self.desk.called(client, state, false);
            }
        }
    }

    fn call(&mut self, line: &MonitorLine, state: StateNumber) -> Result<(), String> {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let program = (line.prog, line.vers);
        let (place, transport) = match self.places.get(&program) {
            Some((place, transport, found)) if found.elapsed() < PORT_AGE_MAX => (*place, *transport),
            _ => {
                // Where rpcbind serves TCP alone, so does lockd.
                let (place, transport) = rpc_client::find(here, self.rpcbind_port, program, PATIENCE)?;
                self.places.insert(program, (place, transport, Instant::now()));
                (place, transport)
            }
        };
        let args = Downcall { mon_name: line.mon_name.as_str(), state, cookie: line.cookie }.encode();
        let message =
            encode_call(fastrand::u32(..), line.prog, line.vers, line.proc_, &Credential::None, &args);
        let called = rpc_client::call(place, transport, &message, PATIENCE);
        if called.is_err() {
            self.places.remove(&program);
        }
        called.map(drop)
    }
}
