//! Clears up after a demo that was killed: a process of its own waits until the demo is gone, in any way, and removes its folder.
//! The agents end with the demo, as the kernel sees to (`agent --ends-with`).

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How the name of a demo's folder begins. No other folder is removed.
pub(super) const FOLDER_PREFIX: &str = "heirlock-demo-";

/// The demo's word to it where the folder is to stay.
const KEEP: &[u8] = b"keep";

/// How often it tries: an agent that is being killed may still write.
const TRIES_MAX: u32 = 100;

/// Between two tries.
const TRY_INTERVAL: Duration = Duration::from_millis(100);

/// The process, and the pipe by which it learns that the demo is gone.
#[derive(Debug)]
pub(super) struct Sweeper(Child);

impl Sweeper {
    /// Starts one for this folder.
    ///
    /// # Errors
    /// Where the process can't be started.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("can't find this program's own file")?;
        let child = Command::new(program)
            .args(["demo", "--sweep"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the demo alone.
            .process_group(0)
            .spawn()
            .context("can't start the process that clears up after the demo")?;
        Ok(Self(child))
    }

    /// The folder is to stay.
    pub(super) fn keep(&mut self) {
        if let Some(pipe) = &mut self.0.stdin {
            // A sweeper that is gone removes nothing either.
            let _ = pipe.write_all(KEEP);
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The process: waits for the end of standard input, and removes the folder unless it is told to keep it.
///
/// # Errors
/// Where the folder is none that a demo of this user made, or can't be removed.
pub(crate) fn sweep(folder: &Path) -> Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let found =
        fs::symlink_metadata(folder).with_context(|| format!("can't look at {}", folder.display()))?;
    let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !name.starts_with(FOLDER_PREFIX) || !ours {
        bail!("expected a folder that a demo of this user made, found {}", folder.display());
    }
    let mut said = Vec::new();
    // An error is an end as well.
    let _ = io::stdin().take(64).read_to_end(&mut said);
    if said == KEEP {
        return Ok(());
    }
    for _ in 0..TRIES_MAX {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(()) | Err(_) => thread::sleep(TRY_INTERVAL),
        }
        if !folder.exists() {
            return Ok(());
        }
    }
    bail!("{} can't be removed", folder.display())
}
