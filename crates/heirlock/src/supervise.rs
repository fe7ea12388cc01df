//! `heirlock supervise`: a small parent that holds the status monitor's sockets and starts the agent again when it ends,
//! where no systemd does. However the agent dies, its sockets stay open and registered, and the requests that wait in
//! them are answered by the next one. SIGHUP starts the agent anew, from a program that may have been replaced. One that
//! hangs is as bad as one that is dead, and worse for lockd, which waits a minute for it in its only thread: it is asked
//! all the time whether it answers, and killed where it does not.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{CaptureMode, Settings};
use crate::monitor;
use crate::monitor::sockets::{HANDED_OVER, Sockets};

/// How long an agent that ends again and again is left dead: long enough to read its log, and no longer.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An agent that lived for so long was a good one: the next is started at once.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// How long an agent may take to stop in order.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an agent that reads its sockets may be silent. Its thread that answers waits for nothing, so it is long; a machine
/// that is too busy for it gets more each time.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long an agent may take until it reads its sockets: it reads all records of its services before.
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// What [`SILENCE_MAX`] may come to.
const SILENCE_LIMIT: Duration = Duration::from_secs(16);

/// Between two questions.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// What the parent hears.
enum Heard {
    /// A signal.
    Signal(i32),
    /// Whether the agent answered a question that was put at that time.
    Answered(Instant, bool),
}

/// The parent.
struct Supervisor {
    program: PathBuf,
    arguments: Vec<OsString>,
    sockets: Option<Sockets>,
    agent: Option<Agent>,
    due: Instant,
    pause: Duration,
    silence_max: Duration,
}

/// An agent, from its start to its end.
struct Agent {
    child: Child,
    started: Instant,
    /// It says here that it begins to read its sockets.
    says: Option<UnixStream>,
    /// It does: one that is just starting is given its time.
    begun: bool,
    /// Since when it has not answered.
    silent: Option<Instant>,
}

/// Holds the sockets and keeps an agent running until it is told to stop.
///
/// # Errors
/// Where the sockets can't be had or signals can't be waited for.
pub(crate) fn run(settings: &Settings, config: &Path, log: &str) -> Result<()> {
    let sockets = match settings.capture.mode {
        CaptureMode::Nsm => {
            Some(Sockets::open(settings.capture.port).context("can't have the status monitor's sockets")?)
        }
        CaptureMode::Watch | CaptureMode::Callout => None,
    };
    let (sender, heard) = channel();
    hear_signals(sender.clone())?;
    if let Some(sockets) = &sockets {
        ask_all_the_time(sockets.port(), sender);
    }
    let arguments = ["--config".into(), config.into(), "agent".into(), "--log".into(), log.into()];
    let mut supervisor = Supervisor {
        // By its path: what is found there after an upgrade is the new one.
        program: std::env::current_exe().context("can't tell where this program lies")?,
        arguments: arguments.into(),
        sockets,
        agent: None,
        due: Instant::now(),
        pause: Duration::ZERO,
        silence_max: SILENCE_MAX,
    };
    supervisor.keep_running(&heard)
}

