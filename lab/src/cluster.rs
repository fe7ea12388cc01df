//! The cast of a scenario, and how it is switched on, spoken to and killed. Its work with NFS is in `nfs.rs`, with
//! heirlock in `heirlock.rs`, and the differences under systemd in `systemd.rs`.

mod configuration;
mod etcd;
mod heirlock;
mod history;
mod nfs;
mod pacemaker;
mod power;
mod report;
mod systemd;
mod timeline;

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::capture::Capture;
use crate::crowd;
use crate::guest::{Boot, Guest, INIT, UNDER_SYSTEMD, make_disk, make_ptrace};
use crate::guest_program;
use crate::limits::{
    COMMAND_TIME_MAX, DISK_MIB, GRACE_SECONDS, GUEST_MEMORY_MIB, LOCK_TIME_MAX, NODE_MEMORY_MIB,
    POST_MORTEM_TIME_MAX, SCENARIO_TIME_MAX,
};
use crate::network::{LAB_ADDRESS, Network};
use crate::process::PidNamespace;
use crate::release::{Release, Root};
use crate::stop::Stop;
use crate::wire::Ran;
use etcd::Etcd;
use power::PowerSwitch;

pub use heirlock::{Called, FAILED, REFUSED, SETUP, Setup, UNTOLD, check_new_number};
pub use nfs::{Lock, RESTART_NFS, Records};
pub use power::Switched;
pub use report::{
    AdoptionReport, ClientAtRisk, DrillReport, Failure, Finding, HistoryReport, LockManagerStatus, Missed,
    MonitorCounts, Observed, OtherService, Problem, ServerStatus, ServiceStatus, StatusReport, StoreStatus,
    TenureReport,
};
pub use timeline::{Action, Loss, Timeline};

/// A member of the cast, by name.
pub type Name = &'static str;

/// The usual primary.
pub const NFS_A: Name = "nfs-a";
/// The usual adoptive server.
pub const NFS_B: Name = "nfs-b";
/// A third server, for a second failover.
pub const NFS_C: Name = "nfs-c";
/// The client that holds the lock.
pub const CLIENT1: Name = "client1";
/// The client that wants it too.
pub const CLIENT2: Name = "client2";

/// A third client, for a third round.
pub const CLIENT3: Name = "client3";

/// All servers and clients, with the last byte of their own address.
const CAST: [(Name, u8); 6] =
    [(NFS_A, 1), (NFS_B, 2), (NFS_C, 3), (CLIENT1, 21), (CLIENT2, 22), (CLIENT3, 23)];

/// A service that moves between servers: a floating address and a volume.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, also in every guest's /etc/hosts, and the name of its folders: `/srv/<name>` on a server,
    /// `/mnt/<name>` on a client.
    pub name: &'static str,
    /// Its floating address.
    pub address: Ipv4Addr,
    /// Its shared disk; one server at a time mounts it.
    pub disk: &'static str,
    /// The same on every server, so that file handles stay valid.
    pub fsid: u32,
}

/// The usual service.
pub const HOMES: Service =
    Service { name: "homes", address: Ipv4Addr::new(10, 99, 0, 10), disk: "/dev/ubda", fsid: 77 };
/// A second one, on a second disk.
pub const PROJECTS: Service =
    Service { name: "projects", address: Ipv4Addr::new(10, 99, 0, 11), disk: "/dev/ubdb", fsid: 78 };

/// The images of the services' disks in the scenario's folder, in the order of their devices.
const DISKS: [&str; 2] = ["homes.img", "projects.img"];

/// The programs that are installed in every guest.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The lab's own program, which is also the guests'.
    pub lab: &'a Path,
    /// The heirlock under test, where the scenario needs one.
    pub heirlock: Option<&'a Path>,
    /// How heirlock learns of records on every server that has it.
    pub capture: Capture,
}

/// The cluster that a scenario works with.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: first the guests end, then the network is left.
    guests: Vec<Guest>,
    /// Where the store of all servers is, if it is not in the folder that they share.
    etcd: Option<Etcd>,
    network: Network,
    release: Release,
    capture: Capture,
    root: Root,
    folder: PathBuf,
    disks: Vec<String>,
    words: Vec<String>,
    run_by_systemd: Vec<Name>,
    /// The guests that Pacemaker has for its nodes, and their power switch.
    nodes: Vec<Name>,
    switch: Option<PowerSwitch>,
    grace_seconds: u64,
    stop: Stop,
    story: Story,
}

