//! How a store is moved to another place while agents use it: the next step, and when the copy may take the source's place.
//!
//! 1. The destination is made, as a copy that no agent may use, or an unfinished one is gone on with.
//! 2. Passes make it alike to the source, which stays in force, until a pass finds little to do.
//! 3. The source is closed: every later call of an agent fails there. Passes go on until one finds nothing to do.
//! 4. The run of the copy takes another name, so that no step that was asked for before comes about after that, and a last pass
//!    reads both stores anew. Where it finds nothing to do either, they are alike.
//! 5. The heartbeats follow, each as one whose silence is no reason to adopt.
//! 6. The destination is opened.
//!
//! Where the copy is interrupted before 3, the source is in force. After 3 none of the two is: the copy is gone on with, or is
//! taken back, which closes the destination to every run of the copy first and then opens the source ([`give_up`]).

mod difference;

pub use difference::{Task, difference, tasks};

use std::collections::BTreeMap;

use thiserror::Error;

use crate::limits::{
    COPY_HEARTS_STILL, COPY_PASSES_CLOSED_MAX, COPY_PASSES_OPEN_MAX, COPY_STEPS_TO_CLOSE_MAX,
};
use crate::moment::Moment;
use crate::names::ServerName;
use crate::store::ServerReport;
use crate::store_identity::StoreIdentity;
use crate::store_standing::{CopyName, Standing};

/// The ailment of a server whose heartbeat was copied, until its agent beats in the new place.
pub const NOT_YET_HERE: &str = "its agent has not beaten in this store since the store was moved here";

/// One move of a store.
#[derive(Debug, Clone)]
pub struct Copying {
    filling: Standing,
    in_force: Standing,
    moved: Standing,
    /// Whether the source refuses a change in the very step that would make it.
    closes_at_once: bool,
    phase: Phase,
}

#[derive(Debug, Clone)]
enum Phase {
    /// The destination is to be made, or taken over from an earlier run.
    Preparing {
        found: Option<Standing>,
        source_is_closed: bool,
    },
    Open {
        passes: usize,
    },
    Closing,
    Closed {
        passes: usize,
        beats: Option<(Beats, Moment)>,
        is_sealed: bool,
    },
    Sealing {
        passes: usize,
        beats: (Beats, Moment),
    },
    Hearts,
    Opening,
    Ended,
}

/// How far each server's heart had come: the run of its agent, and its beat.
pub type Beats = BTreeMap<ServerName, (String, u64)>;

/// The next step of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the destination.
    Make(Standing),
    /// Give the destination's run another name: an earlier one changes nothing in it any more.
    Retake {
        /// its standing
        from: Standing,
        /// its standing after that
        to: Standing,
    },
    /// Make the destination more alike to the source: all of [`tasks`].
    Pass,
    /// Close the source.
    Close {
        /// its standing
        from: Standing,
        /// its standing after that
        to: Standing,
    },
    /// Write the heartbeats of the source into the destination, as [`copied_heart`] says.
    Hearts,
    /// Open the destination.
    Open {
        /// its standing
        from: Standing,
        /// its standing after that
        to: Standing,
    },
    /// It is moved.
    Ended,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was made.
    Made,
    /// A pass was made.
    Passed {
        /// how many steps it took to make the stores alike
        steps: usize,
        /// the hearts that were found in the source
        beats: Beats,
        /// when it ended
        now: Moment,
    },
}

/// Why a move is not begun, or not taken back. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no store to be copied.
    #[error(
        "expected a store in FROM, found none; see that its volume is mounted, and that FROM names the right configuration"
    )]
    NoSource,
    /// The source is a copy itself.
    #[error(
        "expected a store that is in force in FROM, found an unfinished copy of store {0}; are FROM and TO the wrong way round?"
    )]
    SourceIsACopy(StoreIdentity),
    /// The same store lies in both.
    #[error(
        "FROM and TO hold the same store, {0}, and both are in force; where they are one place, name two; where one is an older copy \
         of the other, empty it"
    )]
    Same(StoreIdentity),
    /// The destination is in use.
    #[error(
        "expected nothing in TO, or an unfinished copy of store {source_store}, found store {found}; name an empty place"
    )]
    InUse {
        /// the source
        source_store: StoreIdentity,
        /// the store in the destination
        found: StoreIdentity,
    },
    /// The destination is a store that was moved elsewhere.
    #[error(
        "expected nothing in TO, found what was left of store {found} when it was moved to {to}; name an empty place, or remove what \
         is left there first"
    )]
    LeftBehind {
        /// its identity
        found: StoreIdentity,
        /// where it is
        to: String,
    },
    /// The destination is a copy of another store.
    #[error(
        "expected nothing in TO, or an unfinished copy of store {source_store}, found an unfinished copy of store {found}; name an \
         empty place"
    )]
    OtherCopy {
        /// the source
        source_store: StoreIdentity,
        /// whose copy is there
        found: StoreIdentity,
    },
    /// The source was closed for another destination.
    #[error(
        "store {identity} was closed to be moved to {to}, which is not what lies in TO; name that place as TO"
    )]
    ClosedForAnother {
        /// its identity
        identity: StoreIdentity,
        /// where it goes
        to: String,
    },
    /// It is moved already, so that it can't be taken back.
    #[error(
        "store {0} is in force in TO: the move has ended, and can't be taken back; to go back, copy it from there to an empty place"
    )]
    Moved(StoreIdentity),
}

