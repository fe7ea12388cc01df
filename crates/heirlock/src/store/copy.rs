//! Moves a store to another place while agents use it: carries out what [`heirlock_core::copying`] says.

use std::collections::BTreeMap;
use std::fmt;

use heirlock_core::copying::{
    Beats, Begin, Copying, Done, Failure, Refusal, Step, Task, copied_heart, difference, give_up, tasks,
};
use heirlock_core::store::{CopiedStore, Fill};
use heirlock_core::store_identity::StoreIdentity;
use heirlock_core::store_standing::CopyName;
use heirlock_core::{Generation, Moment, ServiceName};
use thiserror::Error;

use super::{Contents, Past, StoreError};

/// What goes on beside a move.
pub(crate) trait Beside {
    /// Now.
    fn now(&self) -> Moment;

    /// Lets a moment pass before the closed source is looked at once more.
    fn rest(&mut self);

    /// Comes before each step. `false` ends the move.
    fn goes_on(&mut self, before: Next<'_>) -> bool;
}

/// What a move is about to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next<'a> {
    /// A step.
    Step(&'a Step),
    /// A part of a pass.
    Part,
}

/// A store that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Which.
    pub(crate) identity: StoreIdentity,
    /// What it holds, as the last pass has read it; nothing where it was moved before.
    pub(crate) holds: Option<Holds>,
}

/// The contents of a store, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Holds {
    /// Services.
    pub(crate) services: usize,
    /// Generations.
    pub(crate) generations: usize,
    /// Records, in all generations.
    pub(crate) records: usize,
    /// Passes that it took.
    pub(crate) passes: usize,
}

/// Why a store was not moved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CopyError {
    /// It may not be.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The move can't go on.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// A store fails.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Something in the source can't be read: it may be a client's record.
    #[error("{} in FROM can't be read, and may stand for a client: mend or remove it, then repeat the copy: {}", count(.0), .0.join("; "))]
    Damaged(Vec<String>),
    /// It was interrupted.
    #[error("interrupted")]
    Interrupted,
}

fn count(entries: &[String]) -> String {
    match entries.len() {
        1 => "an entry".to_owned(),
        count => format!("{count} entries"),
    }
}

/// A store that was not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotMoved {
    /// Why.
    pub(crate) why: CopyError,
    /// Where that leaves the source.
    pub(crate) source: Source,
}

/// Where a move that failed has left the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// As it was.
    Untouched,
    /// It is in force.
    InForce,
    /// It is closed, for it could not be opened again.
    Closed(Box<CopyError>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untouched => write!(f, "nothing was changed"),
            Self::InForce => {
                write!(f, "FROM is in force, and nothing was lost; the same command goes on with the copy")
            }
            Self::Closed(why) => write!(
                f,
                "FROM is CLOSED, and could not be opened again ({why}): no new client is protected until the same command has ended \
                 well, or was said with --give-up"
            ),
        }
    }
}

/// Moves a store. `names` are random: nobody had them before.
///
/// # Errors
/// Why it was not moved, and where that leaves the source.
pub(crate) fn move_store(
    source: &dyn CopiedStore,
    destination: &dyn CopiedStore,
    names: impl Fn() -> CopyName,
    beside: &mut dyn Beside,
) -> Result<Moved, Box<NotMoved>> {
    let mut moving = Moving { source, destination, beside, holds: Holds::default() };
    let why = match moving.go([names(), names()]) {
        Ok(moved) => return Ok(moved),
        Err(why @ CopyError::Refused(_)) => {
            return Err(Box::new(NotMoved { why, source: Source::Untouched }));
        }
        Err(why) => why,
    };
    let source = match take_back(source, destination, names()) {
        Ok(_) => Source::InForce,
        // The last answer was lost.
        Err(CopyError::Refused(Refusal::Moved(identity))) => {
            return Ok(Moved { identity, holds: Some(moving.holds) });
        }
        Err(why) => Source::Closed(Box::new(why)),
    };
    Err(Box::new(NotMoved { why, source }))
}

/// Takes back a move that has not ended: the source is in force after that. Answers whether it was not before.
///
/// # Errors
/// Where it has ended, is none between these two, or a store fails.
pub(crate) fn take_back(
    source: &dyn CopiedStore,
    destination: &dyn CopiedStore,
    run: CopyName,
) -> Result<bool, CopyError> {
    let there = source.standing()?;
    if matches!(there, Some(heirlock_core::store_standing::Standing::InForce(_))) {
        return Ok(false);
    }
    let back = give_up(there.as_ref(), destination.standing()?.as_ref(), run)?;
    if let Some((from, to)) = back.destination {
        destination.change_standing(&from, &to)?;
    }
    if let Some((from, to)) = back.source {
        source.change_standing(&from, &to)?;
    }
    Ok(true)
}

struct Moving<'a> {
    source: &'a dyn CopiedStore,
    destination: &'a dyn CopiedStore,
    beside: &'a mut dyn Beside,
    holds: Holds,
}

