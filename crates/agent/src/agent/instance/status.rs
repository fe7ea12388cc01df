//! The part of one lock manager and its services in the reports.

use heirlock_core::duty::has_failed;
use heirlock_core::store::{Damaged, Place};
use heirlock_core::takeover::Takeover;
use heirlock_core::{Moment, Outcome, RecordKey, ServiceName};

use super::Instance;
use super::silence::LeftTo;
use crate::agent::common::Common;
use crate::agent::holdings::Held;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::status::{millis, more_strays, of_journal, of_run, some_of, unready_of};
use crate::config::ServiceSettings;
use crate::control::report::{
    AdoptionReport, ClientStatus, LockManagerStatus, NamedLockManager, Problem, ProblemKind, ServiceStatus,
};
use crate::limits;
use crate::survey::present::{names as names_in, unreadable_claim};

impl<O: Outside> Instance<O> {
    /// Adds the clients that the adoption of a service did not tell and that have not come back since.
    fn add_missed(&self, status: &mut ServiceStatus, held: &Held) {
        let is_away = |key: &RecordKey| !self.capture.found().clients.contains_key(key);
        for (key, line) in held.missed().filter(|(key, _)| is_away(key)) {
            match line.outcome {
                Outcome::Lost => status.lost += 1,
                _ => status.unreachable += 1,
            }
            if status.missed.len() < limits::STATUS_CLIENTS_MAX {
                let record = held.ledger.stored().get(key);
                status.missed.push(ClientStatus {
                    client: key.to_string(),
                    names: record.map(|record| names_in(key.client(), record)).unwrap_or_default(),
                    outcome: Some(line.outcome),
                    since_s: Some(held.journal.started_at_s.saturating_add_signed(line.at_ms / 1_000)),
                    why: line.why.clone(),
                });
            }
        }
    }

    pub(crate) fn service_status(
        &self,
        server: &Common<O>,
        now: Moment,
        service: &ServiceName,
    ) -> ServiceStatus {
        let held = self.held.get(service);
        let running = self.run_with(service);
        let in_line = running.and_then(|running| running.in_line.as_ref());
        let machine = running.map(|running| &running.machine);
        let claim = held.map(|held| &held.claim).or_else(|| self.others.get(service));
        let phase = machine.map(Takeover::phase).or_else(|| held.map(|held| held.journal.phase));
        let configured = server.settings().service(service);
        let left_to = self.left_to.get(service);
        let counts = machine.map(|machine| machine.counts_of(service).unwrap_or_else(|| machine.counts()));
        let left = machine.and_then(|machine| machine.grace_left(now));
        let adopted = held.filter(|held| !held.journal.timeline.is_empty());
        let mut status = ServiceStatus {
            service: service.to_string(),
            owner: claim.filter(|claim| !claim.released).map(|claim| claim.owner.to_string()),
            released_by: claim.filter(|claim| claim.released).map(|claim| claim.owner.to_string()),
            held: held.is_some(),
            configured: configured.is_some(),
            home: configured.and_then(|service| service.home.as_ref()).map(ToString::to_string),
            automatic: configured.is_some_and(ServiceSettings::is_adopted_unasked),
            left_to: left_to.map(|left| left.in_words(server.settings().heartbeat.candidate_time)),
            lacks_candidates: matches!(left_to, Some(LeftTo::Nobody(_))),
            generation: claim.map(|claim| claim.generation.0),
            state_number: held.map(|held| held.state.0),
            records: held.map_or(0, |held| held.ledger.stored().len()),
            tombstones: held.map_or(0, |held| held.ledger.tombstones()),
            phase: phase.map(|phase| phase.to_string()),
            // An adoption that is told beside it goes on with it, and by no word of its own.
            awaits_finish: machine.is_some_and(|machine| {
                let is_target = machine.targets().contains(service);
                (machine.awaits_finish() && is_target) || machine.is_prepared_besides(service)
            }),
            waits_for: in_line.map(|(for_what, _)| for_what.clone()).or_else(|| self.coming(service)),
            clients_to_tell: counts.map(|(clients, _)| clients),
            clients_told: counts.map(|(_, told)| told),
            grace_left_ms: left.map(millis),
            adopted_at_s: adopted.map(|held| held.journal.started_at_s),
            failure: held.and_then(|held| held.journal.failure.clone()),
            ..ServiceStatus::default()
        };
        if let Some(held) = held {
            self.add_missed(&mut status, held);
            if machine.is_none() {
                let has_failed = has_failed(&held.journal, status.lost + status.unreachable > 0);
                status.phase = Some(held.journal.phase.shown(has_failed).to_string());
            }
        }
        status
    }

