//! Claims: how they are read, and which entries tell their text where they can't be read.

use std::collections::BTreeSet;
use std::path::PathBuf;

use heirlock_core::claim::Claim;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServiceName};

use super::super::StoreError;
use super::{DirStore, FileError, JOURNAL, parse_json, to_json};

impl DirStore {
    /// The claim as it was written.
    pub(super) fn read_claim(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Claim, FileError> {
        let mut claim = self.read_unmarked(service, generation)?;
        claim.released |= self.is_marked(service, generation)?;
        Ok(claim)
    }

    /// The same, without a look whether it was given up since.
    fn read_unmarked(&self, service: &ServiceName, generation: Generation) -> Result<Claim, FileError> {
        let path = self.claim_at(service, generation);
        let claim: Claim = parse_json(&path, &self.read(&path)?)?;
        if claim.generation != generation {
            let found = format!("the claim of generation {}", claim.generation);
            return Err(FileError::Unreadable { path: path.display().to_string(), found });
        }
        Ok(claim)
    }

    /// The claim as it was written, or as the generation tells that it began.
    pub(super) fn claim_of(&self, service: &ServiceName, generation: Generation) -> Result<Claim, FileError> {
        match self.read_claim(service, generation) {
            Err(error) if error.is_of_one_entry() || error.is_missing() => {
                self.told_by_its_generation(service, generation, error)
            }
            read => read,
        }
    }

    /// The newest claim. A claim is made by link(2): an entry that is no file was never one, and stands in no server's way,
    /// unless a generation was begun under its number. None is without a claim: then the claim was there, and was lost.
    pub(super) fn newest(&self, service: &ServiceName) -> Result<Option<Claim>, FileError> {
        // Read before the claims: a generation that is begun meanwhile was claimed before that.
        let begun = self.newest_folder(&self.service(service), Generation(u64::MAX))?;
        let mut numbers: BTreeSet<Generation> = self.numbers(&self.claims(service))?.into_iter().collect();
        numbers.extend(begun);
        for number in numbers.into_iter().rev() {
            if Some(number) == begun {
                return self.claim_of(service, number).map(Some);
            }
            match self.read_claim(service, number) {
                Err(error) if error.is_no_file() => self.say_stray(&error),
                Err(error) if error.is_missing() => continue, // pruned
                Err(error) if error.is_of_one_entry() => return Err(self.lost(service, number, &error)),
                read => return read.map(Some),
            };
        }
        Ok(None)
    }

    /// The newest claim, if it is newer than this one.
    pub(super) fn newer_claim(
        &self,
        service: &ServiceName,
        than: Generation,
    ) -> Result<Option<Claim>, FileError> {
        // A fault of an older one says nothing here.
        let newest = self.numbers(&self.claims(service))?.into_iter().find(|number| *number > than);
        let begun = self.newest_folder(&self.service(service), Generation(u64::MAX))?;
        match newest.or(begun.filter(|begun| *begun > than)) {
            Some(_) => Ok(self.newest(service)?.filter(|newest| newest.generation > than)),
            None => Ok(None),
        }
    }

    /// Fails where another server has claimed the service since. A claim that can't be read keeps no owner from its own records.
    pub(super) fn check_still_owner(&self, service: &ServiceName, by: &Claim) -> Result<(), StoreError> {
        let numbers = self.numbers(&self.claims(service)).unwrap_or_default();
        let since = numbers.into_iter().take_while(|number| *number >= by.generation);
        // Whether it was given up makes no claim stand back.
        let mut claims = since.filter_map(|number| self.read_unmarked(service, number).ok());
        match claims.find(|claim| by.gives_way_to(claim)) {
            Some(newer) => Err(StoreError::not_owner(service, by, &newer)),
            None => Ok(()),
        }
    }

    /// Whether a generation of this number was begun.
    pub(super) fn is_begun(&self, service: &ServiceName, generation: Generation) -> Result<bool, FileError> {
        Ok(self.newest_folder(&self.service(service), generation)? == Some(generation))
    }

    /// Writes a claim anew that can't be read. In one step: a number that is free for a moment would be won by another
    /// server.
    pub(super) fn restore(&self, service: &ServiceName, claim: &Claim) -> Result<(), FileError> {
        match self.read_claim(service, claim.generation) {
            Err(error) if error.is_of_one_entry() || error.is_missing() => {
                self.make(&self.claims(service))?;
                let path = self.claim_at(service, claim.generation);
                self.replace(&path, &to_json(&path, claim)?)
            }
            read => read.map(drop),
        }
    }

    fn told_by_its_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        error: FileError,
    ) -> Result<Claim, FileError> {
        let path = self.generation(service, generation).join(JOURNAL);
        let journal = match self.read_if(&path) {
            Ok(None) if error.is_missing() && !self.is_begun(service, generation)? => return Err(error),
            Ok(None) => return Err(self.lost(service, generation, &error)),
            Err(journal) if journal.is_of_one_entry() => return Err(self.lost(service, generation, &error)),
            read => read?.unwrap_or_default(),
        };
        match parse_json::<Journal>(&path, &journal) {
            Ok(journal) => {
                let released = self.is_marked(service, generation)?;
                Ok(journal.lost_claim(generation, released, error.to_string()))
            }
            Err(_) => Err(self.lost(service, generation, &error)),
        }
    }

    fn lost(&self, service: &ServiceName, generation: Generation, error: &FileError) -> FileError {
        let found = match error {
            FileError::Unreadable { found, .. } => found.clone(),
            error if error.is_missing() => "nothing".to_owned(),
            FileError::Io { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        let path = self.claim_at(service, generation).display().to_string();
        FileError::Claim { service: service.clone(), generation, path, found }
    }

    /// A mark that is no file was made by no server.
    fn is_marked(&self, service: &ServiceName, generation: Generation) -> Result<bool, FileError> {
        match self.read_if(&self.claims(service).join(format!("{generation}.released"))) {
            Err(error) if error.is_no_file() => Ok(self.say_stray(&error)),
            read => Ok(read?.is_some()),
        }
    }

    pub(super) fn claim_at(&self, service: &ServiceName, generation: Generation) -> PathBuf {
        self.claims(service).join(generation.to_string())
    }
}
