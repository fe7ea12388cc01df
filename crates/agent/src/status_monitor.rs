//! The words of a status monitor to the agent, which owns the store: heirlock itself ([`Wanted`]), or rpc.statd by its callout
//! ([`Said`]).

use heirlock_core::monitor::Arrival;
use heirlock_nsm::{MonName, MyName};

/// A request of the monitor to the agent's loop, which owns the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Make these durable, and say whether that came about.
    Commit {
        /// which batch
        batch: u64,
        /// the clients
        arrivals: Vec<Arrival>,
    },
    /// Try the store, and say whether it works.
    Probe,
    /// Registrations of this client changed: its file in the status monitor's directory is to follow.
    Changed(MonName),
}

/// A message of rpc.statd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A client is monitored.
    Add {
        /// the client
        mon_name: MonName,
        /// the lock manager's own name; CTDB's order of arguments leaves it out
        my_name: Option<MyName>,
    },
    /// A client is not monitored any more.
    Del {
        /// the client
        mon_name: MonName,
    },
    /// A host says that it was restarted: name, source, number.
    Notified(Vec<String>),
}
