//! lockd and nfsd of this kernel, in this network namespace.

mod exports;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::incarnation::Observation;
use heirlock_core::takeover::Strategy;
use heirlock_nsm::rpcbind::Transport;
use rustix::process::{Pid, Signal, kill_process};

use super::{EXPORT, Fsids, Lack, LockManager, LockManagerError, Nlm, Recognised, facts, missing_commands};
use crate::config::{Command, LockManagerSettings, Settings};
use crate::files::trusted;
use crate::host::{Host, process};
use crate::{hooks, limits, mounts, probe, rpc_client};
use exports::Exports;

/// lockd's own default: five times nlm_timeout (fs/lockd/svc.c).
const NLM_TIMEOUT_S: u64 = 10;

/// The bit of SIGKILL in a signal mask of `/proc/<pid>/status`.
const SIGKILL_BIT: u64 = 1 << 8;

/// [`Kernel::last_seen`] where lockd was not seen: the number of no process.
const NONE: u32 = 0;

/// lockd and nfsd of this kernel.
pub(super) struct Kernel {
    settings: LockManagerSettings,
    nlm: Nlm,
    exports: Exports,
    /// We are the status monitor ourselves: there is no rpc.statd to be restarted, and none may be started.
    is_status_monitor: bool,
    /// Where lockd was seen last: a look at all processes, twice a second, would be paid for by the whole server.
    last_seen: AtomicU32,
}

/// The lockd thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lockd {
    pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

impl Lockd {
    /// Tells this start from others of this boot.
    fn start(&self) -> String {
        format!("{}@{}", self.pid, self.started)
    }
}

impl Kernel {
    pub(super) fn new(settings: &Settings, host: &Host) -> Self {
        Self {
            exports: Exports::new(host, &settings.state_directory),
            settings: settings.lock_manager.clone(),
            nlm: Nlm::on(host, settings),
            is_status_monitor: settings.capture.mode.properties().is_status_monitor,
            last_seen: AtomicU32::new(NONE),
        }
    }

    fn read(&self, path: &str) -> Result<String, LockManagerError> {
        let path = self.nlm.host.proc(path);
        trusted::read_system(&path)
            .map_err(|source| LockManagerError::Read { what: path.display().to_string(), source })
    }

    /// An unreadable table is a reason to refuse: a mount that holds lockd up may be in it.
    fn mount_table(&self) -> Result<String, LockManagerError> {
        let path = self.nlm.host.mount_table();
        trusted::read_system(&path)
            .map_err(|source| LockManagerError::Read { what: path.display().to_string(), source })
    }

