//! The configuration of one server, as values that can't be wrong. The program reads them from a file, and a simulator makes
//! its own.

mod capture;
mod lock_manager;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heirlock_core::candidates::Candidates;
use heirlock_core::limits::ANNOUNCED_NAMES_MAX;
use heirlock_core::{LockManagerName, ServerName, ServiceName};
use heirlock_nsm::MyName;

pub use capture::{CaptureMode, CaptureSettings, ForEach, Key, Promise, Properties};
pub use lock_manager::{LockManagerKind, LockManagerSettings, Properties as LockManagerProperties};

/// The folder, in the runtime directory and in the local one, that has a folder for each lock manager but the first.
const NOTES_OF_INSTANCES: &str = "lock-managers";

/// The configuration of one server, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This server; the node name by default.
    pub server: ServerName,
    /// The status monitor's directory, which holds `sm`, `sm.bak` and `state`: `/var/lib/nfs`, until it is asked for.
    pub state_directory: PathBuf,
    /// The configuration names that directory; else the status monitor is asked for it.
    pub state_directory_is_set: bool,
    /// The folder of the control socket and of files that may end with the boot: `/run/heirlock`.
    pub runtime_directory: PathBuf,
    /// The folder of files that must outlive a reboot and concern this server alone: `/var/lib/heirlock`.
    pub local_directory: PathBuf,
    /// Where records are kept.
    pub store: StoreSettings,
    /// How records are noticed.
    pub capture: CaptureSettings,
    /// The lock manager.
    pub lock_manager: LockManagerSettings,
    /// How clients are told.
    pub notify: NotifySettings,
    /// How servers know of each other's death.
    pub heartbeat: HeartbeatSettings,
    /// The implicit service: under which addresses and names this server itself is known to its clients.
    pub host: HostSettings,
    /// Commands of set-ups without a cluster manager.
    pub hooks: HookSettings,
    /// The services.
    pub services: Vec<ServiceSettings>,
    /// Lock managers besides the one of this server's own network namespace. A configuration file names none yet.
    pub further: Vec<InstanceSettings>,
    /// The group that may read the status.
    pub control: ControlSettings,
}

