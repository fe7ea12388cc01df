//! `heirlock agent` and `heirlock supervise`.

use std::path::Path;

use crate::config::Settings;

use super::exit::{Exit, Failed};
use super::logging;

pub(super) fn run(settings: Settings, log: &str) -> Result<Exit, Failed> {
    logging::start(log)?;
    crate::agent::run(settings)?;
    Ok(Exit::Done)
}

pub(super) fn supervise(settings: &Settings, config: &Path, log: &str) -> Result<Exit, Failed> {
    logging::start(log)?;
    crate::supervise::run(settings, config, log)?;
    Ok(Exit::Done)
}
