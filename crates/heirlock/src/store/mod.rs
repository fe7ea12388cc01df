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

#[cfg(test)]
mod contract;
pub(crate) mod dir;
mod disk;
mod failure;
pub(crate) mod memory;
#[cfg(test)]
pub(crate) use disk::faulty;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::incarnation::Incarnation;
pub(crate) use heirlock_core::store::{StoreError, StoreErrorKind};
use heirlock_core::store_identity::{Found, StoreIdentity};
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};
use serde::{Deserialize, Serialize};

/// The store. All calls block; none may be made on the loop that answers the control socket.
///
/// After an error the store may hold all, some or none of what the call asked for; every call may be repeated.
pub(crate) trait Store: Send + Sync {
    /// Where it is, for people.
    fn describe(&self) -> String;

    /// Proves that the store can be written and read now, by doing both.
    fn probe(&self) -> Result<(), StoreError>;

    /// Which store it is and what is claimed in it, whichever is expected.
    fn found(&self) -> Result<Found, StoreError>;

    /// Gives a store of an earlier version an identity, whichever is expected. Of all who try at the same moment one
    /// wins; the answer is the identity that the store has from then on.
    fn give_identity(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError>;

    /// From now on every call fails with [`StoreErrorKind::Wrong`] while another store is there than this one; so does a
    /// change that is under way when the store is exchanged, where a store can tell.
    fn expect(&self, identity: Option<&StoreIdentity>);

    /// The services that have a claim, in order of their names.
    fn services(&self) -> Result<Vec<ServiceName>, StoreError>;

    /// The newest claim of a service. Where it can't be read ([`Claim::unreadable`]), the generation that it began tells what
    /// it said; where it began none, that is [`StoreErrorKind::Claim`].
    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError>;

    /// Creates a claim if nobody has claimed this generation. Exactly one of all who try wins, also on a file system
    /// shared by several servers; repeating a claim that was won is a win. None wins below the newest claim, whose
    /// owner the answer then names: the numbers of pruned claims stay used. A claim that is made as a released one takes the
    /// number and leaves the service nobody's, in one step.
    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError>;

    /// Writes a claim anew that can't be read; one that can is left as it is. For its owner alone.
    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError>;

    /// Marks a claim as given up. One that does not exist is an error.
    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError>;

    /// The newest complete generation at or below `at_most`.
    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError>;

    /// Fails where the records of a generation can't be listed.
    fn check_records(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError>;

    /// The state number of a generation; `None` where it was not begun or has none that can be read.
    fn number_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError>;

    /// Creates a generation with all it begins with, durable and whole, or not at all. One that exists is left as it
    /// is: the caller resumes.
    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError>;

    /// All of one generation; one that does not exist is an error. Records that can't be read are named in [`Contents::damaged`] and left alone.
    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError>;

    /// Makes all changes durable, in order of the slice as far as one client is concerned; they share their syncs. The
    /// order between clients, state, journal and outcomes is not kept at a crash: what must come first is committed
    /// first. An outcome whose commit failed and is repeated may be there twice.
    fn commit(
        &self,
        service: &ServiceName,
        generation: Generation,
        changes: &[Change],
    ) -> Result<(), StoreError>;

    /// The same for several services at once. A record that several of them keep is made durable once.
    fn commit_each(&self, work: &[(&ServiceName, Generation, Vec<Change>)]) -> Result<(), StoreError>;

    /// Claims, generations and kept tenures that there are, each falling by number.
    fn past(&self, service: &ServiceName) -> Result<Past, StoreError>;

    /// All of one generation but its records, which are only named; one that does not exist is an error.
    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError>;

    /// Keeps what is told of a generation that is about to be removed, if nobody has yet. Of
    /// [`crate::limits::TENURES_KEPT`] the oldest go.
    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError>;

    /// One client's record; nothing where there is none, or where it can't be read.
    fn record(&self, service: &ServiceName, generation: Generation, client: &MonName) -> Option<Vec<u8>>;

    /// When a client's record was written as it is, in seconds since 1970; nothing where that can't be told.
    fn written_at_s(&self, service: &ServiceName, generation: Generation, client: &MonName) -> Option<u64>;

    /// Removes generations older than `keep_from`, claims included, but never the newest of either.
    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError>;

    /// Writes this server's heartbeat. It need not survive a crash, but must be seen by others at once.
    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError>;

    /// The heartbeats of all servers. One that can't be read says nothing of the others.
    fn hearts(&self) -> Result<ServerHearts, StoreError>;

    /// What the servers said of themselves, as far as it can be read.
    fn servers(&self) -> Result<BTreeMap<ServerName, ServerReport>, StoreError> {
        self.hearts().map(|hearts| hearts.reports)
    }
}

/// What a look at the heartbeats found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerHearts {
    /// What the servers said of themselves.
    pub(crate) reports: BTreeMap<ServerName, ServerReport>,
    /// Entries that can't be read, by their names, and why. A server whose heartbeat is among them is neither alive nor
    /// silent.
    pub(crate) unreadable: BTreeMap<String, String>,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimAnswer {
    /// It is ours.
    Won,
    /// Somebody else has this generation.
    Taken(Claim),
}

/// All of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The state number reserved for this generation's notifications, or the primary's own at capture.
    pub(crate) state: Option<StateNumber>,
    /// One record a client, in statd's own lines.
    pub(crate) records: BTreeMap<MonName, Vec<u8>>,
    /// The adoption's journal, as its writer wrote it.
    pub(crate) journal: Option<String>,
    /// The outcomes, a line each, in the order they were appended; a torn last line is left out.
    pub(crate) outcomes: Vec<String>,
    /// What can't be read.
    pub(crate) damaged: Vec<Damaged>,
}

/// An entry of a generation that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Which, below the generation. What is no text in it is escaped.
    pub(crate) path: String,
    /// What was expected and found.
    pub(crate) why: String,
    /// It lies where records lie.
    pub(crate) is_record: bool,
    /// The client whose record it is, where its name is one that a client can have.
    pub(crate) client: Option<MonName>,
}

