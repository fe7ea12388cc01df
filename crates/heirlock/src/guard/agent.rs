//! Whether this server's agent runs, is the one that is meant, gets its work done, and comes back after a boot. Without it
//! nothing is noticed and nothing can be adopted, however well everything else is.

use std::time::Duration;

use super::finding::Finding;
use super::switch;
use crate::config::{Command, Settings};
use crate::control::report::StatusReport;
use crate::control::{self, Answer, AskError, Request};
use crate::host::Host;
use crate::{hooks, limits};

const CHECK: &str = "agent";

/// Everything about the agent.
pub(super) fn check(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = match control::ask(&host.at(&settings.runtime_directory), &Request::Status, |_| ()) {
        Ok(Answer::Status(report)) => answered(host, settings, &report),
        Ok(_) => vec![of_another_version(host, "it answers something else than its status")],
        Err(error) => vec![unanswered(host, &error)],
    };
    findings.extend(at_boot(host, settings));
    findings
}

fn unanswered(host: &Host, error: &AskError) -> Finding {
    let harm = "no new client is noticed, and nothing can be adopted or released here";
    match error {
        // It was there, and this version does not know its answer.
        AskError::Gone { why } => of_another_version(host, why),
        AskError::NoAgent { path, source } => {
            let start = match host.systemctl {
                Some(_) => "systemctl enable --now heirlock",
                None => "start 'heirlock agent' (with capture.mode = \"nsm\" 'heirlock supervise')",
            };
            Finding::loses_locks(CHECK, format!("no agent answers at {path} ({source}): {harm}"), start)
        }
        AskError::Silent { .. } | AskError::Busy { .. } => {
            Finding::loses_locks(CHECK, format!("{error}: {harm}"), restart(host))
        }
        other => Finding::loses_locks(CHECK, other.to_string(), "mend that, then ask again"),
    }
}

fn of_another_version(host: &Host, why: &str) -> Finding {
    let found = format!(
        "an agent runs, and this program (version {}) doesn't understand its answer: {why}",
        env!("CARGO_PKG_VERSION")
    );
    Finding::warning(CHECK, found, format!("{}, so that both are of one version", restart(host)))
}

fn restart(host: &Host) -> &'static str {
    if host.systemctl.is_some() { "systemctl restart heirlock" } else { "end it and start it again" }
}

/// The findings on an agent that answers.
fn answered(host: &Host, settings: &Settings, report: &StatusReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    if report.version != version {
        findings.push(Finding::warning(
            CHECK,
            format!("it runs version {}, and {version} is installed", report.version),
            restart(host),
        ));
    } else if report.configuration != settings.fingerprint() {
        findings.push(Finding::warning(
            CHECK,
            "it runs with another configuration than this file: changes since its start are not in force",
            format!("{}; or name its file with --config", restart(host)),
        ));
    }
    let age = |ms: Option<u64>| ms.map(Duration::from_millis);
    let (turned, looked) = (age(report.loop_turned_ms_ago), age(report.looked_ms_ago));
    let still_max = settings.heartbeat.dead_after;
    if turned.is_none_or(|turned| turned > still_max) {
        findings.push(Finding::loses_locks(
            CHECK,
            format!(
                "its loop last turned {}, and other servers take it for dead after {} s",
                ago(turned),
                still_max.as_secs_f32()
            ),
            format!("it waits for a store that hangs, or hangs itself: look at its log; {}", restart(host)),
        ));
    }
    findings.extend(settings.instances().iter().enumerate().filter_map(|(place, of)| {
        let named = report.lock_managers.iter().find(|named| named.name == of.name.as_str());
        let of_first = (place == 0).then_some(report.looked_ms_ago).flatten();
        let looked = age(of_first.or(named.and_then(|named| named.looked_ms_ago)));
        // One look may be put off by a turn that takes its time.
        let looked_max = of.capture.scan_interval * 2 + still_max;
        looked.is_none_or(|looked| looked > looked_max).then(|| {
            let found = format!(
                "it last looked at {} {}, and should every {} s: new clients may be unprotected",
                of.state_directory.display(),
                ago(looked),
                of.capture.scan_interval.as_secs_f32()
            );
            Finding::loses_locks(CHECK, found, "look at 'heirlock status'")
        })
    }));
    if findings.is_empty() {
        let found = format!(
            "it runs, of this version and with this configuration; its loop turned {}, it looked {}",
            ago(turned),
            ago(looked)
        );
        findings.push(Finding::ok(CHECK, found));
    }
    findings
}

fn ago(age: Option<Duration>) -> String {
    age.map_or_else(|| "never".to_owned(), |age| format!("{:.1} s ago", age.as_secs_f32()))
}

