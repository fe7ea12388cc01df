//! Gives a host back as it was.

use std::io;
use std::path::{Path, PathBuf};

use heirlock_nsm::StateNumber;
use heirlock_nsm::state::StateError;

use super::super::memory::{self, Before, Memory, Remembered};
use super::super::{records, rivals};
use super::{DRILLS, GuardError, Run, Step, StepOutcome, UNIT, all_modes, boot, failed, nfs_conf_file};
use crate::config::Settings;
use crate::files::trusted;
use crate::host::{Host, Unit};
use crate::store::memory::FILE as STORE_MEMORY;
use crate::store::{self, Place};

/// See [`crate::guard::disable`].
pub(in super::super) fn disable(
    host: &Host,
    settings: &Settings,
    plan: bool,
    if_idle: bool,
) -> Result<Vec<Step>, GuardError> {
    let path = Run::memory_path(host, settings);
    let Some(memory) = Memory::load(&path).map_err(failed("read", &path))? else {
        let what = format!("this host is not under heirlock's guard: there is no {}", path.display());
        return Ok(vec![Step { what, outcome: StepOutcome::AlreadySo }]);
    };
    let mut run = Run { host, settings, plan, memory, steps: Vec::new() };
    if if_idle {
        run.check_idle()?;
    }
    let ended = run.give_host_back(&path);
    run.told(ended, "'heirlock disable' goes on from there once that is mended")
}

