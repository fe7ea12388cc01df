//! `heirlock supervise`: a small parent that holds the status monitor's sockets and starts the agent again when it ends,
//! where no systemd does. However the agent dies, its sockets stay open and registered, and the requests that wait in
//! them are answered by the next one. SIGHUP starts the agent anew, from a program that may have been replaced.
//!
//! An agent that hangs is as bad as one that is dead, and worse for lockd, which waits a minute for it in its only thread. The
//! agent's watchdog says over a private line that it lives; where it says nothing, though it could, the agent is killed. The
//! supervisor waits for its word, and looks at an agent that is silent.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use heirlock_core::Moment;
use heirlock_core::hang::{Doing, Verdict, Watch};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::host::doing;
use crate::monitor::sockets::{HANDED_OVER, Sockets};
use crate::threads::{self, Lasting};
use crate::watchdog::{BEAT, BEAT_INTERVAL, INTERVAL, LINE};

/// How long an agent that ends again and again is left dead: long enough to read its log, and no longer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An agent that lived for so long was a good one: the next is started at once.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// How long an agent may take to stop in order.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an agent may say nothing, as `heirlock_core::hang` counts: its watchdog waits for nothing.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long its next word is waited for before the agent is looked at: a word may be a little late.
const WORD_TIME_MAX: Duration = BEAT_INTERVAL.saturating_add(Duration::from_millis(100));

/// The word by which glibc is told, at the start of a program, how many heaps its threads share. By default each has its own, and no other
/// thread uses what it leaves there: with very many clients that is as much again as all that the agent holds.
const HEAPS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Bytes of the agent's line that are read at a time.
const LINE_BYTES: usize = 256;

/// The signals that were heard.
struct Signalled {
    heard: Receiver<i32>,
    /// Readable while there may be one that was not taken in.
    waker: Arc<OwnedFd>,
}

/// The parent.
struct Supervisor {
    program: PathBuf,
    arguments: Vec<OsString>,
    sockets: Option<Sockets>,
    /// The thread that hears signals.
    signals: Lasting,
    agent: Option<Agent>,
    began: Instant,
    due: Instant,
    pause: Duration,
}

/// An agent, from its start to its end.
struct Agent {
    child: Child,
    started: Instant,
    /// It says here that it lives.
    line: UnixStream,
    /// It has said so. One of an earlier version never does, and one that has not yet is judged only where it is stopped.
    speaks: bool,
    watch: Watch,
    /// It has said so since it was last looked at, or was never looked at.
    has_word: bool,
    /// It has not closed its end of the line, as it does when it ends.
    line_is_open: bool,
}

/// Holds the sockets and keeps an agent running until it is told to stop.
///
/// # Errors
/// Where the sockets can't be had or signals can't be waited for.
pub(crate) fn run(settings: &Settings, config: &Path, log: &str) -> Result<()> {
    let sockets = match settings.capture.mode.properties().is_status_monitor {
        true => {
            Some(Sockets::open(settings.capture.port).context("can't have the status monitor's sockets")?)
        }
        false => None,
    };
    let (signals, signalled) = hear_signals()?;
    let arguments = ["--config".into(), config.into(), "agent".into(), "--log".into(), log.into()];
    let mut supervisor = Supervisor {
        // By its path: what is found there after an upgrade is the new one.
        program: std::env::current_exe().context("can't tell where this program lies")?,
        arguments: arguments.into(),
        sockets,
        signals,
        agent: None,
        began: Instant::now(),
        due: Instant::now(),
        pause: Duration::ZERO,
    };
    supervisor.keep_running(&signalled)
}

fn hear_signals() -> Result<(Lasting, Signalled)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD]).context("can't wait for signals")?;
    let (sender, signalled) = Signalled::new()?;
    let waker = Arc::clone(&signalled.waker);
    let thread = threads::lasting("signals", move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return Ok(());
            }
            wake(&waker);
        }
        Err(io::Error::other("no signal can be heard any more"))
    })?;
    let waker = Arc::clone(&signalled.waker);
    thread.on_end(move || wake(&waker));
    Ok((thread, signalled))
}

