//! Changes of generations: as many as fit go into one transaction, each of which names the claim that it is made by.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{MutexGuard, PoisonError};

use heirlock_core::claim::Claim;
use heirlock_core::limits::RECORD_BYTES_MAX;
use heirlock_core::store::{Change, RecordChange, StoreError, StoreErrorKind};
use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, ServiceName};

use super::EtcdStore;
use super::client::Purpose;
use super::store::Made;
use super::turn::{Ground, Known, READINGS, Turn, ground_of, unsure};
use super::wire::{Compare, Op, Range, Read, Span, Txn};
use crate::limits::{ETCD_TXN_BYTES_MAX, ETCD_TXN_OPS_MAX, ETCD_VALUE_BYTES_MAX};

/// How often a transaction is made anew because another one came before it.
pub(super) const TRIES: u32 = 16;

/// Services that one transaction changes: each has four conditions, and etcd takes 128.
const SERVICES_AT_ONCE: usize = 30;

/// Bytes of outcomes that lie under one key.
const OUTCOMES_BYTES: usize = 256 * 1024;

/// Generations of which something is known at a time: those of all services, twice.
const TURNS_MAX: usize = 2 * heirlock_core::limits::SERVICES_MAX;

/// What is known of the generations that this server changes.
pub(super) type Turns = HashMap<(ServiceName, Generation), Known>;

/// One key of a generation that is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Written.
    Put(Vec<u8>, Vec<u8>),
    /// Removed.
    Remove(Vec<u8>),
    /// Outcomes, whose key the transaction tells.
    Outcomes(Vec<u8>),
}

/// The changes of one service.
pub(super) struct Part<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) by: &'a Claim,
    pub(super) steps: Vec<Step>,
}

impl Step {
    fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Remove(key) => key.len(),
            Self::Outcomes(lines) => lines.len(),
        }
    }
}

/// Changes of several services that are made at one moment, by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Batch {
    /// Service, and its steps.
    of: Vec<(usize, Vec<Step>)>,
}

/// The fewest transactions, in order. A service without changes has a part all the same: that its claim has not given way is
/// looked at.
fn batches(parts: Vec<Vec<Step>>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut batch, mut ops, mut bytes) = (Batch { of: Vec::new() }, 0, 0);
    for (place, steps) in parts.into_iter().enumerate() {
        // Each service has its mark to write.
        if batch.of.len() >= SERVICES_AT_ONCE || ops + 2 > ETCD_TXN_OPS_MAX {
            batches.push(std::mem::replace(&mut batch, Batch { of: Vec::new() }));
            (ops, bytes) = (0, 0);
        }
        batch.of.push((place, Vec::new()));
        ops += 1;
        for step in steps {
            if ops + 1 > ETCD_TXN_OPS_MAX || (bytes > 0 && bytes + step.bytes() > ETCD_TXN_BYTES_MAX) {
                let next = Batch { of: vec![(place, Vec::new())] };
                batches.push(std::mem::replace(&mut batch, next));
                (ops, bytes) = (1, 0);
            }
            (ops, bytes) = (ops + 1, bytes + step.bytes());
            if let Some((_, of)) = batch.of.last_mut() {
                of.push(step);
            }
        }
    }
    batches.push(batch);
    batches.retain(|batch| !batch.of.is_empty());
    batches
}

impl EtcdStore {
    /// Where all of it fits into one transaction, that makes one step of it and of the look at the claims. Else the claims are
    /// looked at first, and each transaction has its own condition: a claim that comes between two of them leaves the changes
    /// of the first in the generation of the server that made them.
    pub(super) fn commit_parts(&self, parts: Vec<Part<'_>>) -> Result<(), StoreError> {
        let mut turns = self.turns();
        if turns.len() > TURNS_MAX {
            // Those of generations that are over; of the others a look tells all.
            turns.clear();
        }
        let of: Vec<(&ServiceName, &Claim)> = parts.iter().map(|part| (part.service, part.by)).collect();
        let batches = batches(parts.into_iter().map(|part| part.steps).collect());
        if batches.len() > 1 {
            for (service, by) in &of {
                self.look_at_ground(&mut turns, service, by)?;
            }
        }
        batches.into_iter().try_for_each(|batch| self.commit_batch(&mut turns, &of, &batch))
    }

