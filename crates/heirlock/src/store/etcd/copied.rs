//! A store in etcd that is moved to another place, or is the copy of a store.
//!
//! The mark that closes a store is the key of its identity, whose value every transaction has as its condition. So a change is made
//! before the store is closed, or never. The steps of a copy have the mark of its run as their condition: what a run before has
//! left on the way is carried out no more.

use heirlock_core::ServiceName;
use heirlock_core::store::{Change, CopiedStore, Fill, StoreError};
use heirlock_core::store_standing::Standing;
use heirlock_core::{Generation, claim::Claim};

use super::EtcdStore;
use super::client::Purpose;
use super::commit::Step;
use super::generation::portions;
use super::turn::Turn;
use super::wire::{Compare, Op, Range, Span, Txn};

impl EtcdStore {
    fn do_all(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        for then in portions(ops) {
            self.make(Txn { then, ..Txn::default() }, Purpose::Call)?;
        }
        Ok(())
    }

    fn fill_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError> {
        let written = self.json("a claim", claim)?;
        let put = Op::Put(self.keys.claim(service, claim.generation), written);
        // That it was given up is written in it.
        self.do_all(vec![put, Op::Delete(Span::key(self.keys.released(service, claim.generation)))])
    }

    fn fill_changes(
        &self,
        service: &ServiceName,
        generation: Generation,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let turn = self.keys.turn(service, generation);
        let (revision, [found]) = self.read([Range::key(turn.clone())], Purpose::Call)?;
        // Outcomes that are appended later have a higher number: their owner reads this mark.
        let number = Turn::found(found.value().as_deref(), revision).saturating_add(1);
        let mark = Turn::new(number, &self.unique.next());
        let mut ops = vec![Op::Put(turn, mark.text.into_bytes())];
        let mut appended = 0;
        ops.extend(self.steps(service, generation, changes)?.into_iter().map(|step| match step {
            Step::Put(key, value) => Op::Put(key, value),
            Step::Remove(key) => Op::Delete(Span::key(key)),
            Step::Outcomes(lines) => {
                appended += 1;
                Op::Put(self.keys.outcome(service, generation, [number, appended]), lines)
            }
        }));
        self.do_all(ops)
    }

    fn remove_generation(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        let marks = [self.keys.begun(service, generation), self.keys.turn(service, generation)];
        self.do_all(marks.into_iter().map(|key| Op::Delete(Span::key(key))).collect())?;
        self.remove_pages(&self.keys.generation(service, generation))
    }
}

impl CopiedStore for EtcdStore {
    fn standing(&self) -> Result<Option<Standing>, StoreError> {
        match self.for_any().read_standing() {
            Ok(Some(standing)) => Ok(Some(standing)),
            Ok(None) => {
                let key = self.key_text(&self.keys.identity());
                let said = format!(
                    "expected the identity of the store in the key {key}, found none; start an agent on it first"
                );
                Err(self.unexpected_at(&said))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn expect_standing(&self, standing: &Standing) {
        *self.expected() = Some(standing.clone());
    }

    fn change_standing(&self, from: &Standing, to: &Standing) -> Result<(), StoreError> {
        let key = self.keys.identity();
        let compares = vec![Compare::Value(key.clone(), from.line().into_bytes())];
        let then = vec![Op::Put(key, to.line().into_bytes())];
        let made = self.for_any().make(Txn { compares, then, ..Txn::default() }, Purpose::Call)?;
        // Repeated, it finds what it has made.
        match made.held {
            true => Ok(()),
            false => self.check_is(to),
        }
    }

    fn make_as(&self, standing: &Standing) -> Result<(), StoreError> {
        self.make_store(standing)?;
        self.check_is(standing)
    }

    fn closes_at_once(&self) -> bool {
        true
    }

    fn fill(&self, service: &ServiceName, with: &Fill) -> Result<(), StoreError> {
        match with {
            Fill::Claim(claim) => self.fill_claim(service, claim),
            Fill::RemoveClaim(generation) => {
                let keys = [self.keys.claim(service, *generation), self.keys.released(service, *generation)];
                self.do_all(keys.into_iter().map(|key| Op::Delete(Span::key(key))).collect())
            }
            Fill::Begin(generation, contents) => self.begin(service, *generation, contents),
            Fill::Change(generation, changes) => self.fill_changes(service, *generation, changes),
            Fill::RemoveGeneration(generation) => self.remove_generation(service, *generation),
            Fill::Tenure(tenure) => self.keep_one(service, tenure),
            Fill::RemoveTenure(generation) => self.remove(Span::key(self.keys.tenure(service, *generation))),
        }
    }
}

impl EtcdStore {
    fn check_is(&self, standing: &Standing) -> Result<(), StoreError> {
        match self.for_any().read_standing()? {
            Some(there) if there == *standing => Ok(()),
            there => Err(self.other_copy(there.as_ref())),
        }
    }
}
