//! Checks of the cluster manager that moves the services, where Pacemaker is installed: its own configuration decides whether an
//! adoption comes at the right moment, or at all. The judgement is `heirlock_core::cluster`.

use std::path::Path;

use heirlock_core::cluster::{Configuration, Expected, ExpectedService, Remark, Weight, judge};

use super::finding::{Finding, Severity};
use super::records;
use crate::config::{Hook, ServiceSettings, Settings};
use crate::host::Host;
use crate::pacemaker::{self, Unknown};
use crate::{files, ocf};

/// Whether the cluster could be asked.
const CHECK: &str = "cluster";

/// Where a node keeps the cluster's configuration while Pacemaker does not run.
const KEPT_CIB: &str = "/var/lib/pacemaker/cib/cib.xml";

/// Everything about the cluster, for the configuration in this file. Nothing where Pacemaker is not installed.
pub(super) fn check(host: &Host, settings: &Settings, file: &Path) -> Vec<Finding> {
    let Some(cibadmin) = host.tool("cibadmin") else {
        let is_there = host.tool("pacemakerd").is_some();
        return is_there.then(|| unchecked(host, "there is no cibadmin to ask it by")).into_iter().collect();
    };
    match pacemaker::configuration(&cibadmin) {
        Ok(configuration) => {
            let node = host.tool("crm_node").and_then(|crm_node| pacemaker::own_name(&crm_node));
            of(&configuration, &expected(host, settings, file, node))
        }
        Err(Unknown::NoAnswer(why)) => vec![unchecked(host, &why)],
        Err(Unknown::Unreadable(why)) => vec![Finding::warning(
            CHECK,
            format!("the configuration of the cluster can't be read, and was not checked: {why}"),
            "look at what 'cibadmin --query' prints, and at 'crm_verify --live-check'",
        )],
    }
}

/// The findings on a cluster's configuration.
fn of(configuration: &Configuration, expected: &Expected) -> Vec<Finding> {
    judge(configuration, expected).into_iter().map(finding).collect()
}

fn finding(remark: Remark) -> Finding {
    let severity = match remark.weight {
        Weight::Well => Severity::Ok,
        Weight::Note => Severity::Note,
        Weight::Warning => Severity::Warning,
        Weight::LosesLocks => Severity::LosesLocks,
    };
    Finding { check: remark.subject.as_str(), severity, found: remark.found, remedy: remark.remedy }
}

/// A host that is a node of a cluster is to be asked while the cluster runs; one that only has the programs may be none.
fn unchecked(host: &Host, why: &str) -> Finding {
    let found =
        format!("Pacemaker is installed and does not answer, so its configuration was not checked: {why}");
    let is_node = files::trusted::stat(host.at(KEPT_CIB)).is_ok();
    match is_node {
        true => Finding::warning(CHECK, found, "start Pacemaker on this node, then ask again"),
        false => Finding {
            remedy: Some("where this server is to be a node of a cluster, ask again once it is".to_owned()),
            ..Finding::note(CHECK, found)
        },
    }
}

/// What this server's configuration expects of the cluster.
fn expected(host: &Host, settings: &Settings, file: &Path, node: Option<String>) -> Expected {
    // A store that comes with a volume is written by a server once that has had the volume.
    let others = settings.store.shared.then(|| {
        let store = records::store(host, settings).ok()?;
        records::others(store.as_ref(), settings).ok()
    });
    let hooks = Hook::ALL.into_iter().filter(|hook| settings.hooks.command(*hook).is_some());
    Expected {
        server: settings.server.clone(),
        node,
        servers: others.flatten().map(|others| others.into_keys().chain([settings.server.clone()]).collect()),
        file: file.to_owned(),
        store: settings.store.path.clone(),
        hooks: hooks.map(Hook::as_str).collect(),
        services: settings.services.iter().map(|service| expected_service(settings, service)).collect(),
    }
}

fn expected_service(settings: &Settings, service: &ServiceSettings) -> ExpectedService {
    // Its lock manager need not be the first one.
    let own = settings.of_instance(service.instance).unwrap_or_else(|| settings.clone());
    ExpectedService {
        name: service.name.clone(),
        addresses: service.addresses.clone(),
        exports: service.exports.clone(),
        has_home: service.home.is_some(),
        is_adopted_unasked: service.is_adopted_unasked(),
        strategy: own.lock_manager.strategy,
        is_status_monitor: own.capture.mode.properties().is_status_monitor,
        times: ocf::times(&own),
        prepared_time: own.lock_manager.prepared_time,
    }
}

#[cfg(test)]
mod tests;
