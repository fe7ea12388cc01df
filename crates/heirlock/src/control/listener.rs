//! The agent's end of the control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, Failure, Line, Progress, Request, SOCKET};

/// Connections at the same time: each has a thread.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take to say what it wants, and to take in what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long whoever listens where we want to may be the rest of an agent that is gone: a command that it was starting
/// when it was killed holds its socket until execve.
const REMAINS_MAX: Duration = Duration::from_secs(2);

/// How often we look whether the rest is gone.
const REMAINS_LOOK: Duration = Duration::from_millis(20);

/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Listens until the agent ends. Its socket file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
}

/// Answers one request.
#[derive(Debug)]
pub(crate) struct Responder {
    stream: UnixStream,
}

impl Listener {
    /// Listens in this directory and hands every request on.
    ///
    /// # Errors
    /// Where another agent listens there and goes on to, or the socket can't be made.
    pub(crate) fn start(
        runtime_directory: &Path,
        requested: impl Fn(Request, Responder) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        fs::create_dir_all(runtime_directory)?;
        let path = runtime_directory.join(SOCKET);
        if goes_on_listening(&path) {
            let what = format!("another agent listens at {}: one server has one agent", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        // What an agent that was killed left behind.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let requested = Arc::new(requested);
        thread::spawn(move || accept(&listener, &requested));
        Ok(Self { path })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Somebody listens there, and not only because a part of a dead agent is not gone yet.
fn goes_on_listening(path: &Path) -> bool {
    let end = Instant::now() + REMAINS_MAX;
    while UnixStream::connect(path).is_ok() {
        if Instant::now() >= end {
            return true;
        }
        thread::sleep(REMAINS_LOOK);
    }
    false
}

fn accept<F: Fn(Request, Responder) + Send + Sync + 'static>(listener: &UnixListener, requested: &Arc<F>) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().filter_map(Result::ok) {
        if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            connections.fetch_sub(1, Ordering::Relaxed);
            Responder { stream }.failed("too many questions at once; ask again later", true);
            continue;
        }
        let (requested, connections) = (Arc::clone(requested), Arc::clone(&connections));
        thread::spawn(move || {
            let responder = Responder { stream };
            match responder.read_request() {
                Ok(request) => requested(request, responder),
                Err(error) => responder.failed(&format!("expected a request, found none: {error}"), true),
            }
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl Responder {
    /// Says how far it is; `false` where nobody listens any more.
    pub(crate) fn progress(&mut self, progress: &Progress) -> bool {
        self.send(&Line::Progress(progress.clone())).is_ok()
    }

    /// It is done.
    pub(crate) fn done(mut self, answer: Answer) {
        // Whoever asked may be gone; what was done is done.
        let _ = self.send(&Line::Done(answer));
    }

    /// A run that was waited for is over, for this one and perhaps for others.
    pub(crate) fn end(self, answer: &Result<Answer, Failure>) {
        match answer {
            Ok(answer) => self.done(answer.clone()),
            Err(failure) => self.fail(failure.clone()),
        }
    }

    /// It is not done.
    pub(crate) fn failed(self, message: &str, refused: bool) {
        self.fail(Failure { message: message.to_owned(), refused, report: None });
    }

    /// It is not done, and this is known.
    pub(crate) fn fail(mut self, failure: Failure) {
        let _ = self.send(&Line::Failed(failure));
    }

    fn read_request(&self) -> io::Result<Request> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&self.stream).take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn send(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.stream.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::AskError;
    use super::super::{ask, report};
    use super::*;

    fn report_of(phase: &str) -> report::AdoptionReport {
        serde_json::from_value(serde_json::json!({
            "service": "nfs", "generation": 2, "state_number": 5, "strategy": "restart-nfs", "phase": phase,
            "clients": 0, "re_registered": 0, "acknowledged": 0, "unreachable": 0, "lost": 0, "unknown": 0,
            "timeline": [], "slowest": [], "failed": [], "others": [], "records_at": "/x", "started_at_s": 0
        }))
        .unwrap()
    }

    #[test]
    fn a_question_is_answered_and_a_refusal_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let _listener = Listener::start(directory.path(), |request, mut responder| match request {
            Request::Maintenance { on: true } => responder.done(Answer::Words { text: "so be it".into() }),
            Request::Report { .. } => {
                let step =
                    Progress { phase: heirlock_core::takeover::Phase::Claimed, clients: 3, answered: 1 };
                assert!(responder.progress(&step));
                responder.done(Answer::Adoption(Box::new(report_of("settled"))));
            }
            _ => responder.failed("not that", true),
        })
        .unwrap();
        let ask = |request: &Request, steps: &mut usize| ask(directory.path(), request, |_| *steps += 1);
        let mut steps = 0;
        let done = ask(&Request::Maintenance { on: true }, &mut steps).unwrap();
        assert_eq!(done, Answer::Words { text: "so be it".into() });
        let service = heirlock_core::ServiceName::parse("nfs").unwrap();
        let Answer::Adoption(report) = ask(&Request::Report { service }, &mut steps).unwrap() else {
            panic!()
        };
        assert_eq!((steps, report.phase.as_str()), (1, "settled"));
        let Err(AskError::Failed(failure)) = ask(&Request::Status, &mut steps) else { panic!() };
        assert!(failure.refused && failure.message == "not that");
    }

    #[test]
    fn two_agents_cannot_listen_in_one_place_and_a_dead_ones_socket_is_no_hindrance() {
        let directory = tempfile::tempdir().unwrap();
        let start = || Listener::start(directory.path(), |_, responder| responder.failed("no", true));
        let first = start().unwrap();
        assert!(start().unwrap_err().to_string().contains("another agent"));
        drop(first);
        fs::write(directory.path().join(SOCKET), "").unwrap();
        start().unwrap();
    }

    #[test]
    fn what_is_left_of_a_killed_agent_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let rest = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
        let gone = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(rest);
        });
        Listener::start(directory.path(), |_, responder| responder.failed("no", true)).unwrap();
        gone.join().unwrap();
    }

    #[test]
    fn without_an_agent_the_error_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = ask(directory.path(), &Request::Status, |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("no agent answers at ") && error.contains("heirlock agent"), "{error}");
    }
}
