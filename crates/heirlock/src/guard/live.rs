//! Checks of the live host, of its clients and of the other servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;

use heirlock_core::{LockManagerName, ServerName, ServiceName};
use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::state::StateError;
use heirlock_nsm::{StateNumber, nlm, sm};

use super::facts::{self, CANDIDATES, FSID};
use super::finding::{Finding, Severity};
use super::managed::{Managed, of_each};
use super::records::{self, Kept};
use super::{agent, capture, intent, reach, served, statd};
use crate::config::Settings;
use crate::files::{Folder, if_present, trusted};
use crate::host::Host;
use crate::host::mountd::ExportTable;
use crate::lock_manager::GRACE_PERIOD;
use crate::store::{ServerReport, StoreError};
use crate::words::counted;
use crate::{detector, limits, monitor, rpc_client};

/// The check that compares servers.
pub(super) const OTHER_SERVERS: &str = "other-servers";

/// Names that one finding lists.
const NAMES_SHOWN: usize = 5;

/// Everything of this file, and what an adoption needs.
pub(super) fn check(host: &Host, settings: &Settings, managed: &[Managed]) -> Vec<Finding> {
    let mut findings = agent::check(host, settings);
    findings.extend(of_each(managed, |one| of_lock_manager(host, one)));
    // That there is none has been said already.
    let Ok(store) = records::store(host, settings) else { return findings };
    if let Err(why) = store.probe().map_err(|error| error.to_string()).and_then(|()| store.try_room()) {
        findings.push(Finding::loses_locks("store-writable", why, "mend it: nothing new is kept"));
    }
    let others = match records::others(store.as_ref(), settings) {
        Ok(others) => others,
        Err(error) => {
            findings.push(Finding::warning(OTHER_SERVERS, error.to_string(), "mend the store"));
            BTreeMap::new()
        }
    };
    findings.extend(of_each(managed, |one| {
        differences(&facts::of(&one.settings, one.lock_manager.as_ref()), &of_namesake(&others, one))
    }));
    findings.extend(records::unreadable_claims(store.as_ref(), settings));
    match records::kept(store.as_ref(), settings) {
        Ok(all) => {
            let (kept, unreadable): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
            let kept: Vec<Kept> = kept.into_iter().flatten().collect();
            findings.extend(unreadable.iter().filter_map(|kept| kept.as_ref().err()).map(damaged));
            findings.extend(of_each(managed, |one| {
                vec![state_number(host, &one.settings, &served_by(&kept, one))]
            }));
            findings.extend(clients(settings, &kept));
            findings.extend(neighbours(host, &kept));
        }
        Err(error) => findings.push(damaged(&error)),
    }
    findings
}

/// What concerns a lock manager.
fn of_lock_manager(host: &Host, of: &Managed) -> Vec<Finding> {
    let (settings, lock_manager) = (&of.settings, of.lock_manager.as_ref());
    let mut findings = registrations(settings);
    findings.extend(served::check(host, settings, lock_manager));
    findings.extend(capture::live(host, settings));
    let remarks = lock_manager.remarks(settings.lock_manager.strategy);
    findings.extend(remarks.into_iter().map(|one| Finding::warning(one.check, one.found, one.remedy)));
    findings.extend(export_table(host, settings));
    findings.extend(followed(host, settings));
    let needs = intent::check(host, settings, lock_manager);
    let mut directory = directory(host, settings);
    let is_wrong =
        |check: &str| needs.iter().any(|need| need.check == check && need.severity > Severity::Note);
    // A folder that can be read is well only where it can be written as well.
    directory.retain(|finding| finding.severity != Severity::Ok || !is_wrong(finding.check));
    findings.extend(directory);
    findings.extend(needs);
    findings
}

/// The facts of the lock managers of this name on the other servers.
fn of_namesake(
    others: &BTreeMap<ServerName, ServerReport>,
    of: &Managed,
) -> BTreeMap<ServerName, BTreeMap<String, String>> {
    facts_of(others, Some(&of.name).filter(|_| !of.is_first()))
}

