//! `heirlock-sim`: lives through seeds and through histories that were kept, and says how to replay and how to keep the first
//! that breaks a promise.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser;
use heirlock_sim::{Capture, Losses, Schedule, Trace, Violation};

/// Simulates servers, agents and clients, and checks every promise of the design.
#[derive(Debug, Parser)]
#[command(name = "heirlock-sim")]
struct Arguments {
    /// Replays this seed, and tells what happens when.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs many seeds: A..B.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Replays histories that were written down.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["seed", "seeds"])]
    replay: Vec<PathBuf>,
    /// Writes the schedule of this seed on standard output, as --replay reads it, and does nothing else.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seed", "seeds", "replay"])]
    record: Option<u64>,
    /// Leaves out of the first schedule that breaks a promise what that does not need, and writes it on standard output, as
    /// --replay reads it, and nothing else.
    #[arg(long, conflicts_with_all = ["record", "trace", "survey", "expect"])]
    shrink: bool,
    /// Tells what happens when, of many seeds too.
    #[arg(long)]
    trace: bool,
    /// Goes on after a broken promise, and counts which invariants were broken. Counts losses also by how many lock managers a
    /// server has.
    #[arg(long)]
    survey: bool,
    /// Succeeds only if this invariant is broken, and no other before it: shows that its checker fires. `bounds`: only if no
    /// invariant is broken, and the losses are out of their bounds.
    #[arg(long, value_name = "INVARIANT|bounds", value_parser = parse_expected)]
    expect: Option<Expected>,
    /// Plants this bug in the core first (built with the feature `plants`): its checker must fire.
    #[cfg(feature = "plants")]
    #[arg(long, value_parser = parse_bug)]
    plant: Option<heirlock_core::planted::Bug>,
    /// Lists what can be planted, with what is to be expected of it.
    #[cfg(feature = "plants")]
    #[arg(long)]
    list_plants: bool,
    /// Fails if the losses are out of their bounds: too few were judged, or an excuse was taken too often.
    #[arg(long)]
    bounds: bool,
    /// The records of all lock managers are noticed in this mode (watch, callout, nsm), whatever the seed or the history says.
    #[arg(long, value_name = "MODE", value_parser = Capture::parse)]
    capture: Option<Capture>,
    /// Threads, each with seeds of its own.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

/// The promise that is to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Invariant(u8),
    Bounds,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "plants")]
    {
        if arguments.list_plants {
            list_plants();
            return ExitCode::SUCCESS;
        }
        arguments.plant.into_iter().for_each(heirlock_core::planted::plant);
    }
    let source = match Source::of(&arguments) {
        Ok(source) => source,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(seed) = arguments.record {
        print!("{}", in_mode(Schedule::draw(seed), arguments.capture));
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let Ran { broken, count, losses } = run_all(&arguments, &source);
    let took = began.elapsed().as_secs_f64();
    if arguments.shrink {
        return write_shrunk(&source, arguments.capture, broken.first());
    }
    if arguments.survey {
        survey(&source, &broken, count);
        losses.by_lock_managers().iter().for_each(|line| println!("{line}"));
    }
    let first = broken.first();
    if let Some((at, violation)) = first {
        println!(
            "{} breaks I{} at {:.3} s: {}\nreplay: cargo run --release -p heirlock-sim -- {}",
            source.name(*at),
            violation.invariant,
            std::time::Duration::from_millis(violation.at).as_secs_f64(),
            violation.what,
            source.replay(*at)
        );
    }
    println!("{losses}");
    let out_of_bounds = losses.out_of_bounds(count, arguments.capture);
    if arguments.bounds || arguments.expect == Some(Expected::Bounds) {
        out_of_bounds.iter().for_each(|what| println!("{what}"));
    }
    println!("{count} {} in {took:.1} s", source.kind());
    let is_well = match (arguments.expect, first) {
        (None, None) => !arguments.bounds || out_of_bounds.is_empty(),
        (None, Some(_)) => false,
        (Some(Expected::Invariant(expected)), first) => {
            first.is_some_and(|(_, violation)| violation.invariant == expected)
        }
        (Some(Expected::Bounds), first) => first.is_none() && !out_of_bounds.is_empty(),
    };
    if let Some(expected) = arguments.expect.filter(|_| !is_well) {
        println!("expected {expected:?} to be broken first");
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where schedules come from.
enum Source {
    Seeds(Range<u64>),
    Files(Vec<(PathBuf, Schedule)>),
}

impl Source {
    fn of(arguments: &Arguments) -> Result<Self, String> {
        if arguments.replay.is_empty() {
            let seeds = match arguments.seed {
                Some(seed) => seed..seed + 1,
                None => arguments.seeds.clone().unwrap_or(0..1_000),
            };
            return Ok(Source::Seeds(seeds));
        }
        let read = |path: &PathBuf| {
            let in_file = |why: String| format!("{}: {why}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
            Ok((path.clone(), Schedule::parse(&text).map_err(in_file)?))
        };
        Ok(Source::Files(arguments.replay.iter().map(read).collect::<Result<_, String>>()?))
    }

    /// The numbers of all that are to be lived through.
    fn numbers(&self) -> Range<u64> {
        match self {
            Source::Seeds(seeds) => seeds.clone(),
            Source::Files(files) => 0..u64::try_from(files.len()).unwrap_or(u64::MAX),
        }
    }

    fn schedule(&self, number: u64) -> Option<Schedule> {
        match self {
            Source::Seeds(_) => Some(Schedule::draw(number)),
            Source::Files(_) => Some(self.file(number)?.1.clone()),
        }
    }

    fn file(&self, number: u64) -> Option<&(PathBuf, Schedule)> {
        match self {
            Source::Seeds(_) => None,
            Source::Files(files) => files.get(usize::try_from(number).ok()?),
        }
    }

    fn path(&self, number: u64) -> &Path {
        self.file(number).map_or(Path::new(""), |(path, _)| path)
    }

    fn kind(&self) -> &'static str {
        match self {
            Source::Seeds(_) => "seeds",
            Source::Files(_) => "histories",
        }
    }

    fn name(&self, number: u64) -> String {
        match self {
            Source::Seeds(_) => format!("seed {number}"),
            Source::Files(_) => self.path(number).display().to_string(),
        }
    }

    /// How one is lived through again.
    fn replay(&self, number: u64) -> String {
        match self {
            Source::Seeds(_) => format!(
                "--seed {number}\nkeep:   the same with --shrink, into a file in crates/sim/histories"
            ),
            Source::Files(_) => format!("--trace --replay {}", self.path(number).display()),
        }
    }
}

/// The same, or with all servers in one mode.
fn in_mode(schedule: Schedule, capture: Option<Capture>) -> Schedule {
    match capture {
        Some(mode) => schedule.in_mode(mode),
        None => schedule,
    }
}

/// Writes what is needed to break the same promise.
fn write_shrunk(source: &Source, capture: Option<Capture>, first: Option<&(u64, Violation)>) -> ExitCode {
    let schedule = |number: u64| Some(in_mode(source.schedule(number)?, capture));
    let broken = first.and_then(|(number, violation)| Some((schedule(*number)?, violation)));
    let Some((schedule, Violation { invariant, .. })) = broken else {
        eprintln!("error: expected a schedule that breaks a promise, found none");
        return ExitCode::FAILURE;
    };
    let shrunk = heirlock_sim::shrink(&schedule, *invariant);
    if let Some(Violation { what, .. }) = heirlock_sim::run(&shrunk, Trace::Silent).violation {
        println!("# I{invariant}: {what}");
    }
    print!("{shrunk}");
    ExitCode::SUCCESS
}

/// Says how often each invariant was broken.
fn survey(source: &Source, broken: &[(u64, Violation)], count: u64) {
    let mut counts = std::collections::BTreeMap::<u8, (u64, u64)>::new();
    for (number, violation) in broken {
        let entry = counts.entry(violation.invariant).or_insert((0, *number));
        entry.0 += 1;
    }
    for (invariant, (times, first)) in counts {
        println!("I{invariant}: {times} of {count} {}, the first is {}", source.kind(), source.name(first));
    }
}

/// How the story is told.
fn trace(arguments: &Arguments) -> Trace {
    match !arguments.shrink && (arguments.trace || arguments.seed.is_some()) {
        true => Trace::Aloud,
        false => Trace::Silent,
    }
}

/// The results of many schedules.
struct Ran {
    /// Seeds that break a promise, in order.
    broken: Vec<(u64, Violation)>,
    /// How many were run.
    count: u64,
    losses: Losses,
}

fn run_all(arguments: &Arguments, source: &Source) -> Ran {
    let numbers = source.numbers();
    let next = AtomicU64::new(numbers.start);
    let found = Mutex::new((Vec::new(), Losses::default()));
    // Seeds after the first broken one need not be run.
    let end = AtomicU64::new(numbers.end);
    let trace = trace(arguments);
    let threads = if trace == Trace::Aloud { 1 } else { arguments.threads.max(1) };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some(schedule) = source.schedule(number) else { return };
                    let schedule = in_mode(schedule, arguments.capture);
                    let story = heirlock_sim::run(&schedule, trace);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.1.add(&story.losses);
                    let Some(violation) = story.violation else { continue };
                    if !arguments.survey {
                        end.fetch_min(number, Ordering::Relaxed);
                    }
                    found.0.push((number, violation));
                }
            });
        }
    });
    let (mut broken, losses) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_by_key(|(number, _)| *number);
    Ran { broken, count: next.into_inner().min(numbers.end) - numbers.start, losses }
}

