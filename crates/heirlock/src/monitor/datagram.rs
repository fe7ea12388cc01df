//! Requests and answers over UDP. An answer leaves from the address that was asked: on a server with several, a caller
//! that checks where an answer comes from would not take it otherwise.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::from_elsewhere;

/// Bytes of the longest request: two names of 1,024, and the fields around them.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Requests after which others get their turn. The kernel may join some dozens of one sender, which are taken whole.
const AT_ONCE: usize = 32;

/// One socket.
pub(super) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Back {
    pub(super) to: SocketAddr,
    from: Option<IpAddr>,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket, state, buffer: vec![0; REQUEST_BYTES_MAX] })
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, mut request: impl FnMut(&[u8], Back)) {
        let mut taken = 0;
        while taken < AT_ONCE {
            let mut meta = [RecvMeta::default()];
            let mut buffers = [IoSliceMut::new(&mut self.buffer)];
            match self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut meta) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An ICMP error of an earlier answer is of no interest either.
                Err(_) => return,
            }
            let [RecvMeta { addr, len, stride, dst_ip, .. }] = meta;
            // An empty one is work as well.
            taken += 1;
            // The kernel may join several of the same length.
            for message in self.buffer[..len].chunks(stride.max(1)) {
                request(message, Back { to: addr, from: dst_ip });
                taken += 1;
            }
        }
    }

    /// Answers. Where the answer can't be sent, the request comes again.
    pub(super) fn answer(&self, bytes: &[u8], back: Back) {
        let transmit = Transmit {
            destination: back.to,
            ecn: None,
            contents: bytes,
            segment_size: None,
            src_ip: back.from,
        };
        if let Err(error) = self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
            && from_elsewhere::may_say("not sent", back.to.ip())
        {
            tracing::debug!(to = %back.to, %error, "an answer could not be sent");
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
