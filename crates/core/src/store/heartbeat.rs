//! A server's report of itself to all others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::incarnation::Incarnation;
use crate::names::{LockManagerName, ServerName, ServiceName};
use crate::planned_move::{MoveProgress, MoveRequest};

/// The heartbeats that a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerHearts {
    /// The reports that could be read. A store that keeps them in memory shares them.
    pub reports: BTreeMap<ServerName, Arc<ServerReport>>,
    /// Entries that can't be read, by their names, and why. A server whose heartbeat is among them is neither alive nor
    /// silent.
    pub unreadable: BTreeMap<String, String>,
}

/// A server's report of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerReport {
    /// The server.
    pub server: ServerName,
    /// The run of its agent: random, so that two agents under one name find each other out.
    pub agent: String,
    /// Rises with every heartbeat.
    pub beat: u64,
    /// It stops in order or is being maintained: its silence is no reason to adopt.
    pub paused: bool,
    /// The life of its lock manager.
    pub incarnation: Option<Incarnation>,
    /// Its own NSM state number.
    pub state: Option<u32>,
    /// Those of further lock managers on it, where it has some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_states: Vec<u32>,
    /// How those are besides. Of the first lock manager the fields of the server say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_lock_managers: Vec<FurtherLockManager>,
    /// Seconds since 1970 by its own clock. For people; nothing is decided by it.
    pub written_at_s: u64,
    /// Its ailments, in words; empty where it is well.
    #[serde(default)]
    pub ailments: Vec<String>,
    /// Services that it asks their owners for: they are at home here (failback), or are to move here.
    #[serde(default)]
    pub wants: Vec<ServiceName>,
    /// Its node name (uname -n), which its status monitor writes into records.
    #[serde(default)]
    pub node: Option<String>,
    /// Its own addresses, which move to no other server: those of `host.addresses`, and those of its interfaces that are no
    /// service's.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Tells the last time that it asked from the times before.
    #[serde(default)]
    pub asked: u64,
    /// Services that other servers ask for and that it can't give up now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declines: BTreeMap<ServiceName, Decline>,
    /// Moves that callers on it ask other servers for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<ServiceName, MoveRequest>,
    /// How far the moves are that other servers ask it for, by the numbers of the requests ([`MoveRequest::asked`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moving: BTreeMap<u64, MoveProgress>,
    /// Facts that other servers compare with their own: grace period, fsid of exports, …
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// A lock manager of a server besides its first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FurtherLockManager {
    /// Its name on that server.
    pub name: LockManagerName,
    /// Its life.
    #[serde(default)]
    pub incarnation: Option<Incarnation>,
    /// The node name that its status monitor writes into records.
    #[serde(default)]
    pub node: Option<String>,
    /// As [`ServerReport::facts`].
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// Why a server does not give a service up that another one asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decline {
    /// The number of the request that it answers ([`ServerReport::asked`]).
    pub asked: u64,
    /// Why.
    pub why: String,
    /// It goes on by itself: within so many milliseconds at most, where that is known. Else it is for a person to mend.
    pub waits: Option<Waits>,
    /// The release is on, and began so many milliseconds before this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releasing_for_ms: Option<u64>,
}

/// The obstacle to giving the service up will pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Waits {
    /// Milliseconds at most, where that is known.
    pub at_most_ms: Option<u64>,
}

impl ServerReport {
    /// Before its first heartbeat: nothing is known to ail it.
    #[must_use]
    pub fn new(server: ServerName, agent: &str) -> Self {
        Self {
            server,
            agent: agent.to_owned(),
            beat: 0,
            paused: false,
            incarnation: None,
            state: None,
            further_states: Vec::new(),
            further_lock_managers: Vec::new(),
            written_at_s: 0,
            ailments: Vec::new(),
            wants: Vec::new(),
            node: None,
            addresses: Vec::new(),
            asked: 0,
            declines: BTreeMap::new(),
            moves: BTreeMap::new(),
            moving: BTreeMap::new(),
            facts: BTreeMap::new(),
        }
    }

    /// The node names that its status monitors write into records.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let further = self.further_lock_managers.iter().map(|other| &other.node);
        std::iter::once(&self.node).chain(further).filter_map(Option::as_deref)
    }

    /// The state numbers that its status monitors may have sent.
    pub fn states(&self) -> impl Iterator<Item = u32> {
        self.state.into_iter().chain(self.further_states.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_by_versions_that_know_fewer_fields_and_those_of_such_versions_are_read() {
        let server = ServerName::parse("nfs-b").unwrap();
        let quiet = ServerReport { state: Some(5), ..ServerReport::new(server, "run") };
        let text = serde_json::to_string(&quiet).unwrap();
        assert!(!text.contains("further"), "of one lock manager it says what it always has: {text}");
        assert_eq!(serde_json::from_str::<ServerReport>(&text).unwrap(), quiet);
        let name = LockManagerName::parse("two").unwrap();
        let two = FurtherLockManager { name, incarnation: None, node: None, facts: BTreeMap::new() };
        let full = ServerReport { further_states: vec![7], further_lock_managers: vec![two], ..quiet };
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<ServerReport>(&text).unwrap(), full);
        // Versions before this one know no list of lock managers, as this one knows no list of that name.
        let later = text.replace("further-lock-managers", "further-of-a-later-version");
        let read: ServerReport = serde_json::from_str(&later).unwrap();
        assert_eq!(read, ServerReport { further_lock_managers: Vec::new(), ..full });
        assert_eq!(read.states().collect::<Vec<_>>(), [5, 7], "none of these numbers is sent again");
        let out = text.replace(r#""name":"two""#, r#""name":"../two""#);
        assert!(serde_json::from_str::<ServerReport>(&out).is_err());
    }
}