    /// The word that a file holds. Some end with the NUL of the kernel's own string (fs/lockd/procfs.c of 6.1).
    fn word(&self, path: &str) -> Result<String, LockManagerError> {
        let text = self.read(path)?;
        Ok(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
    }

    /// The kernel thread `lockd`, of which there is one in a kernel: network namespaces share it.
    fn lockd(&self) -> Result<Option<Lockd>, LockManagerError> {
        let again = match self.last_seen.load(Ordering::Relaxed) {
            NONE => None,
            pid => self.lockd_at(pid),
        };
        let lockd = match again {
            Some(lockd) => Some(lockd),
            None => self.find_lockd()?,
        };
        self.last_seen.store(lockd.as_ref().map_or(NONE, |lockd| lockd.pid), Ordering::Relaxed);
        Ok(lockd)
    }

    fn lockd_at(&self, pid: u32) -> Option<Lockd> {
        let stat = trusted::read_system(self.nlm.host.proc(pid.to_string()).join("stat")).ok()?;
        lockd_start(&stat).map(|started| Lockd { pid, started })
    }

    fn find_lockd(&self) -> Result<Option<Lockd>, LockManagerError> {
        let proc = self.nlm.host.proc("");
        let unreadable =
            |source: io::Error| LockManagerError::Read { what: proc.display().to_string(), source };
        for name in trusted::names(&proc, limits::PROCESSES_MAX).map_err(unreadable)? {
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(lockd) = self.lockd_at(pid) {
                return Ok(Some(lockd));
            }
        }
        Ok(None)
    }

    /// nfsd's threads; zero where nfsd was never started.
    fn threads(&self) -> u32 {
        self.word("fs/nfsd/threads").ok().and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn look(&self) -> Result<Observation, LockManagerError> {
        let lockd = self.lockd()?;
        Ok(Observation {
            boot: (self.nlm.host.boot())
                .map_err(|source| LockManagerError::Read { what: "the boot id".into(), source })?,
            start: lockd.as_ref().map(Lockd::start),
            in_grace: self.word("fs/lockd/nlm_end_grace").ok().map(|word| word == "N"),
            serving: self.threads() > 0,
        })
    }

    fn check_restart_nfs(&self) -> Result<(), LockManagerError> {
        let refuse = |why: String, instead: &str| {
            Err(LockManagerError::Unusable {
                strategy: Strategy::RestartNfs,
                why,
                instead: instead.to_owned(),
            })
        };
        if let Some(mount) = mounts::locking(&self.mount_table()?).next() {
            return refuse(
                format!(
                    "{} is mounted here by NFSv3, which keeps lockd running while NFS is restarted: no lock would be dropped and no grace opened",
                    mount.at
                ),
                "unmount it, mount it with nolock or by NFSv4, or use 'restart-lock-manager' where lockd obeys SIGKILL",
            );
        }
        if self.settings.restart_nfs.is_none() && self.nlm.host.systemctl.is_none() {
            return refuse(
                "systemd doesn't run here".into(),
                "say how NFS is restarted (lock-manager.restart-nfs)",
            );
        }
        Ok(())
    }

    fn check_restart_lock_manager(&self) -> Result<Lockd, LockManagerError> {
        let refuse = |why: String| LockManagerError::Unusable {
            strategy: Strategy::RestartLockManager,
            why,
            instead: "'restart-nfs' can".into(),
        };
        let lockd = self.lockd()?.ok_or_else(|| refuse("lockd doesn't run".into()))?;
        let status = self.read(&format!("{}/status", lockd.pid))?;
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
        // Told by the mask and not by the version: vendors carry the removal of SIGKILL into older kernels.
        if ignored & SIGKILL_BIT != 0 {
            return Err(refuse(
                "lockd of this kernel ignores SIGKILL, so it can't be made to drop its locks".into(),
            ));
        }
        Ok(lockd)
    }

    /// lockd can't register without it, and no client finds it.
    /// rpcbind answers, or will: systemd starts it with NFS (nfs-server.service of nfs-utils).
    fn missing_rpcbind(&self, strategy: Strategy) -> Option<Lack> {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let asked = rpc_client::find_over(
            loopback,
            self.nlm.rpcbind_port,
            probe::NLM,
            Transport::Udp,
            limits::PROBE_TIME_MAX,
        );
        let found = format!("rpcbind does not answer on this server: {}", asked.err()?);
        let is_loaded = |unit: &&str| self.load_state(unit).is_some_and(|state| state == "loaded");
        if self.systemd_restarts(strategy) && ["rpcbind.socket", "rpcbind.service"].iter().any(is_loaded) {
            return None;
        }
        Some(Lack::new("rpcbind", found, "start it (systemctl enable --now rpcbind.socket)"))
    }

    /// systemd restarts what it can load alone.
    fn missing_unit(&self, strategy: Strategy) -> Option<Lack> {
        const UNIT: &str = "nfs-server.service";
        if !self.systemd_restarts(strategy) {
            return None;
        }
        // Where systemctl itself fails, nothing is known of the unit.
        let state = self.load_state(UNIT)?;
        (state != "loaded").then(|| {
            Lack::new(
                "nfs-server",
                format!("{UNIT} can't be restarted: it is {state}"),
                "install the NFS server and unmask its unit, or set lock-manager.restart-nfs",
            )
        })
    }

    /// NFS is restarted by systemd, and not by a command of the configuration.
    fn systemd_restarts(&self, strategy: Strategy) -> bool {
        strategy == Strategy::RestartNfs
            && self.settings.restart_nfs.is_none()
            && self.nlm.host.systemctl.is_some()
    }

    /// The load state that systemd gives a unit's file: "loaded", "not-found", "masked", …; nothing where it can't be asked.
    fn load_state(&self, unit: &str) -> Option<String> {
        self.nlm.host.systemctl.as_ref()?;
        let question = ["show", "--property=LoadState", "--value", unit];
        let said = hooks::run(&self.by_systemd(&question, limits::SYSTEMCTL_SHOW_TIME_MAX), &[]).ok()?;
        Some(said.0.trim().to_owned())
    }

    fn by_systemd(&self, arguments: &[&str], time_limit: Duration) -> Command {
        let program = self.nlm.host.systemctl.as_deref().unwrap_or(Path::new("systemctl"));
        let arguments = arguments.iter().map(|word| (*word).to_owned());
        Command {
            argv: std::iter::once(program.display().to_string()).chain(arguments).collect(),
            time_limit,
        }
    }

    fn restart_nfs(&self) -> Result<Recognised, LockManagerError> {
        let before = self.lockd()?;
        let by_systemd = self.by_systemd(&["restart", "nfs-server.service"], limits::SYSTEMCTL_TIME_MAX);
        let command = self.settings.restart_nfs.as_ref().unwrap_or(&by_systemd);
        let _kept = self.exports.keep();
        run(command, "look at the command and at the kernel's log")?;
        let end = Instant::now() + limits::SERVE_TIME_MAX;
        loop {
            let after = self.lockd()?;
            if self.threads() > 0 && after.is_some() && after != before {
                return Ok(Recognised { observation: self.look()?, in_place: false });
            }
            if Instant::now() >= end {
                let survived = after.is_some() && after == before;
                return Err(LockManagerError::Command {
                    what: command.argv.join(" "),
                    found: match survived {
                        true => {
                            "the same lockd runs as before: no lock was dropped and no grace opened".into()
                        }
                        false => format!("NFS does not serve {} s later", limits::SERVE_TIME_MAX.as_secs()),
                    },
                    remedy: "does the command restart nfsd (rpc.nfsd 0, then rpc.nfsd 8)?".into(),
                });
            }
            thread::sleep(limits::PROBE_INTERVAL);
        }
    }

    /// The status monitor is restarted first, so that it knows what was conveyed when lockd wakes; then lockd.
    fn restart_lock_manager(&self) -> Result<Recognised, LockManagerError> {
        let lockd = self.check_restart_lock_manager()?;
        let by_systemd = self.by_systemd(&["restart", "rpc-statd.service"], limits::SYSTEMCTL_TIME_MAX);
        let by_default =
            (self.nlm.host.systemctl.is_some() && !self.is_status_monitor).then_some(&by_systemd);
        if let Some(command) = self.settings.restart_status_monitor.as_ref().or(by_default) {
            run(command, "look at the status monitor's log")?;
        }
        let pid = i32::try_from(lockd.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| LockManagerError::Read {
            what: "lockd's pid".into(),
            source: io::ErrorKind::InvalidData.into(),
        })?;
        kill_process(pid, Signal::KILL).map_err(|error| LockManagerError::Read {
            what: "lockd to signal it".into(),
            source: error.into(),
        })?;
        self.wake()?;
        Ok(Recognised { observation: self.look()?, in_place: true })
    }

    /// Writes to a file of nfsd's. Where there is none, or the path does not exist, nothing is locked.
    fn unlock(&self, file: &str, what: &str) -> Result<(), LockManagerError> {
        let path = self.nlm.host.proc("fs/nfsd").join(file);
        // In one write: nfsd takes each for a whole line. And nothing may be created in a /proc that is none.
        let line = format!("{what}\n");
        match trusted::write_to_kernel(&path, &line) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(LockManagerError::Read { what: format!("{} to write it", path.display()), source })
            }
            _ => Ok(()),
        }
    }

