//! A member of etcd on the site of a bench, and bare puts to it and bare readings over its JSON gateway, as heirlock asks it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::clients::{address, record};
use super::site::{Running, Site, wait_for};

/// Where it answers clients, and other members.
const PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Puts of one transaction: etcd takes 128 operations.
const PUTS_MAX: usize = 127;

/// Connections over which records are put.
const PUTTERS: usize = 16;

/// Records of one bare reading: as many as heirlock reads at once, give or take a few.
const READ_MAX: usize = 4096;

/// The prefix of the store.
const PREFIX: &str = "/heirlock/";

/// A member that is a cluster by itself, whose data lie on the disk of the site. It ends with this.
pub(super) struct Etcd {
    _member: Running,
}

impl Etcd {
    /// Starts it where the servers are.
    pub(super) fn start(site: &Site) -> Result<Self> {
        let program = program().context("etcd is not here (Debian: etcd-server)")?;
        let data = site.path("etcd");
        fs::create_dir_all(&data)?;
        let (url, peer) = (format!("http://127.0.0.1:{PORT}"), format!("http://127.0.0.1:{PEER_PORT}"));
        let mut command = Command::new(program);
        command.env_clear().args(["--name", "m", "--data-dir"]).arg(data).args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("m={peer}"),
        ]);
        let member = Running::start(command)?;
        // The line that says that a store is here. Its first agent gives it an identity.
        let format = [(format!("{PREFIX}format"), "heirlock store, format 1\n".to_owned())];
        wait_for("a member of etcd", || {
            Putter::connect().is_ok_and(|mut putter| putter.put(&format).is_ok())
        })?;
        Ok(Self { _member: member })
    }

    /// Puts so many records into the first generation of a service, which an agent has begun. Transactions that come at the same
    /// time share a sync.
    pub(super) fn put_records(&self, service: &str, count: usize) -> Result<()> {
        let all: Vec<usize> = (0..count).collect();
        let put = |some: &[usize]| -> Result<()> {
            let mut putter = Putter::connect()?;
            for some in some.chunks(PUTS_MAX) {
                let entry = |index: &usize| {
                    let client = address(*index).to_string();
                    (format!("{PREFIX}generations/{service}/{:020}/sm/{client}", 1), record(&client))
                };
                putter.put(&some.iter().map(entry).collect::<Vec<_>>())?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let shares = all.chunks(count.div_ceil(PUTTERS).max(1));
            let putting: Vec<_> = shares.map(|share| scope.spawn(move || put(share))).collect();
            putting.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a put broke"))?)
        })
    }

    /// Reads so many records of a service as a bare client does: over one connection, a portion at a time, each from after the last
    /// key of the one before. What they are is not looked at.
    pub(super) fn read_records(service: &str, count: usize) -> Result<()> {
        let below = format!("{PREFIX}generations/{service}/{:020}/sm/", 1);
        // A slash is followed by the digit 0.
        let end = BASE64_STANDARD.encode(format!("{}0", below.trim_end_matches('/')));
        let (mut client, mut from, mut read) = (Putter::connect()?, BASE64_STANDARD.encode(&below), 0);
        while read < count {
            let range = format!("{{\"key\":\"{from}\",\"range_end\":\"{end}\",\"limit\":\"{READ_MAX}\"}}");
            let answer = client.ask("/v3/kv/range", &range)?;
            let keys = || answer.split("\"key\":\"").skip(1);
            let last = keys().last().and_then(|rest| rest.split('"').next());
            let last = last.with_context(|| format!("{read} of {count} records of {service} are in etcd"))?;
            let mut after = BASE64_STANDARD.decode(last)?;
            after.push(0);
            from = BASE64_STANDARD.encode(after);
            read += keys().count();
        }
        Ok(())
    }

    /// Puts these keys through heirlock's own client, so many in one transaction. Answers the microseconds of each transaction.
    pub(super) fn put_by_heirlock(
        heirlock: &Path,
        keys: &[(String, String)],
        at_once: usize,
    ) -> Result<Vec<f64>> {
        let program = heirlock.with_file_name("examples").join("etcd_puts");
        let mut command = Command::new(&program);
        command.args([&format!("http://127.0.0.1:{PORT}"), &at_once.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let putting = command.spawn().with_context(|| {
            format!(
                "can't start {}; 'cargo build --release -p heirlock --features etcd --example etcd_puts' makes it",
                program.display()
            )
        });
        let mut putting = putting?;
        // It reads all of it before it writes, and its input ends here.
        let mut input = putting.stdin.take().context("no way to the puts")?;
        input.write_all(serde_json::to_string(keys)?.as_bytes())?;
        drop(input);
        let output = putting.wait_with_output()?;
        ensure!(output.status.success(), "{} has failed: {}", program.display(), output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The store in a server's configuration.
    pub(super) fn settings() -> String {
        format!("type = \"etcd\"\nendpoints = [\"http://127.0.0.1:{PORT}\"]\nprefix = \"{PREFIX}\"")
    }
}

/// The program, where it is installed.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|program| program.is_file())
}

/// One connection that stays.
pub(super) struct Putter {
    stream: BufReader<TcpStream>,
}

impl Putter {
    pub(super) fn connect() -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Puts these keys in one transaction, without a condition.
    pub(super) fn put(&mut self, entries: &[(String, String)]) -> Result<()> {
        let mut puts = String::new();
        for (key, value) in entries {
            let [key, value] = [key, value].map(|text| BASE64_STANDARD.encode(text));
            let comma = if puts.is_empty() { "" } else { "," };
            write!(puts, "{comma}{{\"requestPut\":{{\"key\":\"{key}\",\"value\":\"{value}\"}}}}")?;
        }
        let body = format!("{{\"success\":[{puts}]}}");
        let answer = self.ask("/v3/kv/txn", &body)?;
        ensure!(answer.contains("\"succeeded\":true"), "etcd has answered {answer}");
        Ok(())
    }

    /// The answer to a question.
    fn ask(&mut self, path: &str, body: &str) -> Result<String> {
        let length = body.len();
        let question =
            format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(question.as_bytes())?;
        self.answer()
    }

    /// The body of an answer: as long as is said before it, or in chunks with a length each.
    fn answer(&mut self) -> Result<String> {
        let mut length = None;
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = Vec::new();
        if let Some(length) = length {
            self.read(length, &mut body)?;
            return Ok(String::from_utf8_lossy(&body).into_owned());
        }
        loop {
            let length =
                usize::from_str_radix(&self.line()?, 16).context("an answer of etcd without its length")?;
            self.read(length, &mut body)?;
            self.line()?;
            if length == 0 {
                return Ok(String::from_utf8_lossy(&body).into_owned());
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "etcd has ended the connection");
        Ok(line.trim().to_owned())
    }

    fn read(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let start = body.len();
        body.resize(start + length, 0);
        Ok(self.stream.read_exact(&mut body[start..])?)
    }
}
