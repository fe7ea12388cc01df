//! Putting a host under heirlock's guard, and finding out what would go wrong on it.
//!
//! On a guarded host heirlock alone tells clients (design: *Who notifies*). Another program that does, stock sm-notify above
//! all, ends the grace period of an adoption or notifies from the wrong address: locks are lost without a word.
//!
//! | function | looks at | for |
//! |---|---|---|
//! | [`check_config`] | the configuration, exports, the store; no network | `heirlock check-config` |
//! | [`doctor`] | all of that and the live host, its clients, the other servers, the cluster manager | `heirlock doctor` |
//! | [`refusals`] | all that an adoption needs; also a part of [`doctor`] | `adopt`, which refuses before it claims |
//! | [`awaited`] | addresses that no hook brings | `adopt`, which says for whom it is going to wait |
//! | [`drilled`] | the same as [`refusals`] and all that is well, of one service, and what hurts its clients later | `heirlock drill` |
//! | [`enable`], [`disable`] | | put a host under guard, and give it back to the byte |
//! | [`renew`] | | what a boot wiped from /run, where no systemd puts it back; for the agent's start |
//! | [`facts`] | | what the agent tells the other servers, for their [`doctor`] to compare |

mod agent;
mod candidates;
mod capture;
mod cluster;
mod commands;
mod configured;
mod drill;
mod facts;
mod finding;
mod intent;
mod live;
mod managed;
mod memory;
mod reach;
mod records;
mod rivals;
mod served;
mod statd;
mod switch;
#[cfg(test)]
pub(crate) mod testing;
mod writable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heirlock_core::ServiceName;
use heirlock_core::drill::Check;
use heirlock_core::store_identity::Word;

use crate::config::Settings;
use crate::host::Host;
use crate::lock_manager::LockManager;
use crate::store::Store;

pub(crate) use finding::{Finding, Severity};
use managed::Managed;
pub(crate) use switch::{GuardError, Step, StepOutcome};

/// Checks of a configuration that need no network. Where the store is said to be shared this takes up to three seconds:
/// another server's heart must be seen to beat.
pub(crate) fn check_config(host: &Host, settings: &Settings) -> Vec<Finding> {
    configured::check(host, settings, &Managed::all(host, settings))
}

/// All of [`check_config`], and what the live host, its clients, the other servers' heartbeats and the cluster manager say, for
/// the configuration in this file. May take ten seconds, and ten more where the cluster manager takes its time.
pub(crate) fn doctor(host: &Host, settings: &Settings, file: &Path) -> Vec<Finding> {
    let managed = Managed::all(host, settings);
    let live = live::check(host, settings, &managed);
    let mut findings = configured::check(host, settings, &managed);
    // The needs of an adoption are said once.
    findings.retain(|finding| !live.contains(finding));
    findings.extend(live);
    findings.extend(cluster::check(host, settings, file));
    findings
}

/// The reasons to refuse an adoption of these services by this server: another sender may end the grace period or notify
/// from the wrong address, grace is too short, a volume isn't here, a folder can't be written, NFS can't be restarted, …
/// Where the operator insists, only those without which the strategy can't work. For a thread that may wait: it makes and
/// removes files, asks programs and rpcbind, and hangs with a disk that it reads.
pub(crate) fn refusals(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    targets: &[ServiceName],
    insists: bool,
    prepares: bool,
) -> Vec<Finding> {
    intent::refusals(host, settings, lock_manager, targets, insists, prepares)
}

/// Addresses of these services that are not here and that no hook brings, so that an adoption of them waits for a cluster
/// manager or an administrator: a sentence a service.
pub(crate) fn awaited(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    targets: &[ServiceName],
) -> Vec<String> {
    intent::awaited(host, settings, lock_manager, targets)
}

/// All that an adoption of a service by this server needs of the host, met or not, and what would hurt its clients afterwards. As
/// [`refusals`] this is for a thread that may wait, and leaves the host as it was.
pub(crate) fn drilled(
    host: &Host,
    settings: &Settings,
    lock_manager: &dyn LockManager,
    service: &ServiceName,
) -> Vec<Check> {
    drill::check(host, settings, lock_manager, service)
}

/// Facts of this server that differ from those of the others so that clients of a service lose by it, as the store has them.
pub(crate) fn differing_facts(
    settings: &Settings,
    lock_manager: &dyn LockManager,
    service: &ServiceName,
    store: &dyn Store,
) -> Vec<Check> {
    drill::differing_facts(settings, lock_manager, service, store)
}

/// Follows the status monitor to its directory, where the configuration doesn't name one.
pub(crate) fn follow_status_monitor(host: &Host, settings: Settings) -> Settings {
    if settings.state_directory_is_set {
        return settings;
    }
    Settings { state_directory: status_monitor_directory(host), ..settings }
}

/// Where this host's status monitor keeps its records, as it runs, or else as nfsconf says.
pub(crate) fn status_monitor_directory(host: &Host) -> PathBuf {
    statd::directory(host).0
}

/// Commands of the configuration that can't be run, or that others may change: for the agent to say at its start.
pub(crate) fn commands(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = commands::check(host, settings);
    findings.retain(|finding| finding.severity > Severity::Note);
    findings
}

/// Facts that the other servers compare with their own; the agent puts them into its heartbeat.
pub(crate) fn facts(settings: &Settings, lock_manager: &dyn LockManager) -> BTreeMap<String, String> {
    facts::of(settings, lock_manager)
}

/// Puts this host under guard; with `plan` it only says what would be done, `word` is what was said of the store. Repeating
/// it changes nothing.
///
/// # Errors
/// Where a file that heirlock wrote was changed since, the store is not the one that this server knows, or something can't
/// be done. Changes that were made until then are remembered, so that [`disable`] takes them back.
pub(crate) fn enable(
    host: &Host,
    settings: &Settings,
    plan: bool,
    word: Word,
) -> Result<Vec<Step>, GuardError> {
    switch::enable(host, settings, plan, word)
}

/// Gives this host back as it was; with `plan` it only says what would be done. Records in the store stay. With `if_idle` it
/// refuses where clients on record would lose what protects their locks.
///
/// # Errors
/// Where a file that heirlock wrote was changed since, or something can't be done; it may be repeated.
pub(crate) fn disable(
    host: &Host,
    settings: &Settings,
    plan: bool,
    if_idle: bool,
) -> Result<Vec<Step>, GuardError> {
    switch::disable(host, settings, plan, if_idle)
}

/// Makes sm-notify's guard file again on a host under guard, where a boot wiped it from /run; says whether it had to.
///
/// # Errors
/// Where it can't be told or done.
pub(crate) fn renew(host: &Host, settings: &Settings) -> Result<bool, GuardError> {
    switch::renew(host, settings)
}
