//! `heirlock demo`: hands over to the demonstration.

use crate::demo;

use super::args::Demo;
use super::exit::{Exit, Failed};
use super::output::Output;

pub(super) fn run(options: &Demo, output: &Output) -> Result<Exit, Failed> {
    let Demo { clients, unreachable, keep } = *options;
    let report = demo::run(&demo::Options { clients, unreachable, keep }, output.is_json())?;
    output.print(&report, |report, _| report.text())?;
    Ok(if report.all_is_well() { Exit::Done } else { Exit::Failed })
}
