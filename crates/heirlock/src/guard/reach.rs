//! The clients that can be reached: an empty call to the rpcbind of each, from the address that a notification would
//! leave. All at once over one socket an address family, as the notifier does it, and then over TCP those that are silent
//! over UDP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Credential, Reply, encode_call};
use heirlock_nsm::rpcbind;
use rustix::event::{PollFd, Timespec, poll};

use crate::limits;
use crate::rpc_client::{self, Connection};

/// Calls that leave before answers are looked for: at worst they all come at once, and the socket must hold them.
const BURST: usize = 64;

/// Datagrams that are taken in one look.
const LISTEN_MAX: usize = 4 * BURST;

/// How long one look for answers takes at the most.
const LOOK: Duration = Duration::from_millis(2);

/// The addresses, of these, at which rpcbind answers within the limit. `from` is used where this host has it.
pub(super) fn answering(
    asked: &BTreeSet<IpAddr>,
    from: &[IpAddr],
    port: u16,
    limit: Duration,
) -> io::Result<BTreeSet<IpAddr>> {
    let mut answered = BTreeSet::new();
    for v4 in [true, false] {
        let family: BTreeSet<IpAddr> = asked.iter().copied().filter(|a| a.is_ipv4() == v4).collect();
        if family.is_empty() {
            continue;
        }
        let socket = bind(from.iter().copied().filter(|a| a.is_ipv4() == v4), v4)?;
        let over_udp = ask(&socket, &family, port, limit)?;
        let silent = family.difference(&over_udp).copied().collect();
        answered.extend(ask_over_tcp(socket.local_addr()?.ip(), silent, port));
        answered.extend(over_udp);
    }
    Ok(answered)
}

