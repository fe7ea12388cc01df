//! An agent that hangs is as bad as one that is dead, and where it is the status monitor worse: lockd waits a minute for it
//! in its only thread. So the loops that do the work say with each turn that they turn, and a thread of this module looks on:
//!
//! - A loop that hangs, as `heirlock_core::hang` judges, ends the program. It is started again by systemd or by
//!   `heirlock supervise`, and its sockets wait for it there.
//! - A thread that is to live as long as the program, and ends all the same, ends the program too: nothing else does its work.
//! - As long as neither happens, this thread says that the program lives: to systemd (sd_notify(3), `WatchdogSec=` in
//!   heirlock.service), and over a private line to `heirlock supervise`. They see to it that the program as a whole goes on.
//!
//! Nothing is asked over the network: a flood at the status monitor's sockets can't make a healthy agent look dead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::Moment;
use heirlock_core::hang::{Verdict, Watch};
use rustix::net::SendFlags;
use rustix::process::{Signal, getpid, kill_process};
use sd_notify::NotifyState;

use crate::host::doing;
use crate::log_queue;
use crate::threads::{self, Lasting};

/// Says to an agent that its standard input is the line to `heirlock supervise`.
pub(crate) const LINE: &str = "HEIRLOCK_LINE";

/// The word over that line while the agent lives.
pub(crate) const BEAT: u8 = b'.';

/// How often loops are looked at, and how often `heirlock supervise` is told that the program lives.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// How often loops are looked at that may stand still for long, where no supervisor wants to be told: a wake-up of an idle
/// server is energy, and on a virtual machine another's processor time.
const RELAXED_INTERVAL: Duration = Duration::from_secs(1);

/// How often a loop is looked at within the time for which it may make no headway.
const LOOKS_WITHIN_LIMIT: u32 = 10;

/// How often systemd is told within the time after which it takes the agent for dead: one answer may be late.
const TOLD_WITHIN_LIMIT: u32 = 4;

/// The turns of one loop. The loop's own thread counts them.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    name: &'static str,
    limit: Duration,
    turns: AtomicU64,
    thread: AtomicI32,
    is_fatal: AtomicBool,
}

impl Turns {
    /// A loop that may make no headway for `limit`.
    fn new(name: &'static str, limit: Duration) -> Self {
        Self(Arc::new(Counter {
            name,
            limit,
            turns: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            is_fatal: AtomicBool::new(true),
        }))
    }

    /// The loop of the thread that calls this begins another turn.
    pub(crate) fn turn(&self) {
        self.0.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        self.0.turns.fetch_add(1, Ordering::Release);
    }

    /// Where it hangs it is said, and the program goes on: its end would do more harm.
    pub(crate) fn only_say(&self) {
        self.0.is_fatal.store(false, Ordering::Relaxed);
    }

    /// Of a loop that is not watched.
    #[cfg(test)]
    pub(crate) fn unwatched() -> Self {
        Self::new("a test", Duration::MAX)
    }
}

/// Looks on, as long as the program runs.
#[derive(Clone, Default)]
pub(crate) struct Watchdog {
    followed: Arc<Mutex<Vec<Turns>>>,
    kept: Arc<Mutex<Vec<Lasting>>>,
    status: Arc<Mutex<Option<Box<Say>>>>,
}

/// The state of the program in one line.
type Say = dyn Fn() -> String + Send;

/// One loop as it is watched.
struct Watched {
    turns: Turns,
    seen: u64,
    watch: Watch,
    said: bool,
}

impl Watchdog {
    /// Begins to look on, and to say that the program lives.
    ///
    /// # Errors
    /// Where no thread can be had, or the line that was promised is none.
    pub(crate) fn start() -> io::Result<Self> {
        let line = match std::env::var_os(LINE) {
            Some(_) => Some(io::stdin().as_fd().try_clone_to_owned()?),
            None => None,
        };
        let watchdog = Self::default();
        let looks = watchdog.clone();
        threads::start("watchdog", move || look_on(&looks, line.as_ref()))?;
        Ok(watchdog)
    }