/// A move went wrong after it had begun.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The source changes although it is closed.
    #[error(
        "the source still changes although it is closed: an agent writes to it past its mark; stop the agents, and repeat the copy"
    )]
    StillChanges,
}

/// How a move begins.
#[derive(Debug, Clone)]
pub enum Begin {
    /// With the first step of this.
    Copy(Box<Copying>),
    /// It has ended before.
    Ended(StoreIdentity),
}

impl Copying {
    /// Begins a move between stores of these standings, or goes on with one. `pair` and `run` are names that no copy had before,
    /// `to` is the destination for people. `closes_at_once`: see [`COPY_HEARTS_STILL`].
    ///
    /// # Errors
    /// Where the stores are no source and no destination for it.
    pub fn begin(
        source: Option<&Standing>,
        destination: Option<&Standing>,
        [pair, run]: [CopyName; 2],
        to: &str,
        closes_at_once: bool,
    ) -> Result<Begin, Refusal> {
        let source = source.ok_or(Refusal::NoSource)?;
        let identity = source.identity();
        let closed_for = match source {
            Standing::Filling { .. } => return Err(Refusal::SourceIsACopy(identity.clone())),
            Standing::InForce(_) => None,
            Standing::Moved { pair, to, .. } => Some((pair, to)),
        };
        let pair = match (destination, closed_for) {
            (Some(Standing::InForce(found)), Some(_)) if found == identity => {
                return Ok(Begin::Ended(identity.clone()));
            }
            (Some(Standing::Filling { identity: found, pair: there, .. }), closed_for)
                if found == identity && closed_for.is_none_or(|(pair, _)| pair == there) =>
            {
                *there
            }
            (_, Some((_, to))) => {
                return Err(Refusal::ClosedForAnother { identity: identity.clone(), to: to.clone() });
            }
            (None, None) => pair,
            (Some(found), None) => return Err(no_destination(identity, found)),
        };
        let moved = match source {
            // Where it lies was said when it was closed.
            Standing::Moved { .. } => source.clone(),
            _ => Standing::moved(identity, [pair, run], to),
        };
        Ok(Begin::Copy(Box::new(Self {
            filling: Standing::Filling { identity: identity.clone(), pair, run },
            in_force: Standing::InForce(identity.clone()),
            moved,
            closes_at_once,
            phase: Phase::Preparing { found: destination.cloned(), source_is_closed: closed_for.is_some() },
        })))
    }

    /// The standing that the destination has until it is opened.
    #[must_use]
    pub fn filling(&self) -> &Standing {
        &self.filling
    }

    /// The standing that the source has now.
    #[must_use]
    pub fn source(&self) -> &Standing {
        match &self.phase {
            Phase::Preparing { source_is_closed: false, .. } | Phase::Open { .. } | Phase::Closing => {
                &self.in_force
            }
            _ => &self.moved,
        }
    }

    /// The next step. It is asked for again where that failed.
    #[must_use]
    pub fn next(&self) -> Step {
        let (filling, in_force, moved) = (self.filling.clone(), self.in_force.clone(), self.moved.clone());
        match &self.phase {
            Phase::Preparing { found: None, .. } => Step::Make(filling),
            Phase::Preparing { found: Some(found), .. } => Step::Retake { from: found.clone(), to: filling },
            Phase::Open { .. } | Phase::Closed { .. } => Step::Pass,
            Phase::Sealing { .. } => Step::Retake { to: self.renamed(), from: filling },
            Phase::Closing => Step::Close { from: in_force, to: moved },
            Phase::Hearts => Step::Hearts,
            Phase::Opening => Step::Open { from: filling, to: in_force },
            Phase::Ended => Step::Ended,
        }
    }