impl Cluster {
    /// Sets the stage in `folder`: network, disks, programs. All guests are off. The calling thread moves
    /// into the scenario's network for good.
    ///
    /// # Errors
    /// When the machine can't give what is needed.
    pub fn new(
        release: Release,
        root: &Root,
        folder: &Path,
        programs: Programs,
        stop: &Stop,
        story: Story,
    ) -> Result<Self> {
        let network = Network::enter()?;
        furnish(folder, root, programs)?;
        let mut guests = Vec::new();
        for (index, (name, last)) in CAST.iter().enumerate() {
            let tap = format!("tap{index}");
            network.plug(&tap)?;
            guests.push(Guest::new(name, IpAddr::from([10, 99, 0, *last]), &tap, folder));
        }
        Ok(Self {
            guests,
            etcd: None,
            network,
            release,
            capture: programs.capture,
            root: root.clone(),
            folder: folder.to_owned(),
            disks: DISKS.map(str::to_owned).to_vec(),
            words: Vec::new(),
            run_by_systemd: Vec::new(),
            nodes: Vec::new(),
            switch: None,
            grace_seconds: GRACE_SECONDS,
            stop: stop.within(SCENARIO_TIME_MAX),
            story,
        })
    }

    /// The Debian that the guests run.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// How servers learn of records.
    #[must_use]
    pub fn capture(&self) -> Capture {
        self.capture
    }

    /// The folder that all guests share read-write, as the machine sees it; guests see it as /srv/store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// A member's own address, in words.
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn address(&self, name: Name) -> Result<String> {
        Ok(self.guest(name)?.address().to_string())
    }

    /// From now on the fence of every server that is configured really switches servers off.
    ///
    /// # Errors
    /// When the switch can't be made.
    pub fn with_power_switch(&mut self) -> Result<()> {
        self.switch = Some(PowerSwitch::new(self.store().join("fence"))?);
        Ok(())
    }

    /// From now on guests boot without rpc.statd, for scenarios that bring their own status monitor.
    pub fn without_statd(&mut self) {
        self.words.push("lab_status_monitor=none".to_owned());
    }

    /// From now on what guests write below /usr goes to their memory too, for scenarios that install packages.
    pub fn with_writable_programs(&mut self) {
        self.words.push("lab_usr=writable".to_owned());
    }

    /// Where the programs under test lie on the machine.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Switches guests on, all at once, and waits until they are up.
    ///
    /// # Errors
    /// When one of them is on already or does not come up.
    pub fn switch_on(&mut self, names: &[Name]) -> Result<()> {
        let Self { guests, root, folder, disks, words, run_by_systemd, nodes, switch, stop, .. } = self;
        for guest in guests.iter_mut().filter(|guest| names.contains(&guest.name())) {
            let mut words = words.clone();
            if run_by_systemd.iter().any(|name| *name == guest.name()) {
                words.push(systemd::WORD.to_owned());
            }
            let is_node = nodes.iter().any(|name| *name == guest.name());
            if is_node {
                words.push(pacemaker::WORD.to_owned());
            }
            let memory = if is_node { NODE_MEMORY_MIB } else { GUEST_MEMORY_MIB };
            guest.switch_on(&Boot { root, folder, disks, words: &words, memory })?;
            if let (Some(switch), Some(kernel)) = (switch.as_ref(), guest.namespace()) {
                switch.connect(guest.name(), kernel);
            }
        }
        for guest in guests.iter_mut().filter(|guest| names.contains(&guest.name())) {
            guest.wait_until_up(stop)?;
        }
        self.say(format!("{} up", names.join(", ")));
        Ok(())
    }

    /// Power loss: the guest stops between two instructions and keeps nothing but what reached a disk or the
    /// shared folder.
    ///
    /// # Errors
    /// When it was off or a process does not end.
    pub fn power_loss(&mut self, name: Name) -> Result<()> {
        let guest = self.guests.iter_mut().find(|guest| guest.name() == name).context("no such guest")?;
        if !guest.is_on() {
            bail!("{name} is off already");
        }
        guest.power_loss()?;
        self.say(format!("{name} lost power"));
        Ok(())
    }

