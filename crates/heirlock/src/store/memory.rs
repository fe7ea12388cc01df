//! What a server remembers of its store, in its own folder: which one it is, and how far the services in it had come.
//!
//! It is what a store that was exchanged, emptied or set back is found out by. A number in it only rises: what was told to
//! clients once stays told, whatever becomes of the store.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use heirlock_core::store_identity::{Kept, OlderStore, Remembered, StoreIdentity, Verdict, check_age, judge};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;
use serde::{Deserialize, Serialize};

use super::failure::FileError;
use super::{Store, StoreError};
use crate::config::Settings;
use crate::files::{if_present, trusted};

/// Its name in the local directory.
pub(crate) const FILE: &str = "store.json";

/// The one format there is.
const FORMAT: u32 = 1;

/// Bytes of the largest one that is read: some hundred services.
const MEMORY_BYTES_MAX: usize = 1024 * 1024;

/// What is written by 'heirlock enable' on a host under guard, by earlier versions too. They remembered no store.
pub(crate) const GUARD_FILE: &str = "enabled.json";

/// All that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct StoreMemory {
    format: u32,
    /// Which store it is.
    pub(crate) identity: Option<StoreIdentity>,
    /// A service that moves was seen in it ([`Remembered::confirmed`]).
    #[serde(default)]
    pub(crate) confirmed: bool,
    /// How far each service had come.
    #[serde(default)]
    pub(crate) services: BTreeMap<ServiceName, Known>,
}

/// How far a service had come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Known {
    /// The generation that this store must show at least; none after another store was accepted.
    pub(crate) expected: Option<Generation>,
    /// The highest generation there ever was: the next claim is above it.
    pub(crate) highest: Option<Generation>,
    /// The highest state number of any of its generations: the next one is above it (I5).
    pub(crate) number: Option<u32>,
}

impl Default for StoreMemory {
    fn default() -> Self {
        Self { format: FORMAT, identity: None, confirmed: false, services: BTreeMap::new() }
    }
}

impl StoreMemory {
    /// This server's, from its local directory; nothing where nothing was remembered yet.
    ///
    /// # Errors
    /// Where the file is there and can't be read.
    pub(crate) fn load(local_directory: &Path) -> Result<Self, StoreError> {
        let path = local_directory.join(FILE);
        let read = if_present(trusted::read(&path, MEMORY_BYTES_MAX));
        let Some(bytes) = read.map_err(|source| failed("read", &path, source))? else {
            return Ok(Self::default());
        };
        let memory = serde_json::from_slice::<Self>(&bytes).map_err(|error| error.to_string());
        let memory = memory.and_then(|memory| match memory.format {
            FORMAT => Ok(memory),
            other => Err(format!("format {other}")),
        });
        memory.map_err(|found| {
            let error = FileError::Unexpected {
                path: path.display().to_string(),
                expected: "what this server remembers of its store".into(),
                found,
                remedy: "see that the right store is in its place, then remove this file",
            };
            error.into()
        })
    }

    /// Changes what is remembered, durably; a change that changes nothing writes nothing. What another process of this
    /// server wrote meanwhile stays.
    ///
    /// # Errors
    /// Where the file can't be read or written.
    pub(crate) fn update(local_directory: &Path, change: impl FnOnce(&mut Self)) -> Result<Self, StoreError> {
        let mut memory = Self::load(local_directory)?;
        let before = memory.clone();
        change(&mut memory);
        if memory != before {
            memory.save(local_directory)?;
        }
        Ok(memory)
    }

    fn save(&self, local_directory: &Path) -> Result<(), StoreError> {
        let path = local_directory.join(FILE);
        let written = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let written = written.and_then(|bytes| trusted::replace(&path, &bytes, 0o600, true));
        written.map_err(|source| failed("write", &path, source))
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// Where the file is there and can't be removed.
    pub(crate) fn forget(local_directory: &Path) -> io::Result<()> {
        let path = local_directory.join(FILE);
        match if_present(trusted::remove(&path))? {
            Some(()) => trusted::sync_name(&path),
            None => Ok(()),
        }
    }

    /// What the store is judged by.
    pub(crate) fn remembered(&self, had_one: bool) -> Remembered {
        Remembered { identity: self.identity.clone(), confirmed: self.confirmed, had_one }
    }

    /// This is the store from now on, accepted by the operator or met for the first time. What was known of services in
    /// another one is no longer expected, but its numbers stay used.
    pub(crate) fn accept(&mut self, identity: &StoreIdentity, kept: Kept) {
        self.identity = Some(identity.clone());
        self.confirmed = kept == Kept::Services;
        self.services.values_mut().for_each(|known| known.expected = None);
    }

    /// What is known of a service.
    pub(crate) fn known(&self, service: &ServiceName) -> Known {
        self.services.get(service).copied().unwrap_or_default()
    }

    /// A service was seen in the store: its newest claim is `claimed`, its newest whole generation `begun`, with a number
    /// that may be known.
    pub(crate) fn saw(
        &mut self,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        let known = self.services.entry(service.clone()).or_default();
        known.expected = known.expected.max(begun);
        known.highest = known.highest.max(Some(claimed));
        known.number = known.number.max(number.map(|number| number.0));
        self.confirmed |= !service.is_host();
    }

    /// Whether the store shows as much of a service as was seen of it; `found` is its newest whole generation.
    ///
    /// # Errors
    /// Where it shows less.
    pub(crate) fn check_age(
        &self,
        service: &ServiceName,
        found: Option<Generation>,
    ) -> Result<(), OlderStore> {
        check_age(service, self.known(service).expected, found)
    }
}

impl Known {
    /// A generation that nobody ever had, or this one where it is newer than all that are known. `begun`, the newest one in
    /// the store, counts whatever became of its claim: under its number its clients were told another state number.
    pub(crate) fn above(&self, generation: Generation, begun: Option<Generation>) -> Generation {
        self.highest.max(begun).map_or(generation, |highest| generation.max(highest.next()))
    }