    /// lockd takes a signal only when a request wakes it (fs/lockd/svc.c of 6.1); until then even its locks are listed.
    fn wake(&self) -> Result<(), LockManagerError> {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let limit = limits::PROBE_TIME_MAX;
        let end = Instant::now() + limits::PROVE_TIME_MAX;
        loop {
            let found = rpc_client::find(loopback, self.nlm.rpcbind_port, probe::NLM, limit);
            let woken =
                found.and_then(|(at, transport)| rpc_client::call_null(at, transport, probe::NLM, limit));
            match woken {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() < end => thread::sleep(limits::PROBE_INTERVAL),
                Err(why) => {
                    return Err(LockManagerError::Command {
                        what: "waking lockd after SIGKILL".into(),
                        found: why,
                        remedy: "is rpcbind running, and nlockmgr registered (rpcinfo -p)?".into(),
                    });
                }
            }
        }
    }
}

impl LockManager for Kernel {
    fn describe(&self) -> String {
        "lockd of this kernel".into()
    }

    fn tidy(&self) {
        self.exports.forget();
    }

    fn observe(&self) -> Result<Observation, LockManagerError> {
        self.look()
    }

    /// lockd is a thread of the kernel, and a pidfd tells of its end as of any process's (pidfd_open(2)).
    fn end_of_life(&self, start: &str) -> Option<OwnedFd> {
        let pid = self.last_seen.load(Ordering::Relaxed);
        let end = process::handle_of(pid)?;
        // Else the number may be another process's since then.
        self.lockd_at(pid).filter(|lockd| lockd.start() == start).map(|_| end)
    }