/// What the others' lock managers of this name have told of themselves, or their first ones.
pub(super) fn facts_of(
    others: &BTreeMap<ServerName, ServerReport>,
    further: Option<&LockManagerName>,
) -> BTreeMap<ServerName, BTreeMap<String, String>> {
    let facts = |report: &ServerReport| match further {
        None => Some(report.facts.clone()),
        Some(name) => {
            let further = report.further_lock_managers.iter().find(|further| further.name == *name);
            further.map(|further| further.facts.clone())
        }
    };
    others.iter().filter_map(|(server, report)| Some((server.clone(), facts(report)?))).collect()
}

/// What is kept for the services of a lock manager. The server's own is the first one's.
fn served_by<'a>(kept: &'a [Kept], of: &Managed) -> Vec<&'a Kept> {
    let own = ServiceName::host(&of.settings.server);
    let is_served =
        |kept: &&Kept| of.settings.service(&kept.service).is_some() || (of.is_first() && kept.service == own);
    kept.iter().filter(is_served).collect()
}

/// The entries of the store that can't be read.
fn damaged(error: &StoreError) -> Finding {
    Finding::warning("records", error.to_string(), "mend the store")
}

/// The programs that lockd needs to find at rpcbind, and those that clients need.
fn registrations(settings: &Settings) -> Vec<Finding> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let port = settings.notify.rpcbind_port;
    let find = |program| rpc_client::find(loopback, port, program, limits::PROBE_TIME_MAX);
    let monitor = (sm::PROGRAM, sm::VERSION);
    // lockd asks for it over TCP.
    if let Err(why) = rpc_client::find_over(loopback, port, monitor, Transport::Tcp, limits::PROBE_TIME_MAX) {
        let found = format!(
            "{why}: lockd finds no status monitor and grants locks after a minute, and clients find nothing here"
        );
        return vec![Finding::loses_locks(
            "rpcbind",
            found,
            "start it (systemctl enable --now rpcbind.socket)",
        )];
    }
    let monitor = match find(monitor) {
        Ok((at, _)) => Finding::ok("status-monitor", format!("registered, at port {}", at.port())),
        Err(why) => {
            let found =
                format!("{why}; without one lockd grants locks after a minute without a record of them");
            let remedy = match settings.capture.mode.properties().is_status_monitor {
                true => "start the agent (systemctl start heirlock)",
                false => "start rpc.statd (rpc-statd.service)",
            };
            match settings.lock_manager.kind.properties().is_of_nfs_utils {
                true => Finding::loses_locks("status-monitor", found, remedy),
                false => Finding::warning("status-monitor", found, remedy),
            }
        }
    };
    let lock_manager = match find((nlm::PROGRAM, nlm::VERSION_4)) {
        Ok((at, _)) => Finding::ok("lock-manager", format!("NLM is registered, at port {}", at.port())),
        // A standby that serves nothing yet is well.
        Err(why) => Finding::note("lock-manager", format!("no locks are served here now: {why}")),
    };
    vec![monitor, lock_manager]
}

/// The status monitor's directory that is followed, and the source of its path.
fn followed(host: &Host, settings: &Settings) -> Option<Finding> {
    let (path, asked) = (!settings.state_directory_is_set).then(|| statd::directory(host))?;
    let found = format!("state-directory is not set, and {} is followed ({asked})", path.display());
    Some(Finding::ok("status-monitor-directory", found))
}

/// The table of exports that is read, and the source of its path.
fn export_table(host: &Host, settings: &Settings) -> Option<Finding> {
    if settings.services.iter().all(|service| service.exports.is_empty()) {
        return None;
    }
    let ExportTable { path, asked } = ExportTable::of(host, &settings.state_directory);
    Some(Finding::ok(
        "export-table",
        format!("the present exports are read from {} ({asked})", path.display()),
    ))
}

