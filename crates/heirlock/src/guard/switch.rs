//! `enable` and `disable`: puts a host under guard and gives it back.
//!
//! Everything that is changed is remembered first ([`Memory`]), everything is checked before the first change, and a file
//! that somebody else changed since is never touched.

mod disable;
mod enable;
mod mode;
mod nfs_conf_file;
mod place;
mod writable;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::host::{Host, Unit};
use super::memory::{self, Before, Memory};
use super::rivals;
use crate::config::{Command, Settings};
use crate::files::trusted;
use crate::hooks::{self, CommandError};
use crate::limits;
use crate::store::StoreError;

pub(super) use disable::disable;
pub(super) use enable::enable;

/// Our unit.
pub(super) const UNIT: &str = "heirlock.service";
const UNIT_FILE: &str = "/etc/systemd/system/heirlock.service";
const UNIT_TEXT: &str = include_str!("../../../../dist/systemd/heirlock.service");

/// It holds the status monitor's sockets while the agent is restarted (`capture.mode = "nsm"`).
pub(super) const SOCKET: &str = "heirlock.socket";
const SOCKET_FILE: &str = "/etc/systemd/system/heirlock.socket";
const SOCKET_TEXT: &str = include_str!("../../../../dist/systemd/heirlock.socket");

/// The port that the shipped unit names, as its lines end.
const SOCKET_PORT: &str = ":662\n";

/// The program, as the shipped unit names it.
const PROGRAM: &str = "/usr/bin/heirlock";

const TMPFILES_FILE: &str = "/etc/tmpfiles.d/heirlock.conf";
const TMPFILES_TEXT: &str = include_str!("../../../../dist/tmpfiles/heirlock.conf");

/// One thing that was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Step {
    /// What.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) outcome: StepOutcome,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StepOutcome {
    /// It was done.
    Done,
    /// It would be done.
    Planned,
    /// It was so already.
    AlreadySo,
    /// It was left as it is, on purpose; the step says why.
    Left,
}

/// Why a host can't be put under guard or given back.
#[derive(Debug, Error)]
pub(crate) enum GuardError {
    /// Somebody changed what we wrote; nothing was touched.
    #[error(
        "{paths}: changed since heirlock wrote it, so nothing was touched; save what you need, remove the file, then repeat"
    )]
    Changed {
        /// which, apart by commas
        paths: String,
    },
    /// It would contradict what is here; nothing was touched.
    #[error("{what}")]
    Refused {
        /// what was found, and what to do
        what: String,
    },
    /// It ended in the middle.
    #[error("{source}\ndone before that: {done}; {next}")]
    Partly {
        /// the steps that were done
        done: String,
        /// what to type
        next: &'static str,
        /// why it could not go on
        #[source]
        source: Box<GuardError>,
    },
    /// A file can't be read or written.
    #[error("can't {action} {path}: {source}; {}", remedy(.source))]
    Io {
        /// read, write, remove, …
        action: &'static str,
        /// which
        path: String,
        /// why
        #[source]
        source: io::Error,
    },
    /// The store can't be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// systemd refuses.
    #[error("{0}; what was done until then is remembered: mend the unit, then repeat")]
    Systemctl(#[from] CommandError),
}

/// A file of ours.
struct OurFile {
    path: PathBuf,
    text: String,
    /// It is added to a file of somebody else's, at its end, and taken out of it again.
    is_block: bool,
    /// Its existence is all that counts: one that is there already is as good as ours.
    mere_presence: bool,
}

/// One run of `enable` or `disable`.
struct Run<'a> {
    host: &'a Host,
    settings: &'a Settings,
    plan: bool,
    memory: Memory,
    steps: Vec<Step>,
}

