//! Checks of a configuration that need no network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::commands;
use super::finding::Finding;
use super::managed::{Managed, of_each};
use super::records;
use crate::config::{ServiceSettings, Settings};
use crate::host::{Host, groups};
use crate::limits;
use crate::lock_manager::{Fsids, LockManager};
use crate::store::{self, PlaceFinding, Store, StoreError, StoreOnHost, Unusable};

/// Everything of this file.
pub(super) fn check(host: &Host, settings: &Settings, managed: &[Managed]) -> Vec<Finding> {
    let mut findings = of_each(managed, |one| super::capture::configured(&one.settings));
    for service in &settings.services {
        findings.extend(addresses(settings, service));
        findings.extend(names(settings, service));
        findings.extend(hooks(settings, service));
    }
    findings.extend(shared_names(settings));
    findings.extend(of_each(managed, |one| commands::check(host, &one.settings)));
    findings.extend(of_each(managed, |one| exports(&one.lock_manager.fsids(), &one.settings)));
    findings.extend(of_each(managed, |one| times(&one.settings, one.lock_manager.as_ref())));
    findings.extend(read_group(host, settings));
    let store = store::open(host, settings);
    let said = store.check(host, settings);
    findings.extend(said.iter().map(|said| of_place(&store.shown(settings), settings, said)));
    match records::recognised(host, settings, store.as_ref()) {
        Ok(()) => {
            match records::check_age(host, settings, store.as_ref()) {
                Ok(()) => {
                    let found = format!("{} is this server's store", store.shown(settings));
                    findings.push(Finding::ok("store", found));
                }
                Err(error) => findings.push(no_store(store.as_ref(), settings, &error)),
            }
            findings.extend(homes(store.as_ref(), settings));
            findings.extend(super::candidates::check(store.as_ref(), settings));
            findings.extend(shared(store.as_ref(), settings));
        }
        Err(error) => findings.push(no_store(store.as_ref(), settings, &error)),
    }
    findings
}

/// The group that may read the status must be there: without it the agent goes on, and its monitoring is blind.
fn read_group(host: &Host, settings: &Settings) -> Option<Finding> {
    let group = settings.control.read_group.as_deref()?;
    let check = "read-group";
    Some(match groups::number_of(host, group) {
        Ok(gid) => Finding::ok(check, format!("the group {group} ({gid}) may read the status")),
        Err(why) => Finding::warning(
            check,
            format!("control.read-group: {why}"),
            "then restart the agent; until then root alone reads the status",
        ),
    })
}

fn no_store(store: &dyn StoreOnHost, settings: &Settings, error: &StoreError) -> Finding {
    let found = format!("nothing can be kept: {error}");
    let Unusable { remedy, costs_locks } = store.unusable(settings, error);
    match costs_locks {
        true => Finding::loses_locks("store", found, remedy),
        false => Finding::warning("store", found, remedy),
    }
}

