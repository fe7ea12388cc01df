//! Processes of this host, known by more than a name: any user may run a program of any name, and a container's programs are
//! seen among the host's own.
//!
//! A process counts if it runs in our network namespace, for root or for another user that is named. Its program is the
//! one behind `/proc/<pid>/exe`. A process that the kernel doesn't let us see counts against us: only root sees
//! everything.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Host;
use crate::files::trusted;

/// A descriptor of a process, which stays that process's and tells of its end (pidfd_open(2)). None where there is no process of that
/// number, where the kernel is older than 5.3, or has no room for one.
pub(crate) fn handle_of(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The mark that the kernel adds to the path of a program that was replaced while it runs (proc(5)).
const REPLACED: &str = " (deleted)";

/// A process that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: u32,
    /// The user that it runs as.
    pub(crate) user: u32,
    /// It is a container's, though it speaks on this host's network: its own tools end it.
    pub(crate) in_container: bool,
}

/// The first process that is this program and runs for root or for one of these users, in our network namespace.
pub(crate) fn find(host: &Host, program: &str, users: &[u32]) -> Option<Process> {
    let net = trusted::read_link(host.of_process("ns/net"));
    numbers(host).into_iter().find_map(|pid| {
        if !is_program(host, pid, program) || !shares(&net, &link(host, pid, "ns/net")) {
            return None;
        }
        let user = user(host, pid).filter(|user| *user == 0 || users.contains(user))?;
        let own = trusted::read_link(host.of_process("ns/pid"));
        let in_container = !shares(&own, &link(host, pid, "ns/pid"));
        Some(Process { pid, user, in_container })
    })
}

