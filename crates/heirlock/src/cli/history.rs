//! `heirlock history` and `heirlock report`: the past of services, from the store and, while an adoption is on, from the agent.

use heirlock_core::history::{Beginning, Tenure};
use heirlock_core::history_check::Broken;
use heirlock_core::{Generation, ServiceName};

use crate::config::Settings;
use crate::control::report::{AdoptionReport, ClientOutcome, HistoryReport, TenureReport};
use crate::control::{self, Answer, AskError, Request};
use crate::host::Host;
use crate::store::Store;
use crate::store::memory::open_ours;
use crate::survey::{adoptions, past};

use super::args::{Report, service_name};
use super::exit::{Exit, Failed};
use super::output::Output;
use super::records::look;
use super::{ask, render};

/// Tells the past of one service, or of all.
pub(super) fn history(
    service: Option<&str>,
    host: &Host,
    settings: &Settings,
    output: &Output,
) -> Result<Exit, Failed> {
    look(host, settings, output, |store| {
        let services = match service {
            Some(service) => vec![known(store, service_name(service, &settings.server)?)?],
            None => store.services()?,
        };
        let mut reports = Vec::new();
        for service in services {
            let judged = match past::judged(store, &service) {
                Err(error) if error.is_absent() => return Err(error.into()),
                // It says nothing of the other services.
                Err(error) => past::Judged { unreadable: vec![error.to_string()], ..past::Judged::default() },
                Ok(judged) => judged,
            };
            let in_words = |broken: &Broken| format!("{} ({})", broken.what, broken.rule);
            reports.push(HistoryReport {
                service: service.to_string(),
                generations: judged.tenures.iter().map(TenureReport::from).collect(),
                unreadable: judged.unreadable,
                broken: judged.broken.iter().map(in_words).collect(),
            });
        }
        output.print(&reports, |reports, look| render::history(reports, look))?;
        let is_good = |report: &HistoryReport| report.unreadable.is_empty() && report.broken.is_empty();
        Ok(if reports.iter().all(is_good) { Exit::Done } else { Exit::Failed })
    })
}

/// Tells what became of one adoption: of the one that is on or was the last, or of a generation's.
pub(super) fn report(
    options: &Report,
    host: &Host,
    settings: &Settings,
    output: &Output,
) -> Result<Exit, Failed> {
    let service = options.service.name(&settings.server)?;
    let of_agent = match options.generation {
        Some(_) => None,
        None => {
            match control::ask(
                &settings.runtime_directory,
                &Request::Report { service: service.clone() },
                |_| {},
            ) {
                Ok(Answer::Adoption(report)) => Some(*report),
                Ok(other) => return ask::show(other, output),
                // Where this server does not hold the service, or no agent answers, the store tells.
                Err(AskError::NoAgent { .. }) => None,
                Err(AskError::Failed(failure)) if failure.refused => None,
                Err(error) => return Err(error.into()),
            }
        }
    };
    // Its agent has told all but what the store adds, which is no reason to tell nothing.
    if let Some(report) = &of_agent
        && !options.clients
        && open_ours(host, settings).is_err()
    {
        output.print(report, render::adoption)?;
        return Ok(Exit::from(report));
    }
    look(host, settings, output, |store| {
        let mut report = match of_agent {
            Some(report) => with_tenure(store, &service, report),
            None => of_store(store, &service, options.generation.map(Generation))?,
        };
        if options.clients {
            report.each_client = each_client(store, &service, Generation(report.generation))?;
        }
        output.print(&report, render::adoption)?;
        Ok(Exit::from(&report))
    })
}

/// The report of an adoption by another server's agent that was just waited for, or was made before.
pub(super) fn adopted_elsewhere(
    store: &dyn Store,
    service: &ServiceName,
    changed: bool,
) -> Result<AdoptionReport, Failed> {
    let report = of_store(store, service, None)?;
    Ok(AdoptionReport { changed: Some(changed), ..report })
}

/// Adds to a report how long clients were without their service.
pub(super) fn with_tenure(
    store: &dyn Store,
    service: &ServiceName,
    report: AdoptionReport,
) -> AdoptionReport {
    let tenure = past::tenure_of(store, service, Generation(report.generation));
    let tenure = tenure.ok().flatten().map(|tenure| Box::new(TenureReport::from(&tenure)));
    AdoptionReport { tenure, ..report }
}

fn of_store(
    store: &dyn Store,
    service: &ServiceName,
    generation: Option<Generation>,
) -> Result<AdoptionReport, Failed> {
    let service = known(store, service.clone())?;
    let (tenures, _) = past::history(store, &service)?;
    let tenure = match generation {
        Some(wanted) => tenures.iter().find(|tenure| tenure.generation == wanted).ok_or_else(|| {
            let numbers: Vec<String> = tenures.iter().map(|tenure| tenure.generation.to_string()).collect();
            let what =
                format!("there is no generation {wanted} of {service}; there is: {}", numbers.join(", "));
            Failed::new(Exit::Usage, what)
        })?,
        None => tenures.iter().find(|tenure| adoptions::was_adopted(tenure)).ok_or_else(|| {
            let what = format!("{service} was never adopted; 'heirlock history {service}' names its owner");
            Failed::new(Exit::Refused, what)
        })?,
    };
    if !adoptions::was_adopted(tenure) {
        let Tenure { generation, owner, .. } = tenure;
        let what = match tenure.beginning {
            Beginning::First => format!(
                "{owner} claimed {service} for the first time as generation {generation}: no client was told"
            ),
            _ => format!(
                "no adoption is known to have begun generation {generation} of {service}, which {owner} claimed"
            ),
        };
        return Err(Failed::new(Exit::Refused, what));
    }
    let claims = store.past(&service)?;
    let claim = claims.claims.into_iter().find(|claim| claim.generation == tenure.generation);
    let contents = match claims.generations.contains(&tenure.generation) {
        true => Some(store.load(&service, tenure.generation)?),
        false => None,
    };
    Ok(adoptions::of_generation(store, &service, tenure, claim, contents))
}

/// The outcome of each client of a generation, in order of their keys.
fn each_client(
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
) -> Result<Vec<ClientOutcome>, Failed> {
    if !store.past(service)?.generations.contains(&generation) {
        let what = format!(
            "generation {generation} of {service} is too old: of its clients only the numbers are kept"
        );
        return Err(Failed::new(Exit::Refused, what));
    }
    Ok(adoptions::each_client(&store.load(service, generation)?))
}

fn known(store: &dyn Store, service: ServiceName) -> Result<ServiceName, Failed> {
    let services = store.services()?;
    if services.contains(&service) {
        return Ok(service);
    }
    let known: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
    let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
    let what = format!("there is no service {service} in {}: it holds {known}", store.describe());
    Err(Failed::new(Exit::Usage, what))
}
