//! Many changes in one go, of one generation or of several: they share their syncs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use heirlock_core::Record;
use heirlock_core::limits::RECORD_BYTES_MAX;
use heirlock_core::takeover::OutcomeLine;

use super::super::RecordChange;
use super::files::ASIDE;
use super::generation::whole_lines;
use super::names::{RECORDS, file_name};
use super::{Change, DirStore, FileError, JOURNAL, OUTCOMES, failed, to_json, unexpected};

/// The step that is taken with a file.
enum Step {
    Put(Record),
    Remove,
}

/// Changes of one generation.
type Place<'a> = (PathBuf, &'a [Change]);

impl DirStore {
    /// First all new files are written and synced, then they take their names, then the folders are synced; lines are
    /// appended last. A crash in between leaves each client with its old record or its new one.
    pub(super) fn commit_changes(&self, places: &[Place<'_>]) -> Result<(), FileError> {
        let (mut steps, mut appended) = (Vec::new(), Vec::new());
        for (generation, changes) in places {
            let (more, outcomes) = plan(generation, changes)?;
            steps.extend(more);
            appended.extend(Some((generation, outcomes)).filter(|(_, outcomes)| !outcomes.is_empty()));
        }
        places.iter().try_for_each(|(generation, _)| self.tidy(&mut self.tidied(), generation))?;
        let mut temporaries = Vec::new();
        let done = self.take_steps(&steps, &mut temporaries);
        if done.is_err() {
            self.discard(&temporaries);
        }
        done?;
        appended.iter().try_for_each(|(generation, outcomes)| self.append(generation, outcomes))
    }

    fn take_steps(&self, steps: &[(PathBuf, Step)], temporaries: &mut Vec<PathBuf>) -> Result<(), FileError> {
        let mut alike: HashMap<(Option<&OsStr>, &[u8]), PathBuf> = HashMap::new();
        let (mut files, mut links) = (Vec::new(), Vec::new());
        for (path, step) in steps {
            if let Step::Put(bytes) = step {
                let temporary = self.temporary(path.parent().unwrap_or(&self.root));
                temporaries.push(temporary.clone());
                // Another service's record of the same client is the same file: it needs no sync of its own.
                match alike.entry((path.file_name(), bytes)) {
                    Entry::Occupied(file) => links.push((file.get().clone(), temporary, &bytes[..])),
                    Entry::Vacant(entry) => {
                        entry.insert(temporary.clone());
                        files.push((temporary, &bytes[..]));
                    }
                }
            }
        }
        self.write_all(&files)?;
        links.retain(|(file, temporary, _)| self.disk().link(file, temporary).is_err());
        let copies: Vec<(PathBuf, &[u8])> = links.into_iter().map(|(_, copy, bytes)| (copy, bytes)).collect();
        self.write_all(&copies)?;
        let mut written = temporaries.iter();
        for (path, step) in steps {
            match (step, written.as_slice()) {
                (Step::Put(_), [temporary, ..]) => {
                    self.rename(temporary, path)?;
                    written.next();
                }
                _ => self.remove_if(path)?,
            }
        }
        let changed: BTreeSet<&Path> = steps.iter().filter_map(|(path, _)| path.parent()).collect();
        changed.into_iter().try_for_each(|folder| self.sync(folder))
    }

    fn append(&self, generation: &Path, outcomes: &str) -> Result<(), FileError> {
        let mut tidied = self.tidied();
        self.tidy(&mut tidied, generation)?;
        let path = generation.join(OUTCOMES);
        let appended = self.disk().append(&path, outcomes.as_bytes()).map_err(failed("append to", &path));
        if appended.is_err() {
            // A part of a line may be there, or be there only in memory.
            tidied.remove(generation);
        }
        appended?;
        self.sync(generation)
    }

    /// Before the first commit of this run to a generation: removes what an earlier run did not finish. Only the owner
    /// of a generation writes to it, so no other server is at work there. A torn outcome is cut off, or
    /// it would pass for a whole one after the next is appended.
    fn tidy(&self, tidied: &mut HashSet<PathBuf>, generation: &Path) -> Result<(), FileError> {
        if tidied.contains(generation) {
            return Ok(());
        }
        for folder in [generation.to_owned(), generation.join("sm")] {
            for name in self.hidden(&folder)? {
                // Only an administrator removes entries that were moved aside.
                if !name[1..].starts_with(&self.memory.unique) && !name.starts_with(ASIDE) {
                    self.remove_if(&folder.join(name))?;
                }
            }
        }
        let path = generation.join(OUTCOMES);
        match self.read_if(&path) {
            Ok(Some(bytes)) => self.replace(&path, &bytes[..whole_lines(&bytes)])?,
            Ok(None) => {}
            // A file that can't be read could not be added to either.
            Err(error) if error.is_of_one_entry() => self.move_aside(&path)?,
            Err(error) => return Err(error),
        }
        tidied.insert(generation.to_owned());
        Ok(())
    }
}

/// The last change of a file is the one that counts, so each file is written once.
fn plan(generation: &Path, changes: &[Change]) -> Result<(Vec<(PathBuf, Step)>, String), FileError> {
    let mut steps: Vec<(PathBuf, Step)> = Vec::with_capacity(changes.len());
    let mut seen = HashMap::new();
    let mut outcomes = String::new();
    let sm = generation.join(RECORDS);
    for change in changes {
        let (path, step) = match change {
            Change::Record(RecordChange::Put(key, record)) => {
                let path = sm.join(file_name(key));
                check_record(&path, record)?;
                (path, Step::Put(record.clone()))
            }
            Change::Record(RecordChange::Remove(key)) => (sm.join(file_name(key)), Step::Remove),
            Change::PutState(number) => {
                (generation.join("state"), Step::Put(number.render_file().as_slice().into()))
            }
            Change::PutJournal(journal) => {
                let path = generation.join(JOURNAL);
                let bytes = to_json(&path, journal)?;
                (path, Step::Put(bytes.into()))
            }
            Change::AppendOutcome(line) => {
                outcomes.push_str(&outcome_line(&generation.join(OUTCOMES), line)?);
                continue;
            }
        };
        match seen.get(&path) {
            Some(at) => steps[*at] = (path, step),
            None => {
                seen.insert(path.clone(), steps.len());
                steps.push((path, step));
            }
        }
    }
    Ok((steps, outcomes))
}

pub(super) fn check_record(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let (max, found) = (RECORD_BYTES_MAX, bytes.len());
    if found <= max {
        return Ok(());
    }
    let (expected, found) = (format!("at most {max} bytes"), found.to_string());
    Err(unexpected(path, &expected, &found, "look at the client's record on its server"))
}

/// An outcome as it is appended. JSON escapes what would end its line.
pub(super) fn outcome_line(path: &Path, line: &OutcomeLine) -> Result<String, FileError> {
    let json = serde_json::to_string(line).map_err(|error| failed("write", path)(error.into()))?;
    Ok(json + "\n")
}