impl Run<'_> {
    fn give_host_back(&mut self, memory: &Path) -> Result<(), GuardError> {
        self.check_unchanged()?;
        all_modes().try_for_each(|mode| mode.check_leave(self))?;
        self.check_can_be_given_back()?;
        // The units that would start the agent again go first, then the agent, so that it sends no number any more; then
        // the number, before another program may send.
        all_modes().try_for_each(|mode| mode.stop(self))?;
        self.stop_drills()?;
        self.stop_agent()?;
        self.raise_states()?;
        all_modes().try_for_each(|mode| mode.hand_back(self))?;
        for (path, remembered) in self.memory.files.clone() {
            self.give_back(&path, &remembered)?;
        }
        all_modes().try_for_each(|mode| mode.give_back(self))?;
        self.unmask(rivals::UNIT)?;
        self.reload()?;
        self.drop_store()?;
        self.forget(memory)
    }

    /// The timer's drills ask the agent, so without it each of them would fail. A person has turned the timer on, and the step
    /// says how to turn it on again.
    fn stop_drills(&mut self) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() || !matches!(self.host.unit(DRILLS), Unit::Present(_)) {
            return Ok(());
        }
        // One that was started and not enabled goes on until the next boot. systemctl tells it by its exit code.
        let is_on = self.is_enabled(DRILLS) || self.systemctl(&["is-active", "--quiet", DRILLS]).is_ok();
        if !is_on {
            return Ok(());
        }
        let what = format!(
            "stop and disable {DRILLS}, the weekly drill; 'systemctl enable --now {DRILLS}' turns it on again"
        );
        self.act(what, |run| run.systemctl(&["disable", "--now", DRILLS]))
    }

    fn stop_agent(&mut self) -> Result<(), GuardError> {
        // A run that was ended may have removed the unit already, and systemctl refuses to disable what is not there.
        let there = self.is_enabled(UNIT) || self.host.unit(UNIT) != Unit::Absent;
        if !self.memory.units.contains(UNIT) || self.host.systemctl.is_none() || !there {
            return Ok(());
        }
        self.act(format!("stop and disable {UNIT}"), |run| run.systemctl(&["disable", "--now", UNIT]))
    }

    /// Clients ignore a number that they saw already, so stock sm-notify must never count up to one of ours, in the directory of
    /// any lock manager.
    fn raise_states(&mut self) -> Result<(), GuardError> {
        let states = self.settings.instances().into_iter().map(|of| of.state_directory.join("state"));
        let states: Vec<PathBuf> = states.collect();
        let store = records::store(self.host, self.settings);
        let remembered = records::remembered_number(self.host, self.settings);
        let known = store.and_then(|store| records::highest_number(store.as_ref(), self.settings));
        let highest = match known.map(|known| known.max(remembered)) {
            Ok(Some(highest)) => highest,
            Ok(None) => return Ok(()),
            Err(error) => {
                let states: Vec<String> = states.iter().map(|path| path.display().to_string()).collect();
                let what = format!(
                    "{}: the highest number that was sent is unknown ({error}); where this server's clients were notified, disable again with the store in its place",
                    states.join(", ")
                );
                self.say(StepOutcome::Left, what);
                // The number that this server itself sent is known all the same.
                let Some(remembered) = remembered else { return Ok(()) };
                remembered
            }
        };
        states.iter().try_for_each(|path| self.raise_state(path, highest))
    }

    fn raise_state(&mut self, path: &Path, highest: StateNumber) -> Result<(), GuardError> {
        let before = Before::look(self.host, path).map_err(failed("read", path))?;
        let bytes = before.as_ref().map_or(&[][..], |before| before.content.bytes());
        match StateNumber::parse_file(bytes) {
            Ok(number) if number >= highest => {
                let what = format!("{} is {number}, above all that was sent", path.display());
                self.say(StepOutcome::AlreadySo, what);
                return Ok(());
            }
            Err(StateError::Length(length)) if length > 4 => {
                let what =
                    format!("{} is not as nfs-utils writes it; {highest} was sent last", path.display());
                self.say(StepOutcome::Left, what);
                return Ok(());
            }
            _ => {}
        }
        self.act(format!("raise {} to {highest}, the highest number that was sent", path.display()), |run| {
            let at = run.host.at(path);
            let written = match &before {
                Some(before) => before.with(&highest.render_file()).restore(&at),
                None => memory::write(&at, &highest.render_file(), 0o644),
            };
            written.map_err(failed("write", &at))
        })
    }

    pub(super) fn give_back(&mut self, path: &Path, remembered: &Remembered) -> Result<(), GuardError> {
        let shown = path.display();
        if path == Path::new(rivals::GUARD_FILE) && boot(self.host) != self.memory.boot {
            // sm-notify would have made it at this boot. Without it, it would take this server for just booted and
            // tell its clients so, in no grace period: they would lose their locks.
            self.say(
                StepOutcome::Left,
                format!("{shown} stays until the next boot, as sm-notify's own would"),
            );
            return Ok(());
        }
        let at = self.host.at(path);
        let now = Before::look(self.host, path).map_err(failed("read", path))?;
        let others = now.as_ref().and_then(|now| nfs_conf_file::what_others_wrote(now, remembered));
        if let (Some(now), Some(others)) = (&now, others) {
            return self.act(format!("take our lines out of {shown}, which others changed since"), |_| {
                now.with(&others).restore(&at).map_err(failed("write", &at))
            });
        }
        match (&remembered.before, now) {
            (before, now) if *before == now => {
                self.say(StepOutcome::AlreadySo, format!("{shown} is as it was"));
                Ok(())
            }
            (Some(before), _) => self.act(format!("put back {shown} as it was"), |_| {
                before.restore(&at).map_err(failed("write", &at))
            }),
            (None, _) => self.act(format!("remove {shown}"), |_| {
                trusted::remove(&at).and_then(|()| memory::sync_folder_of(&at)).map_err(failed("remove", &at))
            }),
        }
    }

    pub(super) fn unmask(&mut self, unit: &str) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() {
            return Ok(());
        }
        if self.memory.masks.contains(unit) {
            self.act(format!("unmask {unit}"), |run| run.systemctl(&["unmask", unit]))
        } else {
            self.say(StepOutcome::Left, format!("{unit}: heirlock did not mask it"));
            Ok(())
        }
    }

    /// systemd forgets our units.
    fn reload(&mut self) -> Result<(), GuardError> {
        if self.plan { Ok(()) } else { self.systemctl(&["daemon-reload"]) }
    }

    /// A store of ours in which nothing was ever kept goes; any other stays.
    fn drop_store(&mut self) -> Result<(), GuardError> {
        let Ok(store) = records::store(self.host, self.settings) else {
            let local = self.settings.local_directory.display();
            let what = format!(
                "{local}/{STORE_MEMORY} stays, for the store that it remembers is not here; remove both yourself"
            );
            self.say(StepOutcome::Left, what);
            return Ok(());
        };
        let empty = store.services().is_ok_and(|services| services.is_empty())
            && store.servers().is_ok_and(|servers| servers.is_empty());
        if !(self.memory.store_created && empty) {
            let what = format!(
                "{} stays with all its records, and {} remembers which it is; remove both yourself",
                store.describe(),
                self.settings.local_directory.join(STORE_MEMORY).display()
            );
            self.say(StepOutcome::Left, what);
            for kept in records::kept(store.as_ref(), self.settings).unwrap_or_default() {
                let kept = match kept {
                    Ok(kept) => kept,
                    Err(error) => {
                        self.say(
                            StepOutcome::Left,
                            format!("the owner of the service can't be read: {error}"),
                        );
                        continue;
                    }
                };
                if kept.owner.as_ref() == Some(&self.settings.server) && !kept.service.is_host() {
                    // Its conveyed records lie in the status monitor's directory, under the service's name.
                    let what = format!(
                        "{}{} is still this server's, and sm-notify will notify its clients from no particular address: release it, or let another server adopt it",
                        self.whose(&kept.service),
                        kept.service
                    );
                    self.say(StepOutcome::Left, what);
                }
            }
            return Ok(());
        }
        self.act(format!("remove {}, which is empty", store.describe()), |run| {
            // Before the store: a server that remembers none that is there can make another one.
            let local = run.local_directory();
            store::memory::forget(&local).map_err(failed("remove", &local.join(STORE_MEMORY)))?;
            let place = store.place(Place::Store);
            store.remove_empty(run.memory.store_mode).map_err(failed("remove", Path::new(&place)))
        })
    }

    /// The folders that we made and that are empty, and last of all the memory.
    fn forget(&mut self, memory: &Path) -> Result<(), GuardError> {
        if self.plan {
            return Ok(());
        }
        let local = self.settings.local_directory.clone();
        let folders: Vec<PathBuf> = self.memory.folders.iter().rev().cloned().collect();
        let (last, first): (Vec<_>, Vec<_>) =
            folders.into_iter().partition(|folder| local.starts_with(folder));
        for folder in first {
            self.remove_folder(&folder)?;
        }
        trusted::remove(memory)
            .and_then(|()| memory::sync_folder_of(memory))
            .map_err(failed("remove", memory))?;
        for folder in last {
            self.remove_folder(&folder)?;
        }
        Ok(())
    }

    fn remove_folder(&mut self, folder: &Path) -> Result<(), GuardError> {
        let at = self.host.at(folder);
        let (outcome, what) = match trusted::remove_empty_folder(&at) {
            Ok(()) => (StepOutcome::Done, format!("remove the folder {}", folder.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                (StepOutcome::Left, format!("the folder {} stays: it is not empty", folder.display()))
            }
            Err(error) => return Err(failed("remove", &at)(error)),
        };
        self.say(outcome, what);
        Ok(())
    }
}
