//! A store as the host that it is configured on deals with it: what is wrong with the place where it keeps what it is given, and
//! how it is made there and taken away again. What is asked of it while it keeps records is [`Store`].
//!
//! `enable`, `disable`, `check-config` and `doctor` ask these questions of whichever store is configured. None of them knows
//! what it is made of.

use std::path::PathBuf;

use heirlock_core::store::{Store, StoreError};
use heirlock_core::store_identity::Found;

use crate::config::Settings;
use crate::host::Host;

/// A store, and where it lies on this host.
pub(crate) trait StoreOnHost: Store {
    /// Where it lies, as the configuration names it.
    fn shown(&self, settings: &Settings) -> String;

    /// What can be said of the place where it keeps what it is given, whether it is there now or not.
    fn check(&self, host: &Host, settings: &Settings) -> Vec<PlaceFinding>;

    /// Proves that a record finds room, by writing as much and removing it again. [`Store::probe`] writes a few bytes, for
    /// which there may be room where there is none for a record.
    ///
    /// # Errors
    /// Where that fails, in words for people.
    fn try_room(&self) -> Result<(), String>;

    /// What this host has to bring first and has not brought, for people: a volume that is not mounted.
    fn missing(&self, host: &Host, settings: &Settings) -> Option<String>;

    /// What follows from a failure by which the store can't be used now.
    fn unusable(&self, settings: &Settings, error: &StoreError) -> Unusable;

    /// What it takes of this host when it is made, so that [`StoreOnHost::remove_empty`] can give it back. Nothing where it
    /// lies elsewhere.
    fn ground(&self, settings: &Settings) -> Option<Ground>;

    /// Makes it, where there is none yet. Where another server has made it meanwhile, that one is found.
    ///
    /// # Errors
    /// Where something else is there, or it can't be made.
    fn set_up(&self) -> Result<Found, StoreError>;

    /// Takes a store away in which nothing was ever kept, and gives its ground back with the mode that it had before.
    ///
    /// # Errors
    /// At the first thing that is found in it. What was found in its ground before stays.
    fn remove_empty(&self, mode_before: Option<u32>) -> std::io::Result<()>;
}

/// What can be said of the place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlaceFinding {
    /// It lies in an export: clients can see it.
    Exported(PathBuf),
    /// It is in memory, and dies with the server.
    InMemory,
    /// It is on the disk on which this server keeps what is its own, and is lost with it.
    OwnDisk,
    /// It is on another one.
    OtherDisk,
    /// That can't be told, and why.
    Unknown(String),
}

/// What follows where a store can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// What an administrator can do.
    pub(crate) remedy: String,
    /// Records are lost by it. Else another server may have the store now.
    pub(crate) costs_locks: bool,
}

/// A folder of this host that a store takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ground {
    /// Which, as the configuration names it.
    pub(crate) folder: PathBuf,
    /// Its mode now; nothing where it isn't there yet.
    pub(crate) mode: Option<u32>,
}
