//! The folder, the configurations, and the agents' processes.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use heirlock_nsm::StateNumber;
use tempfile::TempDir;

use crate::control::{Answer, Request, ask, report::StatusReport};
use crate::store::dir::DirStore;

/// The service that moves.
pub(super) const SERVICE: &str = "homes";
/// Under which names clients mount it.
pub(super) const NAMES: [&str; 2] = ["homes.demo.test", "homes"];
/// Its address. Loopback addresses are on both servers; the played lock manager answers only for the one that serves.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 10);
/// How long grace lasts.
pub(super) const GRACE: Duration = Duration::from_secs(15);
/// The number that the primary's status monitor has, and its clients know.
pub(super) const PRIMARY_STATE: StateNumber = StateNumber(7);
const ADOPTIVE_STATE: StateNumber = StateNumber(3);

/// All that lies on disk.
#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
}

/// One server: its folder and, while it lives, its agent.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    folder: PathBuf,
    agent: Option<Child>,
}

impl Stage {
    /// Makes the folder with an empty store.
    pub(super) fn set() -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("heirlock-demo-").tempdir().context("can't make a folder")?;
        DirStore::create(&folder.path().join("store"))?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on the folder outlives the demo.
    pub(super) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Furnishes a server.
    pub(super) fn host(&self, name: &'static str, rpcbind_port: u16) -> Result<Host> {
        let folder = self.path().join(name);
        for inner in ["sm", "sm.bak", "run", "local"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        let state = if name == "nfs-a" { PRIMARY_STATE } else { ADOPTIVE_STATE };
        fs::write(folder.join("state"), state.render_file())?;
        fs::write(folder.join("life"), "the first\n")?;
        fs::write(folder.join("heirlock.toml"), self.configuration(name, rpcbind_port))?;
        Ok(Host { name, folder, agent: None })
    }

    /// What an administrator would write, with times for the impatient.
    fn configuration(&self, name: &str, rpcbind_port: u16) -> String {
        let root = self.path().display();
        let here = format!("{root}/{name}");
        let names = NAMES.map(|name| format!("\"{name}\"")).join(", ");
        format!(
            "server = \"{name}\"\nstate-directory = \"{here}\"\nruntime-directory = \"{here}/run\"\n\
             local-directory = \"{here}/local\"\n\n\
             [store]\npath = \"{root}/store\"\nshared = true\n\n\
             [lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nsettle-margin = \"5s\"\n\
             recognise = [\"sh\", \"-c\", \"date +%s%N > {here}/life.new && mv {here}/life.new {here}/life\"]\n\
             incarnation = [\"cat\", \"{here}/life\"]\ngrace-period = \"{grace}s\"\n\n\
             [notify]\nrpcbind-port = {rpcbind_port}\n\n\
             [heartbeat]\ninterval = \"500ms\"\ndead-after = \"3s\"\n\n\
             # The fence confirms that the primary's agent is gone; a real one switches its power off.\n\
             [hooks]\nfence = [\"sh\", \"-c\", \"! kill -0 $(cat {root}/$HEIRLOCK_PEER/agent.pid) 2> /dev/null\"]\n\n\
             [[service]]\nname = \"{SERVICE}\"\naddresses = [\"{ADDRESS}\"]\nnames = [{names}]\nhome = \"nfs-a\"\n\
             mode = \"automatic\"\n",
            grace = GRACE.as_secs()
        )
    }
}

impl Host {
    pub(super) fn sm(&self) -> PathBuf {
        self.folder.join("sm")
    }

    pub(super) fn life(&self) -> PathBuf {
        self.folder.join("life")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Starts its agent: this very program.
    pub(super) fn start(&mut self) -> Result<()> {
        let program = std::env::current_exe().context("can't find this program's own file")?;
        let log = File::create(self.log())?;
        let agent = Command::new(program)
            .args(["agent", "--config"])
            .arg(self.folder.join("heirlock.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start the agent of {}", self.name))?;
        fs::write(self.folder.join("agent.pid"), agent.id().to_string())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Power loss.
    pub(super) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // One that has ended already is as dead as it should be. Waited for, so that no zombie looks alive.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Whether its agent ended by itself, and what it said last.
    pub(super) fn died(&mut self) -> Option<String> {
        self.agent.as_mut()?.try_wait().ok()??;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        Some(log.lines().last().unwrap_or("it said nothing").to_owned())
    }

    pub(super) fn ask(&self, request: &Request) -> Option<Answer> {
        ask(&self.folder.join("run"), request, |_| ()).ok()
    }

    pub(super) fn status(&self) -> Option<StatusReport> {
        match self.ask(&Request::Status)? {
            Answer::Status(status) => Some(*status),
            _ => None,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
