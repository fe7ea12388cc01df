//! The holdings of this server: the services whose newest claim is its own, with their ledgers and journals.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::duty::Holding;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::{Doubt, Ledger};
use heirlock_core::records::KeyRef;
use heirlock_core::store::{Change, ClaimAnswer, Commit, Contents, Damaged, RecordChange, Store, StoreError};
use heirlock_core::takeover::{Journal, OutcomeLine, Remains, last_outcomes, told_in, with_outcome};
use heirlock_core::{Generation, Outcome, RecordKey, Records, ServerName, ServiceName};
use heirlock_nsm::StateNumber;

use super::outside::Outside;
use crate::control::report::observed::Observed;
use crate::limits::COMMIT_RECORDS_MAX;

/// One service that this server holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The newest claim, which is ours.
    pub claim: Claim,
    /// Its clients, as the store knows them.
    pub ledger: Ledger,
    /// How far its generation has come.
    pub journal: Journal,
    /// The number of this generation.
    pub state: StateNumber,
    /// The outcomes of its clients in the adoption that began this generation.
    pub(crate) outcomes: Vec<OutcomeLine>,
    /// Of these the last lines of clients that were not told.
    missed: BTreeMap<RecordKey, OutcomeLine>,
    /// Its entries in the store that can't be read.
    pub(crate) damaged: Vec<Damaged>,
    /// The service is being given away: arrivals are still recorded, departures aren't believed any more.
    pub(crate) frozen: bool,
}

impl Held {
    /// A holding with the store's contents of a generation.
    pub fn new(
        claim: Claim,
        contents: Contents,
        journal: Journal,
        keeps_peers: bool,
        delay: Duration,
    ) -> Self {
        let mut held = Self {
            claim,
            ledger: Ledger::new(contents.records, keeps_peers, delay),
            journal,
            state: contents.state.unwrap_or(StateNumber(1)),
            outcomes: Vec::new(),
            missed: BTreeMap::new(),
            damaged: contents.damaged,
            frozen: false,
        };
        held.learn(contents.outcomes);
        held
    }

    /// These lines are durable.
    pub(crate) fn learn(&mut self, lines: Vec<OutcomeLine>) {
        for line in &lines {
            match line.outcome.is_good() {
                true => drop(self.missed.remove(&line.client)),
                false => drop(self.missed.insert(line.client.clone(), line.clone())),
            }
        }
        self.outcomes.extend(lines);
    }

    /// Clients that were not told in the adoption that began its generation and are on record still, with the last that was
    /// learnt of each.
    pub(crate) fn missed(&self) -> impl Iterator<Item = (&RecordKey, &OutcomeLine)> {
        self.missed.iter().filter(|(client, _)| self.ledger.stored().contains_key(*client))
    }

    /// The life in which a deletion here may mean something, of the one in which it may at all. While it is being given
    /// away nothing is forgotten any more.
    pub(crate) fn where_deletions_count<'a>(&self, life: Option<&'a Incarnation>) -> Option<&'a Incarnation> {
        life.filter(|_| !self.frozen)
    }

    /// The state of a service that duties depend on; `has_left`: see [`Holding::has_left`].
    pub(crate) fn holding<'a>(&'a self, service: &'a ServiceName, has_left: bool) -> Holding<'a> {
        Holding { service, journal: &self.journal, has_clients: !self.ledger.stored().is_empty(), has_left }
    }

    /// The last that was learnt of each client; a run learns only better outcomes than those that it knew.
    pub fn last_outcomes(&self) -> BTreeMap<KeyRef<'_>, &OutcomeLine> {
        last_outcomes(&self.outcomes)
    }

    /// Clients of which this is the last that was learnt.
    pub(crate) fn with_outcome(&self, wanted: Outcome) -> impl Iterator<Item = &RecordKey> {
        with_outcome(&self.outcomes, wanted)
    }

    /// Clients that were told in this life of the lock manager, by the run that began this generation.
    pub(crate) fn told_in(&self, life: Option<&Incarnation>) -> BTreeSet<RecordKey> {
        told_in(&self.journal, &self.outcomes, life)
    }

    /// Its entries in the store that can't be read, and were not written anew since.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &Damaged> {
        let mended = |key: &RecordKey| self.ledger.stored().contains_key(key);
        let named = self.damaged.iter().filter(|damaged| damaged.is_named());
        named.filter(move |damaged| !damaged.key().is_some_and(mended))
    }

    /// How many more records it may keep.
    pub(crate) fn room(&self) -> usize {
        heirlock_core::limits::RECORDS_MAX.saturating_sub(self.ledger.stored().len())
    }

    /// The remains of an earlier run, for a run that is resumed.
    pub(crate) fn remains(&self, service: &ServiceName) -> Remains {
        Remains {
            service: service.clone(),
            generation: self.claim.generation,
            state: self.state,
            clients: self.ledger.stored().keys().cloned().collect(),
            begun_with: None,
            journal: self.journal.clone(),
            outcomes: self.outcomes.clone(),
        }
    }

    /// A generation as the agent knows it.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            state: Some(self.state),
            records: self.ledger.stored().clone(),
            journal: Some(self.journal.clone()),
            outcomes: self.outcomes.clone(),
            ..Contents::default()
        }
    }

    /// The difference between a generation and what the agent knows of it.
    pub(crate) fn differences(&self, found: &Contents) -> Differences {
        let stored = self.ledger.stored();
        let is_removed = |key: &RecordKey| {
            self.ledger.doubt(key) == Some(Doubt::Removal) && !found.records.contains_key(key)
        };
        let lacks = stored.iter().filter(|(key, record)| found.records.get(*key) != Some(*record));
        let (removed, lacks): (Vec<_>, Vec<_>) = lacks.partition(|(key, _)| is_removed(key));
        let lacks = lacks.into_iter();
        let mut lost: Vec<Change> = lacks.map(|(key, record)| Change::put(key, record.clone())).collect();
        if found.state.is_none() {
            lost.push(Change::PutState(self.state));
        }
        if found.journal.as_ref() != Some(&self.journal) {
            lost.push(Change::PutJournal(Box::new(self.journal.clone())));
        }
        let there: HashSet<&OutcomeLine> = found.outcomes.iter().collect();
        let lines = self.outcomes.iter().filter(|line| !there.contains(line));
        lost.extend(lines.cloned().map(Change::AppendOutcome));
        let strange = found.records.iter().filter(|(client, _)| !stored.contains_key(*client));
        let strange = strange.map(|(key, record)| RecordChange::put(key, record.clone()));
        let (put, strange): (Vec<_>, Vec<_>) =
            strange.partition(|change| self.ledger.doubt(change.key()) == Some(Doubt::Put));
        let came_about = removed.into_iter().map(|(key, _)| RecordChange::remove(key)).chain(put).collect();
        Differences { lost, strange, came_about }
    }

    /// Removes clients from the store.
    pub fn remove<O: Outside>(
        &mut self,
        committing: &mut Committing<'_, O>,
        service: &ServiceName,
        clients: &[RecordKey],
    ) -> Result<(), StoreError> {
        let entries = clients.iter().map(RecordChange::remove).collect();
        commit_all(committing, &mut [(service, self, entries)])
    }
}