    fn commit_batch(
        &self,
        turns: &mut Turns,
        of: &[(&ServiceName, &Claim)],
        batch: &Batch,
    ) -> Result<(), StoreError> {
        let parts: Vec<(&ServiceName, &Claim, &[Step])> = batch
            .of
            .iter()
            .filter_map(|(place, steps)| {
                of.get(*place).map(|(service, by)| (*service, *by, steps.as_slice()))
            })
            .collect();
        for _ in 0..TRIES {
            let mut known = Vec::with_capacity(parts.len());
            for (service, by, _) in &parts {
                let kept = turns.remove(&((*service).clone(), by.generation));
                known.push(match kept {
                    Some(kept) => kept,
                    None => self.known(service, by)?,
                });
            }
            let marks: Vec<Turn> =
                known.iter().map(|known| Turn::new(known.next, &self.unique.next())).collect();
            let made = self.make(self.txn_of(&parts, &known, &marks), Purpose::Call)?;
            let was_repeated = made.was_repeated;
            if !made.held {
                let grounds = self.grounds(&parts, made)?;
                if !grounds.iter().zip(&marks).all(|(ground, mark)| ground.is_after(mark)) {
                    let is_as_known =
                        grounds.iter().zip(&known).all(|(ground, known)| ground.is_as_known(known));
                    if was_repeated && !is_as_known {
                        let service = parts.first().map(|(service, ..)| *service);
                        return Err(service.map_or_else(
                            || self.contended("a generation"),
                            |service| unsure(self.shown(), service),
                        ));
                    }
                    for (ground, (service, by, _)) in grounds.into_iter().zip(&parts) {
                        let known = ground.judge(&self.keys, service, by)?;
                        let known = known.ok_or_else(|| self.no_generation(service, by.generation))?;
                        turns.insert(((*service).clone(), by.generation), known);
                    }
                    continue;
                }
            }
            for ((known, mark), (service, by, _)) in known.into_iter().zip(&marks).zip(&parts) {
                if known.may_be_kept() {
                    turns.insert(((*service).clone(), by.generation), known.after(mark));
                }
            }
            return Ok(());
        }
        Err(self.contended("a generation"))
    }

    fn txn_of(&self, parts: &[(&ServiceName, &Claim, &[Step])], known: &[Known], marks: &[Turn]) -> Txn {
        let mut txn = Txn::default();
        for (((service, by, steps), known), mark) in parts.iter().zip(known).zip(marks) {
            let generation = by.generation;
            txn.compares.extend(known.conditions(&self.keys, service, generation));
            txn.otherwise.extend(ground_of(&self.keys, service, generation).map(Op::Range));
            txn.then.push(Op::Put(self.keys.turn(service, generation), mark.text.clone().into_bytes()));
            let mut appended = 0;
            txn.then.extend(steps.iter().map(|step| match step {
                Step::Put(key, value) => Op::Put(key.clone(), value.clone()),
                Step::Remove(key) => Op::Delete(Span::key(key.clone())),
                Step::Outcomes(lines) => {
                    let key = self.keys.outcome(service, generation, [mark.number, appended]);
                    appended += 1;
                    Op::Put(key, lines.clone())
                }
            }));
        }
        txn
    }

    fn grounds(
        &self,
        parts: &[(&ServiceName, &Claim, &[Step])],
        made: Made,
    ) -> Result<Vec<Ground>, StoreError> {
        let revision = made.revision;
        let mut reads = made.reads();
        let grounds = parts.iter().map(|(service, by, _)| {
            let read: [Read; READINGS] = std::array::from_fn(|_| reads.next().unwrap_or_default());
            Ground::new(&self.keys, service, by.generation, read, revision)
        });
        Ok(grounds.collect())
    }

    fn look_at_ground(&self, turns: &mut Turns, service: &ServiceName, by: &Claim) -> Result<(), StoreError> {
        let known = self.known(service, by)?;
        turns.insert((service.clone(), by.generation), known);
        Ok(())
    }

