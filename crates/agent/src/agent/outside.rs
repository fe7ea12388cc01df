//! The one interface between an agent and its server: everything that an agent reads, writes and begins, but for the store.
//! Between two calls an agent does the same wherever it runs, in the product or in a simulated world.
//!
//! No call waits for a program, another server or a person. Work that takes longer than a look at a file or at a table of the
//! kernel is begun, and a message tells its result.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heirlock_core::grace::Remembered;
use heirlock_core::ledger::{Addresses, Roles};
use heirlock_core::monitor::{Event as MonitorEvent, Standing};
use heirlock_core::notify::Destination;
use heirlock_core::store::StoreError;
use heirlock_core::taken_away::TakenAway;
use heirlock_core::takeover::{End, Registrations, Takeover};
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use super::look::{Basis, Found, Placed, Recall};
use super::work::{RunNumber, RunWork, Work};
use crate::control::report::StatusReport;
use crate::status_monitor::Said;
use crate::store_memory::StoreMemory;

/// A service, and the thing that is missing at one of its addresses.
pub type Unready = (ServiceName, String);

/// A server as its agent deals with it, but for its lock managers. Errors are in words, for people. Where a method has no error, a
/// thing that can't be read is answered as one that is not there.
pub trait Outside {
    /// One of its lock managers.
    type Instance: InstanceOutside;

    // Time and chance.

    /// The time by which everything is decided. It never goes back while the agent lives.
    fn now(&self) -> Moment;

    /// Seconds since 1970 by this server's clock, which people may set. For people, and for times of weeks.
    fn wall_s(&self) -> u64;

    /// Time since this server's boot, which all its processes count alike.
    fn since_boot(&self) -> Duration;

    /// A number that is unlikely to come twice. It may be guessed.
    fn random(&mut self) -> u64;

    // The log.

    /// Whether a log line of this kind may be written now. It has a cause outside of this server, which could fill the log.
    fn may_say(&self, kind: &'static str) -> bool;

    /// Says what was suppressed by [`Outside::may_say`] and is over. `all`: the agent ends, and all of it is said.
    fn say_suppressed_lines(&self, all: bool);

    // This server.

    /// Which boot of this server runs; nothing where the kernel does not tell.
    fn boot(&self) -> Option<String>;

    /// The addresses on this server's interfaces.
    fn interface_addresses(&self) -> Vec<IpAddr>;

    // Notes for the next agent of this server. Each is replaced whole, and survives a kill of the agent.

    /// Whether this server is being maintained.
    fn is_maintained(&self) -> bool;

    /// This server is being maintained from now on, or is no more. It survives a boot.
    fn maintain(&mut self, on: bool) -> Result<(), String>;

    /// The memory of the store, of this agent, of earlier ones, and of `heirlock enable`.
    fn store_memory(&self) -> Result<StoreMemory, StoreError>;

    /// Whether this server had a store before it could remember which.
    fn had_store(&self) -> bool;

    /// Changes the memory of the store, durably. Changes that other processes wrote meanwhile stay. Answers all of it.
    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError>;

    // Its status.

    /// Whether a status that is published now is kept for a reader. It is made at each turn of the loop.
    fn shows_status(&self) -> bool {
        true
    }

    /// Makes a status known to all clients that ask for it. `looked`: when the last look began that is over.
    fn publish(&self, report: StatusReport, looked: Option<Moment>);
}

/// A lock manager of a server, with its status monitor, as the agent deals with it. As of [`Outside`].
pub trait InstanceOutside {
    // Where it serves.

    /// The node name under which its status monitor registers clients, as the kernel announces it.
    fn node(&self) -> Option<String>;

    /// Whether an address is on this server, and ready to be sent from.
    fn is_present(&self, address: IpAddr) -> bool;

    /// Where a client is, as far as its name says it by itself. An address of one link is on an interface of this server.
    fn destination_of(&self, name: &MonName) -> Option<Destination>;

    /// The hosts that are peers and those that are connected, now. `remembers`: connected hosts are asked for also where nothing
    /// is mounted.
    fn roles(&mut self, nlm_ports: &[u16], remembers: bool) -> Roles;

    /// This server's own state number, as its status monitor keeps it.
    fn own_state(&self) -> Option<StateNumber>;

    /// The lock manager, in words.
    fn lock_manager(&self) -> String;

    // Notes for the next agent. Each is replaced whole, and survives a kill of the agent.

    /// The note on grace of this boot.
    fn grace_note(&self) -> Option<Remembered>;

    /// Notes what is known of grace. Where that fails it is said, and the agent goes on.
    fn note_grace(&mut self, noted: &Remembered);

    /// The clients that were registered when the lock manager recognised for this run, in this boot. The log says so where they
    /// are not noted.
    fn registrations(&self, run: &str) -> Option<Registrations>;

    /// Notes the registered clients. Where that fails it is said, and the agent goes on.
    fn note_registrations(&mut self, registrations: &Registrations);

