//! One lock manager of this server, and all that its agent does for its services: capture, runs, releases, returns.
//!
//! Its methods are handed what the lock managers of a server have in common, and no instance knows of another one.
//!
//! | file | holds |
//! |---|---|
//! | `capture.rs` | from the status monitor's directory to durable records |
//! | `monitor.rs`, `callouts.rs` | the commits that a status monitor waits for: durable before acknowledged |
//! | `services.rs`, `acquaintance.rs` | how services come to be held, and whether the store still has all of them |
//! | `recovery.rs` | the lives of the lock manager, and self-adoption |
//! | `runs.rs`, `asked.rs`, `meeting.rs`, `claims.rs`, `conveying.rs`, `mend.rs`, `shared.rs`, `elsewhere.rs` | a run, carried out |
//! | `requests.rs`, `release.rs`, `bring_back.rs`, `wishes.rs`, `moves.rs`, `left_behind.rs` | the verbs of the control socket, and what follows from them |
//! | `put_off.rs` | what waits for a slow store |
//! | `status.rs` | its part of the reports |

mod acquaintance;
mod asked;
mod bring_back;
mod callouts;
mod capture;
mod claims;
mod conveying;
mod elsewhere;
mod left_behind;
mod meeting;
mod mend;
mod monitor;
mod moves;
mod put_off;
mod recovery;
mod release;
pub mod requests;
mod runs;
#[cfg(feature = "inside")]
mod seen;
mod services;
mod shared;
mod silence;
mod status;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::duty::Owed;
use heirlock_core::ledger::Portion;
use heirlock_core::left_behind::LeftBehind;
use heirlock_core::lives::Lives;
use heirlock_core::planted::{Bug, planted};
use heirlock_core::store::FurtherLockManager;
use heirlock_core::takeover::{Phase, TimeLimits};
use heirlock_core::{LockManagerName, Moment, ServiceName};
use heirlock_nsm::StateNumber;

use self::moves::Moves;
use self::silence::LeftTo;
use super::capture::Capture;
use super::common::Common;
use super::conveying::Conveying;
use super::facts::Facts;
use super::grace::{GraceInquiry, GraceNote};
use super::holdings::Held;
use super::message::News;
use super::monitoring::Monitoring;
use super::outside::{InstanceOutside, Outside};
use super::put_off::PutOff;
use super::releases::Releases;
use super::running::Running;
use super::shared::Shared;
use super::taken_away::TakenAddresses;
use super::wishes::Wishes;
use super::work::{RunNumber, Work, time_limits};
use crate::config::{InstanceNumber, InstanceSettings, ServiceSettings};

/// One lock manager, and its services.
pub struct Instance<O: Outside> {
    number: InstanceNumber,
    settings: InstanceSettings,
    outside: O::Instance,
    capture: Capture,
    /// In mode `nsm`.
    monitoring: Option<Monitoring>,
    lives: Lives,
    grace_inquiry: GraceInquiry,
    grace_note: GraceNote,
    nlm_ports: Vec<u16>,
    facts: Facts,
    held: BTreeMap<ServiceName, Held>,
    /// The last look into the store showed all that is ours. Else a run could drop locks of clients that no run tells.
    holdings_known: bool,
    /// Services that this server may hold, and of which no look has shown yet whether it does.
    unread: BTreeSet<ServiceName>,
    /// Records that an earlier run left in the status monitor's directory were taken away, or a run goes on with them.
    is_tidied: bool,
    /// When the claims of all services were last looked at.
    claims_seen_at: Option<Moment>,
    /// Claims of services that another server holds, or none.
    others: BTreeMap<ServiceName, Claim>,
    /// Services of which the store can't say whose they are, and why.
    unreadable: BTreeMap<ServiceName, String>,
    /// The services of another server whose address was on this one.
    left_behind: LeftBehind,
    /// The run that is on: a self-adoption, or what was asked for and has claimed.
    run: Option<Running>,
    /// Runs that were asked for and have claimed nothing yet, in the order of the requests: one for a service at most.
    asked: Vec<Running>,
    /// Until when the run that is on holds the restart of the lock manager, since adoptions may join it that were asked for.
    held_until: Option<Moment>,
    /// The number of the last run that this agent began or went on with.
    last_run: RunNumber,
    shared: Shared,
    conveying: Conveying,
    releases: Releases,
    /// Addresses that releases took away, as far as it is not known that this is over.
    taken_away: TakenAddresses,
    put_off: PutOff,
    wishes: Wishes,
    moves: Moves,
    /// Before this moment no service of this name is adopted without being asked.
    unasked_not_before: BTreeMap<ServiceName, Moment>,
    /// Services whose owners are silent, and which this server does not adopt without being asked.
    left_to: BTreeMap<ServiceName, LeftTo>,
    /// How long the work of a run may take.
    time_limits: TimeLimits,
}