    /// What a look at a generation shows its owner.
    fn known(&self, service: &ServiceName, by: &Claim) -> Result<Known, StoreError> {
        let (revision, reads) = self.read(ground_of(&self.keys, service, by.generation), Purpose::Call)?;
        let ground = Ground::new(&self.keys, service, by.generation, reads, revision);
        let known = ground.judge(&self.keys, service, by)?;
        known.ok_or_else(|| self.no_generation(service, by.generation))
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Turns> {
        // After a thread has panicked it may lack something, which is looked at once more then.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last change of a key is the one that counts: etcd takes one of each in a transaction.
    pub(super) fn steps(
        &self,
        service: &ServiceName,
        generation: Generation,
        changes: &[Change],
    ) -> Result<Vec<Step>, StoreError> {
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        let (mut seen, mut outcomes) = (HashMap::new(), Vec::new());
        for change in changes {
            let (key, step) = match change {
                Change::Record(RecordChange::Put(key, record)) => {
                    self.check_record(record.len(), key.as_str())?;
                    let key = self.keys.record(service, generation, key);
                    (key.clone(), Step::Put(key, record.to_vec()))
                }
                Change::Record(RecordChange::Remove(key)) => {
                    let key = self.keys.record(service, generation, key);
                    (key.clone(), Step::Remove(key))
                }
                Change::PutState(number) => {
                    let key = self.keys.state(service, generation);
                    (key.clone(), Step::Put(key, number.render_file().to_vec()))
                }
                Change::PutJournal(journal) => {
                    let key = self.keys.journal(service, generation);
                    (key.clone(), Step::Put(key.clone(), self.journal_text(journal)?))
                }
                Change::AppendOutcome(line) => {
                    outcomes.push(line);
                    continue;
                }
            };
            match seen.entry(key) {
                Slot::Occupied(at) => {
                    let at: usize = *at.get();
                    if let Some(there) = steps.get_mut(at) {
                        *there = step;
                    }
                }
                Slot::Vacant(slot) => {
                    slot.insert(steps.len());
                    steps.push(step);
                }
            }
        }
        steps.extend(self.outcome_texts(outcomes)?.into_iter().map(Step::Outcomes));
        Ok(steps)
    }

    /// Fails where a record is longer than any store keeps.
    pub(super) fn check_record(&self, bytes: usize, client: &str) -> Result<(), StoreError> {
        if bytes <= RECORD_BYTES_MAX {
            return Ok(());
        }
        Err(self.unexpected_at(&format!(
            "the record of {client}: expected at most {RECORD_BYTES_MAX} bytes, found {bytes}; look at the client's record on its \
             server"
        )))
    }

    /// A journal as it is written.
    pub(super) fn journal_text(&self, journal: &Journal) -> Result<Vec<u8>, StoreError> {
        self.json("a journal", journal)
    }

    /// A value as it is written, if etcd takes one of its length.
    pub(super) fn json<T: serde::Serialize>(&self, what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|error| self.unexpected_at(&format!("{what}: {error}")))?;
        if text.len() <= ETCD_VALUE_BYTES_MAX {
            return Ok(text);
        }
        let said = format!(
            "{what}: expected at most {ETCD_VALUE_BYTES_MAX} bytes, found {}: etcd takes no longer value; have fewer services and \
             exports on one server",
            text.len()
        );
        Err(StoreError::new(StoreErrorKind::Unexpected, format!("{}: {said}", self.shown())))
    }

    /// Outcomes as they are appended, a line each, in texts of a bounded length.
    pub(super) fn outcome_texts<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a OutcomeLine>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let (mut texts, mut text) = (Vec::new(), Vec::new());
        for line in lines {
            // JSON escapes what would end its line.
            serde_json::to_writer(&mut text, line)
                .map_err(|error| self.unexpected_at(&format!("an outcome: {error}")))?;
            text.push(b'\n');
            if text.len() >= OUTCOMES_BYTES {
                texts.push(std::mem::take(&mut text));
            }
        }
        texts.extend(Some(text).filter(|text| !text.is_empty()));
        Ok(texts)
    }

    /// The conditions of a generation that is being begun, and of no other.
    pub(super) fn being_begun(
        &self,
        service: &ServiceName,
        generation: Generation,
        attempt: &Turn,
    ) -> Vec<Compare> {
        vec![
            Compare::Absent(Span::key(self.keys.begun(service, generation))),
            Compare::Value(self.keys.turn(service, generation), attempt.text.clone().into_bytes()),
        ]
    }

    /// The readings that show whether a generation is whole, and its mark.
    pub(super) fn begun_and_turn(&self, service: &ServiceName, generation: Generation) -> [Range; 2] {
        [
            Range::key(self.keys.begun(service, generation)).names(),
            Range::key(self.keys.turn(service, generation)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(bytes: usize) -> Step {
        Step::Put(Vec::new(), vec![0; bytes])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_change_is_in_one_transaction_that_etcd_takes_and_in_order(
            sizes in proptest::collection::vec(proptest::collection::vec(prop_oneof![9 => 0_usize..200, 1 => 0_usize..70_000], 0..300), 0..70)
        ) {
            let parts: Vec<Vec<Step>> = sizes.iter().map(|sizes| sizes.iter().map(|bytes| step(*bytes)).collect()).collect();
            let batches = batches(parts.clone());
            let mut found: Vec<Vec<Step>> = vec![Vec::new(); parts.len()];
            for batch in &batches {
                let ops: usize = batch.of.iter().map(|(_, steps)| steps.len() + 1).sum();
                let bytes: usize = batch.of.iter().flat_map(|(_, steps)| steps).map(Step::bytes).sum();
                let conditions = 1 + 4 * batch.of.len();
                prop_assert!(ops <= ETCD_TXN_OPS_MAX && conditions <= 128 && 2 + READINGS * batch.of.len() <= 128);
                prop_assert!(bytes <= ETCD_TXN_BYTES_MAX);
                for (place, steps) in &batch.of {
                    found[*place].extend(steps.iter().cloned());
                }
            }
            prop_assert_eq!(found, parts.clone());
            let looked_at = batches.iter().flat_map(|batch| &batch.of).map(|(place, _)| *place);
            prop_assert_eq!(looked_at.collect::<std::collections::BTreeSet<_>>().len(), parts.len());
        }
    }

    #[test]
    fn what_one_server_asks_for_at_once_is_one_transaction() {
        let parts = vec![vec![step(100); 60], vec![step(100); 60]];
        assert_eq!(batches(parts).len(), 1);
        assert_eq!(batches(vec![vec![step(100); 128]]).len(), 2);
    }
}
