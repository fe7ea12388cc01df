//! `bench adopt`: from the loss of the primary until the last client is told, by heirlock, and by the usual way without
//! it: the directory is copied, and sm-notify is run. The lock manager is played and recognises at once, so that the
//! bench measures the work of the tools and not the restart of NFS, which costs both the same. Beside them `heirlock notify`
//! tells clients of the same records under the same names: it claims nothing and conveys nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::agent::{NAMES, SERVICE, Server, Store};
use super::clients::{Clients, Tally, address, record};
use super::etcd::Etcd;
use super::played::Kernel;
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, percentile, short};
use super::site::{ADDRESS, Running, Site, wait_for};
use super::{Options, StoreKind};

const RESTART_NFS: &str = "heirlock";
const COMMAND: &str = "heirlock, by a command";
const IN_ETCD: &str = "heirlock in etcd";
const NOTIFY: &str = "heirlock notify";

/// Records that are taken over.
const RECORDS: [usize; 2] = [1_000, 10_000];

/// Names that each client is told: heirlock announces the address as well.
const HEIRLOCK_NAMES: usize = 3;

/// How long heirlock may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether all are told.
const LOOK: Duration = Duration::from_millis(5);

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The tool that took over.
    pub tool: &'static str,
    /// Records.
    pub records: usize,
    /// Clients that were told before time was up.
    pub told: usize,
    /// Milliseconds from the loss until the first was told, half, and the last of those that were.
    pub first_ms: f64,
    /// See above.
    pub half_ms: f64,
    /// See above.
    pub last_ms: f64,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or an adoption fails.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for records in options.clients.clone().unwrap_or_else(|| RECORDS.to_vec()) {
        let measured: [fn(&Options, usize) -> Result<Row>; 3] = match options.store {
            StoreKind::Dir => [restart_nfs, command, notify],
            StoreKind::Etcd => [restart_nfs, in_etcd, notify],
        };
        for measure in measured {
            let mut tries = Vec::new();
            for _ in 0..options.repeat.max(1) {
                tries.push(measure(options, records)?);
            }
            tries.sort_by(|a, b| a.last_ms.total_cmp(&b.last_ms));
            rows.push(tries.swap_remove(tries.len() / 2));
        }
        if options.store == StoreKind::Dir {
            rows.push(copy_and_sm_notify(options, records)?);
        }
    }
    let in_etcd = options.store == StoreKind::Etcd;
    Ok(Report {
        bench: if in_etcd { "adopt-etcd" } else { "adopt" },
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: if in_etcd { vec![goal_in_etcd(&rows)] } else { goals(&rows) },
        table: Table {
            head: vec!["taken over by", "records", "told", "first, ms", "half, ms", "last, ms"],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "From the loss of the primary until the last client is told".to_owned(),
    })
}

/// Records are placed beside recognition and telling.
fn restart_nfs(options: &Options, records: usize) -> Result<Row> {
    heirlock(options, records, RESTART_NFS, StoreKind::Dir, Server::restarting_nfs)
}

/// The same with the store in etcd.
fn in_etcd(options: &Options, records: usize) -> Result<Row> {
    heirlock(options, records, IN_ETCD, StoreKind::Etcd, Server::restarting_nfs)
}

/// All records are placed first: the command may read them.
fn command(options: &Options, records: usize) -> Result<Row> {
    heirlock(options, records, COMMAND, StoreKind::Dir, Ok)
}

fn heirlock(
    options: &Options,
    records: usize,
    tool: &'static str,
    kind: StoreKind,
    configure: fn(Server) -> Result<Server>,
) -> Result<Row> {
    let site = Site::new()?;
    let etcd = if kind == StoreKind::Etcd { Some(Etcd::start(&site)?) } else { None };
    let store = etcd.as_ref().map_or_else(|| Store::new(&site), |etcd| Ok(Store::in_etcd(etcd)))?;
    let primary = Server::new(&site, &store, &options.heirlock, "nfs-a", "watch")?;
    write_records(&primary.host.folder.join("nfs/sm"), records)?;
    let agent = primary.start()?;
    wait_for("a store of all records", || primary.knows(records))?;
    let _kernel = Kernel::start()?;
    let adoptive = configure(Server::new(&site, &store, &options.heirlock, "nfs-b", "watch")?)?;
    let _agent = adoptive.start()?;
    let clients = site.among_clients(|| Clients::start(records, |_| false, HEIRLOCK_NAMES))?;
    let lost = Instant::now();
    drop(agent);
    let adopting = Running::start(adoptive.heirlock(&["adopt", SERVICE, "--owner-fenced"]))?;
    let tally = wait(adopting, clients, PATIENCE)?;
    let row = row(tool, records, &tally, lost);
    ensure!(row.told == records, "{} of {records} clients were told by an adoption", row.told);
    Ok(row)
}

/// The notifier alone, on a directory that has all records.
fn notify(options: &Options, records: usize) -> Result<Row> {
    let site = Site::new()?;
    let server = site.host("nfs-b")?;
    server.know(&format!("{ADDRESS} {}\n", NAMES.join(" ")))?;
    let directory = server.folder.join("nfs");
    write_records(&directory.join("sm"), records)?;
    let clients = site.among_clients(|| Clients::start(records, |_| false, HEIRLOCK_NAMES))?;
    let (directory, address) = (directory.display().to_string(), ADDRESS.to_string());
    let where_to = ["notify", "-P", &directory, "--address", &address, "--retry-time", "60s"];
    let arguments = [where_to.as_slice(), &["--name", NAMES[0], "--name", &address]].concat();
    let began = Instant::now();
    let telling = Running::start(server.command(&options.heirlock, &arguments))?;
    let row = row(NOTIFY, records, &wait(telling, clients, PATIENCE)?, began);
    ensure!(row.told == records, "{} of {records} clients were told by 'heirlock notify'", row.told);
    Ok(row)
}

