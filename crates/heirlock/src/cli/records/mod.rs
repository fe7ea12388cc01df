//! `heirlock records`: looks at the store by itself, so that it is of use with a dead agent.

mod export;
mod find;
mod import;

use heirlock_core::RecordKey;
use heirlock_core::claim::Claim;
use heirlock_core::records::AsKey as _;
use heirlock_core::takeover::{OutcomeLine, last_outcomes};
use heirlock_core::{Generation, Outcome, ServerName, ServiceName};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, MonitorLine};
use serde::Serialize;

use crate::config::Settings;
use crate::control::Request;
use crate::host::Host;
use crate::store::memory::{open_any, open_ours};
use crate::store::{Contents, Store, StoreError};
use crate::survey::present;

use super::args::{self, service_name};
use super::ask;
use super::exit::{Exit, Failed};
use super::output::Output;
use super::render;

pub(super) use export::Exported;
pub(super) use import::Imported;

/// One service of the store.
#[derive(Debug, Serialize)]
pub(super) struct ServiceLine {
    pub(super) service: ServiceName,
    pub(super) owner: ServerName,
    /// Its owner gave it up.
    pub(super) released: bool,
    pub(super) generation: Generation,
    pub(super) state_number: Option<u32>,
    pub(super) records: usize,
    /// Files that are no records.
    pub(super) damaged: usize,
}

/// The records of one service.
#[derive(Debug, Serialize)]
pub(super) struct RecordList {
    pub(super) service: ServiceName,
    pub(super) generation: Generation,
    pub(super) records: Vec<RecordLine>,
    pub(super) left: Vec<Left>,
}

/// One record in a list.
#[derive(Debug, Serialize)]
pub(super) struct RecordLine {
    /// Its key in the store.
    pub(super) client: String,
    /// The names that it registered under.
    pub(super) names: Vec<String>,
    /// The names of the server that it registered with.
    pub(super) servers: Vec<String>,
    /// How many registrations it has.
    pub(super) lines: usize,
    /// When its record was written as it is, in seconds since 1970.
    pub(super) since_s: Option<u64>,
    /// Its outcome in the adoption that began this generation.
    pub(super) outcome: Option<Outcome>,
}

/// One record.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    pub(super) service: ServiceName,
    pub(super) generation: Generation,
    pub(super) client: String,
    /// The names that it registered under, other than that.
    pub(super) names: Vec<String>,
    /// When it was written as it is, in seconds since 1970.
    pub(super) since_s: Option<u64>,
    pub(super) lines: Vec<Line>,
    pub(super) problems: Vec<String>,
    /// Its outcome in the adoption that began this generation.
    pub(super) outcome: Option<OutcomeLine>,
    /// As it lies in the store.
    pub(super) raw: String,
}

/// One registration, decoded.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) client: String,
    pub(super) server: String,
    pub(super) program: u32,
    pub(super) version: u32,
    pub(super) procedure: u32,
    pub(super) cookie: String,
}

/// Something that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Left {
    pub(super) what: String,
    pub(super) why: String,
}

/// The newest generation of a service.
struct Newest {
    generation: Generation,
    contents: Contents,
}

pub(super) fn run(
    verb: args::Records,
    host: &Host,
    settings: &Settings,
    output: &Output,
) -> Result<Exit, Failed> {
    match verb {
        args::Records::List { service: None } => {
            look(host, settings, output, |store| list_services(store, output))
        }
        args::Records::List { service: Some(service) } => {
            let service = service_name(&service, &settings.server)?;
            look(host, settings, output, |store| list(store, &service, output))
        }
        args::Records::Show { service, client } => {
            let (service, client) = (service.name(&settings.server)?, client_name(&client)?);
            look(host, settings, output, |store| show(store, &service, &client, output))
        }
        args::Records::Export { service, directory } => {
            let service = service.name(&settings.server)?;
            look(host, settings, output, |store| {
                let newest = newest(store, &service)?;
                let exported = export::export(settings, &service, &newest, &directory)?;
                output.print(&exported, render::exported)?;
                Ok(whole(&exported.left))
            })
        }
        args::Records::Forget { service, client } => {
            let service = service.name(&settings.server)?;
            let client = key_of(host, settings, &service, client_name(&client)?)?.as_str().to_owned();
            ask::ask(settings, &Request::Forget { service, client }, output)
        }
        args::Records::Import { service, directory, owner_fenced } => {
            let service = service.name(&settings.server)?;
            let imported = import::import(host, settings, &service, &directory, owner_fenced)?;
            output.print(&imported, render::imported)?;
            Ok(if imported.unresolved.is_empty() { whole(&imported.left) } else { Exit::Failed })
        }
    }
}

/// Looks into the store that is there, and says where it is not the one that this server knows: then it does not show the
/// records that were asked for.
pub(super) fn look(
    host: &Host,
    settings: &Settings,
    output: &Output,
    look: impl FnOnce(&dyn Store) -> Result<Exit, Failed>,
) -> Result<Exit, Failed> {
    let (store, wrong) = open_any(host, settings)?;
    if let Some(wrong) = &wrong {
        output.warn(wrong);
    }
    let exit = look(store.as_ref())?;
    Ok(if wrong.is_some() && exit == Exit::Done { Exit::Failed } else { exit })
}

fn client_name(given: &str) -> Result<MonName, Failed> {
    MonName::parse(given).map_err(|error| Failed::new(Exit::Usage, format!("a client: {error}")))
}

