//! The past of services: claims and generations that are over, and the few lines that outlive them.

use std::path::PathBuf;

use heirlock_core::history::Tenure;
use heirlock_core::limits::TENURES_KEPT;
use heirlock_core::{Generation, RecordKey, ServiceName};
use heirlock_nsm::StateNumber;

use super::generation::{parse_journal, parse_outcomes};
use super::names::{RECORDS, file_name, key_of};
use super::{DirStore, FileError, JOURNAL, OUTCOMES, parse_json, to_json};
use crate::store::{Account, Past};

impl DirStore {
    pub(super) fn past_of(&self, service: &ServiceName) -> Result<Past, FileError> {
        let mut past = Past::default();
        for number in self.numbers(&self.claims(service))? {
            match self.read_claim(service, number) {
                Ok(claim) => past.claims.push(claim),
                Err(error) => past.unreadable.push(error.to_string()),
            }
        }
        past.generations = self.numbers(&self.service(service))?;
        for number in self.numbers(&self.history(service))? {
            let path = self.history(service).join(number.to_string());
            match self.read(&path).and_then(|bytes| parse_json::<Tenure>(&path, &bytes)) {
                Ok(tenure) => past.tenures.push(tenure),
                Err(error) => past.unreadable.push(error.to_string()),
            }
        }
        Ok(past)
    }

    pub(super) fn account_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Account, FileError> {
        let path = self.generation(service, generation);
        // The others are read also where one can't be.
        let beside = |name: &str| match self.read_if(&path.join(name)) {
            Err(error) if error.is_of_one_entry() => Ok(None),
            read => read,
        };
        Ok(Account {
            keys: self
                .list(&path.join(RECORDS))?
                .iter()
                .filter_map(|name| key_of(name.as_ref())?.ok())
                .collect(),
            state: beside("state")?.and_then(|bytes| StateNumber::parse_file(&bytes).ok()),
            journal: beside(JOURNAL)?.and_then(|bytes| parse_journal(&bytes).ok()),
            outcomes: beside(OUTCOMES)?.map(|bytes| parse_outcomes(&bytes)).unwrap_or_default(),
        })
    }

    /// Exclusively, and never changed: the server that removes a generation first tells of it.
    pub(super) fn keep_one(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), FileError> {
        let folder = self.history(service);
        self.make(&folder)?;
        let path = folder.join(tenure.generation.to_string());
        self.create_exclusively(&path, &to_json(&path, tenure)?)?;
        let old = self.numbers(&folder)?.into_iter().skip(TENURES_KEPT);
        old.map(|old| folder.join(old.to_string())).try_for_each(|old| self.remove_if(&old))
    }

    pub(super) fn written(
        &self,
        service: &ServiceName,
        generation: Generation,
        key: &RecordKey,
    ) -> Option<u64> {
        let records = self.generation(service, generation).join(RECORDS);
        self.disk().written_at_s(&records.join(file_name(key))).ok()
    }

    pub(super) fn history(&self, service: &ServiceName) -> PathBuf {
        self.service(service).join("history")
    }
}
