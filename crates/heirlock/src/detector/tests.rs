//! The detector on real directories, under what status monitors, sm-notify and administrators do to them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::ledger::{Folder, Scan};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Hints, scan};

fn line(my_name: &str) -> String {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 {my_name}\n")
}

/// A state directory below a temporary one, and its `sm`.
struct Ground {
    _above: tempfile::TempDir,
    state: PathBuf,
    sm: PathBuf,
    bak: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let state = above.path().join("nfs");
        let ground = Self { sm: state.join("sm"), bak: state.join("sm.bak"), state, _above: above };
        ground.make();
        ground
    }

    fn make(&self) {
        fs::create_dir_all(&self.sm).unwrap();
        fs::create_dir_all(&self.bak).unwrap();
    }

    fn hints(&self) -> (Hints, Receiver<()>) {
        let (sender, receiver) = channel();
        let hints =
            Hints::start(vec![self.sm.clone(), self.bak.clone()], "/proc/self/mounts".into(), move || {
                let _ = sender.send(());
            });
        (hints.unwrap(), receiver)
    }

    /// Looks at once, and after each hint, until a look shows what is expected.
    fn wait_until(&self, hints: &Receiver<()>, shows: impl Fn(&Scan) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !scan(&self.state).is_ok_and(|scan| shows(&scan)) {
            let left = end.saturating_duration_since(Instant::now());
            hints.recv_timeout(left).expect("a hint that leads to the look which shows it");
        }
    }

    /// Makes a change after all hints of earlier changes have come, so that only its own can lead to the look.
    fn hinted(&self, hints: &Receiver<()>, change: impl FnOnce(), shows: impl Fn(&Scan) -> bool) {
        while hints.recv_timeout(Duration::from_millis(50)).is_ok() {}
        change();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            hints.recv_timeout(end.saturating_duration_since(Instant::now())).expect("a hint of the change");
            if scan(&self.state).is_ok_and(|scan| shows(&scan)) {
                return;
            }
        }
    }
}

fn holds(scan: &Scan, name: &str, bytes: &str) -> bool {
    scan.files.iter().any(|file| file.name.as_str() == name && file.bytes == *bytes.as_bytes())
}

#[test]
fn a_burst_of_two_thousand_files_causes_few_looks() {
    let ground = Ground::new();
    let (sender, receiver) = channel();
    let (hold, held) = channel::<()>();
    let _hints =
        Hints::start(vec![ground.sm.clone(), ground.bak.clone()], "/proc/self/mounts".into(), move || {
            let _ = sender.send(());
            // Held up until the burst is over, as a look of many files would.
            let _ = held.recv();
        });
    receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    for i in 0..2_000 {
        fs::write(ground.sm.join(format!("10.2.{}.{}", i / 250, i % 250)), line("nfs-a")).unwrap();
    }
    drop(hold);
    let mut looks = 0;
    while scan(&ground.state).unwrap().files.len() != 2_000 || looks == 0 {
        receiver.recv_timeout(Duration::from_secs(30)).expect("a hint of the burst");
        looks += 1;
    }
    while receiver.recv_timeout(Duration::from_millis(200)).is_ok() {
        looks += 1;
    }
    assert!(looks <= 4, "{looks} looks");
}

#[test]
fn each_step_of_rpc_statd_is_hinted() {
    let ground = Ground::new();
    let (_hints, receiver) = ground.hints();
    let path = ground.sm.join("10.0.0.1");
    // A new client: an empty file, then its line.
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    ground.wait_until(&receiver, |scan| scan.problems.iter().any(|problem| problem.may_be_in_the_making));
    let write = || {
        file.write_all(line("first").as_bytes()).unwrap();
        drop(file);
    };
    ground
        .hinted(&receiver, write, |scan| holds(scan, "10.0.0.1", &line("first")) && scan.problems.is_empty());
    // The same client with a new cookie.
    let register_anew = || {
        fs::remove_file(&path).unwrap();
        fs::write(&path, line("second")).unwrap();
    };
    ground.hinted(&receiver, register_anew, |scan| holds(scan, "10.0.0.1", &line("second")));
    // A second line, with the temporary names of nfs-utils before and since 2.8.2.
    for (temporary, my_name) in [("10.0.0.1.new", "old"), (".10.0.0.1.new", "new")] {
        let two = format!("{}{}", line("second"), line(my_name));
        let rename_onto = || {
            fs::write(ground.sm.join(temporary), &two).unwrap();
            assert_eq!(scan(&ground.state).unwrap().files.len(), 1, "{temporary} is no record");
            fs::rename(ground.sm.join(temporary), &path).unwrap();
        };
        ground.hinted(&receiver, rename_onto, |scan| holds(scan, "10.0.0.1", &two));
    }
    ground.hinted(&receiver, || fs::remove_file(&path).unwrap(), |scan| scan.files.is_empty());
}

