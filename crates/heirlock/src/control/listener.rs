//! The agent's end of the control socket.
//!
//! Each connection has a thread of its own, which reads the request and writes the answers. The agent's loop only hands
//! lines over: a client that does not read its answer makes no other client wait. A connection that asks nothing gives way to the
//! next one.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::log_limit::Source;

use super::{Answer, Failure, Line, Progress, Request, Respond, Responder, SOCKET, trust};
use crate::accept::accept_all;
use crate::files::{self, trusted};
use crate::from_elsewhere;
use crate::threads::{self, Lasting};

/// Connections that asked for something to be done and whose answer is not written yet: each has a thread.
const VERBS_MAX: usize = 128;

/// Connections that asked for the status and whose answer is not written yet. One more ends the oldest of them: it is answered
/// at once, so its client does not read.
const STATUS_MAX: usize = 128;

/// Connections that have asked nothing yet. One more ends the oldest of them.
const SILENT_MAX: usize = 32;

/// Lines of progress that wait for a client to read them. Lines that come meanwhile are left out.
const PROGRESS_MAX: usize = 16;

/// How long a client may take to say what it wants, and to take in what it is told.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the agent waits for answers to be written.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether they are.
const LAST_WORDS_LOOK: Duration = Duration::from_millis(5);

/// How long a listener in our place may be the rest of an agent that is gone: a command that the agent was starting when
/// it was killed holds its socket until execve.
const REMAINS_MAX: Duration = Duration::from_secs(2);

/// How often we look whether the rest is gone.
const REMAINS_LOOK: Duration = Duration::from_millis(20);

/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Listens until the agent ends. Its socket file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    /// The folder of its own that it lies in, if so.
    own_folder: Option<PathBuf>,
    connections: Arc<Connections>,
    thread: Option<Lasting>,
}

/// The agent's end of one connection. Nothing that it does waits for the client.
#[derive(Debug)]
struct Connection {
    lines: Sender<Line>,
    /// Lines that are handed over and not written yet.
    unwritten: Arc<AtomicUsize>,
}

/// The connections of this moment.
#[derive(Debug, Default)]
struct Connections {
    /// Connections that have asked nothing yet, oldest first.
    silent: Mutex<VecDeque<Arc<UnixStream>>>,
    /// Connections that asked for the status, oldest first.
    status: Mutex<VecDeque<Arc<UnixStream>>>,
    /// How many asked for something to be done.
    verbs: AtomicUsize,
    /// How many wait for their answer, of any kind.
    waiting: AtomicUsize,
}

impl Listener {
    /// Listens in this directory and hands every request on.
    ///
    /// # Errors
    /// Where another user may change the directory, another agent listens there and goes on to, or the socket can't be
    /// made.
    pub(crate) fn start(
        runtime_directory: &Path,
        requested: impl Fn(Request, Responder) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        trust::make_folder(runtime_directory)?;
        trust::check_folder(runtime_directory)?;
        let open = |path: &Path| trusted::set_mode(path, 0o600);
        // The permissions of the socket file say the same. Between its creation and theirs a moment passes.
        let may_ask = |stream: &UnixStream| trust::check_other_end(stream).map(drop);
        Self::start_at(runtime_directory.join(SOCKET), "control", open, may_ask, requested)
    }

    /// Listens at this path, in a folder of its own that is root's, or ours: the members of a group get there and ask. `reads`
    /// answers the requests that only read, and every other request is refused.
    ///
    /// # Errors
    /// Where another user may change the folder, or the socket can't be made.
    pub(super) fn start_for_group(
        path: PathBuf,
        gid: u32,
        reads: impl Fn(&Request, Responder) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        trust::make_folder(&folder)?;
        trust::check_folder(&folder)?;
        // Until the socket has its permissions, root alone gets there. The folder is opened last: to be passed through, and not
        // to be listed.
        trusted::set_mode(&folder, 0o700)?;
        let open = |path: &Path| {
            trusted::set_group(path, gid)?;
            trusted::set_mode(path, 0o660)?;
            trusted::set_group(&folder, gid)?;
            trusted::set_mode(&folder, 0o710)
        };
        let requested = move |request: Request, responder: Responder| match request.only_reads() {
            true => reads(&request, responder),
            false => responder.failed(
                "expected a request for the status, found a verb; this socket is read-only: say it as root",
                true,
            ),
        };
        let mut listener = Self::start_at(path, "status", open, |_| Ok(()), requested)?;
        listener.own_folder = Some(folder);
        Ok(listener)
    }

