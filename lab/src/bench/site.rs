//! The site of a bench: a network of its own with Debian's rpcbind, and servers whose folders lie on a real disk. Each
//! program sees its server's folders where it looks for them in production, by a mount namespace of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{clients, ground};
use crate::network::{enter_new_namespace, ip};
use crate::rpc;

/// Where rpc.statd is.
pub(super) const STATD: &str = "/usr/sbin/rpc.statd";

/// The address of the service that moves.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 1);

/// How long a program may take to be ready.
const READY_TIME_MAX: Duration = Duration::from_secs(120);

/// How often is looked whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// NSM, as rpcbind knows it.
const NSM: (u32, u32) = (100_024, 1);

const TCP: u32 = 6;

/// A network for servers, another for their clients, and a folder on a disk.
pub(super) struct Site {
    folder: PathBuf,
    servers: File,
    clients: File,
    _rpcbind: Running,
}

/// The folders of one server.
pub(super) struct Host {
    pub(super) folder: PathBuf,
    run: PathBuf,
}

/// A program that ends with this.
pub(super) struct Running {
    child: Child,
    /// It is asked to end, for it ends what it has begun.
    in_order: bool,
}

impl Site {
    /// Moves this thread into a new network, in which there is rpcbind and nothing else. The clients have one of their
    /// own, since each of them has a rpcbind too.
    pub(super) fn new() -> Result<Self> {
        let clients = new_network()?;
        let servers = new_network()?;
        let theirs = format!("/proc/{}/fd/{}", std::process::id(), clients.as_raw_fd());
        ip(&format!("link add near type veth peer name far netns {theirs}"))?;
        ip("link set near up")?;
        ip(&format!("addr add {ADDRESS}/32 dev near"))?;
        enter(&clients)?;
        ip("link set far up")?;
        ip(&format!("route add {ADDRESS}/32 dev far"))?;
        ip("addr add 10.198.0.2/32 dev far")?;
        ip(&format!("route add local {} dev lo", clients::NETWORK))?;
        enter(&servers)?;
        ip("route add 10.198.0.2/32 dev near")?;
        ip(&format!("route add {} via 10.198.0.2 dev near", clients::NETWORK))?;
        let folder = ground::folder()?;
        fs::create_dir_all(folder.join("run/rpcbind"))?;
        let here = Host { folder: folder.clone(), run: folder.join("run") };
        here.name_service()?;
        fs::create_dir(folder.join("nfs"))?;
        let rpcbind = here.daemon("rpcbind", &["-f"])?;
        let socket = folder.join("run/rpcbind.sock");
        // To try whether the port is free would take it from rpcbind now and then.
        wait_for("rpcbind", || socket.exists() && TcpStream::connect((Ipv4Addr::LOCALHOST, 111)).is_ok())?;
        Ok(Self { folder, servers, clients, _rpcbind: rpcbind })
    }

    /// Does something where the clients are.
    pub(super) fn among_clients<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        enter(&self.clients)?;
        let done = work();
        enter(&self.servers)?;
        done
    }

    /// A folder of the site.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A server with a status monitor's directory as Debian's package makes it.
    pub(super) fn host(&self, name: &str) -> Result<Host> {
        let host = Host { folder: self.path(name), run: self.path("run") };
        let nfs = host.folder.join("nfs");
        for inner in ["sm", "sm.bak"] {
            fs::create_dir_all(nfs.join(inner))?;
        }
        host.name_service()?;
        // statd runs as the owner of these.
        let owner = fs::metadata("/var/lib/nfs/sm").ok();
        #[allow(clippy::host_endian_bytes)] // nfs-utils writes an int as the machine has it
        fs::write(nfs.join("state"), 5_u32.to_ne_bytes())?;
        for inner in ["sm", "sm.bak", "state"] {
            let (user, group) = owner.as_ref().map_or((65_534, 65_534), |meta| (meta.uid(), meta.gid()));
            chown(nfs.join(inner), Some(user), Some(group))?;
        }
        Ok(host)
    }
}

impl Host {
    /// The machine's own name service: a short list, and no other source of names.
    fn name_service(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let node = rustix::system::uname();
        let node = node.nodename().to_string_lossy().into_owned();
        fs::write(self.folder.join("hosts"), format!("127.0.0.1 localhost\n127.0.1.1 {node}\n"))?;
        fs::write(self.folder.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
        // As `heirlock enable` does: heirlock alone tells clients of a restart.
        fs::write(self.folder.join("nfs.conf"), "[sm-notify]\nlift-grace=n\n")?;
        fs::write(self.run.join("sm-notify.pid"), "")?;
        Ok(())
    }

    /// Where heirlock's configuration is on this server, if it has any; a callout looks there too.
    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("heirlock.toml")
    }

