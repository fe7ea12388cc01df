//! Servers in one temporary directory with a store that all of them see, and their real agents.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_nsm::StateNumber;
use serde_json::Value;
use tempfile::TempDir;

/// Long, for a machine that does much else; the awaited event ends the wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// All servers, and the folders that they share.
pub(super) struct Site {
    directory: TempDir,
    /// The section of the configuration that says where the store is.
    store_section: String,
}

/// One server. Its agent ends with it.
pub(super) struct Server {
    home: PathBuf,
    agent: Option<Child>,
}

impl Site {
    pub(super) fn new() -> Self {
        let site = Self::on(|folder| format!("path = \"{}/store\"\nshared = true\n", folder.display()));
        let store = site.store();
        for folder in ["", "services", "servers"] {
            fs::create_dir(store.join(folder)).unwrap();
        }
        fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(store.join("heirlock-store"), "heirlock store, format 1\n").unwrap();
        site
    }

    /// One whose store need not be there yet. In the site's folder these are the lines below `[store]`.
    pub(super) fn on(store_section: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store_section = store_section(directory.path());
        Self { directory, store_section }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// A server that was there before, and whose agent is gone.
    pub(super) fn again(&self, folder: &str) -> Server {
        Server { home: self.directory.path().join(folder), agent: None }
    }

    /// A server in a folder of its own; two may have one name.
    pub(super) fn server(&self, folder: &str, name: &str) -> Server {
        let home = self.directory.path().join(folder);
        for inner in ["", "sm", "sm.bak"] {
            fs::create_dir(home.join(inner)).unwrap();
        }
        fs::write(home.join("state"), StateNumber(5).render_file()).unwrap();
        fs::write(home.join("life"), "1\n").unwrap();
        let (here, store) = (home.display(), &self.store_section);
        let text = format!(
            "server = \"{name}\"\nstate-directory = \"{here}\"\nruntime-directory = \"{here}/run\"\n\
             local-directory = \"{here}/local\"\n[store]\n{store}\
             [lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nrecognise = [\"true\"]\n\
             incarnation = [\"cat\", \"{here}/life\"]\ngrace-period = \"20s\"\nprepared-time = \"3s\"\n\
             [notify]\nrpcbind-port = 9\n[heartbeat]\ninterval = \"200ms\"\ndead-after = \"3s\"\n\
             [[service]]\nname = \"nfs\"\naddresses = [\"127.0.0.1\"]\nhome = \"nfs-a\"\n\
             [[service]]\nname = \"new\"\naddresses = [\"127.0.0.2\"]\n"
        );
        fs::write(home.join("heirlock.toml"), text).unwrap();
        Server { home, agent: None }
    }
}

impl Server {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The log of its agent.
    pub(super) fn log(&self) -> String {
        log(&self.path("log"))
    }

    /// A client takes its first lock: its record appears.
    pub(super) fn register(&self, client: &str) {
        fs::write(self.path("sm").join(client), line(client)).unwrap();
    }

    pub(super) fn start(&mut self) {
        self.start_by(&[]);
    }

    /// Starts it by a program that becomes the agent.
    pub(super) fn start_by(&mut self, runner: &[String]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let agent = self.command(&["agent"]);
        let words = runner.iter().map(AsRef::as_ref).chain([agent.get_program()]).chain(agent.get_args());
        let words: Vec<_> = words.collect();
        let mut command = Command::new(words[0]);
        self.agent = Some(command.args(&words[1..]).stdin(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Changes its configuration.
    pub(super) fn configure(&self, from: &str, to: &str) {
        let path = self.path("heirlock.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Starts it and waits until it serves.
    pub(super) fn up(&mut self) {
        self.start();
        self.wait_for("an agent that answers", |server| server.serves().then_some(()));
    }

    /// Whether it answers, knows what it holds, and has seen its lock manager: a record that goes before that is no
    /// deletion to it.
    pub(super) fn serves(&self) -> bool {
        let Some(status) = self.try_status() else { return false };
        let held = status["services"].as_array().is_some_and(|all| all.iter().any(|s| s["held"] == true));
        held && status["store"]["well"] == true && !status["lock_manager"]["incarnation"].is_null()
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// Asks it to stop, and gives its exit code.
    pub(super) fn stop(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        let pid = agent.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        agent.wait().unwrap().code()
    }

    /// Its agent's process.
    pub(super) fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Sends it a signal, by name.
    pub(super) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits until it ends by itself.
    pub(super) fn ended(&mut self) -> (Option<i32>, String) {
        let code =
            self.wait_for_mut("an agent that ends", |server| server.agent.as_mut()?.try_wait().unwrap());
        (code.code(), fs::read_to_string(self.path("log")).unwrap())
    }

    pub(super) fn lives(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| agent.try_wait().unwrap().is_none())
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
        command.args(words).arg("--config").arg(self.path("heirlock.toml"));
        command
    }

    pub(super) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(super) fn try_status(&self) -> Option<Value> {
        serde_json::from_slice(&self.run(&["status", "--json"]).stdout).ok()
    }

    pub(super) fn service(&self, name: &str) -> Option<Value> {
        let status = self.try_status()?;
        status["services"].as_array()?.iter().find(|s| s["service"] == name).cloned()
    }

    /// Waits until the store holds that many records of a service that this server holds, and its agent says that it works:
    /// the command line sees the records for itself, perhaps before the agent has looked.
    pub(super) fn wait_until_captured(&self, service: &str, records: u64) {
        self.wait_for(&format!("{records} records of {service}"), |server| {
            let status = server.try_status()?;
            let of_it = status["services"].as_array()?.iter().find(|s| s["service"] == service)?;
            (of_it["records"] == records && status["store"]["well"] == true).then_some(())
        });
    }

    /// Waits until it has seen the heart of the one other server beat.
    pub(super) fn wait_until_it_hears_the_other(&self) {
        self.wait_for("a heart that beats", |server| {
            let status = server.try_status()?;
            status["servers"][0]["heart"].as_str()?.starts_with("beating").then_some(())
        });
    }

    pub(super) fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(
                Instant::now() < end,
                "waited for {what}: {:?}\n{}",
                self.try_status(),
                log(&self.path("log"))
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn wait_for_mut<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited for {what}\n{}", log(&self.path("log")));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A record as rpc.statd writes it.
pub(super) fn line(client: &str) -> String {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} nfs-a\n")
}

fn log(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
