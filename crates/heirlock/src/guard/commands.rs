//! Whether the commands of the configuration can be run. A command that can't would be met in the middle of an adoption.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::config::{Command, Settings};
use crate::files::trusted;
use crate::host::Host;

const CHECK: &str = "commands";

/// All of them.
pub(super) fn check(host: &Host, settings: &Settings) -> Vec<Finding> {
    let commands = settings.commands();
    let mut findings: Vec<Finding> =
        commands.iter().filter_map(|(key, command)| judge(host, key, command)).collect();
    if findings.is_empty() && !commands.is_empty() {
        findings.push(Finding::ok(CHECK, format!("all {} commands can be run", commands.len())));
    }
    findings
}

fn judge(host: &Host, key: &str, command: &Command) -> Option<Finding> {
    let name = command.argv.first()?;
    let Some(path) = host.command(name) else {
        return Some(Finding::loses_locks(
            CHECK,
            format!("{key}: no folder of PATH has a program {name:?}: an adoption that needs it fails"),
            "give its path from the root",
        ));
    };
    let shown = path.display();
    let meta = match trusted::stat(host.at(&path)) {
        Ok(meta) => meta,
        Err(error) => {
            let found = format!("{key}: {shown} can't be seen: {error}");
            return Some(match unmounted_above(host, &path) {
                Some(volume) => Finding::warning(
                    CHECK,
                    format!("{found}; {volume} is not mounted now"),
                    "install the program where it is before an adoption, or look again when the volume is here",
                ),
                None => Finding::loses_locks(
                    CHECK,
                    format!("{found}: an adoption that needs it fails"),
                    "put it there, or correct the key",
                ),
            });
        }
    };
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        let what = if meta.is_file() { "has no mode that lets it be run" } else { "is no file" };
        let found = format!("{key}: {shown} {what}: an adoption that needs it fails");
        return Some(Finding::loses_locks(CHECK, found, format!("chmod 755 {shown}, or correct the key")));
    }
    // The agent runs it as root.
    let others_write = meta.permissions().mode() & 0o022 != 0;
    if ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) || others_write {
        let found = format!(
            "{key}: {shown} belongs to user {} and has mode {:04o}: a user who may change it becomes root",
            meta.uid(),
            meta.mode() & 0o7777
        );
        return Some(Finding::warning(CHECK, found, format!("chown root {shown}, and chmod go-w")));
    }
    path.ancestors().skip(1).find_map(|folder| judge_folder(host, key, &path, folder))
}

/// A user who may rename the entries of a folder may put another program in its place. In a folder with the sticky bit, such
/// as /tmp, only the owner of an entry may.
fn judge_folder(host: &Host, key: &str, program: &Path, folder: &Path) -> Option<Finding> {
    let meta = trusted::stat(host.at(folder)).ok()?;
    let mode = meta.mode() & 0o7777;
    // Debian gives some folders to a group that it trusts (staff); root's own group is root.
    let others_write = mode & 0o002 != 0 && mode & 0o1000 == 0;
    if [0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) && !others_write {
        return None;
    }
    let (program, folder) = (program.display(), folder.display());
    let found = format!(
        "{key}: {program} lies below {folder}, which belongs to user {} and has mode {mode:04o}: a user who may put another program in its place becomes root",
        meta.uid()
    );
    Some(Finding::warning(CHECK, found, "put it where only root may write, as in /usr/local/sbin"))
}

/// The volume of /etc/fstab that a path is on, where it isn't mounted.
fn unmounted_above(host: &Host, path: &Path) -> Option<String> {
    let second = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let mounts = host.mounts();
    let mounted: Vec<String> = mounts.lines().filter_map(second).collect();
    let table = host.text("/etc/fstab").unwrap_or_default();
    let volumes = table.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(second);
    volumes
        .filter(|volume| volume.starts_with('/') && path.starts_with(volume))
        .find(|volume| !mounted.contains(volume))
}

impl Host {
    /// The program that a command names: its path, or the one that PATH has.
    fn command(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') { Some(Path::new(name).to_owned()) } else { self.installed(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::guard::testing::{Tree, settings};
    use std::fs;

    #[test]
    fn a_command_that_cannot_be_run_is_said_with_its_key() {
        let tree = Tree::debian();
        tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
        let said = |command: &str| {
            let found =
                check(&tree.host(), &settings(&format!("[hooks]\nvolume-up = [{command:?}, \"x\"]\n")));
            assert_eq!(found.len(), 1, "{found:?}");
            (found[0].severity, found[0].found.clone())
        };
        assert_eq!(check(&tree.host(), &settings("")), []);
        let (severity, found) = said("/usr/local/sbin/up");
        assert!(
            severity == Severity::LosesLocks && found.starts_with("hooks.volume-up: /usr/local/sbin/up"),
            "{found}"
        );
        assert_eq!(said("up").0, Severity::LosesLocks);
        let (severity, found) = said("/srv/hooks/up");
        assert!(severity == Severity::Warning && found.contains("/srv is not mounted now"), "{found}");
        tree.put("/usr/local/sbin/up", "#!/bin/sh\n");
        let mode = |mode| {
            fs::set_permissions(tree.host().at("/usr/local/sbin/up"), fs::Permissions::from_mode(mode))
                .unwrap();
        };
        mode(0o644);
        assert_eq!(said("/usr/local/sbin/up").0, Severity::LosesLocks);
        assert_eq!(said("/usr/local/sbin").0, Severity::LosesLocks, "a folder");
        mode(0o755);
        assert_eq!(said("/usr/local/sbin/up").0, Severity::Ok);
        assert_eq!(said("up").0, Severity::Ok, "in PATH");
        mode(0o757);
        let (severity, found) = said("up");
        assert!(severity == Severity::Warning && found.contains("becomes root"), "{found}");
        mode(0o755);
        let folder_mode = |mode| {
            let folder = fs::Permissions::from_mode(mode);
            fs::set_permissions(tree.host().at("/usr/local"), folder).unwrap();
        };
        folder_mode(0o757);
        let (severity, found) = said("/usr/local/sbin/up");
        let expected = "/usr/local/sbin/up lies below /usr/local, which belongs to user ";
        assert!(severity == Severity::Warning && found.contains(expected), "{found}");
        folder_mode(0o1757);
        assert_eq!(said("/usr/local/sbin/up").0, Severity::Ok, "as /tmp");
        if rustix::process::geteuid().is_root() {
            folder_mode(0o755);
            std::os::unix::fs::chown(tree.host().at("/usr/local"), Some(4711), None).unwrap();
            assert_eq!(said("/usr/local/sbin/up").0, Severity::Warning, "another user's folder");
        }
    }

    #[test]
    fn every_command_of_the_configuration_is_looked_at() {
        let keys = ["restart-nfs", "restart-status-monitor", "recognise", "incarnation"];
        let lines = |keys: &[&str]| -> String {
            keys.iter().map(|key| format!("{key} = [\"/no/{key}\"]\n")).collect()
        };
        let hooks = ["fence", "volume-up", "address-up", "address-down", "volume-down", "alert"];
        let text = format!("[lock-manager]\n{}[hooks]\n{}", lines(&keys), lines(&hooks));
        let found = check(&Tree::debian().host(), &settings(&text));
        assert_eq!(found.len(), keys.len() + hooks.len(), "{found:?}");
    }
}
