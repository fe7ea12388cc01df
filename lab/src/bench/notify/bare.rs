//! The least that could be done: a loop that sends the same messages from one socket and does nothing else. No retry, no
//! time, no check of the source.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::clients::address;

/// Calls that are out at a time.
const WINDOW: usize = 1024;

/// Calls each client once, then under each name; gives up where nothing comes for a second.
pub(super) fn run(from: Ipv4Addr, clients: usize, names: &[&str], number: u32) -> Result<Instant> {
    let socket = UdpSocket::bind((from, 0))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 * 1024 * 1024)?;
    let messages: Vec<Vec<u8>> =
        [getport()].into_iter().chain(names.iter().map(|name| notice(name, number))).collect();
    // Message that each has still to answer; the transaction is the client.
    let mut asked = vec![0_usize; clients];
    let mut ports = vec![111_u16; clients];
    let (mut next, mut out, mut left) = (0, 0, clients);
    let mut buffer = [0; 1500];
    let send = |client: usize, message: usize, port: u16| -> io::Result<()> {
        let mut bytes = messages[message].clone();
        bytes[..4].copy_from_slice(&u32::try_from(client).unwrap_or(0).to_be_bytes());
        socket.send_to(&bytes, SocketAddr::from((address(client), port))).map(drop)
    };
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    while left > 0 {
        while next < clients && out < WINDOW {
            send(next, 0, 111)?;
            (next, out) = (next + 1, out + 1);
        }
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { break };
        let Some(xid) = buffer.first_chunk::<4>() else { continue };
        let client = usize::try_from(u32::from_be_bytes(*xid))?;
        if asked[client] == 0 && length >= 28 {
            ports[client] = u16::from_be_bytes([buffer[26], buffer[27]]);
        }
        asked[client] += 1;
        if asked[client] == messages.len() {
            (left, out) = (left - 1, out - 1);
        } else {
            send(client, asked[client], ports[client])?;
        }
    }
    Ok(Instant::now())
}

fn getport() -> Vec<u8> {
    call(100_000, 2, 3, &[100_024, 1, 17, 0].map(u32::to_be_bytes).concat())
}

fn notice(name: &str, number: u32) -> Vec<u8> {
    let mut args = u32::try_from(name.len()).unwrap_or(0).to_be_bytes().to_vec();
    args.extend(name.as_bytes());
    args.resize(args.len().next_multiple_of(4), 0);
    args.extend(number.to_be_bytes());
    call(100_024, 1, 6, &args)
}

fn call(program: u32, version: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
    let mut bytes = [0, 0, 2, program, version, procedure, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
    bytes.extend(args);
    bytes
}
