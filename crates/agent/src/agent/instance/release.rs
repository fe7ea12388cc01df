//! Giving a service away in order: the address goes first, then the claim, then what was locked through it.
//!
//! No release waits for ever: work that takes an address or a volume away and does not report in time hangs, and its caller is
//! told so. The service is left alone until that work reports, for it may go on at any moment.
//!
//! Before the address goes it is noted that it does (`bring_back.rs`): where the claim is not given up after that, since the agent is
//! killed or the store fails, the address is brought back. The note ends with the claim.
//!
//! From the moment it begins nothing is forgotten any more (the service is *frozen*: arrivals are still recorded,
//! departures aren't believed), for an unmonitoring by lockd, while it lets go, says nothing of the clients.
//!
//! As long as its address is here the service is served here. Where NFS is restarted in that time, this server tells the clients,
//! and they reclaim here; the server that adopts the service later tells them once more. From the moment when the address is gone
//! the next server alone tells them.

use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::store::{Change, Damaged, Decline, Place, StoreError};
use heirlock_core::takeover::{End, Event, Journal, TimeLimits};
use heirlock_core::{Moment, ServiceName};

use super::Instance;
use super::meeting::answer_each_of;
use crate::agent::common::Common;
use crate::agent::common::Whose;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::put_off::{Later, Tries};
use crate::agent::releases::Release;
use crate::agent::running::Running;
use crate::agent::work::Work;
use crate::config::Settings;
use crate::control::report::EntryTrouble;
use crate::control::{Answer, Progress, Responder, Wait};
use crate::limits;
use crate::words::counted;

/// Why a service can't be released now.
pub(crate) struct Unreleasable {
    pub(crate) text: String,
    /// It passes by itself, by that moment where it is known.
    pub(crate) passes: Option<Option<Moment>>,
}

/// Why the claim of a service was not given up.
enum NotGivenUp {
    /// A run may have claimed the next generation: the store has yet to say so, or that generation to begin.
    ClaimedAnew,
    /// A call of the store failed. The claim may be given up all the same.
    Store(StoreError),
    /// It can't be.
    Failed(String),
}

impl From<StoreError> for NotGivenUp {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a release waits.
const RESTARTS: &str = "the lock manager is being restarted for its adoption";

/// The same.
const COMES_BACK: &str = "its address is being brought back, for an earlier release did not come to its end";

/// How long it may take until a volume is gone: the lock manager is looked at or worked on, then it lets go of the locks, then
/// the hook runs.
fn volume_time_max(settings: &Settings, limits_of_work: TimeLimits) -> Duration {
    let hook = settings.hooks.volume_down.as_ref();
    let hook = hook.map_or(Duration::ZERO, |hook| hook.time_limit + limits::KILLED_TIME_MAX);
    limits_of_work.recognition + limits::LET_GO_TIME_MAX + hook
}

impl<O: Outside> Instance<O> {
    /// A person or a cluster manager asks for a release. A release that is on is waited for, and a service that this server does
    /// not hold is released already.
    pub fn asked_to_release(&mut self, server: &mut Common<O>, service: &ServiceName, responder: Responder) {
        match self.releases.of_mut(service) {
            Some(release) if !release.hangs => return release.responders.push(responder),
            Some(release) => return responder.failed(&release.says_that_it_hangs(service), true),
            None => {}
        }
        if let Some(why) = self.begins_after(service) {
            return self.release_later(server, service, why, responder);
        }
        if self.held.contains_key(service) || service.is_host() {
            return self.release(server, service, vec![responder], None);
        }
        if self.asked.iter().any(|asked| asked.machine.targets().contains(service)) {
            return self.end_asked(server, service, responder);
        }
        if let Some(why) = self.left_behind_problem(service) {
            return responder.failed(&why, true);
        }
        let us = server.server();
        let why = match server.whose(service) {
            Whose::Owned(owner) if owner == *us => {
                let why = "what it holds of it can't be read; 'heirlock status' says why";
                return responder.failed(&format!("{service} is claimed by this server, and {why}"), true);
            }
            Whose::Owned(owner) => format!("it belongs to {owner}"),
            Whose::Released(owner) if owner == *us => "it was released before".to_owned(),
            Whose::Released(owner) => format!("{owner} released it"),
            Whose::Unclaimed => "no server ever claimed it".to_owned(),
            Whose::Unknown(why) => return responder.failed(&why, false),
        };
        let text = format!("{service} is not held by this server, and nothing was changed: {why}");
        responder.done(Answer::unchanged(Some(service), text));
    }

