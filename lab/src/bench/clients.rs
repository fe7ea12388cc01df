//! Simulated clients: each has an address, an rpcbind and a status monitor of its own.
//!
//! One thread plays them all, by two raw sockets: on one it sees which address a datagram was sent to, by the other it
//! answers from there. A socket for each would need hundreds of thousands of open files.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

/// The first client's address; the others follow.
const FIRST: u32 = 0x0ac8_0001;

/// The network of all clients.
pub(super) const NETWORK: &str = "10.200.0.0/14";

/// Where the status monitors are.
const MONITOR_PORT: u16 = 40_000;

/// Bytes of the headers of IPv4, without options, and of UDP.
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Answers of an ONC RPC program: accepted, no verifier, success.
const ACCEPTED: [u8; 20] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const RPCBIND: u32 = 100_000;
const NSM: u32 = 100_024;

/// All clients, while they are served.
pub(super) struct Clients {
    living: usize,
    told: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

/// The clients' observations.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// When each living client had been told under both names.
    pub(super) told: Vec<Option<Instant>>,
    /// The number that each was told first.
    numbers: Vec<Option<u32>>,
    /// Those that were told another number afterwards.
    pub(super) confused: usize,
    /// Messages that reached a living client.
    pub(super) messages: usize,
}

/// The address of the client of this index.
pub(super) fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(FIRST.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)))
}

/// The record that rpc.statd writes for a client.
pub(super) fn record(client: &str) -> String {
    format!("0100007f 000186b5 00000003 00000010 01010101010101010101010101010101 {client} nfs-a\n")
}

impl Clients {
    /// Begins to serve. Dead ones never answer: nothing comes back, not even an error.
    pub(super) fn start(count: usize, is_dead: impl Fn(usize) -> bool, names: usize) -> Result<Self> {
        let is_dead: Vec<bool> = (0..count).map(is_dead).collect();
        let living = is_dead.iter().filter(|dead| !**dead).count();
        let wire = Wire::open().context("can't open raw sockets (root is needed)")?;
        let (told, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let tally = Tally { told: vec![None; count], numbers: vec![None; count], confused: 0, messages: 0 };
        let (counter, asked) = (Arc::clone(&told), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(&wire, &is_dead, tally, names, &counter, &asked));
        Ok(Self { living, told, stop, thread })
    }

    pub(super) fn living(&self) -> usize {
        self.living
    }

    /// How many living ones were told.
    pub(super) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the simulated clients failed"))
    }
}

/// The wire to the clients.
struct Wire {
    incoming: OwnedFd,
    outgoing: OwnedFd,
    /// These are never read: they keep the kernel from answering that no program listens.
    _held: [UdpSocket; 2],
}

impl Wire {
    fn open() -> Result<Self> {
        let incoming = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP))?;
        set_socket_recv_buffer_size_force(&incoming, 64 * 1024 * 1024)?;
        set_socket_timeout(&incoming, Timeout::Recv, Some(Duration::from_millis(20)))?;
        // A packet that is sent by it brings its own header.
        let outgoing = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
        let held = [UdpSocket::bind(("0.0.0.0", 111))?, UdpSocket::bind(("0.0.0.0", MONITOR_PORT))?];
        Ok(Self { incoming, outgoing, _held: held })
    }

    /// Answers as the client that was asked.
    fn answer(&self, asked: &[u8], payload: &[u8]) {
        let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
        // The kernel fills in what is zero here: length, identification, checksum.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend(&asked[16..20]);
        packet.extend(&asked[12..16]);
        packet.extend(&asked[IP_HEADER + 2..IP_HEADER + 4]);
        packet.extend(&asked[IP_HEADER..IP_HEADER + 2]);
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0]); // no checksum
        packet.extend(payload);
        let to = Ipv4Addr::new(asked[12], asked[13], asked[14], asked[15]);
        // A datagram that finds no room is lost, as on any network.
        let _ = sendto(&self.outgoing, &packet, SendFlags::empty(), &SocketAddrV4::new(to, 0));
    }
}

fn serve(
    wire: &Wire,
    is_dead: &[bool],
    mut tally: Tally,
    names: usize,
    told: &AtomicUsize,
    stop: &AtomicBool,
) -> Tally {
    let mut seen = vec![Vec::new(); is_dead.len()];
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = recv(&wire.incoming, &mut buffer, RecvFlags::empty()) else { continue };
        let packet = &buffer[..length];
        let Some(client) = client_of(packet).filter(|client| is_dead.get(*client) == Some(&false)) else {
            continue;
        };
        tally.messages += 1;
        let Some((payload, notice)) = answer(&packet[IP_HEADER + UDP_HEADER..]) else { continue };
        wire.answer(packet, &payload);
        let Some(notice) = notice else { continue };
        if *tally.numbers[client].get_or_insert(notice.number) != notice.number {
            tally.confused += 1;
        }
        if !seen[client].contains(&notice.name_hash) {
            seen[client].push(notice.name_hash);
            if seen[client].len() == names {
                tally.told[client] = Some(Instant::now());
                told.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    tally
}

/// To whom a packet was sent: their answers to others come by here as well.
fn client_of(packet: &[u8]) -> Option<usize> {
    let to = word(packet, 16)?;
    let port = word(packet, IP_HEADER)? & 0xffff;
    let is_call = packet.len() > IP_HEADER + UDP_HEADER && (port == 111 || port == u32::from(MONITOR_PORT));
    is_call.then(|| usize::try_from(to.checked_sub(FIRST)?).ok()).flatten()
}

/// A notification to a client.
struct Notice {
    name_hash: u64,
    number: u32,
}

/// Answers as rpcbind and rpc.statd do.
fn answer(call: &[u8]) -> Option<(Vec<u8>, Option<Notice>)> {
    let mut reply = call.get(..4)?.to_vec();
    reply.extend(ACCEPTED);
    match word(call, 12)? {
        RPCBIND if word(call, 40)? == NSM => {
            let is_udp = word(call, 48)? == 17;
            reply.extend(u32::from(if is_udp { MONITOR_PORT } else { 0 }).to_be_bytes());
            Some((reply, None))
        }
        NSM if word(call, 20)? == 6 => {
            let length = usize::try_from(word(call, 40)?).ok()?;
            let name = call.get(44..44_usize.checked_add(length)?)?;
            let number = word(call, 44 + length.next_multiple_of(4))?;
            let name_hash =
                name.iter().fold(7_u64, |hash, b| hash.wrapping_mul(131).wrapping_add(u64::from(*b)));
            Some((reply, Some(Notice { name_hash, number })))
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(word))
}
