//! However a run ends, nothing of it is left on the machine: no kernel, no namespace, no mount, no folder.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../../crates/heirlock/tests/left_out/mod.rs"]
mod left_out;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use heirlock_lab::capture::{Capture, WATCH_ALONE};
use heirlock_lab::cluster::{CLIENT1, Cluster};
use heirlock_lab::process::PidNamespace;
use heirlock_lab::release::Release;
use heirlock_lab::runner::{Plan, run};
use heirlock_lab::scenario::{EVERYWHERE, Scenario};
use heirlock_lab::stop::Stop;
use rustix::process::{Pid, Signal, kill_process};

const LAB: &str = env!("CARGO_BIN_EXE_heirlock-lab");

#[test]
fn nothing_is_left_after_ctrl_c() {
    let Some(seen) = stop_in_the_middle(Signal::INT, Some(130)) else { return };
    seen.expect_gone();
    let left: Vec<_> = fs::read_dir(seen.folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The lab can do nothing about this one, and still no kernel survives it. Its folder does.
#[test]
fn no_kernel_is_left_after_sigkill() {
    let Some(seen) = stop_in_the_middle(Signal::KILL, None) else { return };
    seen.expect_gone();
}

#[test]
fn a_panic_and_a_failure_end_their_guests_and_keep_their_logs() {
    const PANICS: Scenario = Scenario {
        name: "panics",
        about: "panics while a guest runs",
        needs_heirlock: false,
        releases: EVERYWHERE,
        captures: WATCH_ALONE,
        run: |lab: &mut Cluster| {
            lab.switch_on(&[CLIENT1])?;
            panic!("as planned")
        },
    };
    const FAILS: Scenario = Scenario {
        name: "fails",
        about: "a command in a guest fails, and one takes too long",
        needs_heirlock: false,
        releases: EVERYWHERE,
        captures: WATCH_ALONE,
        run: |lab: &mut Cluster| {
            lab.switch_on(&[CLIENT1])?;
            let late = lab.run(CLIENT1, "echo begun; sleep 60", Duration::from_secs(1))?;
            assert_eq!((late.ending.to_string().as_str(), late.output.as_str()), ("time limit", "begun\n"));
            lab.ok(CLIENT1, "echo out; echo err >&2; exit 7").map(drop)
        },
    };
    if !lab_can_run() {
        return;
    }
    let plan = Plan {
        scenarios: vec![(&PANICS, Capture::Watch), (&FAILS, Capture::Watch)],
        release: Release::Bookworm,
        root: Release::Bookworm.root(None).unwrap(),
        jobs: 2,
        keep: false,
        program: PathBuf::from(LAB),
        heirlock: None,
    };
    let outcomes = run(&plan, &Stop::on_signals().unwrap());
    let outcome = |name| outcomes.iter().find(|outcome| outcome.name == name).unwrap();
    assert_eq!(outcome("panics").error.as_deref(), Some("panicked: as planned"));
    let error = outcome("fails").error.clone().unwrap();
    for part in ["client1: exit code 7", "echo out; echo err >&2; exit 7", "out\nerr", "console of client1"] {
        assert!(error.contains(part), "expected {part:?} in {error}");
    }
    for outcome in &outcomes {
        let logs = outcome.logs.clone().unwrap();
        assert!(fs::read_to_string(logs.join("console.client1")).unwrap().contains("ptrace"));
        assert!(!logs.join("homes.img").exists());
        fs::remove_dir_all(logs).unwrap();
    }
    assert!(children(std::process::id()).is_empty());
}

/// The traces of a run on the machine.
struct Seen {
    kernels: Vec<PidNamespace>,
    /// As /proc names them, `net:[…]` and `mnt:[…]`.
    namespaces: BTreeSet<String>,
    /// The same, held open: else the next test's guests may get their numbers.
    _held: Vec<fs::File>,
    folder: tempfile::TempDir,
}

impl Seen {
    fn expect_gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.kernels.iter().any(|kernel| !kernel.members().is_empty()) {
            assert!(Instant::now() < deadline, "kernels are left: {:?}", self.kernels);
            std::thread::sleep(Duration::from_millis(50));
        }
        // The parent of a kernel ends a moment after it.
        while let Some(left) = self.inhabitant() {
            assert!(Instant::now() < deadline, "{left}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.folder.path().to_string_lossy()), "{mounts}");
        assert!(!self.namespaces.iter().any(|namespace| mounts.contains(namespace)), "{mounts}");
    }

    /// A process that still lives in one of the namespaces.
    fn inhabitant(&self) -> Option<String> {
        fs::read_dir("/proc").unwrap().find_map(|process| {
            let process = process.unwrap().path();
            let left: Vec<_> = namespaces_of(&process).intersection(&self.namespaces).cloned().collect();
            (!left.is_empty()).then(|| format!("{} still lives in {left:?}", process.display()))
        })
    }
}

/// Starts a scenario, sends `signal` to the lab while a lock is held, and tells what was there before.
fn stop_in_the_middle(signal: Signal, exit_code: Option<i32>) -> Option<Seen> {
    if !lab_can_run() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Command::new(LAB)
        .args(["run", "selftest"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lab.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("client1 holds the lock")),
        "the scenario did not get there"
    );
    // Only the lab's own namespaces are no sign of a leak.
    let own = namespaces_of(Path::new("/proc/self"));
    let mut namespaces = BTreeSet::new();
    let kernels: Vec<_> =
        children(lab.id()).into_iter().map(|child| PidNamespace::of_children(child).unwrap()).collect();
    assert_eq!(kernels.len(), 4);
    for kernel in &kernels {
        let members = kernel.members();
        assert!(!members.is_empty());
        for member in members {
            namespaces.extend(namespaces_of(&PathBuf::from(format!("/proc/{member}"))));
        }
    }
    let held = kernels.iter().flat_map(PidNamespace::members).flat_map(|member| {
        ["net", "mnt"].map(|kind| fs::File::open(format!("/proc/{member}/ns/{kind}")).ok())
    });
    let held = held.flatten().collect();
    namespaces.retain(|namespace| !own.contains(namespace));
    assert_eq!(namespaces.len(), 5, "one network and four mount namespaces, found {namespaces:?}");
    kill_process(Pid::from_child(&lab), signal).unwrap();
    assert_eq!(wait(&mut lab), exit_code);
    Some(Seen { kernels, namespaces, _held: held, folder })
}

fn namespaces_of(process: &Path) -> BTreeSet<String> {
    ["ns/net", "ns/mnt"]
        .iter()
        .filter_map(|name| Some(fs::read_link(process.join(name)).ok()?.to_string_lossy().into_owned()))
        .collect()
}

fn wait(lab: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = lab.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "the lab does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose parent is that one.
fn children(parent: u32) -> Vec<u32> {
    let line = format!("PPid:\t{parent}");
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            fs::read_to_string(format!("/proc/{id}/status")).is_ok_and(|status| status.contains(&line))
        })
        .collect()
}

fn lab_can_run() -> bool {
    let can = rustix::process::geteuid().is_root()
        && Path::new("/dev/net/tun").exists()
        && Path::new("/usr/bin/linux.uml").exists();
    if !can {
        left_out::leave_out("root, /dev/net/tun and the package user-mode-linux");
    }
    can
}
