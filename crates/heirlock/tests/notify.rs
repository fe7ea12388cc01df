//! `heirlock notify`, as a user runs it, against clients that are real sockets on loopback addresses.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is the report"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Call, Deframer, encode_success, frame};
use heirlock_nsm::{rpcbind, sm};
use serde_json::Value;
use tempfile::TempDir;

const SERVER: &str = "127.78.0.1";

/// The notifications to each client: name and number, and the address that each came from.
type Told = Arc<Mutex<BTreeMap<Ipv4Addr, Vec<(String, u32)>>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    /// Its status monitor is registered over TCP alone.
    TcpAlone,
    /// Its rpcbind is heard over TCP alone, as its status monitor is.
    SilentOverUdp,
    Dead,
}

/// Clients on one port, which is their rpcbind and their status monitor at once.
struct Clients {
    port: u16,
    told: Told,
}

impl Clients {
    fn start(clients: &[(Ipv4Addr, Kind)]) -> Self {
        let told = Told::default();
        let (port, sockets) = (0..50)
            .find_map(|_| {
                let first = UdpSocket::bind((clients[0].0, 0)).unwrap();
                let port = first.local_addr().unwrap().port();
                let others = clients[1..].iter().map(|(address, _)| UdpSocket::bind((*address, port)));
                let mut sockets = vec![first];
                for other in others {
                    sockets.push(other.ok()?);
                }
                Some((port, sockets))
            })
            .expect("a port that is free at every client's address");
        for ((address, kind), socket) in clients.iter().zip(sockets) {
            let (address, kind, told) = (*address, *kind, Arc::clone(&told));
            let stream = match kind {
                Kind::TcpAlone => Some(TcpListener::bind((address, 0)).unwrap()),
                Kind::SilentOverUdp => Some(TcpListener::bind((address, port)).unwrap()),
                Kind::Udp | Kind::Dead => None,
            };
            let tcp_port = stream.as_ref().map(|listener| listener.local_addr().unwrap().port());
            if let Some(listener) = stream {
                let told = Arc::clone(&told);
                thread::spawn(move || serve_tcp(&listener, address, &told));
            }
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                    if matches!(kind, Kind::Udp | Kind::TcpAlone) {
                        let reply = answer(
                            &buffer[..count],
                            from,
                            address,
                            (kind == Kind::Udp).then_some(port),
                            tcp_port,
                            &told,
                        );
                        socket.send_to(&reply, from).unwrap();
                    }
                }
            });
        }
        Self { port, told }
    }

    fn told(&self, address: Ipv4Addr) -> Vec<(String, u32)> {
        self.told.lock().unwrap().get(&address).cloned().unwrap_or_default()
    }
}

fn serve_tcp(listener: &TcpListener, address: Ipv4Addr, told: &Told) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let from = stream.peer_addr().unwrap();
        let (mut deframer, mut buffer) = (Deframer::new(), [0; 2048]);
        let call = loop {
            let count = stream.read(&mut buffer).unwrap();
            deframer.push(&buffer[..count]);
            if let Some(call) = deframer.next_record().unwrap() {
                break call;
            }
        };
        // In two pieces, as a network may deliver it.
        let own = stream.local_addr().unwrap().port();
        let reply = frame(&answer(&call, from, address, None, Some(own), told));
        stream.write_all(&reply[..10]).unwrap();
        stream.write_all(&reply[10..]).unwrap();
    }
}

fn answer(
    call: &[u8],
    from: SocketAddr,
    address: Ipv4Addr,
    udp: Option<u16>,
    tcp: Option<u16>,
    told: &Told,
) -> Vec<u8> {
    assert_eq!(from.ip().to_string(), SERVER, "clients match the source address");
    let call = Call::decode(call).unwrap();
    let result = if call.prog == rpcbind::PROGRAM {
        let asked = rpcbind::decode_getport_args(call.args).unwrap();
        rpcbind::encode_getport_result(if asked.protocol == 17 { udp } else { tcp })
    } else {
        let notice = sm::Notify::decode(call.args).unwrap();
        let mut told = told.lock().unwrap();
        told.entry(address).or_default().push((notice.mon_name.to_owned(), notice.state.0));
        Vec::new()
    };
    encode_success(call.xid, &result)
}

