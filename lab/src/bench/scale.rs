//! `bench scale`: how much memory an agent needs, and how long it takes to be ready, with many records. With the store in etcd the same
//! is measured beside a folder, and an agent without records on each: what others take longer is the reading.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::adopt::write_records;
use super::agent::{SERVICE, Server, Store};
use super::etcd::Etcd;
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};
use super::site::{Site, wait_for};
use super::{Options, StoreKind};

/// Numbers of records.
const RECORDS: [usize; 3] = [1_000, 10_000, 100_000];

/// The services that the agent holds, each with all records.
const SERVICES: [&str; 2] = [SERVICE, "host.nfs-a"];

/// How long the records of one service may be read from etcd, in milliseconds, by their number.
const READ_MS_MAX: [(usize, f64); 2] = [(RECORDS[1], 1_000.0), (RECORDS[2], 8_000.0)];

/// Memory of an agent with the most records, in MiB.
const MEMORY_MIB_MAX: u64 = 130;

/// Looks that are waited for until the most memory is asked for.
const LOOKS: u64 = 2;

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Where they are: `dir` or `etcd`.
    pub store: &'static str,
    /// Records of each of two services.
    pub records: usize,
    /// Milliseconds from the agent's start until it serves all of them.
    pub ready_ms: f64,
    /// Milliseconds of processor time that it took until then: what else the machine does counts less there.
    pub processor_ms: f64,
    /// Memory then, in KiB.
    pub memory_kib: u64,
    /// The most it had until it has looked at the directory twice more, in KiB: it has most while it looks and still holds what the
    /// look before has found.
    pub most_kib: u64,
    /// Milliseconds in which a bare client reads the records of both services from etcd, over one connection.
    pub bare_ms: Option<f64>,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or an agent does not become ready.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    let in_etcd = options.store == StoreKind::Etcd;
    let none = in_etcd.then_some(0);
    let counts = none.into_iter().chain(options.clients.clone().unwrap_or_else(|| RECORDS.to_vec()));
    // etcd first: what a folder of very many files leaves for the disk to do would count for it.
    let stores: &[StoreKind] = if in_etcd { &[StoreKind::Etcd, StoreKind::Dir] } else { &[StoreKind::Dir] };
    for records in counts {
        for store in stores {
            let row = measure(options, *store, records)?;
            eprintln!(
                "scale: {}, {records}: ready after {:.0} ms, {:.0} ms of processor time, {} KiB, at most {} KiB",
                row.store, row.ready_ms, row.processor_ms, row.memory_kib, row.most_kib
            );
            rows.push(row);
        }
    }
    let mut head = vec!["records", "ready, ms", "memory, MiB", "at most, MiB", "ready, µs each"];
    if in_etcd {
        head.insert(0, "store");
    }
    Ok(Report {
        bench: if in_etcd { "scale-etcd" } else { "scale" },
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: if in_etcd { goals_in_etcd(&rows) } else { goals(&rows) },
        table: Table { head, rows: rows.iter().map(|row| row.cells(in_etcd)).collect() },
        plot: plot(&rows),
        caption: "Memory and start-up".to_owned(),
    })
}

/// The store and the status monitor's directory hold the same, as after a restart of the agent.
fn measure(options: &Options, kind: StoreKind, records: usize) -> Result<Row> {
    let site = Site::new()?;
    let etcd = if kind == StoreKind::Etcd { Some(Etcd::start(&site)?) } else { None };
    let store = etcd.as_ref().map_or_else(|| Store::new(&site), |etcd| Ok(Store::in_etcd(etcd)))?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "nsm")?;
    drop(server.start()?);
    write_records(&server.host.folder.join("nfs/sm"), records)?;
    match &etcd {
        Some(etcd) => SERVICES.iter().try_for_each(|service| etcd.put_records(service, records))?,
        None => {
            let [first, second] =
                SERVICES.map(|service| store.records(service).context("a service has no records"));
            let (first, second) = (first?, second?);
            write_records(&first, records)?;
            link_records(&first, &second)?;
        }
    }
    let began = Instant::now();
    let agent = server.start()?;
    wait_for("an agent that knows all records", || server.knows(records))?;
    let ready_ms = began.elapsed().as_secs_f64() * 1e3;
    let processor_ms = processor_ms(agent.id())?;
    let memory_kib = kib(agent.id(), "VmRSS:")?;
    let looks = server.looks().context("an agent does not say how often it has looked")?;
    wait_for("two more looks of an agent", || server.looks().is_some_and(|now| now >= looks + LOOKS))?;
    let most_kib = kib(agent.id(), "VmHWM:")?;
    let store = if etcd.is_some() { "etcd" } else { "dir" };
    let bare_ms = etcd.as_ref().map(|_| bare_ms(records)).transpose()?;
    Ok(Row { store, records, ready_ms, processor_ms, memory_kib, most_kib, bare_ms })
}

