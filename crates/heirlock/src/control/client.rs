//! Asks the agent of this server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use heirlock_core::hang::Doing;
use rustix::process::Pid;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::host::{doing, runs_systemd};
use crate::limits;

use super::{Answer, Failure, LINE_BYTES_MAX, Line, Progress, Request, SOCKET, Wait, read_only, trust};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// No agent listens.
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
        /// the expectation and the finding
        #[source]
        source: io::Error,
    },
    /// It listens and says nothing.
    #[error("the agent at {path} does not answer within {} s: {}; {}", limits::STATUS_TIME_MAX.as_secs(), state_of(*.agent), remedy_of(*.agent))]
    Silent {
        /// where
        path: String,
        /// its process, where that is known
        agent: Option<Pid>,
    },
    /// It lives, and its loop, which does what was asked, makes no turn.
    #[error(
        "the agent at {path} lives ({}), but its loop last turned {turned_s} s ago: it waits for its store or for a command \
         of the lock manager; the request is carried out when it goes on, so look with 'heirlock status' before you ask \
         again; {}",
        state_of(*.agent), remedy_of(*.agent)
    )]
    Busy {
        /// where
        path: String,
        /// its process, where that is known
        agent: Option<Pid>,
        /// how long ago its loop made a turn
        turned_s: u64,
    },
    /// It went away in the middle.
    #[error(
        "the agent went away before it was done: {why}; {}: it goes on where it was, see 'heirlock status'",
        how_to_start()
    )]
    Gone {
        /// the evidence
        why: String,
    },
    /// It could not, or would not.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// The state of the process of an agent that does not answer.
fn state_of(agent: Option<Pid>) -> String {
    let Some(agent) = agent else { return "what process it is is not known".to_owned() };
    let number = agent.as_raw_nonzero();
    let doing = u32::try_from(number.get()).ok().and_then(doing::of_program).map(|look| look.doing);
    let what = match doing {
        Some(Doing::Stopped) => "is stopped by a signal",
        Some(Doing::WaitsForDisk) => "waits for a disk or a volume that does not answer",
        Some(Doing::Runs) => "runs, on a host that is too busy",
        Some(Doing::Sleeps) => "sleeps",
        Some(Doing::Gone) | None => "has ended",
    };
    format!("process {number} {what}")
}

/// The remedy that an administrator has, as part of a sentence.
fn remedy_of(agent: Option<Pid>) -> String {
    let number = agent.map_or_else(|| "PID".to_owned(), |agent| agent.as_raw_nonzero().to_string());
    let doing = agent.and_then(|agent| u32::try_from(agent.as_raw_nonzero().get()).ok());
    if doing.and_then(doing::of_program).is_some_and(|look| look.doing == Doing::Stopped) {
        return format!("let it go on ('kill -CONT {number}')");
    }
    match runs_systemd() {
        true => "see its log ('journalctl -u heirlock'), and begin it anew with 'systemctl restart heirlock': no lock is lost \
                 by that"
            .to_owned(),
        false => format!(
            "see its log, end it ('kill -KILL {number}') and begin it anew: no lock is lost by that"
        ),
    }
}

/// How an administrator starts the agent of this host, as part of a sentence.
pub(crate) fn how_to_start() -> &'static str {
    match runs_systemd() {
        true => "start it with 'systemctl start heirlock'",
        false => "start it ('heirlock agent')",
    }
}

/// Asks, hands on what goes on, and returns the answer. While the agent says nothing, whether its loop turns is asked in
/// another connection, which is answered without the loop.
///
/// # Errors
/// Where no agent answers, another user could answer in its place, its loop does not turn, or it could not do what it was
/// asked.
pub(crate) fn ask(
    runtime_directory: &Path,
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Result<Answer, AskError> {
    let mut connection = Connection::open(&runtime_directory.join(SOCKET))?;
    // A status is answered even while the agent's loop is busy.
    let patience = match request {
        Request::Status => limits::STATUS_TIME_MAX,
        _ => limits::SILENCE_LOOK,
    };
    connection.send(request, patience)?;
    loop {
        match connection.next()? {
            Some(Line::Progress(step)) => progress(step),
            Some(Line::Done(answer)) => return Ok(answer),
            Some(Line::Failed(failure)) => return Err(AskError::Failed(failure)),
            None if *request == Request::Status => return Err(connection.silent()),
            None => {
                if let Some(wait) = connection.why_silent(runtime_directory)? {
                    progress(Progress::waiting(wait));
                }
            }
        }
    }
}

/// Asks for the status at the read-only socket of an agent.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_read_only(runtime_directory: &Path) -> Result<Answer, AskError> {
    ask_at(&read_only::folder(runtime_directory).join(read_only::SOCKET), &Request::Status)
}