    /// The step was made.
    ///
    /// # Errors
    /// Where the move can't go on.
    pub fn made(&mut self, done: Done) -> Result<(), Failure> {
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Ended), done) {
            (Phase::Preparing { source_is_closed: true, .. } | Phase::Closing, _) => {
                Phase::Closed { passes: 0, beats: None, is_sealed: false }
            }
            (Phase::Preparing { .. }, _) => Phase::Open { passes: 0 },
            (Phase::Open { passes }, Done::Passed { steps, .. }) => {
                let passes = passes + 1;
                match steps <= COPY_STEPS_TO_CLOSE_MAX || passes >= COPY_PASSES_OPEN_MAX {
                    true => Phase::Closing,
                    false => Phase::Open { passes },
                }
            }
            (Phase::Closed { passes, beats, is_sealed }, Done::Passed { steps, beats: seen, now }) => {
                let still_since = match beats {
                    Some((before, since)) if before == seen => since,
                    _ => now,
                };
                let is_still = self.closes_at_once || now.since(still_since) >= COPY_HEARTS_STILL;
                self.after_closed(
                    passes + 1,
                    (seen, still_since),
                    steps == 0 && is_still,
                    is_sealed && steps == 0,
                )?
            }
            (Phase::Sealing { passes, beats }, _) => {
                self.filling = self.renamed();
                Phase::Closed { passes, beats: Some(beats), is_sealed: true }
            }
            (Phase::Hearts, _) => Phase::Opening,
            (Phase::Opening | Phase::Ended, _) => Phase::Ended,
            (phase @ (Phase::Open { .. } | Phase::Closed { .. }), Done::Made) => phase,
        };
        Ok(())
    }

    /// After so many passes of the closed source, the last of which found the stores alike or not.
    fn after_closed(
        &self,
        passes: usize,
        beats: (Beats, Moment),
        is_alike: bool,
        is_sealed: bool,
    ) -> Result<Phase, Failure> {
        match (is_alike, is_sealed) {
            (true, true) => Ok(Phase::Hearts),
            _ if passes >= COPY_PASSES_CLOSED_MAX => Err(Failure::StillChanges),
            (true, false) => Ok(Phase::Sealing { passes, beats }),
            (false, _) => Ok(Phase::Closed { passes, beats: Some(beats), is_sealed }),
        }
    }

    /// The destination's standing under another name of the run.
    fn renamed(&self) -> Standing {
        match &self.filling {
            Standing::Filling { identity, pair, run } => {
                Standing::Filling { identity: identity.clone(), pair: *pair, run: run.next() }
            }
            other => other.clone(),
        }
    }

    /// Whether the next pass may wait for a moment: the source is closed, and its hearts are watched.
    #[must_use]
    pub fn watches(&self) -> bool {
        matches!(&self.phase, Phase::Closed { passes, .. } if *passes > 0)
    }
}

/// Why a copy can't go into the store that is there.
fn no_destination(identity: &StoreIdentity, found: &Standing) -> Refusal {
    let source_store = identity.clone();
    match found {
        Standing::InForce(found) if found == identity => Refusal::Same(source_store),
        Standing::InForce(found) => Refusal::InUse { source_store, found: found.clone() },
        Standing::Filling { identity: found, .. } => {
            Refusal::OtherCopy { source_store, found: found.clone() }
        }
        Standing::Moved { identity: found, to, .. } => {
            Refusal::LeftBehind { found: found.clone(), to: to.clone() }
        }
    }
}

/// The changes by which a move is taken back, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenUp {
    /// Of the destination: no run of the copy can open it after that.
    pub destination: Option<(Standing, Standing)>,
    /// Of the source, which is in force after that.
    pub source: Option<(Standing, Standing)>,
}

/// How a move between stores of these standings is taken back. `run` is a name that no copy had before. Where the source was never
/// closed there is nothing to do.
///
/// # Errors
/// Where the move has ended, or is none between these two.
pub fn give_up(
    source: Option<&Standing>,
    destination: Option<&Standing>,
    run: CopyName,
) -> Result<GivenUp, Refusal> {
    let source = source.ok_or(Refusal::NoSource)?;
    let (identity, pair, to) = match source {
        Standing::InForce(_) => return Ok(GivenUp::default()),
        Standing::Filling { identity, .. } => return Err(Refusal::SourceIsACopy(identity.clone())),
        Standing::Moved { identity, pair, to, .. } => (identity, pair, to),
    };
    let destination = match destination {
        // A destination is made before its source is closed: none that is not there can be opened.
        None => None,
        Some(found @ Standing::Filling { identity: of, pair: there, .. })
            if of == identity && there == pair =>
        {
            let fenced = Standing::Filling { identity: identity.clone(), pair: *pair, run };
            Some((found.clone(), fenced))
        }
        Some(Standing::InForce(found)) if found == identity => return Err(Refusal::Moved(found.clone())),
        Some(_) => return Err(Refusal::ClosedForAnother { identity: identity.clone(), to: to.clone() }),
    };
    Ok(GivenUp { destination, source: Some((source.clone(), Standing::InForce(identity.clone()))) })
}

/// A server's heartbeat as it is written into the destination. The server beats where its own configuration points to. So its
/// silence in the new place is no reason to adopt, until its agent was started on that.
#[must_use]
pub fn copied_heart(report: &ServerReport) -> ServerReport {
    let ailments = vec![NOT_YET_HERE.to_owned()];
    ServerReport { paused: true, ailments, wants: Vec::new(), ..report.clone() }
}

#[cfg(test)]
mod tests;
