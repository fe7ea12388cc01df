//! The needs of an adoption by this server: one list. `adopt` refuses by it before anything is claimed, and `doctor` shows all
//! of it, so that `adopt` never refuses for a thing that `doctor` calls well.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use heirlock_core::ServiceName;
use heirlock_core::grace::Probe;

use super::finding::{Finding, Severity};
use super::{configured, rivals, writable};
use crate::config::{ServiceSettings, Settings};
use crate::files::trusted;
use crate::host::{Host, volumes};
use crate::lock_manager::{self, LockManager, LockManagerError};
use crate::{hooks, limits};

/// One thing that was looked at.
pub(super) struct Need {
    pub(super) finding: Finding,
    /// How bad it is while no adoption is on, where it may be brought right before one.
    pub(super) until_then: Option<Severity>,
}

impl Need {
    fn always(finding: Finding) -> Self {
        Self { finding, until_then: None }
    }

    /// As `doctor` shows it.
    fn shown(self) -> Finding {
        let Self { finding, until_then } = self;
        let Some(severity) = until_then else { return finding };
        let remedy = finding.remedy.unwrap_or_default();
        Finding {
            severity,
            found: format!("{}: an adoption by this server would be refused now", finding.found),
            remedy: Some(format!(
                "{remedy}; where that is done right before an adoption, this is as it should be"
            )),
            ..finding
        }
    }
}

/// The missing needs for which an adoption of these services by this server is refused; where the operator insists, only those
/// without which the strategy can't work. One that `prepares` leaves time to another program.
pub(super) fn refusals(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    targets: &[ServiceName],
    insists: bool,
    prepares: bool,
) -> Vec<Finding> {
    let mut needs = strategy(host, settings, lock_manager);
    if prepares && !insists {
        let short = |found| Finding::loses_locks(PREPARED, found, PREPARED_REMEDY);
        needs.extend(too_short_to_prepare(settings, lock_manager).map(short).map(Need::always));
    }
    if !insists {
        needs.extend(besides(host, settings, targets, lock_manager));
    }
    let findings = needs.into_iter().map(|need| need.finding);
    findings.filter(|finding| finding.severity == Severity::LosesLocks).collect()
}

/// The whole list, for all services of the configuration; and what `adopt` says before it begins to wait.
pub(super) fn check(host: &Host, settings: &Settings, lock_manager: &dyn LockManager) -> Vec<Finding> {
    let targets: Vec<ServiceName> = settings.services.iter().map(|service| service.name.clone()).collect();
    let needs = all(host, settings, lock_manager, &targets);
    let mut findings: Vec<Finding> = needs.into_iter().map(Need::shown).collect();
    // Without a restart it depends on the grace period that is open then.
    let short = too_short_to_prepare(settings, lock_manager);
    let short = short.filter(|_| settings.lock_manager.strategy.opens_grace());
    findings.extend(short.map(|found| {
        Finding::note(PREPARED, format!("{found}: 'heirlock adopt --prepare' is refused; {PREPARED_REMEDY}"))
    }));
    let awaited = awaited(host, settings, lock_manager, &targets);
    findings.extend(awaited.into_iter().map(|said| Finding::note("address-up", said)));
    findings
}

/// Every need of an adoption of these services, met or not.
pub(super) fn all(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    targets: &[ServiceName],
) -> Vec<Need> {
    let mut needs = strategy(host, settings, lock_manager);
    if needs.is_empty() {
        let found = format!("'{}' can work here", settings.lock_manager.strategy);
        needs.push(Need::always(Finding::ok("strategy", found)));
    }
    needs.extend(besides(host, settings, targets, lock_manager));
    needs
}

/// The check of the time that a prepared adoption leaves.
const PREPARED: &str = "prepared-time";

const PREPARED_REMEDY: &str = "make grace longer (nlm_grace_period), or set lock-manager.prepared-time to what the cluster manager needs";

/// Between `--prepare` and `--finish` a cluster manager brings the address up, and grace goes by meanwhile. Where it ends before that
/// every client is lost.
fn too_short_to_prepare(settings: &Settings, lock_manager: &dyn LockManager) -> Option<String> {
    // A length that is not known is a finding of its own.
    let length = lock_manager.grace_length().ok()?;
    let opens = settings.lock_manager.strategy.opens_grace();
    let age = if opens { None } else { lock_manager.grace_age().ok().flatten() };
    let margin = settings.lock_manager.settle_margin;
    let left = length.saturating_sub(age.unwrap_or_default()).saturating_sub(margin);
    let wanted = settings.lock_manager.prepared_time;
    (left < wanted).then(|| {
        format!(
            "once it is prepared {} s of grace are left for the address and --finish, and lock-manager.prepared-time wants {} s",
            left.as_secs(),
            wanted.as_secs_f64()
        )
    })
}