/// Asks at this socket for something that is answered at once.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_at(socket: &Path, request: &Request) -> Result<Answer, AskError> {
    let mut connection = Connection::open(socket)?;
    connection.send(request, limits::STATUS_TIME_MAX)?;
    match connection.next()? {
        Some(Line::Done(answer)) => Ok(answer),
        Some(Line::Failed(failure)) => Err(AskError::Failed(failure)),
        Some(Line::Progress(_)) | None => Err(connection.silent()),
    }
}

/// One question, and its answer as far as it came.
struct Connection {
    path: String,
    agent: Pid,
    lines: BufReader<UnixStream>,
    /// The piece of a line that came before a pause.
    begun: Vec<u8>,
    /// The wait that is reported while its loop makes no turn: the same words until it does, so that they are one wait.
    waits_for: Option<String>,
}

impl Connection {
    fn open(path: &Path) -> Result<Self, AskError> {
        // A socket without a folder lies in this one.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let shown = path.display().to_string();
        let no_agent = |source| AskError::NoAgent { path: shown.clone(), source };
        let untrusted = |source| AskError::Untrusted { path: shown.clone(), source };
        match trust::check_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_agent(error)),
            checked => checked.map_err(untrusted)?,
        }
        let stream = connect(path).map_err(|error| match is_timeout(&error) {
            true => AskError::Silent { path: shown.clone(), agent: None },
            false => no_agent(error),
        })?;
        let agent = trust::check_other_end(&stream).map_err(untrusted)?;
        Ok(Self { path: shown, agent, lines: BufReader::new(stream), begun: Vec::new(), waits_for: None })
    }

    fn send(&mut self, request: &Request, patience: Duration) -> Result<(), AskError> {
        let mut line = serde_json::to_string(request).map_err(|error| unclear(&error))?;
        line.push('\n');
        let mut stream = self.lines.get_ref();
        let sent = stream.set_read_timeout(Some(patience)).and_then(|()| stream.write_all(line.as_bytes()));
        sent.map_err(|error| self.gone(&error))
    }

    /// The next line; nothing where none has come in time.
    fn next(&mut self) -> Result<Option<Line>, AskError> {
        let left = LINE_BYTES_MAX.saturating_sub(self.begun.len());
        let limit = u64::try_from(left).unwrap_or(u64::MAX);
        match self.lines.by_ref().take(limit).read_until(b'\n', &mut self.begun) {
            Ok(_) if self.begun.is_empty() => Err(AskError::Gone { why: "it closed the connection".into() }),
            Ok(_) => {
                let line = std::mem::take(&mut self.begun);
                serde_json::from_slice(&line).map(Some).map_err(|error| unclear(&error))
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(self.gone(&error)),
        }
    }

    /// The reason for which a silent agent waits; nothing where its loop turns.
    fn why_silent(&mut self, runtime_directory: &Path) -> Result<Option<Wait>, AskError> {
        let Answer::Status(report) = ask(runtime_directory, &Request::Status, |_| {})? else {
            return Ok(None);
        };
        let turned = report.loop_turned_ms_ago.map(Duration::from_millis).unwrap_or_default();
        if turned >= limits::BUSY_TIME_MAX {
            let (path, agent) = (self.path.clone(), Some(self.agent));
            return Err(AskError::Busy { path, agent, turned_s: turned.as_secs() });
        }
        if turned < limits::SILENCE_LOOK {
            self.waits_for = None;
            return Ok(None);
        }
        let left = limits::BUSY_TIME_MAX - turned;
        let agent = self.agent.as_raw_nonzero();
        let for_what = self.waits_for.get_or_insert_with(|| {
            format!(
                "the agent (process {agent}), whose loop had made no turn for {} s: its store or a command of the lock \
                 manager does not answer",
                turned.as_secs()
            )
        });
        Ok(Some(Wait { for_what: for_what.clone(), at_most_ms: u64::try_from(left.as_millis()).ok() }))
    }

    fn silent(&self) -> AskError {
        AskError::Silent { path: self.path.clone(), agent: Some(self.agent) }
    }

    fn gone(&self, error: &io::Error) -> AskError {
        if is_timeout(error) { self.silent() } else { AskError::Gone { why: error.to_string() } }
    }
}

/// Connects, within the time that an agent has for an answer: one that is stopped takes connections only until its queue is
/// full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It bounds the connecting as well (unix(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(limits::STATUS_TIME_MAX))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn unclear(error: &serde_json::Error) -> AskError {
    AskError::Gone { why: error.to_string() }
}