fn copy_and_sm_notify(options: &Options, records: usize) -> Result<Row> {
    let site = Site::new()?;
    let primary = site.host("nfs-a")?;
    write_records(&primary.folder.join("nfs/sm"), records)?;
    let adoptive = site.host("nfs-b")?;
    adoptive.know(&format!("{ADDRESS} {}\n", NAMES.join(" ")))?;
    let clients = site.among_clients(|| Clients::start(records, |_| false, NAMES.len()))?;
    let lost = Instant::now();
    let (from, to) = (primary.folder.join("nfs/sm/."), adoptive.folder.join("nfs/sm"));
    let copied = Command::new("cp").arg("-a").arg(from).arg(&to).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let arguments = ["-d", "-f", "-m", "0", "-v", NAMES[0]];
    let telling = Running::start(adoptive.command("/usr/sbin/sm-notify", &arguments))?;
    Ok(row("copy and sm-notify", records, &wait(telling, clients, options.patience)?, lost))
}

/// Until all clients were told, or time is up; the program is ended.
fn wait(program: Running, clients: Clients, patience: Duration) -> Result<Tally> {
    let until = Instant::now() + patience;
    while clients.told() < clients.living() && Instant::now() < until {
        thread::sleep(LOOK);
    }
    drop(program);
    clients.stop()
}

pub(super) fn write_records(folder: &Path, count: usize) -> Result<()> {
    for index in 0..count {
        let name = address(index).to_string();
        fs::write(folder.join(&name), record(&name))?;
    }
    Ok(())
}

fn row(tool: &'static str, records: usize, tally: &Tally, lost: Instant) -> Row {
    let told = tally.told.iter().flatten();
    let mut millis: Vec<f64> = told.map(|at| at.duration_since(lost).as_secs_f64() * 1e3).collect();
    let [first_ms, half_ms, last_ms] = [0, 50, 100].map(|percent| percentile(&mut millis, percent));
    eprintln!("adopt: {tool}: {} of {records} told, the last after {last_ms:.1} ms", millis.len());
    Row { tool, records, told: millis.len(), first_ms, half_ms, last_ms }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let told = format!("{} of {}", count(self.told), count(self.records));
        let [first, half, last] = [self.first_ms, self.half_ms, self.last_ms].map(short);
        vec![self.tool.to_owned(), count(self.records), told, first, half, last]
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let find = |tool: &str, records| rows.iter().find(|r| r.tool == tool && r.records == records);
    let of = |records: usize| {
        let found = find(RESTART_NFS, records).zip(find("copy and sm-notify", records));
        Goal {
            goal: format!("{} clients told before a copy and sm-notify have told theirs", count(records)),
            measured: found.map_or_else(String::new, |(ours, theirs)| {
                let missed = count(theirs.records - theirs.told);
                format!(
                    "{} ms against {} ms, at which {missed} were not told: {} times",
                    short(ours.last_ms),
                    short(theirs.last_ms),
                    short(theirs.last_ms / ours.last_ms)
                )
            }),
            met: found.map(|(ours, theirs)| ours.told >= theirs.told && ours.last_ms < theirs.last_ms),
        }
    };
    let within = |records: usize| {
        let found = find(RESTART_NFS, records).zip(find(NOTIFY, records));
        let ratio = found.map(|(ours, bare)| ours.last_ms / bare.last_ms);
        Goal {
            goal: format!("{} clients told within 2 times of 'heirlock notify'", count(records)),
            measured: ratio.map_or_else(String::new, |ratio| format!("{} times", short(ratio))),
            met: ratio.map(|ratio| ratio <= 2.0),
        }
    };
    RECORDS.map(of).into_iter().chain([within(10_000)]).collect()
}

/// A ratio in one run.
fn goal_in_etcd(rows: &[Row]) -> Goal {
    let last = |tool: &str| rows.iter().find(|r| r.tool == tool && r.records == 10_000).map(|r| r.last_ms);
    let both = last(IN_ETCD).zip(last(RESTART_NFS));
    Goal {
        goal: "10,000 clients told within 1.5 times of the same with a folder".to_owned(),
        measured: both.map_or_else(String::new, |(ours, folder)| {
            format!("{} ms against {} ms: {:.1} times", short(ours), short(folder), ours / folder)
        }),
        met: both.map(|(ours, folder)| ours / folder <= 1.5),
    }
}

fn plot(rows: &[Row]) -> String {
    let colours = [
        (RESTART_NFS, "#0a6"),
        (COMMAND, "#593"),
        (IN_ETCD, "#06c"),
        (NOTIFY, "#888"),
        ("copy and sm-notify", "#c30"),
    ];
    let series = colours.map(|(tool, colour)| {
        let rows = rows.iter().filter(|row| row.tool == tool && row.told > 0);
        let points = rows.map(|r| (number(r.records), r.last_ms, r.told == r.records)).collect();
        Series { name: tool.to_owned(), colour, points }
    });
    log_log(
        "Primary lost until the last client is told (hollow: some never were)",
        "records",
        "milliseconds",
        &series,
    )
}