impl Run<'_> {
    fn memory_path(host: &Host, settings: &Settings) -> PathBuf {
        host.at(settings.local_directory.join(memory::FILE))
    }

    fn say(&mut self, outcome: StepOutcome, what: impl Into<String>) {
        self.steps.push(Step { what: what.into(), outcome });
    }

    /// Does something, unless it is only asked for.
    fn act(
        &mut self,
        what: impl Into<String>,
        action: impl FnOnce(&mut Self) -> Result<(), GuardError>,
    ) -> Result<(), GuardError> {
        if self.plan {
            self.say(StepOutcome::Planned, what);
            return Ok(());
        }
        action(self)?;
        self.say(StepOutcome::Done, what);
        Ok(())
    }

    /// The steps; where it ended in the middle, the error names those that were done.
    fn told(self, ended: Result<(), GuardError>, next: &'static str) -> Result<Vec<Step>, GuardError> {
        let Err(source) = ended else { return Ok(self.steps) };
        let done = self.steps.iter().filter(|step| step.outcome == StepOutcome::Done);
        let done: Vec<&str> = done.map(|step| step.what.as_str()).collect();
        if done.is_empty() {
            return Err(source);
        }
        Err(GuardError::Partly { done: done.join("; "), next, source: Box::new(source) })
    }

    fn remember(&self) -> Result<(), GuardError> {
        let path = Self::memory_path(self.host, self.settings);
        self.memory.save(&path).map_err(failed("write", &path))
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), GuardError> {
        let Some(program) = &self.host.systemctl else { return Ok(()) };
        let argv = std::iter::once(program.display().to_string())
            .chain(arguments.iter().map(|argument| (*argument).to_owned()))
            .collect();
        hooks::run(&Command { argv, time_limit: limits::SYSTEMCTL_TIME_MAX }, &[])?;
        Ok(())
    }

    /// Told by the link that enabling makes.
    fn is_enabled(&self, unit: &str) -> bool {
        let wants = if unit == SOCKET { "sockets.target.wants" } else { "multi-user.target.wants" };
        let link = Path::new("/etc/systemd/system").join(wants).join(unit);
        trusted::stat_of_link(self.host.at(link)).is_ok()
    }

    /// Refuses to go on where somebody changed a file that we wrote. All of them are named.
    fn check_unchanged(&self) -> Result<(), GuardError> {
        let mut changed = Vec::new();
        for (path, remembered) in &self.memory.files {
            let now = Before::look(self.host, path).map_err(failed("read", path))?;
            let Some(now) = now else { continue };
            let known = remembered.ours.contains(&now.content)
                || remembered.before.as_ref().is_some_and(|before| before.content == now.content)
                || remembered
                    .block
                    .as_ref()
                    .is_some_and(|block| nfs_conf_file::is_whole(&now.content, block));
            // Whoever made the guard file, and whatever is in it: it does its work.
            if !known && path != Path::new(rivals::GUARD_FILE) {
                changed.push(path.display().to_string());
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(GuardError::Changed { paths: changed.join(", ") }) }
    }
}

/// The files that put this host under guard.
fn our_files(host: &Host, settings: &Settings) -> Vec<OurFile> {
    let whole =
        |path: &str, text: String| OurFile { path: path.into(), text, is_block: false, mere_presence: false };
    let mut files = vec![
        nfs_conf_file::ours(host, settings),
        whole(TMPFILES_FILE, TMPFILES_TEXT.into()),
        OurFile { mere_presence: true, ..whole(rivals::GUARD_FILE, String::new()) },
    ];
    // A package brings its own units.
    // A link in the place of ours is an administrator's, or leads to where the host's configuration was made (NixOS).
    let is_link = |file: &str| trusted::read_link(host.at(file)).is_ok();
    let packaged =
        |unit, file| matches!(host.unit(unit), Unit::Present(at) if at != Path::new(file) || is_link(file));
    if host.systemctl.is_some() && !packaged(UNIT, UNIT_FILE) {
        let text = UNIT_TEXT.replace(PROGRAM, &host.program.display().to_string());
        files.push(whole(UNIT_FILE, text));
    }
    let nsm = settings.capture.mode.properties().is_status_monitor;
    if nsm && host.systemctl.is_some() && !packaged(SOCKET, SOCKET_FILE) {
        files.push(whole(SOCKET_FILE, socket_unit(host, settings)));
    }
    files
}

/// systemd opens all of a unit's sockets or none, so what this kernel doesn't have must not be in it.
fn socket_unit(host: &Host, settings: &Settings) -> String {
    let has_v6 = host.text("/proc/net/if_inet6").is_some();
    let lines = SOCKET_TEXT.lines().filter(|line| has_v6 || !line.contains("=[::]:"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    match settings.capture.port {
        0 => text,
        port => text.replace(SOCKET_PORT, &format!(":{port}\n")),
    }
}

/// See [`crate::guard::renew`].
pub(super) fn renew(host: &Host, settings: &Settings) -> Result<bool, GuardError> {
    let path = Run::memory_path(host, settings);
    let guarded = Memory::load(&path).map_err(failed("read", &path))?.is_some();
    let at = host.at(rivals::GUARD_FILE);
    if !guarded || at.exists() {
        return Ok(false);
    }
    memory::write(&at, b"", 0o644).map_err(failed("write", &at))?;
    Ok(true)
}

fn boot(host: &Host) -> String {
    host.text("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root",
        _ => "what was done until then is remembered: mend it, then repeat",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GuardError + use<> {
    let path = path.display().to_string();
    move |source| GuardError::Io { action, path, source }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            StepOutcome::Done => "done",
            StepOutcome::Planned => "would",
            StepOutcome::AlreadySo => "already so",
            StepOutcome::Left => "left",
        };
        write!(f, "{outcome:<10} {}", self.what)
    }
}

#[cfg(test)]
mod tests;