fn addresses(settings: &Settings, service: &ServiceSettings) -> Vec<Finding> {
    let check = "address";
    let name = &service.name;
    let one = |address: &IpAddr| {
        if address.is_loopback() {
            let found = format!("{name}: {address} is a loopback address: no client but this host mounts it");
            return Some(Finding::warning(check, found, "name the address that clients mount"));
        }
        if is_link_local(*address) {
            let found =
                format!("{name}: {address} is valid on one link only and means nothing on another server");
            return Some(Finding::warning(check, found, "give the service an address that can move"));
        }
        if settings.host.addresses.contains(address) {
            let found = format!(
                "{name}: {address} is this host's own address (host.addresses) and can't move away from it"
            );
            return Some(Finding::warning(check, found, "give the service an address of its own"));
        }
        None
    };
    let wrong: Vec<Finding> = service.addresses.iter().filter_map(one).collect();
    if wrong.is_empty() { vec![Finding::ok(check, format!("{name}: its addresses can move"))] } else { wrong }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn names(settings: &Settings, service: &ServiceSettings) -> Vec<Finding> {
    let check = "names";
    let service_name = &service.name;
    if service.names.is_empty() {
        return vec![Finding::warning(
            check,
            format!(
                "{service_name}: no names are given, so only its addresses are announced; clients that know the server by name alone (FreeBSD's) ignore that"
            ),
            "list the names that clients mount it by, in full",
        )];
    }
    let mut findings = Vec::new();
    for name in &service.names {
        let text = name.as_str();
        let own = |other: &str| other.eq_ignore_ascii_case(text);
        if own(settings.server.as_str()) || settings.host.names.iter().any(|host| own(host.as_str())) {
            let found = format!(
                "{service_name}: {text} is this server's own name: clients would take it for the server's restart"
            );
            findings.push(Finding::warning(check, found, "give the service a name of its own"));
        } else if text.parse::<IpAddr>().is_ok() {
            findings.push(Finding::note(
                check,
                format!("{service_name}: {text} is an address, and addresses are announced anyway"),
            ));
        } else if !text.contains('.') {
            let found = format!("{service_name}: {text} has no domain, so the full name is never announced");
            findings.push(Finding::warning(
                check,
                found,
                "give it in full; the short form is announced as well",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{service_name}: announced in full and short form")));
    }
    findings
}

/// A name that two services share says nothing to a client that locks on both.
fn shared_names(settings: &Settings) -> Vec<Finding> {
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for service in &settings.services {
        let mut forms: Vec<String> = service.names.iter().map(|n| n.as_str().to_ascii_lowercase()).collect();
        let short = forms.iter().filter_map(|form| form.split_once('.')).map(|(short, _)| short.to_owned());
        forms.extend(short.collect::<Vec<_>>());
        forms.sort();
        forms.dedup();
        for form in forms {
            owners.entry(form).or_default().push(service.name.as_str());
        }
    }
    let shared = owners.into_iter().filter(|(_, services)| services.len() > 1);
    let finding = |(name, services): (String, Vec<&str>)| {
        Finding::warning(
            "names",
            format!(
                "{name} is announced for {}: a client can't tell which of them restarted",
                services.join(" and ")
            ),
            "give each service names of its own, also in their short form",
        )
    };
    shared.map(finding).collect()
}

fn hooks(settings: &Settings, service: &ServiceSettings) -> Vec<Finding> {
    if !service.is_adopted_unasked() {
        return Vec::new();
    }
    let (check, name, hooks) = ("hooks", &service.name, &settings.hooks);
    let mut findings = Vec::new();
    if hooks.fence.is_none() {
        let found =
            format!("{name}: automatic, but nothing confirms that a silent server is off (hooks.fence)");
        findings.push(Finding::loses_locks(check, found, "set hooks.fence, or mode = \"manual\""));
    }
    for (hook, key, harm) in [
        (&hooks.volume_up, "volume-up", "its exports are served only if they are there already"),
        (
            &hooks.address_up,
            "address-up",
            "clients are told only if something else brings its address up in time",
        ),
        (&hooks.address_down, "address-down", "it can't be released while the address stays"),
        (&hooks.volume_down, "volume-down", "its volume stays mounted when it is released"),
    ] {
        if hook.is_none() {
            let found = format!("{name}: automatic, but hooks.{key} is not set: {harm}");
            findings.push(Finding::warning(
                check,
                found,
                format!("set hooks.{key}, or make sure that it isn't needed"),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{name}: everything an automatic adoption needs is set")));
    }
    findings
}

fn exports(exports: &Fsids, settings: &Settings) -> Vec<Finding> {
    let check = "fsid";
    let mut findings = Vec::new();
    for service in &settings.services {
        let name = &service.name;
        if service.exports.is_empty() {
            let found = format!("{name}: no exports are listed, so their fsids are not compared");
            findings.push(Finding::note(check, found));
        }
        for path in &service.exports {
            let shown = path.display();
            findings.push(match exports.of(path) {
                None => Finding::note(
                    check,
                    format!("{name}: {shown} is neither exported now nor in /etc/exports; look again when its volume is here"),
                ),
                Some(fsids) if fsids.contains(&None) => Finding::warning(
                    check,
                    format!("{name}: {shown} is exported without fsid=: a file handle then names the device or its uuid, and another server may not know it"),
                    "export it with the same fsid= on every server",
                ),
                Some(_) => Finding::ok(check, format!("{name}: {shown} is exported with fsid=")),
            });
        }
    }
    findings
}

/// Whether the delays of the configuration fit into grace.
pub(super) fn times(settings: &Settings, lock_manager: &dyn LockManager) -> Vec<Finding> {
    let check = "times";
    let grace = match lock_manager.grace_length() {
        Ok(grace) => grace,
        Err(error) => return vec![Finding::note(check, format!("how long grace lasts is unknown: {error}"))],
    };
    let mut findings = Vec::new();
    let seconds = |time: Duration| time.as_secs_f32();
    let margin = settings.lock_manager.settle_margin;
    if margin >= grace {
        let found = format!(
            "lock-manager.settle-margin is {} s, and grace lasts {} s: no client would ever be notified",
            seconds(margin),
            seconds(grace)
        );
        findings.push(Finding::loses_locks(
            check,
            found,
            "make the margin shorter, or grace longer (nlm_grace_period)",
        ));
    } else if margin * 2 > grace {
        let found = format!(
            "lock-manager.settle-margin takes {} s of the {} s that grace lasts",
            seconds(margin),
            seconds(grace)
        );
        findings.push(Finding::warning(check, found, "make grace longer (nlm_grace_period)"));
    }
    let delay = settings.capture.tombstone_delay;
    if delay < grace {
        let found = format!(
            "capture.tombstone-delay is {} s, shorter than grace with its {} s: deletions by a restart could be believed before it is known to be one",
            seconds(delay),
            seconds(grace)
        );
        findings.push(Finding::warning(
            check,
            found,
            format!("set tombstone-delay to at least \"{}s\"", grace.as_secs().max(1)),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("grace lasts {} s, and all delays fit", seconds(grace))));
    }
    findings
}

/// A finding on the place of the store, in words.
fn of_place(place: &str, settings: &Settings, said: &PlaceFinding) -> Finding {
    let check = "store-place";
    match said {
        PlaceFinding::Exported(export) => {
            let found = format!(
                "{place} lies in the export {}: clients can see it, and root of one that isn't squashed can change it",
                export.display()
            );
            Finding::warning(check, found, "put the store beside the exports")
        }
        PlaceFinding::InMemory => Finding::loses_locks(
            check,
            format!("{place} is in memory: everything in it dies with the server"),
            "put the store on a disk that outlives the server",
        ),
        PlaceFinding::OtherDisk => {
            Finding::ok(check, format!("{place} is not on the disk that holds /var/lib"))
        }
        PlaceFinding::OwnDisk if settings.services.is_empty() => Finding::note(
            check,
            format!(
                "{place} is on the same disk as /var/lib: enough to survive a restart, not the loss of this server"
            ),
        ),
        PlaceFinding::OwnDisk => Finding::warning(
            check,
            format!(
                "{place} is on the same disk as /var/lib: when this server is lost, so are the records that others need"
            ),
            "put the store on the volume that moves or that all servers see; if it is, it isn't mounted now",
        ),
        PlaceFinding::Unknown(why) => {
            Finding::note(check, format!("can't tell which disk {place} is on: {why}"))
        }
        #[cfg(feature = "etcd")]
        PlaceFinding::Said(told) => match told.weight {
            store::Weight::Well => Finding::ok(check, &told.found),
            store::Weight::Note => Finding::note(check, format!("{}: {}", told.found, told.remedy)),
            store::Weight::Warning => Finding::warning(check, &told.found, &told.remedy),
            store::Weight::LosesLocks => Finding::loses_locks(check, &told.found, &told.remedy),
        },
    }
}

fn homes(store: &dyn Store, settings: &Settings) -> Vec<Finding> {
    let check = "home";
    let others = match records::others(store, settings) {
        Ok(others) => others,
        Err(error) => return vec![Finding::warning(check, error.to_string(), "mend the store")],
    };
    let one = |service: &ServiceSettings| match &service.home {
        None => Finding::note(
            check,
            format!(
                "{}: no home is set, so it stays on the server that adopted it last, and failback can't bring it anywhere",
                service.name
            ),
        ),
        Some(home) if *home == settings.server || others.contains_key(home) => {
            Finding::ok(check, format!("{} is at home on {home}", service.name))
        }
        Some(home) => Finding::warning(
            check,
            format!(
                "{}: its home {home} is unknown: no server of that name has written to the store",
                service.name
            ),
            "start the agent there, or correct its name",
        ),
    };
    settings.services.iter().map(one).collect()
}

/// That all servers see the store is proved only by another one's heart that is seen to beat.
fn shared(store: &dyn Store, settings: &Settings) -> Option<Finding> {
    if !settings.store.shared {
        return None;
    }
    let check = "store-shared";
    let unproved = |found: String| {
        Some(Finding::warning(
            check,
            format!("store.shared = true is not proved: {found}"),
            "start the agents of the other servers on the same store, then ask again",
        ))
    };
    let before = match records::others(store, settings) {
        Ok(before) if before.is_empty() => {
            return unproved("no other server has written to the store".into());
        }
        Ok(before) => before,
        Err(error) => return unproved(error.to_string()),
    };
    let patience =
        (settings.heartbeat.interval * 2 + Duration::from_millis(500)).min(limits::BEAT_SEEN_TIME_MAX);
    let end = Instant::now() + patience;
    loop {
        let now = records::others(store, settings).unwrap_or_default();
        let beaten = before.iter().find(|(name, was)| now.get(name).is_some_and(|is| is.beat != was.beat));
        if let Some((name, _)) = beaten {
            return Some(Finding::ok(check, format!("proved: the heart of {name} was seen to beat")));
        }
        if Instant::now() >= end {
            let names: Vec<&str> = before.keys().map(heirlock_core::ServerName::as_str).collect();
            return unproved(format!(
                "no beat of {} was seen in {} s",
                names.join(", "),
                patience.as_secs_f32()
            ));
        }
        thread::sleep(limits::PROBE_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