    /// What a service waits for that is to come here, or that a caller has moved to another server.
    fn coming(&self, service: &ServiceName) -> Option<String> {
        let to_another = || Some(format!("{} to take it over", self.moves.target_of(service)?));
        self.wishes.waits_for(service).map(str::to_owned).or_else(to_another)
    }

    /// How it is.
    pub(crate) fn lock_manager_status(&self) -> LockManagerStatus {
        LockManagerStatus {
            kind: self.settings.lock_manager.kind.as_str().into(),
            incarnation: self.lives.running().map(ToString::to_string),
            serving: self.lives.is_serving(),
            needed: self.needs_a_lock_manager(),
        }
    }

    /// The same with its name, where there are several.
    pub(crate) fn named_status(&self, server: &Common<O>, now: Moment) -> NamedLockManager {
        let standing = self.outside.monitor_standing();
        let is_failing = standing.is_some_and(|standing| standing.failing || !standing.at_risk.is_empty());
        NamedLockManager {
            name: self.settings.name.to_string(),
            status: self.lock_manager_status(),
            captures_by: self.settings.capture.mode.as_str().into(),
            captures_all: self.captures_all(server) && server.store_error().is_none() && !is_failing,
            looked_ms_ago: self.capture.looked().map(|at| millis(now.since(at))),
            services: self.services(server).map(|service| service.name.to_string()).collect(),
        }
    }

    /// It does not run, and clients are without it.
    pub(crate) fn lacks_its_lock_manager(&self) -> bool {
        self.lives.running().is_none() && self.needs_a_lock_manager()
    }

    /// Whether clients would be without one: on a standby that holds nothing but its own name, without a client, none
    /// need run.
    pub(crate) fn needs_a_lock_manager(&self) -> bool {
        self.held.iter().any(|(service, held)| !service.is_host() || !held.ledger.stored().is_empty())
    }

    /// The problems of what is going on here.
    pub(crate) fn problems_of_work(&self) -> Vec<Problem> {
        let mut problems = self.monitor_problems();
        problems.extend(self.earlier_lock_problems());
        let left_behind = self.left_behind_problems();
        problems
            .extend(left_behind.iter().map(|why| Problem::new(ProblemKind::AddressLeftBehind).saying(why)));
        problems.extend(self.taken_away_problems());
        problems
    }

    /// The problems with the records of its services, and with what these need.
    pub(crate) fn problems_of_records(&self, server: &Common<O>) -> Vec<Problem> {
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable
            .map(|(service, why)| Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(why));
        let mut problems: Vec<Problem> = unreadable.collect();
        problems.extend(self.others.iter().filter_map(|(service, claim)| unreadable_claim(service, claim)));
        let no_record = |problem: &heirlock_core::ledger::Problem| {
            Problem::new(ProblemKind::NoRecord).at(&problem.path).saying(&problem.why)
        };
        let sm = self.settings.state_directory.display().to_string();
        problems
            .extend(some_of(self.capture.known_problems().iter(), no_record, |more| more_strays(&sm, more)));
        // While a run waits for them the run says so.
        let missing = if self.run.is_none() { self.outside.unready() } else { Vec::new() };
        let missing = missing.into_iter().filter(|(service, _)| self.held.contains_key(service));
        problems.extend(
            missing
                .map(|(service, why)| Problem::new(ProblemKind::NotReady).of(service.as_str()).saying(&why)),
        );
        let full = self.held.iter().filter(|(_, held)| held.ledger.refused() > 0);
        problems.extend(full.map(|(service, held)| {
            Problem::new(ProblemKind::NoRoom).of(service.as_str()).with(held.ledger.refused())
        }));
        for (service, held) in &self.held {
            let folder = server.store().place(Place::Generation(service, held.claim.generation));
            let damaged = |damaged: &Damaged| {
                let path = format!("{folder}/{}", damaged.path);
                Problem::new(ProblemKind::NoRecord).at(&path).saying(&damaged.why)
            };
            problems.extend(some_of(held.unreadable(), damaged, |more| more_strays(&folder, more)));
        }
        problems
    }

    /// Every registration that a look can find was found, and is in the store.
    pub(crate) fn captures_all(&self, server: &Common<O>) -> bool {
        self.capture.is_complete() && self.holdings_known && self.unread_service(server).is_none()
    }

    /// The report of the last adoption of a service, or of the one that is on.
    pub(crate) fn report_of(&self, server: &Common<O>, service: &ServiceName) -> Option<AdoptionReport> {
        if let Some(running) = self.run_with(service) {
            let unready = self.outside.unready();
            let (now, store) = (server.now(), server.store());
            return Some(of_run(now, &running.machine, service, store, &unready));
        }
        let held = self.held.get(service).filter(|held| !held.journal.timeline.is_empty())?;
        Some(AdoptionReport {
            unready: unready_of(service, &self.outside.unready()),
            ..of_journal(service, held, server.store())
        })
    }
}
