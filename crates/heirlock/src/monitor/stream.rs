//! Connections: how lockd and Ganesha ask. Each is bounded in what it may send, in what is done for it at a time, and in
//! how long it may be silent; there is always room for this server's own lock manager, and no other server takes the
//! room of all others.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::log_limit::Source;
use heirlock_nsm::rpc::{Deframer, frame};

use super::request::Trust;
use crate::from_elsewhere;

/// Connections of this server's own lock manager.
const OWN_MAX: usize = 256;

/// Connections of all others: SM_NOTIFY comes over UDP as a rule.
const REMOTE_MAX: usize = 64;

/// Connections of others from one address.
const REMOTE_FROM_ONE_MAX: usize = 8;

/// After so long a silence a connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Connections that are accepted before others get their turn.
const ACCEPTED_AT_ONCE: usize = 32;

/// Requests of one connection of the lock manager that are taken before others get their turn. Of any other it is one.
const OWN_REQUESTS_AT_ONCE: usize = 16;

/// Bytes that are read from a connection at a time.
const BYTES_AT_ONCE: usize = 4096;

/// How long no connection is taken in after there was no room for one. Without a pause the thread would spend all its time on
/// the same failure.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// One connection's name. None is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(u64);

struct Connection {
    stream: TcpStream,
    from: SocketAddr,
    /// It is the lock manager's.
    is_own: bool,
    deframer: Deframer,
    heard: Moment,
    /// It may hold whole requests that are not taken yet.
    has_more: bool,
}

/// All connections.
pub(super) struct Streams {
    connections: BTreeMap<StreamId, Connection>,
    next: u64,
    trust: Trust,
    /// There was no room for one more; until then none is taken in.
    full_until: Moment,
}

impl Streams {
    pub(super) fn new(trust: Trust) -> Self {
        Self { connections: BTreeMap::new(), next: 0, trust, full_until: Moment::START }
    }

    /// Whether there is no connection.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// How long no connection is taken in, where there was no room for one.
    pub(super) fn full_for(&self, now: Moment) -> Option<Duration> {
        Some(self.full_until.since(now)).filter(|left| !left.is_zero())
    }

    /// Takes new connections in, and says which of them are the lock manager's: it asks as soon as it is connected.
    pub(super) fn accept(&mut self, listener: &TcpListener, now: Moment) -> Vec<StreamId> {
        let mut own = Vec::new();
        for _ in 0..ACCEPTED_AT_ONCE {
            match listener.accept() {
                Ok((stream, from)) => own.extend(self.take_in(stream, from, now)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The host gave up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // There are too many open files, say, which time may mend.
                Err(error) => {
                    if from_elsewhere::may_say("no connection taken in", Source::Unknown) {
                        tracing::error!(%error, "no connection can be taken in by the status monitor for now: {error}");
                    }
                    self.full_until = now + FULL_PAUSE;
                    break;
                }
            }
        }
        own
    }

    /// The connections to look at, and whether each is the lock manager's.
    pub(super) fn all(&self) -> impl Iterator<Item = (StreamId, bool, BorrowedFd<'_>)> {
        self.connections.iter().map(|(id, connection)| (*id, connection.is_own, connection.stream.as_fd()))
    }

    /// Streams that hold requests which their last turn left.
    pub(super) fn with_more(&self) -> impl Iterator<Item = (StreamId, bool)> {
        let with_more = self.connections.iter().filter(|(_, connection)| connection.has_more);
        with_more.map(|(id, connection)| (*id, connection.is_own))
    }

    /// Takes some of the requests that are there, and closes connections that have ended or talk nonsense.
    pub(super) fn read(&mut self, id: StreamId, now: Moment, request: impl FnMut(&[u8], SocketAddr)) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.heard = now;
        if !connection.read(request) {
            self.close(id);
        }
    }

    /// Answers; a host that has gone asks again.
    pub(super) fn answer(&mut self, id: StreamId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // An answer is some dozens of bytes: where they find no room, the host does not read them.
        if connection.stream.write_all(&frame(bytes)).is_err() {
            self.close(id);
        }
    }

    /// Ends one.
    pub(super) fn close(&mut self, id: StreamId) {
        self.connections.remove(&id);
    }

    /// Closes those that have been silent for too long.
    pub(super) fn tidy(&mut self, now: Moment) {
        self.connections.retain(|_, connection| now.since(connection.heard) < IDLE_MAX);
    }

