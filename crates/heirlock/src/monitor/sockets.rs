//! The monitor's sockets. While lockd runs they must never be gone: an unregistered status monitor makes lockd grant
//! without a record after a minute. So they are held by a program that outlives the agent (systemd, or `heirlock
//! supervise`) and handed to each new one, together with the requests that wait in them.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use heirlock_nsm::rpcbind::Transport;
use listenfd::ListenFd;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use socket2::{Domain, SockRef, Socket, Type};

/// Says to an agent that its sockets come over its standard input.
pub(crate) const HANDED_OVER: &str = "HEIRLOCK_SOCKETS";

/// One for each transport and family.
const SOCKETS: usize = 4;

/// Ports that are tried until one is free for both transports.
const PORT_TRIES: usize = 16;

/// Calls that wait to be accepted: a storm of reclaims comes over as many connections.
const BACKLOG: i32 = 1024;

/// The size that is asked for the receive buffers: requests wait there while the agent is restarted.
const RECEIVE_BYTES: usize = 1024 * 1024;

/// The sockets. The IPv6 ones are only there where the kernel has it.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(super) udp4: UdpSocket,
    pub(super) tcp4: TcpListener,
    pub(super) udp6: Option<UdpSocket>,
    pub(super) tcp6: Option<TcpListener>,
    /// To `heirlock supervise`, where that handed them over.
    pub(super) holder: Option<UnixStream>,
}

/// The registration of one socket with rpcbind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
}

impl Sockets {
    /// The sockets that were handed over, or new ones.
    ///
    /// # Errors
    /// Where none can be had, or a descriptor that was handed over is no such socket.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        if std::env::var_os(HANDED_OVER).is_some() {
            let holder = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
            return Ok(Self { holder: Some(holder), ..sort(receive(io::stdin().as_fd())?)? });
        }
        let mut inherited = ListenFd::from_env();
        if inherited.len() == 0 {
            return Self::bind(port);
        }
        let mut fds = Vec::new();
        for at in 0..inherited.len() {
            let fd = match inherited.take_udp_socket(at) {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => inherited.take_tcp_listener(at)?.map(OwnedFd::from),
            };
            fds.extend(fd);
        }
        sort(fds)
    }

    /// New ones; port 0 is any.
    ///
    /// # Errors
    /// Where the port is taken, or no port is free.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            match Self::try_bind(port) {
                // Free for one transport, taken for another.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 && tries < PORT_TRIES => {
                    tries += 1;
                }
                bound => return bound,
            }
        }
    }

    fn try_bind(port: u16) -> io::Result<Self> {
        let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let udp4: UdpSocket = new(SocketAddr::new(any4, port), Type::DGRAM)?.into();
        let port = udp4.local_addr()?.port();
        let tcp4 = new(SocketAddr::new(any4, port), Type::STREAM)?.into();
        let any6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let optional = |made: io::Result<Socket>| match made {
            Ok(socket) => Ok(Some(socket)),
            // No IPv6 in this kernel, or switched off.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let udp6 = optional(new(any6, Type::DGRAM))?.map(Into::into);
        let tcp6 = optional(new(any6, Type::STREAM))?.map(Into::into);
        Ok(Self { udp4, tcp4, udp6, tcp6, holder: None })
    }

    /// The port, where all have the same.
    pub(crate) fn port(&self) -> u16 {
        self.udp4.local_addr().map_or(0, |address| address.port())
    }

    /// The registrations that rpcbind is to know.
    pub(super) fn transports(&self) -> Vec<Place> {
        let place = |transport, address: io::Result<SocketAddr>| {
            address.ok().map(|a| Place { transport, address: a })
        };
        [
            place(Transport::Udp, self.udp4.local_addr()),
            place(Transport::Tcp, self.tcp4.local_addr()),
            self.udp6.as_ref().and_then(|socket| place(Transport::Udp, socket.local_addr())),
            self.tcp6.as_ref().and_then(|socket| place(Transport::Tcp, socket.local_addr())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Says to `heirlock supervise`, where that handed them over, that they are read from now on.
    pub(super) fn say_that_they_are_read(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            // A supervisor of an earlier version does not listen: it hears of us by our first answer.
            let _ = holder.write_all(b"r");
        }
    }

    /// Hands them to the process that reads the other end of this socket; they stay ours as well.
    ///
    /// # Errors
    /// Where the other end is gone.
    pub(crate) fn hand_over(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        let mut fds = vec![self.udp4.as_fd(), self.tcp4.as_fd()];
        fds.extend(self.udp6.as_ref().map(AsFd::as_fd));
        fds.extend(self.tcp6.as_ref().map(AsFd::as_fd));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("more sockets than were meant"));
        }
        rustix::net::sendmsg(to, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
        Ok(())
    }
}

/// Takes what [`Sockets::hand_over`] gave.
fn receive(from: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.extend(fds);
        }
    }
    Ok(received)
}

/// Tells sockets apart by their kind, in any order.
fn sort(fds: Vec<OwnedFd>) -> io::Result<Sockets> {
    let (mut udp4, mut tcp4, mut udp6, mut tcp6) = (None, None, None, None);
    for fd in fds {
        let socket = Socket::from(fd);
        // systemd hands them over without it, and no command that we run may keep them open.
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        match (socket.domain()?, socket.r#type()?) {
            (Domain::IPV4, Type::DGRAM) => udp4 = Some(socket.into()),
            (Domain::IPV4, Type::STREAM) => tcp4 = Some(socket.into()),
            (Domain::IPV6, Type::DGRAM) => udp6 = Some(socket.into()),
            (Domain::IPV6, Type::STREAM) => tcp6 = Some(socket.into()),
            (domain, kind) => {
                let what = format!("expected UDP and TCP sockets, found one of {domain:?} and {kind:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
    }
    match (udp4, tcp4) {
        (Some(udp4), Some(tcp4)) => Ok(Sockets { udp4, tcp4, udp6, tcp6, holder: None }),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a UDP and a TCP socket of IPv4 from systemd or heirlock supervise (heirlock.socket: ListenDatagram and ListenStream)",
        )),
    }
}

fn new(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        // As much as is permitted.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_handed_over_goes_on_with_the_requests_that_wait_in_it() {
        let sockets = Sockets::bind(0).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"a request", ("127.0.0.1", sockets.port())).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sockets.hand_over(ours.as_fd()).unwrap();
        let port = sockets.port();
        drop(sockets);
        let next = sort(receive(theirs.as_fd()).unwrap()).unwrap();
        assert_eq!(next.port(), port);
        next.udp4.set_nonblocking(false).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(next.udp4.recv_from(&mut buffer).unwrap().0, 9);
        assert!(next.transports().len() >= 2);
    }

    #[test]
    fn other_sockets_are_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(
            sort(vec![one.into(), other.into()]).unwrap_err().to_string().contains("expected UDP and TCP")
        );
        let lone = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(sort(vec![lone.into()]).unwrap_err().to_string().contains("heirlock.socket"));
    }
}
