//! Single RPC calls over UDP or TCP to a lock manager or rpcbind, with a bound of time. Blocking: for threads that may
//! wait.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Credential, Deframer, Reply, encode_call, frame};
use heirlock_nsm::rpcbind::{self, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::limits;

/// The privileged ports that are tried, from the highest: lockd trusts no other for some of its calls, and neither
/// do status monitors other than Linux's.
const PRIVILEGED_PORTS: std::ops::RangeInclusive<u16> = 600..=1023;

/// Ports in that range that belong to well-known services: IPP, kerberos, rsync, imaps, pop3s, …
const TAKEN_PORTS: [u16; 14] = [623, 631, 636, 664, 749, 750, 783, 853, 873, 989, 990, 992, 993, 995];

/// Makes one call and returns the result's bytes.
///
/// # Errors
/// Where nothing answers in time, or the answer is a refusal or none at all; in words.
pub(crate) fn call(
    to: SocketAddr,
    transport: Transport,
    message: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, String> {
    call_any(&[(to, transport)], message, limit)
}

/// Makes one call over each transport by which a program of one host can be reached, and returns the bytes of the first answer: a call
/// over one of them may stand behind those of others, or reach nothing.
///
/// # Errors
/// As [`call`].
pub(crate) fn call_any(
    places: &[(SocketAddr, Transport)],
    message: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, String> {
    let over =
        |wanted| places.iter().find(|(_, transport)| *transport == wanted).map(|(to, _)| (*to, message));
    let Some((first, _)) = places.first() else { return Err("it can be reached nowhere".to_owned()) };
    result_of(*first, ask(over(Transport::Udp), over(Transport::Tcp), limit)).map(|(_, result)| result)
}

fn result_of(
    from: SocketAddr,
    reply: io::Result<(Transport, Vec<u8>)>,
) -> Result<(Transport, Vec<u8>), String> {
    let (transport, reply) = reply.map_err(|error| format!("no answer from {from}: {}", in_words(&error)))?;
    let reply = Reply::decode(&reply).map_err(|error| format!("no RPC answer from {from}: {error}"))?;
    let result = reply.outcome.map_err(|error| format!("refused by {from}: {error}"))?;
    Ok((transport, result.to_vec()))
}

/// Calls the procedure that does nothing and that every program has, number 0 (RFC 5531, 12): the program that serves it answers.
///
/// # Errors
/// As [`call`].
pub(crate) fn call_null(
    to: SocketAddr,
    transport: Transport,
    (program, version): (u32, u32),
    limit: Duration,
) -> Result<(), String> {
    let null = encode_call(fastrand::u32(..), program, version, 0, &Credential::None, &[]);
    call(to, transport, &null, limit).map(drop)
}

/// Asks rpcbind where a program is; UDP is preferred.
///
/// # Errors
/// Where rpcbind doesn't answer, or doesn't know the program; in words.
pub(crate) fn find(
    at: IpAddr,
    rpcbind_port: u16,
    program: (u32, u32),
    limit: Duration,
) -> Result<(SocketAddr, Transport), String> {
    Rpcbind::new(at, rpcbind_port, limit).find(program)
}

/// Asks rpcbind at which port a program is over one transport; `None` where it isn't.
///
/// # Errors
/// Where rpcbind doesn't answer; in words.
pub(crate) fn find_over(
    at: IpAddr,
    rpcbind_port: u16,
    program: (u32, u32),
    transport: Transport,
    limit: Duration,
) -> Result<Option<u16>, String> {
    Rpcbind::new(at, rpcbind_port, limit).port_of(program, transport)
}

/// The rpcbind of one address. Some answer over UDP alone, some over TCP alone (a server that is hardened against UDP
/// reflection): both are asked until it is known over which it answers.
pub(crate) struct Rpcbind {
    at: SocketAddr,
    limit: Duration,
    /// Over what it answered.
    answers_over: Option<Transport>,
}

impl Rpcbind {
    pub(crate) fn new(at: IpAddr, port: u16, limit: Duration) -> Self {
        Self { at: SocketAddr::new(at, port), limit, answers_over: None }
    }

    /// Where a program is; UDP is preferred.
    ///
    /// # Errors
    /// Where it doesn't answer, or doesn't know the program; in words.
    pub(crate) fn find(&mut self, program: (u32, u32)) -> Result<(SocketAddr, Transport), String> {
        self.places(program).map(|places| places[0])
    }

    /// Where a program is, at least one place: over UDP first, as far as both are known.
    ///
    /// # Errors
    /// As [`Rpcbind::find`].
    pub(crate) fn places(&mut self, program: (u32, u32)) -> Result<Vec<(SocketAddr, Transport)>, String> {
        let mut places = Vec::new();
        let mut silent = None;
        for transport in self.worth_asking() {
            match self.port_of(program, transport) {
                Ok(port) => places.extend(port.map(|port| (SocketAddr::new(self.at.ip(), port), transport))),
                Err(why) => silent = silent.or(Some(why)),
            }
        }
        match silent {
            _ if !places.is_empty() => Ok(places),
            Some(why) => Err(why),
            None => {
                let (program, version) = program;
                Err(format!("program {program} version {version} is not registered at {}", self.at))
            }
        }
    }

    /// The transports of which it can speak. The later versions speak of the one that they are asked over, so over IPv6
    /// it is found out which that is.
    fn worth_asking(&mut self) -> Vec<Transport> {
        let both = vec![Transport::Udp, Transport::Tcp];
        if self.at.is_ipv4() {
            return both;
        }
        let null =
            encode_call(fastrand::u32(..), rpcbind::PROGRAM, rpcbind::VERSION_4, 0, &Credential::None, &[]);
        let there = Some((self.at, &null[..]));
        match ask(there, there, self.limit) {
            Ok((Transport::Tcp, _)) => vec![Transport::Tcp],
            _ => both,
        }
    }

    /// At which port a program is over one transport; `None` where it isn't.
    ///
    /// # Errors
    /// Where it doesn't answer; in words.
    pub(crate) fn port_of(
        &mut self,
        (program, version): (u32, u32),
        transport: Transport,
    ) -> Result<Option<u16>, String> {
        let xid = fastrand::u32(..);
        if self.at.is_ipv4() {
            // Version 2 honours the protocol that it is asked for; later ones answer for the one they are asked over.
            let question = rpcbind::encode_getport_call(xid, program, version, transport);
            let answer = self.ask_over_both(&question)?;
            return rpcbind::decode_getport_result(&answer).map_err(|error| error.to_string());
        }
        let netid = if transport == Transport::Udp { "udp6" } else { "tcp6" };
        let question = rpcbind::encode_getaddr_call(xid, program, version, netid);
        let answer = call(self.at, transport, &question, self.limit)?;
        let found = rpcbind::decode_getaddr_result(&answer).map_err(|error| error.to_string())?;
        Ok(found.map(|address| address.port()))
    }

    fn ask_over_both(&mut self, question: &[u8]) -> Result<Vec<u8>, String> {
        let over = |transport| {
            self.answers_over.is_none_or(|known| known == transport).then_some((self.at, question))
        };
        let reply = ask(over(Transport::Udp), over(Transport::Tcp), self.limit);
        let (transport, result) = result_of(self.at, reply)?;
        self.answers_over = Some(transport);
        Ok(result)
    }
}

/// Sends a call over UDP and over TCP, each as far as it is given, and returns the first reply. TCP begins a short moment
/// after UDP, or as soon as UDP reaches no program.
fn ask(
    udp: Option<(SocketAddr, &[u8])>,
    tcp: Option<(SocketAddr, &[u8])>,
    limit: Duration,
) -> io::Result<(Transport, Vec<u8>)> {
    let began = Instant::now();
    let end = began + limit;
    let mut datagrams = None;
    let mut failure: Option<io::Error> = None;
    if let Some((to, message)) = udp {
        match Datagrams::begin(to, message, limit) {
            Ok(begun) => datagrams = Some(begun),
            Err(error) => failure = Some(error),
        }
    }
    let mut to_connect = tcp;
    let mut connection: Option<(&[u8], Connection)> = None;
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let tcp_from = if datagrams.is_some() { began + limits::RPCBIND_TCP_AFTER } else { began };
        if let Some((to, message)) = to_connect.take_if(|_| now >= tcp_from) {
            match begin_tcp(None, to, false) {
                Ok(socket) => connection = Some((message, Connection::new(socket, message))),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(begun) = &mut datagrams {
            match begun.go_on(now) {
                Ok(Some(reply)) => return Ok((Transport::Udp, reply)),
                Ok(None) => {}
                Err(error) => (datagrams, failure) = (None, failure.or(Some(error))),
            }
        }
        if let Some((message, begun)) = &mut connection {
            match begun.go_on() {
                Ok(Some(reply)) if same_xid(&reply, message) => return Ok((Transport::Tcp, reply)),
                Ok(_) => {}
                Err(error) => (connection, failure) = (None, Some(error)),
            }
        }
        let mut ready: Vec<PollFd<'_>> = Vec::with_capacity(2);
        ready.extend(datagrams.as_ref().map(|begun| PollFd::new(&begun.socket, PollFlags::IN)));
        ready.extend(connection.as_ref().map(|(_, begun)| begun.awaited()));
        if ready.is_empty() {
            match failure {
                Some(error) if to_connect.is_none() => return Err(error),
                _ => continue,
            }
        }
        let tcp_due = to_connect.map(|_| tcp_from);
        let resend = datagrams.as_ref().map(|begun| begun.resend);
        let due = [tcp_due, resend].into_iter().flatten().fold(end, Instant::min);
        wait(&mut ready, due.saturating_duration_since(now).max(Duration::from_millis(1)));
    }
}

/// Sleeps until one of these is ready, for `limit` at most. An interruption ends it early, which does no harm.
fn wait(ready: &mut [PollFd<'_>], limit: Duration) {
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ = poll(ready, Some(&limit));
}

/// One call over UDP. The socket is connected, so that the kernel says where no program listens, and no other host's
/// datagram is taken for an answer.
struct Datagrams<'a> {
    socket: UdpSocket,
    message: &'a [u8],
    /// A datagram may be lost even on this machine: its socket's queue can be full.
    resend: Instant,
    every: Duration,
}

impl<'a> Datagrams<'a> {
    fn begin(to: SocketAddr, message: &'a [u8], limit: Duration) -> io::Result<Self> {
        let socket = bind_udp(any_like(to), false)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, message, resend: Instant::now(), every: limit / 3 })
    }

    fn go_on(&mut self, now: Instant) -> io::Result<Option<Vec<u8>>> {
        if now >= self.resend {
            self.resend = now + self.every;
            self.socket.send(self.message)?;
        }
        let mut buffer = vec![0; 9 * 1024];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(count) if same_xid(&buffer[..count], self.message) => {
                    buffer.truncate(count);
                    return Ok(Some(buffer));
                }
                Ok(_) => {}
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One call over a connection that is being made: nothing waits for it.
pub(crate) struct Connection {
    socket: TcpStream,
    unsent: Vec<u8>,
    answer: Deframer,
}

impl Connection {
    /// A call over a connection that was begun ([`begin_tcp`]).
    pub(crate) fn new(socket: TcpStream, message: &[u8]) -> Self {
        Self { socket, unsent: frame(message), answer: Deframer::new() }
    }

    /// The event that is waited for.
    pub(crate) fn awaited(&self) -> PollFd<'_> {
        let wanted = if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::OUT };
        PollFd::new(&self.socket, wanted)
    }

    /// Sends and takes in what can be now; the reply, once it is whole.
    ///
    /// # Errors
    /// Where the connection could not be made, or was closed.
    pub(crate) fn go_on(&mut self) -> io::Result<Option<Vec<u8>>> {
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

fn same_xid(reply: &[u8], call: &[u8]) -> bool {
    Reply::xid_of(reply).is_some() && reply.get(..4) == call.get(..4)
}

/// A UDP socket at this address with a privileged port, or with any port where none can be had.
///
/// # Errors
/// Where the address isn't on this server, or a privileged port is demanded and can't be had.
pub(crate) fn bind_udp(address: IpAddr, must_be_privileged: bool) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    let spread = fastrand::u16(..64);
    let ports = PRIVILEGED_PORTS.rev().skip(usize::from(spread)).filter(|port| !TAKEN_PORTS.contains(port));
    for port in ports {
        match socket.bind(&SocketAddr::new(address, port).into()) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !must_be_privileged => break,
            Err(error) => return Err(error),
        }
    }
    if must_be_privileged {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "no privileged port is free"));
    }
    socket.bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket.into())
}

/// Begins a connection, from this address where one is given and from a privileged port where one can be had. It is not
/// waited for.
///
/// # Errors
/// Where the address isn't on this server, a privileged port is demanded and can't be had, or there is no route.
pub(crate) fn begin_tcp(
    from: Option<IpAddr>,
    to: SocketAddr,
    must_be_privileged: bool,
) -> io::Result<TcpStream> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let from = from.unwrap_or_else(|| any_like(to));
    let ports = PRIVILEGED_PORTS.rev().skip(usize::from(fastrand::u16(..64)));
    let ports = ports.filter(|port| !TAKEN_PORTS.contains(port)).map(Some);
    let ports = ports.chain((!must_be_privileged).then_some(None));
    for port in ports {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // A port that served another client a moment ago serves this one as well.
        socket.set_reuse_address(true)?;
        match socket.bind(&SocketAddr::new(from, port.unwrap_or(0)).into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && port.is_some() => continue,
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && port.is_some()
                    && !must_be_privileged =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        match socket.connect(&to.into()) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Ok(socket.into());
            }
            // The same two ports were connected a moment ago.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && port.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no privileged port is free"))
}

fn any_like(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "time is up".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
