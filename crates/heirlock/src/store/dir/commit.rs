//! Many changes of one generation in one go: they share their syncs.

use std::path::{Path, PathBuf};

use heirlock_nsm::MonName;

use super::{Change, DirStore, SYNC_EACH_MAX, StoreError, failed, unexpected};

/// A change as files.
enum Step<'a> {
    Put(PathBuf, Vec<u8>),
    Remove(&'a MonName),
}

impl DirStore {
    /// First all new files are written and synced, then they take their names, then the folders are synced; what is
    /// appended comes last. A crash in between leaves each client with its old record or its new one.
    pub(super) fn commit_changes(&self, generation: &Path, changes: &[Change]) -> Result<(), StoreError> {
        let (steps, outcomes) = plan(generation, changes)?;
        let puts = steps.iter().filter(|step| matches!(step, Step::Put(..))).count();
        let each = puts <= SYNC_EACH_MAX;
        for step in &steps {
            if let Step::Put(path, bytes) = step {
                let temporary = self.temporary(path);
                self.disk.write(&temporary, bytes, each).map_err(failed("write", &temporary))?;
            }
        }
        if !each {
            self.disk.sync_all(generation).map_err(failed("sync", generation))?;
        }
        let sm = generation.join("sm");
        for step in &steps {
            match step {
                Step::Put(path, _) => {
                    self.disk.rename(&self.temporary(path), path).map_err(failed("rename", path))?;
                }
                Step::Remove(name) => self.remove_if(&sm.join(name.as_str()))?,
            }
        }
        let in_sm = steps.iter().any(|step| {
            matches!(step, Step::Put(path, _) if path.starts_with(&sm)) || matches!(step, Step::Remove(_))
        });
        let above = steps.iter().any(|step| matches!(step, Step::Put(path, _) if !path.starts_with(&sm)));
        for (folder, changed) in [(sm.as_path(), in_sm), (generation, above)] {
            if changed {
                self.disk.sync_folder(folder).map_err(failed("sync", folder))?;
            }
        }
        if !outcomes.is_empty() {
            let path = generation.join("outcomes");
            self.disk.append(&path, outcomes.as_bytes()).map_err(failed("append to", &path))?;
            self.disk.sync_folder(generation).map_err(failed("sync", generation))?;
        }
        Ok(())
    }

    fn remove_if(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
            _ => Ok(()),
        }
    }
}

/// The last change of a file is the one that counts, so each file is written once.
fn plan<'a>(generation: &Path, changes: &'a [Change]) -> Result<(Vec<Step<'a>>, String), StoreError> {
    let mut steps: Vec<(PathBuf, Step<'a>)> = Vec::with_capacity(changes.len());
    let mut seen = std::collections::HashMap::new();
    let mut outcomes = String::new();
    for change in changes {
        let (path, step) = match change {
            Change::PutRecord(name, bytes) => {
                let path = generation.join("sm").join(name.as_str());
                let (max, found) = (heirlock_core::limits::RECORD_BYTES_MAX, bytes.len());
                if found > max {
                    let (expected, found) = (format!("at most {max} bytes"), format!("{found}"));
                    return Err(unexpected(
                        &path,
                        &expected,
                        &found,
                        "look at the client's record on its server",
                    ));
                }
                (path.clone(), Step::Put(path, bytes.clone()))
            }
            Change::RemoveRecord(name) => (generation.join("sm").join(name.as_str()), Step::Remove(name)),
            Change::PutState(state) => {
                let path = generation.join("state");
                (path.clone(), Step::Put(path, state.render_file().to_vec()))
            }
            Change::PutJournal(text) => {
                let path = generation.join("journal.json");
                (path.clone(), Step::Put(path, text.clone().into_bytes()))
            }
            Change::AppendOutcome(line) => {
                // Begun with a newline as well: the line before may have been torn by a crash.
                outcomes.extend(["\n", line.as_str(), "\n"]);
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
    Ok((steps.into_iter().map(|(_, step)| step).collect(), outcomes))
}
