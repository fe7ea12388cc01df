//! `bench notify`: how long until every living client was told, by heirlock, by Debian's sm-notify, and by a bare loop that
//! sends the same messages.
//!
//! All run in one private network namespace against the same simulated clients. Time counts from the start of the program
//! to the moment at which the client had been told under both names, as the client saw it.

mod bare;
mod programs;

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};
use super::{Options, clients};
use crate::network::{enter_new_namespace, ip};
use programs::{Case, Tool};

/// The service's address, and the name that stands for it.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 1);
const NAMES: [&str; 2] = ["nfs.example.test", "nfs"];

/// Numbers of clients.
const CLIENTS: [usize; 5] = [100, 1_000, 5_000, 10_000, 100_000];

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `heirlock`, `sm-notify` or `bare`.
    pub tool: &'static str,
    /// Clients on record.
    pub clients: usize,
    /// Of them dead, in percent.
    pub dead_percent: usize,
    /// Records whose name only a dead name server could resolve.
    pub unresolvable: usize,
    /// Living ones that were told.
    pub told: usize,
    /// Of so many.
    pub living: usize,
    /// Milliseconds until half, 99 of 100, and the last of those that were told had been.
    pub half_ms: f64,
    /// See above.
    pub most_ms: f64,
    /// See above.
    pub last_ms: f64,
    /// Milliseconds that the program itself gives for reading, moving and counting up, before the first datagram.
    pub prepared_ms: Option<f64>,
    /// The most memory that the program had.
    pub memory_kib: Option<u64>,
    /// Processor time that the program used, the kernel's for it included.
    pub cpu_ms: f64,
    /// Answers that found the program's socket full.
    pub dropped: u64,
    /// Messages that reached living clients.
    pub messages: usize,
    /// Clients that were told two numbers.
    pub confused: usize,
}

/// Measures.
///
/// # Errors
/// When namespaces or sockets can't be had, or a program can't be started.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    enter_new_namespace().context("can't make a network namespace (root is needed)")?;
    ip("link set lo up")?;
    ip(&format!("addr add {SERVER}/32 dev lo"))?;
    ip(&format!("route add local {} dev lo", clients::NETWORK))?;
    let mut rows = Vec::new();
    for case in cases(options) {
        let mut tries = Vec::new();
        for _ in 0..if case.tool == Tool::SmNotify { 1 } else { options.repeat.max(1) } {
            tries.push(programs::measure(&case, options)?);
        }
        tries.sort_by(|a, b| a.last_ms.total_cmp(&b.last_ms));
        let row = tries.swap_remove(tries.len() / 2);
        eprintln!(
            "notify: {} {} clients: {} told, the last after {:.1} ms",
            row.tool, row.clients, row.told, row.last_ms
        );
        rows.push(row);
    }
    Ok(Report {
        bench: "notify",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
        table: Table {
            head: vec![
                "program",
                "on record",
                "dead",
                "told",
                "half, ms",
                "99 %, ms",
                "last, ms",
                "µs each",
                "CPU µs each",
                "prepared, ms",
                "memory, MiB",
                "dropped",
            ],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "Until the last client is told".to_owned(),
    })
}

fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    let living = |tool, clients| Case { tool, clients, dead_percent: 0, unresolvable: 0 };
    let numbers = options.clients.clone().unwrap_or_else(|| CLIENTS.to_vec());
    for clients in &numbers {
        cases.extend([Tool::Bare, Tool::Heirlock, Tool::SmNotify].map(|tool| living(tool, *clients)));
    }
    let middle = numbers.iter().copied().filter(|c| *c <= 10_000).max().unwrap_or(1_000);
    for dead_percent in [10, 50] {
        for (tool, clients) in [
            (Tool::Heirlock, middle),
            (Tool::Heirlock, numbers.iter().copied().max().unwrap_or(middle)),
            (Tool::SmNotify, 1_000),
        ] {
            cases.push(Case { dead_percent, ..living(tool, clients) });
        }
    }
    for tool in [Tool::Heirlock, Tool::SmNotify] {
        cases.push(Case { unresolvable: 5, ..living(tool, 100) });
    }
    cases
}

