//! The lock managers that heirlock can make recognise conveyed locks: one lockd, or whatever a command stands for.

mod command;
mod kernel;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heirlock_core::incarnation::Observation;
use heirlock_core::takeover::Strategy;
use thiserror::Error;

use crate::config::{Command, ForEachKind, Settings};
use crate::files::{Folder, Links, trusted};
use crate::hooks;
use crate::host::{ExportTable, Host};

/// How one kind is opened.
type Opened = fn(&Settings, &Host) -> Box<dyn LockManager>;

/// The lock manager that the configuration names.
pub(crate) fn open(settings: &Settings) -> Box<dyn LockManager> {
    open_on(settings, &Host::here())
}

/// The same, of another host.
pub(crate) fn open_on(settings: &Settings, host: &Host) -> Box<dyn LockManager> {
    let open = settings.lock_manager.kind.choose::<Opened>(ForEachKind {
        kernel: |settings, host| Box::new(kernel::Kernel::new(settings, host)),
        command: |settings, _| Box::new(command::ByCommand::new(settings)),
    });
    open(settings, host)
}

/// The table of what is exported, as exportfs wrote it down. Asks who knows where it lies.
pub(crate) fn exported(host: &Host, state_directory: &Path) -> io::Result<String> {
    let table = host.at(ExportTable::of(host, state_directory).path);
    let folder = Folder::open(table.parent().unwrap_or(state_directory))?;
    let bytes = folder.read("etab", Links::One, trusted::SYSTEM_FILE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// One lock manager on this machine: one network namespace's lockd with its nfsd, or what commands stand for.
pub(crate) trait LockManager: Send {
    /// For people: "kernel lockd", …
    fn describe(&self) -> String;

    /// Takes away what a recognition left that was killed in the middle. Only the agent asks for it, when it begins.
    fn tidy(&mut self) {}

    /// One look, without side effect.
    fn observe(&mut self) -> Result<Observation, LockManagerError>;

    /// Whether a strategy can work here, asked before anything is claimed. Refuses by name, and names one that can.
    fn usable(&mut self, strategy: Strategy) -> Result<(), LockManagerError>;

    /// What an adoption by this strategy of services with these exports will need of it and isn't there, as far as that
    /// shows without changing anything. What [`LockManager::usable`] says is no part of it.
    fn missing(&mut self, strategy: Strategy, exports: &[PathBuf]) -> Vec<Lack>;

    /// Makes the lock manager drop what it has and open a grace period, by this strategy, and waits until it serves
    /// again. For [`Strategy::Notify`] nothing is done: grace must be open already.
    fn recognise(&mut self, strategy: Strategy) -> Result<Recognised, LockManagerError>;

    /// Drops what was locked through this address of the server, for a release. Opens no grace period.
    fn let_go(&mut self, address: IpAddr) -> Result<(), LockManagerError>;

    /// Drops what is locked on the file system of this path, for a release of all that is exported from it.
    fn let_go_of_file_system(&mut self, path: &Path) -> Result<(), LockManagerError>;

    /// How long its grace period lasts, at the least.
    fn grace_length(&mut self) -> Result<Duration, LockManagerError>;

    /// How long ago its grace period opened, at the most, where it did not open by [`LockManager::recognise`].
    fn grace_age(&mut self) -> Result<Option<Duration>, LockManagerError>;
}

/// One thing that an adoption needs of the lock manager and that isn't there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    /// Which check: a word that does not change, for scripts.
    pub(crate) check: &'static str,
    /// What was found.
    pub(crate) found: String,
    /// What an administrator can do.
    pub(crate) remedy: String,
}

impl Lack {
    fn new(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, found: found.into(), remedy: remedy.into() }
    }
}

/// [`Lack::check`] of a path that is not exported: it may come with its volume, right before an adoption.
pub(crate) const EXPORT: &str = "export";

/// What can't be started of the commands that are configured under these keys.
fn missing_commands<'a>(commands: impl IntoIterator<Item = (&'a str, Option<&'a Command>)>) -> Vec<Lack> {
    let check = |(key, command): (&str, Option<&Command>)| {
        let why = hooks::check(command?).err()?;
        Some(Lack::new(
            "command",
            format!("lock-manager.{key}: {why}"),
            "install it, or correct the configuration",
        ))
    };
    commands.into_iter().filter_map(check).collect()
}

/// What a recognition brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// What the lock manager looked like right after.
    pub(crate) observation: Observation,
    /// The locks were dropped without a new start (SIGKILL to lockd).
    pub(crate) in_place: bool,
}

/// Why a lock manager can't be used or made to recognise.
#[derive(Debug, Error)]
pub(crate) enum LockManagerError {
    /// This strategy can't work on this machine. Nothing was changed.
    #[error("'{strategy}' can't work here: {why}; {instead}")]
    Unusable {
        /// the strategy refused
        strategy: Strategy,
        /// what stands in its way
        why: String,
        /// which one can, or what to change
        instead: String,
    },
    /// A command failed.
    #[error("{what} failed: {found}; {remedy}")]
    Command {
        /// the command
        what: String,
        /// exit status and the last of what it printed
        found: String,
        /// what to look at
        remedy: String,
    },
    /// Something could not be read.
    #[error("can't read {what}: {source}")]
    Read {
        /// which file or call
        what: String,
        /// why
        #[source]
        source: io::Error,
    },
}
