//! `[lock-manager]`: which lock manager there is, and how it is made to recognise. A kind of lock manager is one file here, which
//! answers all that the rest of the program asks of a kind; the one that works on a host is a file in `lock_manager/` of the
//! program.

mod command;
mod kernel;

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
    /// How much time an adoption that is prepared must leave until `--finish` can be said (30 s).
    pub prepared_time: Duration,
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
        let by_kind = (self.kind.properties().recognition_time_max)(self);
        // One look that is on when it begins, one before and one after.
        let looks = limit(self.incarnation.as_ref()).unwrap_or(limits::KILLED_TIME_MAX) * 3;
        by_kind + looks + limits::SERVE_TIME_MAX + limits::PROVE_TIME_MAX
    }

    /// The time limit of the longest of the commands that recognise; `None` where there is none.
    #[must_use]
    pub fn commands_time_max(&self) -> Option<Duration> {
        let commands = [&self.restart_nfs, &self.restart_status_monitor, &self.recognise];
        commands.into_iter().filter_map(|command| limit(command.as_ref())).max()
    }
}

/// After which a command was ended and is gone.
fn limit(command: Option<&Command>) -> Option<Duration> {
    command.map(|command| command.time_limit + limits::KILLED_TIME_MAX)
}

/// The kind of lock manager. All other code asks it for its [`Properties`], and none which kind it is.
#[derive(Debug, Clone, Copy)]
pub enum LockManagerKind {
    /// lockd and nfsd of this kernel, in this network namespace.
    Kernel,
    /// The lock manager behind the commands.
    Command,
}

/// The properties of every lock manager of a kind, on every host. For all that differs from host to host, the lock manager itself
/// is asked.
#[derive(Debug)]
pub struct Properties {
    /// As the configuration spells it.
    pub name: &'static str,
    /// The ways in which it can be made to recognise.
    pub strategies: &'static [Strategy],
    /// The one of these where the configuration names none.
    pub default_strategy: Strategy,
    /// rpc.statd is the status monitor that it asks, and sm-notify and exportfs work for it. Without a status monitor it
    /// grants locks of which there is no record.
    pub is_of_nfs_utils: bool,
    /// Nothing but the configuration tells which life it lives, and how long its grace lasts.
    pub is_known_by_commands: bool,
    /// How long making it recognise may take, by any of its strategies, besides looks at it and waiting until it serves.
    pub recognition_time_max: fn(&LockManagerSettings) -> Duration,
}

impl LockManagerKind {
    /// All of them, the default first.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Command];

    /// As the configuration spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.properties().name
    }

    /// Its properties.
    #[must_use]
    pub fn properties(self) -> &'static Properties {
        match self {
            Self::Kernel => &kernel::PROPERTIES,
            Self::Command => &command::PROPERTIES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_strategy_of_a_kind_is_one_of_its_own() {
        for kind in LockManagerKind::ALL {
            let Properties { name, strategies, default_strategy, .. } = kind.properties();
            assert!(strategies.contains(default_strategy), "{name}");
        }
    }

    #[test]
    fn systemd_restarts_the_kernels_lock_manager_alone() {
        let of = |kind| settings(kind).recognition_time_max();
        assert!(of(LockManagerKind::Kernel) >= limits::SYSTEMCTL_TIME_MAX);
        let command = Command { argv: vec!["recognise".into()], time_limit: Duration::from_secs(7) };
        let own = LockManagerSettings { recognise: Some(command), ..settings(LockManagerKind::Command) };
        let more = own.recognition_time_max() - of(LockManagerKind::Command);
        assert_eq!(more, Duration::from_secs(7) + limits::KILLED_TIME_MAX);
    }

    fn settings(kind: LockManagerKind) -> LockManagerSettings {
        LockManagerSettings {
            kind,
            strategy: kind.properties().default_strategy,
            convey: Conveyance::Generate,
            settle_margin: Duration::from_secs(5),
            prepared_time: Duration::from_secs(30),
            restart_nfs: None,
            restart_status_monitor: None,
            recognise: None,
            incarnation: None,
            grace_period: None,
        }
    }
}
