//! One life of one lock manager: whether the one that runs is still the one whose locks we know of.
//!
//! The locks of a lock manager live and die with it: a reboot, a restart of its threads, or a SIGKILL to lockd on
//! kernels that obey it (fs/lockd/svc.c of 6.1). Each of these begins another incarnation. Nothing announces
//! one, so it is told from what can be seen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identity of one life of a lock manager. Equal values mean the same life; any other value means another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Incarnation {
    /// `/proc/sys/kernel/random/boot_id`: a reboot ends every life.
    pub boot: String,
    /// The start of the lock manager's threads in this boot: for the kernel, pid and start time of lockd.
    pub start: String,
    /// How often a grace period was seen to open without a new start: a SIGKILL to lockd drops all locks and
    /// leaves the thread as it was.
    #[serde(default)]
    pub reopened: u32,
}

impl Incarnation {
    /// Whether this life began after that one, without a new start of the lock manager's threads.
    #[must_use]
    pub fn followed_in_place(&self, other: &Self) -> bool {
        self.boot == other.boot && self.start == other.start && self.reopened > other.reopened
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boot = self.boot.get(..8).unwrap_or(&self.boot);
        write!(f, "{boot}/{}/{}", self.start, self.reopened)
    }
}

/// One look at a lock manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Pid and start time of lockd, or what stands for them; `None` where no lock manager runs.
    pub start: Option<String>,
    /// Whether the lock manager says that it is in grace (`/proc/fs/lockd/nlm_end_grace` reads `N`). A hint: it
    /// lies until the first request after a SIGKILL.
    pub in_grace: Option<bool>,
    /// Whether clients are served: nfsd has threads, or what stands for them.
    pub serving: bool,
}

/// Of the lives that journals tell of, the one of this boot that may run still: the last one.
#[must_use]
pub fn newest_of<'a>(
    boot: &str,
    lives: impl IntoIterator<Item = &'a Incarnation>,
) -> Option<&'a Incarnation> {
    lives.into_iter().filter(|life| life.boot == boot).max_by_key(|life| life.reopened)
}

/// The meaning of a look at the lock manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The same life as before.
    Same,
    /// Another life: all locks of the one before are gone.
    Reborn(Incarnation),
    /// No lock manager runs. Nothing can be said of locks until one does.
    Stopped,
}

/// Follows one lock manager through its lives.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    current: Option<Incarnation>,
    was_in_grace: bool,
    stopped: bool,
}

impl Follower {
    /// Begins with the life that the store knows of, where there is one; `was_closed` says whether its grace was seen closed.
    #[must_use]
    pub fn new(known: Option<Incarnation>, was_closed: bool) -> Self {
        // Until grace was seen closed, an open one is not news: the agent may have been started inside it.
        Self { current: known, was_in_grace: !was_closed, stopped: false }
    }

    /// The life that is being followed, if any was ever seen.
    #[must_use]
    pub fn current(&self) -> Option<&Incarnation> {
        self.current.as_ref()
    }

    /// Whether a lock manager ran at the last look.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.current.is_some() && !self.stopped
    }

    /// Takes in one look.
    pub fn observe(&mut self, seen: &Observation) -> Change {
        let Some(start) = &seen.start else {
            self.stopped = true;
            return Change::Stopped;
        };
        self.stopped = false;
        let in_grace = seen.in_grace.unwrap_or(self.was_in_grace);
        let reopened_now = in_grace && !self.was_in_grace;
        self.was_in_grace = in_grace;
        match &self.current {
            Some(life) if life.boot == seen.boot && life.start == *start => {
                if !reopened_now {
                    return Change::Same;
                }
                let reopened = life.reopened.saturating_add(1);
                self.reborn(Incarnation { boot: seen.boot.clone(), start: start.clone(), reopened })
            }
            _ => self.reborn(Incarnation { boot: seen.boot.clone(), start: start.clone(), reopened: 0 }),
        }
    }

    /// We ended a life ourselves without a new start (SIGKILL to lockd): the next one begins now, also where the files
    /// show none.
    pub fn restarted_in_place(&mut self) -> Option<Incarnation> {
        let life = self.current.as_mut()?;
        life.reopened = life.reopened.saturating_add(1);
        self.was_in_grace = true;
        Some(life.clone())
    }

    fn reborn(&mut self, life: Incarnation) -> Change {
        self.current = Some(life.clone());
        Change::Reborn(life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(boot: &str, start: Option<&str>, in_grace: bool) -> Observation {
        Observation {
            boot: boot.into(),
            start: start.map(Into::into),
            in_grace: Some(in_grace),
            serving: start.is_some(),
        }
    }

    #[test]
    fn a_restart_and_a_reboot_are_other_lives_and_a_stop_is_none() {
        let mut follower = Follower::new(None, false);
        assert!(matches!(follower.observe(&look("b1", Some("90@5"), true)), Change::Reborn(_)));
        assert_eq!(follower.observe(&look("b1", Some("90@5"), false)), Change::Same);
        assert_eq!(follower.observe(&look("b1", None, false)), Change::Stopped);
        assert!(!follower.runs());
        assert!(matches!(follower.observe(&look("b1", Some("95@7"), true)), Change::Reborn(_)));
        assert!(matches!(follower.observe(&look("b2", Some("95@7"), true)), Change::Reborn(_)));
    }

    #[test]
    fn the_life_that_the_store_knows_is_recognised_after_a_restart_of_the_agent() {
        let known = Incarnation { boot: "b1".into(), start: "90@5".into(), reopened: 0 };
        let mut follower = Follower::new(Some(known), false);
        assert_eq!(follower.observe(&look("b1", Some("90@5"), false)), Change::Same);
    }

    #[test]
    fn a_grace_period_that_opens_again_is_another_life() {
        let mut follower = Follower::new(None, false);
        follower.observe(&look("b", Some("90@5"), true));
        follower.observe(&look("b", Some("90@5"), false));
        let Change::Reborn(life) = follower.observe(&look("b", Some("90@5"), true)) else {
            panic!("same life")
        };
        assert_eq!(life.reopened, 1);
        assert_eq!(follower.observe(&look("b", Some("90@5"), true)), Change::Same);
    }

    #[test]
    fn the_agent_that_starts_inside_grace_does_not_take_it_for_a_new_one() {
        let known = Incarnation { boot: "b".into(), start: "90@5".into(), reopened: 0 };
        let mut follower = Follower::new(Some(known), false);
        assert_eq!(follower.observe(&look("b", Some("90@5"), true)), Change::Same);
    }
}
