//! A drill of an adoption, carried out on this host: everything short of the claim and of the restart.
//!
//! | step | looks at | file |
//! |---|---|---|
//! | store | the claim, the records and the last adoptions of the service | `on_record.rs` |
//! | needs | what an adoption needs of this host (`guard`), and what other servers do otherwise | here |
//! | fence | `hooks.fence-check`, never the fence | here |
//! | clients | the rpcbind of each, then its status monitor, by the notifier's own ways | `clients.rs` |
//!
//! Nothing stays of it but its result (`kept.rs`). [`heirlock_core::drill`] decides what the findings amount to. The work is for a
//! thread of its own: any step may hang with a disk or a program.

mod clients;
pub(crate) mod kept;
mod on_record;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use heirlock_core::claim::{Authority, OwnerHeart, check_first, next_generation};
use heirlock_core::drill::estimate::{Measured, estimate};
use heirlock_core::drill::{self, Check, Finding, Unreached, Verdict};
use heirlock_core::{ServerName, ServiceName};

use crate::config::Settings;
use crate::control::report::{DrillReport, ProblemKind, StatusReport};
use crate::host::Host;
use crate::limits::{
    DRILL_ASK_TIME_MAX, DRILL_CLIENTS_MAX, DRILL_STORE_TIME_MAX, INTENT_TIME_MAX, KILLED_TIME_MAX,
};
use crate::lock_manager::{self, LockManager};
use crate::{guard, hooks, store};

use clients::Asked;
use on_record::OnRecord;

/// The name of the check of the fence.
const FENCE: &str = "fence";

/// The name of the check of the claim.
const CLAIM: &str = "claim";

/// The step that is on, for the callers that wait.
#[derive(Debug)]
pub(crate) struct Steps(Mutex<Step>);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The thing that is waited for, as in "waiting for …".
    pub(crate) what: String,
    /// When it is over at the latest, unless something hangs.
    pub(crate) ends: Instant,
}

impl Steps {
    /// Before the first.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Step { what: "a thread".into(), ends: Instant::now() + INTENT_TIME_MAX }))
    }

    /// One that was to be over so long ago.
    #[cfg(test)]
    pub(crate) fn hanging(what: &str, since: Duration) -> Self {
        let ends = Instant::now().checked_sub(since).expect("the machine runs for longer");
        Self(Mutex::new(Step { what: what.to_owned(), ends }))
    }

    /// The one that is on.
    pub(crate) fn now(&self) -> Step {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, what: impl Into<String>, limit: Duration) {
        let step = Step { what: what.into(), ends: Instant::now() + limit };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }
}

/// A drill to be carried out.
pub(crate) struct Drill<'a> {
    pub(crate) host: &'a Host,
    /// As the lock manager that serves the service has it ([`Settings::of_instance`]).
    pub(crate) settings: &'a Settings,
    pub(crate) service: &'a ServiceName,
    /// How the agent is, when it is asked.
    pub(crate) status: &'a (dyn Fn() -> StatusReport + Sync),
    /// Seconds since 1970.
    pub(crate) at_s: u64,
    pub(crate) steps: &'a Steps,
}

/// The services that the agent adopts now, or whose clients it tells.
pub(crate) fn adopting(status: &StatusReport) -> Vec<String> {
    let is_adopted = status.services.iter().filter(|service| service.clients_to_tell.is_some());
    is_adopted.map(|service| service.service.clone()).collect()
}

