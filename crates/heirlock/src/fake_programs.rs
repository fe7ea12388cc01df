//! Programs of ONC RPC that tests stand in for, each over UDP at an address of its own on the loopback interface. They
//! answer until the tests end.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use heirlock_nsm::rpc::{Call, encode_success};
use heirlock_nsm::rpcbind::encode_getport_result;

/// A program at this address and port, or at a free one where that is 0; answers its port. The result of `answer` for a
/// call is sent; `None` sends nothing.
pub(crate) fn program(
    address: &str,
    port: u16,
    answer: impl Fn(&Call<'_>, SocketAddr) -> Option<Vec<u8>> + Send + 'static,
) -> u16 {
    let socket = UdpSocket::bind((address, port)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || serve(&socket, answer));
    port
}

/// Answers each call that comes to this socket.
pub(crate) fn serve(socket: &UdpSocket, answer: impl Fn(&Call<'_>, SocketAddr) -> Option<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        let Ok(call) = Call::decode(&buffer[..count]) else { continue };
        if let Some(result) = answer(&call, from) {
            let _ = socket.send_to(&encode_success(call.xid, &result), from);
        }
    }
}

/// A program whose every call succeeds and has no result.
pub(crate) fn idle(address: &str) -> u16 {
    program(address, 0, |_, _| Some(Vec::new()))
}

/// An rpcbind that names this port for each program; `None` says that none is registered.
pub(crate) fn rpcbind(address: &str, port: u16, names: Option<u16>) -> u16 {
    program(address, port, move |_, _| Some(encode_getport_result(names)))
}

/// An rpcbind that names itself for each program, and answers as that program too.
pub(crate) fn rpcbind_and_programs(address: &str) -> u16 {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || serve(&socket, |_, _| Some(encode_getport_result(Some(port)))));
    port
}
