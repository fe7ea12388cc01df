//! A witness on a scenario's network, with the lab's own clock: every call and its answer cross the lab's bridge, so the moment at
//! which a client was told, or had its lock back, can be compared with any other moment of the lab. No guest's clock is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use heirlock_nsm::nlm::{self, LockArgs, Nlm4Result, Nlm4Status, Procedure};
use heirlock_nsm::rpc::{Call, Deframer, Reply};
use heirlock_nsm::sm;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

/// ETH_P_ALL (linux/if_ether.h): the sockets of one protocol see nothing of what leaves.
const ALL_PROTOCOLS: u16 = 3;

/// IPv4 in an Ethernet frame.
const ETHERTYPE_IPV4: u16 = 0x0800;

const ETHERNET_HEADER: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// SM_NOTIFY (X/Open XNFS, chapter 11).
const SM_NOTIFY: u32 = 6;

/// How long the witness looks at a silent network before it asks whether it is over.
const PATIENCE: Duration = Duration::from_millis(100);

/// Room for what passes while this thread waits for a busy machine: a hundred clients that are told at once are a thousand frames,
/// each seen at two or three devices, and each takes some kilobytes.
const BUFFER_BYTES: usize = 64 << 20;

/// Calls that are remembered for their answers; a scenario has some hundreds.
const CALLS_MAX: usize = 10_000;

/// Listens to all that passes, from its making to its end.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    is_over: AtomicBool,
}

impl Witness {
    /// Of the calls between the clients and the server that has this address. The calling thread is in the network.
    ///
    /// # Errors
    /// When it may not listen: root is needed.
    pub fn of(service: Ipv4Addr) -> Result<Self> {
        let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
            .context("no socket for all packets (root is needed)")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // Beyond what the machine allows to others, which is full after a hundred frames.
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).context("no room for all packets")?;
        let shared =
            Arc::new(Shared { seen: Mutex::new(Seen::of(service)), is_over: AtomicBool::new(false) });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("witness".to_owned()).spawn(move || its.listen(socket))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The clients that have answered to a notification under each name that was announced, and when the last of these answers
    /// passed for the first time.
    #[must_use]
    pub fn told(&self) -> BTreeMap<Ipv4Addr, Instant> {
        self.shared.seen().told()
    }

    /// The clients to which a reclaim was granted, and when the answer to each passed for the first time.
    #[must_use]
    pub fn reclaimed(&self) -> BTreeMap<Ipv4Addr, Instant> {
        self.shared.seen().reclaimed.clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, mut socket: Socket) {
        let mut frame = [0; 4096];
        while !self.is_over.load(Ordering::Relaxed) {
            // An error is a silence: what is missing at the end is named by those who ask.
            if let Ok(length) = socket.read(&mut frame) {
                self.seen().pass(&frame[..length], Instant::now());
            }
        }
    }
}

/// All that counts of what has passed.
#[derive(Debug)]
struct Seen {
    service: Ipv4Addr,
    /// Calls, by the client and the transaction.
    calls: HashMap<(Ipv4Addr, u32), Asked>,
    /// When each client answered under each name.
    answered: BTreeMap<Ipv4Addr, BTreeMap<String, Instant>>,
    reclaimed: BTreeMap<Ipv4Addr, Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// By the service, under this name: the client is to get its locks back.
    Notification(String),
    /// By the client: its lock.
    Reclaim,
}

impl Seen {
    fn of(service: Ipv4Addr) -> Self {
        Self { service, calls: HashMap::new(), answered: BTreeMap::new(), reclaimed: BTreeMap::new() }
    }

    fn told(&self) -> BTreeMap<Ipv4Addr, Instant> {
        let names: BTreeSet<&String> = self.answered.values().flat_map(BTreeMap::keys).collect();
        let whole = self.answered.iter().filter(|(_, answers)| answers.len() == names.len());
        whole.filter_map(|(client, answers)| Some((*client, *answers.values().max()?))).collect()
    }

