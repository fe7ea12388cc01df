//! `bench capture`: how long from a record's appearance in rpc.statd's directory until it is durable in the store, when
//! heirlock watches; beside the syncs of one file after the other, and a copy every five seconds.
//!
//! The bench sees from outside that a record is durable: a commit ends by syncing the folder, and inotify tells when that
//! folder is closed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::agent::{SERVICE, Server, Store};
use super::clients::{address, record};
use super::mon::syncs;
use super::plot::{Series, log_log};
use super::report::{Goal, Machine, Report, Table, count, number, percentile, short};
use super::site::{Running, Site};
use super::{Options, ground};

/// Records that appear at once, and how often.
const BURSTS: [(usize, usize); 4] = [(1, 100), (10, 20), (1_000, 1), (10_000, 1)];

/// The syncs of more, one after the other, would take a minute and say nothing new.
const BARE_MAX: usize = 1_000;

/// How often other products look: HP's Serviceguard copies every 5 s, Veritas every 2.
const POLL: Duration = Duration::from_secs(5);

/// How long a burst may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One measured case.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The tool that makes records durable.
    pub tool: &'static str,
    /// Records that appear at once.
    pub burst: usize,
    /// How many bursts.
    pub rounds: usize,
    /// Milliseconds until half of all records, 99 of 100, and the last of a burst were durable.
    pub half_ms: f64,
    /// See above.
    pub most_ms: f64,
    /// See above.
    pub last_ms: f64,
}

/// Measures.
///
/// # Errors
/// When namespaces can't be had, or a record does not become durable.
pub fn run(options: &Options) -> Result<Report> {
    let (machine, began) = (Machine::this(), Instant::now());
    let mut rows = Vec::new();
    for (burst, rounds) in BURSTS {
        if burst <= BARE_MAX {
            rows.push(bare(burst, rounds)?);
        }
        rows.push(heirlock(options, burst, rounds)?);
    }
    rows.push(copied()?);
    Ok(Report {
        bench: "capture",
        machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
        goals: goals(&rows),
        table: Table {
            head: vec!["made durable by", "at once", "rounds", "half, ms", "99 %, ms", "last, ms"],
            rows: rows.iter().map(Row::cells).collect(),
        },
        plot: plot(&rows),
        caption: "From a record's appearance until it is durable".to_owned(),
    })
}

fn row(tool: &'static str, burst: usize, rounds: usize, mut millis: Vec<f64>) -> Row {
    let [half_ms, most_ms, last_ms] = [50, 99, 100].map(|percent| percentile(&mut millis, percent));
    eprintln!("capture: {tool}, {burst} at once: half after {half_ms:.2} ms, the last after {last_ms:.1} ms");
    Row { tool, burst, rounds, half_ms, most_ms, last_ms }
}

/// The records of a burst one after the other: the last waits for all before it.
fn bare(burst: usize, rounds: usize) -> Result<Row> {
    let mut millis = Vec::new();
    for _ in 0..rounds {
        let folder = ground::folder()?;
        let mut so_far = 0.0;
        for micros in syncs(&folder.join("sm"), burst, 1)?.micros {
            so_far += micros / 1e3;
            millis.push(so_far);
        }
    }
    Ok(row("bare syncs", burst, rounds, millis))
}

fn heirlock(options: &Options, burst: usize, rounds: usize) -> Result<Row> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "watch")?;
    let _agent = server.start()?;
    let kept = store.records(SERVICE).context("the service has no records")?;
    let sm = server.host.folder.join("nfs/sm");
    let watch = Watch::on(&kept)?;
    let mut millis = Vec::new();
    for round in 0..rounds {
        let mut appeared = HashMap::new();
        for index in round * burst..(round + 1) * burst {
            let name = address(index).to_string();
            fs::write(sm.join(&name), record(&name))?;
            appeared.insert(name, Instant::now());
        }
        millis.extend(watch.durable(appeared)?);
    }
    Ok(row("heirlock", burst, rounds, millis))
}