/// What there is of a service's past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Claims that were not pruned.
    pub(crate) claims: Vec<Claim>,
    /// Generations that were not pruned.
    pub(crate) generations: Vec<Generation>,
    /// What is told of generations that were.
    pub(crate) tenures: Vec<Tenure>,
    /// What can't be read, in words.
    pub(crate) unreadable: Vec<String>,
}

/// One generation without its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Whose records it has.
    pub(crate) clients: BTreeSet<MonName>,
    /// Its state number.
    pub(crate) state: Option<StateNumber>,
    /// Its journal, as its writer wrote it.
    pub(crate) journal: Option<String>,
    /// Its outcomes, a line each.
    pub(crate) outcomes: Vec<String>,
}

/// A journal as it lies in the store.
pub(crate) fn journal_text(journal: &Journal) -> String {
    // Every field is made of strings, numbers and enums: it always serialises.
    serde_json::to_string_pretty(journal).unwrap_or_default()
}

/// One change of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Writes a client's record, whether it exists or not.
    PutRecord(MonName, Vec<u8>),
    /// Removes a client's record, if it exists.
    RemoveRecord(MonName),
    /// Writes the generation's number anew, where it can't be read: another one it never gets.
    PutState(StateNumber),
    /// Replaces the journal.
    PutJournal(String),
    /// Appends a line (without its newline) to the outcomes.
    AppendOutcome(String),
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ServerReport {
    /// Who.
    pub(crate) server: ServerName,
    /// Which run of its agent: random, so that two agents under one name find each other out.
    pub(crate) agent: String,
    /// Rises with every heartbeat.
    pub(crate) beat: u64,
    /// It stops in order or is being maintained: its silence is no reason to adopt.
    pub(crate) paused: bool,
    /// The life of its lock manager.
    pub(crate) incarnation: Option<Incarnation>,
    /// Its own NSM state number.
    pub(crate) state: Option<u32>,
    /// Seconds since 1970 by its own clock. For people; nothing is decided by it.
    pub(crate) written_at_s: u64,
    /// What ails it, in words; empty where it is well.
    #[serde(default)]
    pub(crate) ailments: Vec<String>,
    /// Services that are at home here and that it asks their owners for (failback).
    #[serde(default)]
    pub(crate) wants: Vec<ServiceName>,
    /// Its node name (uname -n), which its status monitor writes into records.
    #[serde(default)]
    pub(crate) node: Option<String>,
    /// Its own addresses, which move to no other server: those of `host.addresses`, and those of its interfaces that are no
    /// service's.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    /// Tells the last time that it asked from the times before.
    #[serde(default)]
    pub(crate) asked: u64,
    /// Services that their home asks for and that it can't give up now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) declines: BTreeMap<ServiceName, Decline>,
    /// What others compare with their own: grace period, fsid of exports, …
    #[serde(default)]
    pub(crate) facts: BTreeMap<String, String>,
}

/// Why a server does not give a service up that its home asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Decline {
    /// Which time of asking it answers ([`ServerReport::asked`]).
    pub(crate) asked: u64,
    /// Why.
    pub(crate) why: String,
    /// It goes on by itself: within so many milliseconds at most, where that is known. Else it is for a person to mend.
    pub(crate) waits: Option<Waits>,
}

/// What keeps a service from being given up will pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Waits {
    /// Milliseconds at most, where that is known.
    pub(crate) at_most_ms: Option<u64>,
}

impl ServerReport {
    /// Before its first heartbeat: nothing is known to ail it.
    pub(crate) fn new(server: ServerName, agent: &str) -> Self {
        Self {
            server,
            agent: agent.to_owned(),
            beat: 0,
            paused: false,
            incarnation: None,
            state: None,
            written_at_s: 0,
            ailments: Vec::new(),
            wants: Vec::new(),
            node: None,
            addresses: Vec::new(),
            asked: 0,
            declines: BTreeMap::new(),
            facts: BTreeMap::new(),
        }
    }
}