impl<O: Outside> Instance<O> {
    /// One of which nothing is known yet.
    pub(crate) fn new(
        server: &Common<O>,
        number: InstanceNumber,
        settings: InstanceSettings,
        outside: O::Instance,
    ) -> Self {
        let time_limits = time_limits(server.settings(), &settings.lock_manager);
        let mut instance = Self {
            number,
            settings,
            outside,
            capture: Capture::new(),
            monitoring: None,
            lives: Lives::default(),
            grace_inquiry: GraceInquiry::default(),
            grace_note: GraceNote::default(),
            nlm_ports: Vec::new(),
            facts: Facts::default(),
            held: BTreeMap::new(),
            holdings_known: false,
            unread: BTreeSet::new(),
            is_tidied: false,
            claims_seen_at: None,
            others: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            left_behind: LeftBehind::default(),
            run: None,
            asked: Vec::new(),
            held_until: None,
            last_run: RunNumber::default(),
            shared: Shared::default(),
            conveying: Conveying::default(),
            releases: Releases::default(),
            taken_away: TakenAddresses::default(),
            put_off: PutOff::default(),
            wishes: Wishes::default(),
            moves: Moves::default(),
            unasked_not_before: BTreeMap::new(),
            left_to: BTreeMap::new(),
            time_limits,
        };
        instance.unread = instance.services_looked_at(server).cloned().collect();
        instance
    }

    /// Takes up what an earlier agent left. What is held was looked up before.
    pub(crate) fn take_up(&mut self, server: &mut Common<O>) {
        let known = self.known_life(server);
        let recalled = self.grace_note.recall(known.as_ref(), &self.outside, server.clocks());
        self.lives = Lives::new(known, recalled);
        self.recall_taken_away(server);
    }

    /// Takes in what is new, and does at once what follows from it.
    pub(crate) fn hear(&mut self, server: &mut Common<O>, now: Moment, news: News) {
        match news {
            News::Looked(looked) => self.looked(server, now, *looked),
            News::DirectoryRead(read) => self.directory_read(server, *read),
            News::DirectorySynced(synced) => self.directory_synced(synced),
            News::Observed(look) => self.observed(server, *look),
            News::GraceAsked(life, answer) => self.grace_asked(&life, answer),
            News::NlmPorts(ports) => self.nlm_ports = ports,
            News::Event(run, event) => self.worked_for(server, run, event),
            News::ServesNobody(run, why) => self.serves_nobody(server, run, why),
            News::Fit(run, fit) => self.looked_for_needs(server, run, fit),
            News::HomeLookedFor(service, fit) => self.wish_looked_for(server, &service, fit),
            News::Placed(run, done) => self.placed(server, run, done),
            News::PlacedTakenAway(done) => self.placed_taken_away(server, now, done),
            News::Recognised(run, done) => self.recognised(server, run, *done),
            News::Facts(known) => {
                if self.facts.gathered(now, known) {
                    server.beat_at(now); // other servers compare it with their own
                }
            }
            News::Resolved(name, found) => self.resolved(server, now, &name, found),
            News::AddressGone(service, gone) => self.address_gone(server, now, &service, gone),
            News::AddressBack(service, back) => self.address_back(server, now, &service, &back),
            News::VolumeGone(service, gone) => self.volume_gone(&service, &gone),
            News::HookRan(hook, took, is_done) => server.counts_mut().hooks.of_mut(hook).ended(took, is_done),
            News::Monitor(wanted) => self.wanted(server, now, wanted),
            News::Callout(said, answered) => self.called_out(server, now, now, said, answered),
            // The hint is noted where the next look finds it; this only wakes the loop.
            News::Changed => {}
        }
    }

