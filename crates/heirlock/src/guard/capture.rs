//! Checks of the capture mode (`capture.mode`): whether the status monitor of this host is the one that the mode means, and
//! whether it does what the mode promises. A mode is a file here.

mod callout;
mod nsm;
mod watch;

use super::finding::Finding;
use crate::config::{ForEach, Settings};
use crate::host::Host;

/// The configuration's promise, and the keys in it that contradict the promise.
pub(super) fn configured(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![promise(settings)];
    let mode = settings.capture.mode.as_str();
    findings.extend(settings.capture.idle_keys().into_iter().map(|(key, meant)| {
        Finding::warning(
            "capture",
            format!("capture.{key} is set, and capture.mode = {mode:?} takes no notice of it"),
            format!("set capture.mode = {:?}, or take the key out", meant.as_str()),
        )
    }));
    let is_status_monitor = settings.capture.mode.properties().is_status_monitor;
    if is_status_monitor && settings.lock_manager.restart_status_monitor.is_some() {
        findings.push(Finding::loses_locks(
            "capture",
            "lock-manager.restart-status-monitor is set, but heirlock is the status monitor: the command would put another one in its place at an adoption",
            "take it out",
        ));
    }
    findings
}

fn promise(settings: &Settings) -> Finding {
    let check = "capture";
    let promise = settings.capture.promise();
    if promise.is_whole { Finding::ok(check, promise.words) } else { Finding::note(check, promise.words) }
}

/// The findings on the live host, those that are well as well.
pub(super) fn live(host: &Host, settings: &Settings) -> Vec<Finding> {
    type Live = fn(&Host, &Settings) -> Vec<Finding>;
    let each = ForEach::<Live> { watch: watch::live, callout: callout::live, nsm: nsm::live };
    settings.capture.mode.choose(each)(host, settings)
}

#[cfg(test)]
mod tests;
