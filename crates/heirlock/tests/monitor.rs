//! The agent as status monitor, and behind rpc.statd's callout: the real program, its store and a real rpcbind.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

mod left_out;
mod namespaces;
#[path = "monitor/server.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_nsm::StateNumber;
use heirlock_nsm::rpc::{Credential, encode_call, frame};
use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm::{self, MonId, MyId, Procedure};
use socket2::{Domain, Socket, Type};

use server::{PATIENCE, Server, ask_over, heirlock, is_inside, is_stored, mon, port, sh, unmon, wait_until};

const NSM: &str = "mode = \"nsm\"\nmon-timeout = \"400ms\"\nscan-interval = \"1s\"";

#[test]
fn a_client_that_is_granted_is_durable_in_every_service_by_then() {
    if !is_inside("a_client_that_is_granted_is_durable_in_every_service_by_then") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("agent");
    wait_until("the registration", || port(Transport::Udp).is_some() && port(Transport::Tcp).is_some());
    for i in 1..=20 {
        let client = format!("192.0.2.{i}");
        assert!(mon(&client, 1, PATIENCE).unwrap().ok);
        assert!(is_stored(&client), "{client} was granted before it was durable");
    }
    let file = Path::new("/var/lib/nfs/sm/192.0.2.1");
    wait_until("statd's own file", || {
        fs::read_to_string(file).is_ok_and(|t| t.ends_with(" 192.0.2.1 nfs-a\n"))
    });
    // lockd unmonitors all clients when it stops in order: no client is forgotten for that.
    unmon("192.0.2.1");
    wait_until("the file's removal", || !file.exists());
    // Seen as gone, in a life that saw it come, and not believed yet.
    wait_until("a tombstone", || {
        mon("192.0.2.1", 1, PATIENCE);
        unmon("192.0.2.1");
        tombstones() > 0
    });
    assert!(is_stored("192.0.2.1"));
    assert!(mon("192.0.2.1", 2, PATIENCE).unwrap().ok);
}

