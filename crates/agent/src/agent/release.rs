//! Giving a service away in order: the address goes first, then the claim, then what was locked through it.
//!
//! From the moment it begins nothing is forgotten any more (the service is *frozen*: arrivals are still recorded,
//! departures aren't believed), for an unmonitoring by lockd, while it lets go, says nothing of the clients.

use std::collections::BTreeMap;

use heirlock_core::claim::Claim;
use heirlock_core::store::{Change, Damaged, Decline, Place, StoreError};
use heirlock_core::takeover::{Event, Journal};
use heirlock_core::{Moment, ServiceName};

use super::Inside;
use super::outside::Outside;
use super::put_off::Later;
use super::requests::Whose;
use super::runs::Running;
use super::work::Work;
use crate::control::report::EntryTrouble;
use crate::control::{Answer, Progress, Responder, Wait};
use crate::limits;
use crate::words::counted;

/// Releases that are on.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    on: BTreeMap<ServiceName, Release>,
}

/// One of them.
#[derive(Debug)]
struct Release {
    /// The callers that wait for it.
    responders: Vec<Responder>,
    /// For which request of its home it is.
    asked: Option<u64>,
    /// Until when its address has to be gone; none once the claim is given up.
    address_until: Option<Moment>,
    /// Until when its volume has to be gone; none before the claim is given up.
    volume_until: Option<Moment>,
    /// Its volume is not gone in time, and that was said.
    hangs: bool,
    /// Until when the store has to answer; none while it does.
    store_until: Option<Moment>,
    /// Entries of the store that can't be read: the clients that they belong to are not known.
    troubles: Vec<EntryTrouble>,
}

impl Releases {
    fn end(&mut self, service: &ServiceName) -> (Vec<Responder>, Vec<EntryTrouble>) {
        self.on.remove(service).map(|release| (release.responders, release.troubles)).unwrap_or_default()
    }
}

/// Of an address or a volume.
const TAKEN_TOO_LATE: &str =
    "was not taken away in time: a program, a disk or a thread hangs (look with 'heirlock doctor')";

/// Why a service can't be released now.
pub(crate) struct Unreleasable {
    pub(crate) text: String,
    /// It passes by itself, by that moment where it is known.
    pub(crate) passes: Option<Option<Moment>>,
}

/// Why the claim of a service was not given up.
enum NotGivenUp {
    /// The store did not answer in time; the claim may be given up all the same.
    StoreIsLate,
    /// It can't be, or the store fails.
    Failed(String),
}

impl From<StoreError> for NotGivenUp {
    fn from(error: StoreError) -> Self {
        if error.is_late() { Self::StoreIsLate } else { Self::Failed(error.to_string()) }
    }
}

fn failed(why: &str) -> NotGivenUp {
    NotGivenUp::Failed(why.to_owned())
}

fn stays(text: String) -> Unreleasable {
    Unreleasable { text, passes: None }
}

