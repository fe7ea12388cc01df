//! `heirlock-sim`: runs seeds, and says how to replay the first that breaks a promise.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser;
use heirlock_sim::{Losses, Violation};

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
    /// Tells what happens when, of many seeds too.
    #[arg(long)]
    trace: bool,
    /// Goes on after a broken promise, and counts which invariants were broken.
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
    /// Threads, each with seeds of its own.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

/// What is to be broken.
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
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.seeds.clone().unwrap_or(0..1_000),
    };
    let began = Instant::now();
    let Ran { broken, count, losses } = run_all(&arguments, seeds);
    let took = began.elapsed().as_secs_f64();
    if arguments.survey {
        survey(&broken, count);
    }
    let first = broken.first();
    if let Some((seed, violation)) = first {
        println!(
            "seed {seed} breaks I{} at {:.3} s: {}\nreplay: cargo run --release -p heirlock-sim -- --seed {seed}",
            violation.invariant,
            std::time::Duration::from_millis(violation.at).as_secs_f64(),
            violation.what
        );
    }
    println!("{losses}");
    let out_of_bounds = losses.out_of_bounds(count);
    if arguments.bounds || arguments.expect == Some(Expected::Bounds) {
        out_of_bounds.iter().for_each(|what| println!("{what}"));
    }
    println!("{count} seeds in {took:.1} s");
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

/// Says how often each invariant was broken.
fn survey(broken: &[(u64, Violation)], count: u64) {
    let mut counts = std::collections::BTreeMap::<u8, (u64, u64)>::new();
    for (seed, violation) in broken {
        let entry = counts.entry(violation.invariant).or_insert((0, *seed));
        entry.0 += 1;
    }
    for (invariant, (times, first)) in counts {
        println!("I{invariant}: {times} of {count} seeds, the first is {first}");
    }
}

/// Whether the story is told, and not its end alone.
fn tells(arguments: &Arguments) -> bool {
    arguments.trace || arguments.seed.is_some()
}

/// What many seeds came to.
struct Ran {
    /// Those that break a promise, in order.
    broken: Vec<(u64, Violation)>,
    /// How many were run.
    count: u64,
    losses: Losses,
}

fn run_all(arguments: &Arguments, seeds: Range<u64>) -> Ran {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Vec::new(), Losses::default()));
    // Seeds after the first broken one need not be run.
    let end = AtomicU64::new(seeds.end);
    let threads = if tells(arguments) { 1 } else { arguments.threads.max(1) };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let story = heirlock_sim::run(seed, tells(arguments));
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.1.add(&story.losses);
                    let Some(violation) = story.violation else { continue };
                    if !arguments.survey {
                        end.fetch_min(seed, Ordering::Relaxed);
                    }
                    found.0.push((seed, violation));
                }
            });
        }
    });
    let (mut broken, losses) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_by_key(|(seed, _)| *seed);
    Ran { broken, count: next.into_inner().min(seeds.end) - seeds.start, losses }
}

#[cfg(feature = "plants")]
fn list_plants() {
    for bug in heirlock_core::planted::Bug::ALL {
        let broken = bug.breaks().map_or("bounds".to_owned(), |invariant| format!("I{invariant}"));
        println!("{} {broken}", bug.name());
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