/// Whether systemd starts it at boot.
fn at_boot(host: &Host, settings: &Settings) -> Vec<Finding> {
    let check = "agent-at-boot";
    let Some(systemctl) = &host.systemctl else {
        return vec![Finding::note(
            check,
            "systemd doesn't run here: whether a boot starts the agent can't be told",
        )];
    };
    let one = |unit: &str| {
        let argv = [&systemctl.display().to_string(), "is-enabled", unit].map(str::to_owned).to_vec();
        let said = hooks::run(&Command { argv, time_limit: limits::SYSTEMCTL_TIME_MAX }, &[]);
        let remedy = format!("systemctl enable {unit}");
        match said.as_ref().map(|output| output.0.trim()) {
            Ok("enabled-runtime") => {
                Finding::warning(check, format!("{unit} is enabled until the next boot only"), remedy)
            }
            Ok(_) => Finding::ok(check, format!("{unit} is enabled")),
            Err(error) if error.exit_status().is_some() => Finding::warning(
                check,
                format!(
                    "{unit} is not enabled: after a boot nothing is noticed, and clients of the boot are not told"
                ),
                remedy,
            ),
            Err(error) => Finding::note(check, format!("whether {unit} is enabled can't be told: {error}")),
        }
    };
    switch::units_at_boot(settings).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::super::finding::Severity;
    use super::*;
    use crate::control::report::NamedLockManager;
    use crate::guard::testing::{SERVICE, Tree, in_mode, settings, with_second_lock_manager};

    fn report(settings: &Settings) -> StatusReport {
        StatusReport {
            loop_turned_ms_ago: Some(100),
            looked_ms_ago: Some(9_000),
            ..heirlock_agent::first_status(settings, "the store")
        }
    }

    /// An agent that answers every question so.
    fn agent(tree: &Tree, line: String) {
        tree.folder("/run/heirlock");
        let path = tree.host().at("/run/heirlock/control.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).unwrap();
                let _ = writeln!(stream, "{line}");
            }
        });
    }

    fn said(tree: &Tree, settings: &Settings) -> Vec<(&'static str, Severity, String)> {
        let wrong =
            check(&tree.host(), settings).into_iter().filter(|finding| finding.severity > Severity::Note);
        wrong.map(|finding| (finding.check, finding.severity, finding.found)).collect()
    }

    #[test]
    fn an_agent_that_neither_runs_nor_comes_back_at_boot_is_said() {
        let tree = Tree::debian();
        let found = said(&tree, &settings(SERVICE));
        let short: Vec<_> = found.iter().map(|(check, severity, _)| (*check, *severity)).collect();
        assert_eq!(
            short,
            [("agent", Severity::LosesLocks), ("agent-at-boot", Severity::Warning)],
            "{found:?}"
        );
        assert!(found[0].2.starts_with("no agent answers at "), "{found:?}");
        assert_eq!(said(&tree, &in_mode("nsm")).len(), 3, "its sockets neither");
    }

    #[test]
    fn an_agent_of_another_version_or_configuration_or_that_stands_still_is_said() {
        let tree = Tree::debian();
        tree.put("/etc/systemd/system/multi-user.target.wants/heirlock.service", "");
        let settings = settings(SERVICE);
        let with = |change: fn(&mut StatusReport)| {
            let mut report = report(&settings);
            change(&mut report);
            let line = serde_json::to_string(&control::Line::Done(Answer::Status(Box::new(report)))).unwrap();
            agent(&tree, line);
            said(&tree, &settings)
        };
        assert_eq!(with(|_| ()), []);
        for (change, severity, words) in [
            (
                (|r| r.version = "0.0.1".into()) as fn(&mut StatusReport),
                Severity::Warning,
                "runs version 0.0.1",
            ),
            (|r| r.configuration = "other".into(), Severity::Warning, "another configuration"),
            (
                |r| r.loop_turned_ms_ago = Some(10_001),
                Severity::LosesLocks,
                "its loop last turned 10.0 s ago",
            ),
            (|r| r.loop_turned_ms_ago = None, Severity::LosesLocks, "its loop last turned never"),
            (|r| r.looked_ms_ago = Some(30_001), Severity::LosesLocks, "should every 10 s"),
        ] {
            let found = with(change);
            assert!(found.len() == 1 && found[0].1 == severity && found[0].2.contains(words), "{found:?}");
        }
        let settings_of_two = with_second_lock_manager(settings.clone());
        let of_two = |looked_ms_ago| {
            let named = NamedLockManager { name: "two".into(), looked_ms_ago, ..NamedLockManager::default() };
            let configuration = settings_of_two.fingerprint();
            let report = StatusReport { configuration, lock_managers: vec![named], ..report(&settings) };
            agent(
                &tree,
                serde_json::to_string(&control::Line::Done(Answer::Status(Box::new(report)))).unwrap(),
            );
            said(&tree, &settings_of_two)
        };
        assert_eq!(of_two(Some(9_000)), []);
        let found = of_two(None);
        assert!(
            found.len() == 1 && found[0].2.contains("last looked at /var/lib/nfs-two never"),
            "{found:?}"
        );
        agent(&tree, "{\"done\":{\"kind\":\"unheard-of\"}}".into());
        let found = said(&tree, &settings);
        assert!(found[0].1 == Severity::Warning && found[0].2.contains("doesn't understand"), "{found:?}");
    }
}
