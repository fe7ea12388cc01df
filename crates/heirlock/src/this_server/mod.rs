//! This server, as its agent has to do with it: the clock, files, tables of the kernel. Nothing is decided here.

mod clock;
mod notes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use heirlock_core::Moment;
use heirlock_core::grace::Remembered;
use heirlock_core::ledger::Roles;
use heirlock_core::notify::Destination;
use heirlock_core::takeover::{Conveyance, Registrations};
use heirlock_nsm::{MonName, MyName, StateNumber};

use crate::agent::outside::{Outside, Placed, Unplaced};
use crate::callout::{Said, Spool};
use crate::config::Settings;
use crate::convey::Conveyor;
use crate::files::Folder;
use crate::roles::Peers;
use crate::store::StoreError;
use crate::store::memory::{StoreMemory, had_one};
use crate::{boot, interfaces, monitor, notifier, presence};

pub(crate) use clock::Clock;

/// The server that this process runs on.
pub(crate) struct ThisServer {
    settings: Arc<Settings>,
    pub(crate) clock: Clock,
    conveyor: Conveyor,
    peers: Peers,
}

impl ThisServer {
    /// With what an earlier agent left here.
    ///
    /// # Errors
    /// Where what was conveyed can't be known.
    pub(crate) fn open(settings: &Arc<Settings>) -> Result<Self> {
        Ok(Self {
            clock: Clock::start(),
            conveyor: open_conveyor(settings)?,
            peers: Peers::of(Path::new("/proc")),
            settings: Arc::clone(settings),
        })
    }
}

/// What an earlier agent conveyed is remembered, and what it left half written is removed.
fn open_conveyor(settings: &Settings) -> Result<Conveyor> {
    let conveyor =
        Conveyor::open(&settings.state_directory, &settings.local_directory).with_context(|| {
            format!("can't read what was conveyed, in {}", settings.local_directory.display())
        })?;
    if let Err(error) = conveyor.tidy() {
        tracing::warn!(%error, "what an earlier agent left half written could not be removed: {error}");
    }
    Ok(conveyor)
}

impl Outside for ThisServer {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall_s(&self) -> u64 {
        clock::wall_s()
    }

    fn since_boot(&self) -> Duration {
        clock::since_boot()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }

    fn boot(&self) -> Option<String> {
        boot::id().ok()
    }

    fn node(&self) -> Option<String> {
        rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
    }

    fn interface_addresses(&self) -> Vec<IpAddr> {
        interfaces::addresses(Path::new("/proc"))
    }

    fn is_present(&self, address: IpAddr) -> bool {
        presence::is_present(address)
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        notifier::destination_of(name)
    }

    fn roles(&mut self, nlm_ports: &[u16], remembers: bool) -> Roles {
        self.peers.roles(nlm_ports, remembers)
    }

    fn own_state(&self) -> Option<StateNumber> {
        let folder = Folder::open(&self.settings.state_directory).ok()?;
        let bytes = monitor::read_state(&folder).ok()?;
        StateNumber::parse_file(&bytes).ok()
    }

    fn is_maintained(&self) -> bool {
        notes::is_maintained(&self.settings)
    }

    fn maintain(&mut self, on: bool) -> Result<(), String> {
        notes::maintain(&self.settings, on)
    }

    fn grace_note(&self) -> Option<Remembered> {
        notes::grace(&self.settings.runtime_directory)
    }

    fn note_grace(&mut self, noted: &Remembered) {
        notes::note_grace(&self.settings.runtime_directory, noted);
    }

    fn registrations(&self, run: &str) -> Option<Registrations> {
        notes::registrations(&self.settings.runtime_directory, run)
    }

    fn note_registrations(&mut self, registrations: &Registrations) {
        notes::note_registrations(&self.settings.runtime_directory, registrations);
    }

    fn store_memory(&self) -> Result<StoreMemory, StoreError> {
        StoreMemory::load(&self.settings.local_directory)
    }

    fn had_store(&self) -> bool {
        had_one(&self.settings.local_directory)
    }

    fn remember_store(&mut self, change: &dyn Fn(&mut StoreMemory)) -> Result<StoreMemory, StoreError> {
        StoreMemory::update(&self.settings.local_directory, change)
    }

    fn placed(&self) -> &Placed {
        self.conveyor.placed()
    }

    fn place(
        &mut self,
        records: &BTreeMap<MonName, Vec<u8>>,
        how: Conveyance,
        my_name: &MyName,
    ) -> Result<Unplaced, String> {
        self.conveyor.place(records, how, my_name).map_err(|error| error.to_string())
    }

    fn take_placed_away(&mut self) -> Result<Unplaced, String> {
        self.conveyor.clean_up().map_err(|error| error.to_string())
    }

    fn noted_by_callouts(&mut self) -> Result<Vec<Said>, String> {
        self.spool().take().map_err(|error| error.to_string())
    }

    fn noted_is_durable(&mut self) -> Result<(), String> {
        self.spool().done().map_err(|error| error.to_string())
    }
}

impl ThisServer {
    fn spool(&self) -> Spool {
        Spool::in_state_directory(&self.settings.state_directory)
    }
}
