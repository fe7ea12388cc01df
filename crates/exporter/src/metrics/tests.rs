use std::collections::BTreeSet;

use heirlock_agent::control::report::{LockManagerStatus, NamedLockManager};

use super::*;
use crate::testing::{HOSTILE, status};

/// The whole text, as it is served. `HEIRLOCK_REWRITE=1` writes it anew.
#[test]
fn the_text_is_the_one_that_was_looked_at() {
    let now = text(Some(&status()), Own { waited: 5 });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics.txt");
    if std::env::var_os("HEIRLOCK_REWRITE").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let before = std::fs::read_to_string(path).unwrap();
    let other = now.lines().zip(before.lines()).find(|(now, before)| now != before);
    assert!(now == before, "the text differs from tests/metrics.txt: {other:?}");
}

#[test]
fn without_an_agent_only_the_exporter_speaks() {
    let text = text(None, Own::default());
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let version = format!("heirlock_exporter_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert_eq!(samples, ["heirlock_up 0", &version, "heirlock_exporter_connections_delayed_total 0"]);
}

#[test]
fn no_client_and_no_error_is_told() {
    let text = text(Some(&status()), Own::default());
    for word in ["script", "alert", "no room", HOSTILE] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("heirlock_up")).count(), 1);
}

#[test]
fn every_name_comes_once_and_says_its_unit() {
    let names = names();
    assert!(names.len() > 60, "{names:?}");
    let set: BTreeSet<&String> = names.iter().collect();
    assert_eq!(set.len(), names.len());
    for family in families(None, Own::default()) {
        let Family { name, kind, .. } = family;
        assert!(name.starts_with("heirlock_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
    }
}

/// A name in the document of metrics stands in a table, between backquotes.
#[test]
fn the_document_names_every_metric_and_no_other() {
    let document = include_str!("../../../../docs/metrics.md");
    let named = |name: &str| document.contains(&format!("`{name}`"));
    let families: Vec<&str> = families(None, Own::default()).iter().map(|family| family.name).collect();
    for name in &families {
        assert!(named(name), "{name}");
    }
    let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("heirlock_")) {
        assert!(families.contains(&word), "{word} is no metric");
    }
}

#[test]
fn what_is_there_too_often_is_counted_and_not_named() {
    let mut status = status();
    let server = status.servers[1].clone();
    status.servers = (0..500)
        .map(|at| {
            let mut server = server.clone();
            server.server = format!("nfs-{at}");
            server
        })
        .collect();
    let text = text(Some(&status), Own::default());
    assert!(text.contains("\nheirlock_other_servers 500\n") && text.contains("\nheirlock_left_out 436\n"));
    assert_eq!(
        text.lines().filter(|line| line.starts_with("heirlock_server_heartbeat_age_seconds{")).count(),
        64
    );
}

#[test]
fn several_lock_managers_are_told_apart_by_their_names() {
    let mut status = status();
    let named = |name: &str, serving| NamedLockManager {
        name: name.into(),
        status: LockManagerStatus { serving, ..status.lock_manager.clone() },
        ..NamedLockManager::default()
    };
    status.lock_managers = vec![named("host", true), named("two", false)];
    let text = text(Some(&status), Own::default());
    for (name, serving) in [("host", 1), ("two", 0)] {
        let sample = format!("\nheirlock_lock_manager_serving{{lock_manager=\"{name}\"}} {serving}\n");
        assert!(text.contains(&sample), "{sample} is not in {text}");
    }
    assert!(!text.contains("\nheirlock_lock_manager_serving "), "{text}");
}

/// promtool knows the conventions of names, types and helps.
#[test]
fn promtool_finds_nothing_to_say() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    let started = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        return crate::left_out::leave_out("promtool (Debian's package prometheus)");
    };
    promtool.stdin.take().unwrap().write_all(text(Some(&status()), Own::default()).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
