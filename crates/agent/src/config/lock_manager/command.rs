//! A lock manager that is known by the commands of the configuration alone.

use heirlock_core::takeover::Strategy;

use super::Properties;

pub(super) const PROPERTIES: Properties = Properties {
    name: "command",
    strategies: &[Strategy::Notify, Strategy::RestartLockManager, Strategy::RestartNfs, Strategy::Command],
    default_strategy: Strategy::RestartNfs,
    is_of_nfs_utils: false,
    is_known_by_commands: true,
    recognition_time_max: |settings| settings.commands_time_max().unwrap_or_default(),
};
