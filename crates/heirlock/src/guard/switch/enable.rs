//! Puts a host under guard.

use std::path::{Path, PathBuf};

use heirlock_core::store_identity::Word;

use super::super::memory::{self, Before, Content, Memory, Remembered};
use super::super::{rivals, statd};
use super::{GuardError, OurFile, Run, Step, StepOutcome, UNIT, boot, failed, nfs_conf_file, our_files};
use crate::config::Settings;
use crate::files::trusted;
use crate::host::nfs_conf::{Asked, NfsConf};
use crate::host::{ADMINISTRATORS_UNITS, Host, Unit};

/// See [`crate::guard::enable`].
pub(in super::super) fn enable(
    host: &Host,
    settings: &Settings,
    plan: bool,
    word: Word,
) -> Result<Vec<Step>, GuardError> {
    let path = Run::memory_path(host, settings);
    let memory = Memory::load(&path).map_err(failed("read", &path))?;
    let memory = memory.unwrap_or_else(|| Memory::begin(boot(host)));
    let mut run = Run { host, settings, plan, memory, steps: Vec::new() };
    let ended = run.put_under_guard(word);
    run.told(ended, "'heirlock disable' takes all of it back")
}

impl Run<'_> {
    fn put_under_guard(&mut self, word: Word) -> Result<(), GuardError> {
        self.check_unchanged()?;
        self.mode().check_enter(self)?;
        self.check_further()?;
        let all = our_files(self.host, self.settings);
        let nfs_conf =
            all.iter().filter(|file| nfs_conf_file::is_nfs_conf(file)).map(|file| file.path.clone());
        let nfs_conf: Vec<PathBuf> = nfs_conf.collect();
        // All that can't be written is refused before the first change.
        let files = self.files_to_write(all)?;
        let store = self.decide_store(word)?;
        self.folder(&self.settings.local_directory, 0o700)?;
        self.folder(&self.settings.runtime_directory, 0o700)?;
        self.store(store)?;
        self.leave_other_modes()?;
        self.mode().prepare(self)?;
        let behind = self.will_be_behind(&files);
        for file in &files {
            self.file(file)?;
        }
        self.leave_other_nfs_conf(&nfs_conf)?;
        self.mask(rivals::UNIT)?;
        self.mode().enter(self)?;
        self.own_unit()?;
        if behind {
            self.tell_statd("which reads in nfs.conf whether it has a callout when it starts")?;
        }
        self.say_further();
        if !self.plan {
            self.say_in_force();
            for hazard in rivals::hazards(self.host, self.settings) {
                let remedy = hazard.remedy.unwrap_or_default();
                self.say(StepOutcome::Left, format!("{}; {remedy}", hazard.found));
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, mode: u32) -> Result<(), GuardError> {
        if self.host.at(path).is_dir() {
            self.say(StepOutcome::AlreadySo, format!("the folder {} is there", path.display()));
            return Ok(());
        }
        self.act(format!("create the folder {}", path.display()), |run| run.create_folder(path, mode))
    }

    /// A folder with all above it, each remembered before it is made.
    pub(super) fn create_folder(&mut self, path: &Path, mode: u32) -> Result<(), GuardError> {
        let local = &self.settings.local_directory;
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|folder| !self.host.at(folder).exists())
            .map(Path::to_owned)
            .collect();
        for folder in missing.into_iter().rev() {
            self.memory.folders.push(folder.clone());
            // The memory itself lies in the first of them that is made.
            if self.host.at(local).is_dir() {
                self.remember()?;
            }
            let mode = if folder == path { mode } else { 0o755 };
            let at = self.host.at(&folder);
            trusted::make_folder(&at, mode).map_err(failed("create", &at))?;
        }
        self.remember()
    }

    fn file(&mut self, file: &OurFile) -> Result<(), GuardError> {
        let (path, shown) = (file.path.as_path(), file.path.display());
        let now = Before::look(self.host, path).map_err(failed("read", path))?;
        let wanted = if file.is_block {
            let there = now.as_ref().map_or(&[][..], |now| now.content.bytes());
            nfs_conf_file::with_block(there, self.memory.files.get(path), &file.text)
        } else {
            file.text.clone().into_bytes()
        };
        let ours = Content::of(wanted.clone());
        if now.as_ref().is_some_and(|now| file.mere_presence || now.content == ours) {
            self.say(StepOutcome::AlreadySo, format!("{shown} is there"));
            return Ok(());
        }
        let verb = match (&now, file.is_block) {
            (Some(_), true) => "add our lines to",
            (Some(_), false) => "replace",
            (None, _) => "write",
        };
        let mode = now.as_ref().map_or(0o644, |now| if file.is_block { now.mode() } else { 0o644 });
        self.act(format!("{verb} {shown}"), |run| {
            if let Some(folder) = path.parent().filter(|folder| !run.host.at(folder).is_dir()) {
                run.create_folder(folder, 0o755)?;
            }
            let remembered = run
                .memory
                .files
                .entry(path.to_owned())
                .or_insert_with(|| Remembered { before: now, ..Remembered::default() });
            if file.is_block {
                remembered.block = Some(file.text.clone());
            }
            // The text of an earlier version stays known until the new text is in its place.
            remembered.ours.retain(|content| *content != ours);
            remembered.ours.push(ours);
            let surplus = remembered.ours.len().saturating_sub(2);
            remembered.ours.drain(..surplus);
            run.remember()?;
            let at = run.host.at(path);
            memory::write(&at, &wanted, mode).map_err(failed("write", &at))
        })
    }

    /// Whether rpc.statd was started with another callout in nfs.conf than the one that is written now.
    fn will_be_behind(&mut self, files: &[OurFile]) -> bool {
        let now = files.iter().any(|file| nfs_conf_file::has_callout(self.host, &self.memory, file));
        let wanted = files.iter().any(|file| file.text.contains(statd::HA_CALLOUT));
        // Kept with the next step that is remembered, which is the writing of that file.
        self.memory.statd_behind |= now != wanted;
        self.memory.statd_behind
    }

    pub(super) fn mask(&mut self, unit: &str) -> Result<(), GuardError> {
        if self.host.systemctl.is_none() {
            return Ok(());
        }
        match self.host.unit(unit) {
            Unit::Absent => self.say(StepOutcome::AlreadySo, format!("there is no {unit}")),
            Unit::Masked(_) => self.say(StepOutcome::AlreadySo, format!("{unit} is masked")),
            // systemctl masks by a link of that name, and takes no file of the administrator's away for it.
            Unit::Present(at) if at.parent() == Some(Path::new(ADMINISTRATORS_UNITS)) => {
                let what = format!(
                    "{} stays and can't be masked; take it away, or disable it where this host's configuration is made (NixOS), then repeat",
                    at.display()
                );
                self.say(StepOutcome::Left, what);
            }
            Unit::Present(_) => self.act(format!("mask {unit}"), |run| {
                run.memory.masks.insert(unit.to_owned());
                run.remember()?;
                run.systemctl(&["mask", unit])
            })?,
        }
        Ok(())
    }

    /// The file counts only where the installed version reads it: that version is asked.
    fn say_in_force(&mut self) {
        let conf = NfsConf::read(self.host);
        if let (Asked::Nfsconf(program), Some(false)) =
            (&conf.asked, conf.get_bool("sm-notify", "lift-grace"))
        {
            self.say(StepOutcome::AlreadySo, format!("{} confirms lift-grace=n", program.display()));
        }
    }

    fn own_unit(&mut self) -> Result<(), GuardError> {
        let mode = self.settings.capture.mode;
        if self.host.systemctl.is_none() {
            if !mode.properties().is_status_monitor {
                let what =
                    "systemd doesn't run here: have your init start 'heirlock agent' at boot, before NFS";
                self.say(StepOutcome::Left, what);
            }
            return Ok(());
        }
        let rewritten = self
            .steps
            .iter()
            .any(|step| step.outcome == StepOutcome::Done && step.what.ends_with(&format!("/{UNIT}")));
        let enabled = self.is_enabled(UNIT);
        let for_this_mode = self.memory.mode.is_some_and(|started_for| started_for.as_str() == mode.as_str());
        if enabled && !rewritten && for_this_mode {
            self.say(StepOutcome::AlreadySo, format!("{UNIT} is enabled"));
            return Ok(());
        }
        let again = enabled && !for_this_mode;
        let what = match again {
            true => format!("restart {UNIT}, for capture.mode = \"{}\"", mode.as_str()),
            false => format!("enable and start {UNIT}"),
        };
        self.act(what, |run| {
            if !enabled {
                run.memory.units.insert(UNIT.into());
            }
            run.remember()?;
            run.systemctl(&["daemon-reload"])?;
            run.systemctl(if again { &["restart", UNIT] } else { &["enable", "--now", UNIT] })?;
            run.memory.mode = Some(mode);
            run.remember()
        })
    }
}
