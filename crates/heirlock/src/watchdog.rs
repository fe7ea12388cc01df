//! An agent that hangs is as bad as one that is dead, and where it is the status monitor worse: lockd waits a minute for it
//! in its only thread. So the loops that do the work say with each turn that they turn, and a thread of this module looks on:
//!
//! - A loop says when it rests: it waits for something to do, and nothing hangs. While it works, an alarm goes off now and again, at
//!   which it is looked at. So nothing wakes this thread while nothing happens.
//! - A loop that hangs, as `heirlock_core::hang` judges, ends the program. It is started again by systemd or by
//!   `heirlock supervise`, and its sockets wait for it there.
//! - A thread that is to live as long as the program, and ends all the same, ends the program too: nothing else does its work.
//! - As long as neither happens, this thread says that the program lives: to systemd (sd_notify(3), `WatchdogSec=` in
//!   heirlock.service), and over a private line to `heirlock supervise`. They see to it that the program as a whole goes on.
//!
//! Nothing is asked over the network: a flood at the status monitor's sockets can't make a healthy agent look dead.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heirlock_core::Moment;
use heirlock_core::hang::{Verdict, Watch};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::SendFlags;
use rustix::process::{Signal, getpid, kill_process};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::host::doing;
use crate::log_queue;
use crate::threads::{self, Lasting};

/// Says to an agent that its standard input is the line to `heirlock supervise`.
pub(crate) const LINE: &str = "HEIRLOCK_LINE";

/// The word over that line while the agent lives.
pub(crate) const BEAT: u8 = b'.';

/// How often that word is said: twice within the time after which a silent agent is taken for one that hangs.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_millis(500);

/// How often a loop is looked at that works, at most.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// How often a loop is looked at that works and may stand still for long.
const RELAXED_INTERVAL: Duration = Duration::from_secs(1);

/// How often a loop is looked at within the time for which it may make no headway.
const LOOKS_WITHIN_LIMIT: u32 = 10;

/// The word to systemd while the program lives (sd_notify(3)).
const WATCHDOG: &[u8] = b"WATCHDOG=1\n";

/// How often systemd is told within the time after which it takes the agent for dead: one answer may be late.
const TOLD_WITHIN_LIMIT: u32 = 4;

/// The turns of one loop. The loop's own thread counts them.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    name: &'static str,
    limit: Duration,
    /// Odd while the loop works, even while it rests.
    turns: AtomicU64,
    thread: AtomicI32,
    is_fatal: AtomicBool,
    /// Goes off again and again while the loop works; none where it is not watched.
    alarm: Option<OwnedFd>,
}

impl Turns {
    /// A loop that may make no headway for `limit`, with the alarm that goes off while it works.
    fn new(name: &'static str, limit: Duration, alarm: Option<OwnedFd>) -> Self {
        Self(Arc::new(Counter {
            name,
            limit,
            turns: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            is_fatal: AtomicBool::new(true),
            alarm,
        }))
    }

    /// The loop of the thread that calls this begins another turn.
    pub(crate) fn turn(&self) {
        self.0.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        self.0.turns.fetch_update(Ordering::Release, Ordering::Relaxed, |turns| Some((turns + 1) | 1)).ok();
        self.set_alarm(look_interval(self.0.limit));
    }

    /// The loop has nothing to do, and is about to wait for something.
    pub(crate) fn rest(&self) {
        self.0.turns.fetch_update(Ordering::Release, Ordering::Relaxed, |turns| Some((turns + 1) & !1)).ok();
        self.set_alarm(Duration::ZERO);
    }

    /// Where it hangs it is said, and the program goes on: its end would do more harm.
    pub(crate) fn only_say(&self) {
        self.0.is_fatal.store(false, Ordering::Relaxed);
    }

    /// An interval of zero stops the alarm.
    fn set_alarm(&self, interval: Duration) {
        let (Some(alarm), Ok(time)) = (&self.0.alarm, Timespec::try_from(interval)) else { return };
        let set = Itimerspec { it_interval: time, it_value: time };
        // It fails for no alarm that was made and no time that is one.
        let _ = timerfd_settime(alarm, TimerfdTimerFlags::empty(), &set);
    }

    /// Of a loop that is not watched.
    #[cfg(test)]
    pub(crate) fn unwatched() -> Self {
        Self::new("a test", Duration::MAX, None)
    }
}

