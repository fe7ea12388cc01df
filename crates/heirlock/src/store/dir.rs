//! The `dir` store: a folder, on this server's disk or on a shared or replicated volume.
//!
//! Everything in it is a plain file, so it works on any file system that several servers can see, and is of use
//! without heirlock: each generation is a valid NSM state directory, and stock `sm-notify -P` on a copy of the newest
//! recovers the locks.
//!
//! - A file appears by temporary file, fsync, rename, fsync of its folder; a generation by rename of a whole folder.
//! - A claim appears by link(2), which is exclusive on shared file systems where rename and flock let two servers win.
//! - Names that begin with a dot are unfinished; whoever finds one may remove it.

mod commit;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use heirlock_core::claim::Claim;
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, StateNumber};

use super::disk::{Disk, RealDisk};
use super::{Change, ClaimAnswer, Contents, ServerReport, Store, StoreError};

/// The file that says what a folder is, and its contents for this format.
const MARKER: &str = "heirlock-store";
const FORMAT: &str = "heirlock store, format 1\n";

/// Bytes of the largest file that is read whole: a journal of ten thousand clients' run, outcomes of a hundred thousand.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Above this many files one sync of the whole file system is cheaper than one each.
const SYNC_EACH_MAX: usize = 8;

/// A folder as a store.
pub(crate) struct DirStore {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Makes temporary names of this process its own.
    unique: String,
}

impl DirStore {
    /// Opens a folder that is a store already.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        check_owner(root)?;
        Self::on(root, Box::new(RealDisk))
    }

    /// Makes a folder a store, if it is none yet, and opens it.
    pub(crate) fn create(root: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(root).map_err(failed("create", root))?;
        let store = Self { root: root.to_owned(), disk: Box::new(RealDisk), unique: unique() };
        if !root.join(MARKER).exists() {
            let others = store.list(root)?;
            if !others.is_empty() {
                return Err(unexpected(root, "an empty folder", "other files", "choose a folder of its own"));
            }
            std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .map_err(failed("protect", root))?;
            store.make(&root.join("services"))?;
            store.make(&root.join("servers"))?;
            store.replace(&root.join(MARKER), FORMAT.as_bytes())?;
        }
        Self::open(root)
    }

    /// Makes a store in which nothing was ever kept an empty folder again; fails at the first thing that is found in it.
    pub(crate) fn remove_empty(&self) -> io::Result<()> {
        std::fs::remove_dir(self.root.join("services"))?;
        std::fs::remove_dir(self.root.join("servers"))?;
        std::fs::remove_file(self.root.join(MARKER))
    }

    /// A folder that isn't there yet, because its volume isn't. Every call fails until it is.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), disk: Box::new(RealDisk), unique: unique() }
    }

    /// On a disk that may be a test's.
    pub(crate) fn on(root: &Path, disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), disk, unique: unique() };
        let found = store.read(&root.join(MARKER))?;
        if found != FORMAT.as_bytes() {
            let found = String::from_utf8_lossy(&found).trim().to_owned();
            return Err(unexpected(
                &root.join(MARKER),
                FORMAT.trim(),
                &found,
                "this version can't read that store",
            ));
        }
        Ok(store)
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

    fn read(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        self.disk.read(path, FILE_BYTES_MAX).map_err(failed("read", path))
    }

    /// The file, or `None` where there is none.
    fn read_if(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match self.disk.read(path, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path)(error)),
        }
    }

    /// The names in a folder that are text; unfinished ones are left out. A folder that does not exist has none.
    fn list(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let names = match self.disk.list(path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", path)(error)),
        };
        let mut names: Vec<String> = names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The numbers in a folder, falling.
    fn numbers(&self, path: &Path) -> Result<Vec<Generation>, StoreError> {
        let mut numbers: Vec<Generation> =
            self.list(path)?.iter().filter_map(|name| name.parse().ok().map(Generation)).collect();
        numbers.sort_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// A folder and its name in its parent, durable.
    fn make(&self, path: &Path) -> Result<(), StoreError> {
        self.disk.make_folder(path).map_err(failed("create", path))?;
        self.sync_parent(path)
    }

    fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        let parent = path.parent().unwrap_or(&self.root);
        self.disk.sync_folder(parent).map_err(failed("sync", parent))
    }

    /// A file with these bytes, durable, or the one that was there before.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary(path);
        self.disk.write(&temporary, bytes, true).map_err(failed("write", &temporary))?;
        self.disk.rename(&temporary, path).map_err(failed("rename", path))?;
        self.sync_parent(path)
    }

    /// A hidden name beside this one, which no other process uses.
    fn temporary(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!(".{name}.{}", self.unique))
    }

    /// Creates a file that nobody else created; `false` where somebody has.
    fn create_exclusively(&self, path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
        let temporary = self.temporary(path);
        self.disk.write(&temporary, bytes, true).map_err(failed("write", &temporary))?;
        let won = match self.disk.link(&temporary, path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            // Over a network the answer may be lost although the link was made.
            Err(error) => match self.disk.links(&temporary) {
                Ok(2) => true,
                _ => return Err(failed("link", path)(error)),
            },
        };
        // A temporary file that stays is only in the way.
        let _ = self.disk.remove(&temporary);
        self.sync_parent(path)?;
        Ok(won)
    }

    fn read_claim(&self, service: &ServiceName, generation: Generation) -> Result<Claim, StoreError> {
        let path = self.claims(service).join(generation.to_string());
        let mut claim: Claim = parse_json(&path, &self.read(&path)?)?;
        let mark = self.claims(service).join(format!("{generation}.released"));
        claim.released = self.read_if(&mark)?.is_some();
        Ok(claim)
    }
}

