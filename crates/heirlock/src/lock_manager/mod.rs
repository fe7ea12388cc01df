//! The lock managers that heirlock can make recognise conveyed locks: one lockd, or the one that commands stand for.

mod command;
mod fsids;
mod kernel;
mod nlm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heirlock_core::grace::Probe;
use heirlock_core::incarnation::Observation;
use heirlock_core::takeover::Strategy;
use thiserror::Error;

use crate::config::{Command, LockManagerKind, Settings};
use crate::files::{Folder, Links, trusted};
use crate::hooks;
use crate::host::{ExportTable, Host, Peers};

pub(crate) use fsids::Fsids;
use nlm::Nlm;

/// The lock manager of this host that the configuration names.
pub(crate) fn open_on(settings: &Settings, host: &Host) -> Arc<dyn LockManager> {
    match settings.lock_manager.kind {
        LockManagerKind::Kernel => Arc::new(kernel::Kernel::new(settings, host)),
        LockManagerKind::Command => Arc::new(command::ByCommand::new(settings, host)),
    }
}

/// Whether a lock manager is in grace, asked through the first of these addresses, or else of this server's, that answers;
/// and the evidence for it. Each question waits so long for its answer.
pub(crate) fn grace(
    lock_manager: &dyn LockManager,
    host: &Host,
    settings: &Settings,
    first: &[IpAddr],
    limit: Duration,
) -> (Probe, String) {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let floating = settings.services.iter().flat_map(|service| service.addresses.iter());
    let addresses = first.iter().chain(&settings.host.addresses).chain(floating);
    let mut tried: Vec<IpAddr> = Vec::new();
    let mut why = String::new();
    for address in addresses.filter(|address| host.is_present(**address)).chain([&loopback]) {
        if tried.contains(address) {
            continue;
        }
        tried.push(*address);
        let (answer, reason) = lock_manager.in_grace_at(*address, limit);
        if answer != Probe::NoAnswer {
            return (answer, reason);
        }
        why = format!("{address}: {reason}");
    }
    (Probe::NoAnswer, why)
}

