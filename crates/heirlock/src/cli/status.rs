//! `heirlock status`: the agent's report on this server, and the store's content on all services. Where no agent answers the
//! store is looked at all the same.

use std::io;

use serde::Serialize;

use crate::config::{ConfigError, Settings};
use crate::control::report::{Level, Problem, ProblemKind, ServiceStatus, StatusReport, judge, level};
use crate::control::{self, Answer, AskError, Request};
use crate::host::Host;
use crate::limits::STORE_LOOK_TIME_MAX;
use crate::store::memory::recognise;
use crate::store::{self, Place};
use crate::survey::present::{self, Present};
use crate::threads;

use super::args::Status;
use super::exit::{Exit, Failed};
use super::output::Output;
use super::{render, watch};

/// The answer to a monitoring system.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    /// How bad it is; nothing where that could not be found out.
    level: Option<Level>,
    /// The problems.
    problems: Vec<Problem>,
    /// Why nothing could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    line: String,
}

/// Shows it, or checks it.
pub(super) fn run(
    options: &Status,
    host: &Host,
    settings: &Settings,
    output: &Output,
) -> Result<Exit, Failed> {
    if options.check {
        return match gather(host, settings) {
            Ok(report) => checked(report, output),
            Err(failed) => unknown(&failed.message, output),
        };
    }
    if options.watch {
        return watch::watch(output, |look| match shown(options, host, settings) {
            Ok(report) => render::status(&report, look),
            Err(failed) => render::words(&failed.message, &[]),
        });
    }
    let report = shown(options, host, settings)?;
    output.print(&report, render::status)?;
    // Everything else in it is a matter of reading; an unprotected service is one of acting.
    Ok(match report.store.well {
        _ if report.agent.is_empty() => Exit::NoAgent,
        true => Exit::Done,
        false => Exit::Store,
    })
}

/// The report, or what it says of the one service that is asked for.
fn shown(options: &Status, host: &Host, settings: &Settings) -> Result<StatusReport, Failed> {
    let mut report = gather(host, settings)?;
    if let Some(service) = &options.service {
        only(&mut report, super::args::service_name(service, &settings.server)?.as_str())?;
    }
    Ok(report)
}

/// The configuration can't be: a monitoring system is told that nothing is known.
pub(super) fn unconfigured(error: &ConfigError, output: &Output) -> Result<Exit, Failed> {
    unknown(&error.to_string(), output)
}

fn unknown(why: &str, output: &Output) -> Result<Exit, Failed> {
    let line = render::unknown(why);
    let document = Checked { level: None, problems: Vec::new(), error: Some(why.to_owned()), line };
    output.print(&document, |checked, _| checked.line.clone())?;
    Ok(Exit::Check(None))
}

fn checked(report: StatusReport, output: &Output) -> Result<Exit, Failed> {
    let level = level(&report);
    let line = render::checked(&report, level);
    let document = Checked { level: Some(level), problems: report.problems, error: None, line };
    output.print(&document, |checked, _| checked.line.clone())?;
    Ok(Exit::Check(Some(level)))
}

