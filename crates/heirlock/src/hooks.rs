//! Runs the commands of the configuration: no shell, and a time limit after which a command ends with all that it began.

use std::fmt;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::{ServerName, ServiceName};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;

use crate::config::{Command, Settings};
use crate::files::trusted;
use crate::host::descendants::kill_with_descendants;
use crate::host::process;
use crate::limits;
use crate::threads;

/// Of what a command prints, the last bytes are kept: errors come last.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

/// How often a running command is looked at where the kernel does not tell when it ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long after its end a command's output may still be held open by something it left running.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);

/// How often a silent stream is looked at: whether its output is still wanted.
const WANTED_INTERVAL: Duration = Duration::from_secs(1);

/// The output of a command, both streams mixed, cut to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output(pub(crate) String);

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
#[error("{command}: {how}{said}")]
pub(crate) struct CommandError {
    command: String,
    how: String,
    status: Option<i32>,
    said: Said,
}

impl CommandError {
    /// The exit status of a command that ended by itself.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        self.status
    }

    /// Whether it printed nothing.
    pub(crate) fn was_silent(&self) -> bool {
        self.said.0.trim().is_empty()
    }
}

#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.trim().lines().last().unwrap_or_default();
        if last.is_empty() { Ok(()) } else { write!(f, "; it said: {}", last.escape_debug()) }
    }
}

/// Runs a command with these variables besides our own environment, and waits for its end.
///
/// # Errors
/// Where it can't be started, fails, or isn't done in time: then it is ended, with its process group and its descendants.
pub(crate) fn run(command: &Command, environment: &[(&str, String)]) -> Result<Output, CommandError> {
    let both = Kept::shared(Keeping::End);
    run_keeping(command, environment, [&both, &both], OUTPUT_PATIENCE)?;
    Ok(Output(text_of(&both)))
}

/// Runs a command, and gives all that it printed to standard output, where that is no more than `bytes_max`; else `None`.
///
/// # Errors
/// As [`run`].
pub(crate) fn read(command: &Command, bytes_max: usize) -> Result<Option<Vec<u8>>, CommandError> {
    let (out, err) = (Kept::shared(Keeping::Beginning(bytes_max)), Kept::shared(Keeping::End));
    // What is there has to be read whole, however busy this machine is.
    let has_ended = run_keeping(command, &[], [&out, &err], command.time_limit)?;
    if !has_ended {
        let how = "has ended, and another program that it began holds its output open".to_owned();
        return Err(CommandError {
            command: command.argv.join(" "),
            how,
            status: None,
            said: Said(String::new()),
        });
    }
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((!out.is_cut).then(|| std::mem::take(&mut out.bytes)))
}

/// Runs a command, and keeps standard output and standard error as it is said; of the second one a failure is told. Once it has ended
/// it waits that long for the end of both, and says whether they have ended.
fn run_keeping(
    command: &Command,
    environment: &[(&str, String)],
    kept: [&Arc<Mutex<Kept>>; 2],
    patience: Duration,
) -> Result<bool, CommandError> {
    let shown = command.argv.join(" ");
    let fail = |how: String, said: String| CommandError {
        command: shown.clone(),
        how,
        status: None,
        said: Said(said),
    };
    let Some((program, arguments)) = command.argv.split_first() else {
        return Err(fail("no command is given".into(), String::new()));
    };
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| fail(format!("can't be started: {error}"), String::new()))?;
    let streams = match Streams::of(&mut child, kept) {
        Ok(streams) => streams,
        Err(error) => {
            // It would wait for ever for the thread that reads what it prints.
            let _ = end_now(&mut child);
            return Err(fail(
                format!("was ended, since no thread could read its output: {error}"),
                String::new(),
            ));
        }
    };
    let ended = wait(&mut child, command.time_limit);
    let has_ended = streams.wait(if matches!(ended, Ok(Some(_))) { patience } else { OUTPUT_PATIENCE });
    let said = || text_of(kept[1]);
    match ended {
        Ok(Some(status)) if status.success() => Ok(has_ended),
        Ok(Some(status)) => Err(CommandError { status: status.code(), ..fail(how_it_ended(status), said()) }),
        Ok(None) => Err(fail(
            format!("not done within {} s, so it was ended", command.time_limit.as_secs_f32()),
            said(),
        )),
        Err(error) => Err(fail(format!("can't be waited for: {error}"), said())),
    }
}

