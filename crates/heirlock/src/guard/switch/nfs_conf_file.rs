//! The settings that `enable` writes for nfs-utils, where the installed version reads them: a file of our own in
//! /etc/nfs.conf.d, and before 2.5.3, which has no such folder, some lines at the end of nfs.conf itself, or of the
//! nfs.conf.local that SUSE's includes. There later settings win, and the lines of others stay as they are.

use std::path::{Path, PathBuf};

use super::super::memory::{Before, Content, Memory, Remembered};
use super::super::statd;
use super::{GuardError, OurFile, Run};
use crate::config::Settings;
use crate::host::Host;
use crate::host::nfs_conf::{self, NfsConf};

/// Where it is a file of our own.
pub(super) const DROP_IN: &str = "/etc/nfs.conf.d/heirlock.conf";

const TEXT: &str = "# Written by 'heirlock enable' and taken back by 'heirlock disable'.\n\
    # On this host heirlock tells the clients. sm-notify without clients to notify would end the grace period in\n\
    # which they reclaim their locks.\n[sm-notify]\nlift-grace=n\n";

/// Added to it where rpc.statd has a callout.
const CALLOUT: &str =
    "# rpc.statd waits until a client is on record before lockd grants it a lock.\n[statd]\n";

/// Around our lines in a file that heirlock did not make.
const BEGIN: &str = "# heirlock begins: nothing in between stays after 'heirlock disable'\n";
const END: &str = "# heirlock ends\n";

/// The text that is to be written, and the file in which it counts.
pub(super) fn ours(host: &Host, settings: &Settings) -> OurFile {
    let text = match settings.capture.mode.properties().has_callout {
        true => format!("{TEXT}{CALLOUT}{}={}\n", statd::HA_CALLOUT, statd::callout(host).display()),
        false => TEXT.to_owned(),
    };
    let conf = NfsConf::read(host);
    if conf.reads_folder() {
        return OurFile { path: DROP_IN.into(), text, is_block: false, mere_presence: false };
    }
    let text = format!("{BEGIN}{text}{END}");
    OurFile { path: file_that_counts(&conf), text, is_block: true, mere_presence: false }
}

/// nfs.conf.local, unless nfs.conf has a setting of ours by itself, which may come after it.
fn file_that_counts(conf: &NfsConf) -> PathBuf {
    let main = Path::new(nfs_conf::FILE);
    let set_in_main = [("sm-notify", "lift-grace"), ("statd", statd::HA_CALLOUT)]
        .iter()
        .filter_map(|(section, key)| conf.get(section, key))
        .any(|value| value.file == main);
    conf.local_file().filter(|_| !set_in_main).unwrap_or(main).to_owned()
}

/// The file with our lines at its end, whatever lines of ours it had.
pub(super) fn with_block(there: &[u8], remembered: Option<&Remembered>, block: &str) -> Vec<u8> {
    let mut text = match remembered.and_then(|remembered| remembered.block.as_deref()) {
        Some(old) => without_block(there, old),
        None => there.to_vec(),
    };
    // A last line without its newline would take our first one into itself.
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(block.as_bytes());
    text
}

/// The file without our lines.
pub(super) fn without_block(there: &[u8], block: &str) -> Vec<u8> {
    let block = block.as_bytes();
    match there.windows(block.len()).position(|window| window == block) {
        Some(at) => [&there[..at], &there[at + block.len()..]].concat(),
        None => there.to_vec(),
    }
}

/// The rest of a file to which our lines were added, where it differs from the file before.
pub(super) fn what_others_wrote(now: &Before, remembered: &Remembered) -> Option<Vec<u8>> {
    let kept = without_block(now.content.bytes(), remembered.block.as_deref()?);
    let before = remembered.before.as_ref().map_or(&[][..], |before| before.content.bytes());
    let as_before = kept.strip_prefix(before).is_some_and(|rest| rest.is_empty() || rest == b"\n");
    (!as_before).then_some(kept)
}

/// Our lines were not changed: they are there, or all of them are gone.
pub(super) fn is_whole(there: &Content, block: &str) -> bool {
    let text = String::from_utf8_lossy(there.bytes());
    text.contains(block) || !text.contains(BEGIN)
}

/// Whether the file has a callout now, where it is one that nfs-utils reads.
pub(super) fn has_callout(host: &Host, memory: &Memory, file: &OurFile) -> bool {
    let Some(text) = host.text(&file.path).filter(|_| is_nfs_conf(file)) else { return false };
    match memory.files.get(&file.path).and_then(|remembered| remembered.block.as_ref()) {
        Some(block) => text.contains(block) && block.contains(statd::HA_CALLOUT),
        None => !file.is_block && text.contains(statd::HA_CALLOUT),
    }
}

pub(super) fn is_nfs_conf(file: &OurFile) -> bool {
    file.is_block || file.path == Path::new(DROP_IN)
}

impl Run<'_> {
    /// Where another version of nfs-utils read what an earlier run wrote, nothing of it stays.
    pub(super) fn leave_other_nfs_conf(&mut self, ours: &[PathBuf]) -> Result<(), GuardError> {
        let is_other = |(path, remembered): (&PathBuf, &Remembered)| {
            let was_nfs_conf = remembered.block.is_some() || path == Path::new(DROP_IN);
            (was_nfs_conf && !ours.contains(path)).then(|| path.clone())
        };
        let others: Vec<PathBuf> = self.memory.files.iter().filter_map(is_other).collect();
        others.iter().try_for_each(|path| self.give_back_file(path))
    }
}

/// Whether what was written names a callout.
pub(super) fn names_callout(remembered: &Remembered) -> bool {
    let ours = match &remembered.block {
        Some(block) => vec![block.as_bytes()],
        None => remembered.ours.iter().map(Content::bytes).collect(),
    };
    ours.into_iter().any(|text| String::from_utf8_lossy(text).contains(statd::HA_CALLOUT))
}
