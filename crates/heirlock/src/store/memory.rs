//! A server's memory of its store ([`StoreMemory`]), in its own folder.

use std::io;
use std::path::Path;

pub(crate) use heirlock_agent::store_memory::{Known, StoreMemory};
use heirlock_core::store_identity::{Verdict, judge};

use super::failure::FileError;
use super::{Store, StoreError};
use crate::config::Settings;
use crate::files::{if_present, trusted};
use crate::host::Host;

/// Its name in the local directory.
pub(crate) const FILE: &str = "store.json";

/// Bytes of the largest one that is read: some hundred services.
const MEMORY_BYTES_MAX: usize = 1024 * 1024;

/// The file that 'heirlock enable' writes on a host under guard, in earlier versions too. They remembered no store.
pub(crate) const GUARD_FILE: &str = "enabled.json";

/// This server's, from its local directory; nothing where nothing was remembered yet.
///
/// # Errors
/// Where the file is there and can't be read.
pub(crate) fn load(local_directory: &Path) -> Result<StoreMemory, StoreError> {
    let path = local_directory.join(FILE);
    let read = if_present(trusted::read(&path, MEMORY_BYTES_MAX));
    let Some(bytes) = read.map_err(|source| failed("read", &path, source))? else {
        return Ok(StoreMemory::default());
    };
    let memory = serde_json::from_slice::<StoreMemory>(&bytes).map_err(|error| error.to_string());
    let memory = memory.and_then(|memory| match memory.format() {
        StoreMemory::FORMAT => Ok(memory),
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

/// Changes the memory, durably; a change that changes nothing writes nothing. Changes that another process of this
/// server wrote meanwhile stay.
///
/// # Errors
/// Where the file can't be read or written.
pub(crate) fn update(
    local_directory: &Path,
    change: impl FnOnce(&mut StoreMemory),
) -> Result<StoreMemory, StoreError> {
    let mut memory = load(local_directory)?;
    let before = memory.clone();
    change(&mut memory);
    if memory != before {
        save(&memory, local_directory)?;
    }
    Ok(memory)
}

fn save(memory: &StoreMemory, local_directory: &Path) -> Result<(), StoreError> {
    let path = local_directory.join(FILE);
    let written = serde_json::to_vec_pretty(memory).map_err(io::Error::from);
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

/// Whether this server had a store before it could remember which.
pub(crate) fn had_one(local_directory: &Path) -> bool {
    local_directory.join(GUARD_FILE).exists()
}

/// Opens the configured store for a verb that writes to it, with what is remembered of it.
///
/// # Errors
/// Where it can't be opened, or is another one than this server's.
pub(crate) fn open_ours(
    host: &Host,
    settings: &Settings,
) -> Result<(Box<dyn Store>, StoreMemory), StoreError> {
    let store = super::open(host, settings);
    let memory = make_sure(store.as_ref(), settings)?;
    Ok((store, memory))
}

/// Makes sure that an open store is this server's, and that every later call fails where it is not any more. Answers what is
/// remembered of it.
///
/// # Errors
/// Where it can't be looked at, or is another one than this server's.
pub(crate) fn make_sure(store: &dyn Store, settings: &Settings) -> Result<StoreMemory, StoreError> {
    let (memory, wrong) = recognise(store, &settings.local_directory)?;
    match wrong {
        Some(wrong) => Err(wrong),
        None => {
            store.expect(store.found()?.identity.as_ref());
            Ok(memory)
        }
    }
}

/// Opens the configured store for commands that only look at it, and says whether it is another one than this server's.
///
/// # Errors
/// Where it can't be opened.
pub(crate) fn open_any(
    host: &Host,
    settings: &Settings,
) -> Result<(Box<dyn Store>, Option<StoreError>), StoreError> {
    let store = super::open(host, settings);
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
    let memory = load(local_directory)?;
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

    use heirlock_core::store_identity::{Kept, StoreIdentity};
    use heirlock_core::{Generation, ServiceName};
    use heirlock_nsm::StateNumber;

    use super::*;

    #[test]
    fn the_memory_of_a_store_is_read_back_and_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), StoreMemory::default());
        let (nfs, identity) = (ServiceName::parse("nfs").unwrap(), StoreIdentity::of(7));
        update(folder.path(), |memory| memory.accept(&identity, Kept::Nothing)).unwrap();
        for (generation, number) in [(4, Some(11)), (2, Some(5)), (3, None)] {
            let generation = Generation(generation);
            let number = number.map(StateNumber);
            update(folder.path(), |memory| {
                memory.saw(&nfs, generation, Some(generation), number);
            })
            .unwrap();
        }
        let memory = load(folder.path()).unwrap();
        let known = memory.known(&nfs);
        assert_eq!((known.expected, known.sent()), (Some(Generation(4)), Some(StateNumber(11))));
        assert_eq!([1, 5, 9].map(|n| known.above(Generation(n), None).0), [5, 5, 9]);
        let begun = |begun| known.above(Generation(6), Some(Generation(begun))).0;
        assert_eq!([5, 6, 7].map(begun), [6, 7, 8]);
        assert!(memory.confirmed && memory.check_age(&nfs, Some(Generation(3))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_memory_that_can_t_be_read_is_an_error_and_not_none() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"format\": 2}", "{\"format\": 1, \"identity\": \"../x\"}"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = load(folder.path()).unwrap_err().to_string();
            assert!(
                error.contains("store.json: expected what this server remembers of its store"),
                "{error}"
            );
            assert!(update(folder.path(), |_| {}).is_err());
        }
        forget(folder.path()).unwrap();
        forget(folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap(), StoreMemory::default());
    }
}
