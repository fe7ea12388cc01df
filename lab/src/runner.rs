//! Runs scenarios, several side by side, and tells how they ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::capture::Capture;
use crate::cluster::{Cluster, Programs, Story};
use crate::release::{Release, Root};
use crate::scenario::Scenario;
use crate::stop::Stop;

/// How to run.
#[derive(Debug)]
pub struct Plan {
    /// The scenarios to run, in this order, each with its capture mode; one scenario may come several times.
    pub scenarios: Vec<(&'static Scenario, Capture)>,
    /// The Debian that the guests run.
    pub release: Release,
    /// Its root.
    pub root: Root,
    /// How many run side by side.
    pub jobs: usize,
    /// Keep the folders of passed scenarios too.
    pub keep: bool,
    /// The lab's own program, for the guests.
    pub program: PathBuf,
    /// The binary under test; `None` where no scenario needs it.
    pub heirlock: Option<PathBuf>,
}

/// How one scenario ended.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: &'static str,
    /// How servers learned of records.
    pub capture: Capture,
    /// Did it prove its claim?
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where consoles, transcript and last facts are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<PathBuf>,
}

/// Runs the plan to its end, or until the lab is asked to stop: then what has not begun does not begin.
#[must_use]
pub fn run(plan: &Plan, stop: &Stop) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..plan.jobs.clamp(1, plan.scenarios.len().max(1)) {
            scope.spawn(|| {
                while let Some((scenario, capture)) = plan.scenarios.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if stop.asked() {
                        return;
                    }
                    let outcome = run_one(scenario, *capture, plan, stop);
                    tell(&scenario.label(*capture), &outcome);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn tell(label: &str, outcome: &Outcome) {
    let mark = if outcome.passed { "ok" } else { "FAILED" };
    eprintln!("{label:26} {:7.2} {mark}", outcome.seconds);
    if let Some(error) = &outcome.error {
        eprintln!("{}", error.trim_end());
    }
    if let Some(logs) = &outcome.logs {
        eprintln!("{label:26} logs are kept in {}", logs.display());
    }
}

fn run_one(scenario: &'static Scenario, capture: Capture, plan: &Plan, stop: &Stop) -> Outcome {
    let started = Instant::now();
    let (result, folder) = match make_folder(&scenario.label(capture)) {
        Ok(folder) => (in_own_thread(scenario, capture, plan, folder.path(), stop), Some(folder)),
        Err(error) => (Err(error), None),
    };
    let keep = plan.keep || (result.is_err() && !stop.asked());
    let logs = folder.filter(|_| keep).map(|folder| {
        let path = folder.keep();
        clear_away(&path);
        path
    });
    Outcome {
        name: scenario.name,
        capture,
        passed: result.is_ok(),
        seconds: started.elapsed().as_secs_f64(),
        error: result.err().map(|error| format!("{error:#}")),
        logs,
    }
}

fn make_folder(name: &str) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("heirlock-lab-{name}-"))
        .tempdir()
        .context("can't make a folder for the scenario")
}

/// A scenario's thread moves into its network and never leaves it, so it is a new one each time. A panic is a
/// failure like any other: the guests are ended while it unwinds.
fn in_own_thread(
    scenario: &'static Scenario,
    capture: Capture,
    plan: &Plan,
    folder: &Path,
    stop: &Stop,
) -> Result<()> {
    thread::scope(|scope| {
        let story = || -> Result<()> {
            let story = Story::new(&scenario.label(capture), true, folder)?;
            let heirlock = plan.heirlock.as_deref().filter(|_| scenario.needs_heirlock);
            let programs = Programs { lab: &plan.program, heirlock, capture };
            let mut cluster = Cluster::new(plan.release, &plan.root, folder, programs, stop, story)?;
            let result = (scenario.run)(&mut cluster);
            // What went well for the clients may have left something in the store that harms the next ones.
            let result =
                result.and_then(|()| heirlock.map_or(Ok(()), |program| cluster.check_history(program)));
            if let Err(error) = &result {
                let text = format!("{error:#}");
                cluster.say(format!("failed: {}", text.lines().next().unwrap_or_default()));
                cluster.post_mortem();
            }
            result
        };
        let thread = thread::Builder::new().name(scenario.name.to_owned()).spawn_scoped(scope, story)?;
        thread.join().unwrap_or_else(|panic| {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(anyhow!("panicked: {}", text.unwrap_or("no message")))
        })
    })
}

/// Of a folder that is kept, the logs and the store are of use.
fn clear_away(folder: &Path) {
    for name in ["bin", "modules", "memory"] {
        fs::remove_dir_all(folder.join(name)).ok();
    }
    if let Ok(entries) = fs::read_dir(folder) {
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "img") {
                fs::remove_file(path).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_folder_has_the_logs_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bin/x")).unwrap();
        for file in ["homes.img", "console.nfs-a", "transcript"] {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        clear_away(folder.path());
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["console.nfs-a", "transcript"]);
    }
}
