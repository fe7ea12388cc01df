//! Which store a folder is, and whether it is in force: a file that is made with it. Its identity never changes.

use heirlock_core::limits::STANDING_BYTES_MAX;
use heirlock_core::store_identity::{Found, Kept, StoreIdentity, WrongStore};
use heirlock_core::store_standing::Standing;
use heirlock_core::{Generation, ServiceName};

use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use super::{DirStore, FileError, failed, shortened, unexpected};

/// The file's name; it lies beside the one that says what the folder is.
pub(super) const IDENTITY: &str = "identity";

impl DirStore {
    /// A store as it is, expected or not.
    pub(super) fn look(&self) -> Result<Found, FileError> {
        let identity = self.read_identity()?;
        let services = self.claimed_services()?;
        Ok(Found { identity, kept: Kept::of(&services) })
    }

    /// Gives the folder an identity, unless it has one: of all servers that try at the same moment one wins, and all go by its
    /// identity.
    pub(super) fn identify(&self, identity: &StoreIdentity) -> Result<StoreIdentity, FileError> {
        let path = self.root.join(IDENTITY);
        self.create_exclusively(&path, Standing::InForce(identity.clone()).line().as_bytes())?;
        match self.read_identity()? {
            Some(identity) => Ok(identity),
            None => Err(unexpected(&path, "the identity that was just written", "nothing", "repeat it")),
        }
    }

    /// Fails unless the store that is there is the one that is expected.
    pub(super) fn check_standing(&self, expected: &Standing) -> Result<(), FileError> {
        let there = self.read_standing()?;
        if there.as_ref() == Some(expected) {
            return Ok(());
        }
        // An empty folder is no store.
        self.enter_any()?;
        if !matches!(expected, Standing::InForce(_)) {
            return Err(self.other_copy(there.as_ref()));
        }
        let found = self.look()?;
        let why = WrongStore { expected: Some(expected.identity().clone()), found };
        Err(FileError::Wrong { path: self.root.display().to_string(), why })
    }

    /// Ends every call that has changed something: it counts as made only if the store was the expected one to its end. A copy
    /// that has closed the store since may have read it before this call wrote to it.
    pub(super) fn leave(&self) -> Result<(), FileError> {
        let expected = self.expected().clone();
        match expected {
            Some(expected) => self.check_standing(&expected),
            None => self.read_identity().map(drop),
        }
    }

    /// The failure of a copy whose store is not as it left it.
    pub(super) fn other_copy(&self, there: Option<&Standing>) -> FileError {
        let found = there.map_or_else(|| "nothing".to_owned(), |there| there.line().trim_end().to_owned());
        FileError::OtherCopy { path: self.root.display().to_string(), found }
    }

    pub(super) fn expected(&self) -> MutexGuard<'_, Option<Standing>> {
        // Its contents are still true after a thread has panicked.
        self.memory.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the store is not in force.
    fn read_identity(&self) -> Result<Option<StoreIdentity>, FileError> {
        let not_in_force = |why| FileError::NotInForce { path: self.root.display().to_string(), why };
        self.read_standing()?.map(|standing| standing.in_force().map_err(not_in_force)).transpose()
    }

    pub(super) fn read_standing(&self) -> Result<Option<Standing>, FileError> {
        let path = self.root.join(IDENTITY);
        match self.disk().read(&path, STANDING_BYTES_MAX) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// The services that have a claim.
    pub(super) fn claimed_services(&self) -> Result<Vec<ServiceName>, FileError> {
        let mut services = Vec::new();
        for name in self.list(&self.root.join("services"))? {
            let Ok(service) = ServiceName::try_from(name) else { continue };
            match self.numbers(&self.claims(&service)) {
                Ok(claims) if !claims.is_empty() => services.push(service),
                // Its claims were lost.
                Ok(_) => {
                    let begun = self.newest_folder(&self.service(&service), Generation(u64::MAX))?;
                    services.extend(begun.map(|_| service));
                }
                Err(error) if error.is_of_one_entry() => {
                    self.say_stray(&error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(services)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Standing, FileError> {
    Standing::parse(bytes).ok_or_else(|| {
        let found = format!("{:?}", shortened(String::from_utf8_lossy(bytes).trim()));
        let remedy = "use the version that made it; where this is the right store, restore the file from a copy, or write the digits that each server remembers (store.json in its local directory)";
        unexpected(path, &format!("{:?} and 32 digits", Standing::expected_text()), &found, remedy)
    })
}