    /// Makes more names known here.
    pub(super) fn know(&self, lines: &str) -> Result<()> {
        let path = self.folder.join("hosts");
        let hosts = fs::read_to_string(&path)? + lines;
        Ok(fs::write(path, hosts)?)
    }

    /// A process stands for the kernel's thread lockd, which serves and is not in grace (proc(5)).
    pub(super) fn play_lockd(&self, process: u32) -> Result<()> {
        let stat = format!("{process} (lockd) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n");
        fs::write(self.folder.join("lockd"), stat)?;
        Ok(fs::write(self.folder.join("lockd.pid"), process.to_string())?)
    }

    /// A program that sees this server's folders. The settings of the machine's kernel are out of its reach.
    pub(super) fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        self.wrapped(&[], "exec \"$@\"", program.as_ref(), arguments)
    }

    /// A program that gives up its privileges, and with them the tie to its parent: the first process of a namespace of
    /// its own keeps that tie.
    fn daemon(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Running> {
        let tied = ["--pid", "--fork", "--kill-child"];
        Running::start(self.wrapped(&tied, "\"$@\"; exit $?", program.as_ref(), arguments))
    }

    fn wrapped(&self, namespaces: &[&str], run: &str, program: &Path, arguments: &[&str]) -> Command {
        let script = format!(
            "set -e
             mount --bind \"$0/hosts\" /etc/hosts
             mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf
             mount --bind \"$0/nfs.conf\" /etc/nfs.conf
             mount --bind \"$RUN\" /run
             test ! -d /var/lib/nfs || mount --bind \"$0/nfs\" /var/lib/nfs
             test ! -d /proc/sys/fs/nfs || mount -t tmpfs none /proc/sys/fs/nfs
             test ! -f \"$0/lockd\" || {{
                 mount --bind \"$0/lockd\" \"/proc/$(cat \"$0/lockd.pid\")/stat\"
                 mount -t tmpfs none /proc/fs
                 mkdir /proc/fs/nfsd /proc/fs/lockd
                 echo 8 > /proc/fs/nfsd/threads
                 echo Y > /proc/fs/lockd/nlm_end_grace
             }}
             set +e; {run}"
        );
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount"]).args(namespaces);
        command.args(["sh", "-c", &script]).arg(&self.folder).arg(program).args(arguments);
        command.env("RUN", &self.run).env("HEIRLOCK_CONFIG", self.configuration());
        command
    }

    /// Debian's status monitor, as its unit starts it, and where it listens.
    pub(super) fn statd(&self, callout: Option<&Path>) -> Result<(Running, u16)> {
        let callout = callout.map(|path| path.display().to_string());
        let mut arguments = vec!["-F", "-L"];
        arguments.extend(callout.as_ref().into_iter().flat_map(|path| ["-H", path.as_str()]));
        let statd = self.daemon(STATD, &arguments)?;
        let port = monitor_port().context("rpc.statd (Debian's package nfs-common) does not register")?;
        Ok((statd, port))
    }
}

impl Running {
    /// Starts it.
    pub(super) fn start(command: Command) -> Result<Self> {
        Self::begin(command, false)
    }

    /// Starts a program that begins others, and ends them where it is asked to end itself.
    pub(super) fn start_parent(command: Command) -> Result<Self> {
        Self::begin(command, true)
    }

    fn begin(mut command: Command, in_order: bool) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("HEIRLOCK_BENCH_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let child = command.spawn().with_context(|| format!("can't start {command:?}"))?;
        Ok(Self { child, in_order })
    }

    /// Its id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still there.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // By its id, which is still its own: it has not been waited for.
        let _ = match self.in_order {
            true => kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(Into::into),
            false => self.child.kill(),
        };
        let _ = self.child.wait();
    }
}

/// Moves this thread into a network of its own.
fn new_network() -> Result<File> {
    enter_new_namespace().context("can't make a network namespace (root is needed)")?;
    ip("link set lo up")?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}

fn enter(network: &File) -> Result<()> {
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Where the status monitor of this network listens over TCP, as soon as it does.
pub(super) fn monitor_port() -> Result<u16> {
    let socket = rpc::privileged_socket()?;
    let ask = || rpc::port_over(&socket, Ipv4Addr::LOCALHOST, NSM.0, NSM.1, TCP);
    wait_for("a status monitor", || ask().is_ok())?;
    ask()
}

/// Waits until something is so.
pub(super) fn wait_for(what: &str, mut there: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + READY_TIME_MAX;
    while !there() {
        if Instant::now() > end {
            bail!("{what} did not come about within {} s", READY_TIME_MAX.as_secs());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
