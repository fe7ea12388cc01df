//! `bench notify`: how long until every living client was told, by heirlock, by Debian's sm-notify, and by a bare loop that
//! sends the same messages.
//!
//! All run in one private network namespace against the same simulated clients. Time counts from the start of the program
//! to the moment at which the client had been told under both names, as the client saw it.

mod bare;
mod clients;
mod programs;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::plot::{Series, log_log};
use super::{Machine, table};
use crate::network::{enter_new_namespace, ip};
use programs::{Case, Tool};

/// The service's address, and the name that stands for it.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 1);
const NAMES: [&str; 2] = ["nfs.example.test", "nfs"];

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// How often heirlock and the bare loop run; the median counts.
    pub repeat: usize,
    /// How long sm-notify may take.
    pub patience: Duration,
    /// The heirlock program.
    pub heirlock: PathBuf,
}

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

/// All rows, and where they come from.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The bench.
    pub bench: &'static str,
    /// The machine.
    pub machine: Machine,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Measures.
///
/// # Errors
/// When namespaces or sockets can't be had, or a program can't be started.
pub fn run(options: &Options, mut said: impl FnMut(&Row)) -> Result<Report> {
    let machine = Machine::this();
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
        said(&row);
        rows.push(row);
    }
    Ok(Report { bench: "notify", machine, rows })
}

fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    let living = |tool, clients| Case { tool, clients, dead_percent: 0, unresolvable: 0 };
    for clients in &options.clients {
        cases.extend([Tool::Bare, Tool::Heirlock, Tool::SmNotify].map(|tool| living(tool, *clients)));
    }
    let middle = options.clients.iter().copied().filter(|c| *c <= 10_000).max().unwrap_or(1_000);
    for dead_percent in [10, 50] {
        for (tool, clients) in [
            (Tool::Heirlock, middle),
            (Tool::Heirlock, options.clients.iter().copied().max().unwrap_or(middle)),
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

impl Report {
    /// As a table.
    #[must_use]
    pub fn text(&self) -> String {
        let head = [
            "tool",
            "clients",
            "dead",
            "told",
            "half ms",
            "99 % ms",
            "last ms",
            "µs a client",
            "CPU µs a client",
            "prepared ms",
            "memory MiB",
            "drops",
        ];
        let rows: Vec<Vec<String>> = self.rows.iter().map(Row::cells).collect();
        let machine = &self.machine;
        format!(
            "Linux {}, {}, load {} at the start\n\n{}",
            machine.kernel,
            machine.processors,
            machine.load,
            table(&head, &rows)
        )
    }

    /// As a plot of the cases in which all live.
    #[must_use]
    pub fn plot(&self) -> String {
        let colours = [("bare", "#888"), ("heirlock", "#0a6"), ("sm-notify", "#c30")];
        let series = colours.map(|(tool, colour)| {
            let rows = self
                .rows
                .iter()
                .filter(|r| r.tool == tool && r.dead_percent == 0 && r.unresolvable == 0 && r.told > 0);
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
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let dead = match self.unresolvable {
            0 => format!("{} %", self.dead_percent),
            names => format!("{names} names"),
        };
        let optional = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        vec![
            self.tool.to_owned(),
            self.clients.to_string(),
            dead,
            format!("{} of {}", self.told, self.living),
            format!("{:.1}", self.half_ms),
            format!("{:.1}", self.most_ms),
            format!("{:.1}", self.last_ms),
            format!("{:.1}", self.last_ms * 1_000.0 / number(self.told.max(1))),
            format!("{:.1}", self.cpu_ms * 1_000.0 / number(self.told.max(1))),
            optional(self.prepared_ms.map(|ms| format!("{ms:.0}"))),
            optional(self.memory_kib.map(|kib| format!("{}", kib / 1024))),
            self.dropped.to_string(),
        ]
    }
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
