//! One service of a run: its clients and what became of each.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_nsm::{MonName, StateNumber};

use super::journal::{OutcomeLine, Part};
use crate::names::{Generation, ServiceName};
use crate::outcome::Outcome;
use crate::planted::{Bug, planted};
use crate::records::RecordKey;

/// One service of a run.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) service: ServiceName,
    pub(super) part: Part,
    pub(super) generation: Generation,
    pub(super) state: StateNumber,
    clients: BTreeMap<RecordKey, Known>,
    /// Of how many clients something good is known.
    good: usize,
    /// The notifier of this service is through.
    pub(super) told: bool,
    /// Clients that were told in the life that ran when it was claimed.
    pub(super) told_before: BTreeSet<RecordKey>,
    /// Each of its clients has answered, or had its first round of tries.
    pub(super) tried: bool,
    /// An address of it was seen to be served here.
    pub(super) served: bool,
    /// See [`Journal::left_to_others`](super::Journal::left_to_others).
    pub(super) left_to_others: usize,
}

/// A client and its outcome so far.
#[derive(Debug, Clone, Default)]
struct Known {
    outcome: Option<Outcome>,
    at_ms: i64,
    why: Option<String>,
    /// When it was first heard of.
    answered_ms: Option<i64>,
    /// It answered its notification. A client that registered and did not answer may have asked for a new lock. A run that
    /// is resumed tells it again: inside one grace period that does no harm.
    acknowledged: bool,
    /// See [`OutcomeLine::is_final`].
    is_final: bool,
}

/// The outcomes of a service's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The service.
    pub service: ServiceName,
    /// Taken over, or told because its lock manager's locks were dropped.
    pub part: Part,
    /// Its generation.
    pub generation: Generation,
    /// The number under which its clients were told.
    pub state: StateNumber,
    /// Each client, whether anything is known of it or not.
    pub clients: Vec<ClientSummary>,
}

/// The outcome of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSummary {
    /// Its key in the store.
    pub client: RecordKey,
    /// Its outcome; `None` where the run ended before that was known.
    pub outcome: Option<Outcome>,
    /// Milliseconds since the run began until that was known.
    pub at_ms: i64,
    /// Until it first gave a sign of having been told: it answered, or registered before its answer arrived. Its outcome may
    /// be known later: a client that has answered registers when it asks for its locks.
    pub answered_ms: Option<i64>,
    /// Why, where it isn't good.
    pub why: Option<String>,
}

impl Known {
    fn take_in(&mut self, outcome: Outcome, at_ms: i64, why: Option<String>) {
        let answered_ms = self.answered_ms.or(outcome.is_good().then_some(at_ms));
        let acknowledged = self.acknowledged || outcome == Outcome::Acknowledged;
        *self =
            Self { outcome: Some(outcome), at_ms, why, answered_ms, acknowledged, is_final: self.is_final };
    }
}

impl Member {
    pub(super) fn new(
        service: ServiceName,
        part: Part,
        generation: Generation,
        state: StateNumber,
        clients: impl IntoIterator<Item = RecordKey>,
    ) -> Self {
        let clients = clients.into_iter().map(|client| (client, Known::default())).collect();
        Self {
            service,
            part,
            generation,
            state,
            clients,
            good: 0,
            told: false,
            told_before: BTreeSet::new(),
            tried: false,
            served: false,
            left_to_others: 0,
        }
    }

