//! What a configuration file may say. Every key is optional here unless nothing could stand in for it; unknown ones are
//! refused, since a misspelt key is a setting that silently isn't one.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Either a program with its arguments, or a table that also says how long it may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum CommandEntry {
    Argv(Vec<String>),
    Table(CommandTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CommandTable {
    pub(super) command: Vec<String>,
    pub(super) time_limit: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) server: Option<String>,
    pub(super) state_directory: Option<String>,
    pub(super) runtime_directory: Option<String>,
    pub(super) local_directory: Option<String>,
    pub(super) store: Option<StoreSection>,
    #[serde(default)]
    pub(super) capture: CaptureSection,
    #[serde(default)]
    pub(super) lock_manager: LockManagerSection,
    #[serde(default)]
    pub(super) notify: NotifySection,
    #[serde(default)]
    pub(super) heartbeat: HeartbeatSection,
    #[serde(default)]
    pub(super) host: HostSection,
    #[serde(default)]
    pub(super) hooks: BTreeMap<String, CommandEntry>,
    #[serde(default)]
    pub(super) service: Vec<ServiceSection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct StoreSection {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) path: String,
    pub(super) shared: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct CaptureSection {
    pub(super) mode: Option<String>,
    pub(super) scan_interval: Option<String>,
    pub(super) tombstone_delay: Option<String>,
    pub(super) forget_after: Option<String>,
    pub(super) mon_timeout: Option<String>,
    pub(super) when_unprotected: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) callout_timeout: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct LockManagerSection {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) strategy: Option<String>,
    pub(super) convey: Option<String>,
    pub(super) settle_margin: Option<String>,
    pub(super) restart_nfs: Option<CommandEntry>,
    pub(super) restart_status_monitor: Option<CommandEntry>,
    pub(super) recognise: Option<CommandEntry>,
    pub(super) incarnation: Option<CommandEntry>,
    pub(super) grace_period: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NotifySection {
    pub(super) rpcbind_port: Option<u16>,
    pub(super) privileged_port: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HeartbeatSection {
    pub(super) interval: Option<String>,
    pub(super) dead_after: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HostSection {
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ServiceSection {
    pub(super) name: String,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
    #[serde(default)]
    pub(super) exports: Vec<String>,
    pub(super) home: Option<String>,
    pub(super) mode: Option<String>,
}

/// Every key that a file may hold, with its section: what the sample must document, and what a misspelt one is compared
/// with.
pub(super) const KEYS: &[&str] = &[
    "server",
    "state-directory",
    "runtime-directory",
    "local-directory",
    "store",
    "store.type",
    "store.path",
    "store.shared",
    "capture",
    "capture.mode",
    "capture.scan-interval",
    "capture.tombstone-delay",
    "capture.forget-after",
    "capture.mon-timeout",
    "capture.when-unprotected",
    "capture.port",
    "capture.callout-timeout",
    "lock-manager",
    "lock-manager.type",
    "lock-manager.strategy",
    "lock-manager.convey",
    "lock-manager.settle-margin",
    "lock-manager.restart-nfs",
    "lock-manager.restart-status-monitor",
    "lock-manager.recognise",
    "lock-manager.incarnation",
    "lock-manager.grace-period",
    "notify",
    "notify.rpcbind-port",
    "notify.privileged-port",
    "heartbeat",
    "heartbeat.interval",
    "heartbeat.dead-after",
    "host",
    "host.addresses",
    "host.names",
    "hooks",
    "hooks.fence",
    "hooks.volume-up",
    "hooks.address-up",
    "hooks.address-down",
    "hooks.volume-down",
    "service",
    "service.name",
    "service.addresses",
    "service.names",
    "service.exports",
    "service.home",
    "service.mode",
];

/// The known key that looks most like this one, if any does.
pub(super) fn suggestion(unknown: &str) -> Option<&'static str> {
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
    let (distance, key) = KEYS
        .iter()
        .map(|key| (edit_distance(unknown, last(key)), last(key)))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + unknown.len() / 4).then_some(key)
}

/// Levenshtein's, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_recognised_and_a_foreign_one_is_not() {
        assert_eq!(suggestion("adresses"), Some("addresses"));
        assert_eq!(suggestion("tombstone_delay"), Some("tombstone-delay"));
        assert_eq!(suggestion("frobnicate"), None);
    }
}
