//! Calls over TCP, to clients whose rpcbind knows their status monitor over nothing else: a connection for each call, none
//! of which anybody waits for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use heirlock_core::Moment;
use heirlock_core::limits::NOTIFY_CONNECTION_TIME_MAX;
use heirlock_core::notify::{Notifier, Transmit, Transport};
use heirlock_nsm::rpc::{Deframer, frame};
use rustix::event::{PollFd, PollFlags};

use super::Task;
use crate::rpc_client::begin_tcp;

/// Connections that are open; the machine in the core says how many at most.
pub(super) struct Streams {
    from: Vec<IpAddr>,
    privileged: bool,
    open: Vec<Stream>,
}

struct Stream {
    socket: TcpStream,
    xid: u32,
    to: SocketAddr,
    unsent: Vec<u8>,
    answer: Deframer,
    ends: Moment,
}

impl Streams {
    pub(super) fn new(task: &Task) -> Self {
        Self { from: task.from.clone(), privileged: task.settings.privileged_port, open: Vec::new() }
    }

    /// Begins a call.
    pub(super) fn open(&mut self, transmit: &Transmit, notifier: &mut Notifier, now: Moment) {
        let from = self.from.iter().copied().find(|a| a.is_ipv4() == transmit.to.is_ipv4());
        match begin_tcp(from, transmit.to, self.privileged) {
            Ok(socket) => self.open.push(Stream {
                socket,
                xid: transmit.xid,
                to: transmit.to,
                unsent: frame(&transmit.payload),
                answer: Deframer::new(),
                ends: now + NOTIFY_CONNECTION_TIME_MAX,
            }),
            Err(error) => notifier.handle_failure(transmit.xid, in_words(transmit.to, &error)),
        }
    }

    /// What is waited for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.open.iter().map(|stream| {
            let wanted = if stream.unsent.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            PollFd::new(&stream.socket, wanted)
        })
    }

    /// Sends and takes in what can be now; ends what takes too long.
    pub(super) fn go_on(&mut self, notifier: &mut Notifier, now: Moment) {
        self.open.retain_mut(|stream| match stream.go_on() {
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
        });
    }
}

impl Stream {
    fn go_on(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 2048];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answer.push(&buffer[..count]),
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(record) = self.answer.next_record().map_err(io::Error::other)? {
                return Ok(Some(record));
            }
        }
    }
}

/// Nothing is wrong, it only isn't there yet.
fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}

fn in_words(to: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{to} does not answer over TCP"),
        io::ErrorKind::UnexpectedEof => format!("{to} closed the connection without an answer"),
        _ => format!("no connection to {to}: {error}"),
    }
}
