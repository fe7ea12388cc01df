//! The notifier's UDP sockets.
//!
//! One is bound to each of the service's own addresses, since that is what Linux clients match, and none is ever connected:
//! an ICMP error of one client must not surface in the place of another's answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use heirlock_core::notify::{Notifier, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Principal;
use super::streams::Streams;
use crate::limits;
use crate::rpc_client::bind_udp;

/// One socket for each address from which clients are told.
pub(super) struct Sockets {
    privileged: bool,
    bound: BTreeMap<IpAddr, UdpSocket>,
}

impl Sockets {
    pub(super) fn new(privileged: bool) -> Self {
        Self { privileged, bound: BTreeMap::new() }
    }

    /// Makes ready to send from this address; an unspecified one stands for any of its family.
    pub(super) fn bind(&mut self, address: IpAddr) -> io::Result<()> {
        if !self.bound.contains_key(&address) {
            self.bound.insert(address, prepare(address, self.privileged)?);
        }
        Ok(())
    }

    /// How many answers find room while none is taken out.
    pub(super) fn holds(&self) -> usize {
        let room = |socket: &UdpSocket| socket2::SockRef::from(socket).recv_buffer_size().ok();
        // Where no address is ready yet, a socket like those that will be.
        let alike = || prepare(Ipv4Addr::UNSPECIFIED.into(), false).ok().as_ref().and_then(room);
        let least = self.bound.values().filter_map(room).min().or_else(alike).unwrap_or(0);
        least / limits::NOTIFY_ANSWER_BYTES
    }

    pub(super) fn send(&mut self, payload: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
        // On one link the source is the route's to choose, whatever the service's address is.
        self.bind(from)?;
        let socket = self.bound.get(&from).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(payload, to).map(|_| ())
    }

    /// Takes out what has come.
    pub(super) fn drain(&self, notifier: &mut Notifier, principal: &impl Principal) {
        let mut buffer = [0; 2048];
        let now = principal.now();
        for socket in self.bound.values() {
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
                        tracing::warn!(%error, "a socket of the notifier can't be read: {error}");
                        break;
                    }
                }
            }
        }
    }
}

/// Sleeps until something comes, for `limit` at most.
pub(super) fn wait(sockets: &Sockets, streams: &mut Streams, limit: Duration) {
    let mut awaited: Vec<PollFd<'_>> =
        sockets.bound.values().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let of_sockets = awaited.len();
    awaited.extend(streams.awaited());
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    // An interruption ends the wait early, which does no harm.
    let _ = poll(&mut awaited, Some(&limit));
    let ready: Vec<bool> = awaited.iter().skip(of_sockets).map(|fd| !fd.revents().is_empty()).collect();
    streams.are_ready(ready.into_iter());
}

fn prepare(address: IpAddr, privileged: bool) -> io::Result<UdpSocket> {
    let socket = bind_udp(address, privileged)?;
    socket.set_nonblocking(true)?;
    let reference = socket2::SockRef::from(&socket);
    // As much as is granted: a smaller buffer makes the window smaller.
    let _ = reference.set_recv_buffer_size(limits::NOTIFY_RECEIVE_BYTES);
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, limits::NOTIFY_RECEIVE_BYTES);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_no_address_is_ready_the_window_is_as_wide_as_it_will_be() {
        let (none, mut one) = (Sockets::new(false), Sockets::new(false));
        one.bind(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(none.holds(), one.holds());
        assert!(none.holds() > 1);
    }
}