    /// An adoption was asked for, and has claimed nothing yet: it ends. Else the service would be claimed here after its release was
    /// answered.
    fn end_asked(&mut self, server: &mut Common<O>, service: &ServiceName, responder: Responder) {
        let why = format!("{service} was released before it was claimed");
        let is_for_it = |asked: &&mut Running| asked.machine.targets().contains(service);
        let Some(asked) = self.asked.iter_mut().find(is_for_it) else { return };
        let run = asked.number;
        if asked.machine.goes_on_without(service) {
            answer_each_of(asked, service, |waiting| waiting.responder.failed(&why, true));
        } else {
            self.refused(server, run, &End::Refused(why));
        }
        let text =
            format!("{service} is not held by this server, and its adoption has ended before it was claimed");
        responder.done(Answer::changed(Some(service), text));
    }

    /// Why a release can't begin yet, though it will by itself, if so. The lock manager that is being restarted for the service is not
    /// asked to let go of locks meanwhile.
    fn begins_after(&self, service: &ServiceName) -> Option<&'static str> {
        let restarts = |running: &Running| running.machine.hinders_release(service, running.begins(service));
        let claims =
            |asked: &Running| asked.machine.targets().contains(service) && asked.claim_waits_for.is_some();
        if self.run.as_ref().is_some_and(restarts) {
            return Some(RESTARTS);
        }
        if self.asked.iter().any(claims) {
            return Some("the store does not say whether it was claimed");
        }
        self.taken_away.is_on(service).then_some(COMES_BACK)
    }

    /// The release begins once what it waits for is over. A cluster manager's stop that failed would have this server fenced.
    fn release_later(&mut self, server: &Common<O>, service: &ServiceName, why: &str, responder: Responder) {
        tracing::info!(%service, why, "{service}: its release does not begin yet: {why}");
        let TimeLimits { conveying, recognition, .. } = self.time_limits;
        let begins_by = server.patience_with_the_store() + conveying + recognition;
        self.releases.add(
            service,
            Release {
                responders: vec![responder],
                asked: None,
                began_at: None,
                begins_by: Some(begins_by),
                address_until: None,
                report_until: None,
                hangs: false,
                store_until: None,
                troubles: Vec::new(),
            },
        );
        self.say_releases(server.now());
    }

    /// Begins the releases that have waited for a run.
    pub(crate) fn begin_releases_that_wait(&mut self, server: &mut Common<O>, now: Moment) {
        for (service, begins_by) in self.releases.to_begin() {
            let waits_for = self.begins_after(&service);
            if waits_for.is_some() && now < begins_by {
                continue;
            }
            let (responders, _) = self.releases.end(&service);
            if let Some(why) = waits_for {
                let why = format!("it has waited for too long: {why} still; look at 'heirlock status'");
                tracing::error!(%service, why, "{service} was not released: {why}");
                let why = format!("{service} was not released: {why}");
                responders.into_iter().for_each(|responder| responder.failed(&why, false));
            } else if self.held.contains_key(&service) {
                self.release(server, &service, responders, None);
            } else {
                // The run has ended without it.
                responders
                    .into_iter()
                    .for_each(|responder| self.asked_to_release(server, &service, responder));
            }
        }
    }

    /// Begins to give a service away.
    pub fn release(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        responders: Vec<Responder>,
        asked: Option<u64>,
    ) {
        let may_release = self.may_release(server, service).map_err(|why| why.text);
        let may_begin =
            may_release.and_then(|()| self.note_taken_away(server, service).map_err(|why| unnoted(&why)));
        if let Err(why) = may_begin {
            tracing::warn!(%service, why, "{service}: not released: {why}");
            responders.into_iter().for_each(|responder| responder.failed(&why, true));
            return;
        }
        if let Some(held) = self.held.get_mut(service) {
            held.frozen = true;
        }
        tracing::info!(%service, "{service}: a release begins, and its address goes first");
        let hook =
            server.settings().hooks.address_down.as_ref().map(|hook| hook.time_limit).unwrap_or_default();
        let address_until = server.now() + hook + limits::ADDRESS_GONE_TIME_MAX;
        self.releases.add(
            service,
            Release {
                responders,
                asked,
                began_at: Some(server.now()),
                begins_by: None,
                address_until: Some(address_until),
                report_until: Some(address_until + limits::WORK_SLACK),
                hangs: false,
                store_until: None,
                troubles: Vec::new(),
            },
        );
        self.outside.begin(Work::TakeAddressAway(service.clone()));
    }

