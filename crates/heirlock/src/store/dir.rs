//! The `dir` store: a folder, on this server's disk or on a shared or replicated volume.
//!
//! Everything in it is a plain file, so it works on any file system that several servers can see, and is of use
//! without heirlock: each generation is a valid NSM state directory, and stock `sm-notify -P` on a copy of the newest
//! recovers the locks.
//!
//! - A file appears by temporary file, fsync, rename, fsync of its folder; a generation by rename of a whole folder. Each file
//!   is synced by itself, many of them side by side (`files/syncs.rs`): a sync of the whole file system would also wait for all
//!   that other programs have left unwritten there.
//! - A claim appears by link(2), which is exclusive on shared file systems where rename and flock let two servers win.
//! - Names that begin with a dot are unfinished: a crash leaves them behind, and no reader reads them.
//! - A commit looks for a newer claim of another server before it writes. A claim that is made while it writes is not seen, for
//!   a folder can't make one step of the two. The changes then lie in the generation of the server that made them, and the new
//!   owner may have read that generation before. A claim that can't be read does not count either.
//! - That a file is absent counts only while the folder is proved to be a store: under the empty mount point of a
//!   volume no service would be claimed, and no server alive.

mod claims;
mod commit;
mod copied;
#[cfg(test)]
mod crash_tests;
mod files;
mod generation;
mod identity;
#[cfg(test)]
mod kill_tests;
mod names;
mod on_host;
mod past;
mod read_before;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod stray_tests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use heirlock_core::claim::Claim;
use heirlock_core::history::Tenure;
use heirlock_core::log_limit::Source;
use heirlock_core::store_identity::{Found, OlderStore, StoreIdentity, WrongStore};
use heirlock_core::store_standing::Standing;
use heirlock_core::{Generation, Record, RecordKey, ServiceName};
use heirlock_nsm::StateNumber;

use super::disk::{Disk, Owner, RealDisk};
use super::failure::{FileError, older_store, wrong_store};
use super::{
    Account, Change, ClaimAnswer, Commit, Contents, Past, Place, ServerHearts, ServerReport, Store,
    StoreError,
};
use crate::files::syncs::Syncs;
use crate::files::{Listed, WallTime, trusted, unless_absent};
use crate::from_elsewhere;
use crate::limits::{FOUND_CHARS_MAX, HEARTBEAT_BYTES_MAX, STORE_FILE_BYTES_MAX};
use identity::IDENTITY;
use read_before::ReadBefore;

/// The file that says what a folder is, and its contents for this format.
const MARKER: &str = "heirlock-store";
const FORMAT: &str = "heirlock store, format 1\n";

/// The files beside the records of a generation.
const JOURNAL: &str = "journal.json";
const OUTCOMES: &str = "outcomes";

/// A folder as a store.
pub(crate) struct DirStore {
    root: PathBuf,
    disk: Box<dyn Disk>,
    memory: Arc<Memory>,
    /// It reads or writes heartbeats. They are made beside another call, for which they are no progress.
    is_heartbeat: bool,
}

/// All that one call of a store leaves to the next.
struct Memory {
    /// Makes temporary names of this process its own, and each of them another.
    unique: String,
    temporaries: AtomicU64,
    /// Operations of the disk that have begun, and files that were synced beside others.
    operations: Arc<AtomicU64>,
    /// The generations in which nothing unfinished of an earlier run is left.
    tidied: Mutex<HashSet<PathBuf>>,
    /// The records that the last calls read, until a heartbeat since which none was read or asked for.
    read_before: Mutex<ReadBefore>,
    /// Which store it must be.
    expected: Mutex<Option<Standing>>,
    /// The threads that sync many files.
    syncs: Syncs,
}

impl DirStore {
    /// A folder that may not be there yet: its volume is mounted later than the agent starts. Until then every call
    /// fails, and none writes below the mount point.
    pub(crate) fn at(root: &Path) -> Self {
        Self::on(root, Box::new(RealDisk::at(root)))
    }

