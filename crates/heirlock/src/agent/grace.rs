//! Since when grace has been open, and when it was last seen closed, kept where the agent's next start finds it.

use std::path::{Path, PathBuf};

use heirlock_core::Moment;
use heirlock_core::grace::{Recalled, Remembered};
use heirlock_core::incarnation::Incarnation;

use super::clock::{Clock, since_boot};
use crate::files::trusted;

/// In the runtime directory: a boot ends every life, and empties it.
const NAME: &str = "grace.json";

/// Bytes of it: one life, and two times.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// Where it is noted what was seen of the grace period of the life that runs.
#[derive(Debug)]
pub(crate) struct GraceNote {
    file: PathBuf,
    /// What is noted there.
    noted: Option<Remembered>,
}

impl GraceNote {
    /// Nothing is read or written yet.
    pub(crate) fn new(runtime_directory: &Path) -> Self {
        Self { file: runtime_directory.join(NAME), noted: None }
    }

    /// What the agent before us saw of the life that the store knows.
    pub(crate) fn recall(&mut self, known: Option<&Incarnation>, clock: Clock) -> Recalled {
        // What can't be read was torn by nobody's fault: then nothing is known, as before the first start.
        self.noted = trusted::read(&self.file, FILE_BYTES_MAX)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        let recalled = self.noted.as_ref().zip(known);
        recalled.map(|(noted, life)| noted.recall(life, clock.now(), since_boot())).unwrap_or_default()
    }

    /// Grace of this life did not open before `since`.
    pub(crate) fn opened(&mut self, life: &Incarnation, since: Moment, clock: Clock) {
        self.noted = Some(Remembered::opened(life.clone(), since, clock.now(), since_boot()));
        self.write();
    }

    /// Grace of this life is closed now.
    pub(crate) fn closed(&mut self, life: &Incarnation) {
        let noted = self.noted.get_or_insert_with(|| Remembered::of(life.clone()));
        if noted.sees_closed(life, since_boot()) {
            self.write();
        }
    }

    fn write(&self) {
        // No sync: it is of use to this boot alone.
        let written = serde_json::to_vec(&self.noted)
            .map_err(Into::into)
            .and_then(|bytes| trusted::replace(&self.file, &bytes, 0o600, false));
        if let Err(error) = written {
            tracing::warn!(file = %self.file.display(), %error, "what was seen of grace can't be noted in {}, so a run that is interrupted now may not go on: {error}", self.file.display());
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
        let mut note = GraceNote::new(folder.path());
        assert_eq!(note.recall(Some(&life), clock), Recalled::default());
        note.opened(&life, clock.now() - Duration::from_secs(4), clock);

        let next_clock = Clock::start();
        let mut next = GraceNote::new(folder.path());
        let recalled = next.recall(Some(&life), next_clock);
        let open_for = next_clock.now().since(recalled.opened.unwrap());
        assert!(
            open_for >= Duration::from_millis(3_999) && open_for < Duration::from_secs(60),
            "{open_for:?}"
        );
        assert_eq!(recalled.closed, None);

        next.closed(&life);
        let recalled = GraceNote::new(folder.path()).recall(Some(&life), next_clock);
        assert!(recalled.opened.is_some() && recalled.closed.unwrap() <= next_clock.now());
        let another = Incarnation { start: "3@4".into(), ..life.clone() };
        assert_eq!(note.recall(Some(&another), clock), Recalled::default());
        assert_eq!(note.recall(None, clock), Recalled::default());
        next.closed(&another);
        assert_eq!(note.recall(Some(&life), clock), Recalled::default(), "it is the other one's");
    }
}
