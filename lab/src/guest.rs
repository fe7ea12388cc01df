//! One guest: a User-Mode Linux kernel, which is a whole Linux that runs as an ordinary program.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::limits::{ANSWER_MARGIN, BOOT_TIME_MAX, CONNECT_TIME_MAX, CONSOLE_TAIL_LINES, POLL};
use crate::process::PidNamespace;
use crate::release::Root;
use crate::stop::Stop;
use crate::wire::{self, AGENT_PORT, Ending, Ran};

/// The first process of every guest.
pub const INIT: &str = include_str!("guest/init");

/// The init of a server that systemd runs.
pub const UNDER_SYSTEMD: &str = include_str!("guest/under-systemd");

/// Starts a guest's kernel in namespaces of its own.
const START: &str = include_str!("guest/start.sh");

/// The settings that its kernel needs to run on today's processors.
const PTRACE: &str = include_str!("guest/ptrace.c");

/// The message of a kernel that can't go on (kernel/panic.c).
const PANIC: &str = "Kernel panic";

/// A real server or client.
#[derive(Debug)]
pub struct Guest {
    name: String,
    address: IpAddr,
    tap: String,
    console: PathBuf,
    /// How many bytes were on the console before it was switched on.
    console_start: usize,
    kernel: Option<Kernel>,
}

/// The machine's part of a running guest.
#[derive(Debug)]
struct Kernel {
    /// unshare(1); it ends with the kernel, and the kernel with it.
    parent: Child,
    namespace: Arc<PidNamespace>,
}

/// The parameters of a guest.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The release's root.
    pub root: &'a Root,
    /// The scenario's folder, which guests see as /opt.
    pub folder: &'a Path,
    /// Disk images in that folder, in the order of /dev/ubda, /dev/ubdb.
    pub disks: &'a [String],
    /// Further words for the guest's init, `lab_…=…`.
    pub words: &'a [String],
    /// Of its kernel, in MiB.
    pub memory: u32,
}