    /// The number that was sent last, as far as it is known.
    pub(crate) fn sent(&self) -> Option<StateNumber> {
        self.number.map(StateNumber)
    }
}

/// Whether this server had a store before it could remember which.
pub(crate) fn had_one(local_directory: &Path) -> bool {
    local_directory.join(GUARD_FILE).exists()
}

/// Opens the configured store for a verb that writes to it, with what is remembered of it.
///
/// # Errors
/// Where it can't be opened, or is another one than this server's.
pub(crate) fn open_ours(settings: &Settings) -> Result<(Box<dyn Store>, StoreMemory), StoreError> {
    let store = super::open(settings);
    let (memory, wrong) = recognise(store.as_ref(), &settings.local_directory)?;
    match wrong {
        Some(wrong) => Err(wrong),
        None => {
            // It must stay the same until the verb is done.
            store.expect(store.found()?.identity.as_ref());
            Ok((store, memory))
        }
    }
}

/// Opens the configured store for what only looks at it, and says whether it is another one than this server's.
///
/// # Errors
/// Where it can't be opened.
pub(crate) fn open_any(settings: &Settings) -> Result<(Box<dyn Store>, Option<StoreError>), StoreError> {
    let store = super::open(settings);
    let (_, wrong) = recognise(store.as_ref(), &settings.local_directory)?;
    Ok((store, wrong))
}

/// Looks at a store, and says what is remembered and whether this is another one.
///
/// # Errors
/// Where it can't be looked at.
pub(crate) fn recognise(
    store: &dyn Store,
    local_directory: &Path,
) -> Result<(StoreMemory, Option<StoreError>), StoreError> {
    let memory = StoreMemory::load(local_directory)?;
    // Named where there is none at all.
    store.expect(memory.identity.as_ref());
    let verdict = judge(&memory.remembered(had_one(local_directory)), &store.found()?);
    store.expect(None);
    let wrong = match verdict {
        Verdict::Refused(why) => Some(store.wrong(why)),
        Verdict::Ours | Verdict::Remember(_) | Verdict::Name => None,
    };
    Ok((memory, wrong))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    FileError::Io { action, path: path.display().to_string(), source }.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_remembered_is_read_back_and_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(StoreMemory::load(folder.path()).unwrap(), StoreMemory::default());
        let (nfs, identity) = (ServiceName::parse("nfs").unwrap(), StoreIdentity::of(7));
        StoreMemory::update(folder.path(), |memory| memory.accept(&identity, Kept::Nothing)).unwrap();
        for (generation, number) in [(4, Some(11)), (2, Some(5)), (3, None)] {
            let generation = Generation(generation);
            let number = number.map(StateNumber);
            StoreMemory::update(folder.path(), |memory| {
                memory.saw(&nfs, generation, Some(generation), number);
            })
            .unwrap();
        }
        let memory = StoreMemory::load(folder.path()).unwrap();
        let known = memory.known(&nfs);
        assert_eq!((known.expected, known.sent()), (Some(Generation(4)), Some(StateNumber(11))));
        assert_eq!([1, 5, 9].map(|n| known.above(Generation(n), None).0), [5, 5, 9]);
        let begun = |begun| known.above(Generation(6), Some(Generation(begun))).0;
        assert_eq!([5, 6, 7].map(begun), [6, 7, 8]);
        assert!(memory.confirmed && memory.check_age(&nfs, Some(Generation(3))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn an_accepted_store_need_show_nothing_and_repeats_nothing() {
        let (nfs, identity) = (ServiceName::parse("nfs").unwrap(), StoreIdentity::of(9));
        let mut memory = StoreMemory::default();
        memory.saw(&nfs, Generation(4), Some(Generation(4)), Some(StateNumber(11)));
        memory.accept(&identity, Kept::Nothing);
        assert_eq!(memory.check_age(&nfs, None), Ok(()));
        assert_eq!(memory.known(&nfs).above(Generation::FIRST, None), Generation(5));
        assert_eq!(memory.known(&nfs).sent(), Some(StateNumber(11)));
        assert!(!memory.confirmed);
    }

    #[test]
    fn a_memory_that_can_t_be_read_is_an_error_and_not_none() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"format\": 2}", "{\"format\": 1, \"identity\": \"../x\"}"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = StoreMemory::load(folder.path()).unwrap_err().to_string();
            assert!(
                error.contains("store.json: expected what this server remembers of its store"),
                "{error}"
            );
            assert!(StoreMemory::update(folder.path(), |_| {}).is_err());
        }
        StoreMemory::forget(folder.path()).unwrap();
        StoreMemory::forget(folder.path()).unwrap();
        assert_eq!(StoreMemory::load(folder.path()).unwrap(), StoreMemory::default());
    }
}
