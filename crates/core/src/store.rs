//! The store: where monitor records are kept safe from the death of the server they were taken on. This module says what is asked
//! of every store of any kind, what it holds, and how it fails.
//!
//! A service has *generations*, each begun under a claim and changed by its owner alone. A generation has a state number, a
//! record for each client, the journal of the adoption that began it, and an outcome for each client that was told. Beside
//! the services lie the servers' heartbeats.

mod copied;
mod error;
mod generation;
mod heartbeat;
#[cfg(feature = "in-memory")]
pub mod in_memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use heirlock_nsm::StateNumber;

pub use crate::records::RecordChange;
pub use copied::{CopiedStore, Fill};
pub use error::{StoreError, StoreErrorKind};
pub use generation::{Account, Change, Contents, Damaged, DamagedPart, Past};
pub use heartbeat::{Decline, FurtherLockManager, ServerHearts, ServerReport, Waits};

use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::{Generation, ServerName, ServiceName};
use crate::records::{Record, RecordKey};
use crate::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};

/// The store. All calls block, for as long as the store says.
///
/// After an error the store may hold all, some or none of what the call asked for; every call may be repeated.
pub trait Store: Send + Sync {
    /// A description for people: its kind, and where it is.
    fn describe(&self) -> String;

    /// Where something of it lies, for people.
    fn place(&self, of: Place<'_>) -> String;

    /// The failure of a store that is there in the place of the one that is meant.
    fn wrong(&self, why: WrongStore) -> StoreError;

    /// The failure of a store that shows less than is known of it.
    fn older(&self, why: OlderStore) -> StoreError;

    /// Whether a call that failed with [`StoreErrorKind::TimedOut`] is still on: until it ends every other one fails at once.
    fn is_busy(&self) -> bool {
        false
    }

    /// A number that moves while a call goes on, but for heartbeats, which are written and read beside other calls. Where it stands
    /// still for long, the call hangs.
    fn progress(&self) -> u64;

    /// Proves that the store can be written and read now, by doing both.
    fn probe(&self) -> Result<(), StoreError>;

    /// The identity of the store and the claims in it, whichever store is expected.
    fn found(&self) -> Result<Found, StoreError>;

    /// Gives a store of an earlier version an identity, whichever is expected. Of all servers that try at the same moment one
    /// wins; the answer is the identity that the store has from then on.
    fn give_identity(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError>;

    /// From now on every call fails with [`StoreErrorKind::Wrong`] while another store is there than this one; so does a
    /// change that is under way when the store is exchanged, where a store can tell.
    fn expect(&self, identity: Option<&StoreIdentity>);

    /// Has `told` called soon after another server has made or given up a claim, by any thread. The call is a hint, and replaces
    /// no look: it may be lost, doubled or late, and a store that can only be asked never makes it. However much changes, the
    /// call comes once until [`Store::newest_claim`] is asked again. A heartbeat is no such change, for hearts beat all the time.
    /// `told` returns at once and asks nothing of the store. A later `told` takes its place.
    fn on_change(&self, told: Told) {
        drop(told);
    }

    /// The services that have a claim, in order of their names.
    fn services(&self) -> Result<Vec<ServiceName>, StoreError>;

    /// The newest claim of a service. Where it can't be read ([`Claim::unreadable`]), the generation that it began tells what
    /// it said; where it began none, that is [`StoreErrorKind::Claim`].
    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError>;

    /// Creates a claim if no server has claimed this generation. Exactly one of all servers that try wins, also on a file
    /// system shared by several servers; repeating a claim that was won is a win. None wins below the newest claim, whose
    /// owner the answer then names: the numbers of pruned claims stay used. A claim that is made as a released one takes the
    /// number and leaves the service without an owner, in one step.
    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError>;

    /// Writes a claim anew that can't be read; one that can is left as it is. For its owner alone.
    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError>;

    /// Marks a claim as given up. A claim that does not exist is an error.
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

    /// Creates a generation with all it begins with, durable and whole, or not at all. A generation that exists is left as it
    /// is: the caller resumes.
    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError>;

    /// All of one generation; one that does not exist is an error. Records that can't be read are named in [`Contents::damaged`] and left alone.
    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError>;

    /// Makes all changes of the generation that `by` has claimed durable, in order of the slice as far as one client is
    /// concerned; they share their syncs. The order between clients, state, journal and outcomes is not kept at a crash: a
    /// change that must come first is committed first. An outcome whose commit failed and is repeated may be there twice.
    ///
    /// The claim is the precondition (I3): where another server's claim has taken its place ([`Claim::gives_way_to`]), nothing
    /// is changed, and the failure is [`StoreErrorKind::NotOwner`]. A store that can makes one step of the two, so that no
    /// claim comes between. Any other store looks at the claims before it writes, as far as it can read them, and its
    /// documentation says which claims it may miss.
    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Result<(), StoreError>;

    /// The same for several services at once. A record that several of them keep is made durable once. Where one of the claims
    /// has given way, nothing is changed in any of the services.
    fn commit_each(&self, work: &[Commit]) -> Result<(), StoreError>;

    /// Claims, generations and kept tenures that there are, each falling by number.
    fn past(&self, service: &ServiceName) -> Result<Past, StoreError>;

    /// All of one generation but its records, which are only named; one that does not exist is an error.
    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError>;

    /// Keeps what is told of a generation that is about to be removed, unless it is kept already. Of
    /// [`crate::limits::TENURES_KEPT`] the oldest go.
    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError>;

    /// One record; nothing where there is none, or where it can't be read.
    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record>;

    /// When a record was written as it is, in seconds since 1970; nothing where that can't be told.
    fn written_at_s(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<u64>;

    /// Removes generations older than `keep_from`, claims included, but never the newest of either.
    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError>;

    /// Reads the heartbeats of all servers and writes this server's, in this order.
    fn beat(&self, report: &ServerReport) -> Result<Beaten, StoreError> {
        let hearts = self.hearts()?;
        self.put_server(report)?;
        Ok(Beaten { hearts, taken: report.beat })
    }

    /// The same, and then a look at the claims of these services, beside the loop of a server: the look needs all of its time
    /// at no beat. `None` where it goes on still; then the answer of a later beat has its result.
    fn beat_and_look(
        &self,
        report: &ServerReport,
        of: &[Asked],
    ) -> Result<(Beaten, Option<Vec<Seen>>), StoreError> {
        let beaten = self.beat(report)?;
        Ok((beaten, Some(self.look(of))))
    }

    /// Looks at the claims of services, in the order in which they are asked for.
    fn look(&self, of: &[Asked]) -> Vec<Seen> {
        let see = |asked: &Asked| {
            let newest = self.newest_claim(&asked.service);
            let claimed =
                newest.as_ref().ok().and_then(|newest| newest.as_ref().map(|claim| claim.generation));
            let begun = match asked.held.or(claimed).filter(|_| newest.is_ok()) {
                Some(at_most) => self.newest_generation(&asked.service, at_most),
                None => Ok(None),
            };
            Seen { service: asked.service.clone(), newest, begun }
        };
        of.iter().map(see).collect()
    }

    /// Writes this server's heartbeat. It need not survive a crash, but must be seen by others at once.
    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError>;

    /// The heartbeats of all servers. A heartbeat that can't be read says nothing of the others.
    fn hearts(&self) -> Result<ServerHearts, StoreError>;

    /// The reports of all servers, as far as they can be read.
    fn servers(&self) -> Result<BTreeMap<ServerName, ServerReport>, StoreError> {
        let reports = self.hearts()?.reports.into_iter();
        Ok(reports.map(|(server, report)| (server, Arc::unwrap_or_clone(report))).collect())
    }
}

/// A service whose claim is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub service: ServiceName,
    /// The generation of it that the server holds which looks.
    pub held: Option<Generation>,
}

/// A service as a look at its claims showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub service: ServiceName,
    /// Its newest claim.
    pub newest: Result<Option<Claim>, StoreError>,
    /// Its newest complete generation, at or below the one that is held, or else that of the newest claim.
    pub begun: Result<Option<Generation>, StoreError>,
}

/// A function that a store calls when another server has changed it.
pub type Told = Box<dyn Fn() + Send + Sync>;

/// Changes of one generation, with the claim by which its owner makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Of which service.
    pub service: ServiceName,
    /// The claim that began the generation.
    pub by: Claim,
    /// In the order in which they are made.
    pub changes: Vec<Change>,
}

/// The results of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// The heartbeats of all servers, as they were before this one was written.
    pub hearts: ServerHearts,
    /// The beat of this server that the store has taken, and after which those were read. It is an earlier one than the last
    /// where the store is slow.
    pub taken: u64,
}

/// A place of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The store itself.
    Store,
    /// The claim of a generation.
    Claim(&'a ServiceName, Generation),
    /// All of a generation. The entries that [`Damaged::path`] names lie below it.
    Generation(&'a ServiceName, Generation),
    /// The records of a generation.
    Records(&'a ServiceName, Generation),
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// It is ours.
    Won,
    /// Another server has this generation.
    Taken(Claim),
}
