//! heirlock's agent on a server of a bench, configured as an administrator would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::Value;

use super::etcd::Etcd;
use super::site::{ADDRESS, Host, Running, Site, wait_for};

/// The service that moves, and what stands for it.
pub(super) const SERVICE: &str = "nfs";
/// The names that clients mount it by.
pub(super) const NAMES: [&str; 2] = ["nfs.example.test", "nfs"];

/// A store that all servers of a site see.
#[derive(Debug, Clone)]
pub(super) struct Store {
    /// As a configuration names it.
    settings: String,
    /// The folder, where it is one.
    folder: Option<PathBuf>,
}

/// A server with its agent's configuration.
pub(super) struct Server {
    pub(super) host: Host,
    name: &'static str,
    heirlock: PathBuf,
}

impl Store {
    /// An empty one, in a folder.
    pub(super) fn new(site: &Site) -> Result<Self> {
        let path = site.path("store");
        for inner in ["services", "servers"] {
            fs::create_dir_all(path.join(inner))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        fs::write(path.join("heirlock-store"), "heirlock store, format 1\n")?;
        let settings = format!("path = \"{}\"\nshared = true", path.display());
        Ok(Self { settings, folder: Some(path) })
    }

    /// In etcd.
    pub(super) fn in_etcd(_: &Etcd) -> Self {
        Self { settings: Etcd::settings(), folder: None }
    }

    /// Where a service's newest records are, in a folder.
    pub(super) fn records(&self, service: &str) -> Option<PathBuf> {
        let service = self.folder.as_ref()?.join("services").join(service);
        let entries = fs::read_dir(&service).ok()?.flatten();
        let newest = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max()?;
        Some(service.join(newest.to_string()).join("sm"))
    }
}

impl Server {
    /// A server that learns of its clients in this way.
    pub(super) fn new(
        site: &Site,
        store: &Store,
        heirlock: &Path,
        name: &'static str,
        capture: &str,
    ) -> Result<Self> {
        let host = site.host(name)?;
        let here = host.folder.display();
        fs::write(host.folder.join("life"), "1\n")?;
        let names = NAMES.map(|name| format!("\"{name}\"")).join(", ");
        let text = format!(
            "server = \"{name}\"\nstate-directory = \"/var/lib/nfs\"\nruntime-directory = \"{here}/run\"\n\
             local-directory = \"{here}/local\"\n\
             [store]\n{store}\n\
             [capture]\nmode = \"{capture}\"\n\
             [lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nincarnation = [\"cat\", \"{here}/life\"]\n\
             recognise = [\"sh\", \"-c\", \"date +%s%N > $0\", \"{here}/life\"]\ngrace-period = \"90s\"\n\
             [[service]]\nname = \"{SERVICE}\"\naddresses = [\"{ADDRESS}\"]\nnames = [{names}]\nhome = \"nfs-a\"\n",
            store = store.settings,
        );
        fs::write(host.configuration(), text)?;
        Ok(Self { host, name, heirlock: heirlock.to_owned() })
    }

    /// The same, whose NFS is restarted so that the lock manager recognises: by the same command.
    pub(super) fn restarting_nfs(self) -> Result<Self> {
        let path = self.host.configuration();
        let text = fs::read_to_string(&path)?;
        let text = text.replace("strategy = \"command\"", "strategy = \"restart-nfs\"");
        fs::write(&path, text.replace("\nrecognise = ", "\nrestart-nfs = "))?;
        Ok(self)
    }

    /// The same, whose lock manager is lockd of a kernel, played by this process.
    pub(super) fn beside_lockd(self, process: u32) -> Result<Self> {
        let path = self.host.configuration();
        let text = fs::read_to_string(&path)?;
        let commands = |line: &&str| line.starts_with("incarnation = ") || line.starts_with("recognise = ");
        let text: Vec<&str> = text.lines().filter(|line| !commands(line)).collect();
        let text = text.join("\n").replace("type = \"command\"\nstrategy = \"command\"", "type = \"kernel\"");
        fs::write(&path, text + "\n")?;
        self.host.play_lockd(process)?;
        Ok(self)
    }

    /// heirlock's command line on this server.
    pub(super) fn heirlock(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&self.heirlock, arguments);
        command.env("NO_COLOR", "1");
        command
    }

    /// Starts the agent and waits until it serves.
    pub(super) fn start(&self) -> Result<Running> {
        let mut agent = self.begin()?;
        let mut ended = false;
        wait_for("an agent that serves", || {
            ended = !agent.lives();
            ended || self.status().is_some_and(|status| self.serves(&status))
        })?;
        if ended {
            bail!("the agent of {} ended; HEIRLOCK_BENCH_VERBOSE=1 shows what it says", self.name);
        }
        Ok(agent)
    }

    /// Starts the agent and waits for nothing.
    pub(super) fn begin(&self) -> Result<Running> {
        let mut command = self.heirlock(&["agent"]);
        // As its unit does, and `heirlock supervise`.
        command.env("MALLOC_ARENA_MAX", "1");
        Running::start(command)
    }

    /// Starts a supervisor with an agent.
    pub(super) fn supervise(&self) -> Result<Running> {
        Running::start_parent(self.heirlock(&["supervise"]))
    }

    /// The report of `heirlock status`, if there is one.
    pub(super) fn status(&self) -> Option<Value> {
        let output = self.heirlock(&["status", "--json"]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Whether the store knows so many clients of every service that is held.
    pub(super) fn knows(&self, records: usize) -> bool {
        let Some(status) = self.status() else { return false };
        let services = status["services"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let mut held = services.iter().filter(|service| service["held"] == true).peekable();
        held.peek().is_some() && held.all(|service| service["records"] == records)
    }

    /// How often the agent has looked at the status monitor's directory; nothing where it does not answer.
    pub(super) fn looks(&self) -> Option<u64> {
        self.status()?["observed"]["looks"]["done_total"].as_u64()
    }

    fn serves(&self, status: &Value) -> bool {
        let services = status["services"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let held = services.iter().filter(|service| service["held"] == true).count();
        status["store"]["well"] == true
            && status["lock_manager"]["serving"] == true
            && held >= if self.name == "nfs-a" { 2 } else { 1 }
    }
}
