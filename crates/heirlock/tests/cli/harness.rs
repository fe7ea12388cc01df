//! A server's folders in a temporary directory, the real program on them, and a stand-in for its agent.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use heirlock_nsm::StateNumber;
use serde_json::Value;
use tempfile::TempDir;

/// A record as rpc.statd writes it.
pub(super) fn line(client: &str, server: &str) -> String {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} {server}\n")
}

/// The program's output and its exit code.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) exit: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { exit: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output is one JSON document.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A configured server without an agent.
pub(super) struct Server {
    directory: TempDir,
}

impl Server {
    pub(super) fn new() -> Self {
        let server = Self { directory: tempfile::tempdir().unwrap() };
        let root = server.path("").display().to_string();
        let config = format!(
            "server = \"nfs-b\"\nstate-directory = \"{root}nfs\"\nruntime-directory = \"{root}run\"\n\
             local-directory = \"{root}local\"\n\
             [store]\npath = \"{root}store\"\n\
             [[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10\"]\n"
        );
        fs::write(server.path("heirlock.toml"), config).unwrap();
        fs::create_dir(server.path("run")).unwrap();
        server
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An empty store, as its format says.
    pub(super) fn with_store(self) -> Self {
        for folder in ["store", "store/services", "store/servers"] {
            fs::create_dir(self.path(folder)).unwrap();
        }
        fs::set_permissions(self.path("store"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(self.path("store/heirlock-store"), "heirlock store, format 1\n").unwrap();
        self
    }

    /// The memory of this server's agent of its store.
    pub(super) fn remember(&self, memory: &Value) {
        fs::create_dir(self.path("local")).unwrap();
        fs::write(self.path("local/store.json"), memory.to_string()).unwrap();
    }

    /// A status monitor's directory with these records in `sm` and this number in `state`.
    pub(super) fn state_directory(&self, name: &str, records: &[(&str, &str)], state: u32) -> PathBuf {
        let directory = self.path(name);
        for folder in ["", "sm", "sm.bak"] {
            fs::create_dir(directory.join(folder)).unwrap();
        }
        for (file, text) in records {
            fs::write(directory.join("sm").join(file), text).unwrap();
        }
        fs::write(directory.join("state"), StateNumber(state).render_file()).unwrap();
        directory
    }

    /// Claims a generation of `nfs` as another server's agent would.
    pub(super) fn claim(&self, generation: u64, owner: &str) {
        let claims = self.path("store/services/nfs/claims");
        fs::create_dir_all(&claims).unwrap();
        let claim = serde_json::json!({
            "generation": generation, "owner": owner, "agent": "x", "claimed-at-s": 0, "released": false
        });
        fs::write(claims.join(generation.to_string()), claim.to_string()).unwrap();
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heirlock"));
        command.args(words).env_clear().env("HEIRLOCK_CONFIG", self.path("heirlock.toml"));
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, words: &[&str]) -> Said {
        Said::of(&self.command(words).output().unwrap())
    }

    /// Runs the program with an agent that answers one request with these lines; returns the request as well.
    pub(super) fn run_with_agent(&self, answers: &[Value], words: &[&str]) -> (Value, Said) {
        let agent = self.agent(answers);
        let said = self.run(words);
        // A program that never asked would leave the agent waiting for ever.
        let _ = UnixStream::connect(self.path("run/control.sock"));
        let request = agent.join().unwrap();
        (serde_json::from_str(&request).unwrap_or_else(|_| panic!("it did not ask: {said:?}")), said)
    }

    fn agent(&self, answers: &[Value]) -> JoinHandle<String> {
        let socket = self.path("run/control.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let answers: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let _ = stream.write_all(answers.as_bytes());
            request
        })
    }
}
