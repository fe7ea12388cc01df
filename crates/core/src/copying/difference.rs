//! What makes a store alike to another one.

use std::collections::BTreeMap;

use crate::claim::Claim;
use crate::history::Tenure;
use crate::names::{Generation, ServiceName};
use crate::store::{Change, Contents, Fill, Past};

/// A part of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A step that can be made at once.
    Fill(ServiceName, Fill),
    /// A generation that the source alone has.
    Begin(ServiceName, Generation),
    /// A generation that both have: [`difference`] has the steps.
    Compare(ServiceName, Generation),
}

/// The parts of a pass, where the stores have these pasts.
#[must_use]
pub fn tasks(source: &BTreeMap<ServiceName, Past>, destination: &BTreeMap<ServiceName, Past>) -> Vec<Task> {
    let mut services: Vec<&ServiceName> = source.keys().chain(destination.keys()).collect();
    services.sort();
    services.dedup();
    let nothing = Past::default();
    let past_of = |all: &'_ BTreeMap<ServiceName, Past>, service: &ServiceName| {
        all.get(service).cloned().unwrap_or_else(|| nothing.clone())
    };
    let tasks = services.into_iter().flat_map(|service| {
        let (here, there) = (past_of(source, service), past_of(destination, service));
        let fills =
            claims(&here.claims, &there.claims).into_iter().chain(tenures(&here.tenures, &there.tenures));
        let gone = there.generations.iter().filter(|number| !here.generations.contains(number));
        let fills = fills.chain(gone.map(|number| Fill::RemoveGeneration(*number)));
        let fills: Vec<Task> = fills.map(|fill| Task::Fill(service.clone(), fill)).collect();
        let generations =
            here.generations.into_iter().map(move |number| match there.generations.contains(&number) {
                true => Task::Compare(service.clone(), number),
                false => Task::Begin(service.clone(), number),
            });
        fills.into_iter().chain(generations.collect::<Vec<_>>())
    });
    tasks.collect()
}

fn claims(here: &[Claim], there: &[Claim]) -> Vec<Fill> {
    let is_at = |generation: Generation| move |claim: &&Claim| claim.generation == generation;
    let gone = there.iter().filter(|claim| !here.iter().any(|here| here.generation == claim.generation));
    let gone = gone.map(|claim| Fill::RemoveClaim(claim.generation));
    let other = here.iter().filter(|claim| there.iter().find(is_at(claim.generation)) != Some(claim));
    gone.chain(other.cloned().map(Fill::Claim)).collect()
}

fn tenures(here: &[Tenure], there: &[Tenure]) -> Vec<Fill> {
    let gone = there.iter().filter(|tenure| !here.contains(tenure));
    let gone = gone.map(|tenure| Fill::RemoveTenure(tenure.generation));
    let new = here.iter().filter(|tenure| !there.contains(tenure));
    gone.chain(new.map(|tenure| Fill::Tenure(Box::new(tenure.clone())))).collect()
}

/// The steps that make a generation of the destination alike to the source's. `None` for what is not there.
#[must_use]
pub fn difference(generation: Generation, source: &Contents, destination: &Contents) -> Vec<Fill> {
    let grows = destination.outcomes.len() <= source.outcomes.len()
        && source.outcomes[..destination.outcomes.len()] == destination.outcomes[..];
    let loses = destination.state.is_some() && source.state.is_none()
        || destination.journal.is_some() && source.journal.is_none();
    if !grows || loses || !destination.damaged.is_empty() {
        // No change takes back what was appended: it is written anew.
        let begin = Fill::Begin(generation, Box::new(source.clone()));
        return vec![Fill::RemoveGeneration(generation), begin];
    }
    let put = source.records.iter().filter(|(key, record)| destination.records.get(*key) != Some(*record));
    let put = put.map(|(key, record)| Change::put(key.clone(), record.clone()));
    let gone = destination.records.iter().filter(|(key, _)| source.records.get(*key).is_none());
    let gone = gone.map(|(key, _)| Change::remove(key.clone()));
    let state = source.state.filter(|_| source.state != destination.state).map(Change::PutState);
    let journal = source.journal.clone().filter(|_| source.journal != destination.journal);
    let journal = journal.map(|journal| Change::PutJournal(Box::new(journal)));
    let outcomes = source.outcomes[destination.outcomes.len()..].iter().cloned().map(Change::AppendOutcome);
    let changes: Vec<Change> = put.chain(gone).chain(state).chain(journal).chain(outcomes).collect();
    match changes.is_empty() {
        true => Vec::new(),
        false => vec![Fill::Change(generation, changes)],
    }
}