fn state_directory(records: &[(&str, &str)], state: u32) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    #[expect(clippy::host_endian_bytes, reason = "nfs-utils writes an int as the machine has it")]
    let state = state.to_ne_bytes();
    for folder in ["sm", "sm.bak"] {
        fs::create_dir(directory.path().join(folder)).unwrap();
    }
    for (name, mon_name) in records {
        fs::write(directory.path().join("sm").join(name), line(mon_name)).unwrap();
    }
    fs::write(directory.path().join("state"), state).unwrap();
    directory
}

fn line(mon_name: &str) -> String {
    format!(
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {mon_name} nfs.example.test\n"
    )
}

fn names_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[expect(clippy::host_endian_bytes, reason = "as above")]
fn state_of(directory: &TempDir) -> u32 {
    u32::from_ne_bytes(fs::read(directory.path().join("state")).unwrap().try_into().unwrap())
}

fn command(directory: &TempDir, port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["notify", "--json", "--address", SERVER, "--rpcbind-port", &port.to_string(), "-P"]);
    command.arg(directory.path()).args(more);
    command
}

fn run(directory: &TempDir, port: u16, more: &[&str]) -> (i32, Value) {
    let output = command(directory, port, more).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), report)
}

fn both_names(number: u32) -> Vec<(String, u32)> {
    vec![("nfs.example.test".to_owned(), number), ("nfs".to_owned(), number)]
}

#[test]
fn every_client_is_told_over_its_own_transport_and_taken_off_the_list() {
    let [udp, tcp, silent, named] =
        [[127, 78, 1, 1], [127, 78, 1, 2], [127, 78, 1, 3], [127, 0, 0, 1]].map(Ipv4Addr::from);
    let clients = Clients::start(&[
        (udp, Kind::Udp),
        (tcp, Kind::TcpAlone),
        (silent, Kind::SilentOverUdp),
        (named, Kind::Udp),
    ]);
    let directory = state_directory(
        &[
            ("127.78.1.1", "127.78.1.1"),
            ("127.78.1.2", "127.78.1.2"),
            ("127.78.1.3", "127.78.1.3"),
            ("localhost", "localhost"),
        ],
        4,
    );
    let inode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().ino();
    let sm_before = inode("sm");
    let (exit, report) = run(&directory, clients.port, &[]);
    assert_eq!(exit, 0, "{report}");
    assert_eq!(inode("sm.bak"), sm_before, "a hundred thousand records are moved by one exchange");
    for client in [udp, tcp, silent, named] {
        assert_eq!(clients.told(client), both_names(7), "{client}");
    }
    assert_eq!((&report["state-number"], &report["acknowledged"]), (&7.into(), &4.into()));
    assert_eq!(state_of(&directory), 7);
    assert!(names_in(&directory.path().join("sm")).is_empty());
    assert!(names_in(&directory.path().join("sm.bak")).is_empty());
}

#[test]
fn a_client_that_does_not_answer_is_named_and_stays_on_the_list() {
    let [alive, dead] = [[127, 78, 2, 1], [127, 78, 2, 2]].map(Ipv4Addr::from);
    let clients = Clients::start(&[(alive, Kind::Udp), (dead, Kind::Dead)]);
    let directory = state_directory(&[("127.78.2.1", "x"), ("127.78.2.2", "127.78.2.2"), ("a.new", "a")], 5);
    fs::write(directory.path().join("sm.bak/no.such.name.invalid"), "torn").unwrap();
    let (exit, report) = run(&directory, clients.port, &["--name", "nfs.example.test", "--retry-time", "1s"]);
    assert_eq!(exit, 1, "{report}");
    assert_eq!(clients.told(alive), both_names(7));
    let left: Vec<&str> =
        report["left"].as_array().unwrap().iter().map(|l| l["client"].as_str().unwrap()).collect();
    assert_eq!(left, ["127.78.2.2", "no.such.name.invalid", "sm/a.new"]);
    assert!(report["problems"].to_string().contains("no.such.name.invalid"), "{report}");
    assert_eq!(names_in(&directory.path().join("sm.bak")), ["127.78.2.2", "no.such.name.invalid"]);
    assert_eq!(names_in(&directory.path().join("sm")), ["a.new"]);
}

