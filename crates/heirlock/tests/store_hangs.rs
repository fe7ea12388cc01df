//! The real agent, while a call of its store hangs: strace holds the agent's next sync up from outside, as the dead server of a
//! hard-mounted volume does, so nothing of this is in the product.
//!
//! Without strace there is no test, so by itself none is run: `cargo nextest run -p heirlock --test store_hangs --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the tests of the agent as a whole use the rest")]
mod harness;
#[path = "agent/holder.rs"]
mod holder;

use std::fs;
use std::process::Stdio;

use harness::{Site, line};
use holder::Holder;

/// All that make a file durable.
const SYNCS: &str = "?fsync,?fdatasync,?syncfs";

fn beat(site: &Site, server: &str) -> String {
    fs::read_to_string(site.store().join("servers").join(server)).unwrap()
}

#[test]
#[ignore = "needs strace: ./test runs it"]
fn while_a_record_hangs_the_heart_beats_and_requests_are_answered() {
    let site = Site::new();
    let mut a = site.server("a", "nfs-a");
    a.up();
    a.register("10.0.0.1");
    a.wait_until_captured("nfs", 1);
    let holder = Holder::of(&a, "store", SYNCS);
    a.register("10.0.0.2");
    let error = a.wait_for("a call that is given up", |a| {
        let status = a.try_status()?;
        status["store"]["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("a commit takes longer than 800 ms"), "{error}");
    // It hangs still, and the heart goes on.
    for _ in 0..5 {
        let before = beat(&site, "nfs-a");
        a.wait_for("the next heartbeat", |_| (beat(&site, "nfs-a") != before).then_some(()));
    }
    let records = site.store().join("services/nfs/1/sm");
    let paused = a.run(&["maintenance", "on"]);
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    // A verb that needs the store waits for it, and is answered once the store answers.
    let mut asked = a.command(&["release", "new"]);
    let mut asked = asked.stdout(Stdio::piped()).spawn().unwrap();
    assert!(!records.join("10.0.0.2").exists() && asked.try_wait().unwrap().is_none());
    drop(holder);
    let said = asked.wait_with_output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("no server ever claimed it"), "{said}");
    a.wait_until_captured("nfs", 2);
    assert_eq!(fs::read_to_string(records.join("10.0.0.2")).unwrap(), line("10.0.0.2"));
    let log = a.log();
    assert!(log.contains("it counts as failed, and may have come about"), "{log}");
}
