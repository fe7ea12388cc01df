//! An etcd of the demo's own: one member on the loopback interface, whose data lies in the demo's folder.

use std::env;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// The program, as Debian's package etcd-server has it.
const PROGRAM: &str = "etcd";

/// The member. It ends with the demo, however that ends: the kernel sees to it, as with the agents.
#[derive(Debug)]
pub(super) struct Member {
    process: Child,
    endpoint: String,
    log: PathBuf,
}

impl Member {
    /// Starts one. Whether it is ready shows when the store is made on it.
    ///
    /// # Errors
    /// Where no etcd is installed, or it can't be started.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()) {
            bail!("expected the program etcd, found none in PATH; install it (Debian: etcd-server)");
        }
        // Both are free now. Where another program takes one before etcd does, etcd ends and the demo says so.
        let ports =
            [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
        let url = |port: &TcpListener| -> Result<String> { Ok(format!("http://{}", port.local_addr()?)) };
        let (endpoint, peer) = (url(&ports[0])?, url(&ports[1])?);
        drop(ports);
        let log = folder.join("etcd.log");
        let output = File::create(&log)?;
        let program = env::current_exe().context("can't find this program's own file")?;
        let process = Command::new(program)
            .args(["demo", "--ends-with", &std::process::id().to_string(), "--etcd"])
            .arg(folder.join(PROGRAM))
            .args([&endpoint, &peer])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("can't start etcd")?;
        Ok(Self { process, endpoint, log })
    }

    /// Where it answers.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether it ended by itself, and where its words are.
    pub(super) fn died(&mut self) -> Option<&Path> {
        self.process.try_wait().ok()??;
        Some(&self.log)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended already is gone as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// This process becomes the member. It comes back only where that fails.
pub(crate) fn become_member(folder: &Path, endpoint: &str, peer: &str) -> anyhow::Error {
    let error = Command::new(PROGRAM)
        .args(["--name", "demo", "--listen-client-urls", endpoint, "--advertise-client-urls", endpoint])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("demo={peer}"), "--data-dir"])
        .arg(folder)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .exec();
    anyhow::Error::new(error).context("can't start etcd")
}
