//! lockd and nfsd of a Linux kernel, with the programs of nfs-utils.

use std::time::Duration;

use heirlock_core::takeover::Strategy;

use super::{LockManagerSettings, Properties, limit};
use crate::limits;

pub(super) const PROPERTIES: Properties = Properties {
    name: "kernel",
    strategies: &[Strategy::Notify, Strategy::RestartLockManager, Strategy::RestartNfs, Strategy::Command],
    default_strategy: Strategy::RestartNfs,
    is_of_nfs_utils: true,
    is_known_by_commands: false,
    recognition_time_max,
};

/// systemd restarts what no command restarts.
fn recognition_time_max(settings: &LockManagerSettings) -> Duration {
    let by_systemd = limits::SYSTEMCTL_TIME_MAX + limits::KILLED_TIME_MAX;
    let restarts = [&settings.restart_nfs, &settings.restart_status_monitor];
    let restarts = restarts.map(|command| limit(command.as_ref()).unwrap_or(by_systemd));
    restarts.into_iter().chain(settings.commands_time_max()).max().unwrap_or(by_systemd)
}