/// As cluster managers do it; the records appear evenly between two copies.
fn copied() -> Result<Row> {
    let folder = ground::folder()?;
    let (sm, kept) = (folder.join("sm"), folder.join("kept"));
    fs::create_dir(&sm)?;
    fs::create_dir(&kept)?;
    let script = format!(
        "while sleep {}; do cp -pu \"$0\"/sm/* \"$0\"/kept/ && sync \"$0\"/kept/* \"$0\"/kept; done",
        POLL.as_secs()
    );
    let mut copy = Command::new("setpriv");
    copy.args(["--pdeathsig", "KILL", "sh", "-c", &script]).arg(&folder);
    let watch = Watch::on(&kept)?;
    let _copy = Running::start(copy)?;
    let (burst, began) = (1_000_u32, Instant::now());
    let mut appeared = HashMap::new();
    for index in 0..burst {
        thread::sleep((began + POLL * index / burst).saturating_duration_since(Instant::now()));
        let name = address(usize::try_from(index)?).to_string();
        fs::write(sm.join(&name), record(&name))?;
        appeared.insert(name, Instant::now());
    }
    Ok(row("a copy every 5 s", 1, usize::try_from(burst)?, watch.durable(appeared)?))
}

/// Sees names appear in a folder, and the folder being synced.
struct Watch(rustix::fd::OwnedFd);

impl Watch {
    fn on(folder: &Path) -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted =
            WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::CLOSE_NOWRITE | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, folder, wanted)?;
        // A queue that is too short would lose names.
        let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?;
        ensure!(queue.trim().parse::<usize>()? >= 16_384, "the queue of inotify is too short: {queue}");
        drop(File::open(folder)?);
        let watch = Self(fd);
        watch.events()?;
        Ok(watch)
    }

    /// Milliseconds from the appearance of each of these until the folder that it lies in was synced.
    fn durable(&self, mut appeared: HashMap<String, Instant>) -> Result<Vec<f64>> {
        let (mut millis, mut there) = (Vec::with_capacity(appeared.len()), Vec::new());
        let until = Instant::now() + PATIENCE;
        while !appeared.is_empty() || !there.is_empty() {
            ensure!(
                Instant::now() < until,
                "{} records did not become durable",
                appeared.len() + there.len()
            );
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))?;
            let now = Instant::now();
            for (name, closed) in self.events()? {
                match name {
                    Some(name) => there.extend(appeared.remove(&name)),
                    None if closed => {
                        let durable = there.drain(..).map(|at: Instant| now.duration_since(at));
                        millis.extend(durable.map(|time| time.as_secs_f64() * 1e3));
                    }
                    None => {}
                }
            }
        }
        Ok(millis)
    }

    /// Names that appeared, and where the folder itself was closed.
    fn events(&self) -> Result<Vec<(Option<String>, bool)>> {
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    ensure!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "events were lost");
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                    events.push((name, event.events().contains(ReadFlags::CLOSE_NOWRITE)));
                }
                Err(Errno::AGAIN) => return Ok(events),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let [half, most, last] = [self.half_ms, self.most_ms, self.last_ms].map(short);
        vec![self.tool.to_owned(), count(self.burst), count(self.rounds), half, most, last]
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let half =
        |tool: &str, burst| rows.iter().find(|r| r.tool == tool && r.burst == burst).map(|r| r.half_ms);
    BURSTS
        .into_iter()
        .filter(|(burst, _)| *burst <= BARE_MAX)
        .map(|(burst, _)| {
            let found = half("heirlock", burst).zip(half("bare syncs", burst));
            Goal {
                goal: format!("{} at once: half of them within 1.5 times of the bare syncs", count(burst)),
                measured: found.map_or_else(String::new, |(ours, bare)| {
                    format!("{} ms against {} ms: {} times", short(ours), short(bare), short(ours / bare))
                }),
                met: found.map(|(ours, bare)| ours / bare <= 1.5),
            }
        })
        .collect()
}

fn plot(rows: &[Row]) -> String {
    let colours = [("bare syncs", "#888"), ("heirlock", "#0a6"), ("a copy every 5 s", "#c30")];
    let series = colours.map(|(tool, colour)| {
        let points =
            rows.iter().filter(|r| r.tool == tool).map(|r| (number(r.burst), r.half_ms, true)).collect();
        Series { name: tool.to_owned(), colour, points }
    });
    log_log(
        "Until half of the records of a burst are durable",
        "records that appear at once",
        "milliseconds",
        &series,
    )
}
