//! `bench churn`: a status monitor that has many clients, of whom some leave and others come in every second: how long the
//! new ones wait, how many are refused, and how long a known one waits; at the end after a kill of the agent as well.

use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Options;
use super::adopt::write_records;
use super::agent::{SERVICE, Server, Store};
use super::mon::{register, unregister};
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, percentile, short};
use super::site::{Running, Site, monitor_port, wait_for};

/// Clients that are registered all the time.
const CLIENTS: [usize; 1] = [200_000];

/// Clients that come in a second, and clients that leave.
const RATE: u32 = 50;

/// The longest wait that is promised (mon-timeout).
const MON_TIMEOUT_MS: f64 = 500.0;

/// The waits of one kind of client.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Waits {
    /// How many asked.
    pub asked: usize,
    /// How many were refused.
    pub refused: usize,
    /// Milliseconds that half of them waited for their answer, 99 of 100, and the last.
    pub half_ms: f64,
    /// See above.
    pub most_ms: f64,
    /// See above.
    pub longest_ms: f64,
}

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Clients that were registered all the time.
    pub clients: usize,
    /// For how many seconds.
    pub seconds: u64,
    /// Those that came.
    pub new: Waits,
    /// A client that was registered, and asked again in between.
    pub known: Waits,
    /// The same after the agent was killed and started again.
    pub known_after_kill: Waits,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or an agent does not become ready.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for clients in options.clients.clone().unwrap_or_else(|| CLIENTS.to_vec()) {
        let row = measure(options, clients)?;
        eprintln!("churn: {clients}: {:?}", row.new);
        rows.push(row);
    }
    Ok(Report {
        bench: "churn",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
        table: Table {
            head: vec!["clients", "who asks", "asked", "refused", "half, ms", "99 %, ms", "longest, ms"],
            rows: rows.iter().flat_map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "How long clients wait while others come and leave".to_owned(),
    })
}

/// The store and the status monitor's directory hold all clients, as after a restart of the agent.
fn measure(options: &Options, clients: usize) -> Result<Row> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "nsm")?;
    drop(server.start()?);
    write_records(&server.host.folder.join("nfs/sm"), clients)?;
    for service in [SERVICE, "host.nfs-a"] {
        write_records(&store.records(service).context("a service has no records")?, clients)?;
    }
    let agent = server.start()?;
    wait_for("an agent that knows all records", || server.knows(clients))?;
    let port = monitor_port()?;
    let (mut new, mut known) = (Tally::default(), Tally::default());
    let began = Instant::now();
    for turn in 0..u32::try_from(options.seconds)?.saturating_mul(RATE) {
        let due = Duration::from_secs(1) * turn / RATE;
        thread::sleep(due.saturating_sub(began.elapsed()));
        let turn = usize::try_from(turn)?;
        new.time(|| register(port, clients + turn, 1))?;
        known.time(|| register(port, clients - 1, 1))?;
        unregister(port, turn)?;
    }
    let known_after_kill = after_a_kill(&server, agent, clients - 1)?;
    let (new, known) = (new.waits(), known.waits());
    Ok(Row { clients, seconds: options.seconds, new, known, known_after_kill })
}

/// The first two seconds in which the agent answers again.
fn after_a_kill(server: &Server, agent: Running, client: usize) -> Result<Waits> {
    drop(agent);
    let _agent = server.begin()?;
    // rpcbind still knows the port of the agent that was killed.
    let mut port = 0;
    wait_for("a status monitor after the kill", || {
        port = monitor_port().unwrap_or(0);
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    })?;
    let (mut tally, began) = (Tally::default(), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        tally.time(|| register(port, client, 1))?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(tally.waits())
}

/// The requests so far.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    millis: Vec<f64>,
}

impl Tally {
    fn time(&mut self, ask: impl FnOnce() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        self.refused += usize::from(!ask()?);
        self.millis.push(began.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    fn waits(mut self) -> Waits {
        let [half_ms, most_ms, longest_ms] =
            [50, 99, 100].map(|percent| percentile(&mut self.millis, percent));
        Waits { asked: self.millis.len(), refused: self.refused, half_ms, most_ms, longest_ms }
    }
}

impl Row {
    fn cells(&self) -> Vec<Vec<String>> {
        let row = |who: &str, waits: &Waits| {
            let [half, most, longest] = [waits.half_ms, waits.most_ms, waits.longest_ms].map(short);
            vec![
                count(self.clients),
                who.to_owned(),
                count(waits.asked),
                count(waits.refused),
                half,
                most,
                longest,
            ]
        };
        vec![
            row("new", &self.new),
            row("known", &self.known),
            row("known, after a kill", &self.known_after_kill),
        ]
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let judged = rows.iter().find(|row| row.clients == CLIENTS[0]);
    let measured = judged.map_or_else(String::new, |row| {
        let Waits { asked, refused, longest_ms, .. } = &row.new;
        format!(
            "{} of {} refused in {} s, {} ms",
            count(*refused),
            count(*asked),
            row.seconds,
            short(*longest_ms)
        )
    });
    vec![Goal {
        goal: format!(
            "of {} clients no new one waits longer than mon-timeout, or is refused",
            count(CLIENTS[0])
        ),
        measured,
        met: judged.map(|row| row.new.refused == 0 && row.new.longest_ms <= MON_TIMEOUT_MS),
    }]
}

fn plot(rows: &[Row]) -> String {
    let points = |of: fn(&Row) -> f64| rows.iter().map(|row| (number(row.clients), of(row), true)).collect();
    let series = [
        Series { name: "new, longest".into(), colour: "#0a6", points: points(|row| row.new.longest_ms) },
        Series { name: "known, longest".into(), colour: "#06c", points: points(|row| row.known.longest_ms) },
    ];
    log_log("SM_MON while clients come and leave", "clients registered", "milliseconds", &series)
}