impl Moving<'_> {
    fn go(&mut self, names: [CopyName; 2]) -> Result<Moved, CopyError> {
        let (source, destination) = (self.source.standing()?, self.destination.standing()?);
        let at_once = self.source.closes_at_once();
        let to = self.destination.describe();
        let mut copying = match Copying::begin(source.as_ref(), destination.as_ref(), names, &to, at_once)? {
            Begin::Copy(copying) => *copying,
            Begin::Ended(identity) => return Ok(Moved { identity, holds: None }),
        };
        loop {
            self.source.expect_standing(copying.source());
            self.destination.expect_standing(copying.filling());
            let step = copying.next();
            self.goes_on(Next::Step(&step))?;
            let done = match &step {
                Step::Make(standing) => {
                    self.destination.make_as(standing)?;
                    Done::Made
                }
                Step::Retake { from, to } | Step::Open { from, to } => {
                    self.destination.change_standing(from, to)?;
                    Done::Made
                }
                Step::Close { from, to } => {
                    self.source.change_standing(from, to)?;
                    Done::Made
                }
                Step::Pass => {
                    if copying.watches() && !at_once {
                        self.beside.rest();
                    }
                    self.pass()?
                }
                Step::Hearts => {
                    for report in self.source.hearts()?.reports.values() {
                        self.destination.put_server(&copied_heart(report))?;
                    }
                    Done::Made
                }
                Step::Ended => {
                    let identity = copying.source().identity().clone();
                    return Ok(Moved { identity, holds: Some(self.holds) });
                }
            };
            copying.made(done)?;
        }
    }

    fn goes_on(&mut self, next: Next<'_>) -> Result<(), CopyError> {
        match self.beside.goes_on(next) {
            true => Ok(()),
            false => Err(CopyError::Interrupted),
        }
    }

    fn pass(&mut self) -> Result<Done, CopyError> {
        let (source, destination) = (pasts(self.source)?, pasts(self.destination)?);
        let unreadable: Vec<String> =
            source.values().flat_map(|past| past.unreadable.iter().cloned()).collect();
        if !unreadable.is_empty() {
            return Err(CopyError::Damaged(unreadable));
        }
        let mut steps = 0;
        self.holds = Holds { services: source.len(), passes: self.holds.passes + 1, ..Holds::default() };
        for task in tasks(&source, &destination) {
            self.goes_on(Next::Part)?;
            let (service, fills) = match task {
                Task::Fill(service, fill) => (service, vec![fill]),
                Task::Begin(service, generation) => {
                    let fills = self
                        .load(&service, generation)?
                        .map(|contents| vec![Fill::Begin(generation, Box::new(contents))]);
                    (service, fills.unwrap_or_default())
                }
                Task::Compare(service, generation) => {
                    let fills = match self.load(&service, generation)? {
                        Some(contents) => {
                            let there = self.destination.load(&service, generation)?;
                            difference(generation, &contents, &there)
                        }
                        None => Vec::new(),
                    };
                    (service, fills)
                }
            };
            for fill in fills {
                steps += steps_of(&fill);
                self.destination.fill(&service, &fill)?;
            }
        }
        let beats = self.source.hearts()?.reports.into_iter();
        let beats: Beats =
            beats.map(|(server, report)| (server, (report.agent.clone(), report.beat))).collect();
        Ok(Done::Passed { steps, beats, now: self.beside.now() })
    }

    /// A generation of the source; nothing where its owner has removed it meanwhile.
    fn load(&mut self, service: &ServiceName, generation: Generation) -> Result<Option<Contents>, CopyError> {
        let contents = match self.source.load(service, generation) {
            Ok(contents) => contents,
            Err(error) => {
                let is_there = self.source.past(service)?.generations.contains(&generation);
                return if is_there { Err(error.into()) } else { Ok(None) };
            }
        };
        if !contents.damaged.is_empty() {
            let place = self.source.place(super::Place::Generation(service, generation));
            let damaged =
                contents.damaged.iter().map(|entry| format!("{place}/{}: {}", entry.path, entry.why));
            return Err(CopyError::Damaged(damaged.collect()));
        }
        self.holds.generations += 1;
        self.holds.records += contents.records.len();
        Ok(Some(contents))
    }
}

fn pasts(store: &dyn CopiedStore) -> Result<BTreeMap<ServiceName, Past>, StoreError> {
    store
        .services()?
        .into_iter()
        .map(|service| {
            let past = store.past(&service)?;
            Ok((service, past))
        })
        .collect()
}

/// How much a step changes, in records and the like.
fn steps_of(fill: &Fill) -> usize {
    match fill {
        Fill::Begin(_, contents) => 1 + contents.records.len(),
        Fill::Change(_, changes) => changes.len(),
        Fill::Claim(_)
        | Fill::RemoveClaim(_)
        | Fill::RemoveGeneration(_)
        | Fill::Tenure(_)
        | Fill::RemoveTenure(_) => 1,
    }
}

#[cfg(test)]
mod overtaken;
#[cfg(test)]
mod tests;
