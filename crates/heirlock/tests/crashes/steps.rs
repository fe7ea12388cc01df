//! Kills a program at one of its steps, from outside: strace ends it at the beginning of its n-th system call of one kind,
//! so nothing of this is in the product. Each thread counts for itself.

use std::cell::Cell;

/// A kind of system call that leaves something behind: between two of them a kill finds the same files, and the same
/// has been said to others.
pub(super) const SYNC: &str = "?fsync,?fdatasync";
pub(super) const RENAME: &str = "?rename,?renameat,?renameat2";
pub(super) const LINK: &str = "?link,?linkat";
pub(super) const UNLINK: &str = "?unlink,?unlinkat";
pub(super) const MKDIR: &str = "?mkdir,?mkdirat";
pub(super) const SEND: &str = "?sendto,?sendmsg,?sendmmsg";

/// With this variable in the environment each step is tried, and not a sample.
const EVERY: &str = "HEIRLOCK_TEST_EVERY_STEP";

/// More steps than any scene has: an agent that never comes to an end is a failure.
const STEPS_MAX: usize = 1_000;

/// At which step an agent is to be killed.
pub(super) struct Killer {
    calls: &'static str,
    step: usize,
    struck: Cell<bool>,
}

impl Killer {
    /// The command that runs an agent up to that step.
    pub(super) fn runner(&self) -> Vec<String> {
        let (trace, inject) = (
            format!("trace={}", self.calls),
            format!("inject={}:signal=KILL:when={}", self.calls, self.step),
        );
        // The tracer is not our child (-D): we start the agent itself, and its end is the agent's.
        let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        words.map(str::to_owned).to_vec()
    }

    /// It was killed.
    pub(super) fn has_struck(&self) {
        self.struck.set(true);
    }
}

/// Plays a scene for each step of these kinds, in a world of its own, until one is over before the agent comes so far.
/// A sample takes one of `stride` steps. With fewer kills than `at_least` it would have shown nothing.
pub(super) fn at_every_step(
    kinds: &[&'static str],
    (stride, at_least): (usize, usize),
    mut scene: impl FnMut(&Killer),
) {
    let stride = if std::env::var_os(EVERY).is_some() { 1 } else { stride };
    let mut kills = 0;
    for calls in kinds {
        for step in (1..STEPS_MAX).step_by(stride) {
            let killer = Killer { calls, step, struck: Cell::new(false) };
            eprintln!("killed at {calls}, step {step}");
            scene(&killer);
            if !killer.struck.get() {
                break;
            }
            kills += 1;
            assert!(step + stride < STEPS_MAX, "it does not come to an end");
        }
    }
    eprintln!("{kills} kills");
    assert!(kills >= at_least, "there were but {kills} kills");
}