/// The clients of these that answer over TCP.
fn ask_over_tcp(from: IpAddr, mut silent: VecDeque<IpAddr>, port: u16) -> BTreeSet<IpAddr> {
    let mut answered = BTreeSet::new();
    let mut open: Vec<(IpAddr, Instant, Connection)> = Vec::new();
    let end = Instant::now() + limits::REACH_TCP_TIME_MAX;
    while (!silent.is_empty() || !open.is_empty()) && Instant::now() < end {
        let room = limits::NOTIFY_CONNECTIONS_FEW.saturating_sub(open.len()).min(silent.len());
        for address in silent.drain(..room) {
            let call = null_call(fastrand::u32(..));
            if let Ok(socket) = rpc_client::begin_tcp(Some(from), SocketAddr::new(address, port), false) {
                let gives_up = Instant::now() + limits::REACH_CONNECTION_TIME_MAX;
                open.push((address, gives_up, Connection::new(socket, &call)));
            }
        }
        let mut awaited: Vec<PollFd<'_>> = open.iter().map(|(.., one)| one.awaited()).collect();
        let _ = poll(&mut awaited, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
        let ready: Vec<bool> = awaited.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        open.retain_mut(|(address, gives_up, connection)| {
            let went = if ready.next() == Some(true) { connection.go_on() } else { Ok(None) };
            // Even a refusal is an answer.
            if let Ok(Some(_)) = went {
                answered.insert(*address);
            }
            matches!(went, Ok(None)) && Instant::now() < *gives_up
        });
    }
    answered
}

fn null_call(xid: u32) -> Vec<u8> {
    encode_call(xid, rpcbind::PROGRAM, rpcbind::VERSION_2, 0, &Credential::None, &[])
}

/// On the first of these addresses that this host has, else on any.
fn bind(from: impl Iterator<Item = IpAddr>, v4: bool) -> io::Result<UdpSocket> {
    let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for address in from {
        if let Ok(socket) = rpc_client::bind_udp(address, false) {
            return Ok(socket);
        }
    }
    rpc_client::bind_udp(any, false)
}

fn ask(
    socket: &UdpSocket,
    asked: &BTreeSet<IpAddr>,
    port: u16,
    limit: Duration,
) -> io::Result<BTreeSet<IpAddr>> {
    socket.set_read_timeout(Some(LOOK))?;
    let calls: BTreeMap<IpAddr, Vec<u8>> =
        asked.iter().map(|address| (*address, null_call(fastrand::u32(..)))).collect();
    let mut answered = BTreeSet::new();
    let began = Instant::now();
    // A datagram may be lost: each is sent three times.
    for round in 1..=3 {
        let silent: Vec<IpAddr> = asked.iter().copied().filter(|a| !answered.contains(a)).collect();
        for burst in silent.chunks(BURST) {
            for address in burst {
                // A client without a route is a client that doesn't answer.
                let _ = socket.send_to(&calls[address], SocketAddr::new(*address, port));
            }
            listen(socket, &calls, port, &mut answered)?;
        }
        while answered.len() < asked.len() && began.elapsed() < limit * round / 3 {
            listen(socket, &calls, port, &mut answered)?;
        }
    }
    Ok(answered)
}

/// Takes what has come, until nothing comes any more for a moment.
fn listen(
    socket: &UdpSocket,
    calls: &BTreeMap<IpAddr, Vec<u8>>,
    port: u16,
    answered: &mut BTreeSet<IpAddr>,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    // Bounded, so that a flood at the socket does not hold us.
    for _ in 0..LISTEN_MAX {
        match socket.recv_from(&mut buffer) {
            Ok((count, from)) => {
                let expected = calls.get(&from.ip()).and_then(|call| call.get(..4));
                let reply = &buffer[..count];
                // Even a refusal is an answer; a reply to another program's call is none.
                if from.port() == port && Reply::xid_of(reply).is_some() && reply.get(..4) == expected {
                    answered.insert(from.ip());
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// rpcbind's answer to an empty call: accepted, success.
    fn reply_to(call: &[u8]) -> Vec<u8> {
        let mut reply = call[..4].to_vec();
        for word in [1_u32, 0, 0, 0, 0] {
            reply.extend(word.to_be_bytes());
        }
        reply
    }

    /// Sockets of one port on several loopback addresses; each answers `times` calls as `answer` says.
    fn client(address: &str, port: u16, answer: fn(&[u8]) -> Vec<u8>) -> u16 {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let port = socket.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&answer(&buffer[..count]), from).unwrap();
            }
        });
        port
    }

    /// Answers over TCP alone.
    fn over_tcp(address: &str, port: u16) {
        use std::io::{Read, Write};
        let listener = TcpListener::bind((address, port)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 256];
                let count = stream.read(&mut buffer).unwrap();
                stream.write_all(&heirlock_nsm::rpc::frame(&reply_to(&buffer[4..count]))).unwrap();
            }
        });
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn clients_that_answer_are_told_from_those_that_do_not() {
        let port = client("127.9.0.1", 0, reply_to);
        client("127.9.0.2", port, reply_to);
        client("127.9.0.3", port, |_| b"garbage".to_vec());
        over_tcp("127.9.0.6", port);
        client("127.9.0.4", port, |call| {
            let mut other = reply_to(call);
            other[0] ^= 0xff;
            other
        });
        let asked = set(&["127.9.0.1", "127.9.0.2", "127.9.0.3", "127.9.0.4", "127.9.0.5", "127.9.0.6"]);
        let from = ["192.0.2.77".parse().unwrap()];
        let began = Instant::now();
        let answered = answering(&asked, &from, port, Duration::from_secs(3)).unwrap();
        assert_eq!(answered, set(&["127.9.0.1", "127.9.0.2", "127.9.0.6"]));
        assert!(began.elapsed() < Duration::from_secs(30), "the limit holds: {:?}", began.elapsed());
    }

    #[test]
    fn when_all_clients_have_answered_the_wait_ends() {
        let port = client("127.9.1.1", 0, reply_to);
        let began = Instant::now();
        let asked = set(&["127.9.1.1"]);
        assert_eq!(answering(&asked, &[], port, Duration::from_secs(120)).unwrap(), asked);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }
}
