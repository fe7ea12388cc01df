//! `heirlock agent`.

use crate::config::Settings;

use super::exit::{Exit, Failed};
use super::logging;

pub(super) fn run(settings: Settings, log: &str) -> Result<Exit, Failed> {
    logging::start(log)?;
    crate::agent::run(settings)?;
    Ok(Exit::Done)
}