    /// A frame passes. A bridge shows it on the way in and on the way out; the first time counts.
    fn pass(&mut self, frame: &[u8], at: Instant) {
        let Some((from, to, messages)) = messages_in(frame) else { return };
        let client = match (from == self.service, to == self.service) {
            (true, false) => to,
            (false, true) => from,
            _ => return,
        };
        let is_by_client = from == client;
        for message in messages {
            if let Ok(reply) = Reply::decode(&message) {
                self.answer(client, is_by_client, &reply, at);
            } else if let Ok(call) = Call::decode(&message) {
                self.call(client, is_by_client, &call);
            }
        }
    }

    fn call(&mut self, client: Ipv4Addr, is_by_client: bool, call: &Call<'_>) {
        let asked = match (call.prog, call.proc_) {
            (sm::PROGRAM, SM_NOTIFY) if !is_by_client => match sm::Notify::decode(call.args) {
                Ok(notify) => Asked::Notification(notify.mon_name.to_owned()),
                Err(_) => return,
            },
            (nlm::PROGRAM, number) if is_by_client && Procedure::of(number) == Some(Procedure::Lock) => {
                match LockArgs::decode(call.args) {
                    Ok(lock) if lock.reclaim => Asked::Reclaim,
                    _ => return,
                }
            }
            _ => return,
        };
        if self.calls.len() < CALLS_MAX {
            self.calls.insert((client, call.xid), asked);
        }
    }

    fn answer(&mut self, client: Ipv4Addr, is_by_client: bool, reply: &Reply<'_>, at: Instant) {
        let Ok(result) = reply.outcome else { return };
        let is_granted =
            || Nlm4Result::decode(result).is_ok_and(|result| result.status == Nlm4Status::Granted);
        match self.calls.get(&(client, reply.xid)) {
            Some(Asked::Notification(name)) if is_by_client => {
                self.answered.entry(client).or_default().entry(name.clone()).or_insert(at);
            }
            Some(Asked::Reclaim) if !is_by_client && is_granted() => {
                self.reclaimed.entry(client).or_insert(at);
            }
            _ => {}
        }
    }
}

