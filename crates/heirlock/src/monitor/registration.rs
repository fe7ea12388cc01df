//! Keeps rpcbind knowing where the status monitor is: looked at again and again, and registered again when rpcbind was
//! restarted or another program took the place. A connection to rpcbind that is kept open tells of its end at once. It is never taken away: a status monitor that is registered and gone
//! makes lockd refuse at once, one that is not registered makes it grant without a record after a minute.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use heirlock_nsm::rpc::{Deframer, Reply, frame};
use heirlock_nsm::rpcbind::{self, Registered, Transport};
use heirlock_nsm::sm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Options;
use super::sockets::Place;
use crate::rpc_client;
use crate::threads;

/// How often it is looked at, where rpcbind can't be reached over its local socket or something is wrong.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked at while all is well, and rpcbind's end would be seen at once: another program may take the place.
const INTERVAL_AT_REST: Duration = Duration::from_secs(5);

/// How long after its end rpcbind is looked for again: it is being restarted.
const RESTART_TIME: Duration = Duration::from_millis(300);

/// How long rpcbind, or another status monitor, may take to answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// The transport over which lockd asks rpcbind for the status monitor (fs/lockd/mon.c).
const LOCKD_ASKS_OVER: &str = "tcp";

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
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(options: Options, places: Vec<Place>) -> io::Result<()> {
    threads::start("registration", move || {
        let (mut said, mut held) = (None, Held::default());
        loop {
            let (problems, left_out) = keep_all(&options, &places);
            if said.as_ref() != Some(&(problems.clone(), left_out.clone())) {
                if problems.is_empty() {
                    let over = match left_out.as_slice() {
                        [] => String::new(),
                        some => format!(", which does not serve {}", some.join(", ")),
                    };
                    tracing::info!(?left_out, "the status monitor is registered at rpcbind{over}");
                } else {
                    tracing::error!(
                        ?problems,
                        "the status monitor is not registered at rpcbind, and lockd would grant without it after a minute: {}",
                        problems.join("; ")
                    );
                }
                said = Some((problems, left_out));
            }
            let is_well = said.as_ref().is_some_and(|(problems, _)| problems.is_empty());
            held.wait(&options, is_well);
        }
    })?;
    Ok(())
}

/// A connection to rpcbind over which nothing is asked: rpcbind closes it when it ends, or when nothing was asked for long.
#[derive(Default)]
struct Held(Option<UnixStream>);

impl Held {
    /// Until rpcbind has ended, or is to be looked at in any case.
    fn wait(&mut self, options: &Options, is_well: bool) {
        if self.0.is_none() {
            self.0 = UnixStream::connect(&options.rpcbind_socket).ok();
        }
        let Some(stream) = self.0.as_ref().filter(|_| is_well) else {
            return thread::sleep(INTERVAL);
        };
        let limit = Timespec::try_from(INTERVAL_AT_REST).ok();
        if let Ok(1..) = poll(&mut [PollFd::new(stream, PollFlags::IN)], limit.as_ref()) {
            self.0 = None;
            thread::sleep(RESTART_TIME);
        }
    }
}

/// Registers the transports that are not. Returns what is wrong, and which transports rpcbind does not serve at all.
fn keep_all(options: &Options, places: &[Place]) -> (Vec<String>, Vec<&'static str>) {
    // Over its local socket rpcbind tells of all transports at once, also of those that it does not serve to the network.
    let known = registered(options).ok();
    let (mut problems, mut left_out) = (Vec::new(), Vec::new());
    for place in places {
        let serves = |known: &Vec<Registered>| {
            known.iter().any(|one| one.prog == rpcbind::PROGRAM && one.netid == netid(*place))
        };
        if known.as_ref().is_none_or(serves) {
            problems.extend(keep(options, *place, known.as_deref()).err());
        } else if netid(*place) == LOCKD_ASKS_OVER {
            problems.push(format!("rpcbind does not serve {LOCKD_ASKS_OVER}, over which lockd asks for it"));
        } else {
            left_out.push(netid(*place));
        }
    }
    (problems, left_out)
}