/// The key of a client that is given by its address or a name. Where the store can't be looked at the agent says what is wrong.
fn key_of(
    host: &Host,
    settings: &Settings,
    service: &ServiceName,
    given: MonName,
) -> Result<MonName, Failed> {
    let Ok((store, _)) = open_ours(host, settings) else { return Ok(given) };
    let Ok(newest) = newest(store.as_ref(), service) else { return Ok(given) };
    find::find(&newest, service, &given).map(|(key, _)| key.client().clone())
}

/// An entry that can't be read may have been a client's record (I8).
fn whole(left: &[Left]) -> Exit {
    if left.is_empty() { Exit::Done } else { Exit::Failed }
}

fn left_of(contents: &Contents) -> Vec<Left> {
    contents.left_alone().map(|d| Left { what: d.path.clone(), why: d.why.clone() }).collect()
}

fn newest(store: &dyn Store, service: &ServiceName) -> Result<Newest, Failed> {
    let Some(claim) = store.newest_claim(service)? else {
        // The entry in the place of its only claim is no claim.
        let known: Vec<_> = store.services()?.into_iter().filter(|known| known != service).collect();
        let known = match known.is_empty() {
            true => "none yet".to_owned(),
            false => known.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", "),
        };
        let what = format!("there is no service {service} in {}: it holds {known}", store.describe());
        return Err(Failed::new(Exit::Usage, what));
    };
    match store.newest_generation(service, claim.generation)? {
        Some(generation) => Ok(Newest { contents: store.load(service, generation)?, generation }),
        None => {
            let Claim { owner, generation, released, .. } = claim;
            let remedy = if released { "import again" } else { "start its agent again" };
            let what = format!(
                "{owner} claimed {service} as generation {generation} and was interrupted before it held a record; \
                 {remedy}"
            );
            Err(Failed::new(Exit::Failed, what))
        }
    }
}

fn list_services(store: &dyn Store, output: &Output) -> Result<Exit, Failed> {
    let (mut lines, mut is_whole) = (Vec::new(), true);
    for service in store.services()? {
        match service_line(store, service) {
            Ok(line) => lines.extend(line),
            Err(error) if error.is_absent() => return Err(error.into()),
            // It says nothing of the other services.
            Err(error) => {
                output.warn(&error);
                is_whole = false;
            }
        }
    }
    output.print(&lines, |lines, look| render::services(lines, look))?;
    let is_whole = is_whole && lines.iter().all(|line| line.damaged == 0);
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

fn service_line(store: &dyn Store, service: ServiceName) -> Result<Option<ServiceLine>, StoreError> {
    let Some(claim) = store.newest_claim(&service)? else { return Ok(None) };
    let contents = match store.newest_generation(&service, claim.generation)? {
        Some(generation) => store.load(&service, generation)?,
        None => Contents::default(),
    };
    Ok(Some(ServiceLine {
        service,
        owner: claim.owner,
        released: claim.released,
        generation: claim.generation,
        state_number: contents.state.map(|state| state.0),
        records: contents.records.len(),
        damaged: contents.left_alone().count() + usize::from(claim.unreadable.is_some()),
    }))
}

fn list(store: &dyn Store, service: &ServiceName, output: &Output) -> Result<Exit, Failed> {
    let Newest { generation, contents } = newest(store, service)?;
    let left = left_of(&contents);
    let last = last_outcomes(&contents.outcomes);
    let line = |(key, record): (&RecordKey, &heirlock_core::Record)| RecordLine {
        since_s: store.written_at_s(service, generation, key),
        outcome: last.get(&key.as_key()).map(|line| line.outcome),
        ..record_line(key, record)
    };
    let records = contents.records.iter().map(line).collect();
    let list = RecordList { service: service.clone(), generation, records, left };
    output.print(&list, render::records)?;
    Ok(whole(&list.left))
}

fn record_line(key: &RecordKey, bytes: &[u8]) -> RecordLine {
    let lines = lines_of(bytes);
    let mut names: Vec<String> = lines.iter().map(|line| line.mon_name.to_string()).collect();
    let mut servers: Vec<String> = lines.iter().map(|line| line.my_name.to_string()).collect();
    for names in [&mut names, &mut servers] {
        names.sort();
        names.dedup();
    }
    RecordLine { client: key.to_string(), names, servers, lines: lines.len(), since_s: None, outcome: None }
}

fn lines_of(bytes: &[u8]) -> Vec<MonitorLine> {
    parse_record(bytes).map(|parsed| parsed.lines).unwrap_or_default()
}

fn show(store: &dyn Store, service: &ServiceName, client: &MonName, output: &Output) -> Result<Exit, Failed> {
    let newest = newest(store, service)?;
    let (key, bytes) = find::find(&newest, service, client)?;
    let Newest { generation, contents } = &newest;
    let record = Record {
        service: service.clone(),
        generation: *generation,
        client: key.to_string(),
        names: present::names(key.client(), bytes),
        since_s: store.written_at_s(service, *generation, key),
        lines: lines_of(bytes).iter().map(decoded).collect(),
        problems: parse_record(bytes)
            .map(|parsed| parsed.problems.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        outcome: contents.outcomes.iter().rfind(|line| line.client == *key).cloned(),
        raw: String::from_utf8_lossy(bytes).into_owned(),
    };
    output.print(&record, render::record)?;
    Ok(Exit::Done)
}

fn decoded(line: &MonitorLine) -> Line {
    Line {
        client: line.mon_name.to_string(),
        server: line.my_name.to_string(),
        program: line.prog,
        version: line.vers,
        procedure: line.proc_,
        cookie: line.cookie.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