impl Store for DirStore {
    fn describe(&self) -> String {
        format!("the folder {}", self.root.display())
    }

    fn probe(&self) -> Result<(), StoreError> {
        let path = self.root.join(format!(".probe.{}", self.unique));
        self.disk.write(&path, self.unique.as_bytes(), true).map_err(failed("write", &path))?;
        let found = self.read(&path)?;
        self.disk.remove(&path).map_err(failed("remove", &path))?;
        if found == self.unique.as_bytes() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found).into_owned();
        Err(unexpected(
            &path,
            &self.unique,
            &found,
            "the volume doesn't keep what is written to it; replace it",
        ))
    }

    fn services(&self) -> Result<Vec<ServiceName>, StoreError> {
        let names = self.list(&self.root.join("services"))?;
        Ok(names.into_iter().filter_map(|name| ServiceName::try_from(name).ok()).collect())
    }

    fn newest_claim(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        match self.numbers(&self.claims(service))?.first() {
            Some(newest) => self.read_claim(service, *newest).map(Some),
            None => Ok(None),
        }
    }

    fn claim(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        self.make(&self.service(service))?;
        self.make(&self.claims(service))?;
        let path = self.claims(service).join(claim.generation.to_string());
        let text = serde_json::to_string_pretty(claim).unwrap_or_default();
        if self.create_exclusively(&path, text.as_bytes())? {
            return Ok(ClaimAnswer::Won);
        }
        let there = self.read_claim(service, claim.generation)?;
        let same = there.owner == claim.owner && there.agent == claim.agent && !there.released;
        Ok(if same { ClaimAnswer::Won } else { ClaimAnswer::Taken(there) })
    }

    fn release(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        self.create_exclusively(&self.claims(service).join(format!("{generation}.released")), b"").map(|_| ())
    }

    fn newest_generation(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        Ok(self.numbers(&self.service(service))?.into_iter().find(|number| *number <= at_most))
    }

    fn begin_generation(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        let path = self.generation(service, generation);
        if self.numbers(&self.service(service))?.contains(&generation) {
            return Ok(());
        }
        let unfinished = self.temporary(&path);
        // What an earlier attempt of this process left behind would be mixed into this one.
        let _ = self.disk.remove_folder(&unfinished);
        self.build(&unfinished, contents)?;
        match self.disk.rename(&unfinished, &path) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            Err(error) => return Err(failed("rename", &path)(error)),
        }
        self.sync_parent(&path)
    }

    fn load(&self, service: &ServiceName, generation: Generation) -> Result<Contents, StoreError> {
        let path = self.generation(service, generation);
        let mut contents = Contents::default();
        if let Some(bytes) = self.read_if(&path.join("state"))? {
            match StateNumber::parse_file(&bytes) {
                Ok(state) => contents.state = Some(state),
                Err(error) => contents.damaged.push(("state".into(), error.to_string())),
            }
        }
        for name in self.list(&path.join("sm"))? {
            match self.load_record(&path, &name) {
                Ok((key, bytes)) => {
                    contents.records.insert(key, bytes);
                }
                Err(why) => contents.damaged.push((format!("sm/{name}"), why)),
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        contents.journal = self.read_if(&path.join("journal.json"))?.map(text);
        let outcomes = self.read_if(&path.join("outcomes"))?.map(text).unwrap_or_default();
        // Without its newline the last line was torn.
        let whole = outcomes.rfind('\n').map_or("", |end| &outcomes[..end]);
        contents.outcomes = whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(contents)
    }

    fn commit(
        &self,
        service: &ServiceName,
        generation: Generation,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        self.commit_changes(&self.generation(service, generation), changes)
    }

    fn prune(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        let newest = self.numbers(&self.service(service))?.first().copied();
        for old in self.numbers(&self.service(service))? {
            if old < keep_from && Some(old) != newest {
                let path = self.generation(service, old);
                self.disk.remove_folder(&path).map_err(failed("remove", &path))?;
            }
        }
        let newest = self.numbers(&self.claims(service))?.first().copied();
        for old in self.numbers(&self.claims(service))? {
            if old < keep_from && Some(old) != newest {
                let path = self.claims(service).join(old.to_string());
                // The mark first: a claim without it would look like one that was never given up.
                let _ = self.disk.remove(&self.claims(service).join(format!("{old}.released")));
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    fn put_server(&self, report: &ServerReport) -> Result<(), StoreError> {
        let path = self.root.join("servers").join(report.server.as_str());
        let temporary = self.temporary(&path);
        let text = serde_json::to_string_pretty(report).unwrap_or_default();
        self.disk.write(&temporary, text.as_bytes(), false).map_err(failed("write", &temporary))?;
        self.disk.rename(&temporary, &path).map_err(failed("rename", &path))
    }

    fn servers(&self) -> Result<BTreeMap<ServerName, ServerReport>, StoreError> {
        let folder = self.root.join("servers");
        let mut servers = BTreeMap::new();
        for name in self.list(&folder)? {
            let path = folder.join(&name);
            let Some(bytes) = self.read_if(&path)? else { continue };
            match parse_json::<ServerReport>(&path, &bytes) {
                Ok(report) if report.server.as_str() == name => {
                    servers.insert(report.server.clone(), report);
                }
                Ok(report) => {
                    tracing::warn!(path = name, found = %report.server, "a heartbeat under another's name");
                }
                Err(error) => tracing::warn!(%error, "a heartbeat that can't be read"),
            }
        }
        Ok(servers)
    }
}

impl DirStore {
    fn load_record(&self, generation: &Path, name: &str) -> Result<(MonName, Vec<u8>), String> {
        let key = MonName::parse(name).map_err(|error| error.to_string())?;
        let path = generation.join("sm").join(name);
        let max = u64::try_from(heirlock_core::limits::RECORD_BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = self.disk.read(&path, max).map_err(|error| error.to_string())?;
        parse_record(&bytes).map_err(|error| error.to_string())?;
        Ok((key, bytes))
    }

    /// Builds a generation that nobody sees yet.
    fn build(&self, path: &Path, contents: &Contents) -> Result<(), StoreError> {
        for folder in [path.to_owned(), path.join("sm"), path.join("sm.bak")] {
            self.disk.make_folder(&folder).map_err(failed("create", &folder))?;
        }
        let each = contents.records.len() <= SYNC_EACH_MAX;
        let write =
            |path: PathBuf, bytes: &[u8]| self.disk.write(&path, bytes, each).map_err(failed("write", &path));
        for (name, bytes) in &contents.records {
            write(path.join("sm").join(name.as_str()), bytes)?;
        }
        if let Some(state) = contents.state {
            write(path.join("state"), &state.render_file())?;
        }
        if let Some(journal) = &contents.journal {
            write(path.join("journal.json"), journal.as_bytes())?;
        }
        if !each {
            self.disk.sync_all(path).map_err(failed("sync", path))?;
        }
        for folder in [path.join("sm"), path.join("sm.bak"), path.to_owned()] {
            self.disk.sync_folder(&folder).map_err(failed("sync", &folder))?;
        }
        Ok(())
    }
}

/// A folder that somebody else owns could be changed by somebody else at any time.
fn check_owner(root: &Path) -> Result<(), StoreError> {
    let found = std::fs::metadata(root).map_err(failed("open", root))?;
    if !found.is_dir() {
        return Err(unexpected(root, "a folder", "something else", "name the folder of the store"));
    }
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        let (expected, found) = (format!("a folder of user {us}"), format!("one of user {}", found.uid()));
        return Err(unexpected(root, &expected, &found, "give it to the user the agent runs as"));
    }
    if found.mode() & 0o022 != 0 {
        let found = format!("mode {:04o}", found.mode() & 0o7777);
        return Err(unexpected(
            root,
            "a folder that only its owner writes",
            &found,
            "take the others' right to write (chmod 0700)",
        ));
    }
    Ok(())
}

fn unique() -> String {
    format!("{:x}.{:08x}", std::process::id(), fastrand::u32(..))
}

fn parse_json<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| {
        unexpected(
            path,
            "JSON as this version writes it",
            &error.to_string(),
            "restore it, or remove it if it is no part of the store",
        )
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |source| StoreError::Io { action, path, source }
}

fn unexpected(path: &Path, expected: &str, found: &str, remedy: &'static str) -> StoreError {
    StoreError::Unexpected {
        path: path.display().to_string(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        remedy,
    }
}
