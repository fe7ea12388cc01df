//! Connections: how lockd and Ganesha ask. Each is bounded in what it may send and how long it may be silent, and there
//! is always room for this server's own lock manager.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_nsm::rpc::{Deframer, frame};

/// Connections from this server itself.
const LOCAL_MAX: usize = 256;

/// Connections from elsewhere: SM_NOTIFY comes over UDP as a rule.
const REMOTE_MAX: usize = 64;

/// After so long a silence a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections that are accepted before others get their turn.
const ACCEPTED_AT_ONCE: usize = 64;

/// One connection's name. None is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(u64);

struct Connection {
    stream: TcpStream,
    from: SocketAddr,
    deframer: Deframer,
    heard: Moment,
}

/// All connections.
#[derive(Default)]
pub(super) struct Streams {
    connections: BTreeMap<StreamId, Connection>,
    next: u64,
}

impl Streams {
    /// Takes new connections in.
    pub(super) fn accept(&mut self, listener: &TcpListener, now: Moment) {
        for _ in 0..ACCEPTED_AT_ONCE {
            match listener.accept() {
                Ok((stream, from)) => self.take_in(stream, from, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Whoever gave up meanwhile; or too many files, which time may mend.
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    return;
                }
            }
        }
    }

    /// Which ones to look at.
    pub(super) fn all(&self) -> impl Iterator<Item = (StreamId, BorrowedFd<'_>)> {
        self.connections.iter().map(|(id, connection)| (*id, connection.stream.as_fd()))
    }

    /// Reads what is there, and closes what has ended or talks nonsense.
    pub(super) fn read(&mut self, id: StreamId, now: Moment, request: impl FnMut(&[u8], SocketAddr)) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.heard = now;
        if !connection.read(request) {
            self.connections.remove(&id);
        }
    }

    /// Answers; whoever has gone asks again.
    pub(super) fn answer(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // An answer is some dozens of bytes: where they find no room, nobody reads them.
        if connection.stream.write_all(&frame(bytes)).is_err() {
            self.connections.remove(&id);
        }
    }

    /// Closes those that have been silent for too long.
    pub(super) fn tidy(&mut self, now: Moment) {
        self.connections.retain(|_, connection| now.since(connection.heard) < IDLE_MAX);
    }

    fn take_in(&mut self, stream: TcpStream, from: SocketAddr, now: Moment) {
        let local = from.ip().is_loopback();
        let alike = || self.connections.iter().filter(|(_, c)| c.from.ip().is_loopback() == local);
        if alike().count() >= if local { LOCAL_MAX } else { REMOTE_MAX } {
            // The longest silent one makes room: it has had its answer, or will never ask.
            let oldest = alike().min_by_key(|(_, c)| c.heard).map(|(id, _)| *id);
            oldest.map(|id| self.connections.remove(&id));
        }
        if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
            return;
        }
        self.next += 1;
        let connection = Connection { stream, from, deframer: Deframer::new(), heard: now };
        self.connections.insert(StreamId(self.next), connection);
    }
}

impl Connection {
    /// `false` where it is over.
    fn read(&mut self, mut request: impl FnMut(&[u8], SocketAddr)) -> bool {
        let mut buffer = [0; 16 * 1024];
        let open = match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.deframer.push(&buffer[..count]);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        loop {
            match self.deframer.next_record() {
                Ok(Some(message)) => request(&message, self.from),
                Ok(None) => return open,
                Err(_) => return false,
            }
        }
    }
}
