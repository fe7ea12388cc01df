//! Since when grace has been open, kept where the agent's next start finds it.

use std::path::{Path, PathBuf};

use heirlock_core::Moment;
use heirlock_core::grace::Remembered;
use heirlock_core::incarnation::Incarnation;

use super::clock::{Clock, since_boot};
use crate::files::trusted;

/// In the runtime directory: a boot ends every life, and empties it.
const NAME: &str = "grace.json";

/// Bytes of it: one life, and two times.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Where it is noted when a life of the lock manager began under our eyes, at the latest.
#[derive(Debug)]
pub(crate) struct GraceNote {
    file: PathBuf,
}

impl GraceNote {
    /// Nothing is read or written yet.
    pub(crate) fn new(runtime_directory: &Path) -> Self {
        Self { file: runtime_directory.join(NAME) }
    }

    /// What the agent before us saw of the life that the store knows: the moment before which its grace was not open.
    pub(crate) fn recall(&self, known: Option<&Incarnation>, clock: Clock) -> Option<Moment> {
        // What can't be read was torn by nobody's fault: then nothing is known, as before the first start.
        let remembered = trusted::read(&self.file, FILE_BYTES_MAX)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        known.and_then(|life| remembered?.recall(life, clock.now(), since_boot()))
    }

    /// Grace of this life did not open before `since`.
    pub(crate) fn write(&self, life: &Incarnation, since: Moment, clock: Clock) {
        let remembered = Remembered::new(life.clone(), since, clock.now(), since_boot());
        // No sync: it is of use to this boot alone.
        let written = serde_json::to_vec(&remembered)
            .map_err(Into::into)
            .and_then(|bytes| trusted::replace(&self.file, &bytes, 0o600, false));
        if let Err(error) = written {
            tracing::warn!(file = %self.file.display(), %error, "when grace opened can't be noted in {}, so a run that is interrupted now may not go on: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_next_agent_of_this_boot_knows_it_and_one_that_meets_another_life_does_not() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::start());
        let life = Incarnation { boot: "b".into(), start: "1@2".into(), reopened: 0 };
        let note = GraceNote::new(folder.path());
        assert_eq!(note.recall(Some(&life), clock), None);
        note.write(&life, clock.now() - Duration::from_secs(4), clock);

        let next_clock = Clock::start();
        let since = GraceNote::new(folder.path()).recall(Some(&life), next_clock).unwrap();
        let open_for = next_clock.now().since(since);
        assert!(
            open_for >= Duration::from_millis(3_999) && open_for < Duration::from_secs(60),
            "{open_for:?}"
        );

        let another = Incarnation { reopened: 1, ..life };
        assert_eq!(note.recall(Some(&another), clock), None);
        assert_eq!(note.recall(None, clock), None);
    }
}
