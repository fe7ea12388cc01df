//! `heirlock demo`: hands over to the demonstration.

use super::args::Demo;
use super::exit::{Exit, Failed};
use super::output::Output;

pub(super) fn run(options: &Demo, _output: &Output) -> Result<Exit, Failed> {
    let Demo { clients: _, unreachable: _, keep: _ } = options;
    Err(Failed::new(Exit::Failed, "the demonstration is not part of this build"))
}