    /// Sees to it that a thread lives.
    pub(crate) fn keep(&self, thread: Option<Lasting>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(thread);
    }

    /// From now on systemd is told this line as well: `systemctl status` shows it. It waits for nothing.
    pub(crate) fn tell_systemd_also(&self, status: impl Fn() -> String + Send + 'static) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(status));
    }

    fn status(&self) -> Option<String> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|status| status())
    }

    /// Which of the threads that it keeps have ended though the program goes on, and why.
    fn ended(&self) -> Vec<(String, String)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<Lasting> = kept.extract_if(.., |thread| thread.is_finished()).collect();
        drop(kept);
        let ended = ended.into_iter().filter_map(|thread| {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((name, error.to_string())),
                Err(_) => Some((name, "it has a fault".to_owned())),
            }
        });
        ended.collect()
    }

    /// Watches one more loop, which may make no headway for `limit`.
    pub(crate) fn follow(&self, name: &'static str, limit: Duration) -> Turns {
        let turns = Turns::new(name, limit);
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).push(turns.clone());
        turns
    }
}

fn look_on(watchdog: &Watchdog, line: Option<&OwnedFd>) {
    let began = Instant::now();
    let systemd = sd_notify::watchdog_enabled().map(|limit| limit / TOLD_WITHIN_LIMIT);
    let mut told: Option<Instant> = None;
    let mut watched: Vec<Watched> = Vec::new();
    loop {
        let followed = watchdog.followed.lock().unwrap_or_else(PoisonError::into_inner);
        watched.extend(followed.iter().skip(watched.len()).cloned().map(Watched::new));
        drop(followed);
        for one in &mut watched {
            if let Some(idle) = one.look(Moment::at(began.elapsed())) {
                one.hangs(idle);
            }
        }
        for (thread, why) in watchdog.ended() {
            tracing::error!(
                thread,
                why,
                "the thread {thread} of the agent has ended: {why}; the agent ends, and is to be started again"
            );
            end_now();
        }
        if let Some(line) = line {
            // A supervisor that does not read it does not want to know.
            let _ = rustix::net::send(line, &[BEAT], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        if systemd.is_some_and(|interval| told.is_none_or(|told| told.elapsed() >= interval)) {
            told = Some(Instant::now());
            tell_systemd(watchdog.status().as_deref());
        }
        thread::sleep(if line.is_some() { INTERVAL } else { interval(&watched) });
    }
}

/// How often a loop is looked at that may make no headway for this long.
fn look_interval(limit: Duration) -> Duration {
    (limit / LOOKS_WITHIN_LIMIT).clamp(INTERVAL, RELAXED_INTERVAL)
}

/// How long until the next look: the loop that is looked at most often decides.
fn interval(watched: &[Watched]) -> Duration {
    watched.iter().map(|one| look_interval(one.turns.0.limit)).fold(RELAXED_INTERVAL, Duration::min)
}

impl Watched {
    fn new(turns: Turns) -> Self {
        let watch = Watch::new(turns.0.limit, look_interval(turns.0.limit));
        Self { turns, seen: 0, watch, said: false }
    }

    /// For how long it has made no headway although it could have, where that is too long.
    fn look(&mut self, now: Moment) -> Option<Duration> {
        let turns = self.turns.0.turns.load(Ordering::Acquire);
        if turns != self.seen {
            (self.seen, self.said) = (turns, false);
            self.watch.headway();
        }
        // Before its first turn it has no thread to look at.
        if turns == 0 {
            return None;
        }
        match self.watch.look(now, doing::of_thread(self.turns.0.thread.load(Ordering::Relaxed))) {
            Verdict::Lives => None,
            Verdict::Hangs(idle) => Some(idle),
        }
    }

    fn hangs(&mut self, idle: Duration) {
        if std::mem::replace(&mut self.said, true) {
            return;
        }
        let (name, idle_ms) = (self.turns.0.name, idle.as_millis());
        if !self.turns.0.is_fatal.load(Ordering::Relaxed) {
            tracing::error!(
                name,
                idle_ms,
                "the loop {name} of the agent hangs, and clients that are known are answered all the same"
            );
            return;
        }
        tracing::error!(
            name,
            idle_ms,
            "the loop {name} of the agent hangs: the agent ends, and is to be started again"
        );
        end_now();
    }
}

/// Ends the program. Not by exit(): a thread that hangs may hold what that waits for.
fn end_now() {
    log_queue::flush();
    let _ = kill_process(getpid(), Signal::KILL);
}

fn tell_systemd(status: Option<&str>) {
    let status = status.map(NotifyState::Status);
    let told: Vec<NotifyState> = [NotifyState::Watchdog].into_iter().chain(status).collect();
    if let Err(error) = sd_notify::notify(&told) {
        tracing::warn!(%error, "systemd can't be told that the agent lives: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(600);

    /// Looks as often as the watchdog does, by a clock of its own, until it hangs or has been looked at so often.
    fn hangs_within(watched: &mut Watched, looks: u32) -> bool {
        (0..looks).any(|at| {
            thread::sleep(Duration::from_millis(2));
            watched.look(Moment::START + INTERVAL * at).is_some()
        })
    }

    #[test]
    fn a_loop_that_waits_for_ever_hangs_and_one_that_turns_does_not() {
        let turns = Turns::new("test", LIMIT);
        let mut watched = Watched::new(turns.clone());
        assert!(!hangs_within(&mut watched, 20), "it has not begun");
        let (go, gone) = channel::<()>();
        let (begun, begins) = channel();
        let looped = turns.clone();
        let thread = thread::spawn(move || {
            looped.turn();
            begun.send(()).unwrap();
            let _ = gone.recv();
        });
        begins.recv().unwrap();
        // The tests beside it may be taken for threads that it waits for.
        assert!(hangs_within(&mut watched, 10_000));
        drop(go);
        thread.join().unwrap();
        assert!(hangs_within(&mut watched, 10), "its thread has ended");
        turns.turn();
        assert!(!hangs_within(&mut watched, 2), "it has turned");
    }

    #[test]
    fn the_loop_with_the_shortest_limit_decides_how_often_loops_are_looked_at() {
        let of = |limits: &[u64]| -> Duration {
            let loops = limits.iter().map(|limit| Turns::new("test", Duration::from_secs(*limit)));
            interval(&loops.map(Watched::new).collect::<Vec<_>>())
        };
        assert_eq!((of(&[]), of(&[180])), (RELAXED_INTERVAL, RELAXED_INTERVAL));
        assert_eq!((of(&[180, 2]), of(&[1]), of(&[5])), (INTERVAL, INTERVAL, INTERVAL * 5 / 2));
    }

    #[test]
    fn a_thread_that_was_to_live_and_ended_is_named_with_why_and_one_that_may_end_is_not() {
        let watchdog = Watchdog::default();
        let (go, gone) = channel::<()>();
        let lives = move || gone.recv().map_err(io::Error::other);
        watchdog.keep(Some(threads::start("lives", lives).unwrap()));
        watchdog.keep(Some(threads::start("may-end", || Ok(())).unwrap()));
        watchdog.keep(Some(threads::start("fails", || Err(io::Error::other("no socket"))).unwrap()));
        watchdog.keep(Some(threads::start("panics", || panic!("a fault")).unwrap()));
        let mut ended = Vec::new();
        while watchdog.kept.lock().unwrap().len() > 1 {
            ended.extend(watchdog.ended());
            thread::sleep(Duration::from_millis(2));
        }
        ended.extend(watchdog.ended());
        ended.sort();
        let said = |name: &str, why: &str| (name.to_owned(), why.to_owned());
        assert_eq!(ended, [said("fails", "no socket"), said("panics", "it has a fault")]);
        drop(go);
        while !watchdog.kept.lock().unwrap().is_empty() {
            ended = watchdog.ended();
        }
        assert_eq!(ended.len(), 1, "it can't hear any more");
    }
}