/// All processes, in their order.
pub(crate) fn numbers(host: &Host) -> Vec<u32> {
    let mut pids: Vec<u32> =
        host.list("/proc").unwrap_or_default().iter().filter_map(|entry| entry.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The arguments of a process, its own name first.
pub(crate) fn arguments(host: &Host, pid: u32) -> Vec<String> {
    let text = host.text(folder(pid).join("cmdline")).unwrap_or_default();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// The values that a command line sets, by the short options, as getopt_long(3) reads it: the last one counts. `valued` are
/// the options that have a value, the short one and the long one.
pub(crate) fn options(arguments: &[String], valued: &[(char, &str)]) -> BTreeMap<char, String> {
    let mut found = BTreeMap::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let (option, value) = if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let exact = valued.iter().find(|(_, known)| *known == name);
            let mut alike = valued.iter().filter(|(_, known)| known.starts_with(name));
            let Some((short, _)) = exact.or_else(|| alike.next()) else { continue };
            (*short, value)
        } else {
            let cluster = word.strip_prefix('-').unwrap_or_default();
            let valued = |(_, c): &(usize, char)| valued.iter().any(|(short, _)| short == c);
            let Some((at, short)) = cluster.char_indices().find(valued) else { continue };
            (short, cluster.get(at + 1..).filter(|value| !value.is_empty()))
        };
        let value = value.map(str::to_owned).or_else(|| words.next().cloned());
        found.extend(value.map(|value| (option, value)));
    }
    found
}

/// Where it works.
pub(crate) fn working_directory(host: &Host, pid: u32) -> Option<PathBuf> {
    link(host, pid, "cwd").ok()
}

/// The file name of the program that a process is; where we may not see that, the name that it gives itself.
pub(crate) fn program(host: &Host, pid: u32) -> Option<String> {
    match link(host, pid, "exe") {
        Ok(path) => {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(name.strip_suffix(REPLACED).map_or(name.clone(), str::to_owned))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            host.text(folder(pid).join("comm")).map(|comm| comm.trim_end().to_owned())
        }
        // A thread of the kernel is no program.
        Err(_) => None,
    }
}

/// The user of a process: the one that started it, where the process didn't change its user itself. A program that has its file's
/// owner's rights (setuid) is still its starter's.
fn user(host: &Host, pid: u32) -> Option<u32> {
    let status = host.text(folder(pid).join("status"))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut users = users.split_whitespace().map_while(|user| user.parse::<u32>().ok());
    let (real, effective) = (users.next()?, users.next()?);
    Some(if real == 0 { effective } else { real })
}

fn is_program(host: &Host, pid: u32, name: &str) -> bool {
    let Some(found) = program(host, pid) else { return false };
    // Nix starts many a program by another of a hidden name.
    found == name || found.strip_prefix('.').and_then(|found| found.strip_suffix("-wrapped")) == Some(name)
}

/// Whether two links to namespaces lead to the same one; one that can't be seen may be.
fn shares(ours: &io::Result<PathBuf>, theirs: &io::Result<PathBuf>) -> bool {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        // It has ended in the meantime.
        (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => false,
        _ => true,
    }
}

fn link(host: &Host, pid: u32, name: &str) -> io::Result<PathBuf> {
    trusted::read_link(host.proc(pid.to_string()).join(name))
}

/// Where the kernel tells of a process.
pub(crate) fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// When a process was started, in seconds since 1970.
pub(crate) fn started_at(host: &Host, pid: u32) -> Option<i64> {
    let boot = host.booted_at()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let stat = host.text(folder(pid).join("stat"))?;
    // Field 22 of proc(5); the name before it may hold anything.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    i64::try_from(boot + ticks / rustix::param::clock_ticks_per_second().max(1)).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command};

    use super::*;
    use crate::host::testing::{Tree, ended};

    #[test]
    fn only_a_program_of_ours_or_of_a_named_user_in_our_network_counts() {
        let tree = Tree::new();
        let users = [4711];
        let found = || find(&tree.host(), "sm-notify", &users).map(|process| (process.pid, process.user));
        assert_eq!(found(), None);
        tree.process(10, "/usr/bin/sleep", 0);
        tree.put("/proc/10/comm", "sm-notify\n");
        tree.process(11, "/tmp/sm-notify", 1000);
        tree.process(12, "/usr/sbin/sm-notify", 0);
        tree.relink("/proc/12/ns/net", "net:[2]");
        assert_eq!(found(), None, "its name alone, another user's, a container's");
        tree.process(13, "/usr/sbin/sm-notify", 4711);
        assert_eq!(found(), Some((13, 4711)));
        tree.process(9, "/opt/nfs/sm-notify (deleted)", 0);
        assert_eq!(found(), Some((9, 0)), "replaced while it runs");
        tree.put("/proc/9/status", "Name:\tx\nUid:\t1000\t0\t0\t0\n");
        assert_eq!(found(), Some((13, 4711)), "a user that runs a program of root's is not root");
        tree.process(8, "/nix/store/x/bin/.sm-notify-wrapped", 0);
        assert_eq!(found(), Some((8, 0)));
    }

    #[test]
    fn a_process_of_a_container_on_our_network_is_told_from_our_own() {
        let tree = Tree::new();
        tree.process(13, "/usr/sbin/sm-notify", 0);
        assert!(!find(&tree.host(), "sm-notify", &[]).unwrap().in_container);
        tree.relink("/proc/13/ns/pid", "pid:[2]");
        assert!(find(&tree.host(), "sm-notify", &[]).unwrap().in_container);
    }

    /// On the real /proc, with a program of a name that no other process has.
    #[test]
    fn a_process_of_this_host_is_found_and_one_of_another_network_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("h-{:08x}", fastrand::u32(..));
        let program = folder.path().join(&name);
        fs::copy("/bin/sleep", &program).unwrap();
        let host = Host::here();
        let own = rustix::process::getuid().as_raw();
        // execve is done when the program is seen with what it was given.
        let awaited = |child: &Child| {
            while super::program(&host, child.id()).as_ref() != Some(&name)
                || arguments(&host, child.id()).len() != 2
            {}
        };
        let child = Command::new(&program).arg("600").spawn().unwrap();
        awaited(&child);
        assert_eq!(find(&host, &name, &[own]).map(|process| process.pid), Some(child.id()));
        assert_eq!(arguments(&host, child.id()), [program.to_str().unwrap(), "600"]);
        ended(child);
        assert_eq!(find(&host, &name, &[own]), None);
        if own != 0 {
            return;
        }
        let child = Command::new("unshare").arg("-n").arg(&program).arg("600").spawn().unwrap();
        awaited(&child);
        assert_eq!(find(&host, &name, &[own]), None, "in a network of its own");
        ended(child);
    }
}
