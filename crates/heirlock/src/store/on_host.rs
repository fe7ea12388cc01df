//! A store as its host deals with it: findings on the place where it keeps its records, and how it is made there and taken away
//! again. While it keeps records it is asked by [`heirlock_core::store::Store`] alone.
//!
//! `enable`, `disable`, `check-config` and `doctor` ask these questions of every kind of store, and know no kind.

use std::path::PathBuf;

use heirlock_core::store::{CopiedStore, StoreError};
use heirlock_core::store_identity::Found;

use crate::config::Settings;
use crate::host::Host;

/// A store, and where it lies on this host.
pub(crate) trait StoreOnHost: CopiedStore {
    /// Where it lies, as the configuration names it.
    fn shown(&self, settings: &Settings) -> String;

    /// Findings on the place where it keeps its records, whether the store is there now or not.
    fn check(&self, host: &Host, settings: &Settings) -> Vec<PlaceFinding>;

    /// Proves that a record finds room, by writing as much and removing it again. [`Store::probe`] writes a few bytes, for
    /// which there may be room where there is none for a record.
    ///
    /// # Errors
    /// Where that fails, in words for people.
    fn try_room(&self) -> Result<(), String>;

    /// A volume that this host has to mount first and has not mounted, for people.
    fn missing(&self, host: &Host, settings: &Settings) -> Option<String>;

    /// The consequences of a failure by which the store can't be used now.
    fn unusable(&self, settings: &Settings, error: &StoreError) -> Unusable;

    /// The folder that it takes of this host when it is made, so that [`StoreOnHost::remove_empty`] can give it back. Nothing
    /// where the store lies elsewhere.
    fn ground(&self, settings: &Settings) -> Option<Ground>;

    /// Makes it, where there is none yet. Where another server has made it meanwhile, that one is found.
    ///
    /// # Errors
    /// Where something else is there, or it can't be made.
    fn set_up(&self) -> Result<Found, StoreError>;

    /// Takes a store away in which nothing was ever kept, and gives its ground back with the mode that it had before.
    ///
    /// # Errors
    /// At the first thing that is found in it.
    fn remove_empty(&self, mode_before: Option<u32>) -> std::io::Result<()>;
}

/// A finding on the place of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlaceFinding {
    /// It lies in an export: clients can see it.
    Exported(PathBuf),
    /// It is in memory, and dies with the server.
    InMemory,
    /// It is on the disk of this server's own files, and is lost with them.
    OwnDisk,
    /// It is on another one.
    OtherDisk,
    /// That can't be told, and why.
    Unknown(String),
    /// Something that concerns stores of its kind alone.
    #[cfg(feature = "etcd")]
    Said(Said),
}

/// A finding in words.
#[cfg(feature = "etcd")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// How bad it is.
    pub(crate) weight: Weight,
    /// The finding.
    pub(crate) found: String,
    /// A remedy for an administrator; empty where all is well.
    pub(crate) remedy: String,
}

#[cfg(feature = "etcd")]
impl Said {
    /// A finding with its remedy.
    pub(crate) fn new(weight: Weight, found: String, remedy: &str) -> Self {
        Self { weight, found, remedy: remedy.to_owned() }
    }
}

/// How bad a finding is.
#[cfg(feature = "etcd")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It is as it should be.
    Well,
    /// Good to know.
    Note,
    /// It should be mended.
    Warning,
    /// Locks are lost by it, now or at a failover.
    LosesLocks,
}

/// The consequences where a store can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// A remedy for an administrator.
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
