//! The power switch that a cluster manager's fence agent uses: it kills the kernel of a guest, and answers when no process
//! of it is left. The agent runs in a guest, and asks by a file in the folder that guests and the lab share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::PidNamespace;

/// Between two looks for questions: small beside the steps of a failover, which it is a part of.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A question that the switch was asked, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// When it was answered.
    pub at: Instant,
    /// `off`, `reboot`, `on` or `status`.
    pub action: String,
    /// The guest that it is about.
    pub guest: String,
    /// Is that guest off now?
    pub is_off: bool,
}

impl Switched {
    /// Was the guest to be switched off?
    #[must_use]
    pub fn is_fence(&self) -> bool {
        matches!(self.action.as_str(), "off" | "reboot")
    }
}

/// What the scenario and the switch's own thread share.
#[derive(Debug, Default)]
struct Shared {
    /// The kernels that can be killed, by the names of their guests.
    kernels: Mutex<BTreeMap<String, Arc<PidNamespace>>>,
    done: Mutex<Vec<Switched>>,
    is_broken: AtomicBool,
    is_over: AtomicBool,
}

/// The switch of all guests of a scenario.
#[derive(Debug)]
pub(super) struct PowerSwitch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl PowerSwitch {
    /// Answers questions in `folder` until it is dropped.
    ///
    /// # Errors
    /// When the folder or a thread can't be made.
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("power switch".to_owned()).spawn(move || {
            while !its.is_over.load(Ordering::Relaxed) {
                its.answer_all(&folder);
                thread::sleep(LOOK_INTERVAL);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on this kernel is the guest's.
    pub(super) fn connect(&self, guest: &str, kernel: Arc<PidNamespace>) {
        lock(&self.shared.kernels).insert(guest.to_owned(), kernel);
    }

    /// A broken switch switches nothing off, and says so.
    pub(super) fn break_it(&self, is_broken: bool) {
        self.shared.is_broken.store(is_broken, Ordering::Relaxed);
    }

    /// All that it was asked so far.
    pub(super) fn done(&self) -> Vec<Switched> {
        lock(&self.shared.done).clone()
    }
}

impl Drop for PowerSwitch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    /// A question that can't be read or answered now is there at the next look.
    fn answer_all(&self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for question in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = question.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(tag) = name.strip_prefix("question.") else { continue };
            let Ok(asked) = fs::read_to_string(&question) else { continue };
            let Some((action, guest)) = asked.trim().split_once(' ') else { continue };
            let is_off = self.switch(action, guest);
            lock(&self.done).push(Switched {
                at: Instant::now(),
                action: action.to_owned(),
                guest: guest.to_owned(),
                is_off,
            });
            let whole = folder.join(format!(".{tag}"));
            let written = fs::write(&whole, if is_off { "off\n" } else { "on\n" })
                .and_then(|()| fs::remove_file(&question))
                .and_then(|()| fs::rename(&whole, folder.join(format!("answer.{tag}"))));
            if let Err(error) = written {
                eprintln!("heirlock-lab: the power switch can't answer {name}: {error}");
            }
        }
    }

    /// Whether the guest is off now.
    fn switch(&self, action: &str, guest: &str) -> bool {
        let Some(kernel) = lock(&self.kernels).get(guest).cloned() else { return false };
        if matches!(action, "off" | "reboot")
            && !self.is_broken.load(Ordering::Relaxed)
            && let Err(error) = kernel.kill_all()
        {
            eprintln!("heirlock-lab: {guest} can't be switched off: {error:#}");
        }
        kernel.members().is_empty() && !self.is_broken.load(Ordering::Relaxed)
    }
}

/// What a thread that panicked left behind is whole: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(folder: &Path, question: &str) -> String {
        fs::write(folder.join(".x"), question).unwrap();
        fs::rename(folder.join(".x"), folder.join("question.x")).unwrap();
        let answer = folder.join("answer.x");
        while !answer.exists() {
            thread::sleep(LOOK_INTERVAL);
        }
        let said = fs::read_to_string(&answer).unwrap();
        fs::remove_file(answer).unwrap();
        said
    }

    #[test]
    fn a_switch_kills_no_process_of_the_lab_and_says_what_is_off() {
        let folder = tempfile::tempdir().unwrap();
        let switch = PowerSwitch::new(folder.path().join("fence")).unwrap();
        let folder = folder.path().join("fence");
        assert_eq!(ask(&folder, "off nfs-z\n"), "on\n", "a guest that it does not know");
        // The lab's own processes, as those of a guest that never got a namespace of its own.
        switch.connect("nfs-a", Arc::new(PidNamespace::own().unwrap()));
        assert_eq!(ask(&folder, "status nfs-a\n"), "on\n");
        assert_eq!(ask(&folder, "off nfs-a\n"), "on\n", "refused");
        let done = switch.done();
        assert_eq!(done.iter().filter(|one| one.is_fence()).count(), 2);
        assert!(done.iter().all(|one| !one.is_off));
    }
}
