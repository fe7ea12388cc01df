//! Simulated clients: each has an address, an rpcbind and a status monitor of its own, as real sockets, so that an answer
//! comes from where it should. One thread serves them all.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll;

/// The first client's address; the others follow.
const FIRST: u32 = 0x0ac8_0001;

/// The network of all clients.
pub(super) const NETWORK: &str = "10.200.0.0/14";

/// Where the status monitors are.
const MONITOR_PORT: u16 = 40_000;

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

/// What the clients saw.
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

impl Clients {
    /// Begins to serve. `is_dead` ones have their sockets and never answer: nothing comes back, not even an error.
    pub(super) fn start(count: usize, is_dead: impl Fn(usize) -> bool, names: usize) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (mut sockets, mut dead, mut living) = (Vec::new(), Vec::new(), 0);
        for index in 0..count {
            let socket = bind(address(index), 111)?;
            if is_dead(index) {
                dead.push(socket);
                continue;
            }
            living += 1;
            for socket in [socket, bind(address(index), MONITOR_PORT)?] {
                let data = epoll::EventData::new_u64(u64::try_from(sockets.len())?);
                epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
                sockets.push(socket);
            }
        }
        let (told, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let tally = Tally { told: vec![None; living], numbers: vec![None; living], confused: 0, messages: 0 };
        let (counter, asked) = (Arc::clone(&told), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let tally = serve(&epoll, &sockets, tally, names, &counter, &asked);
            drop(dead);
            tally
        });
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

fn bind(address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port)).with_context(|| format!("can't bind {address}:{port}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn serve(
    epoll: &impl std::os::fd::AsFd,
    sockets: &[UdpSocket],
    mut tally: Tally,
    names: usize,
    told: &AtomicUsize,
    stop: &AtomicBool,
) -> Tally {
    let mut events = Vec::with_capacity(512);
    let mut seen = vec![Vec::new(); tally.told.len()];
    let patience = rustix::event::Timespec::try_from(Duration::from_millis(20)).unwrap_or_default();
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        events.clear();
        if epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience)).is_err() {
            continue;
        }
        for event in &events {
            let at = usize::try_from(event.data.u64()).unwrap_or(0);
            let Ok((length, from)) = sockets[at].recv_from(&mut buffer) else { continue };
            tally.messages += 1;
            let Some(notice) = answer(&sockets[at], from, &buffer[..length]) else { continue };
            let client = at / 2;
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
    }
    tally
}

/// What a client was told.
struct Notice {
    name_hash: u64,
    number: u32,
}

/// Answers as rpcbind and rpc.statd do.
fn answer(socket: &UdpSocket, from: SocketAddr, call: &[u8]) -> Option<Notice> {
    let program = word(call, 12)?;
    let mut reply = call.get(..4)?.to_vec();
    reply.extend(ACCEPTED);
    let notice = match program {
        RPCBIND if word(call, 40)? == NSM => {
            let is_udp = word(call, 48)? == 17;
            reply.extend(u32::from(if is_udp { MONITOR_PORT } else { 0 }).to_be_bytes());
            None
        }
        NSM if word(call, 20)? == 6 => {
            let length = usize::try_from(word(call, 40)?).ok()?;
            let name = call.get(44..44 + length)?;
            let number = word(call, 44 + length.next_multiple_of(4))?;
            let name_hash =
                name.iter().fold(7_u64, |hash, b| hash.wrapping_mul(131).wrapping_add(u64::from(*b)));
            Some(Notice { name_hash, number })
        }
        _ => return None,
    };
    // A full queue of the notifier loses it on the way, as a network would.
    let _ = socket.send_to(&reply, from);
    notice
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(word))
}
