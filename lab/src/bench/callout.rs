//! `bench callout`: the time that heirlock's callout adds to rpc.statd's answer, beside a bare `/bin/true` and beside the
//! time that the agent alone takes to make a client durable.
//!
//! rpc.statd waits for its callout, and lockd for rpc.statd: each client's first lock waits for a process and a commit.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Options;
use super::agent::{SERVICE, Server, Store};
use super::clients::address;
use super::mon::register;
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, percentile, short};
use super::site::Site;

/// Clients, one after the other: few enough that rpc.statd's own list costs little.
const CLIENTS: [usize; 2] = [30, 100];

/// Clients at which the goal is judged.
const JUDGED_AT: usize = 100;

/// The least that a callout can be.
const NOTHING: &str = "/bin/true";

/// heirlock's callout, built beside heirlock.
const PROGRAM: &str = "heirlock-callout";

/// The agent's answer to a client that is durable.
const DURABLE: &[u8] = b"durable\n";

/// Longer than the callout would wait: a slower answer is measured, not cut off.
const PATIENCE: Duration = Duration::from_secs(30);

/// A round takes a second or two, and a second's noise is as large as what is looked for: so many for each repetition.
const SHORT: usize = 3;

/// The way by which a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The agent, asked over its socket by a process that is there already: the commit.
    Agent,
    /// rpc.statd alone.
    Statd,
    /// rpc.statd, which runs `/bin/true`.
    True,
    /// rpc.statd, which runs heirlock's callout.
    Heirlock,
}

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The way that was waited for.
    pub way: Way,
    /// Clients, one after the other.
    pub clients: usize,
    /// Microseconds for half of the answers, and for 99 of 100.
    pub half_us: f64,
    /// See above.
    pub most_us: f64,
    /// Milliseconds for all.
    pub total_ms: f64,
}

/// Every way, in the order of [`Way::ALL`].
type Round = [Row; Way::ALL.len()];

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or a client does not become durable.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let (mut rows, mut judged) = (Vec::new(), Vec::new());
    for clients in options.clients.clone().unwrap_or_else(|| CLIENTS.to_vec()) {
        let rounds = (0..options.repeat.max(1) * SHORT).map(|_| round(options, clients));
        let rounds: Vec<Round> = rounds.collect::<Result<_>>()?;
        rows.extend((0..Way::ALL.len()).map(|case| median(&rounds, case)));
        if clients == JUDGED_AT {
            judged = rounds;
        }
    }
    Ok(Report {
        bench: "callout",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: vec![goal(&judged)],
        table: Table {
            head: vec!["answered by", "clients", "half, µs", "99 %, µs", "total, ms"],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "Until rpc.statd answers, with a callout".to_owned(),
    })
}

/// Each way once, on fresh folders.
fn round(options: &Options, clients: usize) -> Result<Round> {
    Ok([
        agent(options, clients)?,
        statd(Way::Statd, None, clients)?,
        statd(Way::True, Some(NOTHING), clients)?,
        heirlock(options, clients)?,
    ])
}

fn median(rounds: &[Round], case: usize) -> Row {
    let mut tries: Vec<&Row> = rounds.iter().map(|round| &round[case]).collect();
    tries.sort_by(|a, b| a.half_us.total_cmp(&b.half_us));
    tries[tries.len() / 2].clone()
}

fn row(way: Way, mut micros: Vec<f64>) -> Row {
    let row = Row {
        way,
        clients: micros.len(),
        total_ms: micros.iter().sum::<f64>() / 1e3,
        half_us: percentile(&mut micros, 50),
        most_us: percentile(&mut micros, 99),
    };
    eprintln!("callout: {}, {} clients: half after {:.0} µs", way.words(), row.clients, row.half_us);
    row
}

/// The callout's message, without a process that sends it.
fn agent(options: &Options, clients: usize) -> Result<Row> {
    let site = Site::new()?;
    let server = Server::new(&site, &Store::new(&site)?, &options.heirlock, "nfs-a", "callout")?;
    let _agent = server.start()?;
    let socket = server.host.folder.join("run/callout.sock");
    let micros = (0..clients).map(|index| said(&socket, index)).collect::<Result<_>>()?;
    Ok(row(Way::Agent, micros))
}

/// Microseconds until the agent calls a client durable.
fn said(socket: &Path, index: usize) -> Result<f64> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).context("the agent does not listen to callouts")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("add-client\0{}\0nfs-a", address(index)).as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer == DURABLE, "expected \"durable\", found {:?}", String::from_utf8_lossy(&answer));
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

