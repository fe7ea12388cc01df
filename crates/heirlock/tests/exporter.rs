//! `heirlock exporter` over the read-only socket of a real agent, as another user.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "agent/harness.rs"]
mod harness;

use harness::{Server, Site};

/// Another user on this host.
const NEIGHBOUR: u32 = 65_534;

/// The group that may read the status.
const READ_GROUP: u32 = 4_242;

/// A server whose status the group may read, and this program where every user reaches it.
fn furnish(site: &Site) -> (Server, PathBuf) {
    let folder = site.store().parent().unwrap().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
    let program = folder.join("heirlock");
    fs::copy(env!("CARGO_BIN_EXE_heirlock"), &program).unwrap();
    let server = site.server("a", "nfs-a");
    server.configure("[notify]", &format!("[control]\nread-group = \"{READ_GROUP}\"\n[notify]"));
    (server, program)
}

fn exporter(program: &PathBuf, server: &Server) -> Command {
    let mut command = Command::new(program);
    command.arg("exporter").arg("--socket").arg(server.path("run-status/status.sock"));
    command.uid(NEIGHBOUR).gid(READ_GROUP);
    command
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_user_of_the_read_group_exports_what_the_agent_tells_and_says_when_it_is_gone() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can run a program as another user
    }
    let site = Site::new();
    let (mut server, program) = furnish(&site);
    server.up();
    server.register("10.0.0.1");
    server.wait_until_captured("nfs", 1);
    let mut child =
        exporter(&program, &server).args(["--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let _running = Running(child);
    let address = said
        .split("http://")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"))
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let metrics = server.wait_for("the record", |_| {
        let metrics = get(&address, "/metrics");
        metrics.contains("\nheirlock_service_clients{service=\"nfs\"} 1\n").then_some(metrics)
    });
    assert!(
        metrics.contains("\nheirlock_up 1\n") && metrics.contains("heirlock_commits_total{result=\"done\"}")
    );
    assert!(!metrics.contains("10.0.0.1"), "no client is a label");
    let page = get(&address, "/");
    assert!(page.contains("content-security-policy: default-src 'none'; style-src 'self'"), "{page}");
    assert!(
        page.contains("<h1>heirlock on nfs-a</h1>") && page.contains("<th scope=\"row\">nfs</th>"),
        "{page}"
    );
    assert!(page.contains("None yet."), "the past was told over the same socket: {page}");
    server.kill();
    server.wait_for("the end of the agent", |_| {
        get(&address, "/metrics").contains("\nheirlock_up 0\n").then_some(())
    });
}

/// Writes the file once, and returns it.
fn write(program: &PathBuf, server: &Server, folder: &Path) -> String {
    let output = exporter(program, server).arg("--textfile").arg(folder).arg("--once").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(folder.join("heirlock.prom")).unwrap()
}

#[test]
fn the_textfile_is_written_whole_also_where_no_agent_answers() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can run a program as another user
    }
    let site = Site::new();
    let (mut server, program) = furnish(&site);
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NEIGHBOUR), None).unwrap();
    assert!(write(&program, &server, folder.path()).contains("\nheirlock_up 0\n"));
    server.up();
    assert!(write(&program, &server, folder.path()).contains("\nheirlock_up 1\n"));
    assert_eq!(harness::names(folder.path()), ["heirlock.prom"], "nothing else is left there");
    let mode = fs::metadata(folder.path().join("heirlock.prom")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let output = exporter(&program, &server).args(["--textfile", "/nowhere", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("can't write /nowhere/heirlock.prom"), "{said}");
}

#[test]
fn the_unit_of_the_exporter_has_no_rights_but_those_to_ask() {
    let unit = include_str!("../../../dist/systemd/heirlock-exporter.service");
    let lines: Vec<&str> = unit.lines().collect();
    for line in [
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SystemCallFilter=@system-service",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    // The group is the one of the sample configuration, and the command one that is understood.
    let of = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).unwrap();
    let sample = include_str!("../../../dist/heirlock.toml");
    assert!(sample.contains(&format!("#read-group = \"{}\"", of("SupplementaryGroups="))));
    let words: Vec<&str> = of("ExecStart=").split(' ').skip(1).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_heirlock")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success());
}
