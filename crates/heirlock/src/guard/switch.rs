//! `enable` and `disable`: puts a host under guard and gives it back.
//!
//! Everything that is changed is remembered first ([`Memory`]), everything is checked before the first change, and a file that
//! an administrator or another program changed since is never touched.

mod callout;
mod disable;
mod enable;
mod further;
mod idle;
mod mode;
mod nfs_conf_file;
mod nsm;
mod place;
mod watch;
mod writable;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::memory::{self, Before, Memory};
use super::rivals;
use crate::config::{Command, ForEach, Settings};
use crate::files::trusted;
use crate::hooks::{self, CommandError};
use crate::host::{Host, Unit};
use crate::limits;
use crate::store::StoreError;
use callout::Callout;
use mode::ModeOnHost;
use nsm::Nsm;
use watch::Watch;

pub(super) use disable::disable;
pub(super) use enable::enable;

/// Our unit.
const UNIT: &str = "heirlock.service";

/// It says a drill each week, where a person has turned it on.
const DRILLS: &str = "heirlock-drill.timer";

const UNIT_FILE: &str = "/etc/systemd/system/heirlock.service";
const UNIT_TEXT: &str = include_str!("../../../../dist/systemd/heirlock.service");

/// The program, as the shipped unit names it.
const PROGRAM: &str = "/usr/bin/heirlock";

const TMPFILES_FILE: &str = "/etc/tmpfiles.d/heirlock.conf";
const TMPFILES_TEXT: &str = include_str!("../../../../dist/tmpfiles/heirlock.conf");

/// One thing that was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Step {
    /// The change.
    pub(crate) what: String,
    /// Its result.
    pub(crate) outcome: StepOutcome,
}

/// The result of a step.
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
    /// A file that heirlock wrote was changed since; nothing was touched.
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
    #[error("{0}; changes until then are remembered: mend the unit, then repeat")]
    Systemctl(#[from] CommandError),
}

/// A file of ours.
struct OurFile {
    path: PathBuf,
    text: String,
    /// It is added to a file that heirlock did not make, at its end, and taken out of it again.
    is_block: bool,
    /// Its existence is all that counts: one that is there already is as good as ours.
    mere_presence: bool,
}

impl OurFile {
    fn whole(path: &str, text: String) -> Self {
        Self { path: path.into(), text, is_block: false, mere_presence: false }
    }
}

const MODES: ForEach<&dyn ModeOnHost> = ForEach { watch: &Watch, callout: &Callout, nsm: &Nsm };

/// The mode that is configured.
fn mode_of(settings: &Settings) -> &'static dyn ModeOnHost {
    settings.capture.mode.choose(MODES)
}

/// Every mode, for the memory may have something of each. The mode that takes the most is given back first.
fn all_modes() -> impl Iterator<Item = &'static dyn ModeOnHost> {
    MODES.all().into_iter().rev()
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

    fn mode(&self) -> &'static dyn ModeOnHost {
        mode_of(self.settings)
    }

    /// Gives back what another mode needed and this one doesn't.
    fn leave_other_modes(&mut self) -> Result<(), GuardError> {
        let others = self.settings.capture.mode.others(MODES);
        others.into_iter().rev().try_for_each(|mode| mode.leave_for_another(self))
    }

    fn stop(&mut self, unit: &str) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() {
            return Ok(());
        }
        self.act(format!("stop {unit}"), |run| run.systemctl(&["stop", unit]))
    }

    fn give_back_file(&mut self, path: &Path) -> Result<(), GuardError> {
        let Some(remembered) = self.memory.files.get(path).cloned() else { return Ok(()) };
        self.give_back(path, &remembered)?;
        if self.plan {
            return Ok(());
        }
        self.memory.files.remove(path);
        self.remember()
    }

    fn is_known(&self, unit: &str) -> bool {
        self.is_enabled(unit) || self.host.unit(unit) != Unit::Absent
    }

    /// Told by the link that enabling makes.
    fn is_enabled(&self, unit: &str) -> bool {
        let wants = match unit.rsplit_once('.') {
            Some((_, "socket")) => "sockets.target.wants",
            Some((_, "timer")) => "timers.target.wants",
            _ => "multi-user.target.wants",
        };
        let link = Path::new("/etc/systemd/system").join(wants).join(unit);
        trusted::stat_of_link(self.host.at(link)).is_ok()
    }

    /// Refuses to go on where a file that heirlock wrote was changed since. All of them are named.
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
            // The guard file does its work, whatever is in it.
            if !known && path != Path::new(rivals::GUARD_FILE) {
                changed.push(path.display().to_string());
            }
        }
        if changed.is_empty() { Ok(()) } else { Err(GuardError::Changed { paths: changed.join(", ") }) }
    }
}

/// The files that put this host under guard.
fn our_files(host: &Host, settings: &Settings) -> Vec<OurFile> {
    let mut files = vec![
        nfs_conf_file::ours(host, settings),
        OurFile::whole(TMPFILES_FILE, TMPFILES_TEXT.into()),
        OurFile { mere_presence: true, ..OurFile::whole(rivals::GUARD_FILE, String::new()) },
    ];
    let text = UNIT_TEXT.replace(PROGRAM, &host.program.display().to_string());
    files.extend(unit_file(host, UNIT, UNIT_FILE, text));
    files.extend(mode_of(settings).files(host, settings));
    files
}

/// A unit of ours, where systemd runs and nothing else brings it: a package brings its own, and a link in the place of ours is
/// an administrator's, or leads to where the host's configuration was made (NixOS).
fn unit_file(host: &Host, unit: &str, file: &str, text: String) -> Option<OurFile> {
    host.systemctl.as_ref()?;
    let is_link = trusted::read_link(host.at(file)).is_ok();
    let packaged = matches!(host.unit(unit), Unit::Present(at) if at != Path::new(file) || is_link);
    (!packaged).then(|| OurFile::whole(file, text))
}

/// The units of ours that a boot has to start.
pub(super) fn units_at_boot(settings: &Settings) -> Vec<&'static str> {
    [&[UNIT], mode_of(settings).units().ours].concat()
}

/// Whether [`renew`] would make the guard file anew.
///
/// # Errors
/// Where that can't be told.
pub(super) fn would_renew(host: &Host, settings: &Settings) -> Result<bool, GuardError> {
    let path = Run::memory_path(host, settings);
    let guarded = Memory::load(&path).map_err(failed("read", &path))?.is_some();
    Ok(guarded && !host.at(rivals::GUARD_FILE).exists())
}

/// See [`crate::guard::renew`].
pub(super) fn renew(host: &Host, settings: &Settings) -> Result<bool, GuardError> {
    if !would_renew(host, settings)? {
        return Ok(false);
    }
    let at = host.at(rivals::GUARD_FILE);
    memory::write(&at, b"", 0o644).map_err(failed("write", &at))?;
    Ok(true)
}

fn boot(host: &Host) -> String {
    host.boot().unwrap_or_default()
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root",
        _ => "changes until then are remembered: mend it, then repeat",
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
