//! Mode `watch` needs nothing of the host: rpc.statd goes on as it is.

use super::mode::{ModeOnHost, Units};
use super::{GuardError, OurFile, Run};
use crate::config::Settings;
use crate::host::Host;

pub(super) struct Watch;

impl ModeOnHost for Watch {
    fn units(&self) -> Units {
        Units { ours: &[], masked: &[] }
    }

    fn files(&self, _: &Host, _: &Settings) -> Vec<OurFile> {
        Vec::new()
    }

    fn check_enter(&self, _: &Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn leave_for_another(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn prepare(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn enter(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn check_leave(&self, _: &Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn stop(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn hand_back(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }

    fn give_back(&self, _: &mut Run<'_>) -> Result<(), GuardError> {
        Ok(())
    }
}