/// Without what the strategy can't work at all.
fn strategy(host: &Host, settings: &Settings, lock_manager: &dyn LockManager) -> Vec<Need> {
    let check = "strategy";
    let strategy = settings.lock_manager.strategy;
    let finding = match lock_manager.usable(strategy) {
        Ok(()) if !strategy.opens_grace() => {
            return grace_is_open(host, settings, lock_manager).err().into_iter().collect();
        }
        Ok(()) => return Vec::new(),
        Err(LockManagerError::Unusable { strategy, why, instead }) => {
            Finding::loses_locks(check, format!("'{strategy}' can't work here: {why}"), instead)
        }
        Err(error) => Finding::loses_locks(check, error.to_string(), "mend it"),
    };
    vec![Need::always(finding)]
}

/// Without a restart grace must be open already, with enough of it left. Between adoptions it hardly ever is.
fn grace_is_open(host: &Host, settings: &Settings, lock_manager: &dyn LockManager) -> Result<(), Need> {
    let check = "strategy";
    let strategy = settings.lock_manager.strategy;
    let refuse = |why: String, remedy: &str| {
        let finding = Finding::loses_locks(check, format!("'{strategy}' can't work here: {why}"), remedy);
        Err(Need { finding, until_then: Some(Severity::Note) })
    };
    let instead = "'restart-nfs' opens one";
    let (answer, why) = lock_manager::grace(lock_manager, host, settings, &[], limits::PROBE_TIME_MAX);
    match answer {
        Probe::InGrace => {}
        Probe::NotInGrace => return refuse("no grace period is open".into(), instead),
        Probe::NoAnswer => {
            let why = format!("the lock manager doesn't say that it is in grace: {why}");
            return refuse(why, "start NFS, and adopt while its grace period is open");
        }
    }
    let told =
        |error: LockManagerError| Need::always(Finding::loses_locks(check, error.to_string(), instead));
    let length = lock_manager.grace_length().map_err(told)?;
    let age = lock_manager.grace_age().map_err(told)?;
    let left = length.saturating_sub(age.unwrap_or_default());
    let margin = settings.lock_manager.settle_margin;
    if left > margin {
        return Ok(());
    }
    let why = format!(
        "only {:.1} s of grace are left, and settle-margin wants more than {:.1} s",
        left.as_secs_f64(),
        margin.as_secs_f64()
    );
    refuse(why, instead)
}

/// The needs without which locks would be lost although the strategy can work, met ones as well. Reads a few files, makes and
/// removes some, and asks programs; a read may hang with the disk.
fn besides(
    host: &Host,
    settings: &Settings,
    targets: &[ServiceName],
    lock_manager: &dyn LockManager,
) -> Vec<Need> {
    let mut needs: Vec<Need> = commands(settings).into_iter().map(Need::always).collect();
    needs.extend(rivals::check(host, settings).into_iter().map(Need::always));
    needs.extend(configured::times(settings, lock_manager).into_iter().map(Need::always));
    needs.extend(writable::check(host, settings).into_iter().map(Need::always));
    let brought = |finding| Need { finding, until_then: Some(Severity::Warning) };
    needs.extend(volumes(host, settings, targets).into_iter().map(brought));
    // A server without services adopts none.
    if targets.is_empty() {
        return needs;
    }
    let taken = settings.services.iter().filter(|service| targets.contains(&service.name));
    let exports: Vec<PathBuf> = match settings.hooks.volume_up {
        Some(_) => Vec::new(), // it exports them
        None => taken.flat_map(|service| service.exports.iter().cloned()).collect(),
    };
    let lacks = lock_manager.missing(settings.lock_manager.strategy, &exports);
    needs.extend(lacks.into_iter().map(|lack| {
        let finding = Finding::loses_locks(lack.check, lack.found, lack.remedy);
        if lack.check == lock_manager::EXPORT { brought(finding) } else { Need::always(finding) }
    }));
    needs
}