impl Settings {
    /// The settings of a service; none for a server's implicit one.
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceSettings> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// The names of all services, for people.
    pub fn services_in_words(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|service| service.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The lock managers of this server, and what is configured for each.
    pub fn instances(&self) -> Vec<InstanceSettings> {
        let first = InstanceSettings {
            name: LockManagerName::host(),
            state_directory: self.state_directory.clone(),
            capture: self.capture.clone(),
            lock_manager: self.lock_manager.clone(),
        };
        std::iter::once(first).chain(self.further.iter().cloned()).collect()
    }

    /// The configuration as one of the lock managers has it: in the place of the first one's settings and folders are its own. The
    /// first one's are those of the server, and another one's notes lie below them, under its name. `None` where there is no such
    /// lock manager.
    pub fn of_instance(&self, number: InstanceNumber) -> Option<Self> {
        let of = self.instances().into_iter().nth(number.place())?;
        if number == InstanceNumber::FIRST {
            return Some(self.clone());
        }
        let below = Path::new(NOTES_OF_INSTANCES).join(of.name.as_str());
        Some(Self {
            state_directory: of.state_directory,
            state_directory_is_set: true,
            capture: of.capture,
            lock_manager: of.lock_manager,
            runtime_directory: self.runtime_directory.join(&below),
            local_directory: self.local_directory.join(&below),
            ..self.clone()
        })
    }

    /// Whose lock manager serves a service. The implicit service is the first's, and so is one that isn't configured.
    pub fn instance_of(&self, service: &ServiceName) -> InstanceNumber {
        self.service(service).map_or(InstanceNumber::FIRST, |configured| configured.instance)
    }

    /// Under which names clients of a service are told: those they may have mounted it by, the full one first, its short form, the
    /// addresses.
    pub fn announced_names(&self, service: &ServiceName) -> Vec<MyName> {
        let (names, addresses) = match self.service(service) {
            Some(configured) => (&configured.names, &configured.addresses),
            None => (&self.host.names, &self.host.addresses),
        };
        let mut announced: Vec<MyName> = Vec::new();
        for name in names {
            let short = name.as_str().split('.').next().and_then(|short| MyName::parse(short).ok());
            announced.extend([Some(name.clone()), short].into_iter().flatten());
        }
        announced.extend(addresses.iter().filter_map(|address| MyName::parse(&address.to_string()).ok()));
        let mut seen = Vec::new();
        announced.retain(|name| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        announced.truncate(ANNOUNCED_NAMES_MAX);
        announced
    }

    /// All commands, by key.
    pub fn commands(&self) -> Vec<(&'static str, &Command)> {
        let (locks, hooks) = (&self.lock_manager, &self.hooks);
        let all = [
            ("lock-manager.restart-nfs", &locks.restart_nfs),
            ("lock-manager.restart-status-monitor", &locks.restart_status_monitor),
            ("lock-manager.recognise", &locks.recognise),
            ("lock-manager.incarnation", &locks.incarnation),
            ("hooks.fence", &hooks.fence),
            ("hooks.fence-check", &hooks.fence_check),
            ("hooks.volume-up", &hooks.volume_up),
            ("hooks.address-up", &hooks.address_up),
            ("hooks.address-down", &hooks.address_down),
            ("hooks.volume-down", &hooks.volume_down),
            ("hooks.alert", &hooks.alert),
        ];
        all.into_iter().filter_map(|(key, command)| command.as_ref().map(|command| (key, command))).collect()
    }

    /// Tells one configuration from another, for a program of the same version (FNV-1a, 64 bits).
    pub fn fingerprint(&self) -> String {
        let hash = format!("{self:?}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// Which lock manager of a server: its place among [`Settings::instances`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InstanceNumber(usize);

impl InstanceNumber {
    /// The lock manager of this server's own network namespace.
    pub const FIRST: Self = Self(0);

    /// The one at this place.
    pub const fn at(place: usize) -> Self {
        Self(place)
    }

    /// Its place.
    pub const fn place(self) -> usize {
        self.0
    }
}

/// What is configured for one lock manager.
#[derive(Debug, Clone)]
pub struct InstanceSettings {
    /// Its name, which no other lock manager of this server has. Its notes lie under it, so it stays.
    pub name: LockManagerName,
    /// Its status monitor's directory.
    pub state_directory: PathBuf,
    /// How records are noticed.
    pub capture: CaptureSettings,
    /// The lock manager.
    pub lock_manager: LockManagerSettings,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The folder of the `dir` store.
    pub path: PathBuf,
    /// Whether all servers see the store at the same time. Without that `automatic` is refused.
    pub shared: bool,
    /// The store is in etcd, and no folder.
    pub etcd: Option<EtcdSettings>,
}

/// `[store]` where its type is `etcd`. It has no secrets: the password is in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// The client URLs of its members, as `https://192.0.2.1:2379`; at least one.
    pub endpoints: Vec<String>,
    /// The beginning of all keys; it ends with a slash.
    pub prefix: String,
    /// The certificates of those that may sign the members' certificates. Mandatory with https.
    pub ca: Option<PathBuf>,
    /// This server's own certificate, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The user, and the file that has the password.
    pub user: Option<(String, PathBuf)>,
    /// How long the connection to an endpoint may take; 300 ms.
    pub connect_time: Duration,
    /// How long an endpoint may take to answer before the next one is asked; 1 s.
    pub answer_time: Duration,
}

/// A program and its arguments; no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// program, arguments; never empty
    pub argv: Vec<String>,
    /// after which it is ended and counts as failed
    pub time_limit: Duration,
}

/// `[notify]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Where clients have their rpcbind; 111.
    pub rpcbind_port: u16,
    /// Whether a privileged source port must be had; where `false` one is used if it can be.
    pub privileged_port: bool,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// 1 s.
    pub interval: Duration,
    /// 10 s.
    pub dead_after: Duration,
    /// How long each candidate of a service has for itself to adopt it, before the next one may as well: twice `dead-after`, and as
    /// long as the fence may take. Longer than zero.
    pub candidate_time: Duration,
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlSettings {
    /// The group whose members may read the status and ask for nothing else: its name or its number. Without it root alone may.
    pub read_group: Option<String>,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// The addresses from which the server's own clients are notified: those they mount it by. Empty: the address that the route
    /// has.
    pub addresses: Vec<IpAddr>,
    /// Under which names; the node name by default.
    pub names: Vec<MyName>,
}

/// `[hooks]`: each optional; `fence` is mandatory where a service is `automatic`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HookSettings {
    /// Exit 0 means: the server in `$HEIRLOCK_OWNER` is confirmed off.
    pub fence: Option<Command>,
    /// Exit 0 means: `fence` could turn the server in `$HEIRLOCK_OWNER` off, which this command does not do. A drill runs it.
    pub fence_check: Option<Command>,
    /// Mounts the volume and exports it; before the lock manager recognises.
    pub volume_up: Option<Command>,
    /// Brings the service's address up; after grace is proved to be open.
    pub address_up: Option<Command>,
    /// Takes the address away; first step of a release.
    pub address_down: Option<Command>,
    /// Unexports and unmounts; last step of a release.
    pub volume_down: Option<Command>,
    /// Tells people what happened. No run waits for it.
    pub alert: Option<Command>,
}

/// One of the hooks that are steps of a run, or of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Confirms that a server is off.
    Fence,
    /// Brings a volume up.
    VolumeUp,
    /// Brings an address up.
    AddressUp,
    /// Takes an address away.
    AddressDown,
    /// Takes a volume away.
    VolumeDown,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Fence, Self::VolumeUp, Self::AddressUp, Self::AddressDown, Self::VolumeDown];

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::VolumeUp => "volume-up",
            Self::AddressUp => "address-up",
            Self::AddressDown => "address-down",
            Self::VolumeDown => "volume-down",
        }
    }
}

