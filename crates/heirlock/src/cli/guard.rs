//! `heirlock check-config`, `doctor`, `enable` and `disable`: hands over to the guard, and shows what it found.

use crate::config::Settings;

use super::exit::{Exit, Failed};
use super::output::Output;

pub(super) fn check_config(_settings: &Settings, _output: &Output) -> Result<Exit, Failed> {
    Err(not_yet("check-config"))
}

pub(super) fn doctor(_settings: &Settings, _output: &Output) -> Result<Exit, Failed> {
    Err(not_yet("doctor"))
}

pub(super) fn enable(_settings: &Settings, _output: &Output) -> Result<Exit, Failed> {
    Err(not_yet("enable"))
}

pub(super) fn disable(_settings: &Settings, _output: &Output) -> Result<Exit, Failed> {
    Err(not_yet("disable"))
}

fn not_yet(verb: &str) -> Failed {
    Failed::new(Exit::Failed, format!("'{verb}' is not part of this build"))
}