/// The difference between a generation in the store and what the agent knows of it.
pub(crate) struct Differences {
    /// What the store lacks.
    pub(crate) lost: Vec<Change>,
    /// Records that it holds besides.
    pub(crate) strange: Vec<RecordChange>,
    /// Changes of this agent whose commit failed, and that came about all the same.
    pub(crate) came_about: Vec<RecordChange>,
}

/// Where records become durable, and where that is counted.
pub struct Committing<'a, O> {
    store: &'a dyn Store,
    outside: &'a O,
    counts: &'a mut Observed,
}

impl<'a, O: Outside> Committing<'a, O> {
    /// Into this store, by the clock of this server.
    pub fn new(store: &'a dyn Store, outside: &'a O, counts: &'a mut Observed) -> Self {
        Self { store, outside, counts }
    }

    /// Commits, and counts that.
    pub(crate) fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let began = self.outside.now();
        let committed = self.store.commit_each(commits);
        self.counts.commits.ended(self.outside.now().since(began), committed.is_ok());
        let records = commits.iter().flat_map(|commit| &commit.changes);
        records.for_each(|change| self.counts.records.changed(change, committed.is_ok()));
        committed
    }
}

/// Makes changes of the records of several services durable and takes them in, as many at a time as one commit carries: a
/// client's record is one file, however many of them keep it.
pub fn commit_all<O: Outside>(
    committing: &mut Committing<'_, O>,
    work: &mut [(&ServiceName, &mut Held, Vec<RecordChange>)],
) -> Result<(), StoreError> {
    let most = work.iter().map(|(_, _, entries)| entries.len()).max().unwrap_or(0);
    // In portions, so that a burst of ten thousand doesn't hold up what comes between.
    for portion in 0..most.div_ceil(COMMIT_RECORDS_MAX) {
        let mut parts: Vec<(&ServiceName, &mut Held, &[RecordChange])> = work
            .iter_mut()
            .filter_map(|(service, held, entries)| {
                Some((*service, &mut **held, entries.chunks(COMMIT_RECORDS_MAX).nth(portion)?))
            })
            .collect();
        let commits: Vec<Commit> = parts
            .iter()
            .map(|(service, held, part)| Commit {
                service: (*service).clone(),
                by: held.claim.clone(),
                changes: part.iter().cloned().map(Change::Record).collect(),
            })
            .collect();
        let committed = committing.commit(&commits);
        for (_, held, part) in &mut parts {
            match committed {
                Ok(()) => held.ledger.committed(part),
                Err(_) => held.ledger.uncommitted(part),
            }
        }
        committed?;
    }
    Ok(())
}