impl Drill<'_> {
    /// Carries it out. Nothing where an adoption began meanwhile: it asks the same clients, and is what matters.
    pub(crate) fn carry_out(&self) -> Option<DrillReport> {
        let began = Instant::now();
        let lock_manager = lock_manager::open_on(self.settings, self.host);
        self.steps.begin("the store to tell its records", DRILL_STORE_TIME_MAX);
        let store = store::open(self.host, self.settings);
        let (on_record, mut checks) = on_record::read(store.as_ref(), self.settings, self.service);
        let is_held = self.is_held(on_record.as_ref());
        // Where the drill itself can't read the store, that has been said.
        checks.extend(on_record.as_ref().map(|_| self.of_agent()).unwrap_or_default());
        if let Some(on_record) = on_record.as_ref().filter(|_| !is_held) {
            checks.extend((!checks.iter().any(|check| check.check == CLAIM)).then(|| self.claim(on_record)));
            checks.extend(guard::differing_facts(
                self.settings,
                lock_manager.as_ref(),
                self.service,
                on_record.store,
            ));
        }
        match is_held {
            true => checks.push(self.held_here(on_record.as_ref())),
            false => checks.extend(self.needs(lock_manager.as_ref(), on_record.as_ref())),
        }
        let asked = self.ask(on_record.as_ref(), is_held)?;
        Some(self.report(began, on_record.as_ref(), is_held, checks, asked, lock_manager.as_ref()))
    }

    /// The store knows, and where it can't be read the agent.
    fn is_held(&self, on_record: Option<&OnRecord<'_>>) -> bool {
        match on_record {
            Some(on_record) => {
                on_record.claim.as_ref().is_some_and(|claim| claim.is_held_by(&self.settings.server))
            }
            None => {
                let status = (self.status)();
                status.services.iter().any(|known| known.service == self.service.as_str() && known.held)
            }
        }
    }

    /// The hindrances that the agent itself knows.
    fn of_agent(&self) -> Vec<Check> {
        let status = (self.status)();
        let mut checks = Vec::new();
        if let Some(why) = status.store.error.as_ref().filter(|_| !status.store.well) {
            let found = format!("the store fails for the agent, which would claim: {why}");
            checks.push(Check::new("agent", Finding::Unmet, found).with_remedy("see 'heirlock status'"));
        }
        let left_behind =
            status.problems.iter().filter(|problem| problem.kind == ProblemKind::AddressLeftBehind);
        checks.extend(left_behind.map(|problem| {
            let found = problem.error.clone().unwrap_or_default();
            Check::new("agent", Finding::Unmet, found).with_remedy("take that address away")
        }));
        if checks.is_empty() {
            checks.push(Check::new("agent", Finding::Met, "it answers, and its store works"));
        }
        checks
    }

    /// Whether this server might claim, once the owner is off.
    fn claim(&self, on_record: &OnRecord<'_>) -> Check {
        let (us, newest) = (&self.settings.server, on_record.claim.as_ref());
        let home = self.settings.service(self.service).and_then(|service| service.home.as_ref());
        let fenced = newest.map(|claim| claim.owner.clone());
        let authority = Authority { fenced, ..Authority::default() };
        let next = check_first(self.service, newest, us, home, &authority)
            .and_then(|()| next_generation(self.service, newest, us, OwnerHeart::NeverSeen, &authority));
        let check = CLAIM;
        match (next, newest) {
            (Err(refusal), _) => Check::new(check, Finding::Unmet, refusal.to_string()),
            (Ok(_), None) => Check::new(
                check,
                Finding::Noted,
                "no server ever claimed it: no client is on record, and none would be told",
            ),
            (Ok(next), Some(claim)) if claim.released => {
                Check::new(check, Finding::Met, format!("{} gave it up; the next is {next}", claim.owner))
            }
            (Ok(next), Some(claim)) => {
                let found =
                    format!("{} has generation {}; the next is {next}", claim.owner, claim.generation);
                Check::new(check, Finding::Met, found)
            }
        }
    }

    /// It is another server that would adopt.
    fn held_here(&self, on_record: Option<&OnRecord<'_>>) -> Check {
        let others = on_record.map(|on_record| {
            let others = on_record.servers.keys().filter(|server| **server != self.settings.server);
            others.map(ServerName::as_str).collect::<Vec<_>>().join(" or ")
        });
        let others = others.filter(|others| !others.is_empty()).unwrap_or_else(|| "the standby".to_owned());
        let found = format!(
            "this server holds {}, so it is not the one that would adopt it: its clients were asked, and nothing else",
            self.service
        );
        let remedy = format!("say 'heirlock drill {}' on {others}", self.service);
        Check::new("owner", Finding::Unchecked, found).with_remedy(remedy)
    }

    /// The host's part, and the fence's.
    fn needs(&self, lock_manager: &dyn LockManager, on_record: Option<&OnRecord<'_>>) -> Vec<Check> {
        let incarnation = self.settings.lock_manager.incarnation.as_ref();
        let limit = INTENT_TIME_MAX + incarnation.map(|command| command.time_limit).unwrap_or_default();
        self.steps.begin("what an adoption needs of this host to be looked at", limit);
        let mut checks = guard::drilled(self.host, self.settings, lock_manager, self.service);
        let owner = on_record.and_then(|on_record| on_record.claim.as_ref()).map(|claim| &claim.owner);
        checks.push(self.fence(owner));
        checks
    }

    /// Whether the fence would work, by the command that checks it. The fence itself is never run.
    fn fence(&self, owner: Option<&ServerName>) -> Check {
        let fences = &self.settings.hooks;
        let remedy = "set hooks.fence-check, which a drill runs in the fence's place";
        let (command, owner) = match (&fences.fence, &fences.fence_check, owner) {
            (None, ..) => {
                let found = "none is configured: who says 'heirlock adopt' says that the owner is off";
                return Check::new(FENCE, Finding::Noted, found);
            }
            (Some(_), None, _) => {
                let found = "it was not checked: a fence that is run turns a server off";
                return Check::new(FENCE, Finding::Unchecked, found).with_remedy(remedy);
            }
            (Some(_), Some(_), None) => {
                return Check::new(FENCE, Finding::Noted, "no server owns the service, so none is fenced");
            }
            (Some(_), Some(command), Some(owner)) => (command, owner),
        };
        self.steps.begin("hooks.fence-check", command.time_limit + KILLED_TIME_MAX);
        let mut environment = hooks::environment(self.settings, "fence-check", self.service, Some(owner));
        environment.push(("HEIRLOCK_DRY_RUN", "1".to_owned()));
        match hooks::run(command, &environment) {
            Ok(_) => Check::new(FENCE, Finding::Met, format!("hooks.fence-check: {owner} could be fenced")),
            Err(why) => {
                let found = format!("hooks.fence-check: {owner} could not be fenced now: {why}");
                let remedy = "mend the fence: an adoption that it is to confirm is refused";
                Check::new(FENCE, Finding::Unmet, found).with_remedy(remedy)
            }
        }
    }

    /// Asks the clients that are on record.
    fn ask(&self, on_record: Option<&OnRecord<'_>>, is_held: bool) -> Option<Asked> {
        let Some(on_record) = on_record else { return Some(Asked::default()) };
        let clients = on_record.clients.len();
        self.steps
            .begin(format!("{} to answer", crate::words::counted(clients, "client")), DRILL_ASK_TIME_MAX);
        let is_adopting = || !adopting(&(self.status)()).is_empty();
        let held = |service: &ServiceName| {
            let status = (self.status)();
            status.services.iter().any(|known| known.service == service.as_str() && known.held)
        };
        let from =
            clients::Vantage { host: self.host, settings: self.settings, on_record, is_held, held: &held };
        let asked = from.ask(self.service, &is_adopting);
        // One that is over already has told the clients, and the claim is another one.
        let is_over = on_record.store.newest_claim(self.service).is_ok_and(|newest| {
            newest.map(|claim| claim.generation) > on_record.claim.as_ref().map(|claim| claim.generation)
        });
        (!is_adopting() && !is_over).then_some(asked)
    }

    fn report(
        &self,
        began: Instant,
        on_record: Option<&OnRecord<'_>>,
        is_held: bool,
        checks: Vec<Check>,
        asked: Asked,
        lock_manager: &dyn LockManager,
    ) -> DrillReport {
        let Asked { answered, last_answer, mut unreached, from } = asked;
        unreached.extend(on_record.into_iter().flat_map(|on_record| on_record.unreadable.iter().cloned()));
        unreached.sort_by(drill::in_order);
        let left_out = unreached.len();
        unreached.truncate(DRILL_CLIENTS_MAX);
        let measured = Measured {
            records: on_record.map_or(0, |on_record| on_record.clients.len()),
            store_read: on_record.map(|on_record| on_record.read_in).unwrap_or_default(),
            last_answer,
            names: self.settings.announced_names(self.service).len(),
            grace: lock_manager.grace_length().ok(),
            strategy: Some(self.settings.lock_manager.strategy),
        };
        let past = on_record.map_or(&[][..], |on_record| &on_record.past);
        let owner = on_record.and_then(|on_record| on_record.claim.as_ref());
        DrillReport {
            service: self.service.to_string(),
            server: self.settings.server.to_string(),
            verdict: Verdict::of(is_held, &checks, left_out),
            owner: owner.filter(|claim| !claim.released).map(|claim| claim.owner.to_string()),
            at_s: self.at_s,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            clients: measured.records + on_record.map_or(0, |on_record| on_record.unreadable.len()),
            answered,
            left_out,
            asked_from: from.iter().map(ToString::to_string).collect(),
            estimate: estimate(past, &measured),
            checks,
            unreached,
        }
    }
}

/// The report of a drill whose step hangs: an adoption would hang there as well.
pub(crate) fn hung(
    service: &ServiceName,
    settings: &Settings,
    at_s: u64,
    took: Duration,
    what: &str,
) -> DrillReport {
    let found = format!("it hangs: it has waited for {what} for longer than that may take");
    let remedy = "find the disk or the program that hangs: an adoption would wait for it as well";
    let checks = vec![Check::new("drill", Finding::Unmet, found).with_remedy(remedy)];
    DrillReport {
        service: service.to_string(),
        server: settings.server.to_string(),
        verdict: Verdict::of(false, &checks, 0),
        owner: None,
        at_s,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        clients: 0,
        answered: 0,
        left_out: 0,
        asked_from: Vec::new(),
        estimate: Default::default(),
        checks,
        unreached: Vec::<Unreached>::new(),
    }
}
