//! The memory of the host before it was put under guard: the one file that `disable` needs to give it back.
//!
//! It is written before each change that it remembers, so that a run that was ended between the two is taken back as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::CaptureMode;
use crate::files::{self, Owner, trusted};
use crate::host::Host;

/// Its name in the local directory.
pub(super) const FILE: &str = crate::store::memory::GUARD_FILE;

/// The one format there is.
const FORMAT: u32 = 1;

/// The changes of `enable`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Memory {
    format: u32,
    /// The boot in which the host was put under guard.
    pub(super) boot: String,
    /// The files that are ours.
    pub(super) files: BTreeMap<PathBuf, Remembered>,
    /// The folders that were not there, the outer ones first.
    pub(super) folders: Vec<PathBuf>,
    /// The units that we masked; they were not masked before.
    pub(super) masks: BTreeSet<String>,
    /// The units of our own that we enabled.
    pub(super) units: BTreeSet<String>,
    /// The links that are ours.
    pub(super) links: BTreeSet<PathBuf>,
    /// The capture mode that the agent was last started for.
    pub(super) mode: Option<CaptureMode>,
    /// We are in rpc.statd's place, or were about to be.
    pub(super) replaces_statd: bool,
    /// rpc.statd was started before its callout changed.
    pub(super) statd_behind: bool,
    /// We made the folder a store.
    pub(super) store_created: bool,
    /// The mode of that folder, where it was there before.
    pub(super) store_mode: Option<u32>,
    /// There was no store when the host was put under guard, and the operator knew it.
    #[serde(default)]
    pub(super) without_store: bool,
}

/// One file of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The file before.
    pub(super) before: Option<Before>,
    /// The contents that heirlock wrote, the newest last: that or the one before may be there after a run that was ended.
    pub(super) ours: Vec<Content>,
    /// The lines that heirlock added, where the rest of the file is the administrator's and may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) block: Option<String>,
}

/// A file that heirlock did not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) content: Content,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Text where it is text, so that a person can read the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl Content {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Text(text) => text.as_bytes(),
            Content::Bytes(bytes) => bytes,
        }
    }
}

impl Memory {
    /// Of a host that is being put under guard in this boot.
    pub(super) fn begin(boot: String) -> Self {
        Self { format: FORMAT, boot, ..Self::default() }
    }

    /// More was done than to make folders: the store was there by then, or was made.
    pub(super) fn was_used(&self) -> bool {
        !(self.files.is_empty() && self.units.is_empty()) || self.mode.is_some()
    }

    /// The host's, or `None` where it is not under guard.
    pub(super) fn load(path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = files::if_present(trusted::read(path, trusted::SYSTEM_FILE_BYTES_MAX))? else {
            return Ok(None);
        };
        let memory: Self = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        if memory.format == FORMAT {
            return Ok(Some(memory));
        }
        Err(io::Error::other(format!("expected format {FORMAT}, found {}", memory.format)))
    }

    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        write(path, serde_json::to_string_pretty(self).map_err(io::Error::other)?.as_bytes(), 0o600)
    }
}

impl Before {
    /// The file now; `None` where there is none.
    pub(super) fn look(host: &Host, path: &Path) -> io::Result<Option<Self>> {
        let Some(metadata) = files::if_present(trusted::stat_of_link(host.at(path)))? else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Err(io::Error::other("expected a file, found a link or something else"));
        }
        let bytes = host.read(path)?.unwrap_or_default();
        let mode = metadata.permissions().mode() & 0o7777;
        Ok(Some(Self { content: Content::of(bytes), mode, uid: metadata.uid(), gid: metadata.gid() }))
    }

    /// Puts it there again, to the byte.
    pub(super) fn restore(&self, path: &Path) -> io::Result<()> {
        replace(path, self.content.bytes(), self.mode, Owner::User(self.uid, self.gid))
    }

    /// Its mode.
    pub(super) fn mode(&self) -> u32 {
        self.mode
    }

    /// The same file with other bytes.
    pub(super) fn with(&self, bytes: &[u8]) -> Self {
        Self { content: Content::of(bytes.to_vec()), ..self.clone() }
    }
}

/// A file with these bytes, or the one that was there before.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, mode, Owner::Ours)
}

fn replace(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    // Its temporary name is hidden, so that no program that reads the folder's files takes it for one of them.
    let (folder, name) = trusted::place(path)?;
    folder.replace(name, bytes, mode, owner, true)
}

/// Makes durable that a name has come or gone.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    trusted::sync_name(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Tree;
    use std::fs;

    #[test]
    fn a_memory_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert!(Memory::load(&path).unwrap().is_none());
        let mut memory = Memory::begin("boot-1".into());
        let before = Before { content: Content::of(vec![0xff, 0]), mode: 0o640, uid: 0, gid: 5 };
        let ours = vec![Content::of(b"text".to_vec())];
        memory.files.insert("/etc/x".into(), Remembered { before: Some(before), ours, block: None });
        for mode in CaptureMode::ALL.all() {
            memory.mode = Some(mode);
            memory.save(&path).unwrap();
            assert!(fs::read_to_string(&path).unwrap().contains(&format!("\"mode\": \"{}\"", mode.as_str())));
            let read = Memory::load(&path).unwrap().unwrap();
            assert_eq!(format!("{read:?}"), format!("{memory:?}"));
        }
        let of_a_later_version = fs::read_to_string(&path).unwrap().replace("\"nsm\"", "\"later\"");
        fs::write(&path, of_a_later_version).unwrap();
        let error = Memory::load(&path).unwrap_err().to_string();
        assert!(error.starts_with("expected watch, callout or nsm, found \"later\""), "{error}");
        memory.format = 2;
        memory.save(&path).unwrap();
        let error = Memory::load(&path).unwrap_err().to_string();
        assert_eq!(error, "expected format 1, found 2");
    }

    #[test]
    fn a_file_comes_back_with_its_bytes_and_its_mode() {
        let tree = Tree::new();
        tree.put("/etc/x", [0xff, b'a']);
        let path = tree.host().at("/etc/x");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let listing = tree.listing();
        let before = Before::look(&tree.host(), Path::new("/etc/x")).unwrap().unwrap();
        write(&path, b"ours", 0o644).unwrap();
        assert_ne!(tree.listing(), listing);
        before.restore(&path).unwrap();
        assert_eq!(tree.listing(), listing);
    }

    #[test]
    fn a_link_is_not_taken_for_a_file() {
        let tree = Tree::new();
        tree.folder("/etc");
        std::os::unix::fs::symlink("elsewhere", tree.host().at("/etc/x")).unwrap();
        Before::look(&tree.host(), Path::new("/etc/x")).unwrap_err();
        assert_eq!(Before::look(&tree.host(), Path::new("/etc/y")).unwrap(), None);
    }
}