/// Hooks that an adoption runs and that can't be started.
fn commands(settings: &Settings) -> Vec<Finding> {
    let hooks = &settings.hooks;
    let of_an_adoption = [("volume-up", &hooks.volume_up), ("address-up", &hooks.address_up)];
    let can_not = of_an_adoption
        .into_iter()
        .filter_map(|(name, command)| Some((name, hooks::check(command.as_ref()?).err()?)));
    let finding = |(name, why)| {
        let found = format!("hooks.{name}: {why}");
        Finding::loses_locks("command", found, "install it, or correct the configuration")
    };
    can_not.map(finding).collect()
}

/// Addresses that the services need, that are not on this server, and that no hook brings: for a cluster manager or an
/// administrator to bring while an adoption waits. A sentence a service.
pub(super) fn awaited(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    targets: &[ServiceName],
) -> Vec<String> {
    if settings.hooks.address_up.is_some() {
        return Vec::new();
    }
    // The last moment in which clients can be told, after grace has opened.
    let within = lock_manager.grace_length().ok().map(|grace| {
        format!(", within {} s", grace.saturating_sub(settings.lock_manager.settle_margin).as_secs())
    });
    let within = within.unwrap_or_default();
    let one = |service: &ServiceSettings| {
        let missing: Vec<IpAddr> =
            service.addresses.iter().copied().filter(|address| !host.is_present(*address)).collect();
        let first = missing.first()?;
        let shown = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (are, them) = if missing.len() == 1 { ("is", "it") } else { ("are", "them") };
        Some(format!(
            "{}: {shown} {are} not on this server, and hooks.address-up, which would bring {them}, is not set: a cluster \
             manager or an administrator has to bring {them} here once the grace period is open{within}, and not before; \
             by hand: 'ip address add {first}/PREFIX dev INTERFACE'. With 'heirlock adopt {} --prepare' before the address and \
             'heirlock adopt {} --finish' after it nothing waits",
            service.name, service.name, service.name
        ))
    };
    settings.services.iter().filter(|service| targets.contains(&service.name)).filter_map(one).collect()
}

/// The needs of the services to be taken over that this host's file systems do not meet now. Where a hook brings the volume,
/// they need nothing.
fn volumes(host: &Host, settings: &Settings, targets: &[ServiceName]) -> Vec<Finding> {
    if settings.hooks.volume_up.is_some() {
        return Vec::new();
    }
    let targets = settings.services.iter().filter(|service| targets.contains(&service.name));
    targets
        .flat_map(|service| service.exports.iter().filter_map(|path| volume(host, service, path)))
        .collect()
}

