//! `heirlock store copy`: moves the store to another place while agents use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use heirlock_core::Moment;
use heirlock_core::copying::{Refusal, Step};
use heirlock_core::store_identity::StoreIdentity;
use heirlock_core::store_standing::CopyName;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args;
use super::exit::{Exit, Failed};
use super::output::Output;
use super::render;
use crate::config::{self, Settings};
use crate::host::Host;
use crate::limits::COPY_LOOK_INTERVAL;
use crate::store::copy::{Beside, CopyError, Next, NotMoved, move_store, take_back};
use crate::store::{self, StoreOnHost};

/// A store that was moved, or whose move was taken back.
#[derive(Debug, Serialize)]
pub(super) struct StoreMoved {
    /// Its identity, as servers remember it.
    pub(super) identity: StoreIdentity,
    /// The store that was left.
    pub(super) from: String,
    /// The store that is to be used.
    pub(super) to: String,
    /// The configuration that names it.
    pub(super) configuration: String,
    /// The one that is in force now.
    pub(super) in_force: String,
    /// Anything was changed.
    pub(super) changed: bool,
    /// Counts of what it holds; nothing where the move had ended before, or was taken back.
    pub(super) services: Option<usize>,
    pub(super) generations: Option<usize>,
    pub(super) records: Option<usize>,
}

pub(super) fn run(verb: &args::Store, host: &Host, output: &Output) -> Result<Exit, Failed> {
    let args::Store::Copy { from, to, give_up } = verb;
    let (of_from, of_to) = (config::load(from)?, config::load(to)?);
    let [source, destination] = [&of_from, &of_to].map(|settings| store::open(host, settings));
    for (word, store, settings) in [("FROM", &source, &of_from), ("TO", &destination, &of_to)] {
        if let Some(volume) = store.missing(host, settings) {
            let what = format!("the store of {word} lies on {volume}, which is not mounted; mount it first");
            return Err(Failed::new(Exit::Refused, what));
        }
    }
    let identity = expected(source.as_ref(), &of_from)?;
    let moved = |in_force: &dyn StoreOnHost, changed: bool, holds: Option<[usize; 3]>| StoreMoved {
        identity: identity.clone(),
        from: source.describe(),
        to: destination.describe(),
        configuration: to.display().to_string(),
        in_force: in_force.describe(),
        changed,
        services: holds.map(|[services, ..]| services),
        generations: holds.map(|[_, generations, _]| generations),
        records: holds.map(|[.., records]| records),
    };
    if *give_up {
        let changed = take_back(source.as_ref(), destination.as_ref(), name())?;
        output.print(&moved(source.as_ref(), changed, None), render::store_taken_back)?;
        return Ok(Exit::Done);
    }
    let mut beside = OnTerminal::new(output)?;
    match move_store(source.as_ref(), destination.as_ref(), name, &mut beside) {
        Ok(done) => {
            let holds = done.holds.map(|holds| [holds.services, holds.generations, holds.records]);
            output.print(&moved(destination.as_ref(), holds.is_some(), holds), render::store_moved)?;
            Ok(Exit::Done)
        }
        Err(failed) => {
            let NotMoved { why, source } = *failed;
            let failed = Failed::from(why);
            Err(Failed::new(failed.exit, format!("{}; {source}", failed.message)))
        }
    }
}

/// The identity of the store that is copied. Another one than this server remembers is no source: an empty store below the mount
/// point of a volume would be taken for all that there is.
fn expected(source: &dyn StoreOnHost, settings: &Settings) -> Result<StoreIdentity, Failed> {
    let standing = source.standing()?.ok_or(CopyError::Refused(Refusal::NoSource))?;
    let (found, memory) = (standing.identity(), store::memory::load(&settings.local_directory)?);
    match memory.identity {
        Some(expected) if expected != *found => {
            let what = format!(
                "{}: expected store {expected}, which this server remembers ({}), found store {found}: is the right volume mounted, and is \
                 FROM the configuration of this server?",
                source.describe(),
                settings.local_directory.join(store::memory::FILE).display()
            );
            Err(Failed::new(Exit::Refused, what))
        }
        _ => Ok(found.clone()),
    }
}

fn name() -> CopyName {
    CopyName::of(fastrand::u64(..))
}

impl From<CopyError> for Failed {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Refused(_) => Self::new(Exit::Refused, error),
            CopyError::Store(error) => error.into(),
            CopyError::Failed(_) | CopyError::Damaged(_) | CopyError::Interrupted => {
                Self::new(Exit::Failed, error)
            }
        }
    }
}

/// Says how far a move is, and ends it at Ctrl-C.
struct OnTerminal<'a> {
    output: &'a Output,
    began: Instant,
    interrupted: Arc<AtomicBool>,
    passes: usize,
    /// What was said last.
    said: Option<String>,
}

impl<'a> OnTerminal<'a> {
    fn new(output: &'a Output) -> Result<Self, Failed> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one ends it at once, also while a disk hangs.
            let registered =
                signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted))
                    .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)));
            registered
                .map_err(|error| Failed::new(Exit::Failed, format!("can't wait for Ctrl-C: {error}")))?;
        }
        Ok(Self { output, began: Instant::now(), interrupted, passes: 0, said: None })
    }

    fn say(&mut self, what: String) {
        if !self.output.is_json() && self.said.as_ref() != Some(&what) {
            self.output.warn(&what);
            self.said = Some(what);
        }
    }
}

impl Beside for OnTerminal<'_> {
    fn now(&self) -> Moment {
        Moment::of_process(self.began.elapsed())
    }

    fn rest(&mut self) {
        thread::sleep(COPY_LOOK_INTERVAL);
    }

    fn goes_on(&mut self, before: Next<'_>) -> bool {
        match before {
            Next::Step(Step::Pass) if self.passes == 0 => {
                self.passes += 1;
                self.say("copying; agents go on meanwhile".to_owned());
            }
            Next::Step(Step::Close { .. }) => {
                self.say(
                    "closing FROM: agents keep no new client from now on, until they are restarted on TO"
                        .to_owned(),
                );
            }
            Next::Step(Step::Open { .. }) => self.say("both are alike; opening TO".to_owned()),
            Next::Step(_) | Next::Part => {}
        }
        !self.interrupted.load(Ordering::SeqCst)
    }
}
