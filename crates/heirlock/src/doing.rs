//! The states of threads and programs, as /proc/PID/stat and /proc/PID/task/TID/stat say (proc(5)), for
//! `heirlock_core::hang` to judge by.

use std::path::Path;
use std::time::Duration;

use heirlock_core::hang::{Doing, Look};

use crate::files::trusted;

/// Threads of one program that are looked at.
const THREADS_MAX: usize = 65_536;

/// The state of a thread of this program, and whether another thread but the looking one works.
pub(crate) fn of_thread(thread: i32) -> Look {
    let tasks = Path::new("/proc/self/task");
    let own = stat(&tasks.join(thread.to_string()));
    let looking = rustix::thread::gettid().as_raw_nonzero().get();
    let others = threads(tasks).filter(|other| *other != thread && *other != looking);
    let others_work = others.map(|other| tasks.join(other.to_string())).any(|other| works(&other));
    match own {
        Some((doing, processor_time)) => Look { doing, others_work, processor_time },
        None => Look { doing: Doing::Gone, others_work, processor_time: Duration::ZERO },
    }
}

/// The state of a program that says in a thread of its own that it lives; `None` where it has ended. No processor time
/// is counted: that of its other threads is no sign that it hangs.
pub(crate) fn of_program(program: u32) -> Option<Look> {
    let folder = Path::new("/proc").join(program.to_string());
    let (own, _) = stat(&folder)?;
    let tasks = folder.join("task");
    let doing = || threads(&tasks).filter_map(|thread| stat(&tasks.join(thread.to_string())));
    let any = |wanted: Doing| doing().any(|(doing, _)| doing == wanted);
    let doing = match own {
        Doing::Stopped => Doing::Stopped,
        Doing::Gone => return None,
        _ if any(Doing::Runs) => Doing::Runs,
        _ if any(Doing::WaitsForDisk) => Doing::WaitsForDisk,
        _ => Doing::Sleeps,
    };
    Some(Look { doing, others_work: false, processor_time: Duration::ZERO })
}

fn threads(tasks: &Path) -> impl Iterator<Item = i32> {
    let names = trusted::names(tasks, THREADS_MAX).unwrap_or_default();
    names.into_iter().filter_map(|name| name.to_str()?.parse().ok())
}

fn works(task: &Path) -> bool {
    stat(task).is_some_and(|(doing, _)| matches!(doing, Doing::Runs | Doing::WaitsForDisk))
}

/// Its state, and the processor time that it has had.
fn stat(folder: &Path) -> Option<(Doing, Duration)> {
    parse(&trusted::read_system(folder.join("stat")).ok()?)
}

fn parse(stat: &str) -> Option<(Doing, Duration)> {
    // The name in parentheses may hold anything, parentheses as well.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let doing = match fields.next()? {
        "R" => Doing::Runs,
        "D" => Doing::WaitsForDisk,
        "T" | "t" => Doing::Stopped,
        "Z" | "X" | "x" => Doing::Gone,
        _ => Doing::Sleeps,
    };
    // utime and stime are the 14th and 15th field, state is the third.
    let mut ticks = fields.skip(10).take(2).map(str::parse::<u64>);
    let ticks = ticks.next()?.ok()?.saturating_add(ticks.next()?.ok()?);
    let in_a_second = rustix::param::clock_ticks_per_second().max(1);
    Some((doing, Duration::from_millis(ticks.saturating_mul(1000) / in_a_second)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_name_can_not_mislead() {
        let line = "42 (a) R (b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 0 0 0";
        assert_eq!(parse(line), Some((Doing::Sleeps, Duration::from_secs(2))));
        assert_eq!(parse("42 (a"), None);
    }

    #[test]
    fn a_thread_that_turns_runs_and_its_time_grows_and_one_that_waits_sleeps() {
        let (said, thread_of) = channel();
        let (end, ended) = channel::<()>();
        let tell = move || said.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        let waiting = thread::spawn({
            let tell = tell.clone();
            move || {
                tell();
                let _ = ended.recv();
            }
        });
        let waits = thread_of.recv().unwrap();
        wait_until(|| of_thread(waits).doing == Doing::Sleeps);
        let turning = thread::spawn(move || {
            tell();
            let began = Instant::now();
            while of_thread(rustix::thread::gettid().as_raw_nonzero().get()).processor_time
                < Duration::from_millis(50)
            {
                assert!(began.elapsed() < Duration::from_secs(60));
            }
        });
        let turns = thread_of.recv().unwrap();
        turning.join().unwrap();
        wait_until(|| of_thread(turns).doing == Doing::Gone);
        drop(end);
        waiting.join().unwrap();
    }

    #[test]
    fn a_program_that_is_stopped_is_and_one_that_has_ended_is_not_judged() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let doing = || of_program(child.id()).map(|look| look.doing);
        wait_until(|| doing() == Some(Doing::Sleeps));
        let signal =
            |name: &str| Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        signal("-STOP");
        wait_until(|| doing() == Some(Doing::Stopped));
        signal("-KILL");
        wait_until(|| doing().is_none());
        child.wait().unwrap();
    }

    fn wait_until(mut there: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !there() {
            assert!(Instant::now() < end, "it did not come about");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
