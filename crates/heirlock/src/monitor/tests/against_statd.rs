//! The same list of questions put to rpc.statd and to heirlock; each difference is named and wanted.
//!
//! Runs in network, mount and process namespaces of its own, with a rpcbind of its own: only root can make them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use heirlock_nsm::rpc::Reply;

use super::*;
use crate::fake_programs::serve;

const NSM: &str = "/var/lib/nfs";

/// The wanted differences, each with its reason: the question, rpc.statd's answer, ours.
const WANTED: &[(&str, &str, &str)] = &[
    // No name is resolved on the way: neither at registration nor at failover may a dead name server count.
    ("stat of a name without an address", "fail 3", "ok 3"),
    ("mon of a name without an address", "fail -1", "ok 3"),
    // Files are named by the address, so that they mean the same on every server.
    ("files after mon of a client with a reverse name", "client1.example", "127.1.0.1"),
    // rpc.statd dies of it (exit 139).
    ("simulated crash with three clients", "gone", "still there"),
];

#[test]
fn heirlock_answers_as_rpc_statd_does_save_for_what_we_want_otherwise() {
    let there = |program: &str| {
        Path::new("/usr/sbin").join(program).exists() || Path::new("/sbin").join(program).exists()
    };
    let are_here = there("rpc.statd") && there("rpcbind");
    let name =
        "monitor::tests::against_statd::heirlock_answers_as_rpc_statd_does_save_for_what_we_want_otherwise";
    if crate::namespaces::is_inside(name, are_here, "root, rpc.statd (nfs-common) and rpcbind") {
        inside();
    }
}

fn inside() {
    sh("ip link set lo up");
    sh(
        "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /run/heirlock /run/rpcbind",
    );
    fs::write("/run/hosts", "127.0.0.1 localhost\n127.1.0.1 client1.example\n").unwrap();
    sh("mount --bind /run/hosts /etc/hosts");
    // Names are looked for in that file alone.
    fs::write(
        "/run/nsswitch.conf",
        "hosts: files\nservices: files\npasswd: files\nrpc: files\nnetconfig: files\n",
    )
    .unwrap();
    sh("mount --bind /run/nsswitch.conf /etc/nsswitch.conf");
    let mut rpcbind = Command::new("rpcbind").arg("-f").spawn().unwrap();
    wait_until("rpcbind", || {
        UdpSocket::bind("127.0.0.1:111").is_err() && Path::new("/run/rpcbind.sock").exists()
    });
    let mut statd = Command::new("rpc.statd").args(["-F", "-L"]).stderr(Stdio::null()).spawn().unwrap();
    let theirs = observe(Some(&mut statd));
    let _ = statd.kill();
    statd.wait().unwrap();
    sh("rm -rf /var/lib/nfs && mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak");
    // A registration that rpc.statd left is set right.
    let _monitor = start_here();
    let ours = observe(None);
    rpcbind.kill().unwrap();
    rpcbind.wait().unwrap();
    compare(&theirs, &ours);
}

fn start_here() -> SharedMonitor {
    let options = Options {
        rules: rules(),
        state_directory: NSM.into(),
        runtime_directory: "/run/heirlock".into(),
        host: Host::here(),
        rpcbind_port: 111,
        rpcbind_socket: "/run/rpcbind.sock".into(),
        // The common behaviour of the two is compared; rpc.statd looks at no port.
        trust: Trust::ANY_PORT,
    };
    let (sender, receiver) = channel();
    let sockets = Sockets::bind(0).unwrap();
    let port = sockets.port();
    let (monitor, _number) =
        start(&options, options.host.peers(), sockets, |_| Ok(()), Turns::unwatched(), wanted_by(sender))
            .unwrap();
    record(monitor.clone(), options, receiver, StoreIs::Well, Arc::default());
    wait_until("our registration", || {
        registered(Transport::Tcp) == Some(port) && registered(Transport::Udp) == Some(port)
    });
    monitor
}

