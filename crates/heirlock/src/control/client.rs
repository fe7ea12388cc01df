//! Asks the agent of this server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

use crate::limits;

use super::{Answer, Failure, LINE_BYTES_MAX, Line, Progress, Request, SOCKET, trust};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// Nobody listens.
    #[error(
        "no agent answers at {path}: {source}; {}, or name its configuration with --config",
        how_to_start()
    )]
    NoAgent {
        /// where
        path: String,
        /// why
        #[source]
        source: io::Error,
    },
    /// Another user may have put a socket of their own there.
    #[error("the agent at {path} is not asked, since another user may have taken its place: {source}")]
    Untrusted {
        /// where
        path: String,
        /// what was expected and found
        #[source]
        source: io::Error,
    },
    /// It listens and says nothing.
    #[error("the agent at {path} does not answer within {} s: it is stopped, or hangs", limits::STATUS_TIME_MAX.as_secs())]
    Silent {
        /// where
        path: String,
    },
    /// It went away in the middle.
    #[error(
        "the agent went away before it was done: {why}; {}: it goes on where it was, see 'heirlock status'",
        how_to_start()
    )]
    Gone {
        /// what was seen of it
        why: String,
    },
    /// It could not, or would not.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// How an administrator starts the agent of this host, as part of a sentence.
pub(crate) fn how_to_start() -> &'static str {
    // sd_booted(3)
    match Path::new("/run/systemd/system").is_dir() {
        true => "start it with 'systemctl start heirlock'",
        false => "start it ('heirlock agent')",
    }
}

/// Asks, hands on what goes on, and returns the answer.
///
/// # Errors
/// Where no agent answers, another user could answer in its place, or it could not do what it was asked.
pub(crate) fn ask(
    runtime_directory: &Path,
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Result<Answer, AskError> {
    let path = runtime_directory.join(SOCKET);
    let no_agent = |source| AskError::NoAgent { path: path.display().to_string(), source };
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Silent { path: path.display().to_string() }
        }
        _ => AskError::Gone { why: error.to_string() },
    };
    let unclear = |error: serde_json::Error| AskError::Gone { why: error.to_string() };
    let untrusted = |source| AskError::Untrusted { path: path.display().to_string(), source };
    match trust::check_folder(runtime_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_agent(error)),
        checked => checked.map_err(untrusted)?,
    }
    let mut stream = UnixStream::connect(&path).map_err(no_agent)?;
    trust::check_peer(&stream).map_err(untrusted)?;
    if *request == Request::Status {
        // Everything else takes as long as it takes; this one is answered even while the agent's loop is busy.
        stream.set_read_timeout(Some(limits::STATUS_TIME_MAX)).map_err(gone)?;
    }
    let mut line = serde_json::to_string(request).map_err(unclear)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(gone)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        if lines.by_ref().take(limit).read_line(&mut line).map_err(gone)? == 0 {
            return Err(AskError::Gone { why: "it closed the connection".into() });
        }
        match serde_json::from_str(&line).map_err(unclear)? {
            Line::Progress(step) => progress(step),
            Line::Done(answer) => return Ok(answer),
            Line::Failed(failure) => return Err(AskError::Failed(failure)),
        }
    }
}
