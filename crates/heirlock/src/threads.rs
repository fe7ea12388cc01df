//! Every thread begins here: it has a name, by which an administrator finds it (`ps -eL`, gdb), and one that can't be started
//! is an error that is reported. std's own `thread::spawn` panics there, and with it would end its caller.
//!
//! clippy's `disallowed-methods` (clippy.toml) keeps the ordinary calls out of all other modules.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use std::time::Duration;

/// Bytes of a name that the kernel keeps (TASK_COMM_LEN, pthread_setname_np(3)).
#[cfg(test)]
const NAME_BYTES_MAX: usize = 15;

/// A thread that is to live as long as the program. It ends with `Ok` where the program itself ends; any other end is an event
/// for its owner (`watchdog.rs`, `supervise.rs`), who is told of it and need not look again and again.
pub(crate) struct Lasting {
    name: &'static str,
    end: Arc<Mutex<End>>,
}

/// The end of such a thread, and who is told of it.
#[derive(Default)]
struct End {
    how: Option<io::Result<()>>,
    told: Option<Box<dyn Fn() + Send>>,
}

/// Tells of the end also where the thread has a fault.
struct Ends(Arc<Mutex<End>>);

impl Lasting {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        entered(&self.end).how.is_some()
    }

    /// How it has ended, if it has; once.
    pub(crate) fn take_end(&self) -> Option<io::Result<()>> {
        entered(&self.end).how.take()
    }

    /// Has `told` called, by any thread, when it ends; at once where it has ended.
    pub(crate) fn on_end(&self, told: impl Fn() + Send + 'static) {
        let mut end = entered(&self.end);
        if end.how.is_some() {
            told();
        }
        end.told = Some(Box::new(told));
    }
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the thread {}", self.name)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let mut end = entered(&self.0);
        end.how.get_or_insert_with(|| Err(io::Error::other("it has a fault")));
        if let Some(told) = &end.told {
            told();
        }
    }
}

fn entered(end: &Mutex<End>) -> MutexGuard<'_, End> {
    // Its contents are still true after a thread has panicked.
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something in a thread of this name that is to live as long as the program.
///
/// # Errors
/// Where no thread can be had, with what an administrator can do.
pub(crate) fn lasting(
    name: &'static str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Lasting> {
    let end = Arc::new(Mutex::new(End::default()));
    let ends = Ends(Arc::clone(&end));
    start(name, move || {
        let how = work();
        entered(&ends.0).how = Some(how);
        drop(ends);
    })?;
    Ok(Lasting { name, end })
}

/// Does something in a thread of this name, of 15 bytes at most.
///
/// # Errors
/// Where no thread can be had, with what an administrator can do.
#[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "here alone"))]
pub(crate) fn start<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|error| not_started(name, &error))
}

/// The same in a scope, which waits for its end.
///
/// # Errors
/// Where no thread can be had, with what an administrator can do.
#[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "here alone"))]
pub(crate) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(|error| not_started(name, &error))
}

/// The result of this work, unless it takes longer: then the thread is left behind.
///
/// # Errors
/// Where no thread can be had; `TimedOut` where it takes longer.
pub(crate) fn within<T: Send + 'static>(
    name: &'static str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = channel();
    start(name, move || answer.send(work()))?;
    answered.recv_timeout(limit).map_err(|_| {
        let what = format!("it is not done within {} s", limit.as_secs_f32());
        io::Error::new(io::ErrorKind::TimedOut, what)
    })
}

fn not_started(name: &str, error: &io::Error) -> io::Error {
    let what = format!(
        "the thread {name} can't be started: {error}; raise the limit of threads (TasksMax= of the unit, ulimit -u, \
         kernel.threads-max), or make memory free"
    );
    io::Error::new(error.kind(), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name_and_gives_what_its_work_gave() {
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(start("prove", name).unwrap().join().unwrap().as_deref(), Some("prove"));
        let scoped = std::thread::scope(|scope| start_in(scope, "resolve", name).unwrap().join().unwrap());
        assert_eq!(scoped.as_deref(), Some("resolve"));
    }

    #[test]
    fn the_kernel_keeps_every_name_whole_and_no_thread_begins_elsewhere() {
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let (mut folders, mut names) = (vec![std::path::PathBuf::from(sources)], 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                let text = std::fs::read_to_string(&entry).unwrap();
                let begins = [
                    "threads::start",
                    "threads::lasting",
                    "threads::within",
                    ".in_thread",
                    "host.start",
                    "host.lasting",
                    "self.within",
                    "host.within",
                    "Syncs::new",
                ];
                let calls = begins.into_iter().flat_map(|begins| text.split(begins).skip(1));
                for call in calls.filter(|_| !entry.ends_with("threads.rs")) {
                    // Code that hands a name on has one that was looked at where it was given.
                    let Some(name) = call.split("||").next().unwrap().split('"').nth(1) else {
                        let hands_on = ["(name, ", "(self.name, ", "_in(scope, name, "]
                            .iter()
                            .any(|start| call.starts_with(start));
                        assert!(hands_on, "{call:.40} in {}", entry.display());
                        continue;
                    };
                    assert!(
                        name.len() <= NAME_BYTES_MAX && !name.contains(' '),
                        "{name:?} in {}",
                        entry.display()
                    );
                    names += 1;
                }
            }
        }
        assert!(names > 30, "{names}");
    }

    #[test]
    fn work_that_hangs_keeps_its_caller_waiting_no_longer_than_its_limit() {
        let (answer, never) = channel::<u8>();
        let why = within("prove", Duration::from_millis(20), move || never.recv()).unwrap_err();
        assert_eq!(
            (why.kind(), why.to_string().as_str()),
            (io::ErrorKind::TimedOut, "it is not done within 0.02 s")
        );
        drop(answer);
        assert_eq!(within("prove", Duration::from_secs(600), || 7).unwrap(), 7);
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error_that_says_what_to_do() {
        let error = not_started("prove", &io::Error::from_raw_os_error(11));
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().starts_with("the thread prove can't be started: "), "{error}");
        assert!(error.to_string().contains("TasksMax="), "{error}");
    }
}