    /// A process on the client takes a lock on a file of the service, as `hold` has it, and the server loses power the
    /// moment the client has it. Gives how long the client had it by then.
    ///
    /// # Errors
    /// When the client does not get the lock, and as `power_loss`.
    pub fn hold_and_lose_power(
        &mut self,
        client: Name,
        service: &Service,
        file: &str,
        server: Name,
    ) -> Result<Duration> {
        let ear = UdpSocket::bind((LAB_ADDRESS, 0))?;
        ear.set_read_timeout(Some(LOCK_TIME_MAX))?;
        let listener = format!("{LAB_ADDRESS}:{}", ear.local_addr()?.port());
        let processes = self.guest(server)?.processes();
        let switch = thread::spawn(move || -> Result<Duration> {
            let (asked, heard) = (word(&ear)?, Instant::now());
            let granted = word(&ear)?;
            PidNamespace::kill(&processes);
            // The guest's clock is another one, so only what it says of the time between counts.
            Ok(heard.elapsed().saturating_sub(Duration::from_micros(granted.saturating_sub(asked))))
        });
        self.begin_to_hold(client, service, file, &listener)?;
        let had = switch.join().map_err(|_| anyhow!("the power switch broke"))??;
        self.power_loss(server)?;
        self.say(format!(
            "{client} has the lock on {}/{file}, and {server} lost power {:.1} ms later",
            service.name,
            had.as_secs_f64() * 1000.0
        ));
        Ok(had)
    }

    /// Is a process of the guest's kernel left?
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn is_running(&self, name: Name) -> Result<bool> {
        Ok(!self.guest(name)?.processes().is_empty())
    }

    /// Pulls a guest's network cable, or puts it back.
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn cable(&self, name: Name, plugged: bool) -> Result<()> {
        self.network.cable(self.guest(name)?.tap(), plugged)?;
        self.say(format!("{name}'s cable is {}", if plugged { "plugged in" } else { "pulled" }));
        Ok(())
    }

    /// Runs a shell command in a guest that must succeed; gives its output.
    ///
    /// # Errors
    /// With the command, its output and the end of the guest's console.
    pub fn ok(&self, name: Name, command: &str) -> Result<String> {
        self.ok_within(name, command, COMMAND_TIME_MAX)
    }

    /// The same with another time limit.
    ///
    /// # Errors
    /// As `ok`.
    pub fn ok_within(&self, name: Name, command: &str, limit: Duration) -> Result<String> {
        let outcome = self.guest(name)?.ok(command, limit, &self.stop);
        self.story.note(name, command, outcome.as_deref().unwrap_or("(failed)"));
        outcome
    }

    /// Runs a shell command in a guest, whatever its exit code.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn run(&self, name: Name, command: &str, limit: Duration) -> Result<Ran> {
        let ran = self.guest(name)?.run(command, limit, &self.stop)?;
        self.story.note(name, command, &format!("({}) {}", ran.ending, ran.output));
        Ok(ran)
    }

    /// Writes a file in a guest, and its folder.
    ///
    /// # Errors
    /// As `ok`.
    pub fn write_file(&self, name: Name, path: &str, content: &str) -> Result<()> {
        let command = format!("mkdir -p \"$(dirname {path})\" && printf %s {} > {path}", quoted(content));
        self.ok(name, &command).map(drop)
    }

    /// Looks again and again until `look` gives something; `what` names it where it does not come.
    ///
    /// # Errors
    /// When `look` fails, at the time limit, or when the lab was asked to end.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.stop.wait_for(what, limit, look)
    }

    /// A line of the story, with the time since it began.
    pub fn say(&self, line: impl AsRef<str>) {
        self.story.say(line.as_ref());
    }

    /// Keeps what the guests still know, beside their consoles, before they are switched off after a failure.
    pub fn post_mortem(&self) {
        const FACTS: &str = "dmesg | tail -n 60; for file in /proc/locks /proc/fs/lockd/nlm_end_grace /proc/fs/nfsd/threads; do \
                             echo \"== $file\"; cat $file; done; echo == records; grep -r . /var/lib/nfs/sm /var/lib/nfs/sm.bak; \
                             echo == addresses; ip -br addr; echo == processes; ps ax || ls /proc; echo == registered; rpcinfo -p; \
                             echo == heirlock; find /etc/heirlock /var/lib/heirlock /run/heirlock; tail -n 2000 /run/heirlock*.log; \
                             [ ! -e /var/log/pacemaker/pacemaker.log ] || { echo == pacemaker; tail -n 3000 /var/log/corosync/corosync.log /var/log/pacemaker/pacemaker.log; ls -lR /var/lib/pacemaker; }; \
                             [ ! -d /run/systemd/system ] || { echo == systemd; systemctl --no-pager --all list-units; journalctl --no-pager -n 1000; }";
        for guest in self.guests.iter().filter(|guest| guest.is_on()) {
            if self.stop.asked() {
                return;
            }
            let facts =
                match guest.run(FACTS, POST_MORTEM_TIME_MAX, &self.stop.within(POST_MORTEM_TIME_MAX * 4)) {
                    Ok(ran) => ran.output,
                    Err(error) => format!("{error:#}"),
                };
            fs::write(self.folder.join(format!("after.{}", guest.name())), facts).ok();
        }
    }

    fn guest(&self, name: Name) -> Result<&Guest> {
        self.guests
            .iter()
            .find(|guest| guest.name() == name)
            .with_context(|| format!("no guest is named {name}"))
    }
}