/// What a hook is told of the service that it is run for, and of the server that owns it.
pub(crate) fn environment(
    settings: &Settings,
    hook: &str,
    service: &ServiceName,
    owner: Option<&ServerName>,
) -> Vec<(&'static str, String)> {
    let configured = settings.service(service);
    let addresses = configured.map(|service| join(service.addresses.iter())).unwrap_or_default();
    let exports = configured.map(|service| join(service.exports.iter().map(|path| path.display())));
    let owner = owner.map(ToString::to_string).unwrap_or_default();
    vec![
        ("HEIRLOCK_HOOK", hook.to_owned()),
        ("HEIRLOCK_SERVICE", service.to_string()),
        ("HEIRLOCK_SERVER", settings.server.to_string()),
        ("HEIRLOCK_OWNER", owner.clone()),
        // Fences of sites that were written for an earlier version know the owner by this name.
        ("HEIRLOCK_PEER", owner),
        ("HEIRLOCK_ADDRESSES", addresses),
        ("HEIRLOCK_EXPORTS", exports.unwrap_or_default()),
    ]
}

fn join<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether a command can be started, as far as that shows without starting it.
///
/// # Errors
/// Where its program isn't there, or is none; in words.
pub(crate) fn check(command: &Command) -> Result<(), String> {
    let Some(program) = command.argv.first() else { return Err("no command is given".into()) };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = match program.contains('/') {
        true => is_program(Path::new(program)),
        false => std::env::split_paths(&folders).any(|folder| is_program(&folder.join(program))),
    };
    if found { Ok(()) } else { Err(format!("{program} is no program that can be started here")) }
}

fn is_program(path: &Path) -> bool {
    trusted::stat(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Waits until it ends; `None` where it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let ended = wait_until(child, Instant::now() + limit)?;
    if ended.is_none() {
        end_now(child)?;
    }
    Ok(ended)
}

/// The same, and leaves it running where it has not ended by then.
fn wait_until(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    // It was not waited for yet, so its number is no other process's.
    let end = process::handle_of(child.id());
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let ended = child.try_wait()?;
        if ended.is_some() || left.is_zero() {
            return Ok(ended);
        }
        let is_told = end.as_ref().is_some_and(|end| is_readable(end, left).is_ok());
        if !is_told {
            thread::sleep(LOOK_INTERVAL.min(left));
        }
    }
}

/// Waits until there is something to read, no longer than this, and says whether there is. A signal ends the waiting sooner.
fn is_readable(what: &impl AsFd, patience: Duration) -> std::io::Result<bool> {
    let left = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match poll(&mut [PollFd::new(what, PollFlags::IN)], Some(&left)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends it and all that it began. That is not waited for without end: what waits for a disk that hangs can't be killed, and what
/// is left of it goes with this program.
fn end_now(child: &mut Child) -> std::io::Result<()> {
    kill_with_descendants(child.id());
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Its group is its own, so no other process is hit.
        let _ = kill_process_group(group, Signal::KILL);
    }
    wait_until(child, Instant::now() + limits::KILLED_TIME_MAX).map(drop)
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// Reads both streams in threads, so that neither fills up.
struct Streams {
    /// Disconnected when both streams have ended.
    ended: Receiver<()>,
}

impl Streams {
    fn of(child: &mut Child, kept: [&Arc<Mutex<Kept>>; 2]) -> std::io::Result<Self> {
        let (open, ended) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| while_wanted(stream, kept[0])),
            child.stderr.take().map(|stream| while_wanted(stream, kept[1])),
        ];
        for (stream, kept) in streams.into_iter().zip(kept) {
            let Some(stream) = stream else { continue };
            let (kept, open) = (Arc::downgrade(kept), open.clone());
            threads::start("hook-output", move || {
                keep(stream, &kept);
                drop(open);
            })?;
        }
        Ok(Self { ended })
    }

    /// Waits for the end of both, no longer than this, and says whether it came.
    fn wait(&self, patience: Duration) -> bool {
        // Nothing is ever sent.
        !matches!(self.ended.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }
}

/// What of a stream is kept while it is read: a command may print without end.
#[derive(Clone, Copy)]
enum Keeping {
    /// The last [`OUTPUT_BYTES_MAX`].
    End,
    /// The first ones, no more than this.
    Beginning(usize),
}

struct Kept {
    keeping: Keeping,
    bytes: Vec<u8>,
    /// Something was left out.
    is_cut: bool,
}

impl Kept {
    fn shared(keeping: Keeping) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { keeping, bytes: Vec::new(), is_cut: false }))
    }

    fn take_in(&mut self, more: &[u8]) {
        match self.keeping {
            Keeping::End => {
                self.bytes.extend(more);
                let excess = self.bytes.len().saturating_sub(OUTPUT_BYTES_MAX);
                self.bytes.drain(..excess);
                self.is_cut |= excess > 0;
            }
            Keeping::Beginning(bytes_max) => {
                let room = bytes_max.saturating_sub(self.bytes.len()).min(more.len());
                self.bytes.extend(&more[..room]);
                self.is_cut |= room < more.len();
            }
        }
    }
}

