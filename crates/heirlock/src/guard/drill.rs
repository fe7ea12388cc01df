//! The needs of an adoption of one service by this server, met or not, for a drill: the same list by which `adopt` refuses
//! (`intent.rs`), and what `doctor` knows of the addresses, the commands and the other servers.

use std::net::IpAddr;

use heirlock_core::ServiceName;
use heirlock_core::drill::{self, Check};

use super::finding::{Finding, Severity};
use super::intent::{self, Need};
use super::{commands, facts, live, records, rivals, served, switch};
use crate::config::{ServiceSettings, Settings};
use crate::host::Host;
use crate::lock_manager::LockManager;
use crate::store::Store;

/// What is brought right before an adoption is as it should be while it is missing now.
const BROUGHT: &str = "where that is done right before an adoption, this is as it should be";

/// See [`super::drilled`].
pub(super) fn check(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    service: &ServiceName,
) -> Vec<Check> {
    let services: Vec<ServiceSettings> = settings.service(service).cloned().into_iter().collect();
    let alone = &Settings { services, ..settings.clone() };
    let is_renewed = switch::would_renew(host, settings).unwrap_or(false);
    let needs = intent::all(host, alone, lock_manager, std::slice::from_ref(service));
    let mut checks: Vec<Check> = needs.into_iter().map(|need| of_need(need, is_renewed)).collect();
    checks.extend(commands::check(host, alone).into_iter().map(of_finding));
    checks.extend(served::check(host, alone, lock_manager).into_iter().map(of_finding));
    checks.extend(addresses(host, alone, lock_manager, service));
    checks.push(untried(settings));
    checks
}

/// See [`super::differing_facts`].
pub(super) fn differing_facts(
    settings: &Settings,
    lock_manager: &dyn LockManager,
    service: &ServiceName,
    store: &dyn Store,
) -> Vec<Check> {
    let place = settings.instance_of(service).place();
    let name = settings.instances().into_iter().nth(place).map(|one| one.name);
    let differences = match records::others(store, settings) {
        Ok(others) => {
            let theirs = live::facts_of(&others, name.as_ref().filter(|_| place > 0));
            live::differences(&facts::of(settings, lock_manager), &theirs)
        }
        Err(error) => vec![Finding::warning(live::OTHER_SERVERS, error.to_string(), "mend the store")],
    };
    differences.into_iter().map(of_finding).collect()
}

fn of_need(need: Need, is_renewed: bool) -> Check {
    let Need { finding, until_then } = need;
    // An adoption makes it anew before anything else.
    if is_renewed && finding.check == rivals::GUARD_FILE_CHECK && finding.severity > Severity::Ok {
        let found = format!("{}: an adoption makes it anew", finding.found);
        return Check::new(finding.check, drill::Finding::Noted, found);
    }
    let check = of_finding(finding);
    if check.finding != drill::Finding::Unmet || until_then.is_none() {
        return check;
    }
    let remedy = check.remedy.as_ref().map_or(BROUGHT.to_owned(), |remedy| format!("{remedy}; {BROUGHT}"));
    Check { finding: drill::Finding::Unchecked, ..check }.with_remedy(remedy)
}

fn of_finding(finding: Finding) -> Check {
    let Finding { check, severity, found, remedy } = finding;
    let meaning = match severity {
        Severity::Ok => drill::Finding::Met,
        Severity::Note | Severity::Warning => drill::Finding::Noted,
        Severity::LosesLocks => drill::Finding::Unmet,
    };
    Check { remedy, ..Check::new(check, meaning, found) }
}

/// Who brings the addresses of the service.
fn addresses(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    service: &ServiceName,
) -> Vec<Check> {
    let check = "address-up";
    let awaited = intent::awaited(host, settings, lock_manager, std::slice::from_ref(service));
    if !awaited.is_empty() {
        return awaited.into_iter().map(|said| Check::new(check, drill::Finding::Noted, said)).collect();
    }
    let all: &[IpAddr] = settings.service(service).map_or(&[], |service| &service.addresses);
    let missing: Vec<String> = all
        .iter()
        .filter(|address| !host.is_present(**address))
        .map(|address| format!("{address} is not on this server, and hooks.address-up brings it"))
        .collect();
    match missing.is_empty() {
        true => vec![Check::new(check, drill::Finding::Met, "its addresses are on this server")],
        false => vec![Check::new(check, drill::Finding::Noted, missing.join("; "))],
    }
}

/// The steps that only an adoption does: no drill shows that they work.
fn untried(settings: &Settings) -> Check {
    let hooks = [("volume-up", &settings.hooks.volume_up), ("address-up", &settings.hooks.address_up)];
    let hooks = hooks.into_iter().filter(|(_, command)| command.is_some());
    let mut steps = vec!["the claim".to_owned(), format!("'{}'", settings.lock_manager.strategy)];
    steps.extend(hooks.map(|(name, _)| format!("hooks.{name}")));
    let found = format!("{}: an adoption alone does that, and no drill tries it", steps.join(", "));
    Check::new("untried", drill::Finding::Noted, found)
}

#[cfg(test)]
mod tests;
