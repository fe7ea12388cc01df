//! A run, and what its callers wait for.

use heirlock_core::takeover::{Milestone, Notice, Order, Phase, Queue, Registrations, Takeover};
use heirlock_core::{Moment, Records, ServerName, ServiceName};

use super::attempts::Attempts;
use super::waiting::Waiting;
use super::work::RunNumber;
use crate::config::Settings;
use crate::control::{Missing, Progress, Wait};

/// The run that is on.
pub struct Running {
    pub machine: Takeover,
    pub number: RunNumber,
    pub(super) todo: Queue,
    /// The callers that wait for it.
    pub waiting: Vec<Waiting>,
    /// Registrations before the lock manager recognised: a client that differs from it has come back.
    pub(crate) before: Option<Registrations>,
    /// The services that it has tried to claim; see `instance/claims.rs`.
    pub(crate) attempts: Attempts,
    /// The store's own error when its claim was put off, and until when it is tried again, where that has an end.
    pub(crate) claim_waits_for: Option<(String, Option<Moment>)>,
    /// Until when a claim that fails with the store is tried again.
    pub(crate) claim_until: Option<Moment>,
    /// Until when it is asked whether owners may be fenced, where that fails with the store.
    pub(crate) fence_until: Option<Moment>,
    /// Why it does not claim though it may, and until when that lasts where that is known; see `instance/meeting.rs`.
    pub(crate) in_line: Option<(String, Option<Moment>)>,
    /// It goes on without what it needs (`--force`, or it was accepted before).
    pub(crate) insists: bool,
    /// It goes on until clients are told, so it waits for addresses that nothing here brings.
    pub(crate) waits_for_addresses: bool,
    /// Since when the heartbeat of an owner that was said to be off is looked at.
    pub(super) owner_watched: Option<Moment>,
    /// It went on.
    pub(super) is_owner_alive: bool,
    /// Its unmet needs: why it is refused.
    pub(super) missing: Vec<Missing>,
    /// The sentences that the waiting callers are told besides.
    pub told: Vec<String>,
    /// The notice to clients that are to be told once they are durable in every service.
    pub untold: Option<Untold>,
    /// Another life of the lock manager had begun, and this run had to do what follows from it.
    pub(crate) reborn: bool,
    /// The last phase that the callers were told of.
    pub(crate) said: Option<Phase>,
    /// Since when it has been in that phase.
    pub(crate) in_phase_since: Moment,
    /// When they were last told how many have answered.
    pub(super) said_at: Moment,
}

/// The notice to clients that are to be told.
pub struct Untold {
    pub(crate) notices: Vec<Notice>,
    /// When they are told, come what may.
    pub until: Moment,
}

/// The order for a new run, and the callers that wait for it.
pub struct Commission {
    pub(crate) order: Order,
    pub(crate) waiting: Vec<Waiting>,
    /// It goes on without what it needs.
    pub(crate) insists: bool,
    /// No server ever claimed what it is to take over.
    pub(crate) starts_first: bool,
    /// The events that led to it, for its timeline.
    pub(crate) before: Vec<(Milestone, Moment)>,
}

impl Commission {
    /// No caller waits for it. It was accepted before, or no caller asks for it: so it goes on also where its needs are not met.
    pub fn unasked(order: Order) -> Self {
        Self { order, waiting: Vec::new(), insists: true, starts_first: false, before: Vec::new() }
    }
}

impl Running {
    pub(super) fn new(machine: Takeover, number: RunNumber, waiting: Vec<Waiting>) -> Self {
        Self {
            machine,
            owner_watched: None,
            is_owner_alive: false,
            number,
            todo: Queue::default(),
            waiting,
            before: None,
            attempts: Attempts::new(),
            claim_waits_for: None,
            claim_until: None,
            fence_until: None,
            in_line: None,
            insists: false,
            waits_for_addresses: false,
            missing: Vec::new(),
            told: Vec::new(),
            untold: None,
            reborn: false,
            said: None,
            in_phase_since: Moment::START,
            said_at: Moment::START,
        }
    }

    /// See [`Queue::spare`].
    pub(crate) fn spare(&mut self, present: &Records) {
        self.todo.spare(present);
    }

    /// Whether a claim of this service was tried, and the store has not said whether it came about.
    pub(crate) fn may_have_claimed(&self, service: &ServiceName) -> bool {
        self.claim_waits_for.is_some() && self.attempts.contains_key(service)
    }

    /// See [`Queue::begins`].
    pub(crate) fn begins(&self, service: &ServiceName) -> bool {
        self.todo.begins(service)
    }

    /// Tells the callers how far it is.
    pub(crate) fn say_progress(&mut self, now: Moment, settings: &Settings) {
        if !self.waiting.is_empty() {
            let progress = self.progress(now, settings);
            self.waiting.retain_mut(|waiting| waiting.responder.progress(&progress));
        }
    }

    /// How far it is.
    pub(crate) fn progress(&self, now: Moment, settings: &Settings) -> Progress {
        let of_claim = || self.claim_waits_for.as_ref().map(|(why, until)| (why.as_str(), *until));
        let store = self.todo.waits_for_store().map(|why| (why, None)).or_else(of_claim);
        let of_run = super::status::progress(now, &self.machine, settings, store);
        let in_line = self.in_line.as_ref().filter(|_| store.is_none());
        let in_line = in_line.map(|(for_what, until)| Wait::new(for_what.clone(), now, *until));
        Progress { told: self.told.clone(), wait: in_line.or(of_run.wait.clone()), ..of_run }
    }

    /// Says that the owner which was said to be off has been seen to live since. A fence that works ends its heartbeat
    /// first, so this is a slip, or a fence that failed.
    pub(super) fn say_owner_is_alive(&mut self, now: Moment, owner: &ServerName, settings: &Settings) {
        let targets = super::status::names(self.machine.targets());
        let said = format!(
            "{owner} was said to be off, and its heartbeat goes on: as long as it serves {targets}, both servers grant the same locks; \
             make sure that it is off"
        );
        tracing::error!(%owner, "{targets}: both servers grant the same locks as long as {owner} serves it, which was said to be off and whose heartbeat goes on: make sure that it is off");
        self.is_owner_alive = true;
        self.told.push(said);
        self.say_progress(now, settings);
    }

    /// When the loop must look after it again.
    pub fn due(&self) -> Option<Moment> {
        let in_line = self.in_line.as_ref().and_then(|(_, until)| *until);
        self.todo.due().into_iter().chain(self.machine.next_timeout()).chain(in_line).min()
    }
}

/// A line for each thing that is missing.
pub fn unfit(targets: &str, missing: &[Missing], insists: bool) -> String {
    let lines: String = missing.iter().map(|missing| format!("\n  {missing}")).collect();
    // A caller that insists already is refused what can't be done at all.
    let can_be_forced = !insists && missing.iter().all(|missing| missing.check != "strategy");
    let force = if can_be_forced { "\n--force adopts all the same, and locks may be lost" } else { "" };
    format!("{targets} can't be adopted here now; nothing was changed:{lines}{force}")
}
