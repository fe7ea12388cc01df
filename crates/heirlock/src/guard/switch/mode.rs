//! The needs of a capture mode on the host besides our own unit, and how they are given back. A mode is a file beside this
//! one: rpc.statd's place for `nsm`, its callout for `callout`, nothing for `watch`.
//!
//! rpc.statd is started before sm-notify's unit is unmasked: it wants that unit, and a notification in no grace period
//! loses the locks of each client that gets it.

use super::{GuardError, OurFile, Run};
use crate::config::Settings;
use crate::host::Host;

/// A capture mode on a host. The functions stand in the order in which `enable` calls them, then in that of `disable`. Where a
/// step is only planned, each says what it would do. A mode leaves out what it has nothing to do at.
pub(super) trait ModeOnHost {
    /// The units that it starts and masks.
    fn units(&self) -> Units {
        Units { ours: &[], masked: &[] }
    }

    /// The files of ours that only this mode needs.
    fn files(&self, _: &Host, _: &Settings) -> Vec<OurFile> {
        Vec::new()
    }

    /// Why no lock manager but the first one can have this mode, where that is so.
    fn is_of_the_first_alone(&self) -> Option<&'static str> {
        None
    }

    /// Refuses what can't become of this host. Nothing was changed yet.
    fn check_enter(&self, _: &Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Gives back what the mode needed, where the memory has anything of it and another mode is entered.
    fn leave_for_another(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Makes what our files name. None of them is written yet.
    fn prepare(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Takes what the mode needs. Our files are written and sm-notify is kept out; the agent is not started yet.
    fn enter(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Refuses to give the host back while that would lose something. Nothing was changed yet.
    fn check_leave(&self, _: &Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Stops what would start the agent again. The agent is stopped next.
    fn stop(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Hands back what the agent alone knew. The agent has ended; our files are still there.
    fn hand_back(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    /// Gives the rest back. Our files are gone; sm-notify is still kept out.
    fn give_back(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }
}

/// The units of a mode, besides the agent's and sm-notify's.
pub(super) struct Units {
    /// Ours, which are enabled and started.
    pub(super) ours: &'static [&'static str],
    /// Units of others, which are masked.
    pub(super) masked: &'static [&'static str],
}
