//! The folder, the configurations, and the agents' processes.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use heirlock_nsm::StateNumber;
use tempfile::TempDir;

use super::StoreKind;
use super::etcd::Member;
use super::sweeper::{FOLDER_PREFIX, Sweeper};
use crate::config;
use crate::control::{Answer, Request, SOCKET, ask, report::StatusReport};
use crate::host;
use crate::store;

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

/// How long an etcd may take until it answers, and how often it is asked.
const ETCD_START_TIME_MAX: Duration = Duration::from_secs(60);
const ETCD_START_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of a socket's path: sun_path of unix(7), less its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A new life of the lock manager, whole or not at all. `$0` is its file: a path in the script itself would be read by
/// the shell.
const RECOGNISE: &str = r#"date +%s%N > "$0.new" && mv "$0.new" "$0""#;
/// Succeeds exactly where the other server's agent is known and gone; `$0` is the demo's folder.
const FENCE: &str =
    r#"pid=$(cat "$0/$HEIRLOCK_OWNER/agent.pid") && test -n "$pid" && test ! -e "/proc/$pid""#;

/// All that lies on disk.
#[derive(Debug)]
pub(super) struct Stage {
    /// It ends before its folder goes.
    etcd: Option<Member>,
    folder: TempDir,
    /// For the case that the demo is killed. Tests have none.
    sweeper: Option<Sweeper>,
}

/// One server: its folder and, while it lives, its agent.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    folder: PathBuf,
    agent: Option<Child>,
}

impl Stage {
    /// Makes the folder, and an empty store.
    pub(super) fn set(host: &host::Host, store: StoreKind) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().context("can't make a folder")?;
        let socket = folder.path().join("nfs-a").join("run").join(SOCKET);
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            bail!(
                "expected a short path for sockets, found {}; set TMPDIR to a shorter one",
                folder.path().display()
            );
        }
        let sweeper = Sweeper::start(folder.path())?;
        let etcd = match store {
            StoreKind::Dir => None,
            StoreKind::Etcd => Some(Member::start(folder.path())?),
        };
        let mut stage = Self { etcd, folder, sweeper: Some(sweeper) };
        stage.make_store(host)?;
        Ok(stage)
    }

    /// Makes the store. An etcd that has just been started is waited for.
    fn make_store(&mut self, host: &host::Host) -> Result<()> {
        let text = self.configuration("nfs-a", 111)?;
        let settings = config::parse(Path::new("heirlock.toml"), &text)?;
        let store = store::open(host, &settings);
        let began = Instant::now();
        loop {
            let Err(error) = store.set_up() else { return Ok(()) };
            if let Some(log) = self.etcd.as_mut().and_then(Member::died) {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("etcd has ended: {}", said.lines().last().unwrap_or("it said nothing"));
            }
            if self.etcd.is_none() || began.elapsed() > ETCD_START_TIME_MAX {
                return Err(error.into());
            }
            thread::sleep(ETCD_START_INTERVAL);
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on the folder outlives the demo.
    pub(super) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
        if let Some(sweeper) = &mut self.sweeper {
            sweeper.keep();
        }
    }

    /// Furnishes a server.
    pub(super) fn host(&self, name: &'static str, rpcbind_port: u16) -> Result<Host> {
        let folder = self.path().join(name);
        for inner in ["sm", "sm.bak", "run", "local"] {
            // An agent listens in no folder that others may write, and a umask may say otherwise.
            crate::control::trust::make_folder(&folder.join(inner))?;
        }
        let state = if name == "nfs-a" { PRIMARY_STATE } else { ADOPTIVE_STATE };
        fs::write(folder.join("state"), state.render_file())?;
        fs::write(folder.join("life"), "the first\n")?;
        fs::write(folder.join("heirlock.toml"), self.configuration(name, rpcbind_port)?)?;
        Ok(Host { name, folder, agent: None })
    }

    /// A configuration as an administrator would write it, with short times.
    fn configuration(&self, name: &str, rpcbind_port: u16) -> Result<String> {
        let root = self.path();
        let quoted = |path: &Path| -> Result<String> {
            let text = path.to_str().with_context(|| {
                format!("expected a folder whose name is text, found {}; set TMPDIR", path.display())
            })?;
            // A JSON string of text without control characters is a TOML string.
            Ok(serde_json::to_string(text)?)
        };
        let here = root.join(name);
        let store = match &self.etcd {
            Some(etcd) => format!("type = \"etcd\"\nendpoints = [\"{}\"]", etcd.endpoint()),
            None => format!("path = {}\nshared = true", quoted(&root.join("store"))?),
        };
        let names = NAMES.map(|name| format!("\"{name}\"")).join(", ");
        Ok(format!(
            "server = \"{name}\"\nstate-directory = {here}\nruntime-directory = {run}\n\
             local-directory = {local}\n\n\
             [store]\n{store}\n\n\
             [lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nsettle-margin = \"5s\"\n\
             recognise = [\"sh\", \"-c\", '{RECOGNISE}', {life}]\n\
             incarnation = [\"cat\", {life}]\ngrace-period = \"{grace}s\"\n\n\
             [notify]\nrpcbind-port = {rpcbind_port}\n\n\
             [heartbeat]\ninterval = \"500ms\"\ndead-after = \"3s\"\n\n\
             # The fence confirms that the primary's agent is gone; a real one switches its power off.\n\
             [hooks]\nfence = [\"sh\", \"-c\", '{FENCE}', {root}]\n\n\
             [[service]]\nname = \"{SERVICE}\"\naddresses = [\"{ADDRESS}\"]\nnames = [{names}]\nhome = \"nfs-a\"\n\
             mode = \"automatic\"\n",
            run = quoted(&here.join("run"))?,
            local = quoted(&here.join("local"))?,
            life = quoted(&here.join("life"))?,
            here = quoted(&here)?,
            root = quoted(root)?,
            grace = GRACE.as_secs()
        ))
    }
}

