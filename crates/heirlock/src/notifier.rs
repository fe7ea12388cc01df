//! The notifier's sockets: carries datagrams between `heirlock_core::notify` and the network.
//!
//! The socket is bound to the service's own address, since that is what Linux clients match, and is never connected: an
//! ICMP error of one client must not surface in the place of another's answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use heirlock_core::grace::Leave;
use heirlock_core::notify::{Event, Notifier, Plan};
use heirlock_core::{Moment, Outcome};
use heirlock_nsm::{MonName, MyName, StateNumber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::NotifySettings;
use crate::rpc_client::bind_udp;

/// Datagrams that leave between two looks at grace and at what came back.
const BATCH: usize = 64;

/// How long at most between two looks.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the receive buffer is asked to be; privileged, since ordinary users get a fraction of it.
const RECEIVE_BYTES: usize = 8 * 1024 * 1024;

/// Whom to tell for one service.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The names of the service, in the order in which they are announced.
    pub(crate) names: Vec<MyName>,
    /// The number.
    pub(crate) state: StateNumber,
    /// The clients and their addresses.
    pub(crate) clients: Vec<(MonName, Vec<IpAddr>)>,
    /// The service's addresses. A client is told from the first of its own family; without one, from whatever address
    /// the route to it has.
    pub(crate) from: Vec<IpAddr>,
    /// Ports.
    pub(crate) settings: NotifySettings,
}

/// Tells the clients until all have acknowledged or `may_leave` says that it is too late. Answers who has not, and why.
pub(crate) fn run(
    task: Task,
    now: &dyn Fn() -> Moment,
    mut may_leave: impl FnMut(Moment) -> Leave,
    mut acknowledged: impl FnMut(&MonName),
) -> Vec<(MonName, Outcome, String)> {
    let sockets = match Sockets::bind(&task) {
        Ok(sockets) => sockets,
        Err(error) => {
            let why = format!("no socket for it could be bound to the service's address: {error}");
            return task
                .clients
                .into_iter()
                .map(|(client, _)| (client, Outcome::Lost, why.clone()))
                .collect();
        }
    };
    let plan = Plan {
        names: task.names,
        state: task.state,
        clients: task.clients,
        rpcbind_port: task.settings.rpcbind_port,
        seed: fastrand::u64(..),
    };
    let mut notifier = Notifier::new(plan);
    while !notifier.is_done() {
        match may_leave(now()) {
            Leave::Granted => send_batch(&mut notifier, &sockets, now),
            // No proof now: what was sent may still be answered.
            Leave::ProveFirst => {}
            Leave::TooLate => {
                sockets.drain(&mut notifier, now);
                report(&mut notifier, &mut acknowledged);
                break;
            }
        }
        let due = notifier.next_timeout().map_or(PATIENCE, |at| at.since(now()));
        sockets.wait(due.clamp(Duration::from_millis(1), PATIENCE));
        sockets.drain(&mut notifier, now);
        report(&mut notifier, &mut acknowledged);
    }
    notifier.stop()
}

fn send_batch(notifier: &mut Notifier, sockets: &Sockets, now: &dyn Fn() -> Moment) {
    for _ in 0..BATCH {
        let Some(transmit) = notifier.poll_transmit(now()) else { return };
        // What can't be sent (no route, a full queue) is as good as lost on the way: it is repeated.
        if let Err(error) = sockets.send(&transmit.payload, transmit.to) {
            tracing::debug!(to = %transmit.to, %error, "a datagram could not be sent; it will be repeated");
        }
    }
}

fn report(notifier: &mut Notifier, acknowledged: &mut impl FnMut(&MonName)) {
    while let Some(event) = notifier.poll_event() {
        match event {
            Event::Acknowledged(client) => acknowledged(&client),
            Event::Strange(client, why) => tracing::warn!(%client, why, "no answer to a notification"),
        }
    }
}

/// One socket for each family that is needed.
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    fn bind(task: &Task) -> io::Result<Self> {
        let wanted =
            |v4: bool| task.clients.iter().flat_map(|(_, addresses)| addresses).any(|a| a.is_ipv4() == v4);
        let one = |v4: bool, any: IpAddr| {
            let address = task.from.iter().copied().find(|a| a.is_ipv4() == v4).unwrap_or(any);
            wanted(v4).then(|| prepare(address, task.settings.privileged_port)).transpose()
        };
        Ok(Self {
            v4: one(true, Ipv4Addr::UNSPECIFIED.into())?,
            v6: one(false, Ipv6Addr::UNSPECIFIED.into())?,
        })
    }

    fn send(&self, payload: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(payload, to).map(|_| ())
    }

    fn wait(&self, limit: Duration) {
        let mut ready: Vec<PollFd<'_>> =
            self.v4.iter().chain(&self.v6).map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        // An interruption ends the wait early, which does no harm.
        let _ = poll(&mut ready, Some(&limit));
    }

    fn drain(&self, notifier: &mut Notifier, now: &dyn Fn() -> Moment) {
        let mut buffer = [0; 2048];
        for socket in self.v4.iter().chain(&self.v6) {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((count, from)) => notifier.handle_datagram(now(), from, &buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // ICMP errors of others' making come up here on some kernels; the next read goes on.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => {
                        tracing::warn!(%error, "a notifier's socket can't be read");
                        break;
                    }
                }
            }
        }
    }
}

fn prepare(address: IpAddr, privileged: bool) -> io::Result<UdpSocket> {
    let socket = bind_udp(address, privileged)?;
    socket.set_nonblocking(true)?;
    let reference = socket2::SockRef::from(&socket);
    // As much as is granted: answers that find no room are asked for again, only later.
    let _ = reference.set_recv_buffer_size(RECEIVE_BYTES);
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES);
    Ok(socket)
}
