//! The store, as `enable` finds or makes it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use heirlock_core::store_identity::{
    Choice, Found, Kept, Refusal, Remembered, StoreIdentity, Verdict, Word, choose,
};

use super::super::{records, volumes};
use super::{GuardError, Run, StepOutcome};
use crate::files::trusted;
use crate::store::dir::DirStore;
use crate::store::{self, Store, wrong_store};

/// The choice for the store, and the store that it is about.
pub(super) struct Decided {
    choice: Choice,
    found: Option<Found>,
}

impl Run<'_> {
    /// Looks at the store, before anything is changed.
    pub(super) fn decide_store(&mut self, word: Word) -> Result<Decided, GuardError> {
        let path = &self.settings.store.path;
        let memory = store::memory::load(&self.local_directory())?;
        let had_one = self.memory.store_created || (self.memory.was_used() && !self.memory.without_store);
        let remembered = Remembered { had_one, ..memory.remembered(false) };
        // Looking at it mounts what is mounted when it is looked at.
        let found = match DirStore::at(&self.host.at(path)).found() {
            Ok(found) => Some(found),
            Err(error) if error.is_absent() => None,
            Err(error) => return Err(error.into()),
        };
        let unmounted = volumes::unmounted(self.host, path);
        let choice = choose(&remembered, found.as_ref(), unmounted.is_some(), word);
        match choice {
            Choice::Refused(refusal) => {
                Err(GuardError::Refused { what: said(path, &refusal, unmounted.as_deref()) })
            }
            choice => Ok(Decided { choice, found }),
        }
    }

    pub(super) fn store(&mut self, decided: Decided) -> Result<(), GuardError> {
        let path = self.settings.store.path.clone();
        let shown = path.display();
        let Decided { choice, found } = decided;
        self.memory.without_store = choice == Choice::Without;
        let kept = found.as_ref().map_or(Kept::Nothing, |found| found.kept);
        let identity = found.and_then(|found| found.identity);
        match choice {
            Choice::Use(Verdict::Ours) => {
                self.say(StepOutcome::AlreadySo, format!("the folder {shown} is the store"));
                let store = DirStore::at(&self.host.at(&path));
                if let Err(error) = records::check_age(self.host, self.settings, &store) {
                    self.say(StepOutcome::Left, error.to_string());
                }
                Ok(())
            }
            Choice::Use(Verdict::Name) => self
                .act(format!("give the store in {shown}, of an earlier version, an identity"), |run| {
                    run.take(None, kept)
                }),
            Choice::Use(_) => self
                .act(format!("use the store in {shown}, and remember which it is"), |run| {
                    run.take(identity, kept)
                }),
            Choice::Accept => self.act(
                format!("use the store that lies in {shown}, in the place of the one that was remembered"),
                |run| run.take(identity, kept),
            ),
            Choice::Make => self.act(format!("make {shown} a new store"), Self::make_store),
            Choice::Without | Choice::Refused(_) => {
                let what =
                    format!("no store in {shown} now, as you said: until it is there no client is protected");
                self.say(StepOutcome::Left, what);
                Ok(())
            }
        }
    }

    /// Remembers a store that is there; one without an identity gets one.
    fn take(&mut self, identity: Option<StoreIdentity>, kept: Kept) -> Result<(), GuardError> {
        let identity = match identity {
            Some(identity) => identity,
            None => {
                let store = DirStore::at(&self.host.at(&self.settings.store.path));
                store.give_identity(&StoreIdentity::of(fastrand::u128(..)))?
            }
        };
        store::memory::update(&self.local_directory(), |memory| memory.accept(&identity, kept))?;
        Ok(())
    }

    fn make_store(&mut self) -> Result<(), GuardError> {
        let path = self.settings.store.path.clone();
        let at = self.host.at(&path);
        match trusted::stat(&at) {
            Ok(there) if !self.memory.store_created => {
                self.memory.store_mode = Some(there.permissions().mode() & 0o7777);
            }
            Ok(_) => {}
            Err(_) => self.create_folder(&path, 0o700)?,
        }
        self.memory.store_created = true;
        self.remember()?;
        // Another server may have made it since it was looked for: then it is that one.
        let found = DirStore::create(&at)?.found()?;
        self.take(found.identity, found.kept)
    }

    pub(super) fn local_directory(&self) -> PathBuf {
        self.host.at(&self.settings.local_directory)
    }
}

/// One sentence: what was expected and found, and what to do.
fn said(path: &Path, refusal: &Refusal, unmounted: Option<&str>) -> String {
    let shown = path.display();
    let next = "mount it, then repeat; on a server that has the volume only after an adoption say --without-store; to \
                begin a new store there say --new-store";
    match (refusal, unmounted) {
        (Refusal::Wrong(why), _) => wrong_store(path, why.clone()).to_string(),
        (Refusal::Gone(Some(identity)), None) => {
            format!("{shown}: expected store {identity}, found none: is its volume mounted? {next}")
        }
        (Refusal::Gone(Some(identity)), Some(volume)) => {
            format!("{shown}: expected store {identity}, found none, and {volume} is not mounted: {next}")
        }
        (Refusal::Unmounted | Refusal::Gone(None), Some(volume)) => {
            format!("{shown}: expected a store on {volume}, which is not mounted: {next}")
        }
        (Refusal::Unmounted | Refusal::Gone(None), None) => format!(
            "{shown}: expected the store that this server had before, found none: is its volume mounted? {next}"
        ),
    }
}