impl Host {
    pub(super) fn sm(&self) -> PathBuf {
        self.folder.join("sm")
    }

    pub(super) fn life(&self) -> PathBuf {
        self.folder.join("life")
    }

    /// Where its agent listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("run").join(SOCKET)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Starts its agent: this very program.
    pub(super) fn start(&mut self) -> Result<()> {
        let program = std::env::current_exe().context("can't find this program's own file")?;
        let log = File::create(self.log())?;
        let agent = Command::new(program)
            .args(["agent", "--ends-with", &std::process::id().to_string(), "--config"])
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
            // An agent that has ended already is as dead as it should be. It is waited for, so that no zombie looks alive.
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Whether its agent ended by itself, and its last words.
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

#[cfg(test)]
mod tests {
    use heirlock_core::ServerName;

    use super::*;
    use crate::config::Settings;
    use crate::hooks;

    fn settings(stage: &Stage, name: &str) -> Settings {
        let text = stage.configuration(name, 2_111).unwrap();
        config::parse(Path::new("heirlock.toml"), &text).unwrap()
    }

    /// A folder whose name a shell and TOML would both trip over.
    fn stage() -> Stage {
        let folder = tempfile::Builder::new().prefix("it's $HOME \"here\" ").tempdir().unwrap();
        Stage { etcd: None, folder, sweeper: None }
    }

    #[test]
    fn the_configuration_is_one_and_a_recognition_begins_a_new_life() {
        let stage = stage();
        let here = stage.path().join("nfs-b");
        fs::create_dir(&here).unwrap();
        fs::write(here.join("life"), "the first\n").unwrap();
        let settings = settings(&stage, "nfs-b");
        assert_eq!(settings.state_directory, here);
        hooks::run(&settings.lock_manager.recognise.unwrap(), &[]).unwrap();
        let life = hooks::run(&settings.lock_manager.incarnation.unwrap(), &[]).unwrap().0;
        assert!(life.trim().bytes().all(|b| b.is_ascii_digit()), "{life}");
    }

    #[test]
    fn the_fence_confirms_an_agent_that_is_gone_and_nothing_else() {
        let stage = stage();
        let fence = settings(&stage, "nfs-b").hooks.fence.unwrap();
        let owner = ServerName::parse("nfs-a").unwrap().to_string();
        let confirmed = || hooks::run(&fence, &[("HEIRLOCK_OWNER", owner.clone())]).is_ok();
        assert!(!confirmed(), "nothing is known of it");
        let pid_file = stage.path().join("nfs-a").join("agent.pid");
        fs::create_dir(stage.path().join("nfs-a")).unwrap();
        fs::write(&pid_file, "").unwrap();
        assert!(!confirmed(), "its number was not written yet");
        let mut agent = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&pid_file, agent.id().to_string()).unwrap();
        let while_it_lives = confirmed();
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(!while_it_lives, "it lives");
        assert!(confirmed());
    }
}