/// A time that a guest tells.
fn word(ear: &UdpSocket) -> Result<u64> {
    let mut word = [0; 32];
    let length = ear.recv(&mut word).context("expected word of a client that asks for a lock and gets it")?;
    Ok(String::from_utf8_lossy(&word[..length]).parse()?)
}

/// Puts what guests need into the scenario's folder, which they see as /opt.
fn furnish(folder: &Path, root: &Root, programs: Programs) -> Result<()> {
    for name in ["bin", "store", "memory", "modules/lib/modules"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let modules = format!("/usr/lib/uml/modules/{}", root.kernel);
    std::os::unix::fs::symlink(&modules, folder.join("modules/lib/modules").join(&root.kernel))?;
    write_executable(&folder.join("init"), INIT)?;
    write_executable(&folder.join("under-systemd"), UNDER_SYSTEMD)?;
    make_ptrace(folder)?;
    copy(programs.lab, &folder.join("bin").join(guest_program::NAME))?;
    if let Some(heirlock) = programs.heirlock {
        copy(heirlock, &folder.join("bin/heirlock"))?;
        copy(&heirlock.with_file_name("heirlock-callout"), &folder.join("bin/heirlock-callout"))?;
    }
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    hosts.extend(CAST.iter().map(|(name, last)| format!("10.99.0.{last} {name}\n")));
    hosts.extend([HOMES, PROJECTS].iter().map(|service| format!("{} {}\n", service.address, service.name)));
    hosts.extend(crowd::hosts());
    fs::write(folder.join("hosts"), hosts)?;
    DISKS.iter().try_for_each(|disk| make_disk(&folder.join(disk), DISK_MIB))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))
}

fn write_executable(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("can't write {}", path.display()))
}

/// The lines of a scenario: to the person who watches, and with every command to a file that a failure keeps.
#[derive(Debug)]
pub struct Story {
    started: Instant,
    label: String,
    shown: bool,
    transcript: File,
}

impl Story {
    /// Begins a story in `folder`. Lines begin with `label`; `shown` writes them to standard error.
    ///
    /// # Errors
    /// When the transcript can't be made.
    pub fn new(label: &str, shown: bool, folder: &Path) -> Result<Self> {
        let transcript = File::create(folder.join("transcript"))?;
        Ok(Self { started: Instant::now(), label: label.to_owned(), shown, transcript })
    }

    fn say(&self, line: &str) {
        let line = format!("{:7.2} {line}", self.started.elapsed().as_secs_f64());
        if self.shown {
            eprintln!("{:26} {line}", self.label);
        }
        self.write(&format!("{line}\n"));
    }

    fn note(&self, name: Name, command: &str, output: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.write(&format!("{seconds:7.2} {name}$ {}\n{}\n", command.trim(), output.trim_end()));
    }

    /// A transcript that can't be written is no reason to fail a scenario.
    fn write(&self, text: &str) {
        (&self.transcript).write_all(text.as_bytes()).ok();
    }
}

/// One word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_is_one_word() {
        let text = "it's $HOME `and`\n\"more\"";
        let echoed = crate::process::run(
            std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]),
        );
        assert_eq!(echoed.unwrap(), text);
    }
}
