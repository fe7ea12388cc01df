//! The one library behind the `heirlock` program: everything that touches the world. Decisions live in
//! `heirlock-core`; what is here reads, writes, sends, starts and waits.

mod agent;
mod arp;
pub mod callout;
pub mod cli;
pub mod config;
mod control;
mod demo;
mod detector;
mod exports_syntax;
mod files;
mod guard;
mod hooks;
mod limits;
mod lock_manager;
mod monitor;
mod mounts;
mod notifier;
mod probe;
mod rpc_client;
mod store;
mod supervise;
mod watchdog;
