//! One server in namespaces of its own, with a rpcbind of its own: only root can make them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_nsm::rpc::{Credential, Reply, encode_call, frame};
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::sm::{self, MonArgs, MonId, MyId, Procedure, StatResult};
use socket2::{Domain, Socket, Type};

/// Long, for a machine that does much else; the awaited event ends the wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const CONFIG: &str = "/run/heirlock.toml";

/// Whether this test runs in namespaces of its own, where rpcbind can be started.
pub(crate) fn is_inside(test: &str) -> bool {
    crate::namespaces::is_inside(test, Path::new("/sbin/rpcbind").exists(), "root and rpcbind")
}

pub(crate) struct Server {
    rpcbind: Child,
    agent: Option<Child>,
}

impl Server {
    /// A server with a store and nothing in it; `capture` is what the configuration says besides.
    pub(crate) fn new(capture: &str) -> Self {
        Self::on("path = \"/srv/store\"", capture)
    }

    /// The same with these lines below `[store]`.
    pub(crate) fn on(store: &str, capture: &str) -> Self {
        sh(
            "ip link set lo up && mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t tmpfs none /srv",
        );
        sh(
            "mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /srv/store/services /srv/store/servers && chmod 700 /srv/store",
        );
        // As Debian has it: the records belong to the status monitor's own user.
        sh("chown -R 65534:65534 /var/lib/nfs/sm /var/lib/nfs/sm.bak");
        fs::write("/srv/store/heirlock-store", "heirlock store, format 1\n").unwrap();
        // A lock manager that lives one life: without any, no deletion means anything.
        let config = format!(
            "server = \"nfs-a\"\nruntime-directory = \"/run/heirlock\"\nlocal-directory = \"/var/lib/heirlock\"\n\
             [store]\n{store}\n[capture]\n{capture}\n\
             [lock-manager]\ntype = \"command\"\nincarnation = [\"echo\", \"one\"]\ngrace-period = \"5s\"\n\
             [[service]]\nname = \"nfs\"\naddresses = [\"127.9.9.9\"]\nhome = \"nfs-a\"\n"
        );
        fs::write(CONFIG, config).unwrap();
        Self { rpcbind: rpcbind(), agent: None }
    }

    /// Begins `heirlock agent` or `heirlock supervise`, and waits until the agent answers and both services are held.
    pub(crate) fn start(&mut self, verb: &str) {
        self.start_by(heirlock(&[verb, "--log", "info"]));
    }

    /// The same; its log goes to this file.
    pub(crate) fn start_with_log(&mut self, verb: &str, log: &Path) {
        self.start_with_stderr(verb, File::create(log).unwrap());
    }

    /// The same; its log goes there.
    pub(crate) fn start_with_stderr(&mut self, verb: &str, stderr: impl Into<Stdio>) {
        let mut command = heirlock(&[verb, "--log", "info"]);
        command.stderr(stderr);
        self.start_by(command);
    }

    fn start_by(&mut self, mut command: Command) {
        self.agent = Some(command.spawn().unwrap());
        wait_until("the agent", || {
            let status = heirlock(&["status", "--json"]).stderr(Stdio::null()).output().unwrap();
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            let held = status["services"].as_array().into_iter().flatten().filter(|one| one["held"] == true);
            status["lock_manager"]["serving"] == true && held.count() == 2
        });
    }

    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Whether what was started has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.agent.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// The agent where nothing supervises it.
    pub(crate) fn agent(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// The agent under the supervisor.
    pub(crate) fn child(&self) -> u32 {
        let parent = self.agent.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn stop_rpcbind(&mut self) {
        self.rpcbind.kill().unwrap();
        self.rpcbind.wait().unwrap();
    }

    pub(crate) fn start_rpcbind(&mut self) {
        // Its memory of its life before is taken from it: a cold start.
        sh("rm -rf /run/rpcbind /run/rpcbind.sock");
        self.rpcbind = rpcbind();
    }
}

fn rpcbind() -> Child {
    sh("mkdir -p /run/rpcbind");
    let child = Command::new("rpcbind").arg("-f").spawn().unwrap();
    wait_until("rpcbind", || {
        Path::new("/run/rpcbind.sock").exists() && UdpSocket::bind("0.0.0.0:111").is_err()
    });
    child
}

pub(crate) fn heirlock(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
    command.args(arguments).env("HEIRLOCK_CONFIG", CONFIG).env("NO_COLOR", "1");
    command
}

/// Where each service's records lie, in its newest generation.
pub(crate) fn record_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for service in fs::read_dir("/srv/store/services").into_iter().flatten().flatten() {
        let generations = fs::read_dir(service.path()).into_iter().flatten().flatten();
        let newest = generations.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
        folders.extend(newest.map(|newest| service.path().join(newest.to_string()).join("sm")));
    }
    folders
}

/// Whether every service knows the client.
pub(crate) fn is_stored(client: &str) -> bool {
    let folders = record_folders();
    folders.len() == 2 && folders.iter().all(|folder| folder.join(client).exists())
}

pub(crate) fn port(transport: Transport) -> Option<u16> {
    let question = rpcbind::encode_getport_call(1, sm::PROGRAM, sm::VERSION, transport);
    let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.send_to(&question, "127.0.0.1:111").ok()?;
    let mut buffer = [0; 256];
    let (count, _) = socket.recv_from(&mut buffer).ok()?;
    rpcbind::decode_getport_result(Reply::decode(&buffer[..count]).ok()?.outcome.ok()?).ok()?
}

/// SM_MON over TCP, as lockd asks; `None` where no answer comes within the time.
pub(crate) fn mon(client: &str, cookie: u8, patience: Duration) -> Option<StatResult> {
    let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 3, proc_: 16 };
    let args = MonArgs { mon_id: MonId { mon_name: client, my_id }, cookie: [cookie; 16] };
    let answer = ask(port(Transport::Tcp)?, Procedure::Mon, &args.encode(), patience)?;
    StatResult::decode(&answer).ok()
}

pub(crate) fn unmon(client: &str) {
    let my_id = MyId { my_name: "nfs-a", prog: 100_021, vers: 3, proc_: 16 };
    let args = MonId { mon_name: client, my_id }.encode();
    ask(port(Transport::Tcp).unwrap(), Procedure::Unmon, &args, PATIENCE).unwrap();
}

pub(crate) fn ask(port: u16, procedure: Procedure, args: &[u8], patience: Duration) -> Option<Vec<u8>> {
    ask_over(&mut as_lockd(port).ok()?, procedure, args, patience)
}

pub(crate) fn ask_over(
    stream: &mut TcpStream,
    procedure: Procedure,
    args: &[u8],
    patience: Duration,
) -> Option<Vec<u8>> {
    let call = encode_call(7, sm::PROGRAM, sm::VERSION, procedure as u32, &Credential::None, args);
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(&frame(&call)).ok()?;
    let mut answer = [0; 512];
    let count = stream.read(&mut answer).ok()?;
    Some(Reply::decode(answer.get(4..count)?).ok()?.outcome.ok()?.to_vec())
}

/// A connection from a privileged port of 127.0.0.1: root speaks.
fn as_lockd(to: u16) -> io::Result<TcpStream> {
    for port in (600..1024).rev() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Closed without a trace: else the ports would be used up.
        socket.set_linger(Some(Duration::ZERO))?;
        let connected = socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())
            .and_then(|()| socket.connect(&SocketAddr::from(([127, 0, 0, 1], to)).into()));
        match connected {
            Ok(()) => return Ok(socket.into()),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

pub(crate) fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < end, "{what} did not come about");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn sh(script: &str) {
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
}