#[cfg(feature = "plants")]
fn list_plants() {
    for bug in heirlock_core::planted::Bug::ALL {
        let broken = bug.breaks().map_or("bounds".to_owned(), |invariant| format!("I{invariant}"));
        let modes: Vec<&str> = modes_of(*bug).iter().map(|mode| mode.name()).collect();
        println!("{} {broken} {}", bug.name(), modes.join(" "));
    }
}

/// The modes in which a bug can do harm.
#[cfg(feature = "plants")]
fn modes_of(bug: heirlock_core::planted::Bug) -> &'static [Capture] {
    use heirlock_core::planted::Bug;
    match bug {
        // Elsewhere rpc.statd takes announcements in.
        Bug::AnswerFirst | Bug::WaitForStore | Bug::FreeAll => &[Capture::Nsm],
        Bug::CalloutFirst => &[Capture::Callout],
        Bug::RegisteredWithAnother => &[Capture::Callout, Capture::Nsm],
        // Elsewhere the commit that a registration waits for brings a client into the store, and no look.
        Bug::FirstPortion | Bug::DirectoryOfAnother => &[Capture::Watch],
        // Our own status monitor lets no client be forgotten that is registered.
        Bug::ForgetReturned | Bug::RetireAll => &[Capture::Watch, Capture::Callout],
        // Elsewhere the same shows first in a registered client that is not on record (I6), as with the bug above.
        Bug::ForgetUntold => &[Capture::Nsm],
        _ => &Capture::ALL,
    }
}

#[cfg(feature = "plants")]
fn parse_bug(text: &str) -> Result<heirlock_core::planted::Bug, String> {
    let all = heirlock_core::planted::Bug::ALL;
    let names: Vec<&str> = all.iter().map(|bug| bug.name()).collect();
    let found = all.iter().find(|bug| bug.name() == text).copied();
    found.ok_or_else(|| format!("expected one of {}, found {text:?}", names.join(", ")))
}

fn parse_expected(text: &str) -> Result<Expected, String> {
    match text.strip_prefix('I').unwrap_or(text).parse() {
        _ if text == "bounds" => Ok(Expected::Bounds),
        Ok(invariant) => Ok(Expected::Invariant(invariant)),
        Err(_) => Err(format!("expected an invariant (I1 to I11) or `bounds`, found {text:?}")),
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("expected A..B, found {text:?}");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}