/// The status monitor's directory: readable, and its folders of one owner.
fn directory(host: &Host, settings: &Settings) -> Vec<Finding> {
    let check = "state-directory";
    let path = host.at(&settings.state_directory);
    let scan = match detector::scan(&path) {
        Ok(scan) => scan,
        Err(error) => {
            return vec![Finding::loses_locks(
                check,
                error.to_string(),
                "no client is ever noticed until then",
            )];
        }
    };
    let mut findings = Vec::new();
    let owner = |folder: &str| trusted::stat_of_link(path.join(folder)).map(|metadata| metadata.uid());
    if let (Ok(sm), Ok(bak)) = (owner("sm"), owner("sm.bak"))
        && sm != bak
    {
        let found = format!(
            "sm belongs to user {sm}, sm.bak to user {bak}: the status monitor runs as the owner of sm and can't write the other"
        );
        findings.push(Finding::warning(
            check,
            found,
            format!("chown {sm} {}/sm.bak", settings.state_directory.display()),
        ));
    }
    for problem in scan.problems.iter().filter(|problem| !problem.may_be_in_the_making).take(NAMES_SHOWN) {
        let found = format!("{}: {}", problem.path, problem.why);
        findings.push(Finding::warning(
            check,
            found,
            "remove it if no status monitor wrote it; heirlock leaves it alone",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            format!("{} in {}", counted(scan.files.len(), "record"), settings.state_directory.display()),
        ));
    }
    findings
}

/// The facts that must be equal on all servers, and those that had better be.
pub(super) fn differences(
    ours: &BTreeMap<String, String>,
    others: &BTreeMap<ServerName, BTreeMap<String, String>>,
) -> Vec<Finding> {
    let check = OTHER_SERVERS;
    let mut findings = Vec::new();
    for (server, facts) in others {
        let differ = ours.iter().filter_map(|(key, our)| {
            let theirs = facts.get(key)?;
            (our != theirs).then_some((key.as_str(), our, theirs))
        });
        findings.extend(differ.map(|(key, our, theirs)| difference(key, our, server.as_str(), theirs)));
    }
    if findings.is_empty() && !others.is_empty() {
        let names: Vec<&str> = others.keys().map(ServerName::as_str).collect();
        findings.push(Finding::ok(check, format!("{} say nothing that differs", names.join(", "))));
    }
    findings
}

fn difference(key: &str, our: &str, server: &str, theirs: &str) -> Finding {
    let check = OTHER_SERVERS;
    if let Some(path) = key.strip_prefix(FSID) {
        let found = format!(
            "{path} is exported with fsid {our} here and {theirs} on {server}: a file handle of one is stale on the other, so no lock on it can be reclaimed"
        );
        return Finding::loses_locks(check, found, "export it with the same fsid= on every server");
    }
    if let Some(service) = key.strip_prefix(CANDIDATES) {
        let found = format!(
            "{service} has the candidates {our} here and {theirs} on {server}: two servers may adopt it at once, or each leaves it to the other for a while"
        );
        return Finding::warning(check, found, "set the same candidates on every server");
    }
    match key {
        GRACE_PERIOD => Finding::warning(
            check,
            format!("grace lasts {our} s here and {theirs} s on {server}"),
            "set the same nlm_grace_period on every server",
        ),
        _ => Finding::note(check, format!("{key} is {our} here and {theirs} on {server}")),
    }
}

fn state_number(host: &Host, settings: &Settings, kept: &[&Kept]) -> Finding {
    let check = "state-number";
    let path = settings.state_directory.join("state");
    let shown = path.display();
    // As the agent reads it: the folder may be another user's, who may put a link there.
    let folder = Folder::open(&host.at(&settings.state_directory));
    let bytes = match if_present(folder.and_then(|folder| monitor::read_state(&folder))) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => {
            return Finding::warning(check, format!("can't read {shown}: {error}"), "let the agent read it");
        }
    };
    let sent = kept.iter().filter_map(|kept| kept.state).max();
    match (StateNumber::parse_file(&bytes), sent) {
        (Ok(number), Some(sent)) if number < sent => Finding::note(
            check,
            format!(
                "{shown} is {number}, below {sent}, which was sent last: 'heirlock disable' raises it before stock sm-notify may count on"
            ),
        ),
        (Ok(number), _) if number.0 > u32::MAX / 2 => Finding::warning(
            check,
            format!(
                "{shown} is {number}, more than a server's restarts come to; other programs may take it for negative"
            ),
            "find out which program wrote it",
        ),
        (Ok(number), _) => Finding::ok(check, format!("{shown} is {number}")),
        (Err(StateError::Empty), _) => Finding::ok(check, format!("{shown} is empty, as it is installed")),
        (Err(error), _) => Finding::warning(
            check,
            format!("{shown}: {error}"),
            "sm-notify would begin anew at 3, which clients may have seen: restore it",
        ),
    }
}

