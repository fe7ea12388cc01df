//! The verbs of the control socket.

use heirlock_core::claim::{Authority, OwnerHeart, check_first, next_generation};
use heirlock_core::duty::is_adopted;
use heirlock_core::store::StoreError;
use heirlock_core::takeover::{Admission, Event, Order};
use heirlock_core::{Moment, Outcome, ServiceName};
use heirlock_nsm::MonName;

use super::Instance;
use crate::agent::common::Common;
use crate::agent::common::Whose;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::put_off::{Later, Tries};
use crate::agent::running::Commission;
use crate::agent::status;
use crate::agent::waiting::{Adoption, Waiting};
use crate::agent::work::RunNumber;
use crate::control::{Answer, AnswerWhen, Request, Responder};
use crate::limits;

/// Why this server has no authority to claim a service.
enum NoAuthority {
    /// It may not claim it.
    Refused(String),
    /// Whether it may could not be read.
    StoreFails(StoreError),
}

impl From<StoreError> for NoAuthority {
    fn from(error: StoreError) -> Self {
        Self::StoreFails(error)
    }
}

impl<O: Outside> Instance<O> {
    /// A caller asks, and the store answers. `until`: so long a call of the store that fails is made again for it.
    pub(crate) fn answer(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        request: Request,
        responder: Responder,
        until: Moment,
    ) {
        tracing::debug!(?request, "asked");
        match request {
            Request::Adopt { service, finish: true, answer_when, .. } => {
                let waiting = Waiting { service: service.clone(), responder, until: answer_when };
                self.finish(server, &service, waiting);
            }
            Request::Adopt { service, prepare, fenced, force, answer_when, .. } => {
                let answer_when = match answer_when {
                    AnswerWhen::Notified | AnswerWhen::Settled if prepare => AnswerWhen::Prepared,
                    as_asked => as_asked,
                };
                let waiting = Waiting { service: service.clone(), responder, until: answer_when };
                let adoption = Adoption { service, prepare, fenced, insisted: force, before: Vec::new() };
                self.adopt_within(server, now, adoption, waiting, until);
            }
            Request::Release { service } => match self.check_known(server, &service) {
                Ok(()) => self.asked_to_release(server, &service, responder),
                Err(why) => responder.failed(&why, true),
            },
            Request::Failback { service, answer_when } => {
                let waiting = Waiting { service: service.clone(), responder, until: answer_when };
                self.failback(server, now, service, waiting);
            }
            Request::Move { service, to, answer_when } => {
                let waiting = Waiting { service: service.clone(), responder, until: answer_when };
                self.move_service(server, now, service, to, waiting, until);
            }
            // The server answers these.
            Request::Status | Request::Past | Request::Drill { .. } | Request::Maintenance { .. } => {}
            Request::Forget { service, client } => self.forget(server, &service, &client, responder),
            Request::Report { service } => match self.report_of(server, &service) {
                Some(report) => responder.done(Answer::Adoption(Box::new(report))),
                None => responder.failed(&format!("no adoption of {service} by this server is known"), true),
            },
        }
    }

    pub(crate) fn check_known(&self, server: &Common<O>, service: &ServiceName) -> Result<(), String> {
        if server.settings().service(service).is_some() {
            return Ok(());
        }
        if service.is_host() {
            return Err(format!(
                "{service} is what a server serves under its own name: it moves with no adoption, and its server tells its \
                 clients itself"
            ));
        }
        let known = server.settings().services_in_words();
        Err(format!("there is no service {service} in this server's configuration; there is: {known}"))
    }

    pub fn adopt(&mut self, server: &mut Common<O>, now: Moment, adoption: Adoption, waiting: Waiting) {
        let until = server.patience_with_the_store();
        self.adopt_within(server, now, adoption, waiting, until);
    }

    /// The store failed when it was asked whether this server may claim a service, and is asked once more. What this server holds
    /// may not be known either until it works.
    pub(super) fn adopt_again(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        adoption: Adoption,
        waiting: Waiting,
        tries: Tries,
    ) {
        if self.holdings_known || now >= tries.until {
            return self.adopt_within(server, now, adoption, waiting, tries.until);
        }
        let tries = Tries { again: Some(now + limits::STORE_RETRY), ..tries };
        self.put_off(Later::Adoption(Box::new(adoption), Box::new(waiting), tries));
    }

