//! heirlock as the status monitor: program 100024 version 1, in place of rpc.statd (`capture.mode = "nsm"`).
//!
//! `heirlock_core::monitor` decides the answers; here are its sockets, and the registrations that must outlive a kill. One
//! thread reads requests and sends answers; work that takes its time (a commit, a call to the lock manager, a look-up) is
//! done elsewhere and reported back over the [`SharedMonitor`].
//!
//! | file | holds |
//! |---|---|
//! | `sockets.rs` | sockets: bound, or inherited from systemd or from `heirlock supervise` |
//! | `request.rs` | from bytes to what is asked, or straight to an answer |
//! | `server.rs`, `stream.rs`, `datagram.rs` | the thread that reads and answers |
//! | `shared.rs`, `book.rs` | the machine, and the registrations that survive a kill |
//! | `directory.rs` | the same in the status monitor's directory, for all other programs |
//! | `downcall.rs`, `look_up.rs` | telling the lock manager; asking for a name |
//! | `registration.rs` | rpcbind knows where we are, always |

mod book;
mod datagram;
pub(crate) mod directory;
mod downcall;
mod look_up;
mod registration;
mod request;
mod server;
mod shared;
pub(crate) mod sockets;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use heirlock_core::monitor::{Called, Rules, key};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use book::Said;
use directory::Directory;
pub(crate) use heirlock_agent::status_monitor::Wanted;
pub(crate) use request::Trust;
pub(crate) use shared::SharedMonitor;
use sockets::Sockets;

use crate::convey::Conveyor;
use crate::files::{self, Folder, Links};
use crate::host::{Host, Peers};
use crate::limits::STATE_FILE_BYTES_MAX;
use crate::watchdog::Turns;

/// Where things are, and how it decides.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How the machine decides.
    pub(crate) rules: Rules,
    /// Holds `sm` and `state`.
    pub(crate) state_directory: PathBuf,
    /// Holds what survives a kill, and means nothing after a reboot.
    pub(crate) runtime_directory: PathBuf,
    /// The host whose lock manager asks.
    pub(crate) host: Host,
    /// Where rpcbind is on this server.
    pub(crate) rpcbind_port: u16,
    /// rpcbind's local socket.
    pub(crate) rpcbind_socket: PathBuf,
    /// The senders that are taken for this server's own lock manager.
    pub(crate) trust: Trust,
}

/// This server's number, as every answer carries it.
#[derive(Debug, Clone)]
pub(crate) struct OwnState(Arc<AtomicU32>);