fn text_of(kept: &Mutex<Kept>) -> String {
    String::from_utf8_lossy(&kept.lock().unwrap_or_else(PoisonError::into_inner).bytes).into_owned()
}

/// A stream that also ends when its output is not wanted any more: a process that a command left running may hold it open for
/// ever, and would hold a thread of ours with each run.
struct WhileWanted<S> {
    stream: S,
    wanted: Weak<Mutex<Kept>>,
}

fn while_wanted(
    stream: impl Read + AsFd + Send + 'static,
    wanted: &Arc<Mutex<Kept>>,
) -> Box<dyn Read + Send> {
    Box::new(WhileWanted { stream, wanted: Arc::downgrade(wanted) })
}

impl<S: Read + AsFd> Read for WhileWanted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.wanted.strong_count() > 0 {
            if is_readable(&self.stream, WANTED_INTERVAL)? {
                return self.stream.read(buffer);
            }
        }
        Ok(0)
    }
}

/// Reads until the stream ends, or until the output is not wanted any more.
fn keep(mut stream: impl Read, kept: &Weak<Mutex<Kept>>) {
    let mut buffer = [0; OUTPUT_BYTES_MAX];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let Some(kept) = kept.upgrade() else { return };
        kept.lock().unwrap_or_else(PoisonError::into_inner).take_in(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str], limit_ms: u64) -> Command {
        Command {
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            time_limit: Duration::from_millis(limit_ms),
        }
    }

    #[test]
    fn a_hook_gets_its_variables_and_its_output_is_kept() {
        let output = run(
            &command(&["sh", "-c", "echo $HEIRLOCK_SERVICE"], 5_000),
            &[("HEIRLOCK_SERVICE", "nfs".into())],
        );
        assert_eq!(output.unwrap(), Output("nfs\n".into()));
    }

    #[test]
    fn a_failure_names_the_command_its_status_and_what_it_said_last() {
        let error = run(&command(&["sh", "-c", "echo first; echo no such host >&2; exit 3"], 5_000), &[])
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("failed with exit status 3; it said: "), "{text}");
        let error = run(&command(&["/no/such/program"], 5_000), &[]).unwrap_err().to_string();
        assert!(error.starts_with("/no/such/program: can't be started: "), "{error}");
    }

    #[test]
    fn what_is_no_program_is_known_before_it_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no program").unwrap();
        let text = text.display().to_string();
        for (program, there) in
            [("sh", true), ("/bin/sh", true), ("no-such-program", false), ("/bin", false), (&text, false)]
        {
            assert_eq!(check(&command(&[program], 1)).is_ok(), there, "{program}");
        }
    }

    #[test]
    fn a_command_whose_time_is_up_is_ended_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("alive");
        let script = format!("(sleep 30; touch {}) & sleep 300", file.display());
        let began = Instant::now();
        let error = run(&command(&["sh", "-c", &script], 200), &[]).unwrap_err().to_string();
        assert!(error.contains("not done within 0.2 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(120), "it was not waited for");
        let text = file.display().to_string();
        let lives = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
                .any(|line| String::from_utf8_lossy(&line).contains(&text))
        };
        let end = Instant::now() + Duration::from_secs(20);
        while lives() {
            assert!(Instant::now() < end, "what it had started went on");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn programs_that_a_command_began_in_sessions_of_their_own_are_ended_with_it() {
        // No other program sleeps for so long.
        let seconds = (100_000 + fastrand::u32(..100_000)).to_string();
        let script = format!("setsid sh -c 'setsid sleep {seconds} & sleep {seconds}' & sleep {seconds}");
        let sleeping = {
            let seconds = seconds.clone();
            move || {
                let all = std::fs::read_dir("/proc").unwrap().flatten();
                let lines =
                    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
                lines.filter(|line| *line == format!("sleep\0{seconds}\0")).count()
            }
        };
        let running = thread::spawn(move || run(&command(&["sh", "-c", &script], 5_000), &[]));
        while sleeping() < 3 && !running.is_finished() {
            thread::sleep(LOOK_INTERVAL);
        }
        let error = running.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("not done within 5 s"), "{error}");
        let end = Instant::now() + Duration::from_secs(60);
        while sleeping() > 0 {
            assert!(Instant::now() < end, "{} of them go on", sleeping());
            thread::sleep(LOOK_INTERVAL);
        }
    }

    #[test]
    fn long_output_of_a_command_is_cut_to_its_end() {
        let output = run(&command(&["sh", "-c", "seq 1 100000"], 10_000), &[]).unwrap();
        assert!(output.0.len() <= OUTPUT_BYTES_MAX && output.0.ends_with("99999\n100000\n"));
    }

    #[test]
    fn a_program_that_is_read_gives_its_standard_output_whole_or_not_at_all() {
        let script = command(&["sh", "-c", "echo warning >&2; seq 1 10000"], 10_000);
        let whole = read(&script, 1 << 20).unwrap().unwrap();
        assert!(whole.starts_with(b"1\n2\n") && whole.ends_with(b"\n10000\n"), "{} bytes", whole.len());
        assert_eq!(read(&script, whole.len()).unwrap(), Some(whole.clone()));
        assert_eq!(read(&script, whole.len() - 1).unwrap(), None);
        let failed =
            read(&command(&["sh", "-c", "echo out; echo why >&2; exit 7"], 10_000), 100).unwrap_err();
        assert!(failed.exit_status() == Some(7) && failed.to_string().ends_with("it said: why"), "{failed}");
    }

    /// Prints without end, and counts what it printed.
    struct Endless(u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            buffer.fill(b'x');
            Ok(if self.0 > 10_000 { 0 } else { buffer.len() })
        }
    }

    #[test]
    fn endless_output_of_a_command_is_never_kept_whole_while_it_is_read() {
        for keeping in [Keeping::End, Keeping::Beginning(OUTPUT_BYTES_MAX)] {
            let kept = Kept::shared(keeping);
            keep(Endless(0), &Arc::downgrade(&kept));
            let kept = kept.lock().unwrap();
            assert!(kept.bytes.len() == OUTPUT_BYTES_MAX && kept.is_cut);
            assert!(kept.bytes.capacity() <= 4 * OUTPUT_BYTES_MAX, "{} bytes", kept.bytes.capacity());
        }
    }

    #[test]
    fn what_a_command_left_running_holds_no_thread_of_ours() {
        let (reader, _held_open) = std::io::pipe().unwrap();
        let kept = Kept::shared(Keeping::End);
        let (stream, wanted) = (while_wanted(reader, &kept), Arc::downgrade(&kept));
        let reading = thread::spawn(move || keep(stream, &wanted));
        drop(kept);
        let end = Instant::now() + Duration::from_secs(120);
        while !reading.is_finished() {
            assert!(Instant::now() < end, "it is read for ever");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn output_of_a_command_that_has_ended_is_not_read_on() {
        let mut endless = Endless(0);
        keep(&mut endless, &Weak::new());
        assert_eq!(endless.0, 1);
    }
}