fn tombstones() -> u64 {
    let status = heirlock(&["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let services = status["services"].as_array().unwrap();
    services.iter().map(|service| service["tombstones"].as_u64().unwrap()).sum()
}

#[test]
fn a_monitor_that_is_killed_and_started_again_answers_waiting_requests_and_knows_its_clients() {
    if !is_inside("a_monitor_that_is_killed_and_started_again_answers_waiting_requests_and_knows_its_clients")
    {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("supervise");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let before = port(Transport::Tcp);
    for round in 0..5 {
        let child = server.child();
        sh(&format!("kill -9 {child}"));
        // Asked while no status monitor runs: the request waits in the socket for the next one.
        let answer = mon(&format!("192.0.3.{round}"), 1, PATIENCE).expect("an answer");
        // The store may still be being opened when it is read; then it is refused, and asked again.
        if !answer.ok {
            wait_until("a grant", || mon(&format!("192.0.3.{round}"), 1, PATIENCE).is_some_and(|a| a.ok));
        }
        assert!(is_stored(&format!("192.0.3.{round}")));
        assert_eq!(port(Transport::Tcp), before, "registered all the time");
        assert_ne!(server.child(), child);
    }
    let kept = fs::read_to_string("/run/heirlock/registrations").unwrap();
    assert!(kept.contains("07070707070707070707070707070707 192.0.2.1 nfs-a"), "{kept}");
}

#[test]
fn an_agent_that_hangs_is_replaced_and_a_client_that_waited_is_answered() {
    if !is_inside("an_agent_that_hangs_is_replaced_and_a_client_that_waited_is_answered") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("supervise");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let child = server.child();
    sh(&format!("kill -STOP {child}"));
    wait_until("a grant by another one", || mon("192.0.2.2", 1, PATIENCE).is_some_and(|answer| answer.ok));
    assert!(is_stored("192.0.2.2"));
    assert_ne!(server.child(), child);
    // The next hangs right after its first answer, perhaps before its supervisor has heard of it.
    sh(&format!("kill -KILL {}", server.child()));
    wait_until("an answer", || mon("192.0.2.3", 1, PATIENCE).is_some());
    let child = server.child();
    sh(&format!("kill -STOP {child}"));
    wait_until("a grant by another one", || mon("192.0.2.4", 1, PATIENCE).is_some_and(|answer| answer.ok));
    assert!(is_stored("192.0.2.4"));
    assert_ne!(server.child(), child);
}

#[test]
fn a_flood_from_the_network_fills_no_log_and_ends_no_agent() {
    if !is_inside("a_flood_from_the_network_fills_no_log_and_ends_no_agent") {
        return;
    }
    let log = Path::new("/run/agent.log");
    let mut server = Server::new(NSM);
    server.start_with_log("supervise", log);
    wait_until("the registration", || port(Transport::Udp).is_some() && port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let (child, before) = (server.child(), fs::metadata(log).unwrap().len());
    let memory = resident_kib(child);
    // As many as the socket takes, without waiting for an answer, from several addresses.
    let to = SocketAddr::from(([127, 0, 0, 1], port(Transport::Udp).unwrap()));
    let name = "n".repeat(1000);
    let senders: Vec<UdpSocket> =
        (2..10).map(|last| UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap()).collect();
    for number in 0..30_000_u32 {
        // Of the client that is registered, with another number each time; and of unknown hosts.
        let announced = match number % 3 {
            0 => "192.0.2.1".to_owned(),
            1 => format!("host{number}.example"),
            _ => name.clone(),
        };
        let args = sm::Notify { mon_name: &announced, state: StateNumber(number) }.encode();
        let call =
            encode_call(number, sm::PROGRAM, sm::VERSION, Procedure::Notify as u32, &Credential::None, &args);
        // A datagram that finds no room is lost, as on any network.
        let _ = senders[number as usize % senders.len()].send_to(&call, to);
        if number % 5_000 == 0 {
            assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok, "known");
            assert!(mon(&format!("192.0.4.{}", number / 5_000), 1, PATIENCE).unwrap().ok, "new");
        }
    }
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    assert_eq!(server.child(), child, "the same agent all the time");
    let written = fs::metadata(log).unwrap().len() - before;
    assert!(written < 64 * 1024, "{written} bytes of log");
    let kept = fs::read_to_string("/run/heirlock/registrations").unwrap();
    assert!(kept.matches('>').count() < 100, "{} records of what is owed", kept.matches('>').count());
    let grown = resident_kib(child).saturating_sub(memory);
    assert!(grown < 16 * 1024, "{grown} KiB more than before");
}

#[test]
fn a_sender_without_end_gets_only_a_part_of_the_status_monitors_time() {
    if !is_inside("a_sender_without_end_gets_only_a_part_of_the_status_monitors_time") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let agent = server.agent();
    let null = encode_call(1, sm::PROGRAM, sm::VERSION, Procedure::Null as u32, &Credential::None, &[]);
    let calls = frame(&null).repeat(1000);
    let address = SocketAddr::from(([127, 0, 0, 1], port(Transport::Tcp).unwrap()));
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (is_over, answered, calls) = (&is_over, &answered, &calls);
        for _ in 0..4 {
            let mut writer = TcpStream::connect(address).unwrap();
            let mut reader = writer.try_clone().unwrap();
            scope.spawn(move || {
                while writer.write_all(calls).is_ok() && !is_over.load(Ordering::Relaxed) {}
                // It may have been closed by the other end.
                let _ = writer.shutdown(Shutdown::Both);
            });
            scope.spawn(move || {
                let mut answers = [0; 64 * 1024];
                while let Ok(count @ 1..) = reader.read(&mut answers) {
                    answered.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
        wait_until("answers to some", || answered.load(Ordering::Relaxed) > 0);
        let (began, before) = (Instant::now(), busy(agent, "status-monitor"));
        thread::sleep(Duration::from_secs(3));
        let share = (busy(agent, "status-monitor") - before).div_duration_f64(began.elapsed());
        let known = mon("192.0.2.1", 7, PATIENCE).unwrap().ok;
        is_over.store(true, Ordering::Relaxed);
        assert!(known && share < 0.3, "{share} of its time");
    });
}

#[test]
fn a_status_monitor_that_has_no_room_for_a_connection_waits_for_it_and_turns_in_no_circle() {
    if !is_inside("a_status_monitor_that_has_no_room_for_a_connection_waits_for_it_and_turns_in_no_circle") {
        return;
    }
    let log = Path::new("/run/agent.log");
    let mut server = Server::new(NSM);
    server.start_with_log("agent", log);
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let agent = server.agent();
    let open = fs::read_dir(format!("/proc/{agent}/fd")).unwrap().count();
    sh(&format!("prlimit --pid {agent} --nofile={}", open + 10));
    let address = SocketAddr::from(([127, 0, 0, 1], port(Transport::Tcp).unwrap()));
    let connect = |last: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        socket
    };
    let held: Vec<Socket> = (2..10).flat_map(|last| (0..8).map(move |_| last)).map(connect).collect();
    wait_until("a word that there is no room", || {
        fs::read_to_string(log).unwrap().contains("no connection can be taken in by the status monitor")
    });
    let (began, before) = (Instant::now(), busy(agent, "status-monitor"));
    thread::sleep(Duration::from_secs(2));
    let share = (busy(agent, "status-monitor") - before).div_duration_f64(began.elapsed());
    assert!(share < 0.3, "{share} of its time");
    drop(held);
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
}

/// How much processor time a thread of a process has had.
fn busy(pid: u32, thread: &str) -> Duration {
    let stats = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let stats = stats.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let stat = stats.into_iter().find(|stat| stat.contains(&format!("({thread})"))).unwrap();
    // After the name: proc(5), utime and stime, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn whatever_others_leave_in_their_folders_fills_no_log_and_no_line() {
    if !is_inside("whatever_others_leave_in_their_folders_fills_no_log_and_no_line") {
        return;
    }
    let log = Path::new("/run/agent.log");
    let mut server = Server::new("mode = \"watch\"\nscan-interval = \"1s\"");
    server.start_with_log("agent", log);
    let before = fs::metadata(log).unwrap().len();
    for number in 0..2_000 {
        std::os::unix::fs::symlink("/etc/hostname", format!("/var/lib/nfs/sm/link{number}")).unwrap();
        fs::write(format!("/var/lib/nfs/sm/text{number}"), "\x1b[31m no record\n").unwrap();
        fs::write(format!("/srv/store/servers/other{number}"), "{}").unwrap();
    }
    let status = || {
        let status = heirlock(&["status", "--json"]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&status.stdout).unwrap()
    };
    let problems = |of: &str| {
        let status = status();
        let all = status["problems"].as_array().unwrap();
        all.iter().filter(|problem| problem.to_string().contains(of)).count()
    };
    for (of, expected) in [("sm/link", 2_000), ("sm/text", 2_000), ("heartbeat", 2_000)] {
        wait_until(of, || problems(of) == expected);
    }
    let words = heirlock(&["status"]).output().unwrap().stdout;
    let line = heirlock(&["status", "--check"]).output().unwrap().stdout;
    assert!(words.len() < 64 * 1024 && line.len() < 4 * 1024, "{} and {} bytes", words.len(), line.len());
    let written = fs::metadata(log).unwrap().len() - before;
    assert!(written < 64 * 1024, "{written} bytes of log");
}

/// How much memory a process takes up.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_request_of_any_user_takes_no_registration_away() {
    if !is_inside("a_request_of_any_user_takes_no_registration_away") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
    let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 3, proc_: 16 };
    let one = MonId { mon_name: "192.0.2.1", my_id: my_id.clone() }.encode();
    for (procedure, args) in [(Procedure::Unmon, one), (Procedure::UnmonAll, my_id.encode())] {
        let mut stream = TcpStream::connect(("127.0.0.1", port(Transport::Tcp).unwrap())).unwrap();
        assert!(stream.local_addr().unwrap().port() >= 1024);
        assert!(ask_over(&mut stream, procedure, &args, PATIENCE).is_some(), "answered");
    }
    let kept = fs::read_to_string("/run/heirlock/registrations").unwrap();
    assert!(!kept.contains("\n-"), "{kept}");
    unmon("192.0.2.1");
    let kept = fs::read_to_string("/run/heirlock/registrations").unwrap();
    assert!(kept.contains("\n-"), "from a privileged port it is done: {kept}");
}

#[test]
fn without_its_store_it_refuses_new_clients_in_time_and_no_known_one() {
    if !is_inside("without_its_store_it_refuses_new_clients_in_time_and_no_known_one") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 1, PATIENCE).unwrap().ok);
    sh("mv /srv/store /srv/elsewhere");
    // On a machine that does much else some answers are late, and not all.
    let took = (0..10).map(|round| {
        let began = Instant::now();
        let refused = mon(&format!("192.0.4.{round}"), 1, PATIENCE).unwrap();
        assert!(!refused.ok && refused.state.0 == u32::MAX);
        began.elapsed()
    });
    let quickest = took.min().unwrap();
    assert!(quickest < Duration::from_millis(600), "{quickest:?}");
    assert!(!mon("192.0.2.2", 1, PATIENCE).unwrap().ok);
    assert!(mon("192.0.2.1", 2, PATIENCE).unwrap().ok, "known");
    sh("mv /srv/elsewhere /srv/store");
    wait_until("a grant", || mon("192.0.2.2", 1, PATIENCE).unwrap().ok);
    assert!(is_stored("192.0.2.2"));
}

