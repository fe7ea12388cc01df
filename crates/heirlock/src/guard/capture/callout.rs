//! Mode `callout`: as `watch`, and rpc.statd must know the callout, be able to run it, and get to the agent by it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::super::finding::Finding;
use super::super::statd;
use super::watch;
use crate::callout::{PROGRAM, SOCKET};
use crate::config::Settings;
use crate::files::trusted;
use crate::host::nfs_conf::NfsConf;
use crate::host::{Host, process};

/// The findings on the live host.
pub(super) fn live(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = watch::live(host, settings);
    findings.push(configured_callout(host, settings));
    findings.extend(behind(host, settings));
    findings.push(reachable(host, settings));
    findings
}

/// Where a callout does nothing, records are noticed as in mode `watch`.
const AS_WATCH: &str = "clients are on record some milliseconds late, as by capture.mode = \"watch\"";

fn configured_callout(host: &Host, settings: &Settings) -> Finding {
    let check = "ha-callout";
    let Some(value) = statd::named_callout(host, settings) else {
        let found =
            format!("[statd] ha-callout is not set in nfs.conf, so rpc.statd calls no program: {AS_WATCH}");
        return Finding::warning(check, found, "run 'heirlock enable'");
    };
    let (named, file) = (PathBuf::from(&value.text), value.file.display());
    if !statd::is_our_callout(host, &value.text) && named.file_name().is_none_or(|name| name != PROGRAM) {
        let found = format!(
            "{file} says ha-callout={}, which is not heirlock's: {AS_WATCH}",
            value.text.escape_debug()
        );
        return Finding::warning(check, found, format!("take it out of {file}, then run 'heirlock enable'"));
    }
    // The target of a link is the program that runs.
    let program = trusted::read_link(host.at(&named)).unwrap_or_else(|_| named.clone());
    match statd::may_run(host, settings, &named).and_then(|()| statd::may_run(host, settings, &program)) {
        Ok(()) => Finding::ok(check, format!("{file} names {}, and rpc.statd may run it", named.display())),
        Err(why) => Finding::warning(
            check,
            format!("{why}: {AS_WATCH}"),
            "install heirlock where every user may run it (/usr/local/bin), then run 'heirlock enable' from there",
        ),
    }
}

/// rpc.statd reads nfs.conf at its start, and never again.
fn behind(host: &Host, settings: &Settings) -> Option<Finding> {
    let running = statd::running(host, settings).filter(|running| running.callout.is_none())?;
    let pid = running.pid;
    let started = process::started_at(host, pid)?;
    let value = NfsConf::read_some(host, &[("statd", statd::HA_CALLOUT)]).get("statd", statd::HA_CALLOUT)?;
    let written = trusted::stat(host.at(&value.file)).ok()?.mtime();
    (written > started).then(|| {
        Finding::warning(
            "ha-callout",
            format!(
                "{} is younger than rpc.statd (process {pid}), which has read it at its start: {AS_WATCH}",
                value.file.display()
            ),
            format!("systemctl restart {}", statd::UNIT),
        )
    })
}

/// The socket, as rpc.statd's user sees it.
fn reachable(host: &Host, settings: &Settings) -> Finding {
    let check = "callout-socket";
    let socket = settings.runtime_directory.join(SOCKET);
    let shown = socket.display();
    if let Err(error) = UnixStream::connect(host.at(&socket)) {
        let found = format!(
            "no agent listens at {shown} ({error}): locks are granted before their clients are on record"
        );
        return Finding::warning(check, found, "start the agent (systemctl start heirlock)");
    }
    match statd::may_pass(host, settings, &settings.runtime_directory) {
        Ok(()) => {
            Finding::ok(check, format!("the agent listens at {shown}, and rpc.statd's user gets there"))
        }
        Err(why) => Finding::warning(
            check,
            format!("rpc.statd's user doesn't get to {shown}: {why}; {AS_WATCH}"),
            "let others pass through the folder (chmod o+x)",
        ),
    }
}
