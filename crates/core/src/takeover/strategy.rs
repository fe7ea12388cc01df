//! How a lock manager is made to recognise conveyed locks, and how the records are conveyed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the adoptive lock manager is made to recognise the locks of conveyed records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Only the lock recovery sequence: clients are notified. For a server that is just being started, whose
    /// grace period is open. Drops no locks.
    Notify,
    /// lockd and the status monitor are restarted: on kernels that obey it, SIGKILL to lockd. Drops the server's
    /// own locks, so its own clients are notified too.
    RestartLockManager,
    /// NFS is restarted as a whole. Drops the server's own locks, so its own clients are notified too.
    RestartNfs,
    /// A command of the configuration does it. Counts as dropping all locks.
    Command,
}

/// The file that is placed into the adoptive server's status-monitor directory for each conveyed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conveyance {
    /// The client lock description file, byte for byte.
    Copy,
    /// A description file made anew from the record, which names the service as `my_name`.
    Generate,
}

/// A word that is none of those expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected one of {expected}, found {found:?}")]
pub struct UnknownWord {
    /// the words that are known
    pub expected: &'static str,
    /// what was given
    pub found: String,
}

impl Strategy {
    /// Whether locks that the server holds for its own clients are dropped, so that these must be notified as well.
    #[must_use]
    pub fn drops_own_locks(self) -> bool {
        !matches!(self, Strategy::Notify)
    }

    /// As the configuration spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Notify => "notify",
            Strategy::RestartLockManager => "restart-lock-manager",
            Strategy::RestartNfs => "restart-nfs",
            Strategy::Command => "command",
        }
    }
}

impl Conveyance {
    /// As the configuration spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Conveyance::Copy => "copy",
            Conveyance::Generate => "generate",
        }
    }
}

impl FromStr for Strategy {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Strategy::Notify, Strategy::RestartLockManager, Strategy::RestartNfs, Strategy::Command]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownWord {
                expected: "notify, restart-lock-manager, restart-nfs, command",
                found: text.to_owned(),
            })
    }
}

impl FromStr for Conveyance {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Conveyance::Copy, Conveyance::Generate]
            .into_iter()
            .find(|c| c.as_str() == text)
            .ok_or_else(|| UnknownWord { expected: "copy, generate", found: text.to_owned() })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Conveyance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