#[test]
fn a_client_that_can_not_be_told_is_named_and_the_exit_code_says_so() {
    for (file, mon_name, shown, why) in [
        ("fe80::21%no-such-if", "fe80::21%no-such-if", "fe80::21%no-such-if", "no interface no-such-if"),
        ("255.255.255.255", "255.255.255.255", "255.255.255.255", "broadcast"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "unspecified"),
        (
            "caf\u{202e}.example",
            "127.78.5.1",
            "sm/caf\\xe2\\x80\\xae.example",
            "found one with '\\u{202e}' in it",
        ),
        ("client.new", "client.new", "sm/client.new", "temporary file"),
    ] {
        let directory = state_directory(&[], 5);
        fs::write(directory.path().join("sm").join(file), line("127.78.5.1").replace("127.78.5.1", mon_name))
            .unwrap();
        let (exit, report) = run(&directory, 9, &["--retry-time", "1s"]);
        assert_eq!(exit, 1, "{file}: {report}");
        let left = &report["left"][0];
        assert_eq!(left["client"], shown, "{report}");
        assert!(left["why"].as_str().unwrap().contains(why), "{report}");
    }
    // A file that nfs-utils did not come to rename is no client.
    let directory = state_directory(&[], 5);
    fs::write(directory.path().join("sm/127.78.5.1.new"), "0100007f 00").unwrap();
    let (exit, report) = run(&directory, 9, &[]);
    assert_eq!((exit, &report["left"]), (0, &Value::Array(Vec::new())));
}

#[test]
fn a_client_whose_name_is_beyond_ascii_is_told_where_its_record_leads() {
    let client = Ipv4Addr::from([127, 78, 7, 1]);
    let clients = Clients::start(&[(client, Kind::Udp)]);
    let directory = state_directory(&[("bücher.example", "127.78.7.1")], 5);
    let (exit, report) = run(&directory, clients.port, &["--retry-time", "20s"]);
    assert_eq!((exit, clients.told(client)), (0, both_names(7)), "{report}");
    assert!(names_in(&directory.path().join("sm.bak")).is_empty());
}

#[test]
fn an_interrupted_run_goes_on_under_its_number_with_those_alone_that_have_not_answered() {
    let [alive, late] = [[127, 78, 3, 1], [127, 78, 3, 2]].map(Ipv4Addr::from);
    let clients = Clients::start(&[(alive, Kind::Udp), (late, Kind::Dead)]);
    let directory = state_directory(&[("127.78.3.1", "x"), ("127.78.3.2", "x")], 5);
    let mut interrupted = command(&directory, clients.port, &[]).spawn().unwrap();
    let left = directory.path().join("sm.bak");
    let until = Instant::now() + Duration::from_secs(120);
    while clients.told(alive).len() < 2 || names_in(&left).len() != 1 {
        assert!(Instant::now() < until, "{:?}", names_in(&left));
        thread::sleep(Duration::from_millis(5));
    }
    let (exit, refused) = run(&directory, clients.port, &[]);
    assert_eq!(exit, 3, "two at a time: {refused}");
    interrupted.kill().unwrap();
    interrupted.wait().unwrap();
    // It registered again meanwhile, which is no reason to tell it again.
    fs::write(directory.path().join("sm/127.78.3.1"), line("127.78.3.1")).unwrap();

    let revived = Clients::start(&[(late, Kind::Udp), (alive, Kind::Udp)]);
    let (exit, report) = run(&directory, revived.port, &["--resume"]);
    assert_eq!(exit, 0, "{report}");
    assert_eq!(revived.told(late), both_names(7));
    assert!(revived.told(alive).is_empty());
    assert_eq!(names_in(&directory.path().join("sm")), ["127.78.3.1"]);
    assert_eq!(state_of(&directory), 7);
}

