//! What is found in a cluster's configuration.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Well,
    /// Worth knowing.
    Note,
    /// It will hurt some day.
    Warning,
    /// A failover loses locks, or does not come about.
    LosesLocks,
}

/// What a remark is about: a word that does not change, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A service as a whole.
    Service,
    /// Whether a node that is lost is confirmed off.
    Fence,
    /// heirlock's resource agents.
    Agents,
    /// What starts before what, and on the node of what.
    Order,
    /// The resources that start an NFS server, or tell clients.
    NfsServer,
    /// What is switched off.
    State,
    /// How long actions may take.
    Times,
    /// Names of servers and nodes.
    Node,
    /// Decisions that are made twice.
    Decisions,
}

impl Subject {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "cluster-service",
            Self::Fence => "cluster-fence",
            Self::Agents => "cluster-agents",
            Self::Order => "cluster-order",
            Self::NfsServer => "cluster-nfs-server",
            Self::State => "cluster-state",
            Self::Times => "cluster-times",
            Self::Node => "cluster-node",
            Self::Decisions => "cluster-decisions",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub weight: Weight,
    /// What is so, and what that costs.
    pub found: String,
    /// What an administrator can do, with the commands.
    pub remedy: Option<String>,
}

impl Remark {
    pub(super) fn well(subject: Subject, found: impl Into<String>) -> Self {
        Self { subject, weight: Weight::Well, found: found.into(), remedy: None }
    }

    pub(super) fn note(subject: Subject, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, weight: Weight::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn warning(subject: Subject, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, weight: Weight::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn loses_locks(subject: Subject, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, weight: Weight::LosesLocks, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// The same change, for the two tools that administrators use.
pub(super) fn by_tools(pcs: impl fmt::Display, crmsh: impl fmt::Display) -> String {
    format!("with pcs: {pcs}; with crmsh: {crmsh}")
}
