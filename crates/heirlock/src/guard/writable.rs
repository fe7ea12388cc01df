//! Whether an adoption could write what it must: read before, a folder looks well that is full, read-only, over its quota, or
//! refuses what is given away in it. So a file is made there as the conveyor makes one, and removed again.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::finding::Finding;
use crate::config::Settings;
use crate::files::{Folder, Owner};
use crate::host::Host;

/// Bytes of the file that is tried: more than the few that a full file system may still have in its last block.
const TRIED_BYTES: usize = 16 * 1024;

/// A folder that an adoption writes into.
struct Place {
    check: &'static str,
    path: PathBuf,
    /// The folder in it that is written into: where that is a link, an adoption doesn't follow it.
    inside: Option<&'static str>,
    /// The harm while it can't be written.
    harm: &'static str,
    /// heirlock makes it where it is missing.
    made: bool,
}

/// The folders and files that an adoption would write into and can't, a finding each. Makes small files and removes them; no
/// network.
pub(super) fn check(host: &Host, settings: &Settings) -> Vec<Finding> {
    places(settings).iter().filter_map(|place| judge(host, place)).collect()
}

fn places(settings: &Settings) -> Vec<Place> {
    let mut places = vec![
        Place {
            check: "state-directory",
            path: settings.state_directory.clone(),
            inside: Some("sm"),
            harm: "an adoption can't place the records of its clients",
            made: false,
        },
        Place {
            check: "local-directory",
            path: settings.local_directory.clone(),
            inside: None,
            harm: "an adoption can't remember its lines, and places none",
            made: true,
        },
        Place {
            check: "runtime-directory",
            path: settings.runtime_directory.clone(),
            inside: None,
            harm: "the agent can't be asked for anything, and forgets at its restart which grace period it saw",
            made: true,
        },
    ];
    if settings.capture.mode.properties().is_status_monitor {
        places.push(Place {
            check: "state-directory",
            path: settings.state_directory.clone(),
            inside: None,
            harm: "heirlock as status monitor can't keep its state number",
            made: false,
        });
    }
    places
}

fn judge(host: &Host, place: &Place) -> Option<Finding> {
    let mut folder = place.path.as_path();
    while place.made && !host.at(folder).exists() {
        folder = folder.parent()?;
    }
    let error = open(&host.at(folder), place.inside).and_then(|folder| try_in(&folder)).err()?;
    let folder = &place.inside.map_or_else(|| folder.to_owned(), |inside| folder.join(inside));
    let found = format!("no file can be written in {}: {error}; {}", folder.display(), place.harm);
    if error.kind() == io::ErrorKind::PermissionDenied && !geteuid().is_root() {
        return Some(Finding::warning(place.check, found, "ask as root, as whom the agent runs"));
    }
    Some(Finding::loses_locks(place.check, found, remedy(&error, folder)))
}

fn remedy(error: &io::Error, folder: &Path) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, and find in the kernel's log why it is not".into()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there: both bytes (df) and inodes (df -i), or a larger quota".into()
        }
        io::ErrorKind::PermissionDenied => format!(
            "let root write and give files away there (an NFS export needs no_root_squash; lsattr -d {} shows a lock)",
            folder.display()
        ),
        io::ErrorKind::NotFound => "create it, or correct the key in the configuration".into(),
        io::ErrorKind::NotADirectory => "put a folder in its place".into(),
        _ => "mend the file system".into(),
    }
}

/// As an adoption opens it.
fn open(folder: &Path, inside: Option<&'static str>) -> io::Result<Folder> {
    let folder = Folder::open(folder)?;
    match inside {
        Some(inside) => folder.folder(inside),
        None => Ok(folder),
    }
}

/// Makes a hidden file in a folder, gives it to the folder's owner, fills it, makes it durable, and removes it. Every status
/// monitor ignores hidden files.
///
/// # Errors
/// Where any of that fails.
pub(super) fn try_folder(folder: &Path) -> io::Result<()> {
    try_in(&Folder::open(folder)?)
}

fn try_in(folder: &Folder) -> io::Result<()> {
    let tried = folder.prepare(&[b'.'; TRIED_BYTES], 0o600, Owner::OfFolder, true)?;
    folder.discard(&tried)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::super::finding::Severity;
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, in_mode, settings};

    fn said(tree: &Tree) -> Vec<(&'static str, Severity)> {
        let found = check(&tree.host(), &settings(SERVICE));
        found.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_folder_that_can_be_written_is_left_as_it_was() {
        let tree = Tree::debian();
        let before = tree.listing();
        assert_eq!(said(&tree), []);
        assert_eq!(check(&tree.host(), &in_mode("nsm")), []);
        assert_eq!(tree.listing(), before);
    }

    #[test]
    fn a_folder_that_is_no_folder_or_not_there_is_said() {
        let tree = Tree::debian();
        tree.put("/var/lib/heirlock", "a file in its place");
        fs::remove_dir(tree.host().at("/var/lib/nfs/sm")).unwrap();
        let loses = Severity::LosesLocks;
        assert_eq!(said(&tree), [("state-directory", loses), ("local-directory", loses)]);
    }

    #[test]
    fn a_link_in_the_place_of_sm_is_said_before_an_adoption_meets_it() {
        let tree = Tree::debian();
        let sm = tree.host().at("/var/lib/nfs/sm");
        fs::rename(&sm, sm.with_file_name("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &sm).unwrap();
        let found = check(&tree.host(), &settings(SERVICE));
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((found.check, found.severity), ("state-directory", Severity::LosesLocks));
        assert!(found.found.contains("nfs/sm: expected a folder, found a symbolic link"), "{found}");
        assert_eq!(fs::read_dir(sm.with_file_name("elsewhere")).unwrap().count(), 0);
    }

    /// Mounts a small file system at the state directory of a tree, and runs the check in that mount namespace.
    #[test]
    fn a_full_or_read_only_file_system_is_said_before_an_adoption_meets_it() {
        if !geteuid().is_root() {
            return;
        }
        for (options, expected) in [("size=4k", "space"), ("ro", "Read-only")] {
            let tree = Tree::debian();
            let sm = tree.host().at("/var/lib/nfs/sm");
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&sm).status();
            if !mounted.is_ok_and(|status| status.success()) {
                return;
            }
            let found = check(&tree.host(), &settings(SERVICE));
            assert!(Command::new("umount").arg(&sm).status().unwrap().success());
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].found.contains(expected) && found[0].check == "state-directory", "{}", found[0]);
        }
    }
}