fn statd(way: Way, callout: Option<&str>, clients: usize) -> Result<Row> {
    let site = Site::new()?;
    let (_statd, port) = site.host("nfs-a")?.statd(callout.map(Path::new))?;
    Ok(row(way, (0..clients).map(|index| answered(port, index)).collect::<Result<_>>()?))
}

fn heirlock(options: &Options, clients: usize) -> Result<Row> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "callout")?;
    let _agent = server.start()?;
    let (_statd, port) = server.host.statd(Some(&installed(options, &server)?))?;
    let kept = store.records(SERVICE).context("the service has no records")?;
    let mut micros = Vec::with_capacity(clients);
    for index in 0..clients {
        micros.push(answered(port, index)?);
        // A callout that gave up would have been quick.
        let record = kept.join(address(index).to_string());
        ensure!(record.exists(), "rpc.statd answered before there was {}", record.display());
    }
    Ok(row(Way::Heirlock, micros))
}

/// Microseconds until rpc.statd monitors a client.
fn answered(port: u16, index: usize) -> Result<f64> {
    let began = Instant::now();
    ensure!(register(port, index, 1)?, "rpc.statd refused {}", address(index));
    Ok(began.elapsed().as_secs_f64() * 1e6)
}

/// Where rpc.statd's user reaches it.
fn installed(options: &Options, server: &Server) -> Result<PathBuf> {
    let built = options.heirlock.with_file_name(PROGRAM);
    let here = server.host.folder.join(PROGRAM);
    fs::copy(&built, &here).with_context(|| format!("can't copy {}", built.display()))?;
    Ok(here)
}

impl Way {
    const ALL: [Self; 4] = [Self::Agent, Self::Statd, Self::True, Self::Heirlock];

    fn words(self) -> &'static str {
        match self {
            Self::Agent => "heirlock's agent alone",
            Self::Statd => "rpc.statd",
            Self::True => "rpc.statd, /bin/true",
            Self::Heirlock => "rpc.statd, heirlock-callout",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Agent => "#888",
            Self::Statd => "#c30",
            Self::True => "#e90",
            Self::Heirlock => "#0a6",
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let [half, most, total] = [self.half_us, self.most_us, self.total_ms].map(short);
        vec![self.way.words().to_owned(), count(self.clients), half, most, total]
    }
}

/// In half of the rounds, half of the answers come no later with heirlock's callout than with `/bin/true` and the commit on
/// top. Each round is judged by itself, for the machine's pace changes between them.
fn goal(rounds: &[Round]) -> Goal {
    let more = |[commit, _, nothing, ours]: &Round| ours.half_us - nothing.half_us - commit.half_us;
    let mut more: Vec<f64> = rounds.iter().map(more).collect();
    let [least, half, most] = [0, 50, 100].map(|percent| percentile(&mut more, percent));
    let measured = !more.is_empty();
    Goal {
        goal: "heirlock-callout adds no more than /bin/true does and the commit".to_owned(),
        measured: if measured {
            let (least, half, most) = (short(least), short(half), short(most));
            format!("{half} µs more in half of {} rounds ({least} to {most})", rounds.len())
        } else {
            String::new()
        },
        met: measured.then_some(half <= 0.0),
    }
}

fn plot(rows: &[Row]) -> String {
    let series = Way::ALL.map(|way| {
        let rows = rows.iter().filter(|row| row.way == way);
        let points = rows.map(|row| (number(row.clients), row.half_us, true)).collect();
        // Beside its line there is room for what differs.
        let name = way.words().trim_start_matches("rpc.statd, ");
        Series { name: name.to_owned(), colour: way.colour(), points }
    });
    log_log("Until half of the clients are answered", "clients, one after the other", "microseconds", &series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_judged_by_a_bare_callout_and_the_commit() {
        let row =
            |way, half_us| Row { way, clients: JUDGED_AT, half_us, most_us: half_us, total_ms: half_us };
        let round = |ours| {
            [row(Way::Agent, 800.0), row(Way::Statd, 1.0), row(Way::True, 2_000.0), row(Way::Heirlock, ours)]
        };
        let found = goal(&[round(2_700.0), round(9_000.0), round(2_800.0)]);
        assert_eq!(found.met, Some(true));
        assert_eq!(found.measured, "0.00 µs more in half of 3 rounds (-100 to 6,200)");
        assert_eq!(goal(&[round(2_801.0)]).met, Some(false));
        assert_eq!(goal(&[]).met, None);
    }
}