    fn start_at(
        path: PathBuf,
        name: &'static str,
        open: impl Fn(&Path) -> io::Result<()>,
        may_ask: fn(&UnixStream) -> io::Result<()>,
        requested: impl Fn(Request, Responder) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if goes_on_listening(&path) {
            let what = format!("another agent listens at {}: one server has one agent", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        // The socket that an agent left behind when it was killed.
        files::unless_absent(trusted::remove(&path))?;
        let listener = UnixListener::bind(&path)?;
        open(&path)?;
        let connections = Arc::new(Connections::default());
        let (requested, accepted) = (Arc::new(requested), Arc::clone(&connections));
        let thread = threads::lasting(name, move || accept(&listener, &accepted, may_ask, &requested))?;
        Ok(Self { path, own_folder: None, connections, thread: Some(thread) })
    }

    /// The thread that takes connections in, for the watchdog to keep.
    pub(crate) fn take_thread(&mut self) -> Option<Lasting> {
        self.thread.take()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = trusted::remove(&self.path);
        if let Some(folder) = &self.own_folder {
            let _ = trusted::remove_empty_folder(folder);
        }
        // The answers that were handed over are written before the program ends.
        let end = Instant::now() + LAST_WORDS_MAX;
        while self.connections.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            thread::sleep(LAST_WORDS_LOOK);
        }
    }
}

/// An agent listens there, and not only because a part of a dead agent is not gone yet.
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

fn accept<F: Fn(Request, Responder) + Send + Sync + 'static>(
    listener: &UnixListener,
    connections: &Arc<Connections>,
    may_ask: fn(&UnixStream) -> io::Result<()>,
    requested: &Arc<F>,
) -> io::Result<()> {
    Err(accept_all(listener, SOCKET, |stream| {
        if let Err(error) = may_ask(&stream) {
            if from_elsewhere::may_say("control socket refused", Source::Unknown) {
                tracing::debug!(%error, "a connection to the control socket was refused");
            }
            return;
        }
        let stream = Arc::new(stream);
        connections.enter(&stream);
        let (requested, shared, connection) =
            (Arc::clone(requested), Arc::clone(connections), Arc::clone(&stream));
        let begun = threads::start("request", move || shared.serve(&connection, &*requested));
        if let Err(error) = begun {
            connections.ask(&stream);
            refuse(&stream, &error.to_string());
            connections.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }))
}

/// Answers at once, without a thread and without having read what is asked.
fn refuse(stream: &UnixStream, why: &str) {
    let (responder, lines, unwritten) = responder();
    responder.failed(why, true);
    if stream.set_write_timeout(Some(LAST_WORDS_MAX)).is_ok() {
        write_lines(stream, &lines, &unwritten);
    }
}

impl Connections {
    /// A connection came. Where too many have asked nothing, the oldest of them is read no longer: its words until then
    /// still count.
    fn enter(&self, stream: &Arc<UnixStream>) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.push_back(Arc::clone(stream));
        if silent.len() > SILENT_MAX
            && let Some(oldest) = silent.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Read);
        }
    }

    /// Hears what a connection asks, and writes what it is answered.
    fn serve(&self, stream: &Arc<UnixStream>, requested: &impl Fn(Request, Responder)) {
        let request = read_request(stream);
        self.ask(stream);
        let (responder, lines, unwritten) = responder();
        if let Ok(Request::Status) = request {
            self.begin_status(stream);
            requested(Request::Status, responder);
            write_lines(stream, &lines, &unwritten);
            self.end_status(stream);
        } else {
            let verbs = self.verbs.fetch_add(1, Ordering::SeqCst) + 1;
            match request {
                Ok(_) if verbs > VERBS_MAX => {
                    responder.failed("too many questions at once; ask again later", true);
                }
                Ok(request) => requested(request, responder),
                Err(error) => responder.failed(&format!("expected a request, found none: {error}"), true),
            }
            write_lines(stream, &lines, &unwritten);
            self.verbs.fetch_sub(1, Ordering::SeqCst);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// A connection has asked, or will not, and waits for an answer.
    fn ask(&self, stream: &Arc<UnixStream>) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|one| !Arc::ptr_eq(one, stream));
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// The status is told at any time, also while all places of the verbs are taken.
    fn begin_status(&self, stream: &Arc<UnixStream>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.push_back(Arc::clone(stream));
        if status.len() > STATUS_MAX
            && let Some(oldest) = status.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }

    fn end_status(&self, stream: &Arc<UnixStream>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.retain(|one| !Arc::ptr_eq(one, stream));
    }
}