/// The cases in which all live.
fn plot(rows: &[Row]) -> String {
    let colours = [("bare", "#888"), ("heirlock", "#0a6"), ("sm-notify", "#c30")];
    let series = colours.map(|(tool, colour)| {
        let rows = rows.iter().filter(|r| r.tool == tool && r.is_plain() && r.told > 0);
        let points = rows.map(|r| (number(r.clients), r.last_ms, r.told == r.living)).collect();
        Series { name: tool.to_owned(), colour, points }
    });
    log_log(
        "Until the last client is told (hollow: some never were)",
        "living clients",
        "milliseconds from the start of the program",
        &series,
    )
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let find = |tool: &str, clients: usize| {
        rows.iter().find(|r| r.tool == tool && r.clients == clients && r.is_plain())
    };
    let within = |clients: usize, limit_ms: f64| {
        let row = find("heirlock", clients);
        Goal {
            goal: format!("{} living clients told in under {} s", count(clients), limit_ms / 1e3),
            measured: row.map_or_else(String::new, |row| format!("{} ms", short(row.last_ms))),
            met: row.map(|row| row.last_ms < limit_ms && row.told == clients),
        }
    };
    let at = 5_000;
    let both = find("heirlock", at).zip(find("sm-notify", at));
    let mut goals = vec![within(10_000, 500.0), within(100_000, 5_000.0)];
    goals.push(Goal {
        goal: format!("at {} at least 100 times faster than sm-notify's last success", count(at)),
        measured: both.map_or_else(String::new, |(ours, theirs)| {
            let (ours, last, missed) = (ours.last_ms, theirs.last_ms, theirs.living - theirs.told);
            let (times, missed) = (short(last / ours), count(missed));
            format!(
                "{} ms against {} ms, at which {missed} were still not told: {times} times",
                short(ours),
                short(last)
            )
        }),
        met: both.map(|(ours, theirs)| theirs.last_ms / ours.last_ms >= 100.0),
    });
    let beside: Vec<(usize, f64)> = [5_000, 10_000, 100_000]
        .into_iter()
        .filter_map(|clients| {
            Some((clients, find("heirlock", clients)?.last_ms / find("bare", clients)?.last_ms))
        })
        .collect();
    goals.push(Goal {
        goal: "within 4 times of the bare loop".to_owned(),
        measured: beside
            .iter()
            .map(|(n, times)| format!("{times:.1} times at {}", count(*n)))
            .collect::<Vec<_>>()
            .join(", "),
        met: (!beside.is_empty()).then(|| beside.iter().all(|(_, times)| *times <= 4.0)),
    });
    let each: Vec<f64> = [1_000, 5_000, 10_000, 100_000]
        .into_iter()
        .filter_map(|clients| Some(find("heirlock", clients)?.last_ms * 1e3 / number(clients)))
        .collect();
    goals.push(Goal {
        goal: "cost per client constant from 1,000 to 100,000".to_owned(),
        measured: each.iter().map(|us| short(*us)).collect::<Vec<_>>().join(", ") + " µs",
        // It may fall, since starting the program is part of it.
        met: each.first().zip(each.last()).map(|(first, last)| each.len() == 4 && *last <= first * 1.2),
    });
    goals
}

impl Row {
    fn is_plain(&self) -> bool {
        self.dead_percent == 0 && self.unresolvable == 0
    }

    fn cells(&self) -> Vec<String> {
        let dead = match self.unresolvable {
            0 => format!("{} %", self.dead_percent),
            names => format!("{names} names"),
        };
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
        let each = |ms: f64| short(ms * 1_000.0 / number(self.told));
        vec![
            self.tool.to_owned(),
            count(self.clients),
            dead,
            format!("{} of {}", count(self.told), count(self.living)),
            short(self.half_ms),
            short(self.most_ms),
            short(self.last_ms),
            each(self.last_ms),
            each(if self.cpu_ms > 0.0 { self.cpu_ms } else { f64::NAN }),
            optional(self.prepared_ms),
            self.memory_kib.map_or_else(|| "–".to_owned(), |kib| (kib / 1024).to_string()),
            count(usize::try_from(self.dropped).unwrap_or(usize::MAX)),
        ]
    }
}