#[test]
fn where_no_client_is_on_record_nothing_is_counted_and_a_foreign_address_is_refused_before_anything_is_moved()
{
    let directory = state_directory(&[], 5);
    let (exit, report) = run(&directory, 111, &[]);
    assert_eq!((exit, &report["clients"], state_of(&directory)), (0, &0.into(), 5));

    let directory = state_directory(&[("127.78.4.1", "x")], 5);
    let (exit, report) = run(&directory, 111, &["--address", "192.0.2.77"]);
    assert_eq!(exit, 3);
    assert!(report["error"].as_str().unwrap().contains("192.0.2.77"), "{report}");
    assert_eq!(
        (names_in(&directory.path().join("sm")), state_of(&directory)),
        (vec!["127.78.4.1".to_owned()], 5)
    );
}

#[test]
fn an_entry_that_is_left_out_is_named_and_the_exit_code_says_so() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let told = Ipv4Addr::from([127, 78, 5, 1]);
    let clients = Clients::start(&[(told, Kind::Udp)]);
    let directory = state_directory(&[("127.78.5.1", "127.78.5.1")], 5);
    let sm = directory.path().join("sm");
    let secret = directory.path().join("secret");
    fs::write(&secret, "only for root").unwrap();
    symlink(&secret, sm.join("127.78.5.2")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, sm.join("127.78.5.3"), kind, mode, 0).unwrap();
    fs::write(sm.join("127.78.5.4.new"), line("127.78.5.4")).unwrap();
    fs::write(sm.join(std::ffi::OsStr::from_bytes(b"caf\xe9.example")), line("127.78.5.5")).unwrap();
    fs::write(directory.path().join("sm.bak/127.78.5.1"), "").unwrap();
    fs::create_dir(sm.join("a-folder")).unwrap();
    let (exit, report) = run(&directory, clients.port, &["--name", "nfs.example.test"]);
    assert_eq!(exit, 1, "{report}");
    assert_eq!((clients.told(told), &report["acknowledged"]), (both_names(7), &1.into()));
    let left: Vec<&str> =
        report["left"].as_array().unwrap().iter().map(|left| left["client"].as_str().unwrap()).collect();
    assert_eq!(left.len(), 5, "{report}");
    for named in ["127.78.5.2", "127.78.5.3", "127.78.5.4.new", "caf\\xe9.example", "a-folder"] {
        assert!(left.contains(&format!("sm/{named}").as_str()), "{named}: {report}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "only for root");
    // With no other client on record an entry that is left out counts as well.
    let (exit, report) = run(&directory, clients.port, &[]);
    assert_eq!((exit, &report["clients"]), (1, &0.into()), "{report}");
}

#[test]
fn a_record_that_can_not_be_moved_concerns_its_client_alone_and_state_is_never_a_link() {
    use std::os::unix::fs::symlink;
    let told = Ipv4Addr::from([127, 78, 6, 1]);
    let clients = Clients::start(&[(told, Kind::Udp)]);
    let directory = state_directory(&[("127.78.6.1", "x"), ("127.78.6.2", "x")], 5);
    fs::create_dir(directory.path().join("sm.bak/127.78.6.2")).unwrap();
    let (exit, report) = run(&directory, clients.port, &["--name", "nfs.example.test"]);
    assert_eq!((exit, &report["acknowledged"]), (1, &1.into()), "{report}");
    assert!(report["left"].to_string().contains("it can't be moved to "), "{report}");
    assert_eq!(names_in(&directory.path().join("sm")), ["127.78.6.2"]);

    let directory = state_directory(&[("127.78.6.1", "x")], 5);
    let secret = directory.path().join("secret");
    fs::rename(directory.path().join("state"), &secret).unwrap();
    symlink(&secret, directory.path().join("state")).unwrap();
    let (exit, report) = run(&directory, clients.port, &["--name", "nfs.example.test"]);
    assert_eq!(exit, 1, "{report}");
    assert!(report["error"].as_str().unwrap().contains("symbolic link"), "{report}");
    assert_eq!(fs::read(&secret).unwrap()[0].max(fs::read(&secret).unwrap()[3]), 5, "as it was");
}
