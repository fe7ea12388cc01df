//! Mode `watch`: rpc.statd must be what answers, and must work where heirlock looks.

use super::super::finding::Finding;
use super::super::statd;
use crate::config::{LockManagerKind, Settings};
use crate::host::{Host, Unit};

/// The findings on the live host.
pub(super) fn live(host: &Host, settings: &Settings) -> Vec<Finding> {
    [left_over(host), as_started(host, settings)].concat()
}

/// The options that the running rpc.statd was started with, whatever the files say.
fn as_started(host: &Host, settings: &Settings) -> Vec<Finding> {
    // Another lock manager has a status monitor of its own.
    let kernel = settings.lock_manager.kind == LockManagerKind::Kernel;
    let Some(running) = statd::running(host, settings).filter(|_| kernel) else { return Vec::new() };
    let check = "state-directory";
    let (pid, mut findings) = (running.pid, Vec::new());
    let ours = &settings.state_directory;
    if let Some(directory) = running.directory.filter(|directory| !host.is_same(directory, ours)) {
        findings.push(Finding::loses_locks(
            check,
            format!(
                "rpc.statd (process {pid}) keeps its records in {}, and heirlock looks in {}: no client is ever noticed",
                directory.display(),
                ours.display()
            ),
            format!("set state-directory = {:?}", directory.display().to_string()),
        ));
    } else if let Some(owner) =
        statd::user(host, settings).filter(|owner| ![0, *owner].contains(&running.user))
    {
        let sm = ours.join("sm");
        findings.push(Finding::loses_locks(
            check,
            format!(
                "{} belongs to user {owner}, and rpc.statd (process {pid}) runs as user {}: neither can read what the other writes there",
                sm.display(),
                running.user
            ),
            format!("chown -R {} {}, or restart rpc.statd, which runs as the owner", running.user, sm.display()),
        ));
    }
    if let Some(name) = running.name {
        findings.push(Finding::warning(
            "status-monitor-address",
            format!(
                "rpc.statd (process {pid}) was started with -n {} and listens there alone: a client that mounted by another address and was restarted is not heard, and its locks stay",
                name.escape_debug()
            ),
            "start it without -n",
        ));
    }
    findings
}

/// The obstacle that kept rpc.statd away in another mode must be gone.
fn left_over(host: &Host) -> Vec<Finding> {
    let masked = match host.unit(statd::UNIT) {
        Unit::Masked(at) if host.systemctl.is_some() => at,
        _ => return Vec::new(),
    };
    vec![Finding::loses_locks(
        "rpc-statd",
        format!(
            "{} masks {}, so nothing is the status monitor here after a boot",
            masked.display(),
            statd::UNIT
        ),
        format!(
            "run 'heirlock enable', or systemctl unmask {} if it was not heirlock that masked it",
            statd::UNIT
        ),
    )]
}