/// Looks on, as long as the program runs.
#[derive(Clone)]
pub(crate) struct Watchdog {
    followed: Arc<Mutex<Vec<Turns>>>,
    kept: Arc<Mutex<Vec<Lasting>>>,
    /// Wakes the thread that looks on: a thread has ended, or there is one more loop.
    waker: Arc<OwnedFd>,
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
        let watchdog = Self::new()?;
        let looks = watchdog.clone();
        threads::start("watchdog", move || look_on(&looks, line.as_ref()))?;
        Ok(watchdog)
    }

    fn new() -> io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            followed: Arc::default(),
            kept: Arc::default(),
            waker: Arc::new(waker),
            status: Arc::default(),
        })
    }

    /// Sees to it that a thread lives.
    pub(crate) fn keep(&self, thread: Option<Lasting>) {
        let Some(thread) = thread else { return };
        let waker = Arc::clone(&self.waker);
        thread.on_end(move || wake(&waker));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        // It may have ended before it was kept.
        wake(&self.waker);
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
        let ended: Vec<Lasting> = kept.extract_if(.., |thread| thread.has_ended()).collect();
        drop(kept);
        let ended = ended.into_iter().filter_map(|thread| match thread.take_end() {
            None | Some(Ok(())) => None,
            Some(Err(error)) => Some((thread.name().to_owned(), error.to_string())),
        });
        ended.collect()
    }

    /// Watches one more loop, which may make no headway for `limit`.
    ///
    /// # Errors
    /// Where there is no alarm for it.
    pub(crate) fn follow(&self, name: &'static str, limit: Duration) -> io::Result<Turns> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let turns = Turns::new(name, limit, Some(alarm));
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).push(turns.clone());
        wake(&self.waker);
        Ok(turns)
    }
}

fn wake(waker: &OwnedFd) {
    // A waker that is full wakes all the same.
    let _ = rustix::io::write(waker, &1_u64.to_le_bytes());
}

fn look_on(watchdog: &Watchdog, line: Option<&OwnedFd>) {
    let began = Instant::now();
    let mut of_line = Every::new(line.map(|_| BEAT_INTERVAL));
    let mut systemd = Systemd::of_environment();
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
        if let Some(line) = line.filter(|_| of_line.is_due()) {
            // A supervisor that does not read it does not want to know.
            let _ = rustix::net::send(line, &[BEAT], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        if let Some(systemd) = &mut systemd
            && systemd.every.is_due()
        {
            systemd.tell(watchdog.status().as_deref());
        }
        wait(
            &watchdog.waker,
            &watched,
            of_line.left().into_iter().chain(systemd.as_ref().and_then(|systemd| systemd.every.left())).min(),
        );
    }
}

/// Until an alarm goes off, the thread is woken, or this time is over.
fn wait(waker: &OwnedFd, watched: &[Watched], limit: Option<Duration>) {
    let alarms = watched.iter().filter_map(|one| one.turns.0.alarm.as_ref());
    let sources: Vec<BorrowedFd<'_>> = alarms.chain([waker]).map(OwnedFd::as_fd).collect();
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let _ = poll(&mut fds, limit.as_ref());
    for (fd, _) in sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()) {
        // How often it went off does not matter.
        let _ = rustix::io::read(fd, &mut [0; 8]);
    }
}

/// Something that is done every so often, or never.
struct Every {
    interval: Option<Duration>,
    done: Option<Instant>,
}

impl Every {
    fn new(interval: Option<Duration>) -> Self {
        Self { interval, done: None }
    }

    /// How long until it is to be done.
    fn left(&self) -> Option<Duration> {
        let since = self.done.map_or(Duration::MAX, |done| done.elapsed());
        self.interval.map(|interval| interval.saturating_sub(since))
    }

    /// Whether it is to be done now; then it counts as done.
    fn is_due(&mut self) -> bool {
        let is_due = self.left() == Some(Duration::ZERO);
        if is_due {
            self.done = Some(Instant::now());
        }
        is_due
    }
}