fn keep(options: &Options, place: Place, known: Option<&[Registered]>) -> Result<(), String> {
    let port = place.address.port();
    let before = match known {
        Some(known) => port_in(known, place),
        None => found(options, place)?,
    };
    match before {
        Some(known) if known == port => return Ok(()),
        Some(other) => {
            tracing::warn!(
                other,
                "port {other} was registered for the status monitor at rpcbind instead of {port}; it is set right"
            );
            register(options, place, true)?;
        }
        None => {
            tracing::info!(
                port,
                transport = netid(place),
                "the status monitor is being registered at rpcbind: {} port {port}",
                netid(place)
            );
            register(options, place, false)?;
        }
    }
    let after = registered(options).map(|known| port_in(&known, place)).or_else(|_| found(options, place))?;
    match after {
        Some(known) if known == port => Ok(()),
        other => Err(format!("rpcbind took {} at port {port} in, and says {other:?}", netid(place))),
    }
}

fn port_in(known: &[Registered], place: Place) -> Option<u16> {
    let ours = |one: &&Registered| (one.prog, one.vers) == STATUS_MONITOR && one.netid == netid(place);
    let one = known.iter().find(ours)?;
    rpcbind::parse_universal_address(&one.address).ok().map(|address| address.port())
}

/// Asked over the network, where there is no local socket.
fn found(options: &Options, place: Place) -> Result<Option<u16>, String> {
    let here = match place.address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    rpc_client::find_over(here, options.rpcbind_port, STATUS_MONITOR, place.transport, PATIENCE)
}

fn registered(options: &Options) -> Result<Vec<Registered>, String> {
    let dump = rpcbind::encode_dump_call(fastrand::u32(..));
    let result = local_call(options, &dump).map_err(|error| in_words(options, &error))?;
    rpcbind::decode_dump_result(&result).map_err(|error| error.to_string())
}

