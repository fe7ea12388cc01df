//! Generations: whole or not at all, from the first to the last.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, Record};
use heirlock_nsm::StateNumber;

use super::super::disk::Sharer;
use super::super::{Damaged, DamagedPart};
use super::commit::{check_record, outcome_line};
use super::names::{file_name, key_of};
use super::{Contents, DirStore, FileError, JOURNAL, OUTCOMES, failed, shortened, to_json};
use crate::files::WallTime;

impl DirStore {
    /// Builds a generation under a hidden name, then gives it its own. Files that are the same as in the generation before are
    /// shared with it.
    pub(super) fn begin(
        &self,
        service: &Path,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), FileError> {
        let (path, unfinished) = (service.join(generation.to_string()), self.unfinished(service, generation));
        if self.is_folder(&path)? {
            // The server that made it may have failed, or may still be, between the rename and the sync.
            return self.sync(service);
        }
        let before = self.newest_folder(service, Generation(u64::MAX))?;
        let before = before.map(|newest| service.join(newest.to_string()).join("sm"));
        let built = self.build(&unfinished, contents, before.as_deref()).and_then(|()| {
            match self.rename(&unfinished, &path) {
                Ok(()) => Ok(true),
                Err(FileError::Io { source, .. }) if exists(&source) => Ok(false),
                Err(error) => Err(error),
            }
        });
        if !matches!(built, Ok(true)) {
            // Any rest of it is swept when its number is pruned.
            let _ = self.disk().remove_folder(&unfinished);
        }
        built?;
        self.sync(service)
    }

