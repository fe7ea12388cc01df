//! Ends a process with all that it began.
//!
//! A process group is not enough: a program in a session of its own (setsid, sudo with a terminal) has another group. So the
//! processes are found by their parents. A process whose parent has ended before is no descendant any more, as a daemon wants it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Signal, pidfd_send_signal};

use super::process;
use crate::files::trusted;
use crate::limits::{DESCENDANTS_ROUNDS_MAX, PROCESSES_MAX};

/// Kills a child of this program that was not waited for yet, and all its descendants. Each is stopped before the next are looked
/// for, so that none of them begins another one meanwhile.
pub(crate) fn kill_with_descendants(root: u32) {
    // Else its number is another's: it was waited for, or /proc shows another namespace.
    if parent_of(root) != Some(std::process::id()) {
        return;
    }
    let mut stopped: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    for _ in 0..DESCENDANTS_ROUNDS_MAX {
        let parents = parents();
        let found: Vec<u32> = parents.keys().copied().filter(|pid| descends(*pid, root, &parents)).collect();
        let before = stopped.len();
        for pid in
            found.into_iter().chain([root]).filter(|pid| !stopped.contains_key(pid)).collect::<Vec<_>>()
        {
            // Where its parent is the same after it was opened, it is the one that was found.
            let Some(process) =
                process::handle_of(pid).filter(|_| parent_of(pid) == parents.get(&pid).copied())
            else {
                continue;
            };
            let _ = pidfd_send_signal(&process, Signal::STOP);
            stopped.insert(pid, process);
        }
        if stopped.len() == before {
            break;
        }
    }
    for process in stopped.values() {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

/// Each process with its parent.
fn parents() -> BTreeMap<u32, u32> {
    let names = trusted::names(Path::new("/proc"), PROCESSES_MAX).unwrap_or_default();
    let pids = names.into_iter().filter_map(|name| name.to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
}

/// The fourth field of /proc/PID/stat (proc(5)).
fn parent_of(pid: u32) -> Option<u32> {
    let stat = trusted::read_system(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is below another one. The table was not read at one moment, so a circle is possible.
fn descends(pid: u32, root: u32, parents: &BTreeMap<u32, u32>) -> bool {
    let above = std::iter::successors(parents.get(&pid).copied(), |above| parents.get(above).copied());
    above.take(parents.len()).any(|above| above == root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_a_process_follow_from_the_parents_alone() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 7), (7, 6)]);
        let below: Vec<u32> = parents.keys().copied().filter(|pid| descends(*pid, 2, &parents)).collect();
        assert_eq!(below, [3, 4]);
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
