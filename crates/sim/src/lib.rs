//! A deterministic simulator of several servers, their agents and their clients: the product's agent, in a world that fails.
//!
//! One [`Schedule`] decides everything: the servers, services and clients, which faults there are, and when each happens. A seed
//! is a schedule, and one that is kept is a file ([`Schedule::parse`]). All draws during a run are made from streams that do not
//! depend on each other. There is one queue of happenings, and no time but the queue's. Incidents go on for 110 s; then
//! everything is repaired and must come to rest; then one server fails once more, so that locks which were lost in silence show;
//! and all must come to rest again.
//!
//! # Faults
//! - **Any step may be the last.** An agent, or its whole server, dies at any call that it makes: before, in and after each
//!   call of the store, each line that is placed, each note, each piece of work that it begins.
//! - **The store** fails a call, and then all, some or none of its changes are there (a claim and the begin of a
//!   generation are there or not). The answer of a call is lost though all of it was done. A call is late: the agent is told that
//!   it takes too long, and it is done afterwards; until then all its other calls fail, or the next one finds it done. Heartbeats
//!   are late by themselves. The store is slow, away for all servers, or cut off from one server.
//! - **An agent** is stopped (SIGSTOP) for up to 30 s. Its heart falls silent; messages and datagrams wait for it; then it goes on
//!   with its old knowledge. All agents are stopped at once, and go on one after the other.
//! - **Datagrams** are lost, doubled, late, overtaken by others, and cut short; a client is away for up to 30 s.
//! - **Clients are restarted**, and so lose what they had. The new boot says so at the addresses of all services that it had mounted,
//!   until it is answered or gives up: under several names, under one that others have as well, from another address. A quarter of
//!   them lock before they were heard. Strangers say the same, with names that mean harm.
//! - **Hints** of the status monitor's directory are lost and doubled. Its files are seen half written, and are moved to
//!   `sm.bak`. Some have texts in them that mean harm.
//! - **Lock managers** are stopped and started, or killed in place, by others than the agent. An orderly stop unmonitors
//!   clients: those without a lock on kernel 6.1, all of them on 6.12. A SIGKILL takes effect at the next request.
//! - **Work hangs** with a program, a disk or a thread: the look at an adoption's needs, the lock manager's recognition, its proof,
//!   addresses, the conveyor, the notifier, a fence until its time limit ends it, and work for no run. It goes on at last, when its
//!   run may be over long since.
//! - **Looks hang** for up to a minute, or until everything is repaired: at the status monitor's directory, before or after it was
//!   read, and for the addresses of names, which may never be answered for. Late answers come when their askers have moved on.
//! - **Wall clocks** differ by weeks, and jump.
//! - **An operator** moves services without need, asks for those whose owner lives, and insists on it; asks a home to bring its
//!   service back; and maintains servers for a while. Words are said twice.
//! - **The cluster manager** lets two servers adopt at the same moment, each told that the owner is fenced. Where it decides, it
//!   says `--prepare`, moves the address, says `--finish`, and repeats what is not answered. A fence may fail.
//!
//! # Lock managers
//! In a third of all seeds servers have two or three lock managers, each with its own status monitor, directory, lives, grace, capture
//! mode and services; the first one serves what its server serves under its own name, and has the filer that it mounts from. Which lock
//! manager serves a service differs from server to server. All of them share their server's agent, its boot, its clock and its way to
//! the store. They are restarted and killed each by itself, and work for one of them hangs by itself. What fails at one of them excuses
//! no loss at another.
//!
//! # Capture modes
//! Each lock manager has one of the three. In `watch` nothing is promised. In `callout` and `nsm` the lock manager waits in its only thread
//! for the status monitor, which waits for the agent: for rpc.statd's callout, which gives up after its time limit and leaves a note,
//! or for heirlock's own machine, which dies with the agent's process and is gone on with by the next one from what lies under /run.
//! There a lock whose holder was said to be on record must be so (I1).
//!
//! # Losses that can't be helped
//! Checkers excuse a loss only where no agent could know of it, or where it was told: a lock of a client that was not on record
//! yet; lockd killed in place while grace is open anyway, or while no agent looks; a second failure before the recovery from the
//! first has told a client; a client that was away. Each is an [`Excuse`], and each may be taken so often at the most. See
//! `check` for each invariant.
//!
//! # Limits of the model
//! It has no disks that lose synced changes, no servers that lie, never more than one agent under one name, and no faults of
//! kernels. An agent is stopped between two turns of its loop, and not between the look at grace and the datagrams that follow
//! it. No stranger announces itself by the name or the address of a client: every status monitor believes that, and frees the
//! client's locks. A look at a lock manager, and one that the loop makes itself, never hang. The store's promises are tested where the store is; sockets and files where they are used; real
//! kernels in the lab.

mod announcing;
mod asking;
mod callout;
mod calls;
mod chance;
mod check;
mod client;
mod cluster;
mod conveying;
mod excuse;
mod hanging;
mod happening;
mod incidents;
mod lock_manager;
mod log;
mod losses;
mod meetings;
mod outside;
mod process;
mod queue;
mod schedule;
mod server;
mod service;
mod settings;
mod status_monitor;
mod store;
mod teller;
mod telling;
mod traffic;
mod work;
mod world;

pub use check::Violation;
pub use excuse::{Excuse, Losses};
pub use schedule::{Capture, Schedule, shrink};
pub use teller::Trace;

use std::mem;
use std::sync::Arc;

use log::Log;
use process::{Simulation, entered};
use schedule::INCIDENTS_END;
use teller::Teller;
use world::World;

/// Milliseconds since the world began.
pub(crate) type Ms = u64;

/// How long all servers and clients get to settle, and once more as long where an adoption is on at its end. A service that comes
/// home late, from a server that has just adopted it, is adopted twice in that time.
const SETTLE: Ms = 75_000;

/// How often it is looked whether they have settled, once the first of these times is over.
const SETTLED_LOOK: Ms = 5_000;

/// The result of a schedule.
#[derive(Debug)]
pub struct Story {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// The fate of lost locks until then.
    pub losses: Losses,
    /// The happenings, with their times, where they were to be kept.
    pub told: Vec<String>,
}

/// Lives through one schedule.
#[must_use]
pub fn run(schedule: &Schedule, trace: Trace) -> Story {
    let teller = Teller::new(trace);
    let simulation = Simulation::new(World::new(schedule, teller));
    match trace {
        Trace::Silent => live(&simulation),
        Trace::Aloud | Trace::Kept => {
            tracing::subscriber::with_default(Log(Arc::clone(&simulation.world)), || live(&simulation));
        }
    }
    simulation.end(|world| Story {
        violation: world.checks.violation.take(),
        losses: mem::take(&mut world.checks.losses),
        told: world.teller.told(),
    })
}

fn live(simulation: &Simulation) {
    let world = || entered(&simulation.world);
    simulation.run_until(INCIDENTS_END);
    world().repair();
    let settled = settle(simulation, INCIDENTS_END);
    world().check_all();
    if world().checks.violation.is_none() {
        world().fail_over_once_more();
        settle(simulation, settled);
        world().check_all();
    }
}

/// All that was begun by `from` comes to its end, or time is up. Answers when.
fn settle(simulation: &Simulation, from: Ms) -> Ms {
    let mut until = from + SETTLE;
    simulation.run_until(until);
    while until < from + 2 * SETTLE && !entered(&simulation.world).is_at_rest() {
        until += SETTLED_LOOK;
        simulation.run_until(until);
    }
    until
}