    /// The newest generation at or below this number. An entry that is no folder is no generation, whatever its name is.
    pub(super) fn newest_folder(
        &self,
        service: &Path,
        at_most: Generation,
    ) -> Result<Option<Generation>, FileError> {
        for number in self.numbers(service)?.into_iter().filter(|number| *number <= at_most) {
            if self.is_folder(&service.join(number.to_string()))? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn is_folder(&self, path: &Path) -> Result<bool, FileError> {
        match self.disk().owner(path) {
            Ok(found) => Ok(found.is_folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.enter().map(|()| false),
            Err(error) => Err(failed("look at", path)(error)),
        }
    }

    /// Builds a generation that no reader sees yet.
    fn build(&self, path: &Path, contents: &Contents, before: Option<&Path>) -> Result<(), FileError> {
        let sm = path.join("sm");
        for folder in [path.to_owned(), sm.clone(), path.join("sm.bak")] {
            self.disk().make_folder(&folder).map_err(failed("create", &folder))?;
        }
        let mut new: Vec<(PathBuf, Cow<'_, [u8]>)> = Vec::new();
        // Where the one before can't be opened it shares nothing.
        let before = before.and_then(|before| Some((before, self.disk().sharer(before, &sm).ok()?)));
        for (key, bytes) in &contents.records {
            let name = OsStr::new(file_name(key));
            let path = sm.join(name);
            check_record(&path, bytes)?;
            let is_shared = match &before {
                Some((before, sharer)) => {
                    self.progresses();
                    self.share_known(sharer.as_ref(), name, bytes)
                        || self.share(&before.join(name), &path, bytes)?
                }
                None => false,
            };
            if !is_shared {
                new.push((path, bytes[..].into()));
            }
        }
        if let Some(state) = contents.state {
            new.push((path.join("state"), state.render_file().to_vec().into()));
        }
        if let Some(journal) = &contents.journal {
            let path = path.join(JOURNAL);
            let bytes = to_json(&path, journal)?;
            new.push((path, bytes.into()));
        }
        if !contents.outcomes.is_empty() {
            let outcomes = path.join(OUTCOMES);
            let mut lines = String::new();
            for line in &contents.outcomes {
                lines.push_str(&outcome_line(&outcomes, line)?);
            }
            new.push((outcomes, lines.into_bytes().into()));
        }
        self.write_all(&new)?;
        [&sm, &path.join("sm.bak"), path].into_iter().try_for_each(|folder| self.sync(folder))
    }

    /// Gives a record that was read a moment ago a name in another generation too, and says whether it has it: with three system
    /// calls, where [`Self::share`] makes seven. The stamp vouches for the bytes, as it does where a record is read for a second
    /// service. Where another file has got the name, [`Self::share`] finds the name taken, and takes it away.
    fn share_known(&self, sharer: &dyn Sharer, name: &OsStr, bytes: &Record) -> bool {
        let Some(stamp) = sharer.stamp(name) else { return false };
        let is_known = self.read_before().known(&stamp).is_some_and(|known| known == *bytes);
        is_known && matches!(sharer.link(name, &stamp), Ok(true))
    }

    /// Gives a record that is in use a name in another generation too, and says whether it holds these bytes. A file that
    /// has its name is never written to, and was durable before it got it: so the name is all that is to be synced, where
    /// thousands of files would keep the clients of an adoption waiting.
    fn share(&self, known: &Path, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        match self.disk().link(known, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            // Read by its new name: the owner of the one before may put another file in this one's place.
            Ok(()) if self.read(path).is_ok_and(|found| found == bytes) => return Ok(true),
            // A file system without links, or a file with too many. Over a network the answer may be lost although the link
            // was made.
            _ => {}
        }
        self.remove_if(path)?;
        Ok(false)
    }

    pub(super) fn load_all(&self, path: &Path) -> Result<Contents, FileError> {
        let mut contents = Contents::default();
        let sm = path.join("sm");
        let reader = self.disk().reader(&sm).map_err(failed("open", &sm))?;
        let mut names = reader.entries().map_err(failed("list", &sm))?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (mut records, mut read_before) = (Vec::with_capacity(names.len()), self.read_before());
        let began = WallTime::now();
        for (name, listed) in names {
            let Some(key) = key_of(&name) else { continue };
            let read = key.as_ref().map_err(Clone::clone).and_then(|key| {
                self.progresses();
                read_before.read(reader.as_ref(), key, listed, began)
            });
            match (read, key) {
                (Ok(Some(record)), Ok(key)) => records.push((key, record)),
                (Err(why), key) => {
                    let path = format!("sm/{}", name.as_encoded_bytes().escape_ascii());
                    contents.damaged.push(Damaged { path, why, part: DamagedPart::Record(key.ok()) });
                }
                (Ok(_), _) => {}
            }
        }
        contents.records = records.into_iter().collect();
        self.load_all_beside(path, &mut contents)?;
        // Had the volume gone meanwhile, every record would look as if it had been removed.
        self.disk().owner(&sm).map_err(failed("look at", &sm))?;
        Ok(contents)
    }

    /// The files beside the records. A file that can't be read is named, and the records are read all the same.
    fn load_all_beside(&self, generation: &Path, contents: &mut Contents) -> Result<(), FileError> {
        let damaged = |name: &str, why: String, part| Damaged { path: name.to_owned(), why, part };
        let mut load = |name: &str, part| match self.read_if(&generation.join(name)) {
            Err(error) if error.is_of_one_entry() => {
                contents.damaged.push(damaged(name, error.to_string(), part));
                Ok(None)
            }
            read => read,
        };
        let state = load("state", DamagedPart::State)?;
        let journal = load(JOURNAL, DamagedPart::Journal)?;
        let outcomes = load(OUTCOMES, DamagedPart::Outcomes)?;
        match state.map(|bytes| StateNumber::parse_file(&bytes)).transpose() {
            Ok(state) => contents.state = state,
            Err(error) => contents.damaged.push(damaged("state", error.to_string(), DamagedPart::State)),
        }
        match journal.map(|bytes| parse_journal(&bytes)).transpose() {
            Ok(journal) => contents.journal = journal,
            Err(why) => contents.damaged.push(damaged(JOURNAL, why, DamagedPart::JournalText)),
        }
        contents.outcomes = outcomes.map(|bytes| parse_outcomes(&bytes)).unwrap_or_default();
        Ok(())
    }

    /// Removes generations below `keep_from` save the newest, and the unfinished folders that crashes left of their making or
    /// removal.
    pub(super) fn prune_generations(&self, service: &Path, keep_from: Generation) -> Result<(), FileError> {
        for old in self.numbers(service)?.into_iter().skip(1).filter(|old| *old < keep_from) {
            self.hide(service, old)?;
        }
        let mut hidden = self.hidden(service)?;
        hidden.retain(|name| {
            let number = name.split('.').nth(1).and_then(|number| number.parse().ok()).map(Generation);
            number.is_some_and(|number| number < keep_from)
        });
        if !hidden.is_empty() {
            // Also for those that an earlier attempt hid: it may have failed before this.
            self.sync(service)?;
        }
        hidden.iter().try_for_each(|name| self.remove_hidden(&service.join(name)))
    }

    /// Removes one generation, which may be the newest.
    pub(super) fn remove_generation(&self, service: &Path, generation: Generation) -> Result<(), FileError> {
        let hidden = self.hide(service, generation)?;
        self.sync(service)?;
        self.remove_hidden(&hidden)
    }

    /// Before a generation is removed: half of one must not pass for a whole one.
    fn hide(&self, service: &Path, generation: Generation) -> Result<PathBuf, FileError> {
        let (path, hidden) = (service.join(generation.to_string()), self.unfinished(service, generation));
        match self.disk().rename(&path, &hidden) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed("rename", &path))?,
        }
        Ok(hidden)
    }

    fn remove_hidden(&self, path: &Path) -> Result<(), FileError> {
        match self.disk().remove_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", path)),
        }
    }

    /// The unfinished entries of a folder. A folder that does not exist has none.
    pub(super) fn hidden(&self, folder: &Path) -> Result<Vec<String>, FileError> {
        match self.disk().list(folder) {
            Ok(names) => {
                let names = names.into_iter().filter_map(|name| name.into_string().ok());
                Ok(names.filter(|name| name.starts_with('.')).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.enter().map(|()| Vec::new()),
            Err(error) => Err(failed("list", folder)(error)),
        }
    }
}

/// The journal of a generation, or why its text is none.
pub(super) fn parse_journal(bytes: &[u8]) -> Result<Journal, String> {
    serde_json::from_str(&String::from_utf8_lossy(bytes)).map_err(|error| shortened(&error.to_string()))
}

/// The outcomes of a generation; a line without sense is left out.
pub(super) fn parse_outcomes(bytes: &[u8]) -> Vec<OutcomeLine> {
    let text = String::from_utf8_lossy(&bytes[..whole_lines(bytes)]);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Where the last whole line ends: without its newline a line was torn.
pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

fn exists(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}
