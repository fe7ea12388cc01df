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

/// How long an agent that has answered may be silent. Its thread that answers waits for nothing, so it is long; a machine
/// that is too busy for it gets more each time.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long an agent may take to answer for the first time: it reads all records of its services before.
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
    child: Option<Child>,
    started: Instant,
    due: Instant,
    pause: Duration,
    /// This agent has answered: one that is just starting is given its time.
    answered: bool,
    /// Since when it has not.
    silent: Option<Instant>,
    silence_max: Duration,
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
    let now = Instant::now();
    let arguments = ["--config".into(), config.into(), "agent".into(), "--log".into(), log.into()];
    let mut supervisor = Supervisor {
        // By its path: what is found there after an upgrade is the new one.
        program: std::env::current_exe().context("can't tell where this program lies")?,
        arguments: arguments.into(),
        sockets,
        child: None,
        started: now,
        due: now,
        pause: Duration::ZERO,
        answered: false,
        silent: None,
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
            if self.child.is_none() && Instant::now() >= self.due {
                self.start();
            }
            let heard = match self.child {
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
                    self.signal(Signal::TERM);
                }
                _ => return self.stop(),
            }
        }
    }

    /// An agent that answers no more, or does not begin to, is killed; SIGCHLD brings the next one.
    fn judge(&mut self, asked: Instant, answered: bool) {
        // What was asked of the one before says nothing of this one.
        if self.child.is_none() || asked < self.started {
            return;
        }
        if answered {
            (self.answered, self.silent) = (true, None);
            return;
        }
        let silent = *self.silent.get_or_insert(asked);
        let patience = if self.answered { self.silence_max } else { START_TIME_MAX };
        if silent.elapsed() >= patience {
            tracing::error!(silent = ?silent.elapsed(), "the agent hangs: it is killed, and another one started");
            if self.answered {
                self.silence_max = (self.silence_max * 2).min(SILENCE_LIMIT);
            }
            (self.answered, self.silent) = (false, None);
            self.signal(Signal::KILL);
        }
    }

    fn start(&mut self) {
        self.started = Instant::now();
        (self.answered, self.silent) = (false, None);
        match self.try_start() {
            Ok(child) => {
                tracing::info!(pid = child.id(), "the agent is started");
                self.child = Some(child);
            }
            Err(error) => {
                tracing::error!(program = %self.program.display(), %error, "the agent can't be started");
                self.put_off();
            }
        }
    }

    fn try_start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        let Some(sockets) = &self.sockets else { return command.spawn() };
        let (ours, theirs) = UnixStream::pair()?;
        let child = command.env(HANDED_OVER, "stdin").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        sockets.hand_over(ours.as_fd())?;
        Ok(child)
    }

    /// The agent may have ended.
    fn look_after(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        let Some(status) = ended else { return };
        self.child = None;
        tracing::warn!(%status, "the agent ended; its sockets stay open");
        if self.started.elapsed() >= GOOD_LIFE {
            (self.pause, self.silence_max) = (Duration::ZERO, SILENCE_MAX);
        }
        self.put_off();
    }

    fn put_off(&mut self) {
        self.due = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(Duration::from_millis(50), PAUSE_MAX);
    }

    fn signal(&self, signal: Signal) {
        let pid =
            self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops the agent in order. What is registered at rpcbind stays: lockd refuses then, and does not grant unseen.
    fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let end = Instant::now() + STOP_TIME_MAX;
        loop {
            if child.try_wait().context("can't wait for the agent")?.is_some() {
                return Ok(());
            }
            if Instant::now() >= end {
                child.kill().context("can't end the agent")?;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// What ended an agent that has been silent for so long.
    fn end_of(answered: bool, silent: Duration) -> Option<i32> {
        let child = Command::new("sleep").arg("0.3").spawn().unwrap();
        let now = Instant::now();
        let mut supervisor = Supervisor {
            program: PathBuf::new(),
            arguments: Vec::new(),
            sockets: None,
            child: Some(child),
            started: now.checked_sub(silent * 2).unwrap(),
            due: now,
            pause: Duration::ZERO,
            answered,
            silent: None,
            silence_max: SILENCE_MAX,
        };
        supervisor.judge(now.checked_sub(silent).unwrap(), false);
        supervisor.child.unwrap().wait().unwrap().signal()
    }

    #[test]
    fn one_that_answers_no_more_is_killed_soon_and_one_that_is_starting_gets_its_time() {
        let killed = Some(Signal::KILL.as_raw());
        assert_eq!(end_of(true, SILENCE_MAX / 2), None);
        assert_eq!(end_of(true, SILENCE_MAX), killed);
        assert_eq!(end_of(false, START_TIME_MAX / 2), None);
        assert_eq!(end_of(false, START_TIME_MAX), killed);
    }
}
