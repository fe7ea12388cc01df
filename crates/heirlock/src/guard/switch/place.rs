//! The store, as `enable` finds or makes it.

use std::path::PathBuf;

use heirlock_core::store_identity::{
    Choice, Found, Kept, Refusal, Remembered, StoreIdentity, Verdict, Word, choose,
};

use super::super::records;
use super::{GuardError, Run, StepOutcome};
use crate::store::{self, Ground, Store, StoreOnHost};

/// The choice for the store, and the store that it is about.
pub(super) struct Decided {
    choice: Choice,
    found: Option<Found>,
}

impl Run<'_> {
    /// Looks at the store, before anything is changed.
    pub(super) fn decide_store(&mut self, word: Word) -> Result<Decided, GuardError> {
        let store = self.opened();
        let shown = store.shown(self.settings);
        let memory = store::memory::load(&self.local_directory())?;
        let had_one = self.memory.store_created || (self.memory.was_used() && !self.memory.without_store);
        let remembered = Remembered { had_one, ..memory.remembered(false) };
        // Looking at it mounts what is mounted when it is looked at.
        let found = match store.found() {
            Ok(found) => Some(found),
            Err(error) if error.is_absent() => None,
            Err(error) => return Err(error.into()),
        };
        let missing = store.missing(self.host, self.settings);
        let choice = choose(&remembered, found.as_ref(), missing.is_some(), word);
        match choice {
            Choice::Refused(refusal) => {
                Err(GuardError::Refused { what: said(store.as_ref(), &shown, &refusal, missing.as_deref()) })
            }
            choice => Ok(Decided { choice, found }),
        }
    }

    pub(super) fn store(&mut self, decided: Decided) -> Result<(), GuardError> {
        let store = self.opened();
        let shown = store.shown(self.settings);
        let Decided { choice, found } = decided;
        self.memory.without_store = choice == Choice::Without;
        let kept = found.as_ref().map_or(Kept::Nothing, |found| found.kept);
        let identity = found.and_then(|found| found.identity);
        match choice {
            Choice::Use(Verdict::Ours) => {
                self.say(StepOutcome::AlreadySo, format!("{shown} is the store"));
                if let Err(error) = records::check_age(self.host, self.settings, store.as_ref()) {
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
            None => self.opened().give_identity(&StoreIdentity::of(fastrand::u128(..)))?,
        };
        store::memory::update(&self.local_directory(), |memory| memory.accept(&identity, kept))?;
        Ok(())
    }

    fn make_store(&mut self) -> Result<(), GuardError> {
        let store = self.opened();
        match store.ground(self.settings) {
            Some(Ground { mode: mode @ Some(_), .. }) if !self.memory.store_created => {
                self.memory.store_mode = mode;
            }
            Some(Ground { folder, mode: None }) => self.create_folder(&folder, 0o700)?,
            Some(_) | None => {}
        }
        self.memory.store_created = true;
        self.remember()?;
        // Another server may have made it since it was looked for: then it is that one.
        let found = store.set_up()?;
        self.take(found.identity, found.kept)
    }

    /// The configured store, whichever is there.
    fn opened(&self) -> Box<dyn StoreOnHost> {
        store::open(self.host, self.settings)
    }

    pub(super) fn local_directory(&self) -> PathBuf {
        self.host.at(&self.settings.local_directory)
    }
}

/// One sentence: what was expected and found, and what to do.
fn said(store: &dyn Store, shown: &str, refusal: &Refusal, missing: Option<&str>) -> String {
    let next = "mount it, then repeat; on a server that has the volume only after an adoption say --without-store; to \
                begin a new store there say --new-store";
    match (refusal, missing) {
        (Refusal::Wrong(why), _) => store.wrong(why.clone()).to_string(),
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
