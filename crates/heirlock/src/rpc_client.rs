//! Single RPC calls over UDP or TCP to a lock manager or rpcbind, with a bound of time. Blocking: for threads that may
//! wait.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Credential, Deframer, Reply, encode_call, frame};
use heirlock_nsm::rpcbind::{self, Transport};
use socket2::{Domain, Socket, Type};

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
    let reply = match transport {
        Transport::Udp => over_udp(to, message, limit),
        Transport::Tcp => over_tcp(to, message, limit),
    };
    let reply = reply.map_err(|error| format!("no answer from {to}: {}", in_words(&error)))?;
    let reply = Reply::decode(&reply).map_err(|error| format!("no RPC answer from {to}: {error}"))?;
    reply.outcome.map(<[u8]>::to_vec).map_err(|error| format!("refused by {to}: {error}"))
}

/// Calls the procedure that does nothing and that every program has, number 0 (RFC 5531, 12): whoever serves it answers.
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

/// Asks rpcbind where a program is, over UDP first.
///
/// # Errors
/// Where rpcbind doesn't answer, or doesn't know the program; in words.
pub(crate) fn find(
    at: IpAddr,
    rpcbind_port: u16,
    program: (u32, u32),
    limit: Duration,
) -> Result<(SocketAddr, Transport), String> {
    for transport in [Transport::Udp, Transport::Tcp] {
        if let Some(port) = find_over(at, rpcbind_port, program, transport, limit)? {
            return Ok((SocketAddr::new(at, port), transport));
        }
    }
    let rpcbind_at = SocketAddr::new(at, rpcbind_port);
    Err(format!("program {} version {} is not registered at {rpcbind_at}", program.0, program.1))
}

/// Asks rpcbind at which port a program is over one transport; `None` where it isn't.
///
/// # Errors
/// Where rpcbind doesn't answer; in words.
pub(crate) fn find_over(
    at: IpAddr,
    rpcbind_port: u16,
    (program, version): (u32, u32),
    transport: Transport,
    limit: Duration,
) -> Result<Option<u16>, String> {
    let rpcbind_at = SocketAddr::new(at, rpcbind_port);
    let xid = fastrand::u32(..);
    if rpcbind_at.is_ipv4() {
        // Version 2 honours the protocol that it is asked for; later ones answer for the one they are asked over.
        let question = rpcbind::encode_getport_call(xid, program, version, transport);
        let answer = call(rpcbind_at, Transport::Udp, &question, limit)?;
        return rpcbind::decode_getport_result(&answer).map_err(|error| error.to_string());
    }
    let netid = if transport == Transport::Udp { "udp6" } else { "tcp6" };
    let question = rpcbind::encode_getaddr_call(xid, program, version, netid);
    let answer = call(rpcbind_at, transport, &question, limit)?;
    let found = rpcbind::decode_getaddr_result(&answer).map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.port()))
}

fn over_udp(to: SocketAddr, message: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let socket = bind_udp(any_like(to), false)?;
    let end = Instant::now() + limit;
    let mut buffer = vec![0; 9 * 1024];
    // A datagram may be lost even on this machine: its socket's queue can be full.
    let mut resend = Instant::now();
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if now >= resend {
            socket.send_to(message, to)?;
            resend = now + limit / 3;
        }
        let wait = resend.min(end).saturating_duration_since(now).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait))?;
        match socket.recv_from(&mut buffer) {
            // Only what comes from where we asked, and answers this call, is an answer.
            Ok((count, from)) if from == to && same_xid(&buffer[..count], message) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

fn over_tcp(to: SocketAddr, message: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&frame(message))?;
    let mut deframer = Deframer::new();
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        deframer.push(&buffer[..count]);
        let record = deframer.next_record().map_err(io::Error::other)?;
        if let Some(record) = record.filter(|record| same_xid(record, message)) {
            return Ok(record);
        }
    }
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
