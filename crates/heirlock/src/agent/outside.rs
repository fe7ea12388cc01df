//! All that an agent reads, writes and asks of its server, but the store: one interface. What an agent does between two calls
//! of it is the same wherever it runs, in the product or in a world that is simulated.
//!
//! No call waits for a program, another server or a person. What takes longer than a look at a file or at a table of the
//! kernel is begun, and what came of it comes as a message.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::grace::Remembered;
use heirlock_core::ledger::Roles;
use heirlock_core::notify::Destination;
use heirlock_core::takeover::{Conveyance, Registrations};
use heirlock_nsm::{MonName, MyName, StateNumber};

use crate::callout::Said;
use crate::store::StoreError;
use crate::store::memory::StoreMemory;

/// The lines that were placed, by file.
pub(crate) type Placed = Arc<BTreeMap<MonName, Vec<u8>>>;

/// Clients whose file is not as it should be, and why. It concerns no other client.
pub(crate) type Unplaced = Vec<(MonName, String)>;

/// What an agent has to do with, besides its store. Errors are in words, for people; what can't be read and is not needed
/// is said to be nothing.
pub(crate) trait Outside {
    // Time and chance.

    /// The time by which everything is decided. It never goes back while the agent lives.
    fn now(&self) -> Moment;

    /// Seconds since 1970 by this server's clock, which people may set. For people, and for what lasts weeks.
    fn wall_s(&self) -> u64;

    /// Time since this server's boot, which all its processes count alike.
    fn since_boot(&self) -> Duration;

    /// A number that is unlikely to come twice. That nobody guesses it is not promised.
    fn random(&mut self) -> u64;

    // This server.

    /// Which boot of this server runs; nothing where the kernel does not tell.
    fn boot(&self) -> Option<String>;

    /// This server's node name, as its kernel announces it.
    fn node(&self) -> Option<String>;

    /// The addresses on this server's interfaces.
    fn interface_addresses(&self) -> Vec<IpAddr>;

    /// Whether an address is on this server, and ready to be sent from.
    fn is_present(&self, address: IpAddr) -> bool;

    /// Where a client is, as far as its name says it by itself. An address of one link is on an interface of this server.
    fn destination_of(&self, name: &MonName) -> Option<Destination>;

    /// Who is a peer and who is connected, now. `remembers`: who is connected is asked for also where nothing is mounted.
    fn roles(&mut self, nlm_ports: &[u16], remembers: bool) -> Roles;

    /// This server's own state number, as its status monitor keeps it.
    fn own_state(&self) -> Option<StateNumber>;

    // What this server notes for its next agent. Each note is replaced whole, and survives a kill of the agent.

    /// Whether this server is being maintained.
    fn is_maintained(&self) -> bool;

    /// This server is being maintained from now on, or is no more. It survives a boot.
    fn maintain(&mut self, on: bool) -> Result<(), String>;

    /// What was noted of grace in this boot.
    fn grace_note(&self) -> Option<Remembered>;

    /// Notes what is known of grace. Where that fails it is said, and the agent goes on.
    fn note_grace(&mut self, noted: &Remembered);

    /// Who was registered when the lock manager recognised for this run, in this boot. Where that is not noted it is said.
    fn registrations(&self, run: &str) -> Option<Registrations>;

    /// Notes who is registered. Where that fails it is said, and the agent goes on.
    fn note_registrations(&mut self, registrations: &Registrations);

    /// What is remembered of the store, by this agent, by earlier ones, and by `heirlock enable`.
    fn store_memory(&self) -> Result<StoreMemory, StoreError>;

    /// Whether this server had a store before it could remember which.
    fn had_store(&self) -> bool;

    /// Changes what is remembered of the store, durably. What others wrote meanwhile stays. Answers all of it.
    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError>;

    // The status monitor's directory.

    /// The lines that were placed and not taken away, by this agent and by earlier ones. They are no registrations.
    fn placed(&self) -> &Placed;

    /// Places a service's records durably, and answers which could not be. What is placed is remembered before.
    ///
    /// # Errors
    /// Where none can be placed.
    fn place(
        &mut self,
        records: &BTreeMap<MonName, Vec<u8>>,
        how: Conveyance,
        my_name: &MyName,
    ) -> Result<Unplaced, String>;

    /// Takes away all that was placed, and answers what could not be: it is remembered still.
    ///
    /// # Errors
    /// Where nothing can be taken away, or what is left can't be remembered.
    fn take_placed_away(&mut self) -> Result<Unplaced, String>;

    /// What callouts noted while no agent answered. It stays until [`Outside::noted_is_durable`].
    fn noted_by_callouts(&mut self) -> Result<Vec<Said>, String>;

    /// All that [`Outside::noted_by_callouts`] answered is durable.
    fn noted_is_durable(&mut self) -> Result<(), String>;
}
