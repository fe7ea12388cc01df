//! `heirlock demo`: a failover on one machine, without root, packages or configuration.
//!
//! The two agents are real: this program, as processes, on a store in a temporary folder or in a real etcd. NFS servers and clients are
//! played, over the real protocols on loopback addresses and unprivileged ports:
//!
//! | file | plays |
//! |---|---|
//! | `servers.rs`, `monitor.rs` | rpcbind, NFS and the lock manager behind the service's address, and the status monitor's records |
//! | `client.rs`, `crowd.rs`, `endpoint.rs` | the clients: rpcbind, status monitor, and what they make of a notification |
//! | `rival.rs` | a program on another machine that wants a lock which a client holds |
//! | `stage.rs`, `sweeper.rs` | the folder, the configurations, the agents' processes, and their end |
//! | `etcd.rs` | an etcd of its own, where the store is to be in one |
//! | `story.rs` | what happens, in its order: without heirlock, and with it |
//! | `pages.rs` | the status page of each agent, where it is wanted |
//! | `report.rs`, `picture.rs` | what is shown of it, and whether all is well by the clients' own account |

use std::io;
use std::net::SocketAddr;
use std::path::Path;

mod client;
mod crowd;
mod endpoint;
mod etcd;
mod monitor;
mod pages;
mod picture;
mod report;
mod rival;
mod servers;
mod stage;
mod story;
mod sweeper;

pub(crate) use etcd::become_member;
pub(crate) use story::run;
pub(crate) use sweeper::sweep;

/// The options of a demo.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How many clients there are.
    pub(crate) clients: usize,
    /// How many of them are dead when they are to be told.
    pub(crate) unreachable: usize,
    /// Keep the folder.
    pub(crate) keep: bool,
    /// Serve the page of each agent.
    pub(crate) page: Option<Serve>,
    /// Where the agents keep their records.
    pub(crate) store: StoreKind,
}

/// Where the agents of a demo keep their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreKind {
    /// A folder
    Dir,
    /// An etcd of the demo's own, where the program is installed
    Etcd,
}

/// Serves the page of the agent behind a control socket as long as the program runs, and says where.
pub(crate) type Serve = fn(&Path) -> io::Result<SocketAddr>;