/// How often a loop is looked at that works and may make no headway for this long.
fn look_interval(limit: Duration) -> Duration {
    (limit / LOOKS_WITHIN_LIMIT).clamp(INTERVAL, RELAXED_INTERVAL)
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
        // While it rests nothing hangs. Before its first turn it has no thread to look at.
        if turns.is_multiple_of(2) {
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

/// systemd, where it wants to be told that the program lives (`WatchdogSec=`).
struct Systemd {
    /// The name of its socket.
    socket: OsString,
    /// How often it is told.
    every: Every,
    fails: bool,
}

impl Systemd {
    fn of_environment() -> Option<Self> {
        let interval = sd_notify::watchdog_enabled()? / TOLD_WITHIN_LIMIT;
        Some(Self {
            socket: std::env::var_os("NOTIFY_SOCKET")?,
            every: Every::new(Some(interval)),
            fails: false,
        })
    }

    /// Tells it. That this fails is said once.
    fn tell(&mut self, status: Option<&str>) {
        let status = status.map(|status| format!("STATUS={status}\n")).unwrap_or_default();
        let told = say_to(&self.socket, &[WATCHDOG, status.as_bytes()].concat());
        let failed_before = std::mem::replace(&mut self.fails, told.is_err());
        if let (Err(error), false) = (told, failed_before) {
            tracing::warn!(%error, "systemd can't be told that the agent lives: {error}");
        }
    }
}

/// Sends a word to a socket of sd_notify(3). It waits for nothing: where systemd itself hangs, its socket is full after some
/// words, and this thread has to look at loops all the same.
fn say_to(socket: &OsStr, word: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    from.set_nonblocking(true)?;
    from.send_to_addr(word, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

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
        let turns = Turns::new("test", LIMIT, None);
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
    fn systemd_that_takes_no_word_in_makes_the_watchdog_wait_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("heirlock-{:08x}", fastrand::u32(..));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, at) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            say_to(&at, WATCHDOG).unwrap();
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"WATCHDOG=1\n");
            // It reads no more: after some words there is no room for another (net.unix.max_dgram_qlen).
            let (said, fills) = channel();
            let filled = thread::spawn(move || {
                let mut words = (0..1_000_000).map(|_| say_to(&at, WATCHDOG));
                said.send(words.find_map(Result::err).map(|error| error.kind())).unwrap();
            });
            let why = fills.recv_timeout(Duration::from_secs(60)).expect("it waits for systemd");
            assert_eq!(why, Some(io::ErrorKind::WouldBlock));
            filled.join().unwrap();
        }
    }

    #[test]
    fn a_systemd_that_can_not_be_told_is_told_again_only_after_a_part_of_its_limit() {
        let every = Every::new(Some(Duration::from_secs(600)));
        let mut systemd = Systemd { socket: "/no/such/socket".into(), every, fails: false };
        assert!(systemd.every.is_due());
        systemd.tell(None);
        assert!(systemd.fails && !systemd.every.is_due());
    }

    #[test]
    fn a_loop_is_looked_at_the_more_often_the_shorter_its_limit() {
        let of = |seconds| look_interval(Duration::from_secs(seconds));
        assert_eq!((of(180), of(10)), (RELAXED_INTERVAL, RELAXED_INTERVAL));
        assert_eq!((of(2), of(1), of(5)), (INTERVAL, INTERVAL, INTERVAL * 5 / 2));
    }

    #[test]
    fn a_loop_that_rests_for_ever_does_not_hang_and_sets_off_no_alarm() {
        let watchdog = Watchdog::new().unwrap();
        let turns = watchdog.follow("test", LIMIT).unwrap();
        let mut watched = [Watched::new(turns.clone())];
        // The word that there is one more loop.
        wait(&watchdog.waker, &watched, None);
        let went_off = |watched: &[Watched]| {
            let alarm = watched[0].turns.0.alarm.as_ref().unwrap();
            let mut fds = [PollFd::new(alarm, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
        };
        turns.turn();
        // It works: the thread that looks on is woken although nothing else happens.
        for _ in 0..3 {
            wait(&watchdog.waker, &watched, None);
        }
        turns.rest();
        assert!(!went_off(&watched) && !hangs_within(&mut watched[0], 20));
        thread::sleep(look_interval(LIMIT) * 2);
        assert!(!went_off(&watched), "it rests");
        turns.turn();
        thread::sleep(look_interval(LIMIT) * 2);
        assert!(went_off(&watched), "it works again");
    }

    #[test]
    fn a_thread_that_was_to_live_and_ended_is_named_with_why_and_one_that_may_end_is_not() {
        let watchdog = Watchdog::new().unwrap();
        let (go, gone) = channel::<()>();
        let lives = move || gone.recv().map_err(io::Error::other);
        watchdog.keep(Some(threads::lasting("lives", lives).unwrap()));
        watchdog.keep(Some(threads::lasting("may-end", || Ok(())).unwrap()));
        watchdog.keep(Some(threads::lasting("fails", || Err(io::Error::other("no socket"))).unwrap()));
        watchdog.keep(Some(threads::lasting("panics", || panic!("a fault")).unwrap()));
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
