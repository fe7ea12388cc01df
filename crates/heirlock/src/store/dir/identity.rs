//! Which store a folder is: a file that is made with it, once, and names it for ever.

use heirlock_core::store_identity::{Found, Kept, StoreIdentity, WrongStore};
use heirlock_core::{Generation, ServiceName};

use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use super::{DirStore, FileError, failed, unexpected};

/// The file's name; it lies beside the one that says what the folder is.
pub(super) const IDENTITY: &str = "identity";

/// Its one line; the digits follow.
const LINE: &str = "heirlock store identity, format 1: ";

/// Bytes of the largest such file that is read.
const IDENTITY_BYTES_MAX: usize = 256;

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
        self.create_exclusively(&path, line(identity).as_bytes())?;
        match self.read_identity()? {
            Some(identity) => Ok(identity),
            None => Err(unexpected(&path, "the identity that was just written", "nothing", "repeat it")),
        }
    }

    /// Fails unless the store that is there is the one that is expected.
    pub(super) fn check_identity(&self, expected: &StoreIdentity) -> Result<(), FileError> {
        if self.read_identity()?.as_ref() == Some(expected) {
            return Ok(());
        }
        // An empty folder is no store.
        self.enter_any()?;
        let found = self.look()?;
        let why = WrongStore { expected: Some(expected.clone()), found };
        Err(FileError::Wrong { path: self.root.display().to_string(), why })
    }

    pub(super) fn expected(&self) -> MutexGuard<'_, Option<StoreIdentity>> {
        // Its contents are still true after a thread has panicked.
        self.memory.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_identity(&self) -> Result<Option<StoreIdentity>, FileError> {
        let path = self.root.join(IDENTITY);
        match self.disk().read(&path, IDENTITY_BYTES_MAX) {
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

fn line(identity: &StoreIdentity) -> String {
    format!("{LINE}{}\n", identity.as_str())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<StoreIdentity, FileError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix(LINE)?.strip_suffix('\n'));
    text.and_then(|digits| StoreIdentity::parse(digits).ok()).ok_or_else(|| {
        let found = format!("{:?}", String::from_utf8_lossy(bytes).trim());
        let remedy = "use the version that made it; where this is the right store, restore the file from a copy, or write the digits that each server remembers (store.json in its local directory)";
        unexpected(path, &format!("{:?} and 32 digits", LINE.trim_end()), &found, remedy)
    })
}
