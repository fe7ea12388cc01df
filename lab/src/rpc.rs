//! The few remote procedure calls that the lab makes by itself, over UDP from a privileged port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

/// Tried locally before it is sent: the socket must come from a privileged port, which lockd and rpc.statd ask for.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 700..1000;

const UDP: u32 = 17;

/// How often a call is sent before it counts as unanswered.
const ATTEMPTS: usize = 3;

/// A socket that a lock manager or status monitor listens to.
///
/// # Errors
/// When root is not there to bind it.
pub fn privileged_socket() -> Result<UdpSocket> {
    let first = fastrand::u16(PRIVILEGED_PORTS);
    let socket = (first..PRIVILEGED_PORTS.end)
        .chain(PRIVILEGED_PORTS.start..first)
        .find_map(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok())
        .context("no privileged port is free")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// A connection from a privileged port of the same family. It ends without a trace, for there are few such ports.
///
/// # Errors
/// When the process may not bind such a port, or no program listens.
pub fn privileged_stream(to: SocketAddr) -> io::Result<TcpStream> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let first = fastrand::u16(PRIVILEGED_PORTS);
    for port in (first..PRIVILEGED_PORTS.end).chain(PRIVILEGED_PORTS.start..first) {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        let connected =
            socket.bind(&SocketAddr::new(any, port).into()).and_then(|()| socket.connect(&to.into()));
        match connected {
            Ok(()) => return Ok(socket.into()),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no privileged port is free"))
}

/// PMAPPROC_GETPORT (RFC 1833, 3): where a program listens over UDP.
///
/// # Errors
/// When it is not registered there.
pub fn port_of(socket: &UdpSocket, address: Ipv4Addr, program: u32, version: u32) -> Result<u16> {
    port_over(socket, address, program, version, UDP)
}

/// The same over UDP (17) or TCP (6).
///
/// # Errors
/// When it is not registered there.
pub fn port_over(
    socket: &UdpSocket,
    address: Ipv4Addr,
    program: u32,
    version: u32,
    protocol: u32,
) -> Result<u16> {
    let arguments: Vec<u8> =
        [program, version, protocol, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    let reply = call(socket, address, 111, [100_000, 2, 3], &arguments)?;
    match word(&reply, 24).map(u16::try_from) {
        Some(Ok(port)) if port > 0 => Ok(port),
        _ => bail!("program {program} is not registered at {address}"),
    }
}

/// An ONC RPC call with AUTH_NONE (RFC 5531); gives the whole reply where it was accepted and carried out. A busy guest loses
/// datagrams, so it is sent more than once.
///
/// # Errors
/// When no such reply comes.
pub fn call(
    socket: &UdpSocket,
    address: Ipv4Addr,
    port: u16,
    procedure: [u32; 3],
    arguments: &[u8],
) -> Result<Vec<u8>> {
    exchange(socket, address, port, procedure, arguments, ATTEMPTS)
}

/// The same, sent once: for a caller that asks again and again anyhow.
///
/// # Errors
/// When no such reply comes.
pub fn call_once(
    socket: &UdpSocket,
    address: Ipv4Addr,
    port: u16,
    procedure: [u32; 3],
    arguments: &[u8],
) -> Result<Vec<u8>> {
    exchange(socket, address, port, procedure, arguments, 1)
}

fn exchange(
    socket: &UdpSocket,
    address: Ipv4Addr,
    port: u16,
    procedure: [u32; 3],
    arguments: &[u8],
    attempts: usize,
) -> Result<Vec<u8>> {
    let xid = fastrand::u32(..);
    let [program, version, number] = procedure;
    let mut message: Vec<u8> = [xid, 0, 2, program, version, number, 0, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    message.extend_from_slice(arguments);
    let mut reply = vec![0; 4096];
    let mut attempt = || {
        socket.send_to(&message, (address, port))?;
        socket.recv_from(&mut reply)
    };
    let mut received = attempt();
    for _ in 1..attempts {
        if received.is_err() {
            received = attempt();
        }
    }
    let (length, from) = received.with_context(|| format!("no answer from {address}:{port}"))?;
    reply.truncate(length);
    let accepted = (1..6).all(|index| word(&reply, index * 4) == Some(u32::from(index == 1)));
    if from.ip() != address || word(&reply, 0) != Some(xid) || !accepted {
        bail!("expected an accepted reply to {xid:08x} from {address}, found {reply:02x?} from {from}");
    }
    Ok(reply)
}

/// Counted bytes as XDR has them (RFC 4506, 4.10): length, bytes, and zeros up to a multiple of four.
#[must_use]
pub fn opaque(bytes: &[u8]) -> Vec<u8> {
    let mut xdr = (bytes.len() as u32).to_be_bytes().to_vec();
    xdr.extend_from_slice(bytes);
    xdr.resize(xdr.len().next_multiple_of(4), 0);
    xdr
}

/// The word at that place, where there is one.
#[must_use]
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}
