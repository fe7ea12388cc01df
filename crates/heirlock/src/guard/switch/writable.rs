//! Whether all that a run would write can be written, asked before the first change: /etc may be read-only as a whole (NixOS,
//! image-based hosts) or in a single file. Files that such a host brings itself are left as they are.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::super::memory::Before;
use super::super::{rivals, statd};
use super::{GuardError, OurFile, Run, StepOutcome, TMPFILES_FILE, UNIT, nfs_conf_file, units_at_boot};
use crate::files::trusted;
use crate::host::nfs_conf::NfsConf;
use crate::host::{ADMINISTRATORS_UNITS, Unit, volumes};

/// A file that can't be written, and the text that is wanted there.
struct Obstacle {
    path: PathBuf,
    why: String,
    /// Lines.
    wanted: String,
}

impl Run<'_> {
    /// The files of these that are to be written: the others are brought by this host's configuration, and can't be.
    pub(super) fn files_to_write(&mut self, files: Vec<OurFile>) -> Result<Vec<OurFile>, GuardError> {
        let mut obstacles = self.folders_in_the_way();
        let mut written = Vec::new();
        for file in files {
            match self.may_be_written(&file) {
                Ok(()) => written.push(file),
                Err(_) if self.is_brought(&file) => {
                    let what =
                        format!("{} can't be written, and the wanted text is in force", file.path.display());
                    self.say(StepOutcome::AlreadySo, what);
                }
                Err(why) => {
                    let wanted = format!("it has to have these lines:\n{}", lines(&file.text));
                    obstacles.push(Obstacle { path: file.path, why, wanted });
                }
            }
        }
        obstacles.extend(self.units_in_the_way());
        match obstacles.as_slice() {
            [] => Ok(written),
            all => Err(refused(all, "enable")),
        }
    }

    /// Refuses to begin to give the host back where that would end in the middle.
    pub(super) fn check_can_be_given_back(&self) -> Result<(), GuardError> {
        let mut obstacles = Vec::new();
        for (path, remembered) in &self.memory.files {
            // A file that can't be read is reported when it is given back.
            let Ok(now) = Before::look(self.host, path) else { continue };
            if let Some(Err(why)) = (now != remembered.before).then(|| self.may_write_at(path)) {
                let wanted = match &remembered.before {
                    Some(_) => "it has to be as it was before 'heirlock enable'".to_owned(),
                    None => "it has to be removed".to_owned(),
                };
                obstacles.push(Obstacle { path: path.clone(), why, wanted });
            }
        }
        if obstacles.is_empty() { Ok(()) } else { Err(refused(&obstacles, "disable")) }
    }

    fn folders_in_the_way(&self) -> Vec<Obstacle> {
        let folders = [&self.settings.local_directory, &self.settings.runtime_directory];
        let missing = folders.into_iter().filter(|folder| !self.host.at(folder).is_dir());
        let obstacle = |folder: &PathBuf| {
            let why = self.may_write_in(folder).err()?;
            let wanted = "it has to be a folder of root's, of mode 0700".to_owned();
            Some(Obstacle { path: folder.clone(), why, wanted })
        };
        missing.filter_map(obstacle).collect()
    }

    /// The units that systemctl would have to write for us.
    fn units_in_the_way(&self) -> Option<Obstacle> {
        self.host.systemctl.as_ref()?;
        let why = self.may_write_in(&Path::new(ADMINISTRATORS_UNITS).join(UNIT)).err()?;
        let to_be_masked = [&[rivals::UNIT], self.mode().units().masked].concat();
        // A unit that lies there itself is never masked.
        let can_be_masked = |unit: &&str| match self.host.unit(unit) {
            Unit::Present(at) => at.parent() != Some(Path::new(ADMINISTRATORS_UNITS)),
            Unit::Absent | Unit::Masked(_) => false,
        };
        let to_mask = to_be_masked.into_iter().filter(can_be_masked);
        let mut wanted: Vec<String> = to_mask.map(|unit| format!("    mask {unit}")).collect();
        let to_enable = units_at_boot(self.settings).into_iter().filter(|unit| !self.is_enabled(unit));
        wanted.extend(to_enable.map(|unit| format!("    enable {unit}")));
        let wanted = (!wanted.is_empty()).then(|| format!("systemctl has to:\n{}", wanted.join("\n")))?;
        Some(Obstacle { path: ADMINISTRATORS_UNITS.into(), why, wanted })
    }

    /// Whether a file is as it has to be already, or can be made so; else why not, in words.
    fn may_be_written(&self, file: &OurFile) -> Result<(), String> {
        let Ok(now) = Before::look(self.host, &file.path) else {
            return Err("expected a file, found a link or something else, which is left alone".into());
        };
        let there = now.as_ref().map(|now| now.content.bytes());
        let is_so = match there {
            Some(_) if file.mere_presence => true,
            Some(there) if file.is_block => {
                nfs_conf_file::with_block(there, self.memory.files.get(&file.path), &file.text) == there
            }
            there => there == Some(file.text.as_bytes()),
        };
        if is_so { Ok(()) } else { self.may_write_at(&file.path) }
    }

    /// Whether a file can be put in this place, or in the place of the one that is there.
    fn may_write_at(&self, path: &Path) -> Result<(), String> {
        let at = self.host.at(path);
        if trusted::stat_of_link(&at).is_ok() {
            may_write(&at).map_err(|error| error.to_string())?;
            if volumes::mounted(self.host).iter().any(|mounted| mounted == path) {
                return Err(
                    "something is mounted over this one file, so no other can be put in its place".into()
                );
            }
        }
        self.may_write_in(path)
    }

    /// Whether the folder that a path is in can be written, or the nearest one above it that exists.
    fn may_write_in(&self, path: &Path) -> Result<(), String> {
        let above = path.ancestors().skip(1).map(|folder| (folder, self.host.at(folder)));
        let Some((folder, at)) = above.into_iter().find(|(_, at)| at.exists()) else { return Ok(()) };
        let said = |error: io::Error| format!("{} can't be written: {error}", folder.display());
        may_write(&at).map_err(said)
    }

    /// Whether this host's own configuration does what the file is for.
    fn is_brought(&self, file: &OurFile) -> bool {
        if nfs_conf_file::is_nfs_conf(file) {
            let conf = NfsConf::read(self.host);
            let callout = conf.get("statd", statd::HA_CALLOUT);
            let is_ours = || callout.is_some_and(|named| statd::is_our_callout(self.host, &named.text));
            return conf.get_bool("sm-notify", "lift-grace") == Some(false)
                && (!self.settings.capture.mode.properties().has_callout || is_ours());
        }
        let there = self.host.text(&file.path).unwrap_or_default();
        file.path == Path::new(TMPFILES_FILE)
            && settings(&file.text).all(|wanted| there.lines().any(|line| line.trim() == wanted))
    }
}

/// Root is asked for only when something is done: every user may ask for the plan.
fn may_write(path: &Path) -> io::Result<()> {
    let is_for_root =
        |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root();
    match trusted::may_write(path) {
        Err(error) if !is_for_root(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The lines of a text that say something.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn lines(text: &str) -> String {
    settings(text).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn refused(obstacles: &[Obstacle], verb: &str) -> GuardError {
    let mut what = "some files can't be written, so nothing was changed:".to_owned();
    for Obstacle { path, why, wanted } in obstacles {
        // A string takes all that is written.
        let _ = write!(what, "\n  {}: {why}; {wanted}", path.display());
    }
    let _ = write!(
        what,
        "\nmake these writable, or bring it about where this host's configuration is made (on NixOS environment.etc and \
         systemd); then repeat 'heirlock {verb}', which leaves alone what is so already"
    );
    GuardError::Refused { what }
}
