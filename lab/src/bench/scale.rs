//! `bench scale`: how much memory an agent needs, and how long it takes to be ready, with many records.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::adopt::write_records;
use super::agent::{SERVICE, Server, Store};
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};
use super::site::{Site, wait_for};

/// Numbers of records.
const RECORDS: [usize; 3] = [1_000, 10_000, 100_000];

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Records of each of two services.
    pub records: usize,
    /// Milliseconds from the agent's start until it serves all of them.
    pub ready_ms: f64,
    /// Milliseconds of processor time that it took until then: what else the machine does counts less there.
    pub processor_ms: f64,
    /// Memory then, and the most it ever had, in KiB.
    pub memory_kib: u64,
    /// See above.
    pub most_kib: u64,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or an agent does not become ready.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for records in options.clients.clone().unwrap_or_else(|| RECORDS.to_vec()) {
        let row = measure(options, records)?;
        eprintln!(
            "scale: {records}: ready after {:.0} ms, {:.0} ms of processor time, {} KiB, at most {} KiB",
            row.ready_ms, row.processor_ms, row.memory_kib, row.most_kib
        );
        rows.push(row);
    }
    Ok(Report {
        bench: "scale",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
        table: Table {
            head: vec!["records", "ready, ms", "memory, MiB", "at most, MiB", "ready, µs each"],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "Memory and start-up".to_owned(),
    })
}

/// The store and the status monitor's directory hold the same, as after a restart of the agent.
fn measure(options: &Options, records: usize) -> Result<Row> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "nsm")?;
    drop(server.start()?);
    write_records(&server.host.folder.join("nfs/sm"), records)?;
    let [first, second] =
        [SERVICE, "host.nfs-a"].map(|service| store.records(service).context("a service has no records"));
    let (first, second) = (first?, second?);
    write_records(&first, records)?;
    link_records(&first, &second)?;
    let began = Instant::now();
    let agent = server.start()?;
    wait_for("an agent that knows all records", || server.knows(records))?;
    let ready_ms = began.elapsed().as_secs_f64() * 1e3;
    let processor_ms = processor_ms(agent.id())?;
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
        line.and_then(|kib| kib.parse().ok()).with_context(|| format!("no {key} in /proc"))
    };
    Ok(Row { records, ready_ms, processor_ms, memory_kib: kib("VmRSS:")?, most_kib: kib("VmHWM:")? })
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
    fn cells(&self) -> Vec<String> {
        let mib = |kib: u64| (kib / 1024).to_string();
        vec![
            count(self.records),
            short(self.ready_ms),
            mib(self.memory_kib),
            mib(self.most_kib),
            short(self.ready_ms * 1e3 / number(self.records)),
        ]
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

fn plot(rows: &[Row]) -> String {
    let points =
        |value: fn(&Row) -> f64| rows.iter().map(|row| (number(row.records), value(row), true)).collect();
    let series = [
        Series { name: "ready, ms".into(), colour: "#0a6", points: points(|row| row.ready_ms) },
        Series {
            name: "memory, MiB".into(),
            colour: "#06c",
            points: points(|row| number(usize::try_from(row.memory_kib).unwrap_or(0)) / 1024.0),
        },
    ];
    log_log(
        "An agent's start with many records",
        "records of each of two services",
        "milliseconds; MiB",
        &series,
    )
}