    /// The new one, where it is the lock manager's.
    fn take_in(&mut self, stream: TcpStream, from: SocketAddr, now: Moment) -> Option<StreamId> {
        let is_own = self.trust.check(from).is_ok();
        if is_own {
            self.make_room(OWN_MAX, |other| other.is_own);
        } else {
            let source = Source::from(from.ip());
            self.make_room(REMOTE_FROM_ONE_MAX, |other| {
                !other.is_own && Source::from(other.from.ip()) == source
            });
            self.make_room(REMOTE_MAX, |other| !other.is_own);
        }
        if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
            return None;
        }
        self.next += 1;
        let deframer = Deframer::new();
        let connection = Connection { stream, from, is_own, deframer, heard: now, has_more: false };
        self.connections.insert(StreamId(self.next), connection);
        is_own.then_some(StreamId(self.next))
    }

    /// The longest silent one of these makes room: it has had its answer, or will never ask.
    fn make_room(&mut self, most: usize, alike: impl Fn(&Connection) -> bool) {
        let these = || self.connections.iter().filter(|(_, connection)| alike(connection));
        if these().count() >= most {
            let oldest = these().min_by_key(|(_, connection)| connection.heard).map(|(id, _)| *id);
            oldest.map(|id| self.connections.remove(&id));
        }
    }
}

impl Connection {
    /// `false` where it is over.
    fn read(&mut self, mut request: impl FnMut(&[u8], SocketAddr)) -> bool {
        // Bytes that are there already come first, so that no more is ever held than one request and one read.
        if !self.has_more {
            let mut buffer = [0; BYTES_AT_ONCE];
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.deframer.push(&buffer[..count]),
                Err(error) => {
                    return matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                }
            }
        }
        self.has_more = false;
        for _ in 0..if self.is_own { OWN_REQUESTS_AT_ONCE } else { 1 } {
            match self.deframer.next_record() {
                Ok(Some(message)) => request(&message, self.from),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        self.has_more = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};

    use super::*;

    struct Place {
        listener: TcpListener,
        streams: Streams,
    }

    fn place() -> Place {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Place { listener, streams: Streams::new(Trust::ANY_PORT) }
    }

    impl Place {
        /// A connection from this address; only from 127.0.0.1 it is the lock manager's.
        fn connect(&mut self, from: [u8; 4]) -> TcpStream {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
            socket.connect(&self.listener.local_addr().unwrap().into()).unwrap();
            self.streams.accept(&self.listener, Moment::START);
            socket.into()
        }

        fn ids(&self) -> Vec<StreamId> {
            self.streams.connections.keys().copied().collect()
        }

        /// How many requests are taken in one turn.
        fn taken(&mut self, id: StreamId) -> usize {
            let mut taken = 0;
            self.streams.read(id, Moment::START, |_, _| taken += 1);
            taken
        }

        /// Waits until something can be read.
        fn wait(&self, id: StreamId) {
            let end = Instant::now() + Duration::from_secs(60);
            let mut byte = [0];
            while self.streams.connections[&id].stream.peek(&mut byte).is_err() {
                assert!(Instant::now() < end);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn whatever_is_sent_at_once_others_get_their_turn_after_one_request_and_the_lock_manager_after_some() {
        for (from, at_once) in [([127, 0, 0, 2], 1), ([127, 0, 0, 1], OWN_REQUESTS_AT_ONCE)] {
            let mut place = place();
            let mut stream = place.connect(from);
            stream.write_all(&frame(b"a call").repeat(100)).unwrap();
            let id = place.ids()[0];
            place.wait(id);
            assert_eq!(place.taken(id), at_once);
            let mut all = at_once;
            // The rest is not waited for.
            while place.streams.with_more().next().is_some() {
                let taken = place.taken(id);
                assert!(taken <= at_once);
                all += taken;
            }
            assert_eq!(all, 100);
        }
    }

    #[test]
    fn a_fragment_that_holds_nothing_ends_the_connection() {
        let mut place = place();
        let mut stream = place.connect([127, 0, 0, 2]);
        stream.write_all(&[0; 400]).unwrap();
        let id = place.ids()[0];
        place.wait(id);
        assert_eq!((place.taken(id), place.ids().len()), (0, 0));
    }

    #[test]
    fn a_server_takes_the_room_of_no_other_and_none_that_of_the_lock_manager() {
        let mut place = place();
        let _own = place.connect([127, 0, 0, 1]);
        let _other = place.connect([127, 0, 0, 3]);
        let _many: Vec<TcpStream> = (0..REMOTE_MAX * 2).map(|_| place.connect([127, 0, 0, 2])).collect();
        let from = |address: [u8; 4]| {
            let all = place.streams.connections.values();
            all.filter(|connection| connection.from.ip() == std::net::IpAddr::from(address)).count()
        };
        let found = (from([127, 0, 0, 1]), from([127, 0, 0, 2]), from([127, 0, 0, 3]));
        assert_eq!(found, (1, REMOTE_FROM_ONE_MAX, 1));
        let _all: Vec<TcpStream> = (4..200).map(|last| place.connect([127, 0, 0, last])).collect();
        assert_eq!(
            place.streams.connections.values().filter(|connection| !connection.is_own).count(),
            REMOTE_MAX
        );
        assert_eq!(place.streams.connections.values().filter(|connection| connection.is_own).count(), 1);
    }
}