impl HookSettings {
    /// The command of a hook, where one is configured.
    pub fn command(&self, hook: Hook) -> Option<&Command> {
        let command = match hook {
            Hook::Fence => &self.fence,
            Hook::VolumeUp => &self.volume_up,
            Hook::AddressUp => &self.address_up,
            Hook::AddressDown => &self.address_down,
            Hook::VolumeDown => &self.volume_down,
        };
        command.as_ref()
    }
}

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Its name.
    pub name: ServiceName,
    /// Its floating addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// The names that clients mount it by. The addresses' text is announced besides.
    pub names: Vec<MyName>,
    /// The exported paths.
    pub exports: Vec<PathBuf>,
    /// Its home: the server that claims it first and to which `failback` brings it. Without it, the server that adopted it
    /// last.
    pub home: Option<ServerName>,
    /// The authority that decides that its owner is dead.
    pub mode: Mode,
    /// The servers that may adopt it without being asked; any where there are none.
    pub candidates: Option<Candidates>,
    /// The lock manager that serves it.
    pub instance: InstanceNumber,
}

impl ServiceSettings {
    /// Whether an agent adopts it without being asked, once its owner's heart is silent and the fence confirms that it is off.
    pub fn is_adopted_unasked(&self) -> bool {
        self.mode.adopts_unasked()
    }
}

/// The authority that decides that a primary is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A cluster manager or a person runs `heirlock adopt`.
    Manual,
    /// The agents, by heartbeats and a fence.
    Automatic,
}

impl Mode {
    /// See [`ServiceSettings::is_adopted_unasked`].
    pub fn adopts_unasked(self) -> bool {
        matches!(self, Self::Automatic)
    }
}
