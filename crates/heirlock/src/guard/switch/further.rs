//! Lock managers besides that of the server's own network namespace.
//!
//! What keeps stock sm-notify away, and the agent's unit, are this host's, and so every lock manager's. What a capture mode takes of
//! rpc.statd (`mode.rs`) is the first one's alone: the host has one nfs.conf, one rpc.statd that its units start, and one socket
//! unit. Another lock manager whose mode needs these is refused before anything is changed.

use heirlock_agent::config::InstanceSettings;
use heirlock_core::{LockManagerName, ServiceName};

use super::{GuardError, MODES, Run, StepOutcome};
use crate::config::{InstanceNumber, Settings};

/// All but the first one.
fn further(settings: &Settings) -> Vec<InstanceSettings> {
    settings.instances().into_iter().skip(1).collect()
}

impl Run<'_> {
    /// Before what is said of a service: the name of its lock manager, where that is not the first one.
    pub(super) fn whose(&self, service: &ServiceName) -> String {
        let number = self.settings.instance_of(service);
        let is_further = number != InstanceNumber::FIRST;
        let of = self.settings.instances().into_iter().nth(number.place()).filter(|_| is_further);
        of.map(|of| named(&of.name)).unwrap_or_default()
    }

    /// Refuses where a further lock manager's mode needs what the first one has.
    pub(super) fn check_further(&self) -> Result<(), GuardError> {
        let refused = further(self.settings).into_iter().filter_map(|of| {
            let why = of.capture.mode.choose(MODES).is_of_the_first_alone()?;
            let mode = of.capture.mode.as_str();
            Some(format!("{}capture.mode = {mode:?} can't be had for it: {why}", named(&of.name)))
        });
        let refused: Vec<String> = refused.collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(GuardError::Refused {
            what: format!("{}; set capture.mode = \"watch\" there, then repeat", refused.join("; ")),
        })
    }

    /// What was done for the first one is done for all of them.
    pub(super) fn say_further(&mut self) {
        for of in further(self.settings) {
            let mode = of.capture.mode.as_str();
            let what = format!("{}capture.mode = {mode:?} needs nothing more of this host", named(&of.name));
            self.say(StepOutcome::AlreadySo, what);
        }
    }
}

fn named(name: &LockManagerName) -> String {
    format!("lock manager {name}: ")
}
