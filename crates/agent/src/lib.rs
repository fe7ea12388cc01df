//! heirlock's agent: the work between two calls of its server and of its store. It touches nothing by itself: no file,
//! thread, socket, clock or random number is here, and a test sees to that.
//!
//! A server implements [`Outside`] and, for each of its lock managers, [`InstanceOutside`], and hands its agent one [`Message`] at a time. The product's is `this_server/` in
//! `crates/heirlock`; a simulator has its own.
//!
//! | module | holds |
//! |---|---|
//! | `agent/` | what is inside an [`Agent`] |
//! | [`config`] | what it is configured by |
//! | [`control`] | what it is asked, answers and reports |
//! | [`status_monitor`] | what a status monitor says to it |
//! | [`store_memory`] | what it remembers of its store |
//! | [`survey`] | what the store says of services and of their past |

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]
#![cfg_attr(
    not(feature = "inside"),
    allow(unreachable_pub, reason = "what tests of the program see of the inside of an agent")
)]

#[cfg(not(feature = "inside"))]
mod agent;
#[cfg(feature = "inside")]
#[doc(hidden)]
pub mod agent;
pub mod config;
pub mod control;
pub mod limits;
pub mod status_monitor;
pub mod store_memory;
pub mod survey;
#[cfg(test)]
mod tests;
pub mod words;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use heirlock_core::claim::Claim;
use heirlock_core::ledger::{Ledger, Portion};
use heirlock_core::store::Store;
use heirlock_core::takeover::Journal;
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

pub use agent::look::{Basis, Found, Look, Looked, Placed, Recall};
pub use agent::outside::{InstanceOutside, Outside, Unready};
pub use agent::status::{first as first_status, past_report};
pub use agent::work::{Fit, PlacedOf, Placing, RunNumber, RunWork, Telling, Unplaced, Work};
pub use agent::{Answered, Message, News, join_alike};

use agent::instance::Instance;
pub use config::InstanceNumber;
use config::Settings;
use control::report::StatusReport;

/// The agent of one server. One loop owns it, and calls [`Agent::do_what_is_due`] after each message, or after some that came
/// together, and when [`Agent::next_due`] has come.
pub struct Agent<O: Outside>(agent::server::Server<O>);

impl<O: Outside> Agent<O> {
    /// One with this store, of which it has read nothing yet, and with these lock managers, in the order of
    /// [`Settings::instances`].
    ///
    /// # Errors
    /// Where the store isn't what it should be, what is remembered of it can't be read, or a lock manager is missing.
    pub fn new(
        settings: Arc<Settings>,
        store: Box<dyn Store>,
        outside: O,
        lock_managers: Vec<O::Instance>,
    ) -> Result<Self> {
        agent::server::Server::new(settings, store, outside, lock_managers).map(Self)
    }

    /// Takes up what an earlier agent of this server held and left unfinished, as the store knows it. To be called once,
    /// before the first message.
    pub fn take_up(&mut self) {
        self.0.take_up();
    }

    /// heirlock is the status monitor of this lock manager from now on. `differing`: clients whose files are to follow, where its
    /// directory was read; else [`News::DirectoryRead`] tells.
    pub fn monitors(&mut self, number: InstanceNumber, differing: Option<BTreeSet<MonName>>) {
        self.0.monitors(number, differing);
    }

    /// Takes in what callouts noted while no agent answered. The agent does so by itself at each heartbeat.
    pub fn take_in_spool(&mut self) {
        self.0.take_in_spool();
    }

    /// Takes a message in, and does at once what follows from it. [`Message::Stop`] does nothing: see [`Agent::stop`].
    pub fn handle(&mut self, message: Message) {
        self.0.handle(message);
    }

    /// Does what time has brought about. A call more than needed is harmless.
    pub fn do_what_is_due(&mut self) {
        self.0.do_what_is_due();
    }

    /// When there is something to do without a message.
    pub fn next_due(&self) -> Moment {
        self.0.next_due()
    }

    /// Why the agent must end now, if so: it can't go on. To be asked after [`Agent::do_what_is_due`]; told once.
    pub fn must_end(&mut self) -> Option<String> {
        self.0.must_end()
    }

    /// Stops in order: from now on this server's silence is no reason to adopt. A run that is on goes on at the next start.
    ///
    /// # Errors
    /// Where the others can't be told.
    pub fn stop(&mut self) -> Result<()> {
        self.0.stop()
    }

