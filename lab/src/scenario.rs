//! A scenario, and the list of all.

use anyhow::Result;

use crate::capture::{Capture, Captures};
use crate::cluster::Cluster;
use crate::release::Release;
use crate::scenarios;

/// One story on real servers, with the claim that it proves.
#[derive(Debug)]
pub struct Scenario {
    /// As `run NAME` names it.
    pub name: &'static str,
    /// Its purpose, in one line.
    pub about: &'static str,
    /// Does it run the installed `heirlock`? Then the binary is built first.
    pub needs_heirlock: bool,
    /// The releases that it can run on.
    pub releases: &'static [Release],
    /// How servers learn of records in it.
    pub captures: Captures,
    /// Tells the story; an error is a failure.
    pub run: fn(&mut Cluster) -> Result<()>,
}

impl Scenario {
    /// Its name in the lab's output and in the names of its folders.
    #[must_use]
    pub fn label(&self, capture: Capture) -> String {
        match capture {
            Capture::Watch => self.name.to_owned(),
            Capture::Nsm | Capture::Callout => format!("{}-{capture}", self.name),
        }
    }
}

/// Both releases.
pub const EVERYWHERE: &[Release] = &[Release::Bookworm, Release::Trixie];

/// All scenarios, in the order of `list` and `all`: long ones first, so that few wait for the last.
pub const ALL: &[Scenario] = &[
    scenarios::window::WINDOW,
    scenarios::twice::LATE,
    scenarios::three_servers::THREE_SERVERS,
    scenarios::etcd::ETCD_DOUBLE,
    scenarios::etcd::PAUSED_OWNER,
    scenarios::etcd::SPLIT,
    scenarios::etcd::ETCD_CRASH,
    scenarios::two_services::TWO_SERVICES,
    scenarios::join::JOIN_WHILE_TOLD,
    scenarios::join::JOIN,
    scenarios::missed_announcement::MISSED_ANNOUNCEMENT,
    scenarios::home_again::FAILBACK,
    scenarios::planned_move::MOVE,
    scenarios::twice::DOUBLE,
    scenarios::own_restart::REBOOT_PRIMARY,
    scenarios::own_restart::RESTART_SERVER,
    scenarios::own_restart::LOCKD_KILLED,
    scenarios::own_clients::OWN_CLIENTS,
    scenarios::own_clients::OWN_CLIENTS_LOCK_MANAGER,
    scenarios::own_mounts::OWN_MOUNTS,
    scenarios::orderly::ORDERLY,
    scenarios::systemd::STOCK_RIVAL_SYSTEMD,
    scenarios::systemd::CRASH_SYSTEMD,
    scenarios::crash::CRASH_RESTART_NFS,
    scenarios::crash::CRASH_NOTIFY,
    scenarios::crash::CRASH_RESTART_LOCK_MANAGER,
    scenarios::convey::CONVEY_COPY,
    scenarios::convey::BY_HAND,
    scenarios::drill::DRILL,
    scenarios::storm::STORM,
    scenarios::monitor_gone::MONITOR_GONE,
    scenarios::monitor_gone::MONITOR_GONE_SYSTEMD,
    scenarios::pacemaker::PACEMAKER_THREE_NODES,
    scenarios::pacemaker_store::PACEMAKER_STORE_MOVES,
    scenarios::pacemaker_store::PACEMAKER_DRBD,
    scenarios::pacemaker::PACEMAKER_MOVE,
    scenarios::pacemaker::PACEMAKER_TWO_GROUPS,
    scenarios::pacemaker::PACEMAKER_NFSSERVER,
    scenarios::pacemaker::PACEMAKER_FENCE_FAILS,
    scenarios::pacemaker::PACEMAKER_AGENT_DIES,
    scenarios::pacemaker::PACEMAKER_CRASH,
    scenarios::pacemaker_hundred::PACEMAKER_HUNDRED,
    scenarios::pacemaker::PACEMAKER_CRASH_CONTROL,
    scenarios::pacemaker_doctor::PACEMAKER_DOCTOR,
    scenarios::pacemaker_doctor::DOCUMENTED_CLUSTERS,
    scenarios::package::PACKAGE_UPGRADE,
    scenarios::package::PACKAGE_UPGRADE_CONTROL,
    scenarios::refused::REFUSED,
    scenarios::control::CONTROL,
    scenarios::planned_move::MOVE_CONTROL,
    scenarios::selftest::SELFTEST,
    scenarios::stock_rival::STOCK_RIVAL,
];

/// Those that `all` leaves out unless it is asked for them: each takes minutes, for Pacemaker's sake, or since it waits for a heart to
/// be silent and twice for the end of grace. What they show of heirlock is shown in others as well, one thing at a time.
pub const LONG: &[&str] = &[
    "three-servers",
    "etcd-double",
    "paused-owner",
    "split",
    "pacemaker-drbd",
    "pacemaker-store-moves",
    "pacemaker-three-nodes",
    "pacemaker-move",
    "pacemaker-two-groups",
    "pacemaker-nfsserver",
    "pacemaker-fence-fails",
    "pacemaker-agent-dies",
    "pacemaker-hundred",
];

/// Finds one by name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_words_for_a_command_line() {
        for scenario in ALL {
            assert_eq!(
                ALL.iter().filter(|other| other.name == scenario.name).count(),
                1,
                "{}",
                scenario.name
            );
            assert!(
                scenario
                    .name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
            assert!(!scenario.releases.is_empty() && !scenario.about.is_empty());
            let Captures { usual, possible } = &scenario.captures;
            assert!(!usual.is_empty() && usual.iter().all(|capture| possible.contains(capture)));
            assert!(named(scenario.name).is_some());
        }
        assert!(LONG.iter().all(|name| named(name).is_some()), "a name in LONG is no scenario's");
        assert!(named("no such").is_none());
    }
}
