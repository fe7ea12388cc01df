//! Tells the lock manager that a client, or a server that it has locks on, was restarted: the call that was registered
//! with SM_MON, to 127.0.0.1, from a privileged port (lockd takes it from no other). The machine decides when, and how
//! often, the lock manager is told.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use heirlock_core::limits;
use heirlock_core::log_limit::{Source, cut};
use heirlock_core::monitor::Called;
use heirlock_nsm::rpc::{Credential, encode_call};
use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm::Downcall;
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use super::shared::SharedMonitor;
use crate::from_elsewhere;
use crate::rpc_client::{self, Rpcbind};
use crate::threads;

/// How long one try waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a port that was found is believed in.
const PORT_AGE_MAX: Duration = Duration::from_secs(5);

/// The thread that calls.
pub(super) struct Caller(SyncSender<Call>);

/// A call to the lock manager.
pub(super) struct Call {
    /// the client that was restarted
    pub(super) client: MonName,
    /// its registrations
    pub(super) lines: Vec<MonitorLine>,
    /// its new number
    pub(super) state: StateNumber,
    /// how often it was tried in vain
    pub(super) tries: u32,
}

/// Calls, and remembers where to.
pub(super) struct Work {
    rpcbind_port: u16,
    places: HashMap<(u32, u32), (SocketAddr, Transport, Instant)>,
}

/// Begins to call. One thread: the lock manager takes one call at a time in any case.
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(monitor: SharedMonitor, rpcbind_port: u16) -> io::Result<Caller> {
    let (sender, calls) = sync_channel(limits::DOWNCALLS_AT_ONCE_MAX);
    let mut work = Work::new(rpcbind_port);
    threads::start("downcalls", move || run(&mut work, &monitor, &calls))?;
    Ok(Caller(sender))
}

fn run(work: &mut Work, monitor: &SharedMonitor, calls: &Receiver<Call>) {
    for call in calls {
        let how = work.call(&call);
        monitor.called(call.client, how);
    }
}

impl Caller {
    /// Hands a call over without waiting; `false` where too many wait already.
    pub(super) fn call(&self, call: Call) -> bool {
        self.0.try_send(call).is_ok()
    }
}

impl Work {
    pub(super) fn new(rpcbind_port: u16) -> Self {
        Self { rpcbind_port, places: HashMap::new() }
    }

    /// Tells the lock manager of a client, for each of its registrations.
    pub(super) fn call(&mut self, Call { client, lines, state, tries }: &Call) -> Called {
        let mut failed: Option<(Called, String)> = None;
        for line in lines {
            match self.call_line(line, *state) {
                Ok(true) => {}
                // A lock manager that took no call counts for more than one that is not there.
                Ok(false) => {
                    let why = format!("program {} version {} is not registered", line.prog, line.vers);
                    failed.get_or_insert((Called::Unregistered, why));
                }
                Err(why) => failed = Some((Called::Untaken, why)),
            }
        }
        let (client, source) = (cut(client.as_str()), Source::of(client.address()));
        let Some((how, why)) = failed else {
            if from_elsewhere::may_say("told of a restart", source) {
                tracing::info!(client, %state, "{client}: the lock manager was told that it was restarted, with state number {state}");
            }
            return Called::Taken;
        };
        // Said once, when the tries in quick succession are over.
        if tries + 1 == limits::DOWNCALL_TRIES && from_elsewhere::may_say("not told of a restart", source) {
            match how {
                Called::Unregistered => {
                    tracing::warn!(client, %state, why, "{client}: no lock manager was there to be told that it was restarted: {why}");
                }
                _ => tracing::error!(
                    client, %state, why,
                    "{client}: the lock manager could not be told that it was restarted, and keeps locks that no client holds; it is tried again: {why}"
                ),
            }
        }
        how
    }

    /// Calls; `false` where no lock manager is registered.
    fn call_line(&mut self, line: &MonitorLine, state: StateNumber) -> Result<bool, String> {
        let program = (line.prog, line.vers);
        let (place, transport) = match self.places.get(&program) {
            Some((place, transport, found)) if found.elapsed() < PORT_AGE_MAX => (*place, *transport),
            _ => {
                let Some((place, transport)) = self.find(program)? else { return Ok(false) };
                // Programs and versions come from this server's own lock manager; there are few.
                self.places.retain(|_, (_, _, found)| found.elapsed() < PORT_AGE_MAX);
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
        called.map(|_| true)
    }

    /// Where a program of this server is. Where rpcbind serves TCP alone, so does lockd.
    fn find(&self, program: (u32, u32)) -> Result<Option<(SocketAddr, Transport)>, String> {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut rpcbind = Rpcbind::new(here, self.rpcbind_port, PATIENCE);
        for transport in [Transport::Udp, Transport::Tcp] {
            if let Some(port) = rpcbind.port_of(program, transport)? {
                return Ok(Some((SocketAddr::new(here, port), transport)));
            }
        }
        Ok(None)
    }
}