/// The table of exports, as exportfs wrote it down. Asks rpc.mountd or nfs.conf for its place.
fn exported(host: &Host, state_directory: &Path) -> io::Result<String> {
    let table = host.at(ExportTable::of(host, state_directory).path);
    let folder = Folder::open(table.parent().unwrap_or(state_directory))?;
    let bytes = folder.read("etab", Links::One, trusted::SYSTEM_FILE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// One lock manager on this machine: one network namespace's lockd with its nfsd, or what commands stand for.
///
/// All that differs between two kinds is a method here, or one of the [`Properties`](crate::config::LockManagerProperties) of
/// its kind: no other place asks which kind it is. A lock manager is shared. `observe`, `recognise` and `let_go` are called one
/// at a time, but while a `let_go` hangs; all else may be asked beside them, in a thread that may wait.
pub(crate) trait LockManager: Send + Sync {
    /// For people: "kernel lockd", …
    fn describe(&self) -> String;

    /// Takes away what a recognition left that was killed in the middle. Only the agent asks for it, when it begins.
    fn tidy(&self) {}

    /// One look, without side effect.
    fn observe(&self) -> Result<Observation, LockManagerError>;

    /// A descriptor that can be read once the life of this start ([`Observation::start`]) ends; nothing where its end can't be
    /// told in that way. Such a lock manager is looked at less often.
    fn end_of_life(&self, start: &str) -> Option<OwnedFd> {
        let _ = start;
        None
    }

    /// Whether a strategy can work here, asked before anything is claimed. Refuses by name, and names one that can.
    fn usable(&self, strategy: Strategy) -> Result<(), LockManagerError>;

    /// The needs of an adoption by this strategy, of services with these exports, that it does not meet, as far as that
    /// shows without changing anything. The answer of [`LockManager::usable`] is no part of it.
    fn missing(&self, strategy: Strategy, exports: &[PathBuf]) -> Vec<Lack>;

    /// Remarks for an administrator beside that, though the strategy can work.
    fn remarks(&self, strategy: Strategy) -> Vec<Lack>;

    /// Makes the lock manager drop what it has and open a grace period, by this strategy, and waits until it serves
    /// again. For [`Strategy::Notify`] nothing is done: grace must be open already.
    fn recognise(&self, strategy: Strategy) -> Result<Recognised, LockManagerError>;

    /// Drops what was locked through this address of the server, for a release. Opens no grace period.
    fn let_go(&self, address: IpAddr) -> Result<(), LockManagerError>;

    /// Drops what is locked on the file system of this path, for a release of all that is exported from it.
    fn let_go_of_file_system(&self, path: &Path) -> Result<(), LockManagerError>;

    /// Where it answers as its clients ask it.
    fn nlm(&self) -> &Nlm;

    /// Whether it is in grace, asked at this address of the server; and the reason for the answer. Each question waits so long for its
    /// answer, and there are two at most.
    fn in_grace_at(&self, address: IpAddr, limit: Duration) -> (Probe, String) {
        self.nlm().in_grace_at(address, limit)
    }

    /// Whether clients find NFS and the lock manager at this address of the server.
    ///
    /// # Errors
    /// The missing registrations, in words.
    fn serves_at(&self, address: IpAddr) -> Result<(), String> {
        self.nlm().serves_at(address)
    }

    /// The TCP ports at which clients' requests for locks come in.
    fn ports(&self) -> Vec<u16> {
        self.nlm().ports()
    }

    /// The hosts that are no clients of it, or certainly are. All that tell a client from a peer ask here, so that a record has
    /// one role for all of them: the looks at the status monitor's directory, heirlock as the status monitor, and an import.
    fn peers(&self) -> Peers {
        self.nlm().peers()
    }

    /// The paths that it exports now, by which a release tells a file system that leaves from one that stays.
    ///
    /// # Errors
    /// Where that can't be read: then any file system may stay.
    fn exported(&self) -> Result<Vec<PathBuf>, LockManagerError>;

    /// Whether it exports nothing, as far as that is known: then no client has a lock to reclaim from it.
    fn exports_nothing(&self) -> bool {
        false
    }

    /// The fsids of its exports, now and after a restart.
    fn fsids(&self) -> Fsids;

    /// Facts that servers compare, besides its exports. Unknown ones are left out.
    fn facts(&self) -> BTreeMap<String, String>;

    /// How long its grace period lasts, at the least.
    fn grace_length(&self) -> Result<Duration, LockManagerError>;

    /// How long ago its grace period opened, at the most, where it did not open by [`LockManager::recognise`].
    fn grace_age(&self) -> Result<Option<Duration>, LockManagerError>;
}

/// One thing of the lock manager that is missing, or is to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    /// Which check: a word that does not change, for scripts.
    pub(crate) check: &'static str,
    /// The finding.
    pub(crate) found: String,
    /// The remedy that an administrator has.
    pub(crate) remedy: String,
}

impl Lack {
    fn new(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, found: found.into(), remedy: remedy.into() }
    }
}

/// A fact: how long the grace period lasts, in seconds.
pub(crate) const GRACE_PERIOD: &str = "nlm-grace-period-s";

/// A fact: the kernel's release.
pub(crate) const KERNEL: &str = "kernel";

/// [`Lack::check`] of a path that is not exported: it may come with its volume, right before an adoption.
pub(crate) const EXPORT: &str = "export";

/// The facts of every kind, as far as they are known.
fn facts(host: &Host, grace: Option<Duration>) -> BTreeMap<String, String> {
    let grace = grace.map(|grace| (GRACE_PERIOD.to_owned(), grace.as_secs().to_string()));
    grace.into_iter().chain([(KERNEL.to_owned(), host.kernel())]).collect()
}

/// The commands that are configured under these keys and can't be started.
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

/// The result of a recognition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recognised {
    /// The observation of the lock manager right after.
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
        /// the obstacle
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
        /// the thing to look at
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