/// A service as this server finds it in the store.
#[derive(Debug)]
pub(crate) enum Found {
    /// No server ever claimed it.
    Unclaimed,
    /// Another server has claimed it, or it was given up.
    NotOurs(Claim),
    /// Ours, whole.
    Ours(Claim, Box<Contents>, Box<Journal>),
    /// Ours by its claim, but the generation was not begun: an adoption was interrupted right there.
    Interrupted(Claim, Option<(Generation, Box<Contents>)>),
}

/// Looks a service up.
pub(crate) fn find(
    store: &dyn Store,
    service: &ServiceName,
    server: &ServerName,
) -> Result<Found, StoreError> {
    let Some(claim) = store.newest_claim(service)? else { return Ok(Found::Unclaimed) };
    if !claim.is_held_by(server) {
        return Ok(Found::NotOurs(claim));
    }
    let Some(newest) = store.newest_generation(service, claim.generation)? else {
        return Ok(Found::Interrupted(claim, None));
    };
    let mut contents = Box::new(store.load(service, newest)?);
    if newest != claim.generation {
        return Ok(Found::Interrupted(claim, Some((newest, contents))));
    }
    say_senseless_journal(&contents);
    Ok(match contents.journal.take() {
        Some(journal) => Found::Ours(claim, contents, Box::new(journal)),
        None => Found::Interrupted(claim, Some((newest, contents))),
    })
}

/// Says that the journal of a generation has no sense: this server goes on as if there was none.
pub(crate) fn say_senseless_journal(contents: &Contents) {
    if let Some(error) = contents.senseless_journal() {
        tracing::error!(%error, "the journal of a generation can't be read, so its adoption is begun again: {error}");
    }
}

/// Claims a service that no server ever claimed, and begins its first generation.
pub fn claim_first(
    store: &dyn Store,
    service: &ServiceName,
    claim: &Claim,
    state: StateNumber,
    journal: &Journal,
) -> Result<Option<Contents>, StoreError> {
    match store.claim(service, claim)? {
        ClaimAnswer::Won => {}
        ClaimAnswer::Taken(_) => return Ok(None),
    }
    begin(store, service, claim.generation, state, Records::new(), journal).map(Some)
}

/// Begins a generation.
pub fn begin(
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
    state: StateNumber,
    records: Records,
    journal: &Journal,
) -> Result<Contents, StoreError> {
    let contents =
        Contents { state: Some(state), records, journal: Some(journal.clone()), ..Contents::default() };
    store.begin_generation(service, generation, &contents)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heirlock_core::records::Record;
    use heirlock_core::store::in_memory::InMemory;

    fn key(name: &str) -> RecordKey {
        RecordKey::parse(name).unwrap()
    }

    fn records(names: &[&str]) -> Records {
        let mut records = Records::new();
        names.iter().for_each(|name| drop(records.insert(key(name), Record::from(name.as_bytes()))));
        records
    }

    /// A service with these clients in the store.
    fn held(names: &[&str]) -> (Held, Contents) {
        let us = ServerName::parse("nfs-a").unwrap();
        let service = ServiceName::parse("svc0").unwrap();
        let claim = Claim::new(Generation::FIRST, &us, "agent", 0);
        let state = StateNumber(3);
        let store = InMemory::new(heirlock_core::store_identity::StoreIdentity::of(1));
        store.claim(&service, &claim).unwrap();
        let journal = Journal::quiet("run", &us, 0);
        let contents = begin(&store, &service, claim.generation, state, records(names), &journal).unwrap();
        let held = Held::new(claim, contents.clone(), journal, false, Duration::ZERO);
        (held, contents)
    }

    #[test]
    fn a_failed_change_that_came_about_is_no_loss_of_the_store() {
        let (mut held, mut found) = held(&["10.0.0.1", "10.0.0.2"]);
        let new = RecordChange::put(key("10.0.0.3"), Record::from(b"10.0.0.3".as_slice()));
        let gone = RecordChange::remove(key("10.0.0.1"));
        held.ledger.uncommitted(&[gone.clone(), new.clone()]);
        for change in [gone.clone(), new.clone()] {
            found.apply(Change::Record(change));
        }
        let Differences { lost, strange, came_about } = held.differences(&found);
        assert_eq!((lost, strange, came_about), (vec![], vec![], vec![gone, new]));
    }

    #[test]
    fn a_record_that_the_store_lost_or_has_besides_is_a_difference_whatever_else_failed() {
        let (mut held, mut found) = held(&["10.0.0.1", "10.0.0.2"]);
        held.ledger.uncommitted(&[RecordChange::put(key("10.0.0.1"), Record::from(b"new".as_slice()))]);
        found.apply(Change::Record(RecordChange::remove(key("10.0.0.1"))));
        let besides = RecordChange::put(key("10.0.0.9"), Record::from(b"10.0.0.9".as_slice()));
        found.apply(Change::Record(besides.clone()));
        let Differences { lost, strange, came_about } = held.differences(&found);
        let put = Change::put(key("10.0.0.1"), Record::from(b"10.0.0.1".as_slice()));
        assert_eq!((lost, strange, came_about), (vec![put], vec![besides], vec![]));
    }
}