    fn usable(&self, strategy: Strategy) -> Result<(), LockManagerError> {
        match strategy {
            // Grace is asked of the lock manager itself.
            Strategy::Notify => Ok(()),
            Strategy::RestartLockManager => self.check_restart_lock_manager().map(|_| ()),
            Strategy::RestartNfs => self.check_restart_nfs(),
            Strategy::Command if self.settings.recognise.is_some() => Ok(()),
            Strategy::Command => Err(LockManagerError::Unusable {
                strategy,
                why: "no command is configured".into(),
                instead: "set lock-manager.recognise, or use 'restart-nfs'".into(),
            }),
        }
    }

    fn missing(&self, strategy: Strategy, exports: &[PathBuf]) -> Vec<Lack> {
        let settings = &self.settings;
        let commands = match strategy {
            Strategy::Notify => None,
            Strategy::RestartLockManager => {
                Some(("restart-status-monitor", settings.restart_status_monitor.as_ref()))
            }
            Strategy::RestartNfs => Some(("restart-nfs", settings.restart_nfs.as_ref())),
            Strategy::Command => Some(("recognise", settings.recognise.as_ref())),
        };
        let mut missing = missing_commands(commands);
        missing.extend(self.missing_rpcbind(strategy));
        missing.extend(self.missing_unit(strategy));
        let restarts = strategy == Strategy::RestartNfs;
        missing.extend(self.exports.lacks(exports, restarts).into_iter().map(|path| {
            let found = format!("{} is not exported here", path.display());
            let remedy =
                format!("export it (exportfs -o … CLIENTS:{}), or set hooks.volume-up", path.display());
            Lack::new(EXPORT, found, remedy)
        }));
        missing
    }

    /// For restart-nfs such a mount is a reason to refuse.
    fn remarks(&self, strategy: Strategy) -> Vec<Lack> {
        let table = self.nlm.host.mounts();
        let mount = mounts::locking(&table).next().filter(|_| strategy != Strategy::RestartNfs);
        let remark = |at: &str| {
            Lack::new(
                "nfs-mount",
                format!(
                    "{at} is mounted here by NFSv3 with locks: it holds lockd up, so a restart of NFS drops no lock and opens no grace"
                ),
                "unmount it, mount it with nolock, or mount it by NFSv4",
            )
        };
        mount.map(|mount| remark(mount.at)).into_iter().collect()
    }

