//! A few seeds and all histories that are kept, so that `cargo test` alone notices a broken promise; `./test` lives through ten
//! thousand seeds.
#![expect(clippy::panic, reason = "in a test a panic is the report")]

use std::path::Path;

use heirlock_sim::{Schedule, Trace, run};

fn keeps_every_promise(name: &str, schedule: &Schedule) {
    if let Some(broken) = run(schedule, Trace::Silent).violation {
        panic!("{name} breaks I{} at {} ms: {}", broken.invariant, broken.at, broken.what);
    }
}

#[test]
fn a_hundred_seeds_keep_every_promise() {
    for seed in 0..100 {
        keeps_every_promise(&format!("seed {seed}"), &Schedule::draw(seed));
    }
}

/// Each history says in its first lines what it once broke, or with which plant it does.
#[test]
fn the_histories_that_are_kept_keep_every_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# "),
            "{}: expected a comment on the promise that it once broke",
            path.display()
        );
        let schedule = Schedule::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        keeps_every_promise(&path.display().to_string(), &schedule);
        count += 1;
    }
    assert!(count >= 12, "expected the histories that are kept, found {count}");
}

/// A schedule that was written down and read again tells the same as its seed.
#[test]
fn a_schedule_that_was_written_down_tells_the_story_of_its_seed() {
    let one_thread = |from: u64| {
        for seed in (from..100).step_by(2) {
            let schedule = Schedule::draw(seed);
            let read = Schedule::parse(&schedule.to_string()).unwrap();
            let (told, again) = (run(&schedule, Trace::Kept).told, run(&read, Trace::Kept).told);
            assert!(told.len() > 20, "seed {seed} tells nothing");
            let differs = told.iter().zip(&again).find(|(one, other)| one != other);
            assert!(told == again, "seed {seed}: {differs:?}, {} and {} lines", told.len(), again.len());
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| one_thread(0));
        scope.spawn(|| one_thread(1));
    });
}
