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
    /// Succeeds only if this invariant is broken, and no other before it: shows that its checker fires.
    #[arg(long, value_name = "INVARIANT")]
    expect: Option<u8>,
    /// Plants this bug in the core first (built with the feature `plants`): its checker must fire.
    #[cfg(feature = "plants")]
    #[arg(long, value_parser = parse_bug)]
    plant: Option<heirlock_core::planted::Bug>,
    /// Fails if fewer than this many of 1,000 lost locks were made good: else excuses hide what is broken.
    #[arg(long, value_name = "PER-MILLE", default_value_t = 0)]
    made_good_min: u64,
    /// Threads, each with seeds of its own.
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "plants")]
    arguments.plant.into_iter().for_each(heirlock_core::planted::plant);
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.seeds.clone().unwrap_or(0..1_000),
    };
    let began = Instant::now();
    let Ran { broken, count, losses } = run_all(&arguments, seeds);
    let took = began.elapsed().as_secs_f64();
    if arguments.survey {
        let mut counts = std::collections::BTreeMap::<u8, (u64, u64)>::new();
        for (seed, violation) in &broken {
            let entry = counts.entry(violation.invariant).or_insert((0, *seed));
            entry.0 += 1;
        }
        for (invariant, (times, first)) in counts {
            println!("I{invariant}: {times} of {count} seeds, the first is {first}");
        }
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
    println!("{count} seeds in {took:.1} s");
    if losses.made_good_per_mille() < arguments.made_good_min {
        println!("expected at least {} of 1,000 lost locks to be made good", arguments.made_good_min);
        return ExitCode::FAILURE;
    }
    match (arguments.expect, first) {
        (None, None) => ExitCode::SUCCESS,
        (Some(expected), Some((_, violation))) if violation.invariant == expected => ExitCode::SUCCESS,
        (Some(expected), _) => {
            println!("expected I{expected} to be broken first");
            ExitCode::FAILURE
        }
        (None, Some(_)) => ExitCode::FAILURE,
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
                    found.1.add(story.losses);
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

/// Bugs by the names that the code has for them, spelled as options are.
#[cfg(feature = "plants")]
fn parse_bug(text: &str) -> Result<heirlock_core::planted::Bug, String> {
    use heirlock_core::planted::Bug;
    let bugs = [
        ("answer-first", Bug::AnswerFirst),
        ("believe-deletions", Bug::BelieveDeletions),
        ("claim-over-living", Bug::ClaimOverLiving),
        ("flood", Bug::Flood),
        ("forget-own", Bug::ForgetOwn),
        ("forget-redo", Bug::ForgetRedo),
        ("notify-after-grace", Bug::NotifyAfterGrace),
        ("reuse-number", Bug::ReuseNumber),
        ("silent-outcome", Bug::SilentOutcome),
        ("tell-peers", Bug::TellPeers),
        ("trust-hint", Bug::TrustHint),
        ("trust-names", Bug::TrustNames),
    ];
    let found = bugs.iter().find(|(name, _)| *name == text).map(|(_, bug)| *bug);
    found.ok_or_else(|| format!("expected one of {}, found {text:?}", bugs.map(|(name, _)| name).join(", ")))
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("expected A..B, found {text:?}");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let range = from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}