fn register(options: &Options, place: Place, instead: bool) -> Result<(), String> {
    let ask = |message: &[u8]| {
        let result = local_call(options, message).map_err(|error| in_words(options, &error))?;
        rpcbind::decode_registration_result(&result).map_err(|error| error.to_string())
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

fn in_words(options: &Options, error: &io::Error) -> String {
    format!("rpcbind at {}: {error}", options.rpcbind_socket.display())
}

/// Over rpcbind's local socket, where it sees the user of the program that asks.
fn local_call(options: &Options, message: &[u8]) -> io::Result<Vec<u8>> {
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
            return reply.outcome.map(<[u8]>::to_vec).map_err(io::Error::other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    use heirlock_core::monitor::{Rules, WhenUnprotected};
    use heirlock_nsm::rpc::{Call, encode_success};
    use heirlock_nsm::xdr::{Reader, Writer};

    use super::*;
    use crate::host::Host;
    use crate::monitor::Trust;

    type Table = Arc<Mutex<Vec<(u32, String, String)>>>;

    /// An rpcbind that is reached by its local socket, serves these transports to the network, and knows no other.
    fn rpcbind(at: &std::path::Path, serves: &[&str]) -> Table {
        let table: Vec<_> =
            serves.iter().map(|netid| (rpcbind::PROGRAM, (*netid).to_owned(), String::new())).collect();
        let (table, listener) = (Arc::new(Mutex::new(table)), UnixListener::bind(at).unwrap());
        let shared = Arc::clone(&table);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut deframer, mut buffer) = (stream.unwrap(), Deframer::new(), [0; 1024]);
                let call = loop {
                    let count = stream.read(&mut buffer).unwrap();
                    deframer.push(&buffer[..count]);
                    if let Some(call) = deframer.next_record().unwrap() {
                        break call;
                    }
                };
                let call = Call::decode(&call).unwrap();
                let result = answer(&call, &mut shared.lock().unwrap());
                stream.write_all(&frame(&encode_success(call.xid, &result))).unwrap();
            }
        });
        table
    }

    fn answer(call: &Call<'_>, table: &mut Vec<(u32, String, String)>) -> Vec<u8> {
        let mut writer = Writer::new();
        if call.proc_ == rpcbind::DUMP {
            for (prog, netid, address) in table.iter() {
                writer.u32(1).u32(*prog).u32(1).string(netid).string(address).string("superuser");
            }
            writer.u32(0);
            return writer.into_bytes();
        }
        assert_eq!(call.proc_, rpcbind::SET);
        let mut reader = Reader::new(call.args);
        let (prog, _) = (reader.u32("prog").unwrap(), reader.u32("vers").unwrap());
        let (netid, address) = (reader.string("netid", 64).unwrap(), reader.string("address", 64).unwrap());
        let served = table.iter().any(|(_, other, _)| other == netid);
        if served {
            table.push((prog, netid.to_owned(), address.to_owned()));
        }
        writer.u32(u32::from(served));
        writer.into_bytes()
    }

    fn options_in(directory: &std::path::Path) -> Options {
        Options {
            rules: Rules {
                mon_timeout: Duration::from_millis(500),
                when_unprotected: WhenUnprotected::Refuse,
            },
            state_directory: directory.into(),
            runtime_directory: directory.into(),
            host: Host::here(),
            rpcbind_port: 9,
            rpcbind_socket: directory.join("rpcbind.sock"),
            trust: Trust::ANY_PORT,
        }
    }

    fn keep_with(serves: &[&str]) -> (Vec<String>, Vec<&'static str>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let options = options_in(directory.path());
        let table = rpcbind(&options.rpcbind_socket, serves);
        let place = |transport, address: &str| Place { transport, address: address.parse().unwrap() };
        let places = [
            place(Transport::Udp, "0.0.0.0:662"),
            place(Transport::Tcp, "0.0.0.0:662"),
            place(Transport::Udp, "[::]:662"),
            place(Transport::Tcp, "[::]:662"),
        ];
        let (problems, left_out) = keep_all(&options, &places);
        let table = table.lock().unwrap();
        let ours = table.iter().filter(|(prog, ..)| *prog == sm::PROGRAM);
        let ours = ours.map(|(_, netid, address)| format!("{netid} {address}")).collect();
        (problems, left_out, ours)
    }

    #[test]
    fn a_transport_that_rpcbind_serves_is_registered_and_another_is_no_fault() {
        let (problems, left_out, ours) = keep_with(&["tcp", "tcp6", "local"]);
        assert_eq!((problems, left_out), (Vec::new(), vec!["udp", "udp6"]));
        assert_eq!(ours, ["tcp 0.0.0.0.2.150", "tcp6 ::.2.150"]);
        let (problems, left_out, ours) = keep_with(&["udp", "tcp"]);
        assert_eq!((problems.len(), left_out.len(), ours.len()), (0, 2, 2));
    }

    #[test]
    fn the_end_of_rpcbind_is_seen_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let options = options_in(directory.path());
        let listener = UnixListener::bind(&options.rpcbind_socket).unwrap();
        let mut held = Held::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                thread::sleep(Duration::from_millis(20));
                drop(stream);
            });
            // One wait would not end by itself while the connection is there, and none of it is kept after its end.
            let began = std::time::Instant::now();
            while held.0.is_some() || began.elapsed() < Duration::from_millis(1) {
                held.wait(&options, true);
                assert!(began.elapsed() < Duration::from_secs(60), "its end was not seen");
            }
        });
        assert!(held.0.is_none());
    }

    #[test]
    fn without_what_lockd_asks_over_it_is_a_fault() {
        let (problems, ..) = keep_with(&["udp"]);
        assert_eq!(problems, ["rpcbind does not serve tcp, over which lockd asks for it"]);
    }
}
