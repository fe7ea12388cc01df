//! `heirlock check-config`, `doctor`, `enable` and `disable`: asks the guard, and shows what it found or did.

use std::path::Path;

use serde::Serialize;

use crate::config::Settings;
use crate::guard::{self, Finding, GuardError, Severity, Step, StepOutcome};
use crate::host::Host;

use super::args::{Disable, Enable};
use super::exit::{Exit, Failed};
use super::output::Output;
use super::render;

pub(super) fn check_config(host: &Host, settings: &Settings, output: &Output) -> Result<Exit, Failed> {
    show(&guard::check_config(host, settings), output)
}

pub(super) fn doctor(host: &Host, settings: &Settings, file: &Path, output: &Output) -> Result<Exit, Failed> {
    show(&guard::doctor(host, settings, file), output)
}

pub(super) fn enable(
    host: &Host,
    settings: &Settings,
    how: &Enable,
    output: &Output,
) -> Result<Exit, Failed> {
    steps(&guard::enable(host, settings, how.plan, how.word())?, output)
}

pub(super) fn disable(
    host: &Host,
    settings: &Settings,
    how: &Disable,
    output: &Output,
) -> Result<Exit, Failed> {
    steps(&guard::disable(host, settings, how.plan, how.if_idle)?, output)
}

/// A finding that is known to lose locks is a failure; a warning isn't.
fn show(findings: &[Finding], output: &Output) -> Result<Exit, Failed> {
    output.print(&findings, |findings, look| render::findings(findings, look))?;
    let loses = findings.iter().any(|finding| finding.severity == Severity::LosesLocks);
    Ok(if loses { Exit::Failed } else { Exit::Done })
}

/// The steps of `enable` or `disable`, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Switched<'a> {
    changed: bool,
    steps: &'a [Step],
}

fn steps(steps: &[Step], output: &Output) -> Result<Exit, Failed> {
    let changed = steps.iter().any(|step| step.outcome == StepOutcome::Done);
    output.print(&Switched { changed, steps }, |switched, _| render::steps(switched.steps))?;
    Ok(Exit::Done)
}

impl From<GuardError> for Failed {
    fn from(error: GuardError) -> Self {
        // The error decides, however much was done before.
        let of_cause = |error: &GuardError| match error {
            GuardError::Changed { .. } | GuardError::Refused { .. } => Exit::Refused,
            GuardError::Store(_) => Exit::Store,
            GuardError::Partly { .. } | GuardError::Io { .. } | GuardError::Systemctl(_) => Exit::Failed,
        };
        match error {
            GuardError::Store(error) => error.into(),
            GuardError::Partly { ref source, .. } => Self::new(of_cause(source), error),
            error => Self::new(of_cause(&error), error),
        }
    }
}
