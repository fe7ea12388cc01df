//! The spool of messages that no agent acknowledged: a hidden file beside the records, where the status monitor's user
//! may write, for the next agent to read. rpc.statd and sm-notify take no notice of it. The records themselves lie
//! there as well, so it adds two things: the message itself, and the name of a client whose record went meanwhile.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::{self, Folder, Links};

use super::{Said, from_message, parse};

const NAME: &str = ".heirlock-callouts";

/// The spool while it is being taken in.
const TAKEN: &str = ".heirlock-callouts.taken";

/// Bytes of the whole file: some ten thousand clients. Later clients are in the records alone.
const BYTES_MAX: usize = 1024 * 1024;

/// Bytes of all that is added by callouts which found it below its bound at the same moment.
const LATE_BYTES_MAX: usize = 64 * super::SAID_BYTES_MAX;

/// The spool of one status monitor.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    state_directory: PathBuf,
}

impl Spool {
    /// The one beside these records.
    pub(crate) fn in_state_directory(state_directory: &Path) -> Self {
        Self { state_directory: state_directory.to_owned() }
    }

    /// Notes one down.
    pub(crate) fn append(&self, arguments: &[Vec<u8>]) -> io::Result<()> {
        let mut file = self.sm()?.open_to_append(NAME, BYTES_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => io::Error::new(error.kind(), "the spool is full; start the agent"),
            _ => error,
        })?;
        // One write, so that two callouts don't mix. A name with a newline in it is none, and was refused before.
        let mut line = arguments.join(&0);
        line.push(b'\n');
        file.write_all(&line)
    }

    /// Takes what is there. It lies there until [`Spool::done`] says that it is durable.
    pub(crate) fn take(&self) -> io::Result<Vec<Said>> {
        let Some(sm) = files::if_present(self.sm())? else { return Ok(Vec::new()) };
        if files::if_present(sm.stat_of(TAKEN))?.is_none()
            && files::if_present(sm.rename(NAME, &sm, TAKEN))?.is_none()
        {
            return Ok(Vec::new());
        }
        let read = sm.read(TAKEN, Links::One, BYTES_MAX + LATE_BYTES_MAX);
        if matches!(&read, Err(error) if is_no_spool(error)) {
            // No callout wrote it. It would keep all that is noted from now on from being read.
            files::unless_absent(sm.remove(TAKEN))?;
        }
        let bytes = read?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| parse(&from_message(line)).ok()).collect())
    }

    /// Removes the spool: no agent will read it any more. Its clients lie in the records as well.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let Some(sm) = files::if_present(self.sm())? else { return Ok(()) };
        [NAME, TAKEN].into_iter().try_for_each(|name| files::unless_absent(sm.remove(name)))
    }

    /// All of it is durable.
    pub(crate) fn done(&self) -> io::Result<()> {
        self.sm()?.remove(TAKEN)
    }

    fn sm(&self) -> io::Result<Folder> {
        Folder::open(&self.state_directory)?.folder("sm")
    }
}

fn is_no_spool(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge)
}