    /// Opens a folder that is a store already.
    #[cfg(test)]
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self::at(root);
        store.enter()?;
        Ok(store)
    }

    /// Makes a folder a store, if it is none yet, and opens it.
    #[cfg(test)]
    pub(crate) fn create(root: &Path) -> Result<Self, StoreError> {
        Self::create_on(root, Box::new(RealDisk::at(root)))
    }

    /// On a disk that may be a test's.
    pub(crate) fn on(root: &Path, disk: Box<dyn Disk>) -> Self {
        let operations: Arc<AtomicU64> = Arc::default();
        let memory = Memory {
            unique: format!("{:x}.{:08x}", std::process::id(), fastrand::u32(..)),
            temporaries: AtomicU64::new(0),
            operations: Arc::clone(&operations),
            tidied: Mutex::default(),
            read_before: Mutex::default(),
            expected: Mutex::default(),
            syncs: Syncs::new("store-sync", operations),
        };
        Self { root: root.to_owned(), disk, memory: Arc::new(memory), is_heartbeat: false }
    }

    /// The same store for the length of one call, which opens each of its folders once.
    fn for_one_call(&self) -> Self {
        let (root, disk, memory) = (self.root.clone(), self.disk.for_one_call(), Arc::clone(&self.memory));
        Self { root, disk, memory, is_heartbeat: false }
    }

    fn for_heartbeats(&self) -> Self {
        Self { is_heartbeat: true, ..self.for_one_call() }
    }

    #[cfg(test)]
    pub(crate) fn create_on(root: &Path, disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        let store = Self::on(root, disk);
        store.set_up_folder()?;
        Ok(store)
    }

    /// Makes the folder a store, if it is none yet.
    fn set_up_folder(&self) -> Result<(), StoreError> {
        self.make_folder_a_store(|store| store.identify(&StoreIdentity::of(fastrand::u128(..))).map(drop))?;
        Ok(self.enter()?)
    }

    /// Makes the folder a store, if it is none yet. `identify` gives it its identity.
    fn make_folder_a_store(
        &self,
        identify: impl FnOnce(&Self) -> Result<(), FileError>,
    ) -> Result<(), StoreError> {
        let root = self.root.as_path();
        let missing = |path: &Path| matches!(self.disk().owner(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
        let mut above: Vec<&Path> = root.ancestors().take_while(|path| missing(path)).collect();
        while let Some(path) = above.pop() {
            self.make(path)?;
        }
        if self.read_marker()?.is_some() {
            return Ok(());
        }
        // All of it may be there already: a first attempt may have ended, or another server be at work.
        let ours = |name: &String| ["services", "servers", IDENTITY, MARKER].contains(&name.as_str());
        if let Some(other) = self.list(root)?.iter().find(|name| !ours(name)) {
            let found = format!("{other:?} in it");
            return Err(unexpected(root, "an empty folder", &found, "choose a folder of its own").into());
        }
        self.disk().protect(root).map_err(failed("protect", root))?;
        self.make(&root.join("services"))?;
        self.make(&root.join("servers"))?;
        // Before the marker: a store that can be found has an identity.
        identify(self)?;
        Ok(self.replace(&root.join(MARKER), FORMAT.as_bytes())?)
    }

    /// Makes a store in which nothing was ever kept an empty folder again; fails at the first thing that is found in it.
    fn make_empty(&self) -> io::Result<()> {
        trusted::remove_empty_folder(&self.root.join("services"))?;
        trusted::remove_empty_folder(&self.root.join("servers"))?;
        unless_absent(trusted::remove(&self.root.join(IDENTITY)))?;
        trusted::remove(&self.root.join(MARKER))
    }

    /// The disk, for one operation: that it begins shows that the one before has ended.
    fn disk(&self) -> &dyn Disk {
        self.progresses();
        self.disk.as_ref()
    }

    fn progresses(&self) {
        if self.is_heartbeat {
            return;
        }
        self.memory.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins every call: the folder is there, is the store that is expected, and no other user can change it.
    fn enter(&self) -> Result<(), FileError> {
        let expected = self.expected().clone();
        match expected {
            // A store that was whole when it was met has the file that says so.
            Some(expected) => {
                let owner = self.owner()?;
                self.check_standing(&expected)?;
                check_owner(&self.root, owner)
            }
            None => self.enter_any(),
        }
    }

    /// The same for any store. The owner of an empty folder, as below a volume that isn't mounted, does not matter.
    fn enter_any(&self) -> Result<(), FileError> {
        let owner = self.owner()?;
        let Some(found) = self.read_marker()? else {
            return Err(self.absent(format!("a folder without the file {MARKER}")));
        };
        check_owner(&self.root, owner)?;
        if found == FORMAT.as_bytes() {
            return Ok(());
        }
        let found = format!("{:?}", String::from_utf8_lossy(&found).trim());
        let expected = format!("{:?}", FORMAT.trim());
        Err(unexpected(&self.root.join(MARKER), &expected, &found, "use the version that made this store"))
    }

    fn owner(&self) -> Result<Owner, FileError> {
        match self.disk().owner(&self.root) {
            Ok(owner) if owner.is_folder => Ok(owner),
            Ok(_) => {
                Err(unexpected(&self.root, "a folder", "something else", "name the folder of the store"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.absent("nothing".into())),
            Err(error) => Err(failed("open", &self.root)(error)),
        }
    }

    fn absent(&self, found: String) -> FileError {
        let expected = self.expected().as_ref().map(|expected| expected.identity().to_string());
        FileError::Absent { path: self.root.display().to_string(), expected, found }
    }

    fn read_marker(&self) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.root.join(MARKER);
        match self.disk().read(&path, STORE_FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn service(&self, service: &ServiceName) -> PathBuf {
        self.root.join("services").join(service.as_str())
    }

    fn claims(&self, service: &ServiceName) -> PathBuf {
        self.service(service).join("claims")
    }

    fn generation(&self, service: &ServiceName, generation: Generation) -> PathBuf {
        self.service(service).join(generation.to_string())
    }

    /// Names an entry that is none of the store's. It counts for nothing.
    fn say_stray(&self, error: &FileError) -> bool {
        if from_elsewhere::may_say("stray entry of the store", Source::Unknown) {
            tracing::error!(%error, "an entry of the store's folder is none of the store's, and is left alone: {error}");
        }
        false
    }

    fn read_before(&self) -> MutexGuard<'_, ReadBefore> {
        // After a thread has panicked it may lack something, which is read once more then.
        self.memory.read_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heartbeat waits for no call that reads records: that may take long, or hang.
    fn forget_read_before(&self) {
        match self.memory.read_before.try_lock() {
            Ok(mut read_before) => read_before.forget(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().forget(),
            // They are in use.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn tidied(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // Its contents are still true after a thread has panicked.
        self.memory.tidied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for DirStore {
    fn describe(&self) -> String {
        format!("the folder {}", self.root.display())
    }

    fn place(&self, of: Place<'_>) -> String {
        let path = match of {
            Place::Store => self.root.clone(),
            Place::Claim(service, generation) => self.claims(service).join(generation.to_string()),
            Place::Generation(service, generation) => self.generation(service, generation),
            Place::Records(service, generation) => self.generation(service, generation).join("sm"),
        };
        path.display().to_string()
    }

    fn wrong(&self, why: WrongStore) -> StoreError {
        wrong_store(&self.root, why)
    }

    fn older(&self, why: OlderStore) -> StoreError {
        older_store(&self.root, why)
    }

    fn progress(&self) -> u64 {
        self.memory.operations.load(Ordering::Relaxed)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.enter()?;
        let path = self.temporary(&self.root);
        let written =
            self.disk().write(&path, self.memory.unique.as_bytes(), true).map_err(failed("write", &path));
        let found = written.and_then(|()| self.read(&path));
        let removed = self.disk().remove(&path).map_err(failed("remove", &path));
        let found = found?;
        removed?;
        if found == self.memory.unique.as_bytes() {
            return Ok(());
        }
        let found = format!("{:?}", String::from_utf8_lossy(&found));
        let remedy = "the volume doesn't keep what is written to it; replace it";
        Err(unexpected(&path, &self.memory.unique, &found, remedy).into())
    }

    fn found(&self) -> Result<Found, StoreError> {
        self.enter_any()?;
        Ok(self.look()?)
    }

    fn give_identity(&self, identity: &StoreIdentity) -> Result<StoreIdentity, StoreError> {
        self.enter_any()?;
        Ok(self.identify(identity)?)
    }

    fn expect(&self, identity: Option<&StoreIdentity>) {
        *self.expected() = identity.cloned().map(Standing::InForce);
    }

    fn services(&self) -> Result<Vec<ServiceName>, StoreError> {
        self.enter()?;
        Ok(self.claimed_services()?)
    }

    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        self.enter()?;
        Ok(self.newest(service)?)
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        self.enter()?;
        self.make(&self.service(service))?;
        self.make(&self.claims(service))?;
        // Old claims are pruned: their numbers are free as files, but must not be won by a server that slept meanwhile. Nor is a
        // number free whose generation was begun, also where its claim is lost.
        if self.is_begun(service, claim.generation)? && self.read_claim(service, claim.generation).is_err() {
            return Ok(ClaimAnswer::Taken(self.claim_of(service, claim.generation)?));
        }
        if let Some(newer) = self.newer_claim(service, claim.generation)? {
            return Ok(ClaimAnswer::Taken(newer));
        }
        let path = self.claims(service).join(claim.generation.to_string());
        if let Err(error) = self.read_if(&path)
            && error.is_no_file()
        {
            self.move_aside(&path)?;
        }
        if self.create_exclusively(&path, &to_json(&path, claim)?)? {
            self.leave()?;
            let newer = self.newer_claim(service, claim.generation)?;
            return Ok(newer.map_or(ClaimAnswer::Won, ClaimAnswer::Taken));
        }
        let there = self.claim_of(service, claim.generation)?;
        self.leave()?;
        let same = there.is_still(claim);
        Ok(if same { ClaimAnswer::Won } else { ClaimAnswer::Taken(there) })
    }

    fn restore_claim(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError> {
        self.enter()?;
        self.restore(service, claim)?;
        Ok(self.leave()?)
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        self.enter()?;
        // A mark without its claim would give away a later claim of this number.
        self.claim_of(service, generation)?;
        self.create_exclusively(&self.claims(service).join(format!("{generation}.released")), b"")?;
        Ok(self.leave()?)
    }

    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        self.enter()?;
        Ok(self.newest_folder(&self.service(service), at_most)?)
    }

    fn check_records(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        self.enter()?;
        self.list(&self.generation(service, generation).join("sm"))?;
        Ok(())
    }

    fn number_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        self.enter()?;
        let bytes = match self.read_if(&self.generation(service, generation).join("state")) {
            Err(error) if error.is_of_one_entry() => None,
            read => read?,
        };
        Ok(bytes.and_then(|bytes| StateNumber::parse_file(&bytes).ok()))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        let call = self.for_one_call();
        call.enter()?;
        call.begin(&self.service(service), generation, contents)?;
        Ok(call.leave()?)
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError> {
        self.enter()?;
        Ok(self.load_all(&self.generation(service, generation))?)
    }

    fn commit(&self, service: &ServiceName, by: &Claim, changes: &[Change]) -> Result<(), StoreError> {
        let call = self.for_one_call();
        call.enter()?;
        call.check_still_owner(service, by)?;
        call.commit_changes(&[(self.generation(service, by.generation), changes)])?;
        Ok(call.leave()?)
    }

    fn commit_each(&self, work: &[Commit]) -> Result<(), StoreError> {
        let call = self.for_one_call();
        call.enter()?;
        work.iter().try_for_each(|commit| call.check_still_owner(&commit.service, &commit.by))?;
        let place = |commit: &Commit| self.generation(&commit.service, commit.by.generation);
        let places: Vec<(PathBuf, &[Change])> =
            work.iter().map(|commit| (place(commit), commit.changes.as_slice())).collect();
        call.commit_changes(&places)?;
        Ok(call.leave()?)
    }

    fn past(&self, service: &ServiceName) -> Result<Past, StoreError> {
        self.enter()?;
        Ok(self.past_of(service)?)
    }

    fn account(&self, service: &ServiceName, generation: Generation) -> Result<Account, StoreError> {
        self.enter()?;
        Ok(self.account_of(service, generation)?)
    }

    fn keep_tenure(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError> {
        self.enter()?;
        self.keep_one(service, tenure)?;
        Ok(self.leave()?)
    }

    fn record(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<Record> {
        let sm = self.generation(service, generation).join("sm");
        let reader = self.disk().reader(&sm).ok()?;
        ReadBefore::default().read(reader.as_ref(), key, Listed::NOWHERE, WallTime::now()).ok().flatten()
    }

    fn written_at_s(&self, service: &ServiceName, generation: Generation, key: &RecordKey) -> Option<u64> {
        self.written(service, generation, key)
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        self.enter()?;
        self.prune_generations(&self.service(service), keep_from)?;
        let claims = self.claims(service);
        for old in self.numbers(&claims)?.into_iter().skip(1).filter(|old| *old < keep_from) {
            // The claim last: a server that is interrupted finds it again.
            self.remove_if(&claims.join(format!("{old}.released")))?;
            self.remove_if(&claims.join(old.to_string()))?;
        }
        Ok(())
    }

    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        self.forget_read_before();
        let call = self.for_heartbeats();
        call.enter()?;
        let path = call.root.join("servers").join(report.server.as_str());
        Ok(call.put(&path, &to_json(&path, report)?, false)?)
    }

    fn hearts(&self) -> Result<ServerHearts, StoreError> {
        let call = self.for_heartbeats();
        call.enter()?;
        let folder = call.root.join("servers");
        let mut hearts = ServerHearts::default();
        for name in call.list(&folder)? {
            let path = folder.join(&name);
            let read = call
                .read_up_to(&path, HEARTBEAT_BYTES_MAX)
                .and_then(|bytes| bytes.map(|bytes| parse_json::<ServerReport>(&path, &bytes)).transpose());
            match read {
                Ok(None) => {}
                Ok(Some(report)) if report.server.as_str() == name => {
                    hearts.reports.insert(report.server.clone(), Arc::new(report));
                }
                Ok(Some(report)) => {
                    let why = format!("expected the heartbeat of {name}, found that of {}", report.server);
                    hearts.unreadable.insert(name, why);
                }
                Err(error) if error.is_of_one_entry() => {
                    hearts.unreadable.insert(name, error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(hearts)
    }
}

/// A folder of another user could be changed by that user at any time.
fn check_owner(root: &Path, found: Owner) -> Result<(), FileError> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid != us {
        let (expected, found) = (format!("a folder of user {us}"), format!("one of user {}", found.uid));
        return Err(unexpected(root, &expected, &found, "give it to the user the agent runs as"));
    }
    if found.mode & 0o022 != 0 {
        let found = format!("mode {:04o}", found.mode);
        return Err(unexpected(
            root,
            "a folder that only its owner writes",
            &found,
            "take the others' right to write (chmod 0700)",
        ));
    }
    Ok(())
}

fn to_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, FileError> {
    serde_json::to_vec_pretty(value).map_err(|error| failed("write", path)(error.into()))
}

fn parse_json<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FileError> {
    serde_json::from_slice(bytes).map_err(|error| FileError::Unreadable {
        path: path.display().to_string(),
        found: shortened(&error.to_string()),
    })
}

/// An error about a file holds text of that file, of any length.
fn shortened(said: &str) -> String {
    let mut characters = said.chars();
    let mut kept: String = characters.by_ref().take(FOUND_CHARS_MAX).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    kept
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.display().to_string();
    move |source| FileError::Io { action, path, source }
}

fn unexpected(path: &Path, expected: &str, found: &str, remedy: &'static str) -> FileError {
    FileError::Unexpected {
        path: path.display().to_string(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        remedy,
    }
}