fn wake(waker: &OwnedFd) {
    // A waker that is full wakes all the same.
    let _ = rustix::io::write(waker, &1_u64.to_le_bytes());
}

impl Signalled {
    fn new() -> io::Result<(Sender<i32>, Self)> {
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, heard) = channel();
        Ok((sender, Self { heard, waker }))
    }

    /// Until a signal comes, the agent says or ends something over its line, or this time is over.
    fn wait(&self, agent: Option<&Agent>, limit: Duration) {
        let line = agent.filter(|agent| agent.line_is_open).map(|agent| agent.line.as_fd());
        let sources: Vec<_> = [self.waker.as_fd()].into_iter().chain(line).collect();
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let limit = Timespec::try_from(limit).ok();
        let _ = poll(&mut fds, limit.as_ref());
        let _ = rustix::io::read(&self.waker, &mut [0; 8]);
    }
}

impl Supervisor {
    fn keep_running(&mut self, signalled: &Signalled) -> Result<()> {
        loop {
            if self.agent.is_none() && Instant::now() >= self.due {
                self.start();
            }
            if self.signals.has_ended() {
                self.stop()?;
                bail!(
                    "expected a thread that hears signals as long as the supervisor runs, found that it has ended; start the supervisor again"
                );
            }
            signalled.wait(self.agent.as_ref(), self.patience());
            while let Ok(signal) = signalled.heard.try_recv() {
                match signal {
                    SIGCHLD => {}
                    SIGHUP => {
                        tracing::info!("the agent is started anew");
                        self.pause = Duration::ZERO;
                        if let Some(agent) = &self.agent {
                            agent.signal(Signal::TERM);
                        }
                    }
                    _ => return self.stop(),
                }
            }
            // Also where no signal was heard: its line ends with it.
            self.look_after();
            self.judge();
        }
    }

    /// How long nothing is to be done without news: an agent that is silent is looked at often.
    fn patience(&self) -> Duration {
        match &self.agent {
            None => self.due.saturating_duration_since(Instant::now()),
            Some(agent) if agent.has_word => WORD_TIME_MAX,
            Some(_) => INTERVAL,
        }
    }

    /// An agent that says nothing more, though it could, is killed; SIGCHLD brings the next one.
    fn judge(&mut self) {
        let now = Moment::at(self.began.elapsed());
        let Some(agent) = &mut self.agent else { return };
        agent.has_word = agent.has_spoken();
        if agent.has_word {
            agent.speaks = true;
            agent.watch.headway();
        }
        let Some(look) = doing::of_program(agent.child.id()) else { return };
        if !agent.speaks && look.doing != Doing::Stopped {
            return;
        }
        if let Verdict::Hangs(silent) = agent.watch.look(now, look) {
            tracing::error!(silent_ms = silent.as_millis(), doing = ?look.doing, "the agent has done nothing for {} ms, so it hangs: it is killed, and another one started", silent.as_millis());
            agent.watch.headway();
            agent.signal(Signal::KILL);
        }
    }

    fn start(&mut self) {
        match self.try_start() {
            Ok(agent) => {
                tracing::info!(
                    pid = agent.child.id(),
                    "the agent is started as process {}",
                    agent.child.id()
                );
                self.agent = Some(agent);
            }
            Err(error) => {
                tracing::error!(program = %self.program.display(), %error, "the agent {} can't be started: {error}", self.program.display());
                self.put_off();
            }
        }
    }