impl Guest {
    /// A guest that is off.
    #[must_use]
    pub fn new(name: &str, address: IpAddr, tap: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            address,
            tap: tap.to_owned(),
            console: folder.join(format!("console.{name}")),
            console_start: 0,
            kernel: None,
        }
    }

    /// Its name in the cast.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its tap device.
    #[must_use]
    pub fn tap(&self) -> &str {
        &self.tap
    }

    /// Was it started and not ended since?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.kernel.is_some()
    }

    /// Switches it on; it boots meanwhile. The calling thread must live in the scenario's network and longer
    /// than the guest: the kernel ends with the thread that started it, so that nothing is left of a lab that
    /// was killed.
    ///
    /// # Errors
    /// When it is on already or a program can't be started.
    pub fn switch_on(&mut self, boot: &Boot) -> Result<()> {
        if self.is_on() {
            bail!("{} is on already", self.name);
        }
        let console = OpenOptions::new().create(true).append(true).open(&self.console)?;
        self.console_start = usize::try_from(console.metadata()?.len())?;
        let mut parent = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["sh", "-c", START, "lab-guest"])
            .arg(boot.root.tree.as_deref().unwrap_or(Path::new("")))
            .arg(boot.folder)
            .arg(boot.memory.to_string())
            .args(self.kernel_arguments(boot))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0) // Ctrl-C is for the lab alone
            .spawn()
            .context("can't start setpriv")?;
        match wait_for_namespace(&mut parent) {
            Ok(namespace) => {
                self.kernel = Some(Kernel { parent, namespace: Arc::new(namespace) });
                Ok(())
            }
            Err(error) => {
                parent.kill()?;
                parent.wait()?;
                Err(error.context(self.console_tail()))
            }
        }
    }

    fn kernel_arguments(&self, boot: &Boot) -> Vec<String> {
        let name = &self.name;
        let mut arguments = vec![
            "root=/dev/root".to_owned(),
            "rootfstype=hostfs".to_owned(),
            "rootflags=/".to_owned(),
            "ro".to_owned(),
            format!("mem={}M", boot.memory),
            format!("umid={name}"),
            "uml_dir=/opt/memory".to_owned(),
            "init=/opt/init".to_owned(),
            format!("vec0:transport=tap,ifname={},depth=128,mac={}", self.tap, self.hardware_address()),
            "con=null".to_owned(),
            "con0=null,fd:1".to_owned(),
            "con1=null".to_owned(),
            "loglevel=5".to_owned(),
            format!("lab_name={name}"),
            format!("lab_address={}", self.address),
        ];
        // `s` and `c`: shared and not locked, so that several guests may have the same disk, as several
        // servers have one volume.
        arguments
            .extend(boot.disks.iter().enumerate().map(|(index, disk)| format!("ubd{index}sc=/opt/{disk}")));
        arguments.extend(boot.words.iter().cloned());
        arguments
    }

    /// The same after each start, as a real server's is: else its neighbours would talk to the old one until
    /// their entries expire, 34 s in one trial. Locally administered (IEEE 802), the last byte from the
    /// address.
    fn hardware_address(&self) -> String {
        let last = match self.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        format!("02:00:00:00:00:{last:02x}")
    }

    /// Waits until its agent answers.
    ///
    /// # Errors
    /// When it ended or does not answer within [`BOOT_TIME_MAX`]; the error has the end of its console.
    pub fn wait_until_up(&mut self, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + BOOT_TIME_MAX;
        loop {
            stop.check()?;
            let Some(kernel) = self.kernel.as_mut() else { bail!("{} is off", self.name) };
            if let Some(status) = kernel.parent.try_wait()? {
                bail!("{} ended while it booted ({status})\n{}", self.name, self.console_tail());
            }
            // A kernel that panics does not end; it would be waited for in vain.
            let tail = self.console_tail();
            if tail.contains(PANIC) {
                bail!("{} did not boot\n{tail}", self.name);
            }
            let limit = Duration::from_millis(500);
            if exchange(self.agent(), "true", limit, limit, stop).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} did not come up in {} s\n{}",
                    self.name,
                    BOOT_TIME_MAX.as_secs(),
                    self.console_tail()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Runs a shell command in the guest, whatever its exit code.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn run(&self, command: &str, limit: Duration, stop: &Stop) -> Result<Ran> {
        if !self.is_on() {
            bail!("{} is off; can't run there: {command}", self.name);
        }
        exchange(self.agent(), command, CONNECT_TIME_MAX, limit, stop).with_context(|| {
            format!("{} gave no answer to this command: {command}\n{}", self.name, self.console_tail())
        })
    }

    /// Runs a shell command that must succeed, and gives its output.
    ///
    /// # Errors When it does not answer or the exit code is not 0. The error has the command, its output and
    /// the end of the guest's console.
    pub fn ok(&self, command: &str, limit: Duration, stop: &Stop) -> Result<String> {
        let ran = self.run(command, limit, stop)?;
        if ran.ending == Ending::Exit(0) {
            return Ok(ran.output);
        }
        Err(anyhow!(
            "{}: {}\n--- command\n{}\n--- its output\n{}\n{}",
            self.name,
            ran.ending,
            command.trim(),
            ran.output.trim_end(),
            self.console_tail()
        ))
    }

    /// Power loss: every process of the guest's kernel is killed until none is left. Data that it had not written to a disk
    /// are gone.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn power_loss(&mut self) -> Result<()> {
        let Some(mut kernel) = self.kernel.take() else { return Ok(()) };
        let outcome = kernel.namespace.kill_all();
        // It ends by itself when its child did; when that failed, it must not stay either.
        kernel.parent.kill().ok();
        kernel.parent.wait()?;
        outcome.with_context(|| format!("can't end the kernel of {}", self.name))
    }

    /// Where all processes of its kernel are, while it is on.
    #[must_use]
    pub fn namespace(&self) -> Option<Arc<PidNamespace>> {
        self.kernel.as_ref().map(|kernel| Arc::clone(&kernel.namespace))
    }

    /// The processes that are to be killed for a power loss that must not wait for a look at the processes.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        self.kernel.as_ref().map(|kernel| kernel.namespace.members()).unwrap_or_default()
    }

    /// The end of what the guest's kernel and its first process printed since it was switched on. Where the kernel panicked
    /// that is the end: the stack which follows is longer and tells less.
    #[must_use]
    pub fn console_tail(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(self.console_start..).unwrap_or_default());
        let lines: Vec<&str> = text.lines().collect();
        let panic = lines.iter().position(|line| line.contains(PANIC));
        let end = panic.map_or(lines.len(), |at| at + 1);
        let tail = lines[end.saturating_sub(CONSOLE_TAIL_LINES)..end].join("\n");
        format!("--- console of {} ({})\n{tail}", self.name, self.console.display())
    }

    fn agent(&self) -> SocketAddr {
        SocketAddr::new(self.address, AGENT_PORT)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = self.power_loss() {
            eprintln!("heirlock-lab: {error:#}");
        }
    }
}

