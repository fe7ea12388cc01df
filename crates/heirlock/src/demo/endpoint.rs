//! The common parts of all that the demo plays: datagram sockets, and rpcbind's answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use heirlock_nsm::rpc::{Call, ReplyError, encode_error, encode_success};
use heirlock_nsm::rpcbind::{self, Transport};

/// Bytes of the largest datagram that is looked at: all calls of these programs are far smaller.
const DATAGRAM_BYTES_MAX: usize = 4 * 1024;

/// A program that is registered with a played rpcbind: its number, version and UDP port.
pub(super) type Registered = (u32, u32, u16);

/// A datagram socket of a played machine.
pub(super) fn bind(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Hands on every datagram that has come, and sends back what is made of it.
pub(super) fn serve(socket: &UdpSocket, mut answer: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((count, from)) => {
                if let Some(reply) = answer(&buffer[..count], from) {
                    // An answer that can't be sent is as good as lost on the way: the caller repeats its call.
                    let _ = socket.send_to(&reply, from);
                }
            }
            // An ICMP error of an earlier answer says nothing about the next call.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

/// The answer of a port mapper that knows these programs.
pub(super) fn answer_rpcbind(datagram: &[u8], registered: &[Registered]) -> Option<Vec<u8>> {
    // A message that is no call gets no answer, as everywhere.
    let call = Call::decode(datagram).ok()?;
    let refuse = |error| Some(encode_error(call.xid, &error));
    match (call.prog, call.vers, call.proc_) {
        (rpcbind::PROGRAM, rpcbind::VERSION_2, 0) => Some(encode_success(call.xid, &[])),
        (rpcbind::PROGRAM, rpcbind::VERSION_2, rpcbind::GETPORT) => {
            let Ok(asked) = rpcbind::decode_getport_args(call.args) else {
                return refuse(ReplyError::GarbageArgs);
            };
            let known = registered.iter().find(|(prog, vers, _)| (*prog, *vers) == (asked.prog, asked.vers));
            let port =
                known.filter(|_| asked.protocol == Transport::Udp.protocol()).map(|(_, _, port)| *port);
            Some(encode_success(call.xid, &rpcbind::encode_getport_result(port)))
        }
        (rpcbind::PROGRAM, rpcbind::VERSION_2, _) => refuse(ReplyError::ProcUnavailable),
        (rpcbind::PROGRAM, ..) => refuse(ReplyError::ProgMismatch { low: 2, high: 2 }),
        _ => refuse(ReplyError::ProgUnavailable),
    }
}