/// While this hangs a known client is granted, the heart beats on, and the loop does what it is asked.
fn goes_on(while_it_hangs: &str) {
    // On a machine that does much else some answers are late, and not all.
    let took = (0..10).map(|_| {
        let began = Instant::now();
        assert!(mon("192.0.2.1", 1, PATIENCE).unwrap().ok, "known: {while_it_hangs}");
        began.elapsed()
    });
    let quickest = took.min().unwrap();
    assert!(quickest < Duration::from_secs(1), "{while_it_hangs}: {quickest:?}");
    let before = beats();
    wait_until("heartbeats", || beats() >= before + 5);
    let done = heirlock(&["maintenance", "off"]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{while_it_hangs}: {done:?}");
}

#[test]
fn a_known_client_is_granted_while_the_log_has_no_reader() {
    if !is_inside("a_known_client_is_granted_while_the_log_has_no_reader") {
        return;
    }
    for verb in ["agent", "supervise"] {
        let mut server = Server::new(&format!("{NSM}\n[heartbeat]\ninterval = \"200ms\""));
        let (unread, mut writer) = std::io::pipe().unwrap();
        // Not a line finds room.
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while matches!(writer.write(&[b'.'; 4096]), Ok(1..)) {}
        while matches!(writer.write(b"."), Ok(1..)) {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        server.start_with_stderr(verb, writer);
        wait_until("the registration", || port(Transport::Tcp).is_some());
        assert!(mon("192.0.2.1", 7, PATIENCE).unwrap().ok);
        goes_on("the reader of the log");
        sh(&format!("kill -TERM {}", server.agent()));
        wait_until("the end of it", || server.has_ended());
        server.stop_rpcbind();
        drop(unread);
    }
}

#[test]
fn a_known_client_is_granted_while_a_name_service_hangs() {
    let can = ["/etc/nsswitch.conf", "/etc/resolv.conf"].iter().all(|file| Path::new(file).is_file());
    let test = "a_known_client_is_granted_while_a_name_service_hangs";
    if !can || !is_inside(test) {
        return;
    }
    let mut server = Server::new(&format!("{NSM}\n[heartbeat]\ninterval = \"200ms\""));
    sh("echo 'hosts: dns' > /run/nsswitch.conf && mount --bind /run/nsswitch.conf /etc/nsswitch.conf");
    sh("printf 'nameserver 127.0.0.1\\noptions timeout:30 attempts:5\\n' > /run/resolv.conf");
    sh("mount --bind /run/resolv.conf /etc/resolv.conf");
    let name_server = UdpSocket::bind("127.0.0.1:53").unwrap();
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some() && port(Transport::Udp).is_some());
    for name in ["192.0.2.1".to_owned()].into_iter().chain((0..100).map(|i| format!("client{i}.example"))) {
        assert!(mon(&name, 7, PATIENCE).unwrap().ok, "{name}: a new one waits for no name");
    }
    let to = SocketAddr::from(([127, 0, 0, 1], port(Transport::Udp).unwrap()));
    for number in 0..20 {
        // From one address one name is asked for at a time.
        let sender = UdpSocket::bind(SocketAddr::from(([127, 0, 1, number], 0))).unwrap();
        let name = format!("server{number}.example");
        let args = sm::Notify { mon_name: &name, state: StateNumber(5) }.encode();
        let call =
            encode_call(7, sm::PROGRAM, sm::VERSION, Procedure::Notify as u32, &Credential::None, &args);
        sender.send_to(&call, to).unwrap();
        thread::sleep(Duration::from_millis(60));
    }
    goes_on("the name service");
    name_server.set_nonblocking(true).unwrap();
    let mut asked = [0; 512];
    let asked_for = |name: &[u8], asked: &[u8]| asked.windows(name.len()).any(|part| part == name);
    let (mut client, mut notifier) = (false, false);
    while let Ok(count) = name_server.recv(&mut asked) {
        client |= asked_for(b"client", &asked[..count]);
        notifier |= asked_for(b"server", &asked[..count]);
    }
    assert!(client && notifier, "both kinds of names were looked up all the time");
}

/// A command that hangs as long as there is a file of its name; else it does this.
fn hanging(name: &str, otherwise: &str) -> String {
    let script = format!(
        "test ! -e /run/hang-{name} || {{ echo $$ > /run/{name}.new; mv /run/{name}.new /run/pid-{name}; exec sleep 3600; }}; {otherwise}"
    );
    format!("{{ command = [\"sh\", \"-c\", \"{script}\"], time-limit = \"3600s\" }}")
}

fn beats() -> u64 {
    let heartbeat = fs::read("/srv/store/servers/nfs-a").unwrap();
    let heartbeat: serde_json::Value = serde_json::from_slice(&heartbeat).unwrap();
    heartbeat["beat"].as_u64().unwrap()
}

#[test]
fn a_known_client_is_granted_while_hooks_and_the_commands_of_the_lock_manager_hang() {
    if !is_inside("a_known_client_is_granted_while_hooks_and_the_commands_of_the_lock_manager_hang") {
        return;
    }
    let hooks = ["volume-up", "address-down"].map(|name| format!("{name} = {}\n", hanging(name, "true")));
    let mut server =
        Server::new(&format!("{NSM}\n[heartbeat]\ninterval = \"200ms\"\n[hooks]\n{}", hooks.concat()));
    let text = fs::read_to_string("/run/heirlock.toml").unwrap();
    let commands = format!(
        "strategy = \"command\"\nrecognise = {}\nincarnation = {}",
        hanging("recognise", "true"),
        hanging("incarnation", "echo one")
    );
    let text = text.replace("incarnation = [\"echo\", \"one\"]", &commands);
    fs::write("/run/heirlock.toml", text + "[[service]]\nname = \"other\"\naddresses = [\"127.9.9.8\"]\n")
        .unwrap();
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    assert!(mon("192.0.2.1", 1, PATIENCE).unwrap().ok);
    let adopt = ["adopt", "other", "--force"];
    let hangs: [(&str, &[&str]); 4] = [
        ("incarnation", &["status"]),
        ("volume-up", &adopt),
        ("recognise", &adopt),
        ("address-down", &["release", "nfs"]),
    ];
    for (name, words) in hangs {
        fs::write(format!("/run/hang-{name}"), "").unwrap();
        let mut verb = heirlock(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid_file = format!("/run/pid-{name}");
        wait_until(name, || Path::new(&pid_file).exists());
        goes_on(name);
        let pid = fs::read_to_string(&pid_file).unwrap();
        assert!(Path::new("/proc").join(pid.trim()).exists(), "{name} was to hang all the time");
        fs::remove_file(format!("/run/hang-{name}")).unwrap();
        sh(&format!("kill -KILL {}", pid.trim()));
        verb.wait().unwrap();
    }
}

#[test]
fn a_status_monitor_that_is_to_grant_names_clients_at_risk_and_catches_up() {
    if !is_inside("a_status_monitor_that_is_to_grant_names_clients_at_risk_and_catches_up") {
        return;
    }
    let mut server = Server::new(&format!("{NSM}\nwhen-unprotected = \"grant\""));
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    sh("mv /srv/store /srv/elsewhere");
    assert!(mon("192.0.2.2", 1, PATIENCE).unwrap().ok);
    let status = || String::from_utf8(heirlock(&["status"]).output().unwrap().stdout).unwrap();
    wait_until("its name in status", || status().contains("192.0.2.2"));
    sh("mv /srv/elsewhere /srv/store");
    wait_until("its record", || is_stored("192.0.2.2"));
    wait_until("the end of the risk", || !status().contains("192.0.2.2"));
}

#[test]
fn the_status_monitor_is_registered_again_when_rpcbind_was_restarted() {
    if !is_inside("the_status_monitor_is_registered_again_when_rpcbind_was_restarted") {
        return;
    }
    let mut server = Server::new(NSM);
    server.start("agent");
    wait_until("the registration", || port(Transport::Tcp).is_some());
    let before = (port(Transport::Udp), port(Transport::Tcp));
    server.stop_rpcbind();
    server.start_rpcbind();
    wait_until("the registration again", || (port(Transport::Udp), port(Transport::Tcp)) == before);
    // And a second status monitor is not let in.
    let second = Command::new("rpc.statd").args(["-F", "-L"]).output();
    assert!(second.is_err() || !second.unwrap().status.success());
}

#[test]
fn a_callout_ends_when_the_client_is_durable_and_without_an_agent_it_is_noted() {
    if !is_inside("a_callout_ends_when_the_client_is_durable_and_without_an_agent_it_is_noted") {
        return;
    }
    let mut server = Server::new("mode = \"callout\"");
    server.start("agent");
    // As rpc.statd runs it: as the user that owns the records, in its directory.
    let big = [env!("CARGO_BIN_EXE_heirlock"), "callout"];
    let small = [env!("CARGO_BIN_EXE_heirlock-callout")];
    let callout = |program: &[&str], client: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(program).args(["add-client", client, "nfs-a"]);
        command.env("HEIRLOCK_CONFIG", "/run/heirlock.toml").current_dir("/var/lib/nfs").status().unwrap()
    };
    if !callout(&big, "192.0.2.1").success() {
        left_out::leave_out("a folder that other users may enter, to be built in");
        return;
    }
    assert!(is_stored("192.0.2.1"), "durable when it ended");
    assert!(callout(&small, "192.0.2.3").success());
    assert!(is_stored("192.0.2.3"), "durable when it ended");
    server.kill();
    assert!(callout(&small, "192.0.2.2").success());
    assert!(!is_stored("192.0.2.2"));
    server.start("agent");
    wait_until("what was noted", || is_stored("192.0.2.2"));
    wait_until("the spool's removal", || !Path::new("/var/lib/nfs/sm/.heirlock-callouts.taken").exists());
}
