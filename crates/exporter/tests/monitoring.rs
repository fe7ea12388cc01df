//! What ships beside the exporter speaks of its metrics, and of no others: alert rules, dashboard and guide.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use heirlock_exporter::metrics::names;
use serde_json::Value;

#[path = "../../heirlock/tests/left_out/mod.rs"]
mod left_out;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All words that are metrics of heirlock by their first letters.
fn metrics_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("heirlock_")).collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let names = names();
    for (path, at_least) in [
        ("dist/prometheus/heirlock.rules.yml", 14),
        ("dist/prometheus/heirlock.test.yml", 14),
        ("dist/grafana/heirlock.json", 20),
    ] {
        let text = read(path);
        let used = metrics_in(&text);
        assert!(used.len() >= at_least, "{path}: {used:?}");
        for metric in used {
            assert!(names.iter().any(|name| name == metric), "{path}: {metric} is no metric of the exporter");
        }
    }
}

#[test]
fn every_panel_has_a_title_and_a_query_and_a_place_of_its_own() {
    let dashboard: Value = serde_json::from_str(&read("dist/grafana/heirlock.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 12);
    let mut taken = std::collections::BTreeSet::new();
    for panel in panels {
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()), "{panel}");
        let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in of("x")..of("x") + of("w") {
            for y in of("y")..of("y") + of("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}

#[test]
fn one_panel_shows_age_reach_and_time_of_the_last_drill_of_each_service() {
    let dashboard: Value = serde_json::from_str(&read("dist/grafana/heirlock.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let panel = panels.iter().find(|panel| panel["title"] == "Last drill of each service").unwrap();
    let shown = &panel["transformations"][1]["options"]["renameByName"];
    for (of, metric, column) in [
        ("A", "time() - heirlock_drill_timestamp_seconds{", "Age"),
        ("B", "heirlock_drill_unreached_clients{", "Clients not reached"),
        ("C", "heirlock_drill_adoption_seconds{", "Adoption would take"),
    ] {
        let target =
            panel["targets"].as_array().unwrap().iter().find(|target| target["refId"] == of).unwrap();
        assert!(target["expr"].as_str().unwrap().starts_with(metric), "{target}");
        // A table that is made of the newest values: each has a column of that name (Grafana, "merge").
        assert!(target["format"] == "table" && target["instant"] == true, "{target}");
        assert_eq!(shown[format!("Value #{of}")], column);
        assert!(names().iter().any(|name| metric.contains(name)), "{metric}");
    }
    // The colour of an old drill and the alert for one go by the same time.
    let red = &panel["fieldConfig"]["overrides"][0]["properties"][1]["value"]["steps"][1]["value"];
    let days = red.as_u64().unwrap() / 86_400;
    let old = format!("heirlock_drill_timestamp_seconds > {days} * 86400");
    assert!(read("dist/prometheus/heirlock.rules.yml").contains(&old), "{old}");
}

#[test]
fn every_alert_has_a_paragraph_in_the_guide_and_names_it() {
    let (rules, tests, guide) = (
        read("dist/prometheus/heirlock.rules.yml"),
        read("dist/prometheus/heirlock.test.yml"),
        read("docs/guide/monitoring.md"),
    );
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 14, "{alerts:?}");
    for alert in &alerts {
        let runbook = format!("runbook: docs/guide/monitoring.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&runbook).count(), 1, "{alert}");
        let (_, paragraph) = guide.split_once(&format!("### {alert}\n")).unwrap();
        let paragraph = paragraph.split("###").next().unwrap();
        assert!(paragraph.len() > 100, "{alert}: {paragraph}");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
    let headings: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(headings, alerts, "in the same order");
}

#[test]
fn every_alert_comes_when_it_should_and_is_quiet_before() {
    let folder = root().join("dist/prometheus");
    for words in [["check", "rules", "heirlock.rules.yml"], ["test", "rules", "heirlock.test.yml"]] {
        let Ok(output) = Command::new("promtool").args(words).current_dir(&folder).output() else {
            return left_out::leave_out("promtool (Debian's package prometheus)");
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
    }
}
