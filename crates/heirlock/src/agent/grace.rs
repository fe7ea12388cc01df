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

/// When a life of the lock manager began under our eyes, at the latest.
#[derive(Debug)]
pub(crate) struct GraceSeen {
    file: PathBuf,
    since: Option<Moment>,
}

impl GraceSeen {
    /// Nothing was seen yet.
    pub(crate) fn new(runtime_directory: &Path) -> Self {
        Self { file: runtime_directory.join(NAME), since: None }
    }

    /// Takes up what the agent before us saw of the life that the store knows.
    pub(crate) fn recall(&mut self, known: Option<&Incarnation>, clock: Clock) {
        // What can't be read was torn by nobody's fault: then nothing is known, as before the first start.
        let remembered = trusted::read(&self.file, FILE_BYTES_MAX)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        self.since = known.and_then(|life| remembered?.recall(life, clock.now(), since_boot()));
    }

    /// The moment before which grace was not open; `None` where nothing is known.
    pub(crate) fn since(&self) -> Option<Moment> {
        self.since
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        self.since = None;
    }

    /// Grace of this life did not open before `since`.
    pub(crate) fn note(&mut self, life: &Incarnation, since: Moment, clock: Clock) {
        self.since = Some(since);
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
        let recall = |life: Option<&Incarnation>, clock: Clock| {
            let mut seen = GraceSeen::new(folder.path());
            seen.recall(life, clock);
            seen
        };
        let mut first = recall(Some(&life), clock);
        assert_eq!(first.since(), None);
        first.note(&life, clock.now() - Duration::from_secs(4), clock);

        let next_clock = Clock::start();
        let next = recall(Some(&life), next_clock);
        let open_for = next_clock.now().since(next.since().unwrap());
        assert!(
            open_for >= Duration::from_millis(3_999) && open_for < Duration::from_secs(60),
            "{open_for:?}"
        );

        let another = Incarnation { reopened: 1, ..life };
        assert_eq!(recall(Some(&another), clock).since(), None);
        assert_eq!(recall(None, clock).since(), None);
    }
}