    fn try_start(&self) -> io::Result<Agent> {
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        let (line, theirs) = UnixStream::pair()?;
        command.args(&self.arguments).env(LINE, "stdin");
        if std::env::var_os(HEAPS.0).is_none() {
            command.env(HEAPS.0, HEAPS.1);
        }
        if let Some(sockets) = &self.sockets {
            // They wait there for the agent: nothing can fail any more once it lives.
            sockets.hand_over(line.as_fd())?;
            command.env(HANDED_OVER, "stdin");
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let watch = Watch::new(SILENCE_MAX, INTERVAL);
        Ok(Agent {
            child: command.spawn()?,
            started,
            line,
            speaks: false,
            watch,
            has_word: false,
            line_is_open: true,
        })
    }

    /// The agent may have ended.
    fn look_after(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let Some(status) = agent.child.try_wait().ok().flatten() else { return };
        tracing::warn!(%status, "the agent ended ({status}); its sockets stay open");
        if agent.started.elapsed() >= GOOD_LIFE {
            self.pause = Duration::ZERO;
        }
        self.agent = None;
        self.put_off();
    }

    fn put_off(&mut self) {
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(Duration::from_millis(50), PAUSE_MAX);
    }

    /// Stops the agent in order. The registrations at rpcbind stay: lockd refuses then, and does not grant unseen.
    fn stop(&mut self) -> Result<()> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        agent.signal(Signal::TERM);
        let end = Instant::now() + STOP_TIME_MAX;
        loop {
            if agent.child.try_wait().context("can't wait for the agent")?.is_some() {
                return Ok(());
            }
            if Instant::now() >= end {
                agent.child.kill().context("can't end the agent")?;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Agent {
    /// Whether it has said since the last time that it lives.
    fn has_spoken(&mut self) -> bool {
        let mut words = [0; LINE_BYTES];
        let mut spoken = false;
        // Between two looks an open line says a byte or two.
        while let Ok((_, count)) = rustix::net::recv(&self.line, &mut words, RecvFlags::DONTWAIT) {
            self.line_is_open = count > 0;
            spoken |= words[..count].contains(&BEAT);
            if count < words.len() {
                break;
            }
        }
        spoken
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself a moment ago.
            let _ = kill_process(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Looks that a hanging agent survives at least.
    const LOOKS: u128 = SILENCE_MAX.as_millis() / INTERVAL.as_millis();

    /// A supervisor, its agent, and the agent's end of the line. Its clock is the number of its looks.
    struct Stage {
        supervisor: Supervisor,
        theirs: UnixStream,
    }

    fn stage(program: &str, argument: &str) -> Stage {
        let (line, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(program).args(["-c", argument]).spawn().unwrap();
        let watch = Watch::new(SILENCE_MAX, INTERVAL);
        let supervisor = Supervisor {
            program: PathBuf::new(),
            arguments: Vec::new(),
            sockets: None,
            signals: threads::lasting("signals", || Ok(())).unwrap(),
            agent: Some(Agent {
                child,
                started: Instant::now(),
                line,
                speaks: false,
                watch,
                has_word: false,
                line_is_open: true,
            }),
            began: Instant::now(),
            due: Instant::now(),
            pause: Duration::ZERO,
        };
        Stage { supervisor, theirs }
    }

    impl Stage {
        fn speak(&mut self) {
            self.theirs.write_all(&[BEAT]).unwrap();
        }

        /// Looks so often, each time an interval later.
        fn look(&mut self, times: u128) {
            for _ in 0..times {
                self.supervisor.began -= INTERVAL;
                self.supervisor.judge();
            }
        }

        fn wait_for(&self, doing: Doing) {
            let end = Instant::now() + Duration::from_secs(60);
            let pid = self.supervisor.agent.as_ref().unwrap().child.id();
            while doing::of_program(pid).is_none_or(|look| look.doing != doing) {
                assert!(Instant::now() < end);
                thread::sleep(Duration::from_millis(5));
            }
        }

        fn signal(&self, signal: Signal) {
            self.supervisor.agent.as_ref().unwrap().signal(signal);
        }

        fn lives(&mut self) -> bool {
            self.supervisor.agent.as_mut().unwrap().child.try_wait().unwrap().is_none()
        }

        /// The signal that ended it, or ends it now.
        fn end(mut self) -> Option<i32> {
            let agent = self.supervisor.agent.as_mut().unwrap();
            agent.signal(Signal::TERM);
            agent.child.wait().unwrap().signal()
        }
    }

    const KILLED: Option<i32> = Some(Signal::KILL.as_raw());

    #[test]
    fn an_agent_is_told_how_many_heaps_to_have_and_an_administrator_may_say_another_number() {
        let set = std::env::var_os(HEAPS.0);
        let Stage { mut supervisor, theirs: _theirs } = stage("sh", "exit");
        (supervisor.program, supervisor.arguments) = ("sleep".into(), vec!["60".into()]);
        let mut agent = supervisor.try_start().unwrap();
        // The kernel shows nothing while the program is being loaded.
        let environment = format!("/proc/{}/environ", agent.child.id());
        let told = loop {
            let told = fs::read(&environment).unwrap();
            if !told.is_empty() {
                break told;
            }
            thread::yield_now();
        };
        agent.child.kill().unwrap();
        agent.child.wait().unwrap();
        let number = set.map_or_else(|| HEAPS.1.to_owned(), |set| set.into_string().unwrap());
        let expected = format!("{}={number}", HEAPS.0).into_bytes();
        assert!(told.split(|byte| *byte == 0).any(|word| word == expected));
    }

    #[test]
    fn an_agent_that_falls_silent_is_killed_and_an_agent_that_speaks_is_not() {
        let mut stage = stage("sh", "exec sleep 60");
        stage.wait_for(Doing::Sleeps);
        stage.speak();
        stage.look(LOOKS);
        for _ in 0..20 {
            stage.speak();
            stage.look(LOOKS);
        }
        assert!(stage.lives());
        stage.look(3);
        assert_eq!(stage.end(), KILLED);
    }

    #[test]
    fn an_agent_that_is_stopped_is_killed_also_before_it_has_spoken() {
        let mut stage = stage("sh", "exec sleep 60");
        stage.signal(Signal::STOP);
        stage.wait_for(Doing::Stopped);
        stage.look(LOOKS + 3);
        assert_eq!(stage.end(), KILLED);
    }

    #[test]
    fn an_agent_that_ended_is_noticed_without_a_signal_and_a_thread_that_ended_ends_the_supervisor() {
        let Stage { mut supervisor, theirs } = stage("sh", "exit 0");
        // Its end of the line goes with the agent. No program can be started in its place, and no signal is heard.
        drop(theirs);
        let (_signals, signalled) = Signalled::new().unwrap();
        let began = Instant::now();
        while supervisor.agent.is_some() {
            assert!(began.elapsed() < Duration::from_secs(60), "its end was not noticed");
            signalled.wait(supervisor.agent.as_ref(), supervisor.patience());
            supervisor.look_after();
            supervisor.judge();
        }
        let waker = Arc::clone(&signalled.waker);
        supervisor.signals = threads::lasting("signals", || Err(io::Error::other("a fault"))).unwrap();
        supervisor.signals.on_end(move || wake(&waker));
        supervisor.due = Instant::now() + Duration::from_secs(3_600);
        let why = supervisor.keep_running(&signalled).unwrap_err().to_string();
        assert!(why.contains("that it has ended"), "{why}");
    }

    #[test]
    fn one_that_speaks_is_waited_for_and_one_that_falls_silent_is_looked_at_often() {
        let mut stage = stage("sh", "exec sleep 60");
        stage.wait_for(Doing::Sleeps);
        let (_signals, signalled) = Signalled::new().unwrap();
        stage.speak();
        stage.supervisor.judge();
        assert_eq!(stage.supervisor.patience(), WORD_TIME_MAX);
        assert!(WORD_TIME_MAX > BEAT_INTERVAL && WORD_TIME_MAX < SILENCE_MAX);
        // Its next word is heard at once.
        stage.speak();
        signalled.wait(stage.supervisor.agent.as_ref(), Duration::from_secs(3_600));
        stage.supervisor.judge();
        assert_eq!(stage.supervisor.patience(), WORD_TIME_MAX);
        stage.supervisor.judge();
        assert_eq!(stage.supervisor.patience(), INTERVAL, "it has said nothing");
        stage.end();
    }

    #[test]
    fn an_agent_that_works_or_never_spoke_is_not_killed_however_long_it_is_silent() {
        let mut stage = stage("sh", "while :; do :; done");
        stage.wait_for(Doing::Runs);
        stage.speak();
        stage.look(LOOKS * 100);
        assert!(stage.lives());
        stage.end();
        // As one of an earlier version, or one that is starting.
        let mut stage = self::stage("sh", "exec sleep 60");
        stage.wait_for(Doing::Sleeps);
        stage.look(LOOKS * 100);
        assert!(stage.lives());
        stage.end();
    }
}
