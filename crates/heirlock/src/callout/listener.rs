//! The agent's end: a socket that only the status monitor's user can reach.

use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use heirlock_core::log_limit::{Source, cut};
use rustix::net::sockopt::socket_peercred;

use crate::accept::accept_all;
use crate::files::{self, trusted};
use crate::from_elsewhere;
use crate::threads::{self, Lasting};

use super::{ACKNOWLEDGED, SAID_BYTES_MAX, SOCKET, Said, from_message, parse};

/// How long a caller may take to say what it has to say: it is one write.
const PATIENCE: Duration = Duration::from_millis(200);

/// Listens until the agent ends. Its socket file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    thread: Option<Lasting>,
}

/// A callout that waits for an answer.
#[derive(Debug)]
pub(crate) struct Waiting(UnixStream);

impl Listener {
    /// Listens in this directory. `sm` is the folder whose owner may speak, besides root.
    ///
    /// # Errors
    /// Where the socket can't be made.
    pub(crate) fn start(
        runtime_directory: &Path,
        sm: PathBuf,
        said: impl Fn(Said, Waiting) + Send + 'static,
    ) -> io::Result<Self> {
        let path = runtime_directory.join(SOCKET);
        files::unless_absent(trusted::remove(&path))?;
        let listener = UnixListener::bind(&path)?;
        trusted::set_mode(&path, 0o600)?;
        // The status monitor's user must get there, and root. Another user that could connect could make callouts wait.
        let mode = trusted::stat(runtime_directory)?.permissions().mode();
        trusted::set_mode(runtime_directory, mode | 0o111)?;
        let owner = owner_of(&sm);
        if owner != rustix::process::geteuid().as_raw() {
            trusted::set_owner(&path, owner)?;
        }
        let thread = threads::lasting("callouts", move || {
            Err(accept_all(&listener, SOCKET, |stream| {
                let mut waiting = Waiting(stream);
                match waiting.hear(&sm) {
                    Ok(heard) => said(heard, waiting),
                    Err(why) => {
                        if from_elsewhere::may_say("callout not understood", waiting.speaker()) {
                            tracing::warn!(why = cut(&why), "a callout was not understood: {why}");
                        }
                        waiting.answer(&Err(why));
                    }
                }
            }))
        })?;
        Ok(Self { path, thread: Some(thread) })
    }

    /// The thread that takes callouts in, for the watchdog to keep.
    pub(crate) fn take_thread(&mut self) -> Option<Lasting> {
        self.thread.take()
    }
}

/// The status monitor's user. Where there is no such folder yet, root.
fn owner_of(sm: &Path) -> u32 {
    trusted::stat_of_link(sm).map(|meta| meta.uid()).unwrap_or(0)
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = trusted::remove(&self.path);
    }
}

impl Waiting {
    /// It is durable, or isn't.
    pub(crate) fn answer(mut self, done: &Result<(), String>) {
        let words = match done {
            Ok(()) => ACKNOWLEDGED.to_vec(),
            Err(why) => format!("{why}\n").into_bytes(),
        };
        // The agent's loop writes it: some words always find room, for nothing was written before them. A callout that waits no
        // longer has noted it in the spool.
        let _ = self.0.set_nonblocking(true).and_then(|()| self.0.write_all(&words));
    }

    /// The user whom the kernel names at the other end.
    fn speaker(&self) -> Source {
        socket_peercred(&self.0).map_or(Source::Unknown, |speaker| Source::User(speaker.uid.as_raw()))
    }

    fn hear(&mut self, sm: &Path) -> Result<Said, String> {
        let speaker = socket_peercred(&self.0).map_err(|error| error.to_string())?.uid.as_raw();
        let owner = owner_of(sm);
        if speaker != 0 && speaker != owner {
            return Err(format!(
                "expected root or user {owner}, who owns {}, found user {speaker}",
                sm.display()
            ));
        }
        let in_words = |error: io::Error| error.to_string();
        self.0.set_read_timeout(Some(PATIENCE)).map_err(in_words)?;
        self.0.set_write_timeout(Some(PATIENCE)).map_err(in_words)?;
        let mut message = Vec::new();
        let limit = u64::try_from(SAID_BYTES_MAX).unwrap_or(u64::MAX);
        (&self.0).take(limit + 1).read_to_end(&mut message).map_err(in_words)?;
        if message.len() > SAID_BYTES_MAX {
            return Err(format!("expected at most {SAID_BYTES_MAX} bytes, found more"));
        }
        parse(&from_message(&message))
    }
}