    fn recognise(&self, strategy: Strategy) -> Result<Recognised, LockManagerError> {
        self.usable(strategy)?;
        match strategy {
            Strategy::Notify => Ok(Recognised { observation: self.look()?, in_place: false }),
            Strategy::RestartLockManager => self.restart_lock_manager(),
            Strategy::RestartNfs => self.restart_nfs(),
            Strategy::Command => {
                let before = self.look()?;
                if let Some(command) = &self.settings.recognise {
                    run(command, "look at the command")?;
                }
                let observation = self.look()?;
                let in_place = observation.start == before.start;
                Ok(Recognised { observation, in_place })
            }
        }
    }

    /// `/proc/fs/nfsd/unlock_ip` (fs/nfsd/nfsctl.c). Where nfsd never ran nothing is locked.
    fn let_go(&self, address: IpAddr) -> Result<(), LockManagerError> {
        self.unlock("unlock_ip", &address.to_string())
    }

    fn let_go_of_file_system(&self, path: &Path) -> Result<(), LockManagerError> {
        self.unlock("unlock_filesystem", &path.display().to_string())
    }

    fn nlm(&self) -> &Nlm {
        &self.nlm
    }

    fn exported(&self) -> Result<Vec<PathBuf>, LockManagerError> {
        let what = "the table of exports (etab)".to_owned();
        self.exports.now().map_err(|source| LockManagerError::Read { what, source })
    }

    fn exports_nothing(&self) -> bool {
        self.exports.now().is_ok_and(|exported| exported.is_empty())
    }

    fn fsids(&self) -> Fsids {
        Fsids::read(&self.nlm.host, self.exports.state_directory())
    }

    fn facts(&self) -> BTreeMap<String, String> {
        facts(&self.nlm.host, self.grace_length().ok())
    }

    /// lockd's part alone: nfsd's may end at once where no NFSv4 client is on record.
    fn grace_length(&self) -> Result<Duration, LockManagerError> {
        let number = |path: &str| self.read(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let timeout = number("sys/fs/nfs/nlm_timeout");
        match number("sys/fs/nfs/nlm_grace_period") {
            Some(0) => Ok(Duration::from_secs(5 * timeout.unwrap_or(NLM_TIMEOUT_S))),
            // In whole timeouts (fs/lockd/svc.c, get_lockd_grace_period); where those are unknown, as it is said.
            Some(seconds) => {
                let whole = timeout.and_then(|timeout| seconds.checked_next_multiple_of(timeout));
                Ok(Duration::from_secs(whole.unwrap_or(seconds)))
            }
            None => self.settings.grace_period.ok_or_else(|| LockManagerError::Read {
                what: "/proc/sys/fs/nfs/nlm_grace_period (load lockd, or set lock-manager.grace-period)"
                    .into(),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    fn grace_age(&self) -> Result<Option<Duration>, LockManagerError> {
        let Some(lockd) = self.lockd()? else { return Ok(None) };
        let uptime = self.read("uptime")?;
        let uptime = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let started = Duration::from_millis(lockd.started.saturating_mul(1000) / ticks);
        Ok(Some(Duration::from_secs_f64(uptime.max(0.0)).saturating_sub(started)))
    }
}

fn run(command: &Command, remedy: &str) -> Result<(), LockManagerError> {
    hooks::run(command, &[]).map(|_| ()).map_err(|error| LockManagerError::Command {
        what: command.argv.join(" "),
        found: error.to_string(),
        remedy: remedy.to_owned(),
    })
}

/// The start of the thread that this `/proc/<pid>/stat` describes, if it is the kernel's lockd (proc(5)).
fn lockd_start(stat: &str) -> Option<u64> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    // After the name: state is field 3 of the page, flags field 9, starttime field 22.
    let flags: u64 = fields.get(6)?.parse().ok()?;
    let started = fields.get(19)?.parse().ok()?;
    (name == "lockd" && flags & PF_KTHREAD != 0).then_some(started)
}

#[cfg(test)]
mod tests;