    /// A release is on, or what follows one.
    pub fn releases_are_on(&self) -> bool {
        !self.releases.is_empty()
    }

    /// Whether a release of this service is on.
    pub fn is_releasing(&self, service: &ServiceName) -> bool {
        self.releases.contains(service)
    }

    /// The reason for which a release waits, in words, and for how many milliseconds at most.
    pub(crate) fn release_waits_for(&self, now: Moment, service: &ServiceName) -> (String, Option<u64>) {
        let release = self.releases.of(service);
        let address_until = release.and_then(|release| release.address_until);
        let begins_by = release.and_then(|release| release.begins_by);
        let until = begins_by.or(address_until).or_else(|| release.and_then(|release| release.report_until));
        let left_ms = |until: Moment| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
        match release.filter(|release| release.hangs) {
            Some(release) => (release.says_that_it_hangs(service), None),
            None if begins_by.is_some() => {
                (self.begins_after(service).unwrap_or(RESTARTS).to_owned(), until.map(left_ms))
            }
            None if address_until.is_some() => {
                ("its address is being taken away".to_owned(), until.map(left_ms))
            }
            None => ("its volume is being taken away".to_owned(), until.map(left_ms)),
        }
    }

    /// Tells the callers of a release the reason for which it waits.
    pub(crate) fn say_releases(&mut self, now: Moment) {
        for service in self.releases.services() {
            let (why, at_most_ms) = self.release_waits_for(now, &service);
            let wait = Wait { for_what: format!("{service} to be released: {why}"), at_most_ms };
            if let Some(release) = self.releases.of_mut(&service) {
                let progress = Progress::waiting(wait);
                release.responders.retain_mut(|responder| responder.progress(&progress));
            }
        }
    }

    /// Whether a service can be given to a server that asks for it now. That can wait until the clients of an adoption are told.
    pub(crate) fn may_go_home(&self, server: &Common<O>, service: &ServiceName) -> Result<(), Unreleasable> {
        let tells = |running: &&Running| running.machine.tells_adopted(service);
        if let Some(running) = self.run.as_ref().filter(tells) {
            return Err(Unreleasable {
                text: format!(
                    "clients of {service} are being told right now; it is given up when that has settled"
                ),
                passes: Some(running.machine.waits_until()),
            });
        }
        self.may_release(server, service)
    }

    /// Whether a service can be given away now. A run that tells its clients is no hindrance: the server that takes the service
    /// next tells them all.
    pub(crate) fn may_release(&self, server: &Common<O>, service: &ServiceName) -> Result<(), Unreleasable> {
        if service.is_host() {
            return Err(stays(format!(
                "{service} is what this server serves under its own name; it can't be given away"
            )));
        }
        if let Some(release) = self.releases.of(service) {
            return Err(stays(match release.hangs {
                true => release.says_that_it_hangs(service),
                false => format!("{service} is being released already"),
            }));
        }
        if !self.held.contains_key(service) {
            return Err(stays(format!(
                "{service} is not held by this server; 'heirlock status' says whose it is"
            )));
        }
        let hinders = |running: &&Running| running.machine.hinders_release(service, running.begins(service));
        if let Some(running) = self.run.as_ref().filter(hinders) {
            return Err(Unreleasable {
                text: format!(
                    "{service} is being taken over right now, and the lock manager is restarted for it; it is released after that"
                ),
                passes: Some(running.machine.waits_until()),
            });
        }
        if self.taken_away.is_on(service) {
            let text = format!("{service} is not released yet: {COMES_BACK}; it is released after that");
            return Err(Unreleasable { text, passes: Some(None) });
        }
        if let Some(error) = server.health().error() {
            let text = format!(
                "the store fails, so the server that takes {service} over would not know its clients: {error}"
            );
            return Err(Unreleasable { text, passes: Some(None) });
        }
        Ok(())
    }

