//! `[lock-manager]`: the lock manager of this server, how it is made to recognise, and the properties of each kind.

use std::time::Duration;

use heirlock_core::takeover::{Conveyance, Strategy};

use super::Command;
use crate::limits;

/// `[lock-manager]`
#[derive(Debug, Clone)]
pub struct LockManagerSettings {
    /// kernel or command.
    pub kind: LockManagerKind,
    /// How it is made to recognise.
    pub strategy: Strategy,
    /// The kind of file that is placed into the status monitor's directory.
    pub convey: Conveyance,
    /// How much of grace must be left for a notification to leave (I4): 5 s.
    pub settle_margin: Duration,
    /// For kind `command`, or where no systemd runs: restarts NFS.
    pub restart_nfs: Option<Command>,
    /// For kind `command`, or where no systemd runs: restarts the status monitor without notifying.
    pub restart_status_monitor: Option<Command>,
    /// Strategy `command`: makes the lock manager recognise in a way of its own.
    pub recognise: Option<Command>,
    /// Kind `command`: prints one line that changes with every life of the lock manager, and nothing where none
    /// runs. While it fails nothing is adopted.
    pub incarnation: Option<Command>,
    /// How long its grace lasts, where it can't be read from the kernel.
    pub grace_period: Option<Duration>,
}

impl LockManagerSettings {
    /// How long a recognition may take at the most: all limits that it keeps to, one after the other.
    #[must_use]
    pub fn recognition_time_max(&self) -> Duration {
        let limit = |command: &Option<Command>, unset| {
            command.as_ref().map_or(unset, |command| command.time_limit) + limits::KILLED_TIME_MAX
        };
        let Self { restart_nfs, restart_status_monitor, recognise, incarnation, .. } = self;
        let by_systemd = limits::SYSTEMCTL_TIME_MAX;
        let restarts = [limit(restart_nfs, by_systemd), limit(restart_status_monitor, by_systemd)];
        let strategy =
            restarts.into_iter().chain([limit(recognise, Duration::ZERO)]).max().unwrap_or_default();
        // One look that is on when it begins, one before and one after.
        let looks = limit(incarnation, Duration::ZERO) * 3;
        strategy + looks + limits::SERVE_TIME_MAX + limits::PROVE_TIME_MAX
    }
}

/// The kind of lock manager.
///
/// As with [`CaptureMode`](super::CaptureMode), no other place can compare two kinds or ask for a certain one. Every
/// place asks a kind for its [`KindProperties`]. A place that does another thing for each kind hands over one thing [`ForEachKind`].
#[derive(Debug, Clone, Copy)]
pub struct LockManagerKind(Named);

/// Which one it is: known here alone.
#[derive(Debug, Clone, Copy)]
enum Named {
    /// lockd and nfsd of this kernel, in this network namespace.
    Kernel,
    /// The lock manager behind the commands.
    Command,
}

impl LockManagerKind {
    /// All of them.
    pub const ALL: ForEachKind<Self> =
        ForEachKind { kernel: Self(Named::Kernel), command: Self(Named::Command) };

    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        self.properties().name
    }

    /// Its properties.
    pub fn properties(self) -> &'static KindProperties {
        self.choose(ForEachKind { kernel: &KERNEL, command: &COMMAND })
    }

    /// The one that is meant for this kind.
    pub fn choose<T>(self, each: ForEachKind<T>) -> T {
        match self.0 {
            Named::Kernel => each.kernel,
            Named::Command => each.command,
        }
    }
}

impl Default for LockManagerKind {
    /// As it is where the file says nothing.
    fn default() -> Self {
        Self::ALL.kernel
    }
}

/// One thing for each kind. Wherever one of these is made, the compiler asks for a kind that is added.
#[derive(Debug, Clone, Copy)]
pub struct ForEachKind<T> {
    /// For kind `kernel`.
    pub kernel: T,
    /// For kind `command`.
    pub command: T,
}

impl<T> ForEachKind<T> {
    /// All of them.
    pub fn all(self) -> [T; 2] {
        let Self { kernel, command } = self;
        [kernel, command]
    }
}

/// The properties of a kind.
pub struct KindProperties {
    /// As the configuration spells it.
    pub name: &'static str,
    /// It asks the status monitor that rpcbind names, as nfs-utils' programs do. Without one it grants locks of which no
    /// record is made, and rpc.statd and sm-notify act on its clients wherever they keep their records. Another lock manager
    /// has a status monitor of its own.
    pub has_stock_monitor: bool,
    /// NFSv3 mounts of this host with locks are served by the same lockd, which then does not end with NFS.
    pub is_held_up_by_mounts: bool,
    /// Keys of `[lock-manager]` without which nothing tells of its lives and of its grace, and why.
    pub needs: &'static [(&'static str, &'static str)],
}

const KERNEL: KindProperties =
    KindProperties { name: "kernel", has_stock_monitor: true, is_held_up_by_mounts: true, needs: &[] };

const COMMAND: KindProperties = KindProperties {
    name: "command",
    has_stock_monitor: false,
    is_held_up_by_mounts: false,
    needs: &[
        (
            "incarnation",
            "type \"command\" needs a command that prints a line which changes with every restart of the lock manager; for \
             example: incarnation = [\"/usr/local/sbin/incarnation\"]",
        ),
        (
            "grace-period",
            "type \"command\" needs it, since nothing else tells how long grace lasts; for example: grace-period = \"90s\"",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../../dist/heirlock.toml");

    #[test]
    fn the_sample_explains_every_kind_of_lock_manager_and_the_keys_that_it_needs() {
        for kind in LockManagerKind::ALL.all() {
            let name = kind.as_str();
            assert!(SAMPLE.contains(&format!("\"{name}\" is ")), "{name}");
            for (key, why) in kind.properties().needs {
                let begins = format!("# For type \"{name}\": ");
                let explained = SAMPLE.split(&begins).skip(1).filter_map(|remark| {
                    remark.lines().skip(1).find(|line| line.contains(" = "))?.split(" = ").next()
                });
                let explained: Vec<&str> = explained.map(|key| key.trim_start_matches('#')).collect();
                assert!(explained.contains(key), "{key} of {name}: {explained:?}");
                assert!(why.contains(&format!("type \"{name}\"")), "{why}");
            }
        }
        assert!(SAMPLE.contains(&format!("\ntype = \"{}\"", LockManagerKind::default().as_str())));
    }

    #[test]
    fn what_is_chosen_for_a_kind_of_lock_manager_is_its_own() {
        for kind in LockManagerKind::ALL.all() {
            assert_eq!(kind.choose(ForEachKind { kernel: "kernel", command: "command" }), kind.as_str());
        }
    }
}
