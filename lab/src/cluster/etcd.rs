//! etcd as the store of a scenario: a member that is a cluster by itself, over TLS at an address of its own in the scenario's network.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Cluster, Name};
use crate::limits::COMMAND_TIME_MAX;
use crate::network::ETCD_ADDRESS;
use crate::process::run;

/// Where it answers servers, and, without TLS and on this machine alone, the lab.
const PORT: u16 = 2379;
/// Where other members would find it.
const PEER_PORT: u16 = 2380;

/// The authority's certificate, as guests see it.
const AUTHORITY: &str = "/srv/store/etcd-ca.crt";

/// Its data are in memory that no other process sees: what it syncs would wait for all that this machine writes, and a heartbeat
/// that waits for 200 ms is late. Nothing is left where the lab is killed.
const IN_MEMORY: &str = "mount -t tmpfs etcd \"$0\" && exec \"$@\"";

/// A member. It ends with this, and at the latest with the scenario's thread.
#[derive(Debug)]
pub(super) struct Etcd(Child);

impl Etcd {
    /// Starts it in the network that the calling thread is in; its data and its log are in `folder`, and the certificate that
    /// servers trust in `shared`.
    ///
    /// # Errors
    /// When etcd or openssl is not installed, or can't be started.
    fn start(folder: &Path, shared: &Path) -> Result<Self> {
        run(Command::new("etcd").arg("--version")).context("etcd is not here (Debian: etcd-server)")?;
        let own = folder.join("etcd");
        fs::create_dir_all(&own)?;
        let authority = shared.join("etcd-ca.crt");
        let (certificate, key) = certify(&own, &authority)?;
        let (outside, inside) =
            (format!("https://{ETCD_ADDRESS}:{PORT}"), format!("http://{}:{PORT}", Ipv4Addr::LOCALHOST));
        let peer = format!("http://{}:{PEER_PORT}", Ipv4Addr::LOCALHOST);
        let log = File::create(own.join("log"))?;
        let data = own.join("data");
        fs::create_dir_all(&data)?;
        let member = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", IN_MEMORY])
            .arg(&data)
            .args(["etcd", "--name", "m", "--data-dir"])
            .arg(&data)
            .args(["--listen-client-urls", &format!("{outside},{inside}"), "--advertise-client-urls"])
            .arg(&outside)
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m={peer}"), "--cert-file"])
            .arg(certificate)
            .arg("--key-file")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start etcd")?;
        Ok(Self(member))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A key, and a certificate for etcd's address by an authority of the scenario's own.
fn certify(folder: &Path, authority: &Path) -> Result<(PathBuf, PathBuf)> {
    let [ca_key, key, request, extension, certificate] =
        ["ca.key", "own.key", "own.csr", "own.ext", "own.crt"].map(|name| folder.join(name));
    let text = |path: &Path| path.display().to_string();
    let openssl = |arguments: &[&str]| {
        run(Command::new("openssl").args(arguments))
            .map(drop)
            .context("expected certificates of openssl (Debian: openssl)")
    };
    for made in [&ca_key, &key] {
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &text(made)])?;
    }
    let [ca_key, key_text, request, authority] = [&ca_key, &key, &request, authority].map(text);
    openssl(&["req", "-x509", "-new", "-key", &ca_key, "-subj", "/O=lab", "-days", "2", "-out", &authority])?;
    openssl(&["req", "-new", "-key", &key_text, "-subj", "/O=heirlock", "-out", &request])?;
    fs::write(&extension, format!("subjectAltName=IP:{ETCD_ADDRESS}\n"))?;
    let words = ["x509", "-req", "-in", &request, "-CA", &authority, "-CAkey", &ca_key, "-set_serial", "2"];
    let out = ["-days", "2", "-extfile", &text(&extension), "-out", &text(&certificate)];
    openssl(&[&words[..], &out[..]].concat())?;
    Ok((certificate, key))
}

/// `[store]` of a server. A guest waits for its turn on a busy machine, and a call that failed in a round makes a server watch the
/// others anew: the limits are far above the usual ones, and below `dead-after` still.
pub(super) fn settings() -> String {
    format!(
        "type = \"etcd\"\nendpoints = [\"https://{ETCD_ADDRESS}:{PORT}\"]\nca = \"{AUTHORITY}\"\n\
         connect-time-limit = \"3s\"\nanswer-time-limit = \"5s\""
    )
}

/// The same for the lab, on the loopback interface of the scenario's network.
pub(super) fn settings_of_lab() -> String {
    format!("type = \"etcd\"\nendpoints = [\"http://{}:{PORT}\"]", Ipv4Addr::LOCALHOST)
}

impl Cluster {
    /// From now on the store of all servers is in etcd, which runs in the scenario's network.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with_etcd(&mut self) -> Result<()> {
        let mut etcd = Etcd::start(&self.folder, &self.store())?;
        let log = self.folder.join("etcd/log");
        self.wait_for("a member of etcd", COMMAND_TIME_MAX, || {
            if let Some(status) = etcd.0.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("etcd ended ({status}): {}", said.lines().last().unwrap_or_default());
            }
            let leads = fs::read_to_string(&log)?.contains("ready to serve client requests");
            Ok((leads && TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok()).then_some(()))
        })?;
        self.etcd = Some(etcd);
        self.say("etcd is up");
        Ok(())
    }

    /// A server sends nothing to etcd any more, and the network does not tell it so. Clients and other servers reach it as before.
    ///
    /// # Errors
    /// When it has no way to etcd already.
    pub fn cut_off_from_etcd(&self, server: Name) -> Result<()> {
        self.ok(server, &format!("ip route add blackhole {ETCD_ADDRESS}/32"))?;
        self.say(format!("{server} is cut off from etcd"));
        Ok(())
    }
}