    /// These are clients too.
    pub(super) fn know<'a>(&mut self, clients: impl Iterator<Item = &'a RecordKey>) {
        for client in clients {
            if !self.clients.contains_key(client) {
                self.clients.insert(client.clone(), Known::default());
            }
        }
    }

    /// These are clients of another server alone, as far as nothing is known of them. Answers how many those are.
    pub(super) fn leave_to_others(&mut self, clients: &BTreeSet<RecordKey>) -> usize {
        let before = self.clients.len();
        self.clients.retain(|client, known| known.outcome.is_some() || !clients.contains(client));
        let left = before - self.clients.len();
        self.left_to_others += left;
        left
    }

    /// Takes in outcomes that an earlier run of the same generation left in the store.
    pub(super) fn recall(&mut self, lines: &[OutcomeLine]) {
        for line in lines {
            if let Some(known) = self.clients.get_mut(&line.client) {
                let (before, after) = (known.outcome.is_some_and(Outcome::is_good), line.outcome.is_good());
                self.good = self.good - usize::from(before) + usize::from(after);
                known.take_in(line.outcome, line.at_ms, line.why.clone());
                known.is_final |= line.is_final;
            }
        }
    }

    /// The clients that are to be told: they have not answered yet.
    pub(super) fn to_tell(&self) -> Vec<MonName> {
        let silent = self.clients.iter().filter(|(_, known)| !known.acknowledged);
        silent.filter_map(|(client, _)| client.told().cloned()).collect()
    }

    /// Whether something is known of each of its clients.
    pub(super) fn is_every_client_known(&self) -> bool {
        self.clients.values().all(|known| known.outcome.is_some())
    }

    /// The locks of all clients but these may have been granted to others already. They are told all the same: they get back
    /// the locks that are still theirs.
    pub(super) fn lose_for_good(
        &mut self,
        told: &BTreeSet<RecordKey>,
        at_ms: i64,
        why: &str,
    ) -> Vec<OutcomeLine> {
        let late: Vec<RecordKey> =
            self.clients.keys().filter(|client| !told.contains(*client)).cloned().collect();
        late.iter()
            .filter_map(|client| {
                let line = self.learn(client, Outcome::Lost, at_ms, Some(why.to_owned()))?;
                self.clients.get_mut(client)?.is_final = true;
                Some(OutcomeLine { is_final: true, ..line })
            })
            .collect()
    }

    /// It answered.
    pub(super) fn acknowledged(&mut self, client: &RecordKey, at_ms: i64) -> Option<OutcomeLine> {
        self.clients.get_mut(client)?.acknowledged = true;
        self.learn(client, Outcome::Acknowledged, at_ms, None)
    }

    /// Whether it is a client of this service.
    pub(super) fn has(&self, client: &RecordKey) -> bool {
        self.clients.contains_key(client)
    }

    /// It registered with the adoptive lock manager. Unless that shows by itself that it asked to reclaim from this service,
    /// it must have been told: after grace it is news of a new lock, say.
    pub(super) fn registered(
        &mut self,
        client: &RecordKey,
        at_ms: i64,
        shows_all: bool,
    ) -> Option<OutcomeLine> {
        let known = self.clients.get(client)?;
        if !shows_all && known.outcome != Some(Outcome::Acknowledged) {
            return None;
        }
        self.learn(client, Outcome::ReRegistered, at_ms, None)
    }

    /// It did not answer in time. A registration that was seen counts more.
    pub(super) fn left(
        &mut self,
        client: &RecordKey,
        outcome: Outcome,
        at_ms: i64,
        why: String,
    ) -> Option<OutcomeLine> {
        // A client that was never called did not register because it was told: it came for a lock of another service.
        if outcome == Outcome::Lost {
            let known =
                self.clients.get_mut(client).filter(|known| !known.acknowledged && !known.is_final)?;
            self.good -= usize::from(known.outcome.is_some_and(Outcome::is_good));
            known.outcome = None;
            let line = self.learn(client, outcome, at_ms, Some(why))?;
            self.clients.get_mut(client)?.is_final = true;
            return Some(OutcomeLine { is_final: true, ..line });
        }
        self.learn(client, outcome, at_ms, Some(why))
    }

    /// Clients without an outcome can't be told any more: they are lost.
    pub(super) fn lose_the_rest(&mut self, at_ms: i64, why: &str) -> Vec<OutcomeLine> {
        let rest = self.with(|known| known.outcome.is_none());
        rest.iter()
            .filter_map(|client| self.learn(client, Outcome::Lost, at_ms, Some(why.to_owned())))
            .collect()
    }

    /// Whether every client has registered again: nothing is left to wait for.
    pub(super) fn all_registered(&self) -> bool {
        self.clients.values().all(|known| known.outcome == Some(Outcome::ReRegistered))
    }

    /// How many may register again, and have not: a client that was never told has no reason to.
    pub(super) fn not_back(&self) -> usize {
        let is_out = |known: &Known| matches!(known.outcome, Some(Outcome::ReRegistered | Outcome::Lost));
        self.clients.values().filter(|known| !is_out(known)).count()
    }

    /// Why none of its clients was called. `None` where one was, where there is no client, or where the service is served
    /// here: then clients that can't be told are told apart from those that can.
    pub(super) fn no_client_was_called(&self) -> Option<&str> {
        let is_lost = |known: &Known| known.outcome == Some(Outcome::Lost) && !known.acknowledged;
        let is_none = self.clients.values().all(is_lost);
        self.clients.values().find_map(|known| known.why.as_deref()).filter(|_| is_none && !self.served)
    }

    /// Clients that were told in time, did not register in the whole of grace, and aren't registered now: they hold no
    /// lock, and need not be told another time.
    pub(super) fn retired(&self, present: &BTreeSet<RecordKey>) -> Vec<RecordKey> {
        if planted(Bug::RetireAll) {
            return self.clients.keys().cloned().collect();
        }
        let mut told = self.with(|known| known.outcome == Some(Outcome::Acknowledged));
        told.retain(|client| !present.contains(client));
        told
    }

    /// How many clients there are, and of how many something good is known.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.clients.len(), self.good)
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            service: self.service.clone(),
            part: self.part,
            generation: self.generation,
            state: self.state,
            clients: self
                .clients
                .iter()
                .map(|(client, known)| ClientSummary {
                    client: client.clone(),
                    outcome: known.outcome,
                    at_ms: known.at_ms,
                    answered_ms: known.answered_ms,
                    why: known.why.clone(),
                })
                .collect(),
        }
    }

    /// Notes what became of a client, if that is news and not worse than what was seen.
    fn learn(
        &mut self,
        client: &RecordKey,
        outcome: Outcome,
        at_ms: i64,
        why: Option<String>,
    ) -> Option<OutcomeLine> {
        let known = self.clients.get_mut(client)?;
        // The order of outcomes is from the best to the worst.
        if known.is_final || known.outcome.is_some_and(|before| before <= outcome) {
            return None;
        }
        if outcome.is_good() && !known.outcome.is_some_and(Outcome::is_good) {
            self.good += 1;
        }
        known.take_in(outcome, at_ms, why.clone());
        Some(OutcomeLine { why, ..OutcomeLine::new(client, outcome, at_ms) })
    }

    fn with(&self, wanted: impl Fn(&Known) -> bool) -> Vec<RecordKey> {
        self.clients.iter().filter(|(_, known)| wanted(known)).map(|(client, _)| client.clone()).collect()
    }
}
