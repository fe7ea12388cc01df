//! `heirlock drill`: asks the agent for a drill of one service, or of each that this server would adopt.

use heirlock_core::ServiceName;
use heirlock_core::drill::Verdict;

use crate::config::Settings;
use crate::control::report::{DrillReport, StatusReport};
use crate::control::{self, Answer, Request};

use super::args::{Drill, service_name};
use super::exit::{Exit, Failed};
use super::output::Output;
use super::progress::Bar;
use super::{ask, render};

/// Drills one service, or all.
pub(super) fn run(options: &Drill, settings: &Settings, output: &Output) -> Result<Exit, Failed> {
    match &options.service {
        Some(service) => {
            let service = service_name(service, &settings.server)?;
            ask::ask(settings, &Request::Drill { service }, output)
        }
        None => all(settings, output),
    }
}

/// One after the other: an agent makes one drill at a time.
fn all(settings: &Settings, output: &Output) -> Result<Exit, Failed> {
    let Answer::Status(status) = control::ask(&settings.runtime_directory, &Request::Status, |_| {})? else {
        return Err(Failed::new(Exit::Failed, "expected a status of the agent, found another answer"));
    };
    let mut reports = Vec::new();
    for service in to_drill(settings, &status) {
        let mut bar = Bar::default();
        let request = Request::Drill { service };
        let answer = control::ask(&settings.runtime_directory, &request, |progress| bar.show(&progress));
        drop(bar);
        match answer? {
            Answer::Drill(report) => reports.push(*report),
            other => return ask::show(other, output),
        }
    }
    output.print(&reports, |reports, look| match reports.as_slice() {
        [] => {
            "every service of the configuration is held here: another server would adopt it, so drill there\n"
                .to_owned()
        }
        reports => reports.iter().map(|report| render::drill(report, look)).collect::<Vec<_>>().join("\n"),
    })?;
    Ok(Exit::from(worst(&reports)))
}

/// The services that this server would adopt.
fn to_drill(settings: &Settings, status: &StatusReport) -> Vec<ServiceName> {
    let is_held =
        |name: &ServiceName| status.services.iter().any(|known| known.held && known.service == name.as_str());
    let all = settings.services.iter().map(|service| service.name.clone());
    all.filter(|name| !is_held(name)).collect()
}

/// Of no drill nothing is proved that could fail.
fn worst(reports: &[DrillReport]) -> Verdict {
    reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Works)
}