    /// `try_until`: so long a call of the store that fails before the claim is made again. Of the claim itself see `claims.rs`.
    fn adopt_within(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        adoption: Adoption,
        waiting: Waiting,
        try_until: Moment,
    ) {
        let Waiting { responder, until, .. } = waiting;
        let service = &adoption.service;
        if let Err(why) = self.check_known(server, service) {
            return responder.failed(&why, true);
        }
        if self.is_releasing(service) {
            let (why, _) = self.release_waits_for(now, service);
            let text = format!("{service} is being released; adopt it when that is done ({why})");
            return responder.failed(&text, true);
        }
        let waiting = |responder| Waiting { service: service.clone(), responder, until };
        let is_target = self.run_for(service).is_some();
        let is_adopted = self.is_adopted_already(service);
        let is_told = self.tells_its_own(service);
        let admission = Admission::of(is_target, is_told, is_adopted, adoption.insisted);
        if admission == Admission::Joins {
            // The run knew what this server holds when it began, and claims nothing for this caller.
            return self.join(server, service, adoption.prepare, waiting(responder));
        }
        if let Err(why) = self.knows_its_own(server, adoption.insisted) {
            return responder.failed(&why, true);
        }
        if admission == Admission::Adopted {
            return self.answer_of_adopted(server, service, responder, "is held by this server already");
        }
        let primary_lost = self.last_sign_of(server, service, now);
        let (authority, starts_first) = match self.authority_for(server, &adoption) {
            Ok(permitted) => permitted,
            Err(NoAuthority::Refused(why)) => return responder.failed(&why, true),
            Err(NoAuthority::StoreFails(error)) => {
                let why = store_refuses(server, &error);
                let Some(tries) = Tries::after(&error, server.now(), try_until) else {
                    return responder.failed(&why, true);
                };
                let waiting = Waiting { service: service.clone(), responder, until };
                return self.put_off(Later::Adoption(Box::new(adoption), Box::new(waiting), tries));
            }
        };
        let waiting = vec![waiting(responder)];
        let commission = Commission {
            order: Order::asked(adoption.service, adoption.prepare, authority, primary_lost),
            waiting,
            insists: adoption.insisted,
            starts_first,
            before: adoption.before,
        };
        self.begin_run(server, now, commission);
    }

    /// Whether it is known of every service whether this server holds it. An adoption drops the locks of all that it holds, and
    /// clients of a service of which that isn't known would not be told.
    pub(crate) fn knows_its_own(&self, server: &Common<O>, insisted: bool) -> Result<(), String> {
        if !self.holdings_known {
            let why = server.health().error().unwrap_or("it was not read yet");
            return Err(format!(
                "the store doesn't show what this server holds already, whose clients would lose their locks untold: {why}"
            ));
        }
        match self.doubtful_holdings(server) {
            Some(why) if !insisted => Err(why),
            _ => Ok(()),
        }
    }

    /// Why it isn't known of a service whether this server holds it; of one of them where it is more than one.
    fn doubtful_holdings(&self, server: &Common<O>) -> Option<String> {
        let unreadable = || {
            let (service, why) = self.unreadable.iter().next()?;
            Some(format!(
                "the store can't say whose {service} is, and if it is this server's, its clients would lose their locks \
                 untold: {why}"
            ))
        };
        server.acquaintance().missing().map(str::to_owned).or_else(unreadable)
    }

    /// When the owner of a service, another server, was last seen to live: from then on its clients may have been without
    /// it. Nothing is decided by it.
    fn last_sign_of(&self, server: &Common<O>, service: &ServiceName, now: Moment) -> Option<Moment> {
        let claim = self.others.get(service).filter(|claim| !claim.released)?;
        match server.pulse().heart_of(&claim.owner, now) {
            OwnerHeart::Beating { last_change } => Some(now - last_change),
            OwnerHeart::Silent { for_time } => Some(now - for_time),
            OwnerHeart::Unknown { .. } | OwnerHeart::Paused | OwnerHeart::NeverSeen => None,
        }
    }

    /// The authority for the claim, and whether no server ever claimed the service; or why it would be refused: the owner of the
    /// service is known before anything is touched.
    fn authority_for(
        &mut self,
        server: &mut Common<O>,
        adoption: &Adoption,
    ) -> Result<(Authority, bool), NoAuthority> {
        let insists = Authority { insisted: adoption.insisted, ..Authority::default() };
        let (newest, _) = server.newest_or_lost(&adoption.service, &insists)?;
        let heart = server.heart_of_owner(newest.as_ref())?;
        // The owner of this moment, and none that becomes it before the claim.
        let owner = newest.as_ref().map(|claim| claim.owner.clone());
        let fenced = adoption.fenced.clone().and_then(|fenced| fenced.server(|| owner));
        let is_silent = matches!(heart, OwnerHeart::Silent { .. } | OwnerHeart::NeverSeen);
        let is_anothers =
            newest.as_ref().is_some_and(|claim| claim.owner != *server.server() && !claim.released);
        let confirmed = is_anothers
            && is_silent
            && fenced.is_none()
            && !adoption.insisted
            && server.settings().hooks.fence.is_some();
        let authority = Authority { fenced, insisted: adoption.insisted, confirmed };
        let us = server.server();
        let home =
            server.settings().service(&adoption.service).and_then(|configured| configured.home.as_ref());
        check_first(&adoption.service, newest.as_ref(), us, home, &authority)
            .and_then(|()| next_generation(&adoption.service, newest.as_ref(), us, heart, &authority))
            .map_err(|refusal| NoAuthority::Refused(refusal.to_string()))?;
        Ok((authority, newest.is_none()))
    }