fn read_request(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Writes what the client is told, until the end of its answer, or until it does not read.
fn write_lines(mut stream: &UnixStream, lines: &Receiver<Line>, unwritten: &AtomicUsize) {
    for line in lines {
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
        unwritten.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// One connection, and the lines that its thread writes for it.
    fn new() -> (Self, Receiver<Line>, Arc<AtomicUsize>) {
        let (lines, written) = channel();
        let unwritten = Arc::new(AtomicUsize::new(0));
        (Self { lines, unwritten: Arc::clone(&unwritten) }, written, unwritten)
    }

    fn send(&self, line: Line) -> bool {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        self.lines.send(line).is_ok()
    }
}

impl Respond for Connection {
    fn progress(&mut self, progress: &Progress) -> bool {
        let is_behind = self.unwritten.load(Ordering::Relaxed) >= PROGRESS_MAX;
        is_behind || self.send(Line::Progress(progress.clone()))
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        // The client may be gone. The work that was done is done.
        self.send(answer.map_or_else(Line::Failed, Line::Done));
    }
}

/// One responder, and the lines that a connection's thread writes for it.
fn responder() -> (Responder, Receiver<Line>, Arc<AtomicUsize>) {
    let (connection, lines, unwritten) = Connection::new();
    (Responder::new(connection), lines, unwritten)
}

/// A responder whose words a test hears.
#[cfg(test)]
pub(crate) fn heard() -> (Responder, Receiver<Line>) {
    let (responder, lines, _) = responder();
    (responder, lines)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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

    /// How far a run is.
    fn a_step() -> Progress {
        let phase = heirlock_core::takeover::Phase::Claimed;
        Progress { phase, clients: 3, answered: 1, wait: None, told: Vec::new() }
    }

    #[test]
    fn a_question_is_answered_and_a_refusal_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let _listener = Listener::start(directory.path(), |request, mut responder| match request {
            Request::Maintenance { on: true } => responder.done(Answer::changed(None, "so be it")),
            Request::Report { .. } => {
                let step = a_step();
                assert!(responder.progress(&step));
                responder.done(Answer::Adoption(Box::new(report_of("settled"))));
            }
            _ => responder.failed("not that", true),
        })
        .unwrap();
        let ask = |request: &Request, steps: &mut usize| ask(directory.path(), request, |_| *steps += 1);
        let mut steps = 0;
        let done = ask(&Request::Maintenance { on: true }, &mut steps).unwrap();
        assert_eq!(done, Answer::changed(None, "so be it"));
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
    fn the_socket_of_a_killed_agent_is_waited_for() {
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
    fn without_an_agent_the_error_names_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = ask(directory.path(), &Request::Status, |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("no agent answers at ") && error.contains("heirlock agent"), "{error}");
    }

    #[test]
    fn connections_that_ask_nothing_hold_no_question_up() {
        let directory = tempfile::tempdir().unwrap();
        let _listener = Listener::start(directory.path(), |_, responder| {
            responder.done(Answer::changed(None, "so be it"));
        })
        .unwrap();
        let path = directory.path().join(SOCKET);
        let silent: Vec<UnixStream> = (0..500).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let answer = ask(directory.path(), &Request::Maintenance { on: true }, |_| ()).unwrap();
        assert_eq!(answer, Answer::changed(None, "so be it"));
        // The youngest of them are still listened to.
        let mut last = silent.last().unwrap();
        last.write_all(b"{\"verb\":\"status\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(last).read_line(&mut line).unwrap();
        assert!(line.contains("so be it"), "{line}");
    }

    #[test]
    fn the_status_is_told_while_others_wait_for_verbs_or_do_not_read_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let (handed_over, responders) = channel();
        let handed_over = Mutex::new(handed_over);
        let told = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&told);
        // More than a socket holds: its client has to read.
        let text = "so it is ".repeat(50_000);
        let _listener = Listener::start(directory.path(), move |request, responder| match request {
            Request::Status => {
                responder.done(Answer::changed(None, text.as_str()));
                counted.fetch_add(1, Ordering::SeqCst);
            }
            _ => handed_over.lock().unwrap().send(responder).unwrap(),
        })
        .unwrap();
        let path = directory.path().join(SOCKET);
        let asks = |line: &str| {
            let mut stream = UnixStream::connect(&path).unwrap();
            // One of the first may have been ended by then.
            let _ = stream.write_all(line.as_bytes());
            stream
        };
        let mut deaf: Vec<UnixStream> =
            (0..200).map(|_| asks("{\"verb\":\"maintenance\",\"on\":true}\n")).collect();
        deaf.extend((0..200).map(|_| asks("{\"verb\":\"status\"}\n")));
        let _waiting: Vec<Responder> = (0..VERBS_MAX).map(|_| responders.recv().unwrap()).collect();
        while told.load(Ordering::SeqCst) < 200 {
            thread::sleep(LAST_WORDS_LOOK);
        }
        // The threads of the deaf clients are at work until they have filled their sockets, on a busy machine for long.
        let end = Instant::now() + Duration::from_secs(120);
        let answer = loop {
            match ask(directory.path(), &Request::Status, |_| ()) {
                Err(AskError::Silent { .. }) if Instant::now() < end => {}
                answer => break answer.unwrap(),
            }
        };
        assert!(matches!(answer, Answer::Verb { changed: true, .. }));
        let refused = ask(directory.path(), &Request::Maintenance { on: true }, |_| ()).unwrap_err();
        assert!(refused.to_string().contains("too many questions"), "{refused}");
    }

    #[test]
    fn a_client_that_does_not_read_makes_the_loop_wait_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (handed_over, responders) = channel();
        let handed_over = Mutex::new(handed_over);
        let _listener = Listener::start(directory.path(), move |_, responder| {
            handed_over.lock().unwrap().send(responder).unwrap();
        })
        .unwrap();
        let mut deaf = UnixStream::connect(directory.path().join(SOCKET)).unwrap();
        deaf.write_all(b"{\"verb\":\"status\"}\n").unwrap();
        let mut responder = responders.recv().unwrap();
        let step = a_step();
        // Far more than a socket's buffer holds. Were a line written here, this would never end within the patience.
        for _ in 0..1_000_000 {
            assert!(responder.progress(&step));
        }
        responder.done(Answer::changed(None, "so be it"));
        let lines = BufReader::new(deaf).lines().map(Result::unwrap);
        assert!(lines.last().unwrap().contains("so be it"), "the end of an answer is never left out");
    }

    #[test]
    fn of_the_progress_that_a_client_does_not_read_no_more_is_kept_than_may_wait() {
        let (mut connection, lines, unwritten) = Connection::new();
        let step = a_step();
        assert!((0..1_000).all(|_| connection.progress(&step)));
        assert_eq!(unwritten.load(Ordering::Relaxed), PROGRESS_MAX);
        Box::new(connection).end(Ok(Answer::changed(None, "so be it")));
        assert_eq!(lines.try_iter().count(), PROGRESS_MAX + 1, "the end of an answer is never left out");
    }

    #[test]
    fn an_agent_does_not_listen_where_others_could_take_its_place() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error =
            Listener::start(directory.path(), |_, responder| responder.failed("no", true)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let error = ask(directory.path(), &Request::Status, |_| ()).unwrap_err().to_string();
        assert!(error.contains("writable by its owner alone"), "{error}");
    }
}
