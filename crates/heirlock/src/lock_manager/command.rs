//! A lock manager that is known by the commands of the configuration alone.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heirlock_core::incarnation::Observation;
use heirlock_core::takeover::Strategy;

use super::{Fsids, Lack, LockManager, LockManagerError, Nlm, Recognised, facts, missing_commands};
use crate::config::{Command, LockManagerSettings, Settings};
use crate::hooks;
use crate::host::Host;

/// Characters of an incarnation that count.
const INCARNATION_CHARS_MAX: usize = 128;

/// The lock manager that the commands stand for.
pub(super) struct ByCommand {
    settings: LockManagerSettings,
    state_directory: PathBuf,
    nlm: Nlm,
}

impl ByCommand {
    pub(super) fn new(settings: &Settings, host: &Host) -> Self {
        Self {
            settings: settings.lock_manager.clone(),
            state_directory: settings.state_directory.clone(),
            nlm: Nlm::on(host, settings),
        }
    }

    fn command_for(&self, strategy: Strategy) -> Result<Option<&Command>, LockManagerError> {
        let (command, key) = match strategy {
            Strategy::Notify => return Ok(None),
            Strategy::RestartNfs => (&self.settings.restart_nfs, "restart-nfs"),
            Strategy::RestartLockManager => (&self.settings.restart_status_monitor, "restart-status-monitor"),
            Strategy::Command => (&self.settings.recognise, "recognise"),
        };
        command.as_ref().map(Some).ok_or_else(|| LockManagerError::Unusable {
            strategy,
            why: "no command is configured for it".into(),
            instead: format!("set lock-manager.{key}"),
        })
    }
}

impl LockManager for ByCommand {
    fn describe(&self) -> String {
        "a lock manager known by commands".into()
    }

    fn observe(&self) -> Result<Observation, LockManagerError> {
        let boot = self.nlm.host.boot();
        let boot = boot.map_err(|source| LockManagerError::Read { what: "the boot id".into(), source })?;
        let Some(command) = &self.settings.incarnation else {
            let source = io::Error::other("lock-manager.incarnation is not set");
            return Err(LockManagerError::Read { what: "the lock manager's incarnation".into(), source });
        };
        // A command that fails, or prints nothing, says that no lock manager runs.
        let line = hooks::run(command, &[])
            .ok()
            .map(|output| output.0.lines().next().unwrap_or_default().trim().to_owned());
        let start = line
            .filter(|line| !line.is_empty())
            .map(|line| line.chars().take(INCARNATION_CHARS_MAX).collect());
        let serving = Option::<String>::is_some(&start);
        Ok(Observation { boot, start, in_grace: None, serving })
    }

    fn usable(&self, strategy: Strategy) -> Result<(), LockManagerError> {
        self.command_for(strategy).map(|_| ())
    }

    fn missing(&self, strategy: Strategy, _exports: &[PathBuf]) -> Vec<Lack> {
        let check = "incarnation";
        let command = self.command_for(strategy).ok().flatten();
        let mut missing = missing_commands([(strategy.as_str(), command)]);
        match self.settings.incarnation.as_ref().map(|command| hooks::run(command, &[])) {
            Some(Ok(_)) => {}
            Some(Err(error)) => missing.push(Lack::new(
                check,
                format!("lock-manager.incarnation doesn't tell which life the lock manager lives: {error}"),
                "start the lock manager, or correct the command, which prints nothing where none runs",
            )),
            None => missing.push(Lack::new(
                check,
                "nothing tells which life the lock manager lives",
                "set lock-manager.incarnation",
            )),
        }
        if let Err(error) = self.grace_length() {
            missing.push(Lack::new("grace", error.to_string(), "set lock-manager.grace-period"));
        }
        missing
    }

    fn recognise(&self, strategy: Strategy) -> Result<Recognised, LockManagerError> {
        let before = self.observe()?.start;
        if let Some(command) = self.command_for(strategy)? {
            hooks::run(command, &[]).map_err(|error| LockManagerError::Command {
                what: command.argv.join(" "),
                found: error.to_string(),
                remedy: "look at the command".into(),
            })?;
        }
        let observation = self.observe()?;
        let in_place = strategy.drops_own_locks() && observation.start == before;
        Ok(Recognised { observation, in_place })
    }

    /// Its locks go with its address; no command is asked for more.
    fn let_go(&self, _address: IpAddr) -> Result<(), LockManagerError> {
        Ok(())
    }

    fn let_go_of_file_system(&self, _path: &Path) -> Result<(), LockManagerError> {
        Ok(())
    }

    fn remarks(&self, _strategy: Strategy) -> Vec<Lack> {
        Vec::new()
    }

    fn nlm(&self) -> &Nlm {
        &self.nlm
    }

    /// No command is asked to let go of a file system, so it is no matter which one leaves.
    fn exported(&self) -> Result<Vec<PathBuf>, LockManagerError> {
        Ok(Vec::new())
    }

    /// Where it serves by this kernel's nfsd.
    fn fsids(&self) -> Fsids {
        Fsids::read(&self.nlm.host, &self.state_directory)
    }

    fn facts(&self) -> BTreeMap<String, String> {
        facts(&self.nlm.host, self.settings.grace_period)
    }

    fn grace_length(&self) -> Result<Duration, LockManagerError> {
        self.settings.grace_period.ok_or_else(|| {
            let source = io::Error::other("lock-manager.grace-period is not set");
            LockManagerError::Read { what: "the length of the grace period".into(), source }
        })
    }

    fn grace_age(&self) -> Result<Option<Duration>, LockManagerError> {
        Ok(None)
    }
}
