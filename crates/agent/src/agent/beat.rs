//! Heartbeats: our own, and the meaning of those of other servers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use heirlock_core::claim::OwnerHeart;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::liveness::{Beat, Hearts, Unwatched};
use heirlock_core::planned_move::{MoveProgress, MoveRequest};
use heirlock_core::store::{
    Asked, Beaten, Decline, FurtherLockManager, Seen, ServerHearts, ServerReport, Store, StoreError,
};
use heirlock_core::{Moment, ServerName, ServiceName};

/// After how many beats of both, where each takes the other for the newcomer, one of them gives way.
const DISPUTED_BEATS: u32 = 10;

/// This server's heart, and its view of the others'.
#[derive(Debug)]
pub struct Pulse {
    report: ServerReport,
    hearts: Hearts,
    found: ServerHearts,
    /// Heartbeats that can't be read and of which nothing was said yet, and why.
    unsaid: Vec<(String, String)>,
    namesake: Option<Other>,
    /// The last beat that the store took.
    written: Option<u64>,
    /// The store did not show that one at the next.
    set_back: bool,
    /// Since when the others are not watched to the end, in seconds since 1970, as it was found first.
    unwatched_since_s: Option<u64>,
    /// The error of the last call that kept this server from watching them.
    last_error: Option<String>,
}

/// The trace of another agent under our name.
#[derive(Debug)]
struct Other {
    agent: String,
    beat: u64,
    /// It lay there before the store took our first beat.
    was_there: bool,
    /// How often it was seen to move.
    moves: u32,
}

/// Another agent lives under this server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namesake {
    /// It was here before us: we must stop.
    WasFirst,
    /// It came after us: it will stop.
    IsNew,
}

/// The part of a heartbeat that speaks of this server.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Seconds since 1970 by this server's clock.
    pub(crate) written_at_s: u64,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) state: Option<u32>,
    /// Of further lock managers.
    pub(crate) further_states: Vec<u32>,
    pub(crate) further_lock_managers: Vec<FurtherLockManager>,
    pub(crate) ailments: Vec<String>,
    pub(crate) facts: BTreeMap<String, String>,
}

/// What the store shows at a beat.
struct Shown {
    /// Another agent lives under this server's name.
    namesake: Option<Namesake>,
    hearts: ServerHearts,
    /// The claims of services, unless the look at them goes on still.
    seen: Option<Vec<Seen>>,
}

impl Pulse {
    /// A heart that has not beaten yet.
    pub fn new(report: ServerReport, hearts: Hearts) -> Self {
        Self {
            report,
            hearts,
            found: ServerHearts::default(),
            unsaid: Vec::new(),
            namesake: None,
            written: None,
            set_back: false,
            unwatched_since_s: None,
            last_error: None,
        }
    }

    /// Whether the store did not show, at the last beat, this server's heartbeat of the beat before: it is another one
    /// or an older copy of itself, or another agent writes under this name.
    pub(crate) fn was_set_back(&self) -> bool {
        self.set_back
    }

    /// The hearts of the others can't be seen.
    pub(crate) fn blind(&mut self) {
        self.hearts.blind();
    }

    /// Writes the next beat and reads all others.
    pub fn beat(
        &mut self,
        now: Moment,
        store: &dyn Store,
        condition: Condition,
    ) -> Result<Option<Namesake>, StoreError> {
        self.beat_and_look(now, store, condition, &[]).map(|(namesake, _)| namesake)
    }

    /// The same, and looks at the claims of these services: nothing where that look goes on still.
    pub(crate) fn beat_and_look(
        &mut self,
        now: Moment,
        store: &dyn Store,
        condition: Condition,
        of: &[Asked],
    ) -> Result<(Option<Namesake>, Option<Vec<Seen>>), StoreError> {
        let now_s = condition.written_at_s;
        let shown = self.try_beat(store, condition, of).inspect_err(|error| self.missed(error));
        let beaten = shown.map(|Shown { namesake, hearts, seen }| {
            self.saw(now, hearts);
            (namesake, seen)
        });
        self.note_unwatched(now, now_s);
        beaten
    }

    fn missed(&mut self, error: &StoreError) {
        self.hearts.missed();
        self.last_error = Some(error.to_string());
    }

