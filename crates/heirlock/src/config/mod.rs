//! The configuration: what the file says (`reader.rs`), made into values that can't be wrong ([`Settings`], `load.rs`).

mod capture;
mod load;
mod reader;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use heirlock_core::takeover::{Conveyance, Strategy};
use heirlock_core::{ServerName, ServiceName};
use heirlock_nsm::MyName;

pub(crate) use capture::{CaptureMode, CaptureSettings, ForEach};
pub use load::ConfigError;

/// The configuration of one server, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server; the node name by default.
    pub(crate) server: ServerName,
    /// The status monitor's directory, which holds `sm`, `sm.bak` and `state`: `/var/lib/nfs`, until it is asked for.
    pub(crate) state_directory: PathBuf,
    /// The configuration names that directory; else the status monitor is asked for it.
    pub(crate) state_directory_is_set: bool,
    /// The folder of the control socket and of files that may end with the boot: `/run/heirlock`.
    pub(crate) runtime_directory: PathBuf,
    /// The folder of files that must outlive a reboot and concern this server alone: `/var/lib/heirlock`.
    pub(crate) local_directory: PathBuf,
    /// Where records are kept.
    pub(crate) store: StoreSettings,
    /// How records are noticed.
    pub(crate) capture: CaptureSettings,
    /// The lock manager.
    pub(crate) lock_manager: LockManagerSettings,
    /// How clients are told.
    pub(crate) notify: NotifySettings,
    /// How servers know of each other's death.
    pub(crate) heartbeat: HeartbeatSettings,
    /// The implicit service: under which addresses and names this server itself is known to its clients.
    pub(crate) host: HostSettings,
    /// Commands of set-ups without a cluster manager.
    pub(crate) hooks: HookSettings,
    /// The services.
    pub(crate) services: Vec<ServiceSettings>,
}

impl Settings {
    /// The settings of a service; none for a server's implicit one.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&ServiceSettings> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// All commands, by key.
    pub(crate) fn commands(&self) -> Vec<(&'static str, &Command)> {
        let (locks, hooks) = (&self.lock_manager, &self.hooks);
        let all = [
            ("lock-manager.restart-nfs", &locks.restart_nfs),
            ("lock-manager.restart-status-monitor", &locks.restart_status_monitor),
            ("lock-manager.recognise", &locks.recognise),
            ("lock-manager.incarnation", &locks.incarnation),
            ("hooks.fence", &hooks.fence),
            ("hooks.volume-up", &hooks.volume_up),
            ("hooks.address-up", &hooks.address_up),
            ("hooks.address-down", &hooks.address_down),
            ("hooks.volume-down", &hooks.volume_down),
        ];
        all.into_iter().filter_map(|(key, command)| command.as_ref().map(|command| (key, command))).collect()
    }

    /// Tells one configuration from another, for a program of the same version (FNV-1a, 64 bits).
    pub(crate) fn fingerprint(&self) -> String {
        let hash = format!("{self:?}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreSettings {
    /// The folder of the `dir` store.
    pub(crate) path: PathBuf,
    /// Whether all servers see the folder at the same time. Without that `automatic` is refused.
    pub(crate) shared: bool,
}

/// `[lock-manager]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockManagerSettings {
    /// kernel or command.
    pub(crate) kind: LockManagerKind,
    /// How it is made to recognise.
    pub(crate) strategy: Strategy,
    /// The kind of file that is placed into the status monitor's directory.
    pub(crate) convey: Conveyance,
    /// How much of grace must be left for a notification to leave (I4): 5 s.
    pub(crate) settle_margin: Duration,
    /// For kind `command`, or where no systemd runs: restarts NFS.
    pub(crate) restart_nfs: Option<Command>,
    /// For kind `command`, or where no systemd runs: restarts the status monitor without notifying.
    pub(crate) restart_status_monitor: Option<Command>,
    /// Strategy `command`: makes the lock manager recognise in a way of its own.
    pub(crate) recognise: Option<Command>,
    /// Kind `command`: prints one line that changes with every life of the lock manager, and nothing where none
    /// runs. While it fails nothing is adopted.
    pub(crate) incarnation: Option<Command>,
    /// How long its grace lasts, where it can't be read from the kernel.
    pub(crate) grace_period: Option<Duration>,
}

/// The kind of lock manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockManagerKind {
    /// lockd and nfsd of this kernel, in this network namespace.
    Kernel,
    /// The lock manager behind the commands.
    Command,
}

impl LockManagerKind {
    /// As the configuration spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LockManagerKind::Kernel => "kernel",
            LockManagerKind::Command => "command",
        }
    }
}

/// A program and its arguments; no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// program, arguments; never empty
    pub(crate) argv: Vec<String>,
    /// after which it is ended and counts as failed
    pub(crate) time_limit: Duration,
}

/// `[notify]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotifySettings {
    /// Where clients have their rpcbind; 111.
    pub(crate) rpcbind_port: u16,
    /// Whether a privileged source port must be had; where `false` one is used if it can be.
    pub(crate) privileged_port: bool,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatSettings {
    /// 1 s.
    pub(crate) interval: Duration,
    /// 10 s.
    pub(crate) dead_after: Duration,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostSettings {
    /// From which addresses the server's own clients are notified: those they mount it by. Empty: whatever the route says.
    pub(crate) addresses: Vec<IpAddr>,
    /// Under which names; the node name by default.
    pub(crate) names: Vec<MyName>,
}

/// `[hooks]`: each optional; `fence` is mandatory where a service is `automatic`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HookSettings {
    /// Exit 0 means: the server in `$HEIRLOCK_PEER` is confirmed off.
    pub(crate) fence: Option<Command>,
    /// Mounts the volume and exports it; before the lock manager recognises.
    pub(crate) volume_up: Option<Command>,
    /// Brings the service's address up; after grace is proved to be open.
    pub(crate) address_up: Option<Command>,
    /// Takes the address away; first step of a release.
    pub(crate) address_down: Option<Command>,
    /// Unexports and unmounts; last step of a release.
    pub(crate) volume_down: Option<Command>,
}

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceSettings {
    /// Its name.
    pub(crate) name: ServiceName,
    /// Its floating addresses; at least one.
    pub(crate) addresses: Vec<IpAddr>,
    /// The names that clients mount it by. The addresses' text is announced besides.
    pub(crate) names: Vec<MyName>,
    /// The exported paths.
    pub(crate) exports: Vec<PathBuf>,
    /// Its home: the server that claims it first and to which `failback` brings it. Without it, the server that adopted it
    /// last.
    pub(crate) home: Option<ServerName>,
    /// The authority that decides that its owner is dead.
    pub(crate) mode: Mode,
}

/// The authority that decides that a primary is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A cluster manager or a person runs `heirlock adopt`.
    Manual,
    /// The agents, by heartbeats and a fence.
    Automatic,
}
