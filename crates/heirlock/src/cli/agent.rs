//! `heirlock agent` and `heirlock supervise`.

use std::path::Path;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::config::Settings;
use crate::host::Host;

use super::exit::{Exit, Failed};
use super::logging;

pub(super) fn run(host: Host, settings: Settings, log: &str, ends_with: Option<i32>) -> Result<Exit, Failed> {
    if let Some(parent) = ends_with {
        end_with(parent)?;
    }
    logging::start(log)?;
    crate::this_server::run(host, settings)?;
    Ok(Exit::Done)
}

pub(super) fn supervise(settings: &Settings, config: &Path, log: &str) -> Result<Exit, Failed> {
    logging::start(log)?;
    crate::supervise::run(settings, config, log)?;
    Ok(Exit::Done)
}

/// From now on the kernel ends this process when its parent ends, in any way (PR_SET_PDEATHSIG, prctl(2)).
pub(super) fn end_with(parent: i32) -> Result<(), Failed> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Failed::new(Exit::Failed, error))?;
    // The parent may have ended before that.
    match getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) {
        Some(found) if found == parent => Ok(()),
        _ => Err(Failed::new(Exit::Failed, format!("process {parent}, with which this one ends, is gone"))),
    }
}