fn compare(theirs: &BTreeMap<&str, String>, ours: &BTreeMap<&str, String>) {
    let mut wrong = Vec::new();
    for (question, their) in theirs {
        let our = &ours[question];
        let wanted = WANTED.iter().find(|(name, ..)| name == question);
        match wanted {
            Some((_, t, o)) if their == t && our == o => {}
            None if their == our => {}
            _ => wrong
                .push(format!("{question}:\n  rpc.statd {their}\n  heirlock  {our}\n  wanted    {wanted:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(WANTED.iter().all(|(name, ..)| theirs.contains_key(name)), "a difference that is not wanted");
    println!("{} questions, {} differences, all wanted", theirs.len(), WANTED.len());
}

fn registered(transport: Transport) -> Option<u16> {
    rpc_client::find_over([127, 0, 0, 1].into(), 111, (sm::PROGRAM, sm::VERSION), transport, PATIENCE)
        .ok()
        .flatten()
}

/// Puts all questions, in an order in which one prepares for the next.
fn observe(mut process: Option<&mut Child>) -> BTreeMap<&'static str, String> {
    wait_until("a status monitor", || {
        registered(Transport::Udp).zip(registered(Transport::Tcp)).is_some_and(|(udp, _)| {
            let null = message(Procedure::Null, &[]);
            rpc_client::call(([127, 0, 0, 1], udp).into(), Transport::Udp, &null, PATIENCE).is_ok()
        })
    });
    let at = Place { udp: registered(Transport::Udp).unwrap(), tcp: registered(Transport::Tcp).unwrap() };
    let mut seen = BTreeMap::new();
    at.registrations(&mut seen);
    at.refusals(&mut seen);
    at.removals(&mut seen);
    at.notifications(&mut seen);
    for client in ["127.1.0.1", "127.0.0.1", "127.1.0.3"] {
        at.mon(client, "nfs-a", 1);
    }
    let _ = rpc_client::call(at.udp(), Transport::Udp, &message(Procedure::SimuCrash, &[]), PATIENCE);
    let gone = process.as_mut().is_some_and(|child| {
        let end = Instant::now() + Duration::from_secs(2);
        while child.try_wait().unwrap().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        child.try_wait().unwrap().is_some()
    });
    seen.insert("simulated crash with three clients", if gone { "gone" } else { "still there" }.into());
    seen
}

struct Place {
    udp: u16,
    tcp: u16,
}

impl Place {
    fn udp(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.udp).into()
    }

    fn raw(&self, transport: Transport, message: &[u8]) -> Result<Vec<u8>, String> {
        let port = if transport == Transport::Udp { self.udp } else { self.tcp };
        rpc_client::call(([127, 0, 0, 1], port).into(), transport, message, PATIENCE)
    }

    fn ask(&self, procedure: Procedure, args: &[u8]) -> Vec<u8> {
        self.raw(Transport::Tcp, &message(procedure, args)).unwrap()
    }

    fn mon(&self, client: &str, my_name: &str, cookie: u8) -> String {
        self.mon_with(&mon_args(client, my_name, cookie))
    }

    fn mon_with(&self, args: &MonArgs<'_>) -> String {
        stat(&self.ask(Procedure::Mon, &args.encode()))
    }

    fn unmon(&self, client: &str, my_name: &str) -> String {
        let args = mon_args(client, my_name, 0).mon_id.encode();
        sm::decode_state_result(&self.ask(Procedure::Unmon, &args)).unwrap().to_string()
    }

    fn registrations(&self, seen: &mut BTreeMap<&'static str, String>) {
        for (what, transport) in [("null over UDP", Transport::Udp), ("null over TCP", Transport::Tcp)] {
            seen.insert(what, format!("{:?}", self.raw(transport, &message(Procedure::Null, &[]))));
        }
        let stat_of = |name: &str| stat(&self.ask(Procedure::Stat, &sm::encode_stat_args(name)));
        seen.insert("stat of an address", stat_of("127.1.0.1"));
        seen.insert("stat of a name without an address", stat_of("none.invalid"));
        seen.insert("mon", self.mon("127.1.0.9", "nfs-a", 1));
        seen.insert("file after mon", settled("127.1.0.9"));
        seen.insert("mon once more", self.mon("127.1.0.9", "nfs-a", 1));
        seen.insert("file after mon once more", settled("127.1.0.9"));
        seen.insert("mon with another cookie", self.mon("127.1.0.9", "nfs-a", 2));
        seen.insert("file after mon with another cookie", settled("127.1.0.9"));
        seen.insert("mon with another of our names", self.mon("127.1.0.9", "nfs a\tb", 3));
        seen.insert("file after mon with another of our names", settled("127.1.0.9"));
        let mut through_24 = mon_args("127.1.0.8", "nfs-a", 1);
        through_24.mon_id.my_id.proc_ = 24;
        seen.insert("mon with procedure 24", self.mon_with(&through_24));
        seen.insert("file after mon with procedure 24", settled("127.1.0.8"));
        self.mon("127.1.0.1", "nfs-a", 1);
        settled("127.1.0.1");
        let named = files().into_iter().filter(|name| name.contains("client1") || name == "127.1.0.1");
        seen.insert("files after mon of a client with a reverse name", named.collect::<Vec<_>>().join(" "));
        seen.insert("mon of an IPv6 client", self.mon("2001:db8::5", "nfs-a", 1));
        seen.insert("file after mon of an IPv6 client", settled("2001:db8::5"));
        let over_udp =
            self.raw(Transport::Udp, &message(Procedure::Mon, &mon_args("127.1.0.7", "nfs-a", 1).encode()));
        seen.insert("mon over UDP", stat(&over_udp.unwrap()));
        seen.insert("mon of a name without an address", self.mon("none.invalid", "nfs-a", 1));
        self.unmon("none.invalid", "nfs-a");
    }

    fn refusals(&self, seen: &mut BTreeMap<&'static str, String>) {
        for (what, name) in [
            ("mon of a path", "../../tmp/x"),
            ("mon of a hidden name", ".hidden"),
            ("mon of an empty name", ""),
        ] {
            seen.insert(what, self.mon(name, "nfs-a", 1));
        }
        let mut other = mon_args("127.1.0.6", "nfs-a", 1);
        other.mon_id.my_id.prog = 100_003;
        seen.insert("mon for another program", self.mon_with(&other));
        let mut other = mon_args("127.1.0.6", "nfs-a", 1);
        other.mon_id.my_id.proc_ = 3;
        seen.insert("mon with another procedure", self.mon_with(&other));
        let mon = message(Procedure::Mon, &mon_args("127.1.0.6", "nfs-a", 1).encode());
        seen.insert("mon from another address", stat(&from("127.0.0.2:0", self.udp(), &mon)));
        let six = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.udp6());
        seen.insert("mon over IPv6", stat(&from("[::1]:0", six, &mon)));
        let call = |prog, vers, proc_| {
            let call = encode_call(1, prog, vers, proc_, &Credential::None, &[]);
            // Over UDP rpc.statd reads on into what an earlier request left in its buffer.
            let refused = self.raw(Transport::Tcp, &call).unwrap_err();
            refused.replace(&self.tcp.to_string(), "PORT")
        };
        seen.insert("another program", call(100_003, 1, 0));
        seen.insert("another version", call(sm::PROGRAM, 2, 0));
        seen.insert("another procedure", call(sm::PROGRAM, 1, 7));
        seen.insert("mon without arguments", call(sm::PROGRAM, 1, 2));
    }

    fn removals(&self, seen: &mut BTreeMap<&'static str, String>) {
        let unmon = message(Procedure::Unmon, &mon_args("127.1.0.9", "nfs-a", 0).mon_id.encode());
        let elsewhere = from("127.0.0.2:0", self.udp(), &unmon);
        seen.insert("unmon from another address", sm::decode_state_result(&elsewhere).unwrap().to_string());
        seen.insert("file after unmon from another address", settled("127.1.0.9"));
        seen.insert("unmon of one of two", self.unmon("127.1.0.9", "nfs-a"));
        seen.insert("file after unmon of one of two", settled("127.1.0.9"));
        seen.insert("unmon of an unknown client", self.unmon("127.1.0.77", "nfs-a"));
        seen.insert("unmon of the last", self.unmon("127.1.0.9", "nfs a\tb"));
        seen.insert("file after unmon of the last", settled("127.1.0.9"));
        let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 3, proc_: 16 };
        let all = self.ask(Procedure::UnmonAll, &my_id.encode());
        seen.insert("unmon all", sm::decode_state_result(&all).unwrap().to_string());
        settled("127.1.0.7");
        seen.insert("files after unmon all", files().join(" "));
    }

    fn notifications(&self, seen: &mut BTreeMap<&'static str, String>) {
        let lockd = UdpSocket::bind("127.0.0.1:0").unwrap();
        register_lock_manager(&lockd);
        let (sender, calls) = channel();
        thread::spawn(move || {
            serve(&lockd, |call, from| {
                let told = Downcall::decode(call.args).ok()?;
                let privileged = from.port() < 1024;
                let _ = sender.send(format!(
                    "{} {} {} {} {} privileged={privileged}",
                    call.vers, call.proc_, told.mon_name, told.state, told.cookie[0]
                ));
                Some(Vec::new())
            });
        });
        self.mon("127.0.0.1", "nfs-a", 4);
        let mut notify = |what: &'static str, name: &str, state: u32, expected: bool| {
            let args = sm::Notify { mon_name: name, state: StateNumber(state) }.encode();
            let answer = self.raw(Transport::Udp, &message(Procedure::Notify, &args));
            let wait = if expected { PATIENCE } else { Duration::from_millis(300) };
            let call = calls.recv_timeout(wait).unwrap_or_else(|_| "no call".into());
            seen.insert(what, format!("{answer:?} {call}"));
        };
        notify("notify that the source matches", "none.invalid", 5, true);
        notify("notify with the same number", "none.invalid", 5, false);
        notify("notify with a lower number", "none.invalid", 3, true);
        notify("notify with an even number", "localhost", 8, true);
        self.unmon("127.0.0.1", "nfs-a");
        notify("notify after unmon", "none.invalid", 9, false);
        let six = message(Procedure::Notify, &sm::Notify { mon_name: "x", state: StateNumber(5) }.encode());
        let six_at = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.udp6());
        seen.insert("notify over IPv6", format!("{:?}", from("[::1]:0", six_at, &six)));
    }

    fn udp6(&self) -> u16 {
        rpc_client::find_over(
            Ipv6Addr::LOCALHOST.into(),
            111,
            (sm::PROGRAM, sm::VERSION),
            Transport::Udp,
            PATIENCE,
        )
        .unwrap()
        .expect("registered over IPv6")
    }
}