    /// Its server.
    pub fn outside(&self) -> &O {
        self.0.common().outside()
    }

    /// The same, to begin what it listens to.
    pub fn outside_mut(&mut self) -> &mut O {
        self.0.common_mut().outside_mut()
    }

    /// One of its lock managers, where it has that.
    pub fn lock_manager(&self, number: InstanceNumber) -> Option<&O::Instance> {
        self.0.instances().get(number.place()).map(Instance::outside)
    }

    /// The same, to begin what it listens to.
    pub fn lock_manager_mut(&mut self, number: InstanceNumber) -> Option<&mut O::Instance> {
        self.0.instances_mut().get_mut(number.place()).map(Instance::outside_mut)
    }

    /// How this server is, now.
    pub fn status(&self) -> StatusReport {
        self.0.status()
    }

    /// The services that this server holds, as far as the agent knows.
    pub fn held(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.instances().iter().flat_map(|instance| instance.held().keys())
    }

    /// The claim by which it holds a service.
    pub fn claim_of(&self, service: &ServiceName) -> Option<&Claim> {
        self.0.instance_of(service)?.held().get(service).map(|held| &held.claim)
    }

    /// How far the run has come that began the generation of a service that it holds.
    pub fn journal_of(&self, service: &ServiceName) -> Option<&Journal> {
        self.0.instance_of(service)?.held().get(service).map(|held| &held.journal)
    }

    /// Which clients of a service that it holds are on record.
    pub fn ledger_of(&self, service: &ServiceName) -> Option<&Ledger> {
        self.0.instance_of(service)?.held().get(service).map(|held| &held.ledger)
    }

    /// The last look into the store showed all that this server holds.
    pub fn knows_its_holdings(&self) -> bool {
        self.0.knows_its_holdings()
    }

    /// Services whose adoption was interrupted, although it could be gone on with now and no run of their lock manager is on: none
    /// for longer than it takes to begin one.
    pub fn left_interrupted(&self) -> impl Iterator<Item = &ServiceName> {
        let common = self.0.common();
        self.0.instances().iter().flat_map(|instance| instance.left_interrupted(common))
    }

    /// Whether the run that is on tells this service's clients.
    pub fn run_tells(&self, service: &ServiceName) -> bool {
        self.0.instance_of(service).is_some_and(|instance| instance.run_tells(service))
    }

    /// Whether a release of this service is on.
    pub fn is_releasing(&self, service: &ServiceName) -> bool {
        self.0.instance_of(service).is_some_and(|instance| instance.is_releasing(service))
    }

    /// How many runs it has begun or gone on with.
    pub fn run_count(&self) -> u64 {
        self.0.instances().iter().map(Instance::run_count).sum()
    }

    /// How many of them for one of its lock managers.
    pub fn run_count_of(&self, number: InstanceNumber) -> u64 {
        self.0.instances().get(number.place()).map_or(0, Instance::run_count)
    }

    /// Nothing is owed to any client of what this server holds, as far as is known.
    pub fn owes_nothing(&self) -> bool {
        self.0.instances().iter().all(Instance::owes_nothing)
    }

    /// Compares so many clients of a service at one turn, and not as many as [`limits`] says: for a simulation, in which a
    /// service has few.
    pub fn compare_at_once(&mut self, clients: usize) {
        let portion = Portion::of(clients, clients, clients);
        self.0.instances_mut().iter_mut().for_each(|instance| instance.compare_at_once(portion));
    }

    /// Takes a look at a status monitor's directory for hung after `time_max`, and one that took longer than `believed_max` for too
    /// old to show who has left; and not after the times that [`limits`] says: for a simulation.
    pub fn limit_looks(&mut self, time_max: Duration, believed_max: Duration) {
        self.0.instances_mut().iter_mut().for_each(|instance| instance.limit_looks(time_max, believed_max));
    }

    /// Takes all work of a run for hung after so long, and not after the times that [`limits`] and the settings say: for a
    /// simulation, which lasts some minutes.
    pub fn limit_work(&mut self, limit: Duration) {
        self.0.instances_mut().iter_mut().for_each(|instance| instance.limit_work(limit));
    }

    /// Nothing is on that was asked for or begun: no run, no release, no request for a service that is at home here, and nothing
    /// that waits for the store. Captures and heartbeats go on.
    pub fn is_at_rest(&self) -> bool {
        self.0.instances().iter().all(Instance::is_at_rest)
    }
}