/// Compiles what every guest's kernel is started with, with the C compiler that Rust links with.
///
/// # Errors
/// When there is none, or it fails.
pub fn make_ptrace(folder: &Path) -> Result<()> {
    let source = folder.join("ptrace.c");
    fs::write(&source, PTRACE)?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    crate::process::run(
        Command::new(compiler)
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(folder.join("ptrace.so"))
            .arg(&source),
    )
    .map(drop)
}

/// unshare(1) makes the namespace a moment after its start.
fn wait_for_namespace(parent: &mut Child) -> Result<PidNamespace> {
    let own = PidNamespace::own()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = parent.try_wait()? {
            bail!("unshare ended ({status})");
        }
        match PidNamespace::of_children(parent.id()) {
            Ok(namespace) if namespace != own => return Ok(namespace),
            _ if Instant::now() > deadline => bail!("expected a process namespace from unshare within 10 s"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// One command on a connection of its own. Reads in short steps, so that Ctrl-C is heard.
fn exchange(
    agent: SocketAddr,
    command: &str,
    connect_limit: Duration,
    limit: Duration,
    stop: &Stop,
) -> Result<Ran> {
    let mut stream = TcpStream::connect_timeout(&agent, connect_limit).context("can't connect")?;
    stream.set_read_timeout(Some(POLL))?;
    wire::send_request(&mut stream, command, limit).context("can't send")?;
    let deadline = Instant::now() + limit + ANSWER_MARGIN;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("the connection broke"),
        }
        stop.check()?;
        if Instant::now() > deadline {
            bail!("no answer within {} s", (limit + ANSWER_MARGIN).as_secs());
        }
        if answer.len() as u64 > wire::ANSWER_BYTES_MAX {
            bail!("expected at most {} bytes of answer", wire::ANSWER_BYTES_MAX);
        }
    }
    Ok(wire::parse_answer(&answer)?)
}

/// Makes a sparse file with an ext4 file system, for guests to share.
///
/// # Errors
/// When there is no room or mkfs.ext4 fails.
pub fn make_disk(path: &Path, mebibytes: u64) -> Result<()> {
    File::create(path)?.set_len(mebibytes << 20)?;
    crate::process::run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_panic_of_a_guest_is_found_however_long_the_stack_and_only_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut guest = Guest::new("nfs-a", IpAddr::from([10, 99, 0, 1]), "tap0", folder.path());
        let stack = "  [<6002c0dd>] new_thread_handler+0xae/0xb0\n".repeat(60);
        let before = format!("Kernel panic - not syncing: earlier\n{stack}");
        let now =
            "ptrace set fp regs failed, errno = 14\nKernel panic - not syncing: Attempted to kill init!";
        guest.console_start = before.len();
        let told = |printed: String| {
            fs::write(&guest.console, before.clone() + &printed).unwrap();
            guest.console_tail().split_once('\n').unwrap().1.to_owned()
        };
        assert_eq!(told(format!("{now}\n{stack}")), now);
        assert_eq!(told("Core dump limits\n".to_owned()), "Core dump limits");
    }
}