#[test]
fn no_look_misses_a_client_that_sm_notify_moves() {
    let ground = Ground::new();
    let names: Vec<String> = (0..300).map(|i| format!("10.3.{}.{}", i / 250, i % 250)).collect();
    for name in &names {
        fs::write(ground.sm.join(name), line("now")).unwrap();
    }
    // A file that an earlier run could not reach lies there already.
    for name in &names[..50] {
        fs::write(ground.bak.join(name), line("before")).unwrap();
    }
    let (_hints, receiver) = ground.hints();
    let done = Arc::new(AtomicBool::new(false));
    let mover = {
        let (done, names) = (Arc::clone(&done), names.clone());
        let (sm, bak) = (ground.sm.clone(), ground.bak.clone());
        thread::spawn(move || {
            for name in &names {
                fs::rename(sm.join(name), bak.join(name)).unwrap();
                thread::yield_now();
            }
            done.store(true, Ordering::Release);
        })
    };
    let mut looks = 0;
    while !done.load(Ordering::Acquire) || looks == 0 {
        let scan = scan(&ground.state).unwrap();
        let missed = names.iter().find(|name| !holds(&scan, name, &line("now")));
        assert!(missed.is_none(), "look {looks} missed {missed:?}");
        looks += 1;
    }
    mover.join().unwrap();
    let moved =
        |scan: &Scan| scan.files.len() == 300 && scan.files.iter().all(|file| file.folder == Folder::SmBak);
    ground.wait_until(&receiver, moved);
    // Answered clients are removed from sm.bak.
    let answered = || fs::remove_file(ground.bak.join(&names[0])).unwrap();
    ground.hinted(&receiver, answered, |scan| scan.files.len() == 299);
}

#[test]
fn a_directory_that_takes_the_place_of_another_is_watched() {
    let ground = Ground::new();
    let (_hints, receiver) = ground.hints();
    let put = |name: &str| fs::write(ground.sm.join(name), line("nfs-a")).unwrap();
    let aside = |from: &Path, i: usize| fs::rename(from, from.with_extension(format!("aside-{i}"))).unwrap();
    type Replace<'a> = &'a dyn Fn();
    let replacements: [(&str, Replace<'_>); 4] = [
        ("removed", &|| fs::remove_dir_all(&ground.sm).unwrap()),
        ("moved", &|| aside(&ground.sm, 1)),
        ("moved with the one above it", &|| aside(&ground.state, 2)),
        ("removed with the one above it", &|| fs::remove_dir_all(&ground.state).unwrap()),
    ];
    for (what, replace) in replacements {
        ground.make();
        put("10.0.0.1");
        ground.wait_until(&receiver, |scan| scan.files.len() == 1);
        replace();
        assert!(scan(&ground.state).is_err(), "{what}: a look must not pass for an empty directory");
        ground.make();
        put("10.0.0.2");
        // Until the new watch is set; that is a hint as well.
        while receiver.recv_timeout(Duration::from_millis(700)).is_ok() {}
        ground.hinted(&receiver, || put("10.0.0.3"), |scan| scan.files.len() == 2);
        fs::remove_dir_all(&ground.state).unwrap();
    }
}

#[test]
fn a_directory_that_is_made_later_is_found() {
    let ground = Ground::new();
    fs::remove_dir_all(&ground.state).unwrap();
    let (_hints, receiver) = ground.hints();
    receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    let made = || {
        ground.make();
        fs::write(ground.sm.join("10.0.0.1"), line("nfs-a")).unwrap();
    };
    ground.hinted(&receiver, made, |scan| scan.files.len() == 1);
}

#[test]
fn a_state_directory_behind_a_link_is_watched() {
    let ground = Ground::new();
    let link = ground.state.with_extension("link");
    symlink(&ground.state, &link).unwrap();
    let (sender, receiver) = channel();
    let _hints =
        Hints::start(vec![link.join("sm"), link.join("sm.bak")], "/proc/self/mounts".into(), move || {
            let _ = sender.send(());
        });
    receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    let put = || fs::write(ground.sm.join("10.0.0.1"), line("nfs-a")).unwrap();
    ground.hinted(&receiver, put, |scan| scan.files.len() == 1);
    assert_eq!(scan(&link).unwrap().files.len(), 1);
}

#[test]
fn pipes_and_links_are_neither_followed_nor_waited_for() {
    let ground = Ground::new();
    for (name, kind) in [("a-pipe", FileType::Fifo), ("a-socket", FileType::Socket)] {
        mknodat(CWD, ground.sm.join(name), kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    let outside = ground.state.join("outside");
    fs::write(&outside, line("outside")).unwrap();
    symlink(&outside, ground.sm.join("a-link")).unwrap();
    symlink(ground.sm.join("a-link-to-itself"), ground.sm.join("a-link-to-itself")).unwrap();
    symlink("nowhere", ground.bak.join("a-dangling-link")).unwrap();
    fs::write(ground.sm.join("10.0.0.1"), line("nfs-a")).unwrap();
    let (sender, receiver) = channel();
    let state = ground.state.clone();
    // A look that waits for a pipe's writer would wait for ever.
    thread::spawn(move || sender.send(scan(&state).unwrap()));
    let scan = receiver.recv_timeout(Duration::from_secs(30)).expect("a look that ends");
    assert_eq!(scan.files.len(), 1);
    let mut problems: Vec<&str> = scan.problems.iter().map(|problem| problem.path.as_str()).collect();
    problems.sort_unstable();
    assert_eq!(
        problems,
        ["sm.bak/a-dangling-link", "sm/a-link", "sm/a-link-to-itself", "sm/a-pipe", "sm/a-socket"]
    );
}

#[test]
fn the_watch_ends_with_its_owner() {
    let ground = Ground::new();
    let (hints, receiver) = ground.hints();
    receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    drop(hints);
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the thread is still there"),
        }
    }
    File::create(ground.sm.join("10.0.0.1")).unwrap();
    assert_eq!(receiver.recv(), Err(std::sync::mpsc::RecvError));
}
