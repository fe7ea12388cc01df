//! Holds a thread of an agent up from outside, by strace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::harness::{Server, names};

/// For longer than any test takes. A call that is held up goes on when the tracer ends.
const HANGS_S: u32 = 3_600;

/// Holds up the next call of these kinds by the agent's thread of this name, until it is dropped.
pub(super) struct Holder(Child);

impl Holder {
    /// `kinds` as strace names them: `?fsync,?fdatasync`.
    pub(super) fn of(server: &Server, thread: &str, kinds: &str) -> Self {
        loop {
            let of_that_name = server.wait_for("a thread", |server| thread_of(server.pid(), thread));
            if let Some(holder) = Self::of_one(server, &of_that_name, kinds) {
                return holder;
            }
        }
    }

    /// The same of the thread of this number. `None` where it ended meanwhile: another one may have its name now.
    fn of_one(server: &Server, thread: &str, kinds: &str) -> Option<Self> {
        let inject = format!("inject={kinds}:delay_enter={HANGS_S}s:when=1");
        let trace = format!("trace={kinds}");
        let seen = fs::File::create(server.path("held-up")).unwrap();
        let words = ["-qq", "-p", thread, "-e", &trace, "-e", &inject];
        let mut tracer =
            Command::new("strace").args(words).stdin(Stdio::null()).stderr(seen).spawn().unwrap();
        let status = format!("/proc/{}/task/{thread}/status", server.pid());
        let is_held = server.wait_for("a tracer", |_| {
            let Ok(status) = fs::read_to_string(&status) else { return Some(false) };
            (!status.lines().any(|line| line == "TracerPid:\t0")).then_some(true)
        });
        if is_held {
            return Some(Self(tracer));
        }
        tracer.wait().unwrap();
        None
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It lets go of the agent when it is asked to end, and not when it is killed.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(asked.unwrap().success());
        self.0.wait().unwrap();
    }
}

/// The youngest of that name.
fn thread_of(process: u32, name: &str) -> Option<String> {
    let threads = format!("/proc/{process}/task");
    let is_it = |thread: &String| {
        let called = fs::read_to_string(format!("{threads}/{thread}/comm")).unwrap_or_default();
        called.trim() == name
    };
    let of_it = names(Path::new(&threads)).into_iter().filter(is_it);
    of_it.max_by_key(|thread| thread.parse::<u64>().unwrap())
}