/// Whether the clients of the services that this server may act for answer from here.
fn clients(settings: &Settings, kept: &[Kept]) -> Vec<Finding> {
    let check = "clients";
    let mut names: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut unknown = 0;
    for (name, addresses) in kept.iter().flat_map(|kept| &kept.clients) {
        unknown += usize::from(addresses.is_empty());
        names.extend(addresses.iter().map(|address| (*address, name.to_string())));
    }
    let total = names.len();
    let asked: BTreeSet<IpAddr> = names.keys().copied().take(limits::REACH_CLIENTS_MAX).collect();
    let from: Vec<IpAddr> = settings
        .services
        .iter()
        .filter(|service| {
            kept.iter()
                .any(|kept| kept.service == service.name && kept.owner.as_ref() == Some(&settings.server))
        })
        .flat_map(|service| service.addresses.iter().copied())
        .chain(settings.host.addresses.iter().copied())
        .collect();
    let mut findings = Vec::new();
    match reach::answering(&asked, &from, settings.notify.rpcbind_port, limits::REACH_TIME_MAX) {
        Ok(answered) => findings.push(reached(&asked, &answered, &names)),
        Err(error) => {
            findings.push(Finding::warning(check, format!("can't ask the clients: {error}"), "ask again"));
        }
    }
    if unknown > 0 {
        findings.push(Finding::note(
            check,
            format!("not asked, as only a name is known of them: {}", counted(unknown, "client")),
        ));
    }
    if total > asked.len() {
        let found = format!("{} of {total} addresses were asked, the others not", asked.len());
        findings.push(Finding::note(check, found));
    }
    findings
}

fn reached(
    asked: &BTreeSet<IpAddr>,
    answered: &BTreeSet<IpAddr>,
    names: &BTreeMap<IpAddr, String>,
) -> Finding {
    let check = "clients";
    let silent: Vec<&str> =
        asked.difference(answered).filter_map(|address| names.get(address)).map(String::as_str).collect();
    if silent.is_empty() {
        let found = match asked.len() {
            1 => "the one address of a client answers".to_owned(),
            count => format!("all {count} addresses of clients answer"),
        };
        return Finding::ok(check, found);
    }
    let mut shown = silent.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if silent.len() > NAMES_SHOWN {
        shown.push_str(", …");
    }
    Finding::warning(
        check,
        format!(
            "{} of {} addresses of clients don't answer at their rpcbind: {shown}",
            silent.len(),
            asked.len()
        ),
        "let this server through their firewalls to port 111 and to their status monitor, over UDP or TCP; 'heirlock records forget' drops those that are gone",
    )
}

/// All clients are spoken to within a second: each that is on a link of ours takes a place in the neighbour table.
fn neighbours(host: &Host, kept: &[Kept]) -> Option<Finding> {
    let check = "neighbour-table";
    let clients: BTreeSet<&IpAddr> =
        kept.iter().flat_map(|kept| kept.clients.values().flatten()).filter(|a| a.is_ipv4()).collect();
    let path = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
    // Network namespaces have the limits of the first one, and don't show them.
    let places: usize = host.text(path)?.trim().parse().ok()?;
    let table = host.table("arp").unwrap_or_default();
    let others = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next()?.parse::<IpAddr>().ok())
        .filter(|address| !clients.contains(address))
        .count();
    let needed = clients.len() + others;
    if needed < places {
        return Some(Finding::ok(check, format!("{needed} neighbours fit into its {places} places")));
    }
    Some(Finding::warning(
        check,
        format!(
            "{} clients and {others} other neighbours, but {places} places: where the clients are on a link of this server, some can't be told in time",
            clients.len()
        ),
        format!(
            "sysctl -w net.ipv4.neigh.default.gc_thresh3={}, and the other two in proportion",
            needed * 2
        ),
    ))
}

#[cfg(test)]
mod tests;