    /// An adoption that is done already is not done again; the outcomes of its clients are told all the same, for the exit code
    /// says them.
    pub(crate) fn answer_of_adopted(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        responder: Responder,
        otherwise: &str,
    ) {
        match self.report_of(server, service) {
            Some(report) => responder.done(Answer::adopted(report, false)),
            None => responder.done(Answer::unchanged(Some(service), format!("{service} {otherwise}"))),
        }
    }

    /// A caller that asks for an adoption which is on waits for it with the others, unless the run is there already. A run that was to
    /// be prepared goes on, unless no more than that is asked for.
    fn join(&mut self, server: &mut Common<O>, service: &ServiceName, prepare: bool, waiting: Waiting) {
        let Some(running) = self.run_that_serves(service) else { return };
        let number = running.number;
        // A run that only tells its clients goes on by the word of those that it was asked for by.
        if !prepare && running.machine.targets().contains(service) {
            if running.machine.awaits_finish() {
                return self.finish(server, service, waiting);
            }
            running.machine.goes_on_when_prepared();
            running.machine.has_word_for(service);
        }
        self.wait_with_others(server, number, waiting);
    }

    /// This caller waits for a run, unless that is there already.
    fn wait_with_others(&mut self, server: &mut Common<O>, number: RunNumber, waiting: Waiting) {
        let unready = self.outside.unready();
        let Some(running) = self.running(number) else { return };
        if waiting.is_over(&running.machine) {
            let report =
                status::report_for(server.now(), &running.machine, &waiting, server.store(), &unready);
            return waiting.responder.done(Answer::adopted(report, false));
        }
        running.waiting.push(waiting);
        self.answer_whose_wait_is_over(server);
    }

    /// Held, told, and living in the lock manager that runs: to adopt it again would drop its locks for nothing.
    pub(crate) fn is_adopted_already(&self, service: &ServiceName) -> bool {
        let Some(held) = self.held.get(service) else { return false };
        is_adopted(&held.journal, held.with_outcome(Outcome::Lost).next().is_some(), self.lives.running())
    }

    /// An adoption that is prepared goes on, and one that is to be prepared does not stop there. A run that goes on already is waited
    /// for, and one that is over was finished before.
    fn finish(&mut self, server: &mut Common<O>, service: &ServiceName, waiting: Waiting) {
        if let Some(running) = self.run_that_serves(service) {
            let number = running.number;
            let is_target = running.machine.targets().contains(service);
            if !is_target || !running.machine.awaits_finish() {
                if is_target {
                    running.machine.goes_on_when_prepared();
                    running.machine.has_word_for(service);
                }
                return self.wait_with_others(server, number, waiting);
            }
            running.waiting.push(waiting);
            return self.worked_for(server, number, Event::Finish);
        }
        if self.is_adopted_already(service) {
            let otherwise = "is held by this server already, and no adoption of it waits to be finished";
            return self.answer_of_adopted(server, service, waiting.responder, otherwise);
        }
        let why = format!("no adoption of {service} is prepared here; say 'heirlock adopt {service}'");
        waiting.responder.failed(&why, true);
    }

    fn forget(&mut self, server: &mut Common<O>, service: &ServiceName, client: &str, responder: Responder) {
        let Ok(key) = MonName::parse(client) else {
            return responder.failed(&format!("{client:?} is no client's name"), true);
        };
        self.settle_capture(server, server.now());
        let present = self.capture.found().may_hold(&key) || !self.may_forget(&key);
        let Some(held) = self.held.get_mut(service) else {
            let why = match server.whose(service) {
                Whose::Owned(owner) => format!("{service} belongs to {owner}: say it there"),
                Whose::Released(owner) => format!(
                    "no server holds {service}, for {owner} released it: adopt it, and say it where it is then"
                ),
                Whose::Unclaimed => format!("{service} was never claimed by any server"),
                Whose::Unknown(why) => why,
            };
            return responder.failed(&why, true);
        };
        if !held.ledger.stored().contains_key(&key) {
            return responder.failed(
                &format!("{service} has no client {client}; 'heirlock records list' names them"),
                true,
            );
        }
        if present {
            let why =
                format!("{client} is registered with this server's status monitor now: it may hold locks");
            return responder.failed(&why, true);
        }
        let mut committing = server.committing();
        match held.remove(&mut committing, service, &[key.into()]) {
            Ok(()) => responder.done(Answer::changed(Some(service), format!("{client} is forgotten"))),
            Err(error) => responder.failed(&error.to_string(), false),
        }
    }
}

/// The words for a caller who is refused since the store fails. The status says so from then on, and not only after the next
/// heartbeat: a caller that waits for the store to work again looks there.
fn store_refuses<O: Outside>(server: &mut Common<O>, error: &StoreError) -> String {
    if !error.is_of_one_entry() {
        server.fails(server.now(), error);
    }
    error.to_string()
}