fn register_lock_manager(lockd: &UdpSocket) {
    let port = lockd.local_addr().unwrap().port();
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let unset = heirlock_nsm::rpcbind::encode_unset_call(1, 100_021, 3, "udp");
    let set = heirlock_nsm::rpcbind::encode_set_call(1, 100_021, 3, "udp", address);
    for message in [unset, set] {
        let mut stream = std::os::unix::net::UnixStream::connect("/run/rpcbind.sock").unwrap();
        std::io::Write::write_all(&mut stream, &frame(&message)).unwrap();
        std::io::Read::read(&mut stream, &mut [0; 128]).unwrap();
    }
}

fn from(source: &str, to: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(source).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(message, to).unwrap();
    let mut buffer = [0; 512];
    let (count, _) = socket.recv_from(&mut buffer).unwrap();
    Reply::decode(&buffer[..count]).unwrap().outcome.unwrap().to_vec()
}

fn stat(result: &[u8]) -> String {
    let result = StatResult::decode(result).unwrap();
    format!("{} {}", if result.ok { "ok" } else { "fail" }, result.state.0.cast_signed())
}

/// The record of a client, or that there is none. heirlock answers before the file is written, so it is waited for until
/// it has not changed for a while.
fn settled(client: &str) -> String {
    let read =
        || fs::read_to_string(Path::new(NSM).join("sm").join(client)).unwrap_or_else(|_| "none".into());
    let (mut last, mut since) = (read(), Instant::now());
    while since.elapsed() < Duration::from_millis(100) {
        let now = read();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(5));
    }
    last
}

fn files() -> Vec<String> {
    let entries = fs::read_dir(Path::new(NSM).join("sm")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}
