//! The network of the agents: a lock manager that is always in grace, and clients that register again when they are told.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use heirlock_nsm::nlm::{self, CancelArgs, Nlm4Result, Nlm4Status, UnlockArgs};
use heirlock_nsm::rpc::{Call, encode_success};
use heirlock_nsm::rpcbind;
use heirlock_nsm::sm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long it sleeps at most before it looks whether it is to end.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

const SERVICE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A notification that reached a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    name: String,
    pub(super) state: u32,
    /// The life of the lock manager, as it was then.
    pub(super) life: String,
}

/// All of it. It ends with its owner.
pub(super) struct Network {
    pub(super) rpcbind_port: u16,
    pub(super) server: &'static str,
    told: Arc<Mutex<BTreeMap<String, Vec<Told>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Played {
    /// rpcbind of each machine, and the programs that it knows there.
    machines: Vec<(Ipv4Addr, UdpSocket, UdpSocket)>,
    /// The server that the clients come back to.
    server: &'static str,
    home: PathBuf,
    told: Arc<Mutex<BTreeMap<String, Vec<Told>>>>,
}

impl Network {
    /// The clients come back to this server in this folder.
    pub(super) fn new(clients: &[&str], server: &'static str, home: PathBuf) -> Self {
        Self::at(0, clients, server, home)
    }

    /// The same, with rpcbind at this port; 0 is any.
    pub(super) fn at(port: u16, clients: &[&str], server: &'static str, home: PathBuf) -> Self {
        let first = UdpSocket::bind((SERVICE, port)).unwrap();
        let rpcbind_port = first.local_addr().unwrap().port();
        let mut machines = vec![(SERVICE, first, UdpSocket::bind((SERVICE, 0)).unwrap())];
        for client in clients {
            let address: Ipv4Addr = client.parse().unwrap();
            let bind = |port| UdpSocket::bind((address, port)).unwrap();
            machines.push((address, bind(rpcbind_port), bind(0)));
        }
        let (told, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let played = Played { machines, server, home, told: Arc::clone(&told) };
        let ends = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || played.run(&ends)));
        Self { rpcbind_port, server, told, stop, thread }
    }

    /// The notifications of the service to a client, in order. The server's implicit service has numbers of its own.
    pub(super) fn told(&self, client: &str) -> Vec<Told> {
        let mut told = self.told.lock().unwrap().get(client).cloned().unwrap_or_default();
        told.retain(|told| told.name == SERVICE.to_string());
        told
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Played {
    fn run(&self, stop: &AtomicBool) {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::SeqCst) {
            let sockets = self.machines.iter().flat_map(|(_, rpcbind, programs)| [rpcbind, programs]);
            let mut ready: Vec<PollFd<'_>> =
                sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
            poll(&mut ready, Some(&LOOK_INTERVAL)).unwrap();
            let ready: Vec<bool> = ready.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
            for ((address, rpcbind, programs), ready) in self.machines.iter().zip(ready.chunks(2)) {
                if ready[0] {
                    let port = programs.local_addr().unwrap().port();
                    answer(rpcbind, &mut buffer, |call, _| getport(call, port));
                }
                if ready[1] {
                    answer(programs, &mut buffer, |call, _| self.program(*address, call));
                }
            }
        }
    }

    /// NFS and NLM of the server, or a client's status monitor.
    fn program(&self, address: Ipv4Addr, call: &Call<'_>) -> Option<Vec<u8>> {
        if call.proc_ == 0 {
            return Some(Vec::new());
        }
        match nlm::Procedure::of(call.proc_) {
            _ if call.prog == sm::PROGRAM => {
                self.notified(address, &sm::Notify::decode(call.args).ok()?);
                Some(Vec::new())
            }
            Some(nlm::Procedure::Unlock) => Some(in_grace(UnlockArgs::decode(call.args).ok()?.cookie)),
            Some(nlm::Procedure::Cancel) => Some(in_grace(CancelArgs::decode(call.args).ok()?.cookie)),
            _ => None,
        }
    }

    /// A number that it has not seen makes it ask for its locks, and its registration precedes that.
    fn notified(&self, address: Ipv4Addr, notify: &sm::Notify<'_>) {
        let life = fs::read_to_string(self.home.join("life")).unwrap().trim().to_owned();
        let mut told = self.told.lock().unwrap();
        let before = told.entry(address.to_string()).or_default();
        if before.iter().all(|told| told.state != notify.state.0) {
            self.register(&address.to_string(), notify.state.0);
        }
        before.push(Told { name: notify.mon_name.to_owned(), state: notify.state.0, life });
    }

    /// As rpc.statd: its own line beside what it finds. The cookie is another in each life.
    fn register(&self, client: &str, cookie: u32) {
        let (sm, server) = (self.home.join("sm"), self.server);
        let path = sm.join(client);
        let there = fs::read_to_string(&path).unwrap_or_default();
        let own = format!("0100007f 000186b5 00000003 00000010 {cookie:032x} {client} {server}\n");
        let others = there.lines().filter(|line| !line.ends_with(server)).map(|line| format!("{line}\n"));
        let temporary = sm.join(format!("{client}.new"));
        fs::write(&temporary, others.chain([own]).collect::<String>()).unwrap();
        fs::rename(temporary, path).unwrap();
    }
}

fn in_grace(cookie: &[u8]) -> Vec<u8> {
    Nlm4Result { cookie, status: Nlm4Status::DeniedGracePeriod }.encode()
}

/// The port of every program.
fn getport(call: &Call<'_>, port: u16) -> Option<Vec<u8>> {
    match (call.prog, call.proc_) {
        (rpcbind::PROGRAM, 0) => Some(Vec::new()),
        (rpcbind::PROGRAM, rpcbind::GETPORT) => {
            let udp =
                rpcbind::decode_getport_args(call.args).ok()?.protocol == rpcbind::Transport::Udp.protocol();
            Some(rpcbind::encode_getport_result(udp.then_some(port)))
        }
        _ => None,
    }
}

fn answer(
    socket: &UdpSocket,
    buffer: &mut [u8],
    what: impl FnOnce(&Call<'_>, SocketAddr) -> Option<Vec<u8>>,
) {
    // A datagram that was reported as readable may be gone; an agent that was killed leaves an ICMP error behind.
    socket.set_nonblocking(true).unwrap();
    let Ok((count, from)) = socket.recv_from(buffer) else { return };
    let Ok(call) = Call::decode(&buffer[..count]) else { return };
    if let Some(result) = what(&call, from) {
        let _ = socket.send_to(&encode_success(call.xid, &result), from);
    }
}
