//! The notifier's UDP sockets.
//!
//! They are bound to the service's own address, since that is what Linux clients match, and are never connected: an
//! ICMP error of one client must not surface in the place of another's answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use heirlock_core::notify::{Notifier, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::streams::Streams;
use super::{Principal, Task};
use crate::limits;
use crate::rpc_client::bind_udp;

/// One socket for each family that is needed.
pub(super) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    pub(super) fn bind(task: &Task) -> io::Result<Self> {
        // A client without an address may get one of either family later.
        let wanted = |v4: bool| {
            task.clients.iter().any(|(_, list)| list.is_empty() || list.iter().any(|a| a.is_ipv4() == v4))
        };
        let one = |v4: bool, any: IpAddr| {
            let address = task.from.iter().copied().find(|a| a.is_ipv4() == v4).unwrap_or(any);
            prepare(address, task.settings.privileged_port)
        };
        let nobody_yet = task.clients.iter().all(|(_, list)| list.is_empty());
        Ok(Self {
            v4: wanted(true).then(|| one(true, Ipv4Addr::UNSPECIFIED.into())).transpose()?,
            // Without IPv6 on this server nobody can be told over it, and nobody else need suffer.
            v6: match wanted(false).then(|| one(false, Ipv6Addr::UNSPECIFIED.into())).transpose() {
                Err(_) if nobody_yet || wanted(true) => None,
                bound => bound?,
            },
        })
    }

    /// How many answers find room if nobody takes them out.
    pub(super) fn holds(&self) -> usize {
        let room = |socket: &UdpSocket| socket2::SockRef::from(socket).recv_buffer_size().ok();
        let least = self.v4.iter().chain(&self.v6).filter_map(room).min().unwrap_or(0);
        least / limits::NOTIFY_ANSWER_BYTES
    }

    pub(super) fn send(&self, payload: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(payload, to).map(|_| ())
    }

    /// Takes out what has come.
    pub(super) fn drain(&self, notifier: &mut Notifier, principal: &impl Principal) {
        let mut buffer = [0; 2048];
        let now = principal.now();
        for socket in self.v4.iter().chain(&self.v6) {
            // A flood of datagrams must not keep the others from being told.
            for _ in 0..limits::NOTIFY_ANSWERS_AT_ONCE_MAX {
                match socket.recv_from(&mut buffer) {
                    Ok((count, from)) => {
                        notifier.handle_reply(now, Transport::Udp, from, &buffer[..count]);
                    }
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

/// Sleeps until something comes, for `limit` at most.
pub(super) fn wait(sockets: &Sockets, streams: &Streams, limit: Duration) {
    let mut ready: Vec<PollFd<'_>> =
        sockets.v4.iter().chain(&sockets.v6).map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    ready.extend(streams.awaited());
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    // An interruption ends the wait early, which does no harm.
    let _ = poll(&mut ready, Some(&limit));
}

fn prepare(address: IpAddr, privileged: bool) -> io::Result<UdpSocket> {
    let socket = bind_udp(address, privileged)?;
    socket.set_nonblocking(true)?;
    let reference = socket2::SockRef::from(&socket);
    // As much as is granted: what is not makes the window smaller.
    let _ = reference.set_recv_buffer_size(limits::NOTIFY_RECEIVE_BYTES);
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, limits::NOTIFY_RECEIVE_BYTES);
    Ok(socket)
}
