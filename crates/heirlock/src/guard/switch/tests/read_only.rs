//! Hosts on which the files of `enable` can't be written.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::geteuid;

use super::*;
use crate::left_out::leave_out;

/// A folder that is read-only until this ends.
struct ReadOnly(PathBuf);

impl ReadOnly {
    /// `None`, and said, where this test may not mount.
    fn make(tree: &Tree, folder: &str) -> Option<Self> {
        let at = tree.host().at(folder);
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).arg(&at).status();
            status.is_ok_and(|status| status.success())
        };
        let path = at.to_str().unwrap();
        let done = geteuid().is_root()
            && run("mount", &["--bind", path])
            && run("mount", &["-o", "remount,ro,bind"]);
        if !done {
            leave_out("root, and leave to mount");
        }
        done.then_some(Self(at))
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_host_whose_etc_is_read_only_is_told_all_that_is_wanted_and_left_as_it_is() {
    let tree = Tree::debian();
    let before = tree.listing();
    let Some(_etc) = ReadOnly::make(&tree, "/etc") else { return };
    for plan in [true, false] {
        let refused = enable(&tree.host(), &settings(SERVICE), plan).unwrap_err();
        assert!(matches!(refused, GuardError::Refused { .. }));
        let refused = refused.to_string();
        for words in [
            "nothing was changed",
            "/etc/nfs.conf.d/heirlock.conf: /etc/nfs.conf.d can't be written: Read-only file system",
            "it has to have these lines:\n    [sm-notify]\n    lift-grace=n\n",
            "/etc/tmpfiles.d/heirlock.conf: ",
            "    f /run/sm-notify.pid 0644 root root -\n",
            "/etc/systemd/system/heirlock.service: ",
            "    mask rpc-statd-notify.service\n    enable heirlock.service",
        ] {
            assert!(refused.contains(words), "{words:?} is not in {refused}");
        }
        assert!(!refused.contains("/run/sm-notify.pid: "), "that one can be written: {refused}");
    }
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
}

#[test]
fn a_file_that_such_a_host_brings_itself_is_as_good_as_ours() {
    let tree = Tree::debian();
    tree.put("/etc/nfs.conf", "[sm-notify]\nlift-grace = n\n");
    let notify = "/etc/systemd/system/rpc-statd-notify.service";
    symlink("/dev/null", tree.host().at(notify)).unwrap();
    tree.put("/nix/tmpfiles.conf", "f /run/sm-notify.pid 0644 root root -\n");
    tree.put("/nix/heirlock.service", "[Service]\nExecStart=/nix/heirlock agent\n");
    for (path, to) in [(TMPFILES_FILE, "/nix/tmpfiles.conf"), (UNIT_FILE, "/nix/heirlock.service")] {
        tree.relink(path, tree.host().at(to).to_str().unwrap());
    }
    let wants = "/etc/systemd/system/multi-user.target.wants/heirlock.service";
    tree.relink(wants, "../heirlock.service");
    let before = tree.listing();
    let Some(_etc) = ReadOnly::make(&tree, "/etc") else { return };
    let steps = on(&tree);
    let brought = format!("{NFS_CONF_FILE} can't be written, and the wanted text is in force");
    assert!(outcomes(&steps, StepOutcome::AlreadySo).contains(&brought.as_str()), "{steps:?}");
    assert_eq!(tree.calls(), ["daemon-reload", "restart heirlock.service"]);
    assert_eq!(rivals::hazards(&tree.host(), &settings(SERVICE)), []);
    off(&tree);
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_single_file_that_can_not_be_replaced_is_named_before_anything_is_changed() {
    let tree = Tree::debian();
    tree.put(NFS_CONF_FILE, "[nfsd]\nthreads=64\n");
    tree.put("/proc/mounts", format!("/dev/sda1 / ext4 rw 0 0\n/dev/sda1 {NFS_CONF_FILE} ext4 rw 0 0\n"));
    let before = tree.listing();
    let refused = enable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("{NFS_CONF_FILE}: something is mounted over this one file")),
        "{refused}"
    );
    assert!(!refused.contains(TMPFILES_FILE), "the others can be written: {refused}");
    assert_eq!((tree.listing(), tree.calls()), (before.clone(), vec![]));
    tree.put("/proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    on(&tree);
    off(&tree);
    assert_eq!(tree.listing(), {
        let mut before = before;
        let mounts = Path::new("proc/mounts");
        before.insert(mounts.into(), tree.listing()[mounts].clone());
        before
    });
}

#[test]
fn a_host_that_became_read_only_is_not_half_given_back() {
    let tree = Tree::debian();
    on(&tree);
    let (under_guard, calls) = (tree.listing(), tree.calls());
    let Some(_etc) = ReadOnly::make(&tree, "/etc") else { return };
    let refused = disable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
    assert!(
        refused.contains("/etc/nfs.conf.d/heirlock.conf: Read-only file system")
            && refused.contains("it has to be removed")
            && refused.contains("then repeat 'heirlock disable'"),
        "{refused}"
    );
    assert_eq!((tree.listing(), tree.calls()), (under_guard, calls), "the agent goes on");
}