impl OwnState {
    /// Reads it, and makes one where there is none, as rpc.statd does at its start (support/nsm/file.c): 3, and an even
    /// one becomes odd.
    pub(crate) fn open(state_directory: &Path) -> Result<Self> {
        let path = state_directory.join("state");
        let folder = Folder::open(state_directory)
            .with_context(|| format!("can't open {}", state_directory.display()))?;
        // A number that can't be read is not one that was never sent.
        let found = files::if_present(read_state(&folder)).with_context(|| {
            format!("can't read {}, which holds this server's last state number", path.display())
        })?;
        let found = match found.map(|bytes| StateNumber::parse_file(&bytes)) {
            None | Some(Err(StateError::Empty)) => None,
            Some(Ok(number)) => Some(number),
            Some(Err(error)) => bail!(
                "{}: {error}; write the number of this server's last life there, or remove it: then its clients are told under 3",
                path.display()
            ),
        };
        let number = match found {
            Some(number) if number.is_odd() => number,
            Some(even) => even.next_odd(),
            None => StateNumber::after_restart(None),
        };
        if found != Some(number) {
            folder
                .replace_as_it_is("state", &number.render_file(), 0o644)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(Self(Arc::new(AtomicU32::new(number.0))))
    }

    /// The present number.
    pub(crate) fn get(&self) -> StateNumber {
        StateNumber(self.0.load(Ordering::Relaxed))
    }

    /// It is this one by now, as the file says.
    pub(crate) fn is_now(&self, number: StateNumber) {
        self.0.store(number.0, Ordering::Relaxed);
    }
}

/// The file `state` of a status monitor's directory.
///
/// # Errors
/// Where there is none, or it is something else.
pub(crate) fn read_state(state_directory: &Folder) -> std::io::Result<Vec<u8>> {
    state_directory.read("state", Links::One, STATE_FILE_BYTES_MAX)
}

/// Begins to be the status monitor of a lock manager that has these peers. Its caller sees to it that the number which it answers
/// with stays true. `prepare` is called before the first question is answered: where no earlier run of this
/// boot has left a book, it tells the machine the records in the status monitor's directory.
///
/// # Errors
/// Where another status monitor runs, or a file or socket that it needs can't be opened.
pub(crate) fn start(
    options: &Options,
    peers: Peers,
    sockets: Sockets,
    prepare: impl FnOnce(&SharedMonitor) -> Result<()>,
    turns: Turns,
    wanted: impl Fn(Wanted) + Send + 'static,
) -> Result<(SharedMonitor, OwnState)> {
    registration::refuse_a_second_one(options, sockets.port())?;
    let places = sockets.transports();
    let (monitor, state) = serve(options, peers, sockets, prepare, turns, wanted)?;
    registration::start(options.clone(), places)?;
    Ok((monitor, state))
}

/// Makes the status monitor's directory say all that the last agent of this boot was told, durably, so that rpc.statd begins
/// where it ended. The agent must have ended, and its book goes: from now on another program is the status monitor.
///
/// # Errors
/// Where the directory or the book can't be read or written; it may be repeated.
pub(crate) fn hand_back(
    host: &Host,
    state_directory: &Path,
    runtime_directory: &Path,
    local_directory: &Path,
    rpcbind_port: u16,
) -> std::io::Result<Vec<(MonName, String)>> {
    let Some(Said { lines, owed }) = book::take_up(host, runtime_directory)? else { return Ok(Vec::new()) };
    host.within("enter", || tell_what_is_owed(&lines, owed, rpcbind_port))??;
    let (mut directory, _) = Directory::open(host, state_directory)?;
    let conveyed = Conveyor::open(state_directory, local_directory)?;
    let mut clients: BTreeMap<MonName, Vec<MonitorLine>> = BTreeMap::new();
    for line in lines {
        clients.entry(key(&line.mon_name)).or_default().push(line);
    }
    // A client that is there and not among them stays: to be told once too often costs nothing.
    let mut left = Vec::new();
    for (client, lines) in &clients {
        if let Err(error) = directory.update(client, lines, &conveyed.placed()) {
            left.push((client.clone(), error.to_string()));
        }
    }
    directory.sync_all()?;
    book::close(runtime_directory)?;
    Ok(left)
}

/// rpc.statd would not know that these clients were restarted: a client does not say it twice.
fn tell_what_is_owed(
    lines: &[MonitorLine],
    owed: BTreeMap<MonName, StateNumber>,
    rpcbind_port: u16,
) -> std::io::Result<()> {
    let mut work = downcall::Work::new(rpcbind_port);
    for (client, state) in owed {
        let lines = lines.iter().filter(|line| key(&line.mon_name) == client).cloned().collect();
        let call = downcall::Call { client, lines, state, tries: 0 };
        if work.call(&call) == Called::Untaken {
            let what = format!("the lock manager did not take the call that {} was restarted", call.client);
            return Err(std::io::Error::other(what));
        }
    }
    Ok(())
}

/// The same for callers that know where we are, as tests do.
fn serve(
    options: &Options,
    peers: Peers,
    sockets: Sockets,
    prepare: impl FnOnce(&SharedMonitor) -> Result<()>,
    turns: Turns,
    wanted: impl Fn(Wanted) + Send + 'static,
) -> Result<(SharedMonitor, OwnState)> {
    let state = OwnState::open(&options.state_directory)?;
    let monitor = SharedMonitor::open(&options.host, &options.runtime_directory, options.rules)
        .with_context(|| format!("can't keep registrations in {}", options.runtime_directory.display()))?;
    prepare(&monitor)?;
    let caller =
        downcall::start(monitor.clone(), options.rpcbind_port).context("can't begin to call lockd")?;
    let room =
        server::Room { peers, monitor: monitor.clone(), state: state.clone(), caller, trust: options.trust };
    server::start(sockets, room, turns, wanted).context("can't serve as status monitor")?;
    Ok((monitor, state))
}
