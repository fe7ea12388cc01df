//! `bench idle`: how often an agent wakes while nothing happens, in each capture mode, by thread. A wake-up costs energy, and on a
//! virtual machine another's processor time. Counted are the voluntary context switches of each thread: it went to sleep, and was
//! woken. The lock manager is lockd of a kernel, played by a process that sleeps.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::adopt::write_records;
use super::agent::{SERVICE, Server, Store};
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, short};
use super::site::{Running, Site, wait_for};

/// Records of each of two services.
const RECORDS: [usize; 1] = [200];

/// How long an agent is left alone before its wake-ups are counted: the work of its start is over.
const SETTLED_AFTER: Duration = Duration::from_secs(20);

/// For how long they are counted.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Wake-ups in a second.
const GOAL: f64 = 3.0;

/// The ways in which an agent runs: its capture mode, and whether under `heirlock supervise`.
const CASES: [(&str, bool); 4] = [("watch", false), ("nsm", false), ("callout", false), ("nsm", true)];

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The capture mode.
    pub mode: &'static str,
    /// The agent runs under `heirlock supervise`.
    pub supervised: bool,
    /// Records of each of two services.
    pub records: usize,
    /// Wake-ups of the agent in a second.
    pub agent: f64,
    /// Those of its supervisor.
    pub supervisor: Option<f64>,
    /// Those of each thread of the agent, by its name.
    pub threads: BTreeMap<String, f64>,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or an agent does not become ready.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for records in options.clients.clone().unwrap_or_else(|| RECORDS.to_vec()) {
        for (mode, supervised) in CASES {
            let row = measure(options, records, mode, supervised)?;
            eprintln!("idle: {}: {:.2} wake-ups a second", row.name(), row.agent);
            rows.push(row);
        }
    }
    Ok(Report {
        bench: "idle",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
        table: Table {
            head: vec!["mode", "records", "wake-ups a second", "supervisor's", "by thread"],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "Wake-ups of an idle agent".to_owned(),
    })
}

fn measure(options: &Options, records: usize, mode: &'static str, supervised: bool) -> Result<Row> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let mut sleeping = Command::new("sleep");
    sleeping.arg("infinity");
    let lockd = Running::start(sleeping)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", mode)?.beside_lockd(lockd.id())?;
    drop(server.start()?);
    write_records(&server.host.folder.join("nfs/sm"), records)?;
    for service in [SERVICE, "host.nfs-a"] {
        write_records(&store.records(service).context("a service has no records")?, records)?;
    }
    let begun = if supervised { server.supervise()? } else { server.start()? };
    wait_for("an agent that knows all records", || server.knows(records))?;
    let (agent, supervisor) = match supervised {
        true => (child_of(begun.id())?, Some(begun.id())),
        false => (begun.id(), None),
    };
    thread::sleep(SETTLED_AFTER);
    let before = [Some(agent), supervisor].map(|process| process.map(switches).transpose());
    let began = Instant::now();
    thread::sleep(COUNTED_FOR);
    let after = [Some(agent), supervisor].map(|process| process.map(switches).transpose());
    let seconds = began.elapsed().as_secs_f64();
    let [agent_before, supervisor_before] = before;
    let [agent_after, supervisor_after] = after;
    let threads = since(&agent_before?.unwrap_or_default(), agent_after?.unwrap_or_default(), seconds);
    let supervisors = supervisor_before?.zip(supervisor_after?);
    let supervisor = supervisors.map(|(before, after)| since(&before, after, seconds).values().sum());
    Ok(Row { mode, supervised, records, agent: threads.values().sum(), supervisor, threads })
}

/// The only child of a process.
fn child_of(process: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    Ok(children.split_whitespace().next().context("the supervisor has no agent")?.parse()?)
}

/// The voluntary context switches of each thread since its start.
fn switches(process: u32) -> Result<BTreeMap<u32, (String, u64)>> {
    let mut switches = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        // A thread may end at any moment.
        let Some((thread, found)) = switches_of(&entry.path()) else { continue };
        switches.insert(thread, found);
    }
    Ok(switches)
}

fn switches_of(task: &Path) -> Option<(u32, (String, u64))> {
    let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
    let status = fs::read_to_string(task.join("status")).ok()?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    Some((task.file_name()?.to_str()?.parse().ok()?, (name, count.trim().parse().ok()?)))
}

/// Wake-ups in a second, by the name of the thread. Of a thread that lived in between alone nothing is known.
fn since(
    before: &BTreeMap<u32, (String, u64)>,
    after: BTreeMap<u32, (String, u64)>,
    seconds: f64,
) -> BTreeMap<String, f64> {
    let mut rates = BTreeMap::new();
    for (thread, (name, count)) in after {
        let earlier = before.get(&thread).map_or(0, |(_, count)| *count);
        let more = usize::try_from(count.saturating_sub(earlier)).unwrap_or(usize::MAX);
        *rates.entry(name).or_insert(0.0) += number(more) / seconds;
    }
    rates
}

impl Row {
    fn name(&self) -> String {
        let supervised = if self.supervised { ", supervised" } else { "" };
        format!("{}{supervised}", self.mode)
    }

    fn cells(&self) -> Vec<String> {
        let mut threads: Vec<(&String, f64)> =
            self.threads.iter().map(|(name, rate)| (name, *rate)).collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        let seen = threads.iter().filter(|(_, rate)| *rate >= 0.005);
        let by_thread: Vec<String> = seen.map(|(name, rate)| format!("{name} {}", short(*rate))).collect();
        vec![
            self.name(),
            count(self.records),
            short(self.agent),
            self.supervisor.map_or_else(|| "–".to_owned(), short),
            by_thread.join(", "),
        ]
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let alone = rows.iter().filter(|row| !row.supervised && row.records == RECORDS[0]);
    alone
        .map(|row| Goal {
            goal: format!("{}: no more than {} wake-ups a second", row.name(), short(GOAL)),
            measured: short(row.agent),
            met: Some(row.agent <= GOAL),
        })
        .collect()
}

fn plot(rows: &[Row]) -> String {
    let points = rows.iter().filter(|row| !row.supervised);
    let points = points.enumerate().map(|(at, row)| (number(at + 1), row.agent, true)).collect();
    let series = [Series { name: "wake-ups a second".into(), colour: "#0a6", points }];
    log_log("Wake-ups of an idle agent", "watch, nsm, callout", "a second", &series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_threads_of_one_name_together_and_a_new_thread_counts_from_its_start() {
        let of = |threads: &[(u32, &str, u64)]| -> BTreeMap<u32, (String, u64)> {
            threads.iter().map(|(thread, name, count)| (*thread, ((*name).to_owned(), *count))).collect()
        };
        let before = of(&[(1, "heirlock", 10), (2, "look", 4)]);
        let after = of(&[(1, "heirlock", 30), (2, "look", 5), (3, "look", 3)]);
        let rates = since(&before, after, 10.0);
        assert_eq!(
            rates.into_iter().collect::<Vec<_>>(),
            [("heirlock".to_owned(), 2.0), ("look".to_owned(), 0.4)]
        );
    }

    #[test]
    fn a_thread_that_sleeps_wakes_and_is_counted() {
        let own = std::process::id();
        let all = |found: &BTreeMap<u32, (String, u64)>| found.values().map(|(_, count)| count).sum::<u64>();
        let before = all(&switches(own).unwrap());
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(2));
        }
        assert!(all(&switches(own).unwrap()) >= before + 5);
    }
}
