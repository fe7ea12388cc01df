//! Looks at the lock manager again and again, in a thread of its own: a look may take its time.
//!
//! A lock manager that serves outside grace, and whose end wakes this thread, is looked at less often while nothing rests upon
//! the next look: each look wakes the server's processor. Its end comes by a descriptor ([`LockManager::end_of_life`]), and the
//! agent says when something rests upon looks ([`Attention`]).
//!
//! [`LockManager::end_of_life`]: crate::lock_manager::LockManager::end_of_life

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heirlock_agent::Look;
use heirlock_agent::News;
use heirlock_core::incarnation::Observation;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::work::Workshop;
use crate::limits::{OBSERVE_INTERVAL, OBSERVE_INTERVAL_AT_REST};
use crate::threads::Lasting;

/// Looks between two questions for NLM's port, where nothing else tells that it has changed.
const LOOKS_A_PORT: u32 = 20;

/// Whether something rests upon the next looks at the lock manager, as the agent's loop says.
#[derive(Debug)]
pub(crate) struct Attention {
    is_close: AtomicBool,
    waker: OwnedFd,
}

impl Attention {
    /// Nothing does yet.
    pub(super) fn new() -> io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { is_close: AtomicBool::new(false), waker })
    }

    /// From now on something does, and the next look is made at once; or nothing does.
    pub(super) fn pay(&self, close: bool) {
        if !self.is_close.swap(close, Ordering::SeqCst) && close {
            let _ = rustix::io::write(&self.waker, &1_u64.to_le_bytes());
        }
    }
}

/// The looks so far.
#[derive(Default)]
struct Watched {
    last: Option<Observation>,
    /// The end of the life that the last look showed.
    end: Option<OwnedFd>,
}

/// Looks until no caller wants to know any more.
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(workshop: &Workshop, attention: Arc<Attention>) -> io::Result<Lasting> {
    let shop = workshop.clone();
    workshop.host.lasting("watch", move || {
        let mut watched = Watched::default();
        for count in 0_u32.. {
            let seen = {
                let turn = shop.turn();
                let at = shop.clock.now();
                let seen = shop.lock_manager.observe().map_err(|error| error.to_string());
                let look = seen.clone().map(|observation| Look { at, observation });
                // Sent within the turn: no look may come after the work that was done since.
                if shop.inbox.send(News::Observed(Box::new(look))).is_err() {
                    return Ok(());
                }
                drop(turn);
                seen.ok()
            };
            let start = |of: &Option<Observation>| of.as_ref().and_then(|seen| seen.start.clone());
            let is_new = start(&seen) != start(&watched.last);
            if is_new || count.is_multiple_of(LOOKS_A_PORT) {
                let _ = shop.inbox.send(News::NlmPorts(shop.lock_manager.ports()));
            }
            if is_new || watched.end.is_none() {
                watched.end = start(&seen).and_then(|start| shop.lock_manager.end_of_life(&start));
            }
            let rests = watched.rest(seen) && !attention.is_close.load(Ordering::SeqCst);
            watched.wait(&attention, if rests { OBSERVE_INTERVAL_AT_REST } else { OBSERVE_INTERVAL });
        }
        Err(io::Error::other("it has counted as many looks as it can"))
    })
}

impl Watched {
    /// Whether the lock manager goes on as it was seen before, in a state that only a new life or the end of this one would
    /// change.
    fn rest(&mut self, seen: Option<Observation>) -> bool {
        let before = std::mem::replace(&mut self.last, seen);
        let serves_outside_grace = |seen: &Observation| seen.serving && seen.in_grace == Some(false);
        self.end.is_some() && self.last == before && self.last.as_ref().is_some_and(serves_outside_grace)
    }

    /// Until its life ends, closer attention is paid, or this time is over.
    fn wait(&mut self, attention: &Attention, limit: std::time::Duration) {
        let sources: Vec<_> = [&attention.waker].into_iter().chain(&self.end).map(OwnedFd::as_fd).collect();
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let limit = Timespec::try_from(limit).ok();
        let _ = poll(&mut fds, limit.as_ref());
        let has_ended = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        let _ = rustix::io::read(&attention.waker, &mut [0; 8]);
        if has_ended {
            // It says so for ever. The next look finds what follows.
            self.end = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// Much longer than any test takes.
    const LONG: Duration = Duration::from_secs(3_600);

    fn seen(start: &str, in_grace: bool) -> Option<Observation> {
        let (boot, start) = ("boot".to_owned(), Some(start.to_owned()));
        Some(Observation { boot, start, in_grace: Some(in_grace), serving: true })
    }

    fn end_of(program: u32) -> OwnedFd {
        let pid = Pid::from_raw(i32::try_from(program).unwrap()).unwrap();
        pidfd_open(pid, PidfdFlags::empty()).unwrap()
    }

    #[test]
    fn the_end_of_a_life_is_seen_at_once_and_the_next_life_is_looked_for_often() {
        let mut lockd = Command::new("sleep").arg("3600").spawn().unwrap();
        let attention = Attention::new().unwrap();
        let mut watched = Watched { last: None, end: Some(end_of(lockd.id())) };
        assert!(!watched.rest(seen("1", false)), "it was not seen before");
        assert!(watched.rest(seen("1", false)));
        lockd.kill().unwrap();
        watched.wait(&attention, LONG);
        lockd.wait().unwrap();
        assert!(watched.end.is_none() && !watched.rest(seen("1", false)));
        // A descriptor that tells of an end for ever would make the thread turn without pause.
        let began = Instant::now();
        watched.wait(&attention, Duration::from_millis(30));
        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn it_rests_only_beside_one_that_serves_outside_grace_as_before() {
        let mut lockd = Command::new("sleep").arg("3600").spawn().unwrap();
        let mut watched = Watched { last: None, end: Some(end_of(lockd.id())) };
        let rests: Vec<bool> = [("1", true), ("1", true), ("1", false), ("1", false), ("2", false)]
            .map(|(start, in_grace)| watched.rest(seen(start, in_grace)))
            .into();
        assert_eq!(rests, [false, false, false, true, false]);
        assert!(!watched.rest(None), "it can't be seen");
        (watched.last, watched.end) = (seen("1", false), None);
        assert!(!watched.rest(seen("1", false)), "nothing would tell of its end");
        lockd.kill().unwrap();
        lockd.wait().unwrap();
    }

    #[test]
    fn closer_attention_causes_a_look_at_once_and_does_so_once() {
        let (attention, mut watched) = (Attention::new().unwrap(), Watched::default());
        attention.pay(true);
        watched.wait(&attention, LONG);
        attention.pay(true);
        let began = Instant::now();
        watched.wait(&attention, Duration::from_millis(30));
        assert!(began.elapsed() >= Duration::from_millis(30), "it is close already");
        attention.pay(false);
        attention.pay(true);
        watched.wait(&attention, LONG);
    }
}