/// Source, destination and the messages of remote procedure calls of an Ethernet frame with IPv4 (RFC 791) and UDP (RFC 768), or TCP
/// (RFC 9293): such a message is shorter than a segment.
fn messages_in(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, Vec<Vec<u8>>)> {
    let packet = frame.get(ETHERNET_HEADER..).filter(|_| frame[12..14] == ETHERTYPE_IPV4.to_be_bytes())?;
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(Ipv4Addr::from);
    let (from, to) = (address(12)?, address(16)?);
    // Frames are padded to their shortest length.
    let segment = packet.get(header..length)?;
    let messages = match *packet.get(9)? {
        UDP => vec![segment.get(8..)?.to_vec()],
        TCP => {
            let mut deframer = Deframer::new();
            deframer.push(segment.get(usize::from(*segment.get(12)? >> 4) * 4..)?);
            std::iter::from_fn(|| deframer.next_record().ok().flatten()).collect()
        }
        _ => return None,
    };
    Some((from, to, messages))
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::StateNumber;
    use heirlock_nsm::nlm::{Lock4, encode_lock_call};
    use heirlock_nsm::rpc::{Credential, encode_success, frame};

    use super::*;

    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 10);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 21);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 16, 1);

    fn packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        let length = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
        frame.extend([0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(from.octets());
        frame.extend(to.octets());
        frame.extend(segment);
        // What the shortest frame is filled up with.
        frame.extend([0; 6]);
        frame
    }

    fn over_udp(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        packet(UDP, from, to, &[&[0; 8], message].concat())
    }

    fn over_tcp(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let mut header = [0; 32];
        header[12] = 8 << 4; // with 12 bytes of options
        packet(TCP, from, to, &[&header[..], &frame(message)].concat())
    }

    fn lock(xid: u32, reclaim: bool) -> Vec<u8> {
        let lock = Lock4 { caller_name: "client1", fh: b"handle", oh: b"1", svid: 1, offset: 0, length: 1 };
        let arguments = LockArgs { cookie: b"ck", block: false, exclusive: true, lock, reclaim, state: 3 };
        encode_lock_call(xid, &Credential::None, &arguments)
    }

    fn result(xid: u32, status: Nlm4Status) -> Vec<u8> {
        encode_success(xid, &Nlm4Result { cookie: b"ck", status }.encode())
    }

    #[test]
    fn a_client_is_told_when_its_answer_passes_for_the_first_time() {
        let (mut seen, at) = (Seen::of(SERVICE), Instant::now());
        let later = |ms| at + Duration::from_millis(ms);
        let call = sm::encode_notify_call(7, "homes", StateNumber(5));
        let answer = encode_success(7, &[]);
        seen.pass(&over_udp(CLIENT, SERVICE, &answer), at);
        assert!(seen.told().is_empty(), "nothing was asked");
        seen.pass(&over_udp(SERVICE, CLIENT, &call), later(1));
        seen.pass(&over_udp(SERVICE, OTHER, &call), later(2));
        assert!(seen.told().is_empty(), "nothing was answered");
        seen.pass(&over_udp(CLIENT, SERVICE, &answer), later(3));
        seen.pass(&over_udp(CLIENT, SERVICE, &answer), later(4));
        assert_eq!(seen.told(), BTreeMap::from([(CLIENT, later(3))]));
        assert!(seen.reclaimed.is_empty());

        seen.pass(&over_udp(SERVICE, CLIENT, &sm::encode_notify_call(8, "nfs", StateNumber(5))), later(5));
        seen.pass(&over_udp(SERVICE, OTHER, &sm::encode_notify_call(9, "nfs", StateNumber(5))), later(5));
        seen.pass(&over_udp(OTHER, SERVICE, &encode_success(9, &[])), later(6));
        assert!(seen.told().is_empty(), "neither was told under both names");
        seen.pass(&over_udp(CLIENT, SERVICE, &encode_success(8, &[])), later(7));
        seen.pass(&over_udp(OTHER, SERVICE, &answer), later(8));
        assert_eq!(seen.told(), BTreeMap::from([(CLIENT, later(7)), (OTHER, later(8))]));
    }

    #[test]
    fn a_lock_is_back_when_its_reclaim_is_granted_and_not_before() {
        let (mut seen, at) = (Seen::of(SERVICE), Instant::now());
        let later = |ms| at + Duration::from_millis(ms);
        // A first lock, and a reclaim that is refused.
        for (xid, reclaim, status) in [(1, false, Nlm4Status::Granted), (2, true, Nlm4Status::DeniedNoLocks)]
        {
            seen.pass(&over_tcp(CLIENT, SERVICE, &lock(xid, reclaim)), at);
            seen.pass(&over_tcp(SERVICE, CLIENT, &result(xid, status)), at);
        }
        assert!(seen.reclaimed.is_empty());
        for (xid, client, pack) in [(3, CLIENT, over_tcp as fn(_, _, &[u8]) -> _), (4, OTHER, over_udp)] {
            seen.pass(&pack(client, SERVICE, &lock(xid, true)), at);
            seen.pass(&pack(SERVICE, client, &result(xid, Nlm4Status::Granted)), later(5));
        }
        assert_eq!(seen.reclaimed, BTreeMap::from([(CLIENT, later(5)), (OTHER, later(5))]));
        assert!(seen.told().is_empty());
    }

    #[test]
    fn a_frame_that_is_cut_off_is_passed_over() {
        let whole = over_tcp(CLIENT, SERVICE, &lock(1, true));
        let mut seen = Seen::of(SERVICE);
        for length in 0..whole.len() - 6 {
            seen.pass(&whole[..length], Instant::now());
        }
        assert!(seen.calls.is_empty());
        seen.pass(&whole, Instant::now());
        assert_eq!(seen.calls.len(), 1);
    }
}
