//! Calls over TCP, to clients that are heard over nothing else: a connection for each call, without waiting for any of them.

use std::io;
use std::net::SocketAddr;

use heirlock_core::Moment;
use heirlock_core::limits::NOTIFY_CONNECTIONS_MAX;
use heirlock_core::notify::{Notifier, Transmit, Transport};
use rustix::event::PollFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;
use crate::rpc_client::{Connection, begin_tcp};

/// Connections that are open; the machine in the core says how many at most.
pub(super) struct Streams {
    privileged: bool,
    open: Vec<Stream>,
}

struct Stream {
    connection: Connection,
    xid: u32,
    to: SocketAddr,
    ends: Moment,
    /// Something can be sent or taken in.
    is_ready: bool,
}

/// How many connections this process can have for one notifier. Its bound of descriptors is raised where it is low and
/// may be: systemd's is 1,024 for all that the agent has open.
pub(super) fn connections_max() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(limits::NOTIFY_DESCRIPTORS, |most| most.min(limits::NOTIFY_DESCRIPTORS));
    let mut allowed = current;
    if current.is_some_and(|now| now < wanted)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok()
    {
        allowed = Some(wanted);
    }
    match allowed.is_none_or(|now| now >= limits::NOTIFY_DESCRIPTORS / 4) {
        true => NOTIFY_CONNECTIONS_MAX,
        false => limits::NOTIFY_CONNECTIONS_FEW,
    }
}

impl Streams {
    pub(super) fn new(privileged: bool) -> Self {
        Self { privileged, open: Vec::new() }
    }

    /// Begins a call.
    pub(super) fn open(&mut self, transmit: &Transmit, notifier: &mut Notifier, now: Moment) {
        match begin_tcp(Some(transmit.from), transmit.to, self.privileged) {
            Ok(socket) => self.open.push(Stream {
                connection: Connection::new(socket, &transmit.payload),
                xid: transmit.xid,
                to: transmit.to,
                ends: now + transmit.time_max,
                is_ready: false,
            }),
            Err(error) => notifier.handle_failure(transmit.xid, in_words(transmit.to, &error)),
        }
    }

    /// The events that are waited for, in the order that [`Streams::are_ready`] is told of.
    pub(super) fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.open.iter().map(|stream| stream.connection.awaited())
    }

    /// The connections that can go on.
    pub(super) fn are_ready(&mut self, ready: impl Iterator<Item = bool>) {
        for (stream, is_ready) in self.open.iter_mut().zip(ready) {
            stream.is_ready = is_ready;
        }
    }

    /// Sends and takes in what can be now; ends calls that take too long, and calls that are no longer waited for.
    pub(super) fn go_on(&mut self, notifier: &mut Notifier, now: Moment) {
        self.open.retain_mut(|stream| {
            if !notifier.is_awaited(stream.xid) {
                return false;
            }
            let went =
                if std::mem::take(&mut stream.is_ready) { stream.connection.go_on() } else { Ok(None) };
            match went {
                Ok(Some(answer)) => {
                    notifier.handle_reply(now, Transport::Tcp, stream.to, &answer);
                    false
                }
                Ok(None) if now < stream.ends => true,
                Ok(None) => {
                    notifier.handle_failure(stream.xid, in_words(stream.to, &io::ErrorKind::TimedOut.into()));
                    false
                }
                Err(error) => {
                    notifier.handle_failure(stream.xid, in_words(stream.to, &error));
                    false
                }
            }
        });
    }
}

fn in_words(to: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{to} does not answer"),
        io::ErrorKind::UnexpectedEof => format!("{to} closed the connection without an answer"),
        _ => format!("no connection to {to}: {error}"),
    }
}