fn volume(host: &Host, service: &ServiceSettings, path: &Path) -> Option<Finding> {
    let (check, shown) = ("volume", path.display());
    let name = &service.name;
    if let Some(at) = volumes::unmounted(host, path) {
        let found = format!("{name}: {shown} lies on the volume of {at}, and nothing is mounted there");
        return Some(Finding::loses_locks(
            check,
            found,
            format!("mount it (mount {at}), or set hooks.volume-up"),
        ));
    }
    let found = match trusted::stat(host.at(path)) {
        Ok(_) => return None,
        Err(error) => format!("{name}: {shown}, which it exports, can't be found here: {error}"),
    };
    Some(Finding::loses_locks(check, found, "mount its volume, or set hooks.volume-up"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, fit, lock_manager, settings};

    fn missing(tree: &Tree, more: &str) -> Vec<String> {
        let found = volumes(&tree.host(), &settings(&format!("{SERVICE}{more}")), &["nfs".parse().unwrap()]);
        found.into_iter().map(|finding| finding.found).collect()
    }

    fn nfs() -> Vec<ServiceName> {
        vec!["nfs".parse().unwrap()]
    }

    /// The needs that `adopt` refuses for on this host: `doctor` has to show them, and not as well.
    fn refused(tree: &Tree, settings: &Settings) -> Vec<(&'static str, Severity)> {
        let lock_manager = lock_manager(tree, settings);
        let shown = check(&tree.host(), settings, lock_manager.as_ref());
        let refusals = refusals(
            &tree.host(),
            settings,
            lock_manager.as_ref(),
            &nfs(),
            false,
            settings.lock_manager.strategy.opens_grace(),
        );
        let as_shown = |refusal: Finding| {
            let is_it =
                |other: &&Finding| other.check == refusal.check && other.found.starts_with(&refusal.found);
            let other = shown.iter().find(is_it);
            let other = other.unwrap_or_else(|| panic!("doctor doesn't know that {refusal}: {shown:?}"));
            (other.check, other.severity)
        };
        let refused: Vec<_> = refusals.into_iter().map(as_shown).collect();
        let well = shown.iter().filter(|finding| finding.severity == Severity::Ok);
        let both: Vec<_> = well.filter(|ok| refused.iter().any(|(check, _)| *check == ok.check)).collect();
        assert!(both.is_empty(), "refused, and well: {both:?}");
        refused
    }

    #[test]
    fn a_need_that_adopt_refuses_for_is_never_well_for_doctor() {
        let tree = fit();
        // Where rpcbind does not answer, systemd starts it with NFS.
        let kernel = |more: &str| settings(&format!("[notify]\nrpcbind-port = 9\n{more}{SERVICE}"));
        let (loses, warning) = (Severity::LosesLocks, Severity::Warning);
        assert_eq!(refused(&tree, &kernel("")), []);
        tree.relink("/etc/systemd/system/nfs-server.service", "/dev/null");
        assert_eq!(refused(&tree, &kernel("")), [("nfs-server", loses)], "masked");
        tree.remove("/etc/systemd/system/nfs-server.service");
        tree.remove("/lib/systemd/system/nfs-server.service");
        assert_eq!(refused(&tree, &kernel("")), [("nfs-server", loses)], "not installed");
        let tree = fit();
        tree.remove("/lib/systemd/system/rpcbind.socket");
        assert_eq!(refused(&tree, &kernel("")), [("rpcbind", loses)]);
        let tree = fit();
        tree.put("/etc/exports", "");
        assert_eq!(refused(&tree, &kernel("")), [("export", warning)], "it may come with its volume");
        tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
        assert_eq!(refused(&tree, &kernel("")), [("volume", warning), ("export", warning)]);
        let hook = "[hooks]\nvolume-up = [\"/no/such/program\"]\n";
        assert_eq!(refused(&tree, &kernel(hook)), [("command", loses)]);
        let tree = fit();
        tree.put("/var/lib/nfs/etab", "/srv/nfs\t*(rw,fsid=77)\n");
        let notify = "[lock-manager]\nstrategy = \"notify\"\n";
        assert_eq!(refused(&tree, &kernel(notify)), [("strategy", Severity::Note), ("rpcbind", loses)]);
        tree.put("/proc/self/mounts", "f:/x /mnt/x nfs rw,vers=3 0 0\n");
        assert_eq!(refused(&tree, &kernel("")), [("strategy", loses)]);
        let tree = fit();
        let commands = "[lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nrecognise = [\"true\"]\n\
                        incarnation = [\"false\"]\ngrace-period = \"90s\"\n";
        assert_eq!(refused(&tree, &kernel(commands)), [("incarnation", loses)]);
        tree.remove("/run/sm-notify.pid");
        tree.remove("/etc/systemd/system/rpc-statd-notify.service");
        let found = refused(&tree, &kernel(commands));
        assert_eq!(found, [("sm-notify-pid", loses), ("rpc-statd-notify", loses), ("incarnation", loses)]);
    }

    #[test]
    fn a_grace_period_that_is_too_short_for_a_cluster_manager_is_refused_where_one_prepares() {
        let tree = fit();
        let found = |more: &str, insists, prepares| {
            let commands = format!(
                "[lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nrecognise = [\"true\"]\n\
                 incarnation = [\"echo\", \"1\"]\n{more}{SERVICE}"
            );
            let settings = settings(&commands);
            let lock_manager = lock_manager(&tree, &settings);
            let found = refusals(&tree.host(), &settings, lock_manager.as_ref(), &nfs(), insists, prepares);
            let shown = check(&tree.host(), &settings, lock_manager.as_ref());
            let noted =
                shown.iter().any(|finding| finding.check == PREPARED && finding.severity == Severity::Note);
            let of_time = found.into_iter().filter(|finding| finding.check == PREPARED);
            (of_time.map(|finding| finding.found).collect::<Vec<_>>(), noted)
        };
        let (why, noted) = found("grace-period = \"20s\"\n", false, true);
        let words =
            "15 s of grace are left for the address and --finish, and lock-manager.prepared-time wants 30 s";
        assert!(why.len() == 1 && why[0].contains(words) && noted, "{why:?}");
        let short = "grace-period = \"20s\"\n";
        assert_eq!((found(short, true, true).0.len(), found(short, false, false).0.len()), (0, 0));
        assert_eq!(found("grace-period = \"35s\"\n", false, true), (vec![], false));
        assert_eq!(found("grace-period = \"20s\"\nprepared-time = \"15s\"\n", false, true), (vec![], false));
    }

    #[test]
    fn an_operator_who_insists_is_refused_what_the_strategy_can_not_work_without_alone() {
        let tree = fit();
        tree.put("/etc/exports", "");
        let settings = settings(&format!("[notify]\nrpcbind-port = 9\n{SERVICE}"));
        let lock_manager = lock_manager(&tree, &settings);
        let checks = |insists| {
            let found = refusals(&tree.host(), &settings, lock_manager.as_ref(), &nfs(), insists, true);
            found.into_iter().map(|finding| finding.check).collect::<Vec<_>>()
        };
        assert_eq!((checks(false), checks(true)), (vec!["export"], vec![]));
        tree.put("/proc/self/mounts", "f:/x /mnt/x nfs rw,vers=3 0 0\n");
        assert_eq!((checks(false), checks(true)), (vec!["strategy", "export"], vec!["strategy"]));
    }

    #[test]
    fn an_address_that_nothing_here_brings_is_said_with_who_brings_it_when_and_how() {
        let said = |text: &str, here: &[&str]| {
            let (tree, settings) = (fit().with_addresses(here), settings(text));
            awaited(&tree.host(), &settings, lock_manager(&tree, &settings).as_ref(), &nfs())
        };
        let one = said(SERVICE, &[]);
        assert_eq!(one.len(), 1, "{one:?}");
        for words in [
            "nfs: 192.0.2.10 is not on this server",
            "hooks.address-up",
            "a cluster manager or an administrator has to bring it here once the grace period is open, within 85 s,",
            "'ip address add 192.0.2.10/PREFIX dev INTERFACE'",
            "'heirlock adopt nfs --prepare' before the address and 'heirlock adopt nfs --finish' after it",
        ] {
            assert!(one[0].contains(words), "{words} is not in {one:?}");
        }
        assert_eq!(said(SERVICE, &["192.0.2.10"]), Vec::<String>::new());
        assert_eq!(said(&format!("[hooks]\naddress-up = [\"true\"]\n{SERVICE}"), &[]), Vec::<String>::new());
        let two = SERVICE.replace("\"192.0.2.10\"", "\"192.0.2.10\", \"192.0.2.11\", \"192.0.2.12\"");
        let two = said(&two, &["192.0.2.10"]);
        assert!(two[0].starts_with("nfs: 192.0.2.11, 192.0.2.12 are not on this server"), "{two:?}");
        let other = "[[service]]\nname = \"other\"\naddresses = [\"192.0.2.99\"]\n";
        assert_eq!(said(&format!("{SERVICE}{other}"), &["192.0.2.10"]), Vec::<String>::new());
    }

    #[test]
    fn an_export_whose_volume_is_not_here_is_missing_unless_a_hook_brings_it() {
        let tree = Tree::new();
        tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        let nowhere = missing(&tree, "");
        assert!(
            nowhere.len() == 1 && nowhere[0].starts_with("nfs: /srv/nfs, which it exports,"),
            "{nowhere:?}"
        );
        tree.folder("/srv/nfs");
        assert_eq!(missing(&tree, ""), Vec::<String>::new());
        tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
        let unmounted = missing(&tree, "");
        assert_eq!(unmounted, ["nfs: /srv/nfs lies on the volume of /srv, and nothing is mounted there"]);
        let other = "[[service]]\nname = \"other\"\naddresses = [\"192.0.2.11\"]\nexports = [\"/nowhere\"]\n";
        assert_eq!(missing(&tree, other), unmounted, "a service that is not taken over needs nothing");
        let hook = settings(&format!("[hooks]\nvolume-up = [\"true\"]\n{SERVICE}"));
        assert_eq!(volumes(&tree.host(), &hook, &["nfs".parse().unwrap()]), []);
        tree.put("/proc/self/mounts", "/dev/drbd0 /srv ext4 rw 0 0\n");
        assert_eq!(missing(&tree, ""), Vec::<String>::new());
    }
}