    /// The facts that other servers compare with their own.
    pub(crate) fn facts(&mut self, server: &mut Common<O>, now: Moment) -> BTreeMap<String, String> {
        if self.facts.begins(now) {
            server.look_at_addresses();
            self.outside.begin(Work::GatherFacts);
        }
        self.facts.known().clone()
    }

    /// The configured services that it serves.
    pub(crate) fn services<'a>(
        &self,
        server: &'a Common<O>,
    ) -> impl Iterator<Item = &'a ServiceSettings> + Clone + use<'a, O> {
        let number = self.number;
        server.settings().services.iter().filter(move |service| is_served_by(number, service))
    }

    /// When there is something to do without a message.
    pub(crate) fn next_due(&self, server: &Common<O>) -> Option<Moment> {
        let runs = self.asked.iter().chain(&self.run);
        let due = [
            runs.filter_map(Running::due).min(),
            self.held_until(),
            self.capture_due(server),
            self.shared.due(),
            self.returns_due(),
            self.files_due(),
            self.put_off.due(),
            self.releases.due(),
            self.taken_away.due(),
            self.conveying.due(),
        ];
        due.into_iter().flatten().min()
    }

    // Steps of a turn, in their order (`server.rs`).

    /// Ends what has waited for too long, and begins or tries again what waits no more.
    pub(crate) fn end_what_hangs(&mut self, server: &mut Common<O>, now: Moment) {
        // At most turns nothing waits for the store.
        if !self.put_off.is_empty() {
            self.end_messages_put_off_too_long(server, now);
            self.try_again(server, now);
        }
        self.end_releases_that_hang(server, now);
        self.end_returns_that_hang(now);
        self.begin_releases_that_wait(server, now);
    }

    /// Tells the run that is on which clients came back, and the runs that were asked for that time has passed.
    pub(crate) fn tick_asked_run(&mut self, server: &mut Common<O>, now: Moment) {
        self.say_who_came(server, now);
        self.tick_asked(server, now);
    }

    /// Tells the run that is on that time has passed.
    pub(crate) fn tick_own_run(&mut self, server: &mut Common<O>, now: Moment) {
        self.tick_run(server, now);
        self.say_if_conveyed_stays(server, now);
    }

    /// Makes more of an adoption's clients durable in its other services, and tells them once they are.
    pub(crate) fn go_on_sharing(&mut self, server: &mut Common<O>, now: Moment) {
        self.share_a_portion(server, now);
        self.notify_once_shared(server, now);
    }

    /// Goes on with what was interrupted, once a look has shown which clients are registered.
    pub(crate) fn recover_once_looked(&mut self, server: &mut Common<O>, now: Moment) {
        if self.capture.has_looked() {
            self.recover(server, now);
        }
    }

    /// Tends its status monitor, at the end of a turn. The store is not asked.
    pub(crate) fn end_turn(&mut self, server: &Common<O>) {
        self.tend_directory(server.now());
        self.tell_durable(server);
        self.outside.look_closely(self.rests_upon_looks());
    }

    /// Does what follows from a look at the hearts of all servers and at what is held.
    pub(crate) fn follow_beat(&mut self, server: &mut Common<O>, now: Moment) {
        self.look_for_silence(server, now);
        self.answer_wishes(server, now);
        // After what other servers ask for: what one of them waits for goes on, and is not brought back first.
        self.bring_addresses_back(server, now);
        self.fulfil_wishes(server, now);
        self.follow_moves(server, now);
        self.say_releases(now);
        self.forget_the_unreachable(server, now);
    }

    /// Ends what would outlive its agent.
    pub(crate) fn stop(&mut self, server: &mut Common<O>) {
        self.stop_notifying();
        self.say_ends(server);
    }

    /// Its name.
    pub(crate) fn name(&self) -> &LockManagerName {
        &self.settings.name
    }

    /// The part of a heartbeat that speaks of it, where it is not the first.
    pub(crate) fn in_a_heartbeat(&mut self, server: &mut Common<O>, now: Moment) -> FurtherLockManager {
        FurtherLockManager {
            name: self.settings.name.clone(),
            incarnation: self.lives.running().cloned(),
            node: self.outside.node(),
            facts: self.facts(server, now),
        }
    }

    /// This server's own NSM state number, as its status monitor keeps it.
    pub(crate) fn own_state(&self) -> Option<StateNumber> {
        self.outside.own_state()
    }

    /// The store could not be read: what is held may not be all.
    pub(crate) fn doubt_holdings(&mut self) {
        self.holdings_known = false;
    }

    /// The last look into the store showed all that is ours.
    pub(crate) fn knows_its_holdings(&self) -> bool {
        self.holdings_known
    }

    /// Everything that a look found is in the store.
    pub(crate) fn is_caught_up_with(&self) -> bool {
        !self.capture.is_behind()
    }

    /// As the agent deals with it.
    pub(crate) fn outside(&self) -> &O::Instance {
        &self.outside
    }

    /// The same, to change something there.
    pub(crate) fn outside_mut(&mut self) -> &mut O::Instance {
        &mut self.outside
    }

    /// The services that it holds.
    pub(crate) fn held(&self) -> &BTreeMap<ServiceName, Held> {
        &self.held
    }

    /// Its lives, and what they ask for.
    pub(crate) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// What is known of its registrations.
    pub(crate) fn capture(&self) -> &Capture {
        &self.capture
    }

    /// Takes work of a run for hung after so long.
    pub(crate) fn limit_work(&mut self, limit: Duration) {
        self.time_limits = TimeLimits::each(limit);
    }

    /// Takes a look for hung after so long, and for old after `believed_max`.
    pub(crate) fn limit_looks(&mut self, time_max: Duration, believed_max: Duration) {
        self.capture.limits_looks(time_max, believed_max);
    }

    /// Compares so many clients of a service at one turn.
    pub(crate) fn compare_at_once(&mut self, portion: Portion) {
        self.capture.compares_at_once(portion);
    }

    /// Whether the run that is on tells this service's clients.
    pub(crate) fn run_tells(&self, service: &ServiceName) -> bool {
        self.run.as_ref().is_some_and(|running| running.machine.has_member(service))
    }

    /// Nothing is on that was asked for or begun, and nothing waits for the store.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.run.is_none()
            && self.asked.is_empty()
            && !self.releases_are_on()
            && self.wishes.is_empty()
            && self.moves.is_empty()
            && self.put_off.is_empty()
            && self.conveying.is_over()
    }

    /// Nothing is owed to any client of what is held.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.owed() == Owed::default()
    }

    /// How many runs it has begun or gone on with.
    pub(crate) fn run_count(&self) -> u64 {
        self.last_run.count()
    }

    /// Services whose adoption was interrupted, although it could be gone on with now and no run is on.
    pub(crate) fn left_interrupted(&self, server: &Common<O>) -> impl Iterator<Item = &ServiceName> {
        let may_go_on = self.run.is_none()
            && self.asked.is_empty()
            && server.health().error().is_none()
            && self.holdings_known
            && self.lives.to_recover_in().is_some();
        let is_interrupted = |held: &Held| {
            let journal = &held.journal;
            journal.life.is_none() && matches!(journal.phase, Phase::Claimed | Phase::Conveyed)
        };
        let left = self.held.iter().filter(move |(service, held)| {
            may_go_on && !self.releases.has_no_address(service) && is_interrupted(held)
        });
        left.map(|(service, _)| service)
    }
}

/// Whether the lock manager of this number serves a service.
fn is_served_by(number: InstanceNumber, service: &ServiceSettings) -> bool {
    service.instance == number || planted(Bug::ServeAll)
}