fn hear_signals(sender: Sender<Heard>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD]).context("can't wait for signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(Heard::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Asks at the sockets that the agent reads.
fn ask_all_the_time(port: u16, sender: Sender<Heard>) {
    thread::spawn(move || {
        loop {
            let asked = Instant::now();
            let answered = monitor::answers(port, SILENCE_MAX);
            if sender.send(Heard::Answered(asked, answered)).is_err() {
                return;
            }
            thread::sleep(ASK_INTERVAL);
        }
    });
}

impl Supervisor {
    fn keep_running(&mut self, heard: &Receiver<Heard>) -> Result<()> {
        loop {
            if self.agent.is_none() && Instant::now() >= self.due {
                self.start();
            }
            let heard = match self.agent {
                Some(_) => heard.recv().ok(),
                None => match heard.recv_timeout(self.due.saturating_duration_since(Instant::now())) {
                    Ok(heard) => Some(heard),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => None,
                },
            };
            match heard {
                Some(Heard::Answered(asked, answered)) => self.judge(asked, answered),
                Some(Heard::Signal(SIGCHLD)) => self.look_after(),
                Some(Heard::Signal(SIGHUP)) => {
                    tracing::info!("the agent is started anew");
                    self.pause = Duration::ZERO;
                    if let Some(agent) = &self.agent {
                        agent.signal(Signal::TERM);
                    }
                }
                _ => return self.stop(),
            }
        }
    }

    /// An agent that answers no more, or does not begin to, is killed; SIGCHLD brings the next one.
    fn judge(&mut self, asked: Instant, answered: bool) {
        let Some(agent) = &mut self.agent else { return };
        // What was asked of the one before says nothing of this one.
        if asked < agent.started {
            return;
        }
        // Nor does it say much if this one has begun since.
        if answered || (!agent.begun && agent.begins()) {
            (agent.begun, agent.silent) = (true, None);
            return;
        }
        let silent = *agent.silent.get_or_insert(asked);
        let patience = if agent.begun { self.silence_max } else { START_TIME_MAX };
        if silent.elapsed() >= patience {
            tracing::error!(silent = ?silent.elapsed(), "the agent hangs: it is killed, and another one started");
            if agent.begun {
                self.silence_max = (self.silence_max * 2).min(SILENCE_LIMIT);
            }
            (agent.begun, agent.silent) = (false, None);
            agent.signal(Signal::KILL);
        }
    }

    fn start(&mut self) {
        match self.try_start() {
            Ok(agent) => {
                tracing::info!(pid = agent.child.id(), "the agent is started");
                self.agent = Some(agent);
            }
            Err(error) => {
                tracing::error!(program = %self.program.display(), %error, "the agent can't be started");
                self.put_off();
            }
        }
    }

    fn try_start(&self) -> io::Result<Agent> {
        let started = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        let mut says = None;
        if let Some(sockets) = &self.sockets {
            let (ours, theirs) = UnixStream::pair()?;
            // They wait there for the agent: nothing can fail any more once it lives.
            sockets.hand_over(ours.as_fd())?;
            command.env(HANDED_OVER, "stdin").stdin(Stdio::from(OwnedFd::from(theirs)));
            says = Some(ours);
        }
        Ok(Agent { child: command.spawn()?, started, says, begun: false, silent: None })
    }

    /// The agent may have ended.
    fn look_after(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let Some(status) = agent.child.try_wait().ok().flatten() else { return };
        tracing::warn!(%status, "the agent ended; its sockets stay open");
        if agent.started.elapsed() >= GOOD_LIFE {
            (self.pause, self.silence_max) = (Duration::ZERO, SILENCE_MAX);
        }
        self.agent = None;
        self.put_off();
    }

    fn put_off(&mut self) {
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(Duration::from_millis(50), PAUSE_MAX);
    }

    /// Stops the agent in order. What is registered at rpcbind stays: lockd refuses then, and does not grant unseen.
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
    /// Whether it has just said that it reads its sockets. It says so before it reads: who was answered by it may take
    /// it for one that answers.
    fn begins(&self) -> bool {
        let heard = |says| rustix::net::recv(says, &mut [0; 1], RecvFlags::DONTWAIT);
        // A line that is closed says nothing.
        self.says.as_ref().is_some_and(|says| heard(says).is_ok_and(|(_, bytes)| bytes > 0))
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

    /// A supervisor, its agent that has begun or not, and the agent's end of the line.
    fn watch_over(begun: bool, age: Duration) -> (Supervisor, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("sleep").arg("0.3").spawn().unwrap();
        let started = Instant::now().checked_sub(age).unwrap();
        let supervisor = Supervisor {
            program: PathBuf::new(),
            arguments: Vec::new(),
            sockets: None,
            agent: Some(Agent { child, started, says: Some(ours), begun, silent: None }),
            due: Instant::now(),
            pause: Duration::ZERO,
            silence_max: SILENCE_MAX,
        };
        (supervisor, theirs)
    }

    /// What ended it.
    fn end_of(supervisor: Supervisor) -> Option<i32> {
        supervisor.agent.unwrap().child.wait().unwrap().signal()
    }

    fn ago(time: Duration) -> Instant {
        Instant::now().checked_sub(time).unwrap()
    }

    const KILLED: Option<i32> = Some(Signal::KILL.as_raw());

    #[test]
    fn one_that_answers_no_more_is_killed_soon_and_one_that_is_starting_gets_its_time() {
        let end_after = |begun, silent| {
            let (mut supervisor, _theirs) = watch_over(begun, silent * 2);
            supervisor.judge(ago(silent), false);
            end_of(supervisor)
        };
        assert_eq!(end_after(true, SILENCE_MAX / 2), None);
        assert_eq!(end_after(true, SILENCE_MAX), KILLED);
        assert_eq!(end_after(false, START_TIME_MAX / 2), None);
        assert_eq!(end_after(false, START_TIME_MAX), KILLED);
    }

    #[test]
    fn one_that_hangs_as_soon_as_it_has_begun_is_killed_soon_and_not_for_its_time_before() {
        let (mut supervisor, mut theirs) = watch_over(false, START_TIME_MAX);
        supervisor.judge(ago(START_TIME_MAX / 2), false);
        theirs.write_all(b"r").unwrap();
        supervisor.judge(ago(SILENCE_MAX), false);
        assert!(supervisor.agent.as_mut().unwrap().child.try_wait().unwrap().is_none(), "it has only begun");
        supervisor.judge(ago(SILENCE_MAX), false);
        assert_eq!(end_of(supervisor), KILLED);
    }

    #[test]
    fn one_whose_line_is_closed_has_not_begun() {
        let (mut supervisor, theirs) = watch_over(false, START_TIME_MAX);
        drop(theirs);
        supervisor.judge(ago(SILENCE_MAX), false);
        supervisor.judge(ago(SILENCE_MAX), false);
        assert_eq!(end_of(supervisor), None);
    }
}
