//! The programs, each run on a fresh state directory against fresh clients.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{NAMES, Row, SERVER, bare};
use crate::bench::clients::{Clients, Tally, address};
use crate::bench::{Options, ground};

/// How long heirlock may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a name server should be.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 53);

/// How often is looked whether all were told, and how much memory the program has.
const LOOK: Duration = Duration::from_millis(5);

/// The program that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Heirlock,
    SmNotify,
    Bare,
}

/// One case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) tool: Tool,
    pub(super) clients: usize,
    pub(super) dead_percent: usize,
    pub(super) unresolvable: usize,
}

/// The end of a program.
struct Ended {
    began: Instant,
    prepared_ms: Option<f64>,
    memory_kib: Option<u64>,
    /// Processor time that it used.
    cpu_ms: f64,
    dropped: u64,
}

pub(super) fn measure(case: &Case, options: &Options) -> Result<Row> {
    let percent = case.dead_percent;
    let clients = Clients::start(case.clients, |index| index % 100 < percent, NAMES.len())?;
    let living = clients.living();
    let state = state_directory(case)?;
    let _silent = UdpSocket::bind((NAME_SERVER, 53)).context("can't play a dead name server")?;
    let ended = match case.tool {
        Tool::Bare => {
            let (began, before) = (Instant::now(), own_cpu_ms());
            bare::run(SERVER, case.clients, &NAMES, 3)?;
            Ended { began, prepared_ms: None, memory_kib: None, cpu_ms: own_cpu_ms() - before, dropped: 0 }
        }
        Tool::Heirlock => {
            watch(heirlock(options, &state), &clients, PATIENCE, percent + case.unresolvable == 0)?
        }
        Tool::SmNotify => watch(sm_notify(&state), &clients, options.patience, false)?,
    };
    let tally = clients.stop()?;
    Ok(row(case, living, &tally, &ended))
}

fn row(case: &Case, living: usize, tally: &Tally, ended: &Ended) -> Row {
    let mut times: Vec<f64> = tally
        .told
        .iter()
        .flatten()
        .map(|at| at.duration_since(ended.began).as_secs_f64() * 1_000.0)
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let at = |percent| at(percent).copied().unwrap_or(f64::NAN);
    Row {
        tool: match case.tool {
            Tool::Heirlock => "heirlock",
            Tool::SmNotify => "sm-notify",
            Tool::Bare => "bare",
        },
        clients: case.clients,
        dead_percent: case.dead_percent,
        unresolvable: case.unresolvable,
        told: times.len(),
        living,
        half_ms: at(50),
        most_ms: at(99),
        last_ms: at(100),
        prepared_ms: ended.prepared_ms,
        memory_kib: ended.memory_kib,
        cpu_ms: ended.cpu_ms,
        dropped: ended.dropped,
        messages: tally.messages,
        confused: tally.confused,
    }
}

/// A record for each client, as rpc.statd writes it; those that can't be resolved are the newest, which sm-notify calls
/// first. Beside it what the programs take for the machine's own name service.
fn state_directory(case: &Case) -> Result<PathBuf> {
    let path = ground::folder()?;
    for folder in ["sm", "sm.bak"] {
        fs::create_dir(path.join(folder))?;
    }
    #[allow(clippy::host_endian_bytes)] // nfs-utils writes an int as the machine has it
    let state = 5_u32.to_ne_bytes();
    fs::write(path.join("state"), state)?;
    fs::write(path.join("hosts"), format!("127.0.0.1 localhost\n{SERVER} {}\n", NAMES.join(" ")))?;
    // A socket of ours that never answers: not even an error comes back.
    fs::write(path.join("resolv.conf"), format!("nameserver {NAME_SERVER}\n"))?;
    if case.tool == Tool::Bare {
        return Ok(path);
    }
    let write = |client: &str| {
        let line = format!(
            "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} {}\n",
            NAMES[0]
        );
        fs::write(path.join("sm").join(client), line)
    };
    for index in 0..case.clients {
        write(&address(index).to_string())?;
    }
    for index in 0..case.unresolvable {
        write(&format!("client{index}.example.test"))?;
    }
    Ok(path)
}

/// In a mount namespace of its own, where names are resolved as the case wants it.
fn with_names(state: &Path, program: &Path, arguments: &[&str]) -> Command {
    let script = "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"";
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script]);
    command.arg(state).arg(program).args(arguments);
    command
}

fn heirlock(options: &Options, state: &Path) -> Command {
    let (directory, server) = (state.display().to_string(), SERVER.to_string());
    let arguments = [
        "notify",
        "--json",
        "-P",
        &directory,
        "--address",
        &server,
        "--name",
        NAMES[0],
        "--retry-time",
        "60s",
    ];
    with_names(state, &options.heirlock, &arguments)
}

fn sm_notify(state: &Path) -> Command {
    let directory = state.display().to_string();
    let arguments = ["-d", "-f", "-m", "0", "-P", &directory, "-v", NAMES[0]];
    with_names(state, Path::new("/usr/sbin/sm-notify"), &arguments)
}

/// Runs a program until every living client was told, or it is over, or time is up.
fn watch(mut command: Command, clients: &Clients, patience: Duration, to_its_end: bool) -> Result<Ended> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("can't start {command:?}"))?;
    let (mut memory_kib, mut cpu_ms, mut lost) = (None, 0.0_f64, 0);
    while began.elapsed() < patience && child.try_wait()?.is_none() {
        memory_kib = memory_kib.max(memory(&child));
        cpu_ms = cpu_ms.max(used_ms(&child));
        lost = lost.max(dropped());
        if clients.told() == clients.living() && !to_its_end {
            break;
        }
        thread::sleep(LOOK);
    }
    // By its id, which is still its own: it has not been waited for.
    let _ = child.kill();
    let output = child.wait_with_output()?;
    let report: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    let prepared_ms = report.and_then(|report| report.get("prepared-ms")?.as_f64());
    Ok(Ended { began, prepared_ms, memory_kib, cpu_ms, dropped: lost })
}

/// The most that it ever had.
fn memory(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time that a program has used, in steps of 10 ms.
fn used_ms(child: &Child) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    // The second field may hold anything but ends with the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Processor time that this thread has used.
fn own_cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

/// Answers that found no room in a socket that is bound to the server's address, in this thread's namespace.
fn dropped() -> u64 {
    let read = |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let text = read("udp") + &read("udp6");
    // An IPv6 socket has the same word at the end of a longer address.
    let server = format!("{:08X}:", u32::from(SERVER).swap_bytes());
    let rows = text.lines().map(str::split_whitespace);
    rows.filter(|row| row.clone().nth(1).is_some_and(|local| local.contains(&server)))
        .filter_map(|row| row.last()?.parse::<u64>().ok())
        .sum()
}