    /// The addresses that releases were to take away, as this agent or an earlier one noted last. A boot leaves them.
    ///
    /// # Errors
    /// Where they can't be read.
    fn taken_away(&self) -> Result<TakenAway, String>;

    /// Notes them, durably: also a loss of power leaves these or those before.
    ///
    /// # Errors
    /// Where they can't be noted.
    fn note_taken_away(&mut self, noted: &TakenAway) -> Result<(), String>;

    // The status monitor's directory.

    /// The lines that were placed and not taken away, by this agent and by earlier ones. They are no registrations.
    ///
    /// [`RunWork::Place`] and [`Work::TakePlacedAway`] change them beside the loop. They hold each line before it is placed and
    /// until it is taken away. A change makes another value of them, so that two that are the same ([`Arc::ptr_eq`]) have
    /// nothing placed or taken away between them.
    fn placed(&self) -> Placed;

    /// Whether something may have changed there since hints were last forgotten. A hint that comes where there is none wakes
    /// the agent by a message; however many come, they are one until they are forgotten.
    fn is_hinted(&self) -> bool;

    /// From now on a hint is news. To be said before a look begins.
    fn forget_hints(&mut self);

    /// Looks, now, and answers when that is done. It waits for no record that is being placed or taken away, and takes none for
    /// a registration.
    ///
    /// # Errors
    /// Why the directory can't be seen.
    fn look(&mut self, addresses: &Addresses, recall: Recall) -> Result<Found, String>;

    /// Begins a look; [`News::Looked`](super::News::Looked) tells its end, also where it fails. `anew`: nothing that
    /// earlier looks of this kind read is relied upon.
    ///
    /// # Errors
    /// Where it can't be begun: then no message comes.
    fn begin_look(&mut self, basis: Basis, addresses: Arc<Addresses>, anew: bool) -> Result<(), String>;

    /// The notes of callouts that found no agent. They stay until [`InstanceOutside::noted_is_durable`].
    fn noted_by_callouts(&mut self) -> Result<Vec<Said>, String> {
        Ok(Vec::new())
    }

    /// All that [`InstanceOutside::noted_by_callouts`] answered is durable.
    fn noted_is_durable(&mut self) -> Result<(), String> {
        Ok(())
    }

    // heirlock as the status monitor. Where it is none, no client is registered and these methods change nothing: so they stand
    // here.

    /// Tells it that a commit is over, that the store was tried, or which clients are durable in every service that this server
    /// holds.
    fn tell_monitor(&self, _event: MonitorEvent) {}

    /// The registrations of a client.
    fn registered_lines(&self, _client: &MonName) -> Vec<MonitorLine> {
        Vec::new()
    }

    /// All registrations, also those that the agent has not been told of.
    fn all_registered_lines(&self) -> Vec<MonitorLine> {
        Vec::new()
    }

    /// Whether a client may be removed from the store: it is not registered, and from now on it is not taken for durable.
    fn may_forget(&self, _client: &MonName) -> bool {
        true
    }

    /// How it stands; nothing where heirlock is not the status monitor.
    fn monitor_standing(&self) -> Option<Standing> {
        None
    }

    /// Makes it know what lies in its directory, now, and answers of which clients the files are to follow.
    ///
    /// # Errors
    /// Where the directory can't be read.
    fn read_directory(&mut self) -> Result<BTreeSet<MonName>, String> {
        Ok(BTreeSet::new())
    }

    /// Makes the files of a client say what is registered. They become durable with [`Work::SyncDirectory`].
    ///
    /// # Errors
    /// Where the directory was not read yet, or can't be written.
    fn write_registrations(&mut self, _client: &MonName, _lines: &[MonitorLine]) -> Result<(), String> {
        Ok(())
    }

    // Work that takes its time.

    /// Begins work for a run. A message that names the run tells its result, also where the work could not be begun and where
    /// it ended without a result. It may come after the run is over. Where the work hangs it never comes.
    fn begin_for(&mut self, run: RunNumber, work: RunWork);

    /// Begins work for no run. Its result is told in the same way.
    fn begin(&mut self, work: Work);

    /// Ends the telling that was begun until now: no client is told by it any more, and no message comes of it.
    fn stop_telling(&mut self);

    /// The thing that is missing at each address that is not ready, of those that the last run brought up or waits for.
    fn unready(&self) -> Vec<Unready>;

    /// Whether something rests upon the next looks at the lock manager ([`News::Observed`](super::message::News::Observed)). While
    /// nothing does, a server may look less often, as far as it learns of the end of a life at once. Said at each turn of the
    /// loop.
    fn look_closely(&self, _close: bool) {}

    /// A run is over, also one that no caller asked for. The log tells of it in any case.
    fn run_ended(&mut self, _run: &Takeover, _end: &End) {}
}

#[cfg(any(test, feature = "inside"))]
pub mod contract;