/// The status that the agent tells at its read-only socket. A user without access to the agent has none to the store either.
fn read_only(settings: &Settings, refused: AskError) -> Result<StatusReport, Failed> {
    let answer = control::ask_read_only(&settings.runtime_directory);
    if let Ok(Answer::Status(mut report)) = answer {
        judge(&mut report);
        return Ok(*report);
    }
    let Some(group) = &settings.control.read_group else {
        let failed = Failed::from(refused);
        let message = format!(
            "{}; a group may read the status without that, where control.read-group names one",
            failed.message
        );
        return Err(Failed { message, ..failed });
    };
    Err(match answer {
        Err(AskError::NoAgent { path, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
            Failed::new(
                Exit::NoAgent,
                format!(
                    "the agent can't be asked, and its status at {path} can't be read: {source}; run this as root, or as a \
                     member of the group {group} (control.read-group)"
                ),
            )
        }
        Err(error) => error.into(),
        Ok(other) => Failed::new(Exit::Failed, format!("expected a status of the agent, found {other:?}")),
    })
}

fn gather(host: &Host, settings: &Settings) -> Result<StatusReport, Failed> {
    let mut report = match control::ask(&settings.runtime_directory, &Request::Status, |_| {}) {
        Ok(Answer::Status(report)) => *report,
        Ok(other) => {
            let what = format!("expected a status of the agent, found {other:?}; is it of another version?");
            return Err(Failed::new(Exit::Failed, what));
        }
        Err(AskError::NoAgent { path, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
            return read_only(settings, AskError::NoAgent { path, source });
        }
        Err(AskError::NoAgent { .. }) => without_agent(host, settings, Problem::new(ProblemKind::NoAgent)),
        Err(error @ AskError::Silent { .. }) => {
            without_agent(host, settings, Problem::new(ProblemKind::AgentSilent).saying(&error.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    match look(host, settings) {
        Ok(present) => present::add(&mut report, present),
        // The agent has said so already, in its own words.
        Err(_) if !report.store.well => {}
        Err(problem) => {
            report.store.well = false;
            report.store.error.clone_from(&problem.error);
            report.problems.push(*problem);
        }
    }
    if report.agent.is_empty() {
        let unwatched = unwatched(&report);
        report.problems.extend(unwatched);
    }
    judge(&mut report);
    Ok(report)
}

/// A store that hangs, as a volume may whose server is gone, does not hold `status` up for long.
fn look(host: &Host, settings: &Settings) -> Result<Present, Box<Problem>> {
    let (store, local, server) =
        (store::open(host, settings), settings.local_directory.clone(), settings.server.clone());
    let place = store.place(Place::Store);
    let found = threads::within("look", STORE_LOOK_TIME_MAX, move || {
        // Another store than this server's tells nothing of its services.
        match recognise(store.as_ref(), &local)? {
            (_, Some(wrong)) => Err(wrong),
            (_, None) => present::look(store.as_ref(), &server),
        }
    });
    let fails = |why: String| Box::new(Problem::new(ProblemKind::StoreFails).saying(&why));
    match found {
        Ok(found) => found.map_err(|error| fails(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Box::new(Problem::new(ProblemKind::StoreSilent).at(&place)))
        }
        Err(error) => Err(fails(error.to_string())),
    }
}

fn without_agent(host: &Host, settings: &Settings, why: Problem) -> StatusReport {
    let place = store::open(host, settings).place(Place::Store);
    let mut report = StatusReport::without_agent(settings.server.as_str(), &place);
    report.problems.push(why);
    report.lock_manager.kind = settings.lock_manager.kind.as_str().into();
    report.services = settings
        .services
        .iter()
        .map(|service| ServiceStatus {
            service: service.name.to_string(),
            configured: true,
            home: service.home.as_ref().map(ToString::to_string),
            automatic: service.is_adopted_unasked(),
            ..ServiceStatus::default()
        })
        .collect();
    report.drills = crate::drill::kept::load(&settings.local_directory);
    report
}

/// Where no agent answers, the services that are held here are not captured any more.
fn unwatched(report: &StatusReport) -> Vec<Problem> {
    let ours = |service: &&ServiceStatus| {
        service.owner.as_ref() == Some(&report.server) && (service.configured || service.records > 0)
    };
    let held = report.services.iter().filter(ours);
    held.map(|service| Problem::new(ProblemKind::NotCaptured).of(&service.service).with(service.records))
        .collect()
}

/// Leaves one service in a report.
fn only(report: &mut StatusReport, service: &str) -> Result<(), Failed> {
    if !report.services.iter().any(|known| known.service == service) {
        let known: Vec<&str> = report.services.iter().map(|known| known.service.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failed::new(Exit::Usage, format!("there is no service {service}; there is: {known}")));
    }
    report.services.retain(|known| known.service == service);
    report.drills.retain(|drill| drill.service == service);
    report.problems.retain(|problem| problem.service.as_deref().is_none_or(|of| of == service));
    Ok(())
}
