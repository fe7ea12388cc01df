//! What is known of the status monitor that heirlock is, and of its directory.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::{Generation, Moment, RecordKey, ServiceName};
use heirlock_nsm::MonName;

/// The loop's knowledge of the status monitor that it serves.
#[derive(Debug, Default)]
pub(crate) struct Monitoring {
    /// Since when the status monitor's directory is being read.
    pub(super) began: Moment,
    /// It was read.
    pub(super) is_read: bool,
    /// It takes too long, and that was said.
    pub(super) hangs: bool,
    /// How many clients had arrived in each service when the status monitor was last told which ones are durable. `None` where
    /// something else has changed since.
    pub(super) told: Option<Vec<(ServiceName, Generation, u64)>>,
    /// Clients that came back and that the run has not been told of.
    pub(super) came: BTreeSet<RecordKey>,
    pub(super) said_who_came: Moment,
    /// Clients whose registrations changed, and whose files are to follow; since when there are any.
    pub(super) changed: BTreeSet<MonName>,
    pub(super) changed_since: Moment,
    /// When the status monitor last wanted something.
    pub(super) wanted_at: Moment,
    /// The log has said that clients are refused since no service is held.
    pub(super) said_it_holds_nothing: bool,
    /// Clients that the log has named, since their files could not be written.
    pub(super) said: BTreeSet<MonName>,
    /// Clients whose files could not be written, and why.
    pub(super) behind: BTreeMap<MonName, String>,
    /// Something was written that may not be durable, and when it was last made so.
    pub(super) unsynced: bool,
    pub(super) synced: Moment,
    /// It is being made durable. A sync that hangs with a disk is not joined by others.
    pub(super) syncing: bool,
}
