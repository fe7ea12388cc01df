//! The real agent while something hangs that it speaks to: its heart beats on, it tells how it is, and it does what it is asked.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod harness;
mod left_out;
mod namespaces;
#[path = "crashes/network.rs"]
#[expect(dead_code, reason = "the tests that kill it at every step look at what clients were told")]
mod network;

use std::fs;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Server, Site};
use network::Network;
use serde_json::{Value, json};

/// Long, for a machine that does much else; the event that is waited for ends the wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// Heartbeats that must follow while something hangs.
const BEATS: u64 = 5;

/// A program that the test started; it ends with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Asks it to end, and waits for that.
    fn stop(&mut self) -> ExitStatus {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.ended()
    }

    fn ended(&mut self) -> ExitStatus {
        wait_for("the end of a program", || self.0.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            // A supervisor that is killed leaves its agent behind.
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let end = Instant::now() + Duration::from_secs(10);
            while self.0.try_wait().unwrap().is_none() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The count in a server's last heartbeat.
fn beat(site: &Site, name: &str) -> Option<u64> {
    let heartbeat = fs::read(site.store().join("servers").join(name)).ok()?;
    serde_json::from_slice::<Value>(&heartbeat).ok()?["beat"].as_u64()
}

/// Its heart beats on, and it tells how it is.
fn lives(site: &Site, server: &Server, name: &str) {
    let before = wait_for("a heartbeat", || beat(site, name));
    server.wait_for("heartbeats", |_| beat(site, name).filter(|beat| *beat >= before + BEATS));
    server.wait_for("an agent that says how it is", |server| {
        let status = server.try_status()?;
        let is_its_own = status["source"] != "store" && status["agent"] != "";
        (is_its_own && status["loop_turned_ms_ago"].as_u64()? < 1_000).then_some(())
    });
}

/// The same, and its loop does what it is asked.
fn goes_on(site: &Site, server: &Server, name: &str) {
    lives(site, server, name);
    for switch in ["on", "off"] {
        let done = server.run(&["maintenance", switch]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    }
}

/// A connection to the agent's control socket that has said this.
fn say(server: &Server, words: &str) -> UnixStream {
    let mut stream =
        wait_for("the control socket", || UnixStream::connect(server.path("run/control.sock")).ok());
    // A connection that is one too many may have been ended by then.
    let _ = stream.write_all(words.as_bytes());
    stream
}

/// Has the agent log more than a pipe and its queue hold: at the level debug it logs what it is asked, whole.
fn make_it_talk(server: &Server) {
    let client = "x".repeat(60_000);
    for _ in 0..120 {
        let request = json!({"verb": "forget", "service": "nfs", "client": client});
        let stream = say(server, &format!("{request}\n"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains("is no client's name"), "{answer:.200}");
    }
}

#[test]
fn a_log_without_a_reader_stops_neither_the_agent_nor_its_supervisor_and_lost_lines_are_counted() {
    for verb in ["agent", "supervise"] {
        let site = Site::new();
        let server = site.server("a", "nfs-a");
        let mut command = server.command(&[verb, "--log", "debug"]);
        let mut agent = Program::start(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        server.wait_for("an agent that answers", |server| server.serves().then_some(()));
        make_it_talk(&server);
        goes_on(&site, &server, "nfs-a");
        let (found, is_found) = channel();
        let mut log = BufReader::new(agent.0.stderr.take().unwrap());
        thread::spawn(move || {
            let mut line = String::new();
            while log.read_line(&mut line).is_ok_and(|count| count > 0) {
                if line.contains(" of the log were lost: ") {
                    let _ = found.send(line.clone());
                }
                line.clear();
            }
        });
        let said = is_found.recv_timeout(PATIENCE).unwrap();
        assert!(said.contains("ERROR") && said.contains("lines of the log were lost"), "{said}");
        assert_eq!(agent.stop().code(), Some(0), "{verb}");
    }
}

#[test]
fn an_agent_and_a_supervisor_stop_in_order_while_their_log_has_no_reader() {
    for verb in ["agent", "supervise"] {
        let site = Site::new();
        let server = site.server("a", "nfs-a");
        let mut command = server.command(&[verb, "--log", "debug"]);
        let mut agent = Program::start(command.stdin(Stdio::null()).stderr(Stdio::piped()));
        server.wait_for("an agent that answers", |server| server.serves().then_some(()));
        make_it_talk(&server);
        assert_eq!(agent.stop().code(), Some(0), "{verb}");
        let heartbeat = fs::read_to_string(site.store().join("servers/nfs-a")).unwrap();
        assert!(heartbeat.contains("\"paused\": true"), "{heartbeat}");
    }
}

#[test]
fn a_journal_that_takes_nothing_stops_no_agent_and_gets_the_kept_lines_and_the_count_of_lost_ones() {
    let test =
        "a_journal_that_takes_nothing_stops_no_agent_and_gets_the_kept_lines_and_the_count_of_lost_ones";
    if !namespaces::is_inside(test, true, "root") {
        return;
    }
    sh("ip link set lo up && mount -t tmpfs none /run && mkdir -p /run/systemd/journal");
    let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    let site = Site::new();
    let server = site.server("a", "nfs-a");
    let (_unread, stderr) = io::pipe().unwrap();
    let stat = rustix::fs::fstat(&stderr).unwrap();
    let mut command = server.command(&["agent", "--log", "debug"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    let mut agent = Program::start(command.stdin(Stdio::null()).stderr(stderr));
    server.wait_for("an agent that answers", |server| server.serves().then_some(()));
    make_it_talk(&server);
    goes_on(&site, &server, "nfs-a");
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut datagram, mut began) = (vec![0; 256 * 1024], false);
    loop {
        let count = journal.recv(&mut datagram).unwrap();
        let text = String::from_utf8_lossy(&datagram[..count]);
        began |= text.contains("the agent of nfs-a begins") && text.contains("HEIRLOCK_SERVER");
        if text.contains(" of the log were lost: ") {
            assert!(text.contains("HEIRLOCK_LOST") && text.contains("PRIORITY"), "{text}");
            break;
        }
    }
    assert!(began, "what came first was kept");
    // Nothing takes what it says at its end.
    assert_eq!(agent.stop().code(), Some(0));
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}

/// A pipe into which nothing more can be written.
fn full_pipe() -> (io::PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while matches!(writer.write(&[b'.'; 4096]), Ok(1..)) {}
    while matches!(writer.write(b"."), Ok(1..)) {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn an_agent_that_cannot_begin_ends_also_where_its_log_has_no_reader() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    let (_unread, writer) = full_pipe();
    let mut second = Program::start(server.command(&["agent"]).stdin(Stdio::null()).stderr(writer));
    assert_eq!(second.ended().code(), Some(1), "another agent listens");
}

/// Clients of the control socket that do not read what they are told: some ask for half of something, some for the status,
/// some for an adoption that hangs.
fn deaf_clients(server: &Server) -> Vec<UnixStream> {
    let adopt = json!({"verb": "adopt", "service": "nfs", "prepare": false, "finish": false, "fenced": null, "force": true});
    let words = [format!("{adopt}\n"), "{\"verb\":\"status\"}\n".to_owned(), "{\"verb\":".to_owned()];
    words.iter().flat_map(|words| (0..200).map(|_| say(server, words)).collect::<Vec<_>>()).collect()
}

#[test]
fn clients_that_do_not_read_or_say_half_of_something_make_no_other_wait() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let hook = Hook::new(&server, "recognise");
    server.configure("[\"true\"]", &hook.command());
    server.up();
    let deaf = deaf_clients(&server);
    let _running = hook.running();
    lives(&site, &server, "nfs-a");
    drop(deaf);
    server.wait_for("a verb that is done", |server| {
        (server.run(&["maintenance", "on"]).status.code() == Some(0)).then_some(())
    });
}

#[test]
fn an_agent_that_has_no_room_for_a_connection_waits_for_it_and_turns_in_no_circle() {
    let site = Site::new();
    let server = site.server("a", "nfs-a");
    let mut command = Command::new("prlimit");
    let agent = server.command(&["agent"]);
    command.arg("--nofile=40").arg(agent.get_program()).args(agent.get_args());
    let log = fs::File::create(server.path("log")).unwrap();
    let agent = Program::start(command.stdin(Stdio::null()).stderr(log));
    server.wait_for("an agent that answers", |server| server.serves().then_some(()));
    let held: Vec<UnixStream> = (0..60).map(|_| say(&server, "{\"verb\":")).collect();
    server.wait_for("a word that there is no room", |server| {
        server.log().contains("no connection can be taken in").then_some(())
    });
    let (began, before) = (Instant::now(), busy(agent.0.id(), "control"));
    thread::sleep(Duration::from_secs(2));
    let share = (busy(agent.0.id(), "control") - before).div_duration_f64(began.elapsed());
    assert!(share < 0.3, "{share} of its time");
    drop(held);
    server.wait_for("an agent that answers", |server| server.serves().then_some(()));
    goes_on(&site, &server, "nfs-a");
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

/// A command of the configuration that hangs.
struct Hook {
    pid_file: PathBuf,
    time_limit_s: u32,
}

impl Hook {
    fn new(server: &Server, name: &str) -> Self {
        Self { pid_file: server.path(&format!("pid-{name}")), time_limit_s: 3600 }
    }

    /// It has begun another program in a session of its own, and hangs.
    fn script(&self) -> String {
        format!(
            "setsid sleep 3600 & echo $$ $! > {0}.new; mv {0}.new {0}; exec sleep 3600",
            self.pid_file.display()
        )
    }

    /// As the configuration has it.
    fn command(&self) -> String {
        format!(
            "{{ command = [\"sh\", \"-c\", \"{}\"], time-limit = \"{}s\" }}",
            self.script(),
            self.time_limit_s
        )
    }

    /// Waits until it hangs.
    fn running(&self) -> Running {
        let pids = wait_for("a command that hangs", || fs::read_to_string(&self.pid_file).ok());
        Running(pids.split_whitespace().map(str::to_owned).collect())
    }
}

/// The processes of a command that hangs; they end with the test.
struct Running(Vec<String>);

impl Running {
    fn alive(&self) -> usize {
        let state = |pid: &String| {
            let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
            let sleeps = stat.contains("(sleep)") || stat.contains("(sh)") || stat.contains("(setsid)");
            (sleeps && !stat.contains(") Z ")).then_some(())
        };
        self.0.iter().filter_map(state).count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.alive() > 0 {
            let _ = Command::new("kill").arg("-KILL").args(&self.0).stderr(Stdio::null()).status();
        }
    }
}

/// An agent with one service at home and one that no server holds, whose hook of this name hangs.
fn with_hook(site: &Site, name: &str) -> (Server, Hook) {
    let server = site.server("a", "nfs-a");
    let hook = Hook::new(&server, name);
    server.configure("[heartbeat]", &format!("[hooks]\n{name} = {}\n[heartbeat]", hook.command()));
    (server, hook)
}

/// A verb that waits for the thing that hangs.
fn verb(server: &Server, words: &[&str]) -> Program {
    Program::start(server.command(words).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// While a command hangs the agent goes on, and the command hangs all the time.
fn goes_on_while(site: &Site, server: &Server, name: &str, hook: &Hook) {
    let running = hook.running();
    goes_on(site, server, name);
    assert_eq!(running.alive(), 2, "it was to hang all the time");
}

#[test]
fn an_agent_goes_on_while_its_volume_comes_up_for_ever() {
    let site = Site::new();
    let (mut server, hook) = with_hook(&site, "volume-up");
    server.up();
    let _adopt = verb(&server, &["adopt", "nfs", "--force"]);
    goes_on_while(&site, &server, "nfs-a", &hook);
}

#[test]
fn an_agent_goes_on_while_its_lock_manager_recognises_for_ever() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let hook = Hook::new(&server, "recognise");
    server.configure("[\"true\"]", &hook.command());
    server.up();
    let _adopt = verb(&server, &["adopt", "nfs", "--force"]);
    goes_on_while(&site, &server, "nfs-a", &hook);
}

#[test]
fn an_agent_goes_on_while_its_lock_manager_does_not_say_which_life_it_lives() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let hook = Hook::new(&server, "incarnation");
    let here = server.path("").display().to_string();
    let script = format!("test ! -e {here}hang || {{ {}; }}; cat {here}life", hook.script());
    let command = format!("{{ command = [\"sh\", \"-c\", \"{script}\"], time-limit = \"3600s\" }}");
    server.configure(&format!("[\"cat\", \"{here}life\"]"), &command);
    server.up();
    fs::write(server.path("hang"), "").unwrap();
    let running = hook.running();
    fs::remove_file(server.path("hang")).unwrap();
    // Work that needs the lock manager waits for it, and nothing else waits with it.
    let _adopt = verb(&server, &["adopt", "new"]);
    server.wait_for("an adoption that waits for the lock manager", |server| {
        (server.service("new")?["phase"] == "conveyed").then_some(())
    });
    goes_on(&site, &server, "nfs-a");
    assert_eq!(running.alive(), 2, "it was to hang all the time");
}

#[test]
fn an_agent_goes_on_while_an_address_goes_down_for_ever() {
    let site = Site::new();
    let (mut server, hook) = with_hook(&site, "address-down");
    server.up();
    let _release = verb(&server, &["release", "nfs"]);
    goes_on_while(&site, &server, "nfs-a", &hook);
}

/// An address that no server has: as if it had been taken away, or were still to come.
const NOWHERE: &str = "192.0.2.77";

#[test]
fn an_agent_goes_on_while_a_volume_goes_down_for_ever() {
    let site = Site::new();
    let (mut server, hook) = with_hook(&site, "volume-down");
    server.configure("\"127.0.0.1\"", &format!("\"{NOWHERE}\""));
    server.up();
    let _release = verb(&server, &["release", "nfs"]);
    goes_on_while(&site, &server, "nfs-a", &hook);
}

/// A primary that is dead, and the server that is to adopt from it.
fn with_a_dead_primary(site: &Site, clients: &[&str]) -> Server {
    let mut a = site.server("a", "nfs-a");
    a.up();
    clients.iter().for_each(|client| a.register(client));
    a.wait_until_captured("nfs", u64::try_from(clients.len()).unwrap());
    a.kill();
    site.server("b", "nfs-b")
}

#[test]
fn an_agent_goes_on_while_a_fence_hangs() {
    let site = Site::new();
    let (mut a, mut b) = (site.server("a", "nfs-a"), site.server("b", "nfs-b"));
    let hook = Hook::new(&b, "fence");
    b.configure("[heartbeat]", &format!("[hooks]\nfence = {}\n[heartbeat]", hook.command()));
    a.up();
    b.up();
    b.wait_until_it_hears_the_other();
    a.kill();
    b.wait_for("a heart that is still", |server| {
        let status = server.try_status()?;
        status["servers"][0]["heart"].as_str()?.starts_with("silent").then_some(())
    });
    let _adopt = verb(&b, &["adopt", "nfs"]);
    goes_on_while(&site, &b, "nfs-b", &hook);
}

/// A network that plays the clients and the lock manager of a server; its configuration says where.
fn played(server: &Server, clients: &[&str]) -> Network {
    let network = Network::new(clients, "nfs-b", server.path(""));
    server.configure("rpcbind-port = 9", &format!("rpcbind-port = {}", network.rpcbind_port));
    let life = server.path("life").display().to_string();
    server.configure("[\"true\"]", &format!("[\"cp\", \"/proc/sys/kernel/random/uuid\", \"{life}\"]"));
    // Nothing here waits for its end, save what fails.
    server.configure("grace-period = \"20s\"", "grace-period = \"10m\"");
    network
}

#[test]
fn an_agent_goes_on_while_an_address_comes_up_for_ever() {
    let site = Site::new();
    let mut b = with_a_dead_primary(&site, &["127.1.0.1"]);
    let _network = played(&b, &["127.1.0.1"]);
    let hook = Hook::new(&b, "address-up");
    b.configure("[heartbeat]", &format!("[hooks]\naddress-up = {}\n[heartbeat]", hook.command()));
    b.configure("\"127.0.0.1\"", &format!("\"{NOWHERE}\""));
    b.up();
    let _adopt = verb(&b, &["adopt", "nfs", "--owner-fenced", "nfs-a"]);
    goes_on_while(&site, &b, "nfs-b", &hook);
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_began() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    let hook = Hook { time_limit_s: 5, ..Hook::new(&server, "volume-up") };
    server.configure("[heartbeat]", &format!("[hooks]\nvolume-up = {}\n[heartbeat]", hook.command()));
    server.up();
    let failed = server.run(&["adopt", "new"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("not done within 5 s, so it was ended"), "{said}");
    let running = hook.running();
    wait_for("the end of all of it", || (running.alive() == 0).then_some(()));
    goes_on(&site, &server, "nfs-a");
}

/// A name server that answers nothing, in the place of the machine's own.
fn silent_name_server() -> UdpSocket {
    sh("ip link set lo up && mount -t tmpfs none /run");
    sh("echo 'hosts: dns' > /run/nsswitch.conf && mount --bind /run/nsswitch.conf /etc/nsswitch.conf");
    sh("printf 'nameserver 127.0.0.1\\noptions timeout:30 attempts:5\\n' > /run/resolv.conf");
    sh("mount --bind /run/resolv.conf /etc/resolv.conf");
    UdpSocket::bind("127.0.0.1:53").unwrap()
}

#[test]
fn clients_known_by_address_are_told_while_a_name_service_hangs_for_a_hundred_others() {
    let can = ["/etc/nsswitch.conf", "/etc/resolv.conf"].iter().all(|file| Path::new(file).is_file());
    let test = "clients_known_by_address_are_told_while_a_name_service_hangs_for_a_hundred_others";
    if !namespaces::is_inside(test, can, "root, and a resolver's configuration") {
        return;
    }
    let name_server = silent_name_server();
    let site = Site::new();
    let names: Vec<String> = (0..100).map(|number| format!("client{number}.example")).collect();
    let known = ["127.1.0.1", "127.1.0.2"];
    let all: Vec<&str> = names.iter().map(String::as_str).chain(known).collect();
    let mut b = with_a_dead_primary(&site, &all);
    let network = played(&b, &known);
    b.up();
    let told = b.run(&["adopt", "nfs", "--owner-fenced", "nfs-a", "--until", "notified", "--json"]);
    assert_eq!(told.status.code(), Some(6), "{told:?}");
    let report: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&report["acknowledged"], &report["unknown"]), (&2.into(), &100.into()), "{report}");
    for client in known {
        assert!(!network.told(client).is_empty(), "{client}");
    }
    goes_on(&site, &b, "nfs-b");
    name_server.set_nonblocking(true).unwrap();
    assert!(name_server.recv(&mut [0; 512]).is_ok(), "names were looked up all the time");
}