    /// Says in the log when the others begin to be watched to the end no more, and when they are again.
    fn note_unwatched(&mut self, now: Moment, now_s: u64) {
        match (self.hearts.unwatched(now), self.unwatched_since_s) {
            (Some(Unwatched { since, times, needed }), None) => {
                self.unwatched_since_s = Some(now_s.saturating_sub(now.since(since).as_secs()));
                let why = self.last_error.as_deref().unwrap_or("this server stood still");
                tracing::warn!(
                    why,
                    times,
                    "the watch of the other servers was interrupted {times} times, and none was watched for {} s on end: no server is taken for dead until one is; the last reason: {why}",
                    needed.as_secs()
                );
            }
            (None, Some(_)) => {
                self.unwatched_since_s = None;
                tracing::info!("the other servers are watched again");
            }
            _ => {}
        }
    }

    /// Whether the others are not watched to the end, since when in seconds since 1970, and the last error that kept this server
    /// from it.
    pub(crate) fn unwatched(&self, now: Moment) -> Option<(Unwatched, u64, Option<&str>)> {
        // As long as the log has not said it, nothing does.
        Some((self.hearts.unwatched(now)?, self.unwatched_since_s?, self.last_error.as_deref()))
    }

    /// Reads the others' hearts between two beats: a silence ends at any moment, and a server that claims on its strength must
    /// not be up to a whole interval behind.
    pub fn look(&mut self, now: Moment, store: &dyn Store) -> Result<(), StoreError> {
        let found = store.hearts().inspect_err(|error| self.missed(error))?;
        self.saw(now, found);
        Ok(())
    }

    fn saw(&mut self, now: Moment, found: ServerHearts) {
        let others = found.reports.iter().filter(|(name, _)| **name != self.report.server);
        self.hearts.saw(now, others.map(|(name, report)| (name, beat_of(report))));
        for (entry, why) in &found.unreadable {
            if self.found.unreadable.get(entry) != Some(why) {
                self.unsaid.push((entry.escape_debug().to_string(), why.clone()));
            }
            if let Ok(server) = ServerName::parse(entry) {
                self.hearts.unseen(&server);
            }
        }
        self.found = found;
    }