/// An entry of a process's status (proc(5)), in KiB.
fn kib(process: u32, key: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    line.and_then(|kib| kib.parse().ok()).with_context(|| format!("no {key} in /proc"))
}

/// See [`Row::bare_ms`].
fn bare_ms(records: usize) -> Result<f64> {
    let began = Instant::now();
    SERVICES.iter().try_for_each(|service| Etcd::read_records(service, records))?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// A record that is committed for several services at once is one file with several names.
fn link_records(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::hard_link(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The processor time of a process so far (proc(5), `stat`).
fn processor_ms(process: u32) -> Result<f64> {
    /// `utime` and `stime`, counted from the field after the command's name.
    const TIMES: std::ops::Range<usize> = 11..13;

    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no command in /proc")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(TIMES.start)
        .take(TIMES.len())
        .map_while(|n| n.parse::<u64>().ok())
        .sum();
    let of_a_second = rustix::param::clock_ticks_per_second();
    Ok(number(usize::try_from(ticks * 1_000 / of_a_second)?))
}

impl Row {
    fn cells(&self, names_store: bool) -> Vec<String> {
        let mib = |kib: u64| (kib / 1024).to_string();
        let each = match self.records {
            0 => String::new(),
            some => short(self.ready_ms * 1e3 / number(some)),
        };
        let store = names_store.then(|| self.store.to_owned());
        let cells =
            [count(self.records), short(self.ready_ms), mib(self.memory_kib), mib(self.most_kib), each];
        store.into_iter().chain(cells).collect()
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let find = |records| rows.iter().find(|row| row.records == records);
    let found = find(RECORDS[1]).zip(find(RECORDS[2]));
    vec![Goal {
        goal: "ten times the records take no more than twelve times the time to be ready".to_owned(),
        measured: found.map_or_else(String::new, |(less, more)| {
            let (a, b) = (short(less.ready_ms), short(more.ready_ms));
            format!("{a} ms with {}, {b} ms with {}", count(less.records), count(more.records))
        }),
        met: found.map(|(less, more)| more.ready_ms <= 12.0 * less.ready_ms),
    }]
}

/// The times and the memory of an agent on etcd. The rows are in order of their numbers, and those of etcd have one without records.
fn goals_in_etcd(rows: &[Row]) -> Vec<Goal> {
    let find = |records| rows.iter().find(|row| row.store == "etcd" && row.records == records);
    let read = |(records, most_ms): (usize, f64)| {
        let each = |ms: f64| ms / number(SERVICES.len());
        let found = find(0).zip(find(records));
        let read_ms = found.map(|(none, some)| each(some.ready_ms - none.ready_ms));
        let bare_ms = found.and_then(|(_, some)| some.bare_ms).map(each);
        Goal {
            goal: format!(
                "{} records of a service are read from etcd within {} s: each of two in half of the time that both take",
                count(records),
                most_ms / 1e3
            ),
            measured: read_ms.zip(bare_ms).map_or_else(String::new, |(ms, bare)| {
                let [ms, bare, times] = [ms, bare, ms / bare].map(short);
                format!("{ms} ms; {bare} ms by a bare client, over one connection: {times} times as long")
            }),
            met: read_ms.map(|ms| ms <= most_ms),
        }
    };
    let most = find(RECORDS[2]).map(|row| row.most_kib / 1024);
    let memory = Goal {
        goal: format!("{MEMORY_MIB_MAX} MiB with {} records", count(RECORDS[2])),
        measured: most.map_or_else(String::new, |mib| format!("{mib} MiB at most")),
        met: most.map(|mib| mib <= MEMORY_MIB_MAX),
    };
    READ_MS_MAX.into_iter().map(read).chain([memory]).collect()
}

fn plot(rows: &[Row]) -> String {
    let series_of = |store: &'static str, [time, memory]: [&'static str; 2]| {
        let of = || rows.iter().filter(move |row| row.store == store && row.records > 0);
        let points =
            |value: fn(&Row) -> f64| of().map(|row| (number(row.records), value(row), true)).collect();
        let named = |what: &str| if store == "dir" { what.to_owned() } else { format!("{what}, in {store}") };
        [
            Series { name: named("ready, ms"), colour: time, points: points(|row| row.ready_ms) },
            Series {
                name: named("memory, MiB"),
                colour: memory,
                points: points(|row| number(usize::try_from(row.memory_kib).unwrap_or(0)) / 1024.0),
            },
        ]
    };
    let in_etcd = rows.iter().any(|row| row.store == "etcd");
    let mut series = Vec::from(series_of("dir", ["#0a6", "#06c"]));
    if in_etcd {
        series.extend(series_of("etcd", ["#6c9", "#6af"]));
    }
    log_log(
        "An agent's start with many records",
        "records of each of two services",
        "milliseconds; MiB",
        &series,
    )
}
