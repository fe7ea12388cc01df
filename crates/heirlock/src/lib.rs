//! The one library behind the `heirlock` program: everything that touches the world. Decisions live in
//! `heirlock-core`; the code here reads, writes, sends, starts and waits.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod accept;
#[cfg(test)]
mod agent;
mod alerts;
mod arp;
pub mod callout;
pub mod cli;
mod clock;
pub mod config;
mod control;
mod convey;
#[cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, reason = "a folder of its own under a random name, and no service")
)]
mod demo;
mod detector;
mod drill;
mod exports_syntax;
#[cfg(test)]
mod fake_programs;
mod files;
mod first_round;
mod from_elsewhere;
mod guard;
mod hooks;
mod host;
#[cfg(test)]
#[path = "../tests/left_out/mod.rs"]
mod left_out;
mod limits;
mod lock_manager;
mod log_queue;
mod monitor;
mod mounts;
#[cfg(test)]
#[path = "../tests/namespaces/mod.rs"]
mod namespaces;
mod notifier;
mod ocf;
mod pacemaker;
mod probe;
mod rpc_client;
mod store;
mod supervise;
mod survey;
mod this_server;
mod threads;
mod watchdog;

#[cfg(feature = "etcd")]
pub use store::bare_puts;

use heirlock_agent::words;
