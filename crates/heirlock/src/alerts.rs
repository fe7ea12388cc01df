//! Tells people what happened: looks at the agent's last status, and runs the command `hooks.alert` for each alert that follows
//! from it (`heirlock_agent::control::report::alerts`).
//!
//! The agent's loop knows nothing of it. While a command takes its time, what happens meanwhile is in the next status that is
//! looked at, so nothing waits in a queue.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Command;
use crate::control::report::StatusReport;
use crate::control::report::alerts::{Alert, Alerts};
use crate::hooks;
use crate::threads::{self, Lasting};

/// How often the status is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Begins to look, in a thread that lasts.
///
/// # Errors
/// Where no thread can be had.
pub(crate) fn start(
    command: Command,
    status: impl Fn() -> StatusReport + Send + 'static,
) -> io::Result<Lasting> {
    threads::lasting("alerts", move || {
        let (began, mut alerts) = (Instant::now(), Alerts::default());
        loop {
            for alert in alerts.take(began.elapsed().as_secs(), &status()) {
                tell(&command, &alert);
            }
            thread::sleep(LOOK_INTERVAL);
        }
    })
}

/// A command that fails is said, and not run again: what it is for has happened, and a condition that lasts is in the status.
fn tell(command: &Command, alert: &Alert) {
    let (kind, message) = (alert.alert.as_str(), &alert.message);
    tracing::info!(alert = kind, level = alert.level, "{message}");
    if let Err(error) = hooks::run(command, &environment(alert)) {
        tracing::error!(alert = kind, %error, "hooks.alert did not tell that {message}: {error}");
    }
}

fn environment(alert: &Alert) -> Vec<(&'static str, String)> {
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    vec![
        ("HEIRLOCK_ALERT", alert.alert.as_str().to_owned()),
        ("HEIRLOCK_LEVEL", alert.level.to_owned()),
        ("HEIRLOCK_MESSAGE", shown(&alert.message)),
        ("HEIRLOCK_SERVER", alert.server.clone()),
        ("HEIRLOCK_SERVICE", alert.service.clone().unwrap_or_default()),
        ("HEIRLOCK_GENERATION", number(alert.generation)),
        ("HEIRLOCK_COUNT", alert.count.to_string()),
        ("HEIRLOCK_CLIENTS", alert.clients.join(" ")),
        // A document of strings and numbers can always be written.
        ("HEIRLOCK_ALERT_JSON", serde_json::to_string(alert).unwrap_or_default()),
    ]
}

/// On one line: an error in it may come from another program.
fn shown(message: &str) -> String {
    message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use heirlock_agent::control::report::observed::Observed;

    use super::*;
    use crate::control::report::ServiceStatus;

    fn adopting(phase: &str) -> StatusReport {
        let mut report = StatusReport::without_agent("nfs-b", "/store");
        report.observed = Some(Box::new(Observed::default()));
        report.protected_since_s = Some(1);
        report.services.push(ServiceStatus {
            service: "nfs".into(),
            held: true,
            generation: Some(2),
            adopted_at_s: Some(7),
            phase: Some(phase.into()),
            ..ServiceStatus::default()
        });
        report
    }

    #[test]
    fn a_command_is_run_for_each_alert_with_its_words_and_fields_also_after_one_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let script = format!(
            "printf '%s|%s|%s|%s|%s\\n' \"$HEIRLOCK_ALERT\" \"$HEIRLOCK_LEVEL\" \"$HEIRLOCK_SERVICE\" \
             \"$HEIRLOCK_GENERATION\" \"$HEIRLOCK_ALERT_JSON\" >> {}; exit 1",
            told.display()
        );
        let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let status = Arc::new(Mutex::new(adopting("notifying")));
        let seen = Arc::clone(&status);
        let command = Command { argv, time_limit: Duration::from_secs(60) };
        let _thread = start(command, move || seen.lock().unwrap().clone()).unwrap();
        let lines = |count: usize| loop {
            let text = fs::read_to_string(&told).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect::<Vec<_>>();
            }
            thread::sleep(Duration::from_millis(20));
        };
        lines(1);
        *status.lock().unwrap() = adopting("settled");
        let lines = lines(2);
        assert!(
            lines[0].starts_with("adopted|info|nfs|2|{\"alert\":\"adopted\",\"level\":\"info\","),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("settled|info|nfs|2|"), "{lines:?}");
    }

    /// The text that a sample hands to the program that sends it.
    fn sent_by_sample(sample: &str, sender: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (sent, program) = (folder.path().join("sent"), folder.path().join(sender));
        fs::write(&program, format!("#!/bin/sh\ncat > {}\n", sent.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/alerts").join(sample);
        let argv = vec![path.display().to_string()];
        let mut alerts = Alerts::default();
        let alert = alerts.take(0, &adopting("notifying")).remove(0);
        let mut variables = environment(&alert);
        variables.push(("SENDMAIL", program.display().to_string()));
        variables.push(("PATH", format!("{}:/usr/bin:/bin", folder.path().display())));
        hooks::run(&Command { argv, time_limit: Duration::from_secs(60) }, &variables).unwrap();
        fs::read_to_string(&sent).unwrap()
    }

    #[test]
    fn the_sample_for_mail_writes_a_mail_and_the_one_for_a_webhook_posts_the_document() {
        let mail = sent_by_sample("mail", "sendmail");
        assert!(mail.contains("\nSubject: heirlock on nfs-b: adopted (nfs)\n"), "{mail}");
        assert!(mail.contains("\n\nnfs-b has adopted nfs, and tells its clients\n\n"), "{mail}");
        let posted: serde_json::Value = serde_json::from_str(&sent_by_sample("webhook", "curl")).unwrap();
        assert_eq!((&posted["alert"], &posted["generation"]), (&"adopted".into(), &2.into()));
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(shown("no\nvolume\u{1b}[2J"), "no volume [2J");
    }
}