    /// The address is gone, or isn't.
    pub fn address_gone(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
        gone: Result<(), String>,
    ) {
        if self.releases.is_late_report(service) {
            tracing::warn!(%service, "{service}: the work that took its address away has ended, long after its release failed; release it again");
            return;
        }
        if let Some(release) = self.releases.of_mut(service) {
            release.report_until = None;
        }
        let given_up = gone.map_err(NotGivenUp::Failed).and_then(|()| self.give_up(server, now, service));
        match given_up {
            Err(NotGivenUp::ClaimedAnew) => self.give_up_later(server, now, service, None),
            Err(NotGivenUp::Store(error)) => self.give_up_later(server, now, service, Some(&error)),
            Ok(troubles) => {
                let report_until = Some(server.now() + volume_time_max(server.settings(), self.time_limits));
                if let Some(release) = self.releases.of_mut(service) {
                    (release.address_until, release.troubles) = (None, troubles);
                    release.report_until = report_until;
                }
                self.outside.begin(Work::TakeVolumeAway(service.clone()));
            }
            Err(NotGivenUp::Failed(why)) => self.is_not_given_up(server, now, service, &why),
        }
    }

    fn is_not_given_up(&mut self, server: &mut Common<O>, now: Moment, service: &ServiceName, why: &str) {
        self.stays(server, now, service, why);
        self.releases.end(service);
    }

    /// A release has failed, and all its callers are told.
    fn stays(&mut self, server: &mut Common<O>, now: Moment, service: &ServiceName, why: &str) {
        if let Some(held) = self.held.get_mut(service) {
            held.frozen = false;
        }
        tracing::error!(%service, why, "{service}: stays here, for its release failed: {why}");
        let Some(release) = self.releases.of_mut(service) else { return };
        if let Some(asked) = release.asked {
            let decline = Decline { asked, why: why.to_owned(), waits: None, releasing_for_ms: None };
            server.pulse_mut().decline(service, Some(decline));
            server.beat_at(now);
        }
        for responder in std::mem::take(&mut release.responders) {
            responder.failed(&format!("{service} was not released: {why}"), false);
        }
    }

    /// Ends releases whose work should have reported by now: a program, a disk or a lock manager hangs.
    pub(crate) fn end_releases_that_hang(&mut self, server: &mut Common<O>, now: Moment) {
        for (service, is_held) in self.releases.begin_to_hang(now) {
            let hangs = "was not taken away in time: a program, a disk or the lock manager hangs (look with 'heirlock doctor')";
            if is_held {
                self.stays(server, now, &service, &format!("its address {hangs}"));
                continue;
            }
            let why = format!("its volume {hangs}");
            tracing::error!(%service, why, "{service}: released, but {why}");
            let release = self.releases.of_mut(&service);
            for responder in
                release.map(|release| std::mem::take(&mut release.responders)).unwrap_or_default()
            {
                responder.failed(&format!("{service} is released, but {why}"), false);
            }
        }
    }

    /// The claim is given up as soon as the store answers. Until when that is waited for is said once. A call that failed is made
    /// again until then, unless its failure can't pass: the address is gone already, so a release that ended here would cost the
    /// clients more than one that waits.
    fn give_up_later(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
        failed: Option<&StoreError>,
    ) {
        let patience = server.patience_with_the_store();
        let Some(release) = self.releases.of_mut(service) else { return };
        let until = *release.store_until.get_or_insert(patience);
        let Some(error) = failed else {
            return self.put_off(Later::GiveUp(service.clone(), Tries::until(until)));
        };
        match Tries::after(error, now, until) {
            Some(tries) => self.put_off(Later::GiveUp(service.clone(), tries)),
            None => self.is_not_given_up(server, now, service, &error.to_string()),
        }
    }