    /// Heartbeats that can't be read and of which nothing was said yet, and why. From now on it was.
    pub(crate) fn take_unsaid(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.unsaid)
    }

    /// Heartbeats that can't be read, in words.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = String> {
        self.found.unreadable.iter().map(|(entry, why)| format!("the heartbeat {entry:?}: {why}"))
    }

    /// This server's own addresses, from now on.
    pub(crate) fn is_at(&mut self, addresses: Vec<IpAddr>) {
        self.report.addresses = addresses;
    }

    /// The heart of the owner of a service, as far as it is known.
    pub fn heart_of(&self, server: &ServerName, now: Moment) -> OwnerHeart {
        self.hearts.heart_of(server, now)
    }

    /// Whether a server's heartbeat was seen to change later than `since`.
    pub(crate) fn lived_after(&self, server: &ServerName, since: Moment) -> bool {
        self.hearts.lived_after(server, since)
    }

    /// The last reports of all servers.
    pub(crate) fn servers(&self) -> &BTreeMap<ServerName, Arc<ServerReport>> {
        &self.found.reports
    }

    /// From now on our silence is no reason to adopt, or is one again.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.report.paused = paused;
    }

    /// Whether we are paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.report.paused
    }

    /// Asks the owner of a service to give it up, for it is to come here, or asks no more. `asked` tells this time of asking
    /// from others.
    pub(crate) fn want(&mut self, service: &ServiceName, asked: Option<u64>) {
        self.report.wants.retain(|other| other != service);
        if let Some(asked) = asked {
            self.report.wants.push(service.clone());
            self.report.asked = asked;
        }
    }

    /// The other servers that ask for a service and are seen to live, and which time of asking it is. A server that has died since it
    /// asked would leave the service without an owner.
    pub(crate) fn asked_by(
        &self,
        service: &ServiceName,
        now: Moment,
    ) -> impl Iterator<Item = (&ServerName, u64)> {
        let others = self.found.reports.values().filter(|report| report.server != self.report.server);
        let asking = others.filter(|report| report.wants.contains(service));
        let living = asking.filter(move |report| self.beats(&report.server, now));
        living.map(|report| (&report.server, report.asked))
    }

    /// Whether the agent of another server is seen to live, in maintenance or not.
    pub(crate) fn beats(&self, server: &ServerName, now: Moment) -> bool {
        self.hearts.beats(server, now)
    }

    /// Asks another server to have a service moved to it, or asks no more.
    pub(crate) fn ask_for_move(&mut self, service: &ServiceName, request: Option<MoveRequest>) {
        match request {
            Some(request) => self.report.moves.insert(service.clone(), request),
            None => self.report.moves.remove(service),
        };
    }

    /// The moves that callers on other servers ask this one for, and on which server each was asked for.
    pub(crate) fn moves_here(&self) -> Vec<(ServiceName, ServerName, u64)> {
        let us = &self.report.server;
        let others = self.found.reports.values().filter(|report| report.server != *us);
        let of = |report: &Arc<ServerReport>| {
            let here = report.moves.iter().filter(|(_, request)| request.to == *us);
            here.map(|(service, request)| (service.clone(), report.server.clone(), request.asked))
                .collect::<Vec<_>>()
        };
        others.flat_map(of).collect()
    }

    /// Whether another server asks for the move of this number still; also where its heartbeat can't be read now.
    pub(crate) fn asks_for_move(&self, by: &ServerName, asked: u64) -> bool {
        let report = self.found.reports.get(by);
        report.is_none_or(|report| report.moves.values().any(|request| request.asked == asked))
    }

    /// How far the moves are that other servers ask for, as the last heartbeat says it.
    pub(crate) fn moves_said(&self) -> &BTreeMap<u64, MoveProgress> {
        &self.report.moving
    }

    /// The same, as the next one says it.
    pub(crate) fn say_moves(&mut self, moving: BTreeMap<u64, MoveProgress>) {
        self.report.moving = moving;
    }

    /// The answer of the server that is to have a service to the request of this number.
    pub(crate) fn move_progress(&self, to: &ServerName, asked: u64) -> Option<&MoveProgress> {
        self.found.reports.get(to)?.moving.get(&asked)
    }

    /// Why a service can't be given up now; none where it can, or where no server asks for it.
    pub(crate) fn decline(&mut self, service: &ServiceName, decline: Option<Decline>) {
        match decline {
            Some(decline) => self.report.declines.insert(service.clone(), decline),
            None => self.report.declines.remove(service),
        };
    }

    /// The last reason that was published why a service can't be given up.
    pub fn declined(&self, service: &ServiceName) -> Option<&Decline> {
        self.report.declines.get(service)
    }

    /// The owner's answer to our request for a service.
    pub(crate) fn declined_by(&self, owner: &ServerName, service: &ServiceName) -> Option<&Decline> {
        let decline = self.found.reports.get(owner)?.declines.get(service)?;
        (decline.asked == self.report.asked).then_some(decline)
    }

    fn try_beat(
        &mut self,
        store: &dyn Store,
        condition: Condition,
        of: &[Asked],
    ) -> Result<Shown, StoreError> {
        self.report.beat += 1;
        self.report.written_at_s = condition.written_at_s;
        self.report.incarnation = condition.incarnation;
        self.report.state = condition.state;
        self.report.further_states = condition.further_states;
        self.report.further_lock_managers = condition.further_lock_managers;
        self.report.ailments = condition.ailments;
        self.report.facts = condition.facts;
        let (Beaten { hearts: found, taken }, seen) = store.beat_and_look(&self.report, of)?;
        let ours = found.reports.get(&self.report.server);
        // One whose writing failed may be there all the same.
        let is_last =
            |written: u64| ours.is_some_and(|ours| ours.agent == self.report.agent && ours.beat >= written);
        self.set_back = self.written.is_some_and(|written| !is_last(written));
        let namesake = self.look_for_namesake(ours.map(Arc::as_ref));
        self.written = Some(taken);
        Ok(Shown { namesake, hearts: found, seen })
    }

    /// A beat under our name that isn't ours and moves is another agent's. A beat that stands still was left by an
    /// earlier run of our agent.
    fn look_for_namesake(&mut self, ours: Option<&ServerReport>) -> Option<Namesake> {
        let other = ours.filter(|report| report.agent != self.report.agent)?;
        let was_there = self.written.is_none();
        let begin = || Other { agent: other.agent.clone(), beat: other.beat, was_there, moves: 0 };
        let known = self.namesake.get_or_insert_with(begin);
        let is_still = known.agent == other.agent && known.beat == other.beat;
        if is_still && known.was_there {
            return None;
        }
        known.moves += 1;
        known.agent.clone_from(&other.agent);
        known.beat = other.beat;
        // Started at the same moment each takes the other for the newcomer; then the names of the runs decide.
        let gives_way = known.moves > DISPUTED_BEATS && self.report.agent > other.agent;
        Some(if known.was_there || gives_way { Namesake::WasFirst } else { Namesake::IsNew })
    }
}

fn beat_of(report: &ServerReport) -> Beat<'_> {
    Beat { agent: &report.agent, count: report.beat, paused: report.paused }
}