impl<O: Outside> Inside<O> {
    /// A person or a cluster manager asks for a release. A release that is on is waited for, and a service that this server does
    /// not hold is released already.
    pub fn asked_to_release(&mut self, service: &ServiceName, responder: Responder) {
        if let Some(release) = self.releases.on.get_mut(service) {
            release.responders.push(responder);
            return;
        }
        if self.held.contains_key(service) || self.run_with(service).is_some() || service.is_host() {
            return self.release(service, Some(responder), None);
        }
        if let Some(why) = self.left_behind_problem(service) {
            return responder.failed(&why, true);
        }
        let us = &self.settings.server;
        let why = match self.whose(service) {
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

    /// Begins to give a service away.
    pub fn release(&mut self, service: &ServiceName, responder: Option<Responder>, asked: Option<u64>) {
        if let Err(Unreleasable { text: why, .. }) = self.may_release(service) {
            tracing::warn!(%service, why, "{service}: not released: {why}");
            if let Some(responder) = responder {
                responder.failed(&why, true);
            }
            return;
        }
        if let Some(held) = self.held.get_mut(service) {
            held.frozen = true;
        }
        tracing::info!(%service, "{service}: a release begins, and its address goes first");
        let hook = self.settings.hooks.address_down.as_ref().map(|hook| hook.time_limit).unwrap_or_default();
        let address_until = Some(self.outside.now() + hook + limits::ADDRESS_GONE_TIME_MAX);
        self.releases.on.insert(
            service.clone(),
            Release {
                responders: responder.into_iter().collect(),
                asked,
                address_until,
                volume_until: None,
                hangs: false,
                store_until: None,
                troubles: Vec::new(),
            },
        );
        self.outside.begin(Work::TakeAddressAway(service.clone()));
    }

    /// A release is on, or what follows one.
    pub fn releases_are_on(&self) -> bool {
        !self.releases.on.is_empty()
    }

    /// Whether a release of this service is on.
    pub fn is_releasing(&self, service: &ServiceName) -> bool {
        self.releases.on.contains_key(service)
    }

    /// The reason for which a release waits, in words, and for how many milliseconds at most.
    pub(crate) fn release_waits_for(&self, now: Moment, service: &ServiceName) -> (String, Option<u64>) {
        let address_until = self.releases.on.get(service).and_then(|release| release.address_until);
        let left_ms = |until: Moment| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
        let what = if address_until.is_some() { "its address is" } else { "its volume is" };
        (format!("{what} being taken away"), address_until.map(left_ms))
    }

    /// Tells the callers of a release the reason for which it waits.
    pub(crate) fn say_releases(&mut self, now: Moment) {
        let on: Vec<ServiceName> = self.releases.on.keys().cloned().collect();
        for service in on {
            let (why, at_most_ms) = self.release_waits_for(now, &service);
            let wait = Wait { for_what: format!("{service} to be released: {why}"), at_most_ms };
            if let Some(release) = self.releases.on.get_mut(&service) {
                let progress = Progress::waiting(wait);
                release.responders.retain_mut(|responder| responder.progress(&progress));
            }
        }
    }

    /// Whether a service can be given away now. A self-adoption is no hindrance: the server that takes the service next tells its
    /// clients.
    pub(crate) fn may_release(&self, service: &ServiceName) -> Result<(), Unreleasable> {
        if service.is_host() {
            return Err(stays(format!(
                "{service} is what this server serves under its own name; it can't be given away"
            )));
        }
        if self.is_releasing(service) {
            return Err(stays(format!("{service} is being released already")));
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
                    "clients of {service} are being told right now; release it when that has settled"
                ),
                passes: Some(running.machine.waits_until()),
            });
        }
        if let Some(error) = self.health.error() {
            let text = format!(
                "the store fails, so the server that takes {service} over would not know its clients: {error}"
            );
            return Err(Unreleasable { text, passes: Some(None) });
        }
        Ok(())
    }

    /// The address is gone, or isn't, as the work says that was begun for it. A release that was ended because that work hung is
    /// not gone on with: the clients lock here still.
    pub(crate) fn address_work_ended(
        &mut self,
        now: Moment,
        service: &ServiceName,
        gone: Result<(), String>,
    ) {
        let waits = |release: &Release| release.address_until.is_some() && release.store_until.is_none();
        if self.releases.on.get(service).is_some_and(waits) {
            self.address_gone(now, service, gone);
        }
    }

    /// The volume is gone, or isn't, as the work says that was begun for it.
    pub(crate) fn volume_work_ended(&mut self, service: &ServiceName, gone: &Result<(), String>) {
        if self.releases.on.get(service).is_some_and(|release| release.volume_until.is_some()) {
            self.volume_gone(service, gone);
        }
    }

    /// Ends releases whose address has not been taken away within all limits of that work: it hangs. While it is being released a
    /// service is not told to its clients. Where the volume hangs the callers are answered, and no more: work that goes on at
    /// last would take the locks of a service that was adopted here meanwhile.
    pub(crate) fn end_releases_that_hang(&mut self, now: Moment) {
        let is_late = |until: Option<Moment>| until.is_some_and(|at| now >= at + limits::WORK_SLACK);
        let on: Vec<ServiceName> = self.releases.on.keys().cloned().collect();
        for service in on {
            let Some(release) = self.releases.on.get_mut(&service) else { continue };
            if release.store_until.is_none() && is_late(release.address_until) {
                self.address_gone(now, &service, Err(format!("its address {TAKEN_TOO_LATE}")));
            } else if is_late(release.volume_until) {
                let why = format!("{service} is released, but its volume {TAKEN_TOO_LATE}");
                if !std::mem::replace(&mut release.hangs, true) {
                    tracing::error!(%service, why, "{why}; until that ends it is not adopted here again");
                }
                for responder in std::mem::take(&mut release.responders) {
                    responder.failed(&why, false);
                }
            }
        }
    }

    /// The address is gone, or isn't.
    pub fn address_gone(&mut self, now: Moment, service: &ServiceName, gone: Result<(), String>) {
        let given_up = gone.map_err(NotGivenUp::Failed).and_then(|()| self.give_up(now, service));
        match given_up {
            Err(NotGivenUp::StoreIsLate) => self.give_up_later(service),
            Ok(troubles) => {
                let hook = self.settings.hooks.volume_down.as_ref().map(|hook| hook.time_limit);
                let volume_until = Some(self.outside.now() + hook.unwrap_or_default());
                if let Some(release) = self.releases.on.get_mut(service) {
                    (release.address_until, release.volume_until) = (None, volume_until);
                    release.troubles = troubles;
                }
                self.outside.begin(Work::TakeVolumeAway(service.clone()));
            }
            Err(NotGivenUp::Failed(why)) => {
                if let Some(held) = self.held.get_mut(service) {
                    held.frozen = false;
                }
                tracing::error!(%service, why, "{service}: stays here, for its release failed: {why}");
                if let Some(asked) = self.releases.on.get(service).and_then(|release| release.asked) {
                    self.pulse.decline(service, Some(Decline { asked, why: why.clone(), waits: None }));
                    self.beat_due = now;
                }
                for responder in self.releases.end(service).0 {
                    responder.failed(&format!("{service} was not released: {why}"), false);
                }
            }
        }
    }

    /// The claim is given up as soon as the store answers. Until when that is waited for is said once.
    fn give_up_later(&mut self, service: &ServiceName) {
        let patience = self.patience_with_the_store();
        let Some(release) = self.releases.on.get_mut(service) else { return };
        let until = *release.store_until.get_or_insert(patience);
        self.put_off(Later::GiveUp(service.clone(), until));
    }

    /// No client can reach the service any more: the known records are final. The copy is checked and the records that it lacks
    /// are written anew, and the claim is given up. The locks go with the volume, not before: a service that stays here because
    /// the store fails must have its clients' locks. Entries that can't be read, and of which this server knows nothing, are the
    /// answer.
    fn give_up(&mut self, now: Moment, service: &ServiceName) -> Result<Vec<EntryTrouble>, NotGivenUp> {
        // It was gone a moment ago. An administrator may have brought it back, and clients lock here again.
        if self.has_address_of(service) {
            return Err(failed("its address is on this server again; take it away, then ask again"));
        }
        self.scan(now);
        if self.run.as_ref().is_some_and(|running| running.begins(service)) {
            // A self-adoption began meanwhile, and has claimed a generation that is not in the store yet.
            return Err(failed("its next generation is being begun; try again"));
        }
        let contents = self.complete(service)?;
        let ours = self.held.get(service).zip(contents);
        let (held, contents) = ours.ok_or_else(|| failed(&format!("{service} is not ours any more")))?;
        let mut captured = held.ledger.stored().iter();
        if captured.any(|(client, bytes)| contents.records.get(client) != Some(bytes)) {
            return Err(failed(
                "the store does not hold what was captured; try again, and look at the volume",
            ));
        }
        // In its own generation, while it is ours: when it went is what makes a planned move's gap known.
        let journal = Journal { released_at_s: Some(self.outside.wall_s()), ..held.journal.clone() };
        let note = [Change::PutJournal(Box::new(journal))];
        self.store.commit(service, &held.claim, &note)?;
        self.store.release(service, held.claim.generation)?;
        tracing::info!(%service, generation = %held.claim.generation, records = contents.records.len(), "{service}: generation {} is released, with {} on record", held.claim.generation, counted(contents.records.len(), "client"));
        let generation = held.claim.generation;
        // Known at once, and not at the next beat: a person who looks now is told that no server holds it.
        let claim = Claim { released: true, ..held.claim.clone() };
        self.others.insert(service.clone(), claim);
        self.held.remove(service);
        self.advance(Event::GivenUp(service.clone()));
        let folder = self.store.place(Place::Generation(service, generation));
        let trouble = |Damaged { path, why, .. }| EntryTrouble { entry: format!("{folder}/{path}"), why };
        Ok(contents.damaged.into_iter().filter(Damaged::is_named).map(trouble).collect())
    }

    /// The volume is gone as well, or isn't; the claim is given up in either case.
    pub fn volume_gone(&mut self, service: &ServiceName, gone: &Result<(), String>) {
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
