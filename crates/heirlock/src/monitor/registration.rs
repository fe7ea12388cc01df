//! Keeps rpcbind knowing where the status monitor is: looked at every second, and registered again when rpcbind was
//! restarted or somebody else took the place. It is never taken away: a status monitor that is registered and gone makes
//! lockd refuse at once, one that is not registered makes it grant without a record after a minute.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use heirlock_nsm::rpc::{Deframer, Reply, frame};
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::sm;

use super::sockets::Place;
use super::{Options, OwnState};
use crate::rpc_client;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long rpcbind, or another status monitor, may take to answer.
const PATIENCE: Duration = Duration::from_millis(700);

pub(super) const STATUS_MONITOR: (u32, u32) = (sm::PROGRAM, sm::VERSION);

/// Two status monitors would each know half of the clients.
///
/// # Errors
/// Where one answers at another port than ours.
pub(super) fn refuse_a_second_one(options: &Options, port: u16) -> Result<()> {
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for transport in [Transport::Udp, Transport::Tcp] {
        let found = rpc_client::find_over(here, options.rpcbind_port, STATUS_MONITOR, transport, PATIENCE);
        let Ok(Some(other)) = found else { continue };
        let address = SocketAddr::new(here, other);
        if other != port && rpc_client::call_null(address, transport, STATUS_MONITOR, PATIENCE).is_ok() {
            bail!(
                "another status monitor answers at port {other}: stop it first (systemctl disable --now rpc-statd.service; 'heirlock enable' does), or say capture.mode = \"watch\""
            );
        }
    }
    Ok(())
}

/// Begins to look after it.
pub(super) fn start(options: Options, places: Vec<Place>, state: OwnState) {
    thread::spawn(move || {
        let mut said = Vec::new();
        loop {
            let problems: Vec<String> =
                places.iter().filter_map(|place| keep(&options, *place).err()).collect();
            if problems != said {
                match problems.is_empty() {
                    true => tracing::info!("the status monitor is registered at rpcbind"),
                    false => {
                        tracing::error!(
                            ?problems,
                            "the status monitor is not registered at rpcbind: lockd would grant without it after a minute"
                        );
                    }
                }
                said = problems;
            }
            state.refresh(&options.state_directory);
            thread::sleep(INTERVAL);
        }
    });
}

fn keep(options: &Options, place: Place) -> Result<(), String> {
    let port = place.address.port();
    match found(options, place) {
        Ok(Some(known)) if known == port => return Ok(()),
        Ok(Some(other)) => {
            tracing::warn!(other, "another port was registered for the status monitor; it is set right");
            register(options, place, true)?;
        }
        Ok(None) => {
            tracing::info!(port, transport = netid(place), "the status monitor is being registered");
            register(options, place, false)?;
        }
        Err(why) => return Err(why),
    }
    match found(options, place)? {
        Some(known) if known == port => Ok(()),
        other => Err(format!("rpcbind took {} at port {port} in, and says {other:?}", netid(place))),
    }
}

fn found(options: &Options, place: Place) -> Result<Option<u16>, String> {
    let here = match place.address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    rpc_client::find_over(here, options.rpcbind_port, STATUS_MONITOR, place.transport, PATIENCE)
}

fn register(options: &Options, place: Place, instead: bool) -> Result<(), String> {
    let ask = |message: &[u8]| {
        local_call(options, message)
            .map_err(|error| format!("rpcbind at {}: {error}", options.rpcbind_socket.display()))
    };
    if instead {
        ask(&rpcbind::encode_unset_call(fastrand::u32(..), sm::PROGRAM, sm::VERSION, netid(place)))?;
    }
    let set =
        rpcbind::encode_set_call(fastrand::u32(..), sm::PROGRAM, sm::VERSION, netid(place), place.address);
    match ask(&set)? {
        true => Ok(()),
        false => Err(format!("rpcbind refuses to register {}: it must be asked by root", netid(place))),
    }
}

fn netid(place: Place) -> &'static str {
    match (place.transport, place.address.is_ipv4()) {
        (Transport::Udp, true) => "udp",
        (Transport::Tcp, true) => "tcp",
        (Transport::Udp, false) => "udp6",
        (Transport::Tcp, false) => "tcp6",
    }
}

/// Over rpcbind's local socket, where it sees who asks.
fn local_call(options: &Options, message: &[u8]) -> io::Result<bool> {
    let mut stream = UnixStream::connect(&options.rpcbind_socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&frame(message))?;
    let mut deframer = Deframer::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        deframer.push(&buffer[..count]);
        if let Some(record) = deframer.next_record().map_err(io::Error::other)? {
            let reply = Reply::decode(&record).map_err(io::Error::other)?;
            let result = reply.outcome.map_err(io::Error::other)?;
            return rpcbind::decode_registration_result(result).map_err(io::Error::other);
        }
    }
}
