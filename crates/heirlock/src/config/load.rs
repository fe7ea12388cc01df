//! From the file's words to [`Settings`]: every value is checked here, and every mistake names the file, the line, the key,
//! what was expected and found, and how it is written.

mod store;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use heirlock_core::candidates::Candidates;
use heirlock_core::monitor::WhenUnprotected;
use heirlock_core::takeover::{Conveyance, Strategy};
use heirlock_core::{ServerName, ServiceName, limits};
use heirlock_nsm::MyName;
use thiserror::Error;

use super::reader::{self, Located, Mistake, Section, Spelled};
use super::{
    CaptureMode, CaptureSettings, Command, ControlSettings, HeartbeatSettings, HookSettings, HostSettings,
    InstanceNumber, LockManagerKind, LockManagerProperties, LockManagerSettings, Mode, NotifySettings,
    ServiceSettings, Settings,
};
use crate::files::trusted;
use crate::limits as bounds;

/// Where the configuration lies, unless it is said.
pub(crate) const CONFIGURATION: &str = "/etc/heirlock/heirlock.toml";

/// Bytes of the largest configuration file.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Mistakes that are told at once.
const MISTAKES_TOLD_MAX: usize = 50;

/// The keys of a server's own folders, with what they are where the file says nothing.
const STATE_DIRECTORY: (&str, &str) = ("state-directory", "/var/lib/nfs");
const RUNTIME_DIRECTORY: (&str, &str) = ("runtime-directory", "/run/heirlock");
const LOCAL_DIRECTORY: (&str, &str) = ("local-directory", "/var/lib/heirlock");

/// Why a configuration can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error(
        "can't read the configuration {path}: {source}; name it with --config, or begin with what 'heirlock sample-config' prints"
    )]
    Unreadable {
        /// which
        path: PathBuf,
        /// why
        #[source]
        source: std::io::Error,
    },
    /// Its values can't be: all mistakes, a line each.
    #[error("{0}")]
    Wrong(Mistakes),
}

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct Mistakes {
    path: PathBuf,
    found: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (number, mistake) in self.found.iter().take(MISTAKES_TOLD_MAX).enumerate() {
            let newline = if number == 0 { "" } else { "\n" };
            match mistake.line {
                Some(line) => write!(f, "{newline}{path}, line {line}: {}", mistake.what)?,
                None => write!(f, "{newline}{path}: {}", mistake.what)?,
            }
        }
        match self.found.len().saturating_sub(MISTAKES_TOLD_MAX) {
            0 => Ok(()),
            more => write!(f, "\n{path}: {more} more mistakes, which are told when these are mended"),
        }
    }
}

/// Reads and checks a configuration file.
///
/// # Errors
/// Where it can't be read, or anything in it can't be.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = trusted::read_text(path, FILE_BYTES_MAX).map_err(unreadable)?;
    parse(path, &text)
}

/// Checks the text of a configuration; `path` is for its errors.
///
/// # Errors
/// Where anything in it can't be; all that can't is told.
pub fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let (table, reader) = reader::read(text);
    let settings = convert(reader.whole(table.get_ref()));
    let found = reader.mistakes();
    let wrong = |found| ConfigError::Wrong(Mistakes { path: path.to_owned(), found });
    // Without a mistake there are settings.
    settings.filter(|_| found.is_empty()).ok_or_else(|| wrong(found))
}

/// Every key that is read, as `section.key`; of a text with a service.
#[cfg(test)]
pub(crate) fn keys_of(text: &str) -> std::collections::BTreeSet<String> {
    let (table, reader) = reader::read(text);
    convert(reader.whole(table.get_ref()));
    reader.asked()
}

/// The settings in the file; every mistake is told to the reader. `None` only after a mistake.
fn convert(file: Section<'_, '_>) -> Option<Settings> {
    let server = server(&file);
    let folder = |(key, default): (&'static str, &str)| {
        absolute(&file, key, default).unwrap_or_else(|| PathBuf::from(default))
    };
    let folders = [STATE_DIRECTORY, RUNTIME_DIRECTORY, LOCAL_DIRECTORY].map(folder);
    let state_directory_is_set = file.has("state-directory");
    let store = store::store(&file);
    keep_apart(&file, &folders, &store.path);
    let [state, runtime, local] = folders;
    let capture = capture(file.section("capture"));
    let lock_manager = lock_manager(file.section("lock-manager"));
    let notify = notify(file.section("notify"));
    let host = host(file.section("host"), server.as_ref());
    let hooks = hooks(file.section("hooks"));
    let heartbeat = heartbeat(file.section("heartbeat"), hooks.fence.as_ref());
    let control = control(file.section("control"));
    let services = services(&file, store.shared, hooks.fence.is_some());
    file.finish();
    Some(Settings {
        server: server?,
        state_directory: state,
        state_directory_is_set,
        runtime_directory: runtime,
        local_directory: local,
        store,
        capture,
        lock_manager,
        notify,
        heartbeat,
        host: host?,
        hooks,
        control,
        services,
        further: Vec::new(),
    })
}

