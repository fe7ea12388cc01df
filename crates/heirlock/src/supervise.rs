//! `heirlock supervise`: a small parent that holds the status monitor's sockets and starts the agent again when it ends,
//! where no systemd does. However the agent dies, its sockets stay open and registered, and the requests that wait in
//! them are answered by the next one. SIGHUP starts the agent anew, from a program that may have been replaced.
//!
//! An agent that hangs is as bad as one that is dead, and worse for lockd, which waits a minute for it in its only thread. The
//! agent's watchdog says over a private line that it lives; where it says nothing, though it could, the agent is killed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use heirlock_core::Moment;
use heirlock_core::hang::{Doing, Verdict, Watch};
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::Settings;
use crate::host::doing;
use crate::monitor::sockets::{HANDED_OVER, Sockets};
use crate::threads::{self, Lasting};
use crate::watchdog::{BEAT, INTERVAL, LINE};

/// How long an agent that ends again and again is left dead: long enough to read its log, and no longer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An agent that lived for so long was a good one: the next is started at once.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// How long an agent may take to stop in order.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an agent may say nothing, as `heirlock_core::hang` counts: its watchdog waits for nothing.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Bytes of the agent's line that are read at a time.
const LINE_BYTES: usize = 256;

/// The parent's news of the agent.
enum Heard {
    /// A signal.
    Signal(i32),
    /// It is time to look at the agent.
    Look,
}

/// The parent.
struct Supervisor {
    program: PathBuf,
    arguments: Vec<OsString>,
    sockets: Option<Sockets>,
    /// The threads that it hears from.
    threads: Vec<Lasting>,
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
    let (sender, heard) = channel();
    let threads = vec![hear_signals(sender.clone())?, look_all_the_time(sender)?];
    let arguments = ["--config".into(), config.into(), "agent".into(), "--log".into(), log.into()];
    let mut supervisor = Supervisor {
        // By its path: what is found there after an upgrade is the new one.
        program: std::env::current_exe().context("can't tell where this program lies")?,
        arguments: arguments.into(),
        sockets,
        threads,
        agent: None,
        began: Instant::now(),
        due: Instant::now(),
        pause: Duration::ZERO,
    };
    supervisor.keep_running(&heard)
}

fn hear_signals(sender: Sender<Heard>) -> Result<Lasting> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD]).context("can't wait for signals")?;
    let thread = threads::start("signals", move || {
        for signal in signals.forever() {
            if sender.send(Heard::Signal(signal)).is_err() {
                return Ok(());
            }
        }
        Err(io::Error::other("no signal can be heard any more"))
    })?;
    Ok(thread)
}

fn look_all_the_time(sender: Sender<Heard>) -> Result<Lasting> {
    let thread = threads::start("look", move || {
        while sender.send(Heard::Look).is_ok() {
            thread::sleep(INTERVAL);
        }
        Ok(())
    })?;
    Ok(thread)
}

impl Supervisor {
    fn keep_running(&mut self, heard: &Receiver<Heard>) -> Result<()> {
        loop {
            if self.agent.is_none() && Instant::now() >= self.due {
                self.start();
            }
            if self.threads.iter().any(JoinHandle::is_finished) {
                self.stop()?;
                bail!(
                    "expected threads that hear signals and look at the agent as long as the supervisor runs, found one that has ended; start the supervisor again"
                );
            }
            let until_start = || self.due.saturating_duration_since(Instant::now());
            let patience = self.agent.as_ref().map_or_else(until_start, |_| SILENCE_MAX);
            let Ok(heard) = heard.recv_timeout(patience) else { continue };
            match heard {
                // The agent may also have ended without a signal that was heard.
                Heard::Look => {
                    self.look_after();
                    self.judge();
                }
                Heard::Signal(SIGCHLD) => self.look_after(),
                Heard::Signal(SIGHUP) => {
                    tracing::info!("the agent is started anew");
                    self.pause = Duration::ZERO;
                    if let Some(agent) = &self.agent {
                        agent.signal(Signal::TERM);
                    }
                }
                Heard::Signal(_) => return self.stop(),
            }
        }
    }

    /// An agent that says nothing more, though it could, is killed; SIGCHLD brings the next one.
    fn judge(&mut self) {
        let now = Moment::at(self.began.elapsed());
        let Some(agent) = &mut self.agent else { return };
        if agent.has_spoken() {
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
        if let Some(sockets) = &self.sockets {
            // They wait there for the agent: nothing can fail any more once it lives.
            sockets.hand_over(line.as_fd())?;
            command.env(HANDED_OVER, "stdin");
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let watch = Watch::new(SILENCE_MAX, INTERVAL);
        Ok(Agent { child: command.spawn()?, started, line, speaks: false, watch })
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
    fn has_spoken(&self) -> bool {
        let mut words = [0; LINE_BYTES];
        let mut spoken = false;
        // A line that is closed says nothing. Between two looks an open one says a byte or two.
        while let Ok((_, count @ 1..)) = rustix::net::recv(&self.line, &mut words, RecvFlags::DONTWAIT) {
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
            threads: Vec::new(),
            agent: Some(Agent { child, started: Instant::now(), line, speaks: false, watch }),
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
        let mut stage = stage("sh", "exit 0");
        let (sender, heard) = channel();
        stage.supervisor.threads.push(look_all_the_time(sender).unwrap());
        let began = Instant::now();
        let ends = threads::start("signals", || Err(io::Error::other("a fault"))).unwrap();
        while !ends.is_finished() {
            thread::sleep(Duration::from_millis(2));
        }
        // No program can be started in its place.
        while stage.supervisor.agent.is_some() {
            assert!(began.elapsed() < Duration::from_secs(60), "its end was not noticed");
            let Ok(Heard::Look) = heard.recv() else { panic!("nothing else was heard") };
            stage.supervisor.look_after();
        }
        stage.supervisor.threads.push(ends);
        let why = stage.supervisor.keep_running(&heard).unwrap_err().to_string();
        assert!(why.contains("one that has ended"), "{why}");
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
