//! Processes of the machine: started with their output, found by namespace, ended by id.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::{KILL_TIME_MAX, POLL};

/// Runs a program of the machine to its end and gives what it wrote.
///
/// # Errors
/// When it can't be started or its exit code is not 0; the error has its output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process-id namespace: all processes of one guest's kernel share one. It is held open, so that its number
/// can't be given to the next guest while this one is being killed.
#[derive(Debug)]
pub struct PidNamespace {
    _held: File,
    inode: u64,
}

impl PartialEq for PidNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

impl PidNamespace {
    /// The namespace of the calling process.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn own() -> Result<Self> {
        Self::open("/proc/self/ns/pid")
    }

    /// The namespace that the children of that process live in.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of_children(parent: u32) -> Result<Self> {
        Self::open(&format!("/proc/{parent}/ns/pid_for_children"))
    }

    fn open(path: &str) -> Result<Self> {
        let held = File::open(path).with_context(|| format!("can't open {path}"))?;
        let inode = held.metadata()?.ino();
        Ok(Self { _held: held, inode })
    }

    /// The processes of the machine that live in it. A zombie has no namespace any more.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|id| {
                fs::metadata(format!("/proc/{id}/ns/pid")).is_ok_and(|entry| entry.ino() == self.inode)
            })
            .collect()
    }

    /// SIGKILL to members, once.
    pub fn kill(members: &[i32]) {
        for id in members {
            // Gone between the look and the kill is as good as killed.
            Pid::from_raw(*id).map(|id| kill_process(id, Signal::KILL));
        }
    }

    /// SIGKILL to every member, again and again until none is left: a traced child that loses its tracer may
    /// still fork, and would spin for ever.
    ///
    /// # Errors
    /// When some are still there after [`KILL_TIME_MAX`], or when it is the lab's own namespace.
    pub fn kill_all(&self) -> Result<()> {
        if *self == Self::own()? {
            bail!("the guest has no process namespace of its own; refusing to kill the machine's processes");
        }
        let deadline = Instant::now() + KILL_TIME_MAX;
        loop {
            let members = self.members();
            if members.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("processes {members:?} are still there {} s after SIGKILL", KILL_TIME_MAX.as_secs());
            }
            Self::kill(&members);
            std::thread::sleep(POLL / 10);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_shows_what_it_wrote() {
        let error =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("out\nerr"), "{error}");
        assert_eq!(run(Command::new("echo").arg("fine")).unwrap(), "fine\n");
    }

    #[test]
    fn members_are_found_and_the_own_namespace_is_never_killed() {
        let own = PidNamespace::own().unwrap();
        assert!(own.members().contains(&i32::try_from(std::process::id()).unwrap()));
        assert!(own.kill_all().unwrap_err().to_string().contains("refusing"));
    }
}