/// Each of the folders outlives something else: the store its servers, the local one a reboot and every store.
fn keep_apart(file: &Section<'_, '_>, folders: &[PathBuf; 3], store: &Path) {
    let keys = [STATE_DIRECTORY, RUNTIME_DIRECTORY, LOCAL_DIRECTORY];
    for ((key, example), folder) in keys.into_iter().zip(folders) {
        // No store at all is another mistake.
        if !store.as_os_str().is_empty() && folder.starts_with(store) {
            let what = format!(
                "expected a folder that belongs to this server alone, found {folder:?}, which is in the store (store.path = {store:?}); for example: {key} = {example:?}"
            );
            file.wrong(key, what);
        }
    }
    let [_, runtime, local] = folders;
    if local.starts_with(runtime) {
        let (key, example) = LOCAL_DIRECTORY;
        let what = format!(
            "expected a folder that outlives a reboot, found {local:?}, which is in the one that a reboot may empty (runtime-directory = {runtime:?}); for example: {key} = {example:?}"
        );
        file.wrong(key, what);
    }
}

fn server(file: &Section<'_, '_>) -> Option<ServerName> {
    let given = file.parsed("server", "nfs-a");
    if file.has("server") {
        return given;
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let parsed = name.parse();
    let wrong = |error| {
        let what =
            format!("the node name {name:?} can't serve: {error}; set it, for example: server = \"nfs-a\"");
        file.wrong("server", what);
    };
    parsed.map_err(wrong).ok()
}

fn capture(section: Section<'_, '_>) -> CaptureSettings {
    let waits = "lockd waits in its only thread, and with it every client; shorter than a disk's sync, and none is in time";
    let usual = CaptureSettings::default();
    let mode = CaptureMode::ALL.all().map(|mode| (mode.as_str(), mode));
    let when_unprotected = [("refuse", WhenUnprotected::Refuse), ("grant", WhenUnprotected::Grant)];
    let time = |key, bounds: &RangeInclusive<Duration>, why, example, usual| {
        section.duration(key, bounds, why, example).unwrap_or(usual)
    };
    let settings = CaptureSettings {
        mode: section.word("mode", &mode).unwrap_or(usual.mode),
        scan_interval: time(
            "scan-interval",
            &bounds::SCAN_INTERVAL,
            "each look reads all records, and the next one finds a change whose hint was lost",
            "10s",
            usual.scan_interval,
        ),
        tombstone_delay: time(
            "tombstone-delay",
            &bounds::TOMBSTONE_DELAY,
            "the lock manager must have been seen before the deletion and after; until then the client is told of every adoption",
            "120s",
            usual.tombstone_delay,
        ),
        forget_after: time(
            "forget-after",
            &bounds::FORGET_AFTER,
            "a client that was cut off for one grace period must not be forgotten in it",
            "7d",
            usual.forget_after,
        ),
        mon_timeout: time("mon-timeout", &bounds::MON_TIMEOUT, waits, "500ms", usual.mon_timeout),
        when_unprotected: section
            .word("when-unprotected", &when_unprotected)
            .unwrap_or(usual.when_unprotected),
        port: section.port("port", 0).unwrap_or(usual.port),
        callout_timeout: time(
            "callout-timeout",
            &bounds::CALLOUT_TIMEOUT,
            waits,
            "1s",
            usual.callout_timeout,
        ),
    };
    section.finish();
    settings
}

fn control(section: Section<'_, '_>) -> ControlSettings {
    let is_wrong = |group: &str| {
        let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == ':';
        group.is_empty() || group.len() > crate::limits::GROUP_NAME_BYTES_MAX || group.chars().any(is_odd)
    };
    let read_group = section.string("read-group").and_then(|group| {
        if is_wrong(&group.value) {
            let what = format!(
                "expected the name or the number of a group, found {:?}; for example: read-group = \"monitoring\"",
                group.value
            );
            section.wrong_at(Some(group.at), "read-group", what);
            return None;
        }
        Some(group.value)
    });
    section.finish();
    ControlSettings { read_group }
}

fn notify(section: Section<'_, '_>) -> NotifySettings {
    let settings = NotifySettings {
        rpcbind_port: section.port("rpcbind-port", 1).unwrap_or(heirlock_nsm::rpcbind::PORT),
        privileged_port: section.boolean("privileged-port").unwrap_or(false),
    };
    section.finish();
    settings
}

fn heartbeat(section: Section<'_, '_>, fence: Option<&Command>) -> HeartbeatSettings {
    let beats = "each beat is written to the store, and every server reads it";
    let interval = section.duration("interval", &bounds::HEARTBEAT_INTERVAL, beats, "1s");
    let interval = interval.unwrap_or(Duration::from_secs(1));
    let still =
        "a heart that misses three beats counts as still; a longer silence leaves clients without service";
    let least = limits::DEAD_AFTER_MIN.max(interval * 3);
    let dead_after = section.duration("dead-after", &(least..=bounds::DEAD_AFTER_MAX), still, "10s");
    if dead_after.is_none() && !section.has("dead-after") && least > DEAD_AFTER {
        let what = format!(
            "expected at least three beats (heartbeat.interval), found its default of 10s; for example: dead-after = \"{}\"",
            Spelled(least)
        );
        section.wrong("dead-after", what);
    }
    let turns =
        "a candidate that has no time to fence the owner is followed by the next one, and both fence it";
    let candidate_time =
        section.duration("candidate-time", &(least..=bounds::CANDIDATE_TIME_MAX), turns, "60s");
    section.finish();
    let dead_after = dead_after.unwrap_or(DEAD_AFTER);
    // Each candidate finds the silence with a beat of its own, fences the owner, and claims.
    let usual = || dead_after * 2 + fence.map_or(Duration::ZERO, |fence| fence.time_limit);
    HeartbeatSettings { interval, dead_after, candidate_time: candidate_time.unwrap_or_else(usual) }
}

/// Who decides that a server is dead.
const MODES: [(&str, Mode); 2] = [("manual", Mode::Manual), ("automatic", Mode::Automatic)];

/// Unless told otherwise.
const DEAD_AFTER: Duration = Duration::from_secs(10);

fn lock_manager(section: Section<'_, '_>) -> LockManagerSettings {
    let kinds = LockManagerKind::ALL;
    let kind = section.word("type", &kinds.map(|kind| (kind.as_str(), kind))).unwrap_or(kinds[0]);
    let properties = kind.properties();
    let grace = "no lock manager keeps its clients waiting for longer, and none gets them all back sooner";
    let settings = LockManagerSettings {
        kind,
        strategy: strategy(&section, properties),
        convey: section.parsed("convey", "generate").unwrap_or(Conveyance::Generate),
        settle_margin: section
            .duration(
                "settle-margin",
                &bounds::SETTLE_MARGIN,
                "it is a part of the grace period, which is looked at that often",
                "5s",
            )
            .unwrap_or(Duration::from_secs(5)),
        prepared_time: section
            .duration(
                "prepared-time",
                &bounds::PREPARED_TIME,
                "a cluster manager brings the address up in it, and grace ends after that",
                "30s",
            )
            .unwrap_or(Duration::from_secs(30)),
        restart_nfs: section.command("restart-nfs"),
        restart_status_monitor: section.command("restart-status-monitor"),
        recognise: section.command("recognise"),
        incarnation: section.command("incarnation"),
        grace_period: section.duration("grace-period", &bounds::GRACE_PERIOD, grace, "90s"),
    };
    if properties.is_known_by_commands {
        section.missing(
            "incarnation",
            "type \"command\" needs a command that prints a line which changes with every restart of the lock manager; for example: incarnation = [\"/usr/local/sbin/incarnation\"]",
        );
        section.missing(
            "grace-period",
            "type \"command\" needs it, since nothing else tells how long grace lasts; for example: grace-period = \"90s\"",
        );
    }
    section.finish();
    settings
}

/// A strategy that the lock manager knows.
fn strategy(section: &Section<'_, '_>, properties: &LockManagerProperties) -> Strategy {
    let LockManagerProperties { strategies, default_strategy, name, .. } = properties;
    let said = section.parsed("strategy", default_strategy.as_str()).unwrap_or(*default_strategy);
    if !strategies.contains(&said) {
        let known: Vec<&str> = strategies.iter().map(|strategy| strategy.as_str()).collect();
        let known = known.join(", ");
        section.wrong("strategy", format!("expected one that type {name:?} knows ({known}), found {said}"));
    }
    said
}

fn host(section: Section<'_, '_>, server: Option<&ServerName>) -> Option<HostSettings> {
    let mut names: Vec<MyName> = values(names(&section, "names", "nfs-a.example.com"));
    let addresses = values(addresses(&section));
    if names.is_empty() {
        let own = server?.as_str().parse();
        let own = own.map_err(|error| {
            let example = "for example: names = [\"nfs-a\"]";
            section.wrong("names", format!("this server's own name can't be announced: {error}; {example}"));
        });
        names.push(own.ok()?);
    }
    section.finish();
    Some(HostSettings { addresses, names })
}

fn hooks(section: Section<'_, '_>) -> HookSettings {
    let hooks = HookSettings {
        fence: section.command("fence"),
        fence_check: section.command("fence-check"),
        volume_up: section.command("volume-up"),
        address_up: section.command("address-up"),
        address_down: section.command("address-down"),
        volume_down: section.command("volume-down"),
        alert: section.command("alert"),
    };
    check_fence_check(&section, &hooks);
    section.finish();
    hooks
}

/// A drill may never fence.
fn check_fence_check(section: &Section<'_, '_>, hooks: &HookSettings) {
    let Some(check) = &hooks.fence_check else { return };
    if hooks.fence.as_ref().is_some_and(|fence| fence.argv == check.argv) {
        section.wrong("fence-check", "expected another command than hooks.fence, found the same: each drill would turn a server off; for example: fence-check = [\"/usr/local/sbin/fence-server\", \"--status\"]");
    } else if hooks.fence.is_none() {
        section.wrong("fence-check", "expected hooks.fence beside it, which it checks, found none");
    }
}

fn services(file: &Section<'_, '_>, shared: bool, fenced: bool) -> Vec<ServiceSettings> {
    let sections = file.sections("service");
    if sections.len() > limits::SERVICES_MAX {
        let what = format!("expected at most {} services, found {}", limits::SERVICES_MAX, sections.len());
        file.wrong("service", what);
    }
    let mut services: Vec<ServiceSettings> = Vec::new();
    for section in sections.into_iter().take(limits::SERVICES_MAX) {
        services.extend(service(section, &services, shared, fenced));
    }
    services
}

fn service(
    mut section: Section<'_, '_>,
    others: &[ServiceSettings],
    shared: bool,
    fenced: bool,
) -> Option<ServiceSettings> {
    let name: Option<ServiceName> = section.parsed("name", "nfs");
    section.missing("name", "it is missing; for example: name = \"nfs\"");
    if let Some(name) = &name {
        section.call(format!("service {name}: "));
        let same = |other: &&ServiceSettings| other.name.as_str().eq_ignore_ascii_case(name.as_str());
        match others.iter().find(same) {
            Some(other) if other.name == *name => section.wrong(
                "name",
                "there are two of this name; give each a name of its own, for example: name = \"home\"",
            ),
            // Each is a folder of the store, which may lie where "nfs" and "NFS" are one.
            Some(other) => section.wrong(
                "name",
                format!(
                    "it differs from that of service {} in its case alone; give each a name of its own, for example: name = \"home\"",
                    other.name
                ),
            ),
            None => {}
        }
    }
    let addresses = addresses(&section);
    let why = "expected at least one, for clients are told from the address they mount; for example: addresses = [\"192.0.2.10\"]";
    section.missing("addresses", why);
    if section.is_empty_list("addresses") {
        section.wrong("addresses", why);
    }
    for Located { value, at } in &addresses {
        if let Some(other) = others.iter().find(|other| other.addresses.contains(value)) {
            let what = format!(
                "{value} belongs to another service too, to {}: an address moves with one service; for example: addresses = [\"192.0.2.11\"]",
                other.name
            );
            section.wrong_at(Some(*at), "addresses", what);
        }
    }
    let names = names(&section, "names", "nfs.example.com");
    if names.len() * 2 + addresses.len() > limits::ANNOUNCED_NAMES_MAX {
        let what = format!(
            "names in full and short form and addresses are more than {}; take some out",
            limits::ANNOUNCED_NAMES_MAX
        );
        section.wrong("names", what);
    }
    let exports = section.list("exports", "/srv/nfs", from_the_root, |a, b| a == b);
    let home = section.parsed("home", "nfs-a");
    let mode = section.word("mode", &MODES).unwrap_or(Mode::Manual);
    if mode.adopts_unasked() {
        check_automatic(&section, shared, fenced);
    }
    let candidates = candidates(&section, mode);
    section.finish();
    Some(ServiceSettings {
        name: name?,
        addresses: values(addresses),
        names: values(names),
        exports: values(exports),
        home,
        mode,
        candidates,
        instance: InstanceNumber::FIRST,
    })
}

/// Servers in the order of preference. A list within the list has equally preferred ones.
fn candidates(section: &Section<'_, '_>, mode: Mode) -> Option<Candidates> {
    let key = "candidates";
    let example = "for example: candidates = [\"nfs-b\", \"nfs-c\"] in that order, or candidates = [[\"nfs-b\", \"nfs-c\"], \"nfs-d\"] where nfs-b and nfs-c share";
    let parse = |text: &str| text.parse().map_err(|error| format!("{error}; {example}"));
    let groups: Vec<Vec<ServerName>> = section.groups(key, parse, example)?;
    if !mode.adopts_unasked() && section.has_word("mode", &MODES) {
        section.wrong(
            key,
            "they are followed only where the agents decide; say mode = \"automatic\", or take them out",
        );
    }
    Candidates::new(groups).map_err(|error| section.wrong(key, format!("{error}; {example}"))).ok()
}

fn check_automatic(section: &Section<'_, '_>, shared: bool, fenced: bool) {
    if !shared {
        section.wrong("mode", "\"automatic\" needs a store that all servers see at the same time; if this one is, say store.shared = true, else mode = \"manual\"");
    }
    if !fenced {
        section.wrong("mode", "\"automatic\" needs hooks.fence: without its word that a silent server is off, two would serve the same files; for example: fence = [\"/usr/local/sbin/fence-server\"]");
    }
}

fn values<T>(located: Vec<Located<T>>) -> Vec<T> {
    located.into_iter().map(|located| located.value).collect()
}

fn names(section: &Section<'_, '_>, key: &'static str, example: &str) -> Vec<Located<MyName>> {
    let parse = |text: &str| text.parse().map_err(|error| format!("{error}"));
    section.list(key, example, parse, |a: &MyName, b: &MyName| a.as_str().eq_ignore_ascii_case(b.as_str()))
}

/// An IPv4 address in IPv6's clothes is that IPv4 address.
fn addresses(section: &Section<'_, '_>) -> Vec<Located<IpAddr>> {
    section.list("addresses", "192.0.2.10", address, |a, b| a == b)
}

fn address(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let hint = match text.split_once(['/', '%']) {
            Some((address, rest)) if address.parse::<IpAddr>().is_ok() => {
                format!(" without {:?}", &text[text.len() - rest.len() - 1..])
            }
            _ => String::new(),
        };
        return Err(format!("expected an IP address{hint}, found {text:?}"));
    };
    let address = address.to_canonical();
    let is_reserved = match address {
        // Below 240 are clients and servers; above is reserved, and its last one means all hosts on the link (RFC 1112, RFC
        // 919).
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if is_reserved || address.is_multicast() {
        return Err(format!("expected the address of one server, found {text:?}, which no server can have"));
    }
    Ok(address)
}

fn absolute(section: &Section<'_, '_>, key: &'static str, example: &str) -> Option<PathBuf> {
    let Located { value, at } = section.string(key)?;
    from_the_root(&value)
        .map_err(|why| section.wrong_at(Some(at), key, format!("{why}; for example: {key} = {example:?}")))
        .ok()
}

fn from_the_root(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(format!("expected a path from the root, found {text:?}"));
    }
    // Where ".." leads depends on links, and so would whether two paths are the same.
    let leads_back = path.components().any(|part| part == Component::ParentDir);
    match text.chars().find(|c| c.is_control()) {
        Some(found) => {
            Err(format!("expected a path without control characters, found {text:?} with {found:?}"))
        }
        None if leads_back => Err(format!("expected a path without \"..\", found {text:?}")),
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests;
