//! Every decision of heirlock, as pure state machines.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time arrives as a [`Moment`], randomness as
//! a seed, and what happened in the world as an event. The requests of a machine come back in a [`Batch`]: first what must be
//! durable, then what may follow. So a whole failover is a pure function that the tests run a thousand times, and the
//! order "durable, then told" is a type instead of a comment.
//!
//! In reading order:
//!
//! | module | decides |
//! |---|---|
//! | [`names`] | what a service, a server and a generation are called |
//! | [`moment`] | what time is: monotonic, of one process |
//! | [`limits`] | every bound, in one place |
//! | [`records`] | what a record is: its key, its bytes, and what its kind means |
//! | [`ledger`] | what a scan of the status monitor's directory means for the store: records and tombstones |
//! | [`incarnation`] | whether the lock manager is still the one whose locks we know of |
//! | [`claim`] | who may act for a service |
//! | [`cluster`] | whether a cluster manager's configuration lets locks survive a failover |
//! | [`left_behind`] | which addresses have to leave, for another server has claimed their service |
//! | [`taken_away`] | which addresses have to come back, for a release took them away and did not come about |
//! | [`state_number`] | which state number was never sent before |
//! | [`store`] | what is asked of a store, and how it fails |
//! | [`store_identity`] | whether the store that is found is the one that is meant |
//! | [`grace`] | whether a notification may leave now |
//! | [`hang`] | whether a loop of this program hangs, or only gets no processor time |
//! | [`log_limit`] | which log lines may be written whose cause is a packet |
//! | [`liveness`] | whether a server is to be taken for dead |
//! | [`duty`] | what a server owes the clients of a service that it holds |
//! | [`lives`] | what follows from the lives of the lock manager: which run is to begin, and what it has to know |
//! | [`candidates`] | which server adopts a silent server's services without being asked |
//! | [`planned_move`] | whether a service may be asked to move to another server, and how far that is |
//! | [`history`] | what is told of a generation after the fact |
//! | [`takeover`] | the phases of an adoption, resumable after every step |
//! | [`monitor`] | what a status monitor answers, and when |
//! | [`notify`] | which datagram goes to which client when, and what its answer means |
//! | [`calling`] | where a client is called from this server, and why it is not |
//! | [`drill`] | what a drill shows of the next adoption: its verdict, and how long it would take |
//!
//! A machine is told what has happened, and says what is to be done. Here a server watches the heart of another one, and
//! what it may do follows from what it saw:
//!
//! ```
//! use std::time::Duration;
//!
//! use heirlock_core::liveness::{Beat, Hearts, may_adopt_unasked};
//! use heirlock_core::{Moment, ServerName};
//!
//! let primary = ServerName::parse("nfs-a")?;
//! let at = |seconds| Moment::at(Duration::from_secs(seconds));
//! let round = |count| [(&primary, Beat { agent: "its run", count, paused: false })];
//!
//! let mut hearts = Hearts::new(Duration::from_secs(5));
//! for second in 0..20 {
//!     hearts.saw(at(second), round(second));
//! }
//! assert!(!may_adopt_unasked(hearts.heart_of(&primary, at(20))));
//! for second in 20..30 {
//!     hearts.saw(at(second), round(19)); // nothing changes any more
//! }
//! assert!(may_adopt_unasked(hearts.heart_of(&primary, at(30))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod calling;
pub mod candidates;
pub mod claim;
pub mod cluster;
pub mod copying;
pub mod drill;
pub mod duty;
pub mod grace;
pub mod hang;
pub mod history;
pub mod history_check;
pub mod incarnation;
pub mod ledger;
pub mod left_behind;
pub mod limits;
pub mod liveness;
pub mod lives;
pub mod log_limit;
pub mod moment;
pub mod monitor;
pub mod names;
pub mod notify;
pub mod outcome;
pub mod own_addresses;
pub mod planned_move;
pub mod planted;
pub mod records;
pub mod share;
pub mod state_number;
pub mod store;
pub mod store_identity;
pub mod store_standing;
pub mod taken_away;
pub mod takeover;
pub mod wall_clock;

pub use moment::Moment;
pub use names::{Generation, LockManagerName, ServerName, ServiceName};
pub use outcome::Outcome;
pub use records::{Record, RecordKey, Records};

/// The changes and actions that a state machine asks for: all of `persist` must be durable before the first of `then` is
/// begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<P, A> {
    /// The changes that must reach stable storage first, in this order. A failure here cancels `then`.
    pub persist: Vec<P>,
    /// The actions that may follow, in this order.
    pub then: Vec<A>,
}

impl<P, A> Batch<P, A> {
    /// Nothing to do.
    #[must_use]
    pub fn nothing() -> Self {
        Self { persist: Vec::new(), then: Vec::new() }
    }

    /// Only actions, nothing to make durable first.
    #[must_use]
    pub fn only(action: A) -> Self {
        Self { persist: Vec::new(), then: vec![action] }
    }
}
