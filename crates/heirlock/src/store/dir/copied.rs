//! A folder that is moved to another place, or is the copy of a store.
//!
//! The mark that closes a store is its identity's file, which every call reads before it changes anything, and once more before it
//! says that it is done. So a change that an agent is told of lies in the folder before that is closed. Files know no condition:
//! of two copies that change the mark in the same moment the later one wins, and the other one finds that out at its next call.

use heirlock_core::ServiceName;
use heirlock_core::store::{CopiedStore, Fill, StoreError};
use heirlock_core::store_standing::Standing;

use super::identity::IDENTITY;
use super::{DirStore, FileError, to_json, unexpected};

impl DirStore {
    fn put_standing(&self, standing: &Standing) -> Result<(), FileError> {
        let path = self.root.join(IDENTITY);
        self.replace(&path, standing.line().as_bytes())?;
        match self.read_standing()? {
            Some(there) if there == *standing => Ok(()),
            there => Err(self.other_copy(there.as_ref())),
        }
    }

    /// There is a folder that may be a store, with the file that says so or without.
    fn is_there(&self) -> Result<bool, FileError> {
        match self.owner() {
            Err(FileError::Absent { .. }) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(self.read_marker()?.is_some()),
        }
    }
}

impl CopiedStore for DirStore {
    fn standing(&self) -> Result<Option<Standing>, StoreError> {
        if !self.is_there()? {
            return Ok(None);
        }
        self.enter_any()?;
        match self.read_standing()? {
            Some(standing) => Ok(Some(standing)),
            None => {
                let path = self.root.join(IDENTITY);
                let remedy = "start an agent of this version on it first, which gives it one";
                Err(unexpected(
                    &path,
                    "the identity of the store",
                    "none: an earlier version made it",
                    remedy,
                )
                .into())
            }
        }
    }

    fn expect_standing(&self, standing: &Standing) {
        *self.expected() = Some(standing.clone());
    }

    fn change_standing(&self, from: &Standing, to: &Standing) -> Result<(), StoreError> {
        self.enter_any()?;
        match self.read_standing()? {
            // Also where it is there already: it may not be durable yet.
            Some(there) if there == *from || there == *to => Ok(self.put_standing(to)?),
            there => Err(self.other_copy(there.as_ref()).into()),
        }
    }

    fn make_as(&self, standing: &Standing) -> Result<(), StoreError> {
        // What lies there without the file that says that it is a store is the rest of an attempt to make one.
        self.make_folder_a_store(|store| store.put_standing(standing))?;
        match self.read_standing()? {
            Some(there) if there == *standing => Ok(self.enter_any()?),
            there => Err(self.other_copy(there.as_ref()).into()),
        }
    }

    fn closes_at_once(&self) -> bool {
        false
    }

    fn fill(&self, service: &ServiceName, with: &Fill) -> Result<(), StoreError> {
        let call = self.for_one_call();
        call.enter()?;
        let (folder, claims) = (call.service(service), call.claims(service));
        match with {
            Fill::Claim(claim) => {
                call.make(&folder)?;
                call.make(&claims)?;
                let path = call.claim_at(service, claim.generation);
                call.replace(&path, &to_json(&path, claim)?)?;
            }
            Fill::RemoveClaim(generation) => {
                call.remove_if(&claims.join(format!("{generation}.released")))?;
                call.remove_if(&call.claim_at(service, *generation))?;
                call.sync(&claims)?;
            }
            Fill::Begin(generation, contents) => {
                call.make(&folder)?;
                call.begin(&folder, *generation, contents)?;
            }
            Fill::Change(generation, changes) => {
                call.commit_changes(&[(call.generation(service, *generation), changes.as_slice())])?;
            }
            Fill::RemoveGeneration(generation) => {
                call.tidied().remove(&call.generation(service, *generation));
                call.remove_generation(&folder, *generation)?;
            }
            Fill::Tenure(tenure) => {
                call.make(&folder)?;
                call.keep_one(service, tenure)?;
            }
            Fill::RemoveTenure(generation) => {
                call.remove_if(&call.history(service).join(generation.to_string()))?;
                call.sync(&call.history(service))?;
            }
        }
        Ok(call.leave()?)
    }
}
