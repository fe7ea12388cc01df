//! Where monitor records are kept safe from the death of the server they were taken on.
//!
//! | key | holds |
//! |---|---|
//! | `services/<service>/claims/<n>` | who owns generation `n`; created exclusively, never changed |
//! | `services/<service>/claims/<n>.released` | the owner gave it up in order |
//! | `services/<service>/<n>/sm/<address>` | one client's monitor record, in statd's own lines |
//! | `services/<service>/<n>/state` | the state number of this generation, as statd's `state` |
//! | `services/<service>/<n>/journal.json` | how far the adoption that began this generation has come |
//! | `services/<service>/<n>/outcomes` | what became of each client, appended |
//! | `services/<service>/history/<n>` | what is told of generation `n` after it was removed; created exclusively, never changed |
//! | `servers/<server>` | heartbeat, pause, incarnation, health, state number |
//! | `identity` | which store it is: made with it, remembered by each server ([`memory`]) |
//!
//! A generation appears whole or not at all ([`Store::begin_generation`]), so the newest one is always complete.
//! [`heirlock_core::store`] names the promises of every store; here are the stores there are, and a server's memory of its own.

#[cfg(test)]
mod contract;
pub(crate) mod copy;
/// Outside of this module only tests can name the folder store.
#[cfg(test)]
pub(crate) mod dir;
#[cfg(not(test))]
mod dir;
mod disk;
#[cfg(feature = "etcd")]
mod etcd;
mod failure;
pub(crate) mod memory;
mod on_host;
#[cfg(test)]
pub(crate) mod steered;
pub(crate) mod timed;
#[cfg(test)]
pub(crate) use disk::faulty;
#[cfg(feature = "etcd")]
pub use etcd::bare_puts;
#[cfg(feature = "etcd")]
pub(crate) use on_host::Weight;
pub(crate) use on_host::{Ground, PlaceFinding, StoreOnHost, Unusable};

pub(crate) use heirlock_core::store::{
    Account, Asked, Beaten, Change, ClaimAnswer, Commit, Contents, Damaged, DamagedPart, Past, Place,
    RecordChange, Seen, ServerHearts, ServerReport, Store, StoreError, StoreErrorKind, Told,
};

use crate::config::Settings;
use crate::host::Host;

/// The configured store of this host. It need not be there yet: its volume may be mounted later than the agent starts, and until
/// then every call fails. No other place chooses a kind of store.
pub(crate) fn open(host: &Host, settings: &Settings) -> Box<dyn StoreOnHost> {
    #[cfg(feature = "etcd")]
    if let Some(etcd) = &settings.store.etcd {
        return Box::new(etcd::EtcdStore::at(&etcd::files_on(host, etcd)));
    }
    Box::new(dir::DirStore::at(&host.at(&settings.store.path)))
}