    /// No client can reach the service any more: the known records are final. The copy is checked and the records that it lacks
    /// are written anew, and the claim is given up. The locks go with the volume, not before: a service that stays here because
    /// the store fails must have its clients' locks. Entries that can't be read, and of which this server knows nothing, are the
    /// answer.
    fn give_up(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
    ) -> Result<Vec<EntryTrouble>, NotGivenUp> {
        // It was gone a moment ago. An administrator may have brought it back, and clients lock here again.
        if self.has_address_of(server, service) {
            return Err(failed("its address is on this server again; take it away, then ask again"));
        }
        self.scan(server, now);
        if self.is_claimed_anew(service) {
            return Err(NotGivenUp::ClaimedAnew);
        }
        let contents = self.complete(server, service)?;
        let ours = self.held.get(service).zip(contents);
        let (held, contents) = ours.ok_or_else(|| failed(&format!("{service} is not ours any more")))?;
        let mut captured = held.ledger.stored().iter();
        if captured.any(|(key, record)| contents.records.get(key) != Some(record)) {
            return Err(failed(
                "the store does not hold what was captured; try again, and look at the volume",
            ));
        }
        // In its own generation, while it is ours: when it went is what makes a planned move's gap known.
        let journal = Journal { released_at_s: Some(server.wall_s()), ..held.journal.clone() };
        let lost = self.run.as_ref().map(|running| running.machine.lost_by_leaving(now, service));
        let lost = lost.unwrap_or_default();
        if !lost.is_empty() {
            tracing::warn!(%service, clients = lost.len(), "{service}: grace has ended, and {} could not be told before: their locks may be others' by now", counted(lost.len(), "client"));
        }
        let mut notes = vec![Change::PutJournal(Box::new(journal))];
        notes.extend(lost.into_iter().map(Change::AppendOutcome));
        server.store().commit(service, &held.claim, &notes)?;
        server.store().release(service, held.claim.generation)?;
        tracing::info!(%service, generation = %held.claim.generation, records = contents.records.len(), "{service}: generation {} is released, with {} on record", held.claim.generation, counted(contents.records.len(), "client"));
        let generation = held.claim.generation;
        // Known at once, and not at the next beat: a person who looks now is told that no server holds it.
        let claim = Claim { released: true, ..held.claim.clone() };
        self.others.insert(service.clone(), claim);
        self.held.remove(service);
        self.forget_taken_away(service);
        self.left_by_service(server, service, Event::GivenUp(service.clone()));
        let folder = server.store().place(Place::Generation(service, generation));
        let trouble = |Damaged { path, why, .. }| EntryTrouble { entry: format!("{folder}/{path}"), why };
        Ok(contents.damaged.into_iter().filter(Damaged::is_named).map(trouble).collect())
    }

    /// Whether a run has claimed the next generation of a service, or may have: the store has not answered it, or that generation is
    /// not begun yet. If the generation before were given up now, the next one would stay claimed by a server that does not serve it.
    fn is_claimed_anew(&self, service: &ServiceName) -> bool {
        let mut runs = self.asked.iter().chain(&self.run);
        runs.any(|running| running.may_have_claimed(service) || running.begins(service))
    }

    /// The volume is gone as well, or isn't; the claim is given up in either case.
    pub fn volume_gone(&mut self, service: &ServiceName, gone: &Result<(), String>) {
        if self.releases.is_late_report(service) {
            let how = gone.as_ref().err().map_or("it is gone", String::as_str);
            tracing::warn!(%service, "{service}: the work that took its volume away has ended, long after its release: {how}");
            return;
        }
        let (responders, mut troubles) = self.releases.end(service);
        if let Err(why) = gone {
            tracing::error!(%service, why, "{service}: released, but its volume is still here: {why}");
        }
        let mut text = format!("{service} is released; adopt it on another server");
        if !troubles.is_empty() {
            text += &format!(
                "\n{} of its entries in the store can't be read: if one was a client's record, that client may not be told of the move",
                troubles.len()
            );
            troubles.truncate(limits::STATUS_CLIENTS_MAX);
        }
        for responder in responders {
            match gone {
                Ok(()) => responder.done(Answer::Verb {
                    service: Some(service.clone()),
                    changed: true,
                    text: text.clone(),
                    troubles: troubles.clone(),
                }),
                Err(why) => responder
                    .failed(&format!("{service} is released, but its volume is still here: {why}"), false),
            }
        }
    }
}

fn unnoted(why: &str) -> String {
    format!(
        "it can't be noted that its address is taken away, so that the next agent would bring it back: {why}"
    )
}

fn failed(why: &str) -> NotGivenUp {
    NotGivenUp::Failed(why.to_owned())
}

fn stays(text: String) -> Unreleasable {
    Unreleasable { text, passes: None }
}
