//! What no agent acknowledged, for the next one to read: a hidden file beside the records, since that is where the
//! status monitor's user may write. rpc.statd and sm-notify take no notice of it. The records themselves lie there as
//! well, so it adds two things: that somebody says so, and that a client is not forgotten whose record went meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Said, from_message};

const NAME: &str = ".heirlock-callouts";

/// What is being taken in.
const TAKEN: &str = ".heirlock-callouts.taken";

/// Bytes of the whole file: some ten thousand clients. What comes then is in the records alone.
const BYTES_MAX: u64 = 1024 * 1024;

/// The spool of one status monitor.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    sm: PathBuf,
}

impl Spool {
    /// The one beside these records.
    pub(crate) fn in_state_directory(state_directory: &Path) -> Self {
        Self { sm: state_directory.join("sm") }
    }

    /// Notes one down.
    pub(crate) fn append(&self, arguments: &[Vec<u8>]) -> io::Result<()> {
        let mut file = open(&self.sm.join(NAME), OpenOptions::new().append(true).create(true))?;
        if file.metadata()?.len() >= BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the spool is full; start the agent"));
        }
        // One write, so that two callouts don't mix. A name with a newline in it is none, and was refused before.
        let mut line = arguments.join(&0);
        line.push(b'\n');
        file.write_all(&line)
    }

    /// Takes what is there. It lies there until [`Spool::done`] says that it is durable.
    pub(crate) fn take(&self) -> io::Result<Vec<Said>> {
        let taken = self.sm.join(TAKEN);
        if !taken.try_exists()? {
            match fs::rename(self.sm.join(NAME), &taken) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                renamed => renamed?,
            }
        }
        let mut bytes = Vec::new();
        open(&taken, OpenOptions::new().read(true))?.take(2 * BYTES_MAX).read_to_end(&mut bytes)?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| Said::parse(&from_message(line)).ok()).collect())
    }

    /// Nobody will read it any more. What it notes lies in the records as well.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for name in [NAME, TAKEN] {
            match fs::remove_file(self.sm.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All of it is durable.
    pub(crate) fn done(&self) -> io::Result<()> {
        fs::remove_file(self.sm.join(TAKEN))
    }
}

/// The folder belongs to another user than the agent's: no link of theirs leads us elsewhere, no pipe makes us wait.
fn open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = how.mode(0o600).custom_flags(flags.cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a file, found something else"));
    }
    Ok(file)
}
