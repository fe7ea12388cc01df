//! A deterministic simulator of several servers, their agents and their clients: `heirlock-core`'s machines, driven as
//! the agent drives them, in a world that fails.
//!
//! TODO
#![allow(dead_code)]

mod agent;
mod check;
mod client;
mod cluster;
mod faults;
mod outside;
mod server;
mod store;
mod world;

pub use check::Violation;

use faults::FAULTS_END;
use world::World;

/// Milliseconds since the world began.
pub(crate) type Ms = u64;

/// What came of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// The longest time between a registration and its being durable, in milliseconds.
    pub window_ms: u64,
}

/// How long everybody gets to settle.
const SETTLE: Ms = 75_000;

/// Lives through one seed.
#[must_use]
pub fn run(seed: u64, trace: bool) -> Verdict {
    let mut world = World::new(seed, trace);
    world.run_until(FAULTS_END);
    world.repair();
    world.run_until(FAULTS_END + SETTLE);
    if world.checks.violation.is_none() {
        world.check_rest();
        world.check_losses();
    }
    if world.checks.violation.is_none() {
        world.fail_over_once_more();
        world.run_until(FAULTS_END + 2 * SETTLE);
    }
    if world.checks.violation.is_none() {
        world.check_rest();
        world.check_losses();
    }
    Verdict { violation: world.checks.violation.clone(), window_ms: world.checks.window_ms_max }
}
