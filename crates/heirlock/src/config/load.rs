//! From the file's words to [`Settings`]: every value is checked here, and an error names the file, the place, what was
//! expected and found, and what to do.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use heirlock_core::monitor::WhenUnprotected;
use heirlock_core::takeover::{Conveyance, Strategy};
use heirlock_core::{ServerName, ServiceName, limits};
use heirlock_nsm::MyName;
use thiserror::Error;

use super::file::{CaptureSection, CommandEntry, ConfigFile, LockManagerSection, ServiceSection, suggestion};
use super::{
    CaptureMode, CaptureSettings, Command, HeartbeatSettings, HookSettings, HostSettings, LockManagerKind,
    LockManagerSettings, Mode, NotifySettings, ServiceSettings, Settings, StoreSettings,
};
use crate::limits as bounds;

/// Bytes of the largest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How long a command may take, unless told otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Why a configuration can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error(
        "can't read the configuration {path}: {source}; name it with --config, or begin with the sample heirlock.toml"
    )]
    Unreadable {
        /// which
        path: PathBuf,
        /// why
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or holds a key that doesn't exist.
    #[error("{path}, line {line}: {what}{hint}")]
    Text {
        /// which file
        path: PathBuf,
        /// where, from 1
        line: usize,
        /// what is wrong
        what: String,
        /// what to do
        hint: String,
    },
    /// A value can't be.
    #[error("{path}: {key}: {what}")]
    Value {
        /// which file
        path: PathBuf,
        /// which key
        key: String,
        /// what was expected and found, and what to do
        what: String,
    },
}

impl Settings {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Where it can't be read, or anything in it can't be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other(format!("{length} bytes are no configuration"))));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// Checks the text of a configuration; `path` is for its errors.
    ///
    /// # Errors
    /// Where anything in it can't be.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| in_text(path, text, &error))?;
        convert(&file).map_err(|Wrong { key, what }| ConfigError::Value { path: path.to_owned(), key, what })
    }
}

/// A key and what is wrong with it.
struct Wrong {
    key: String,
    what: String,
}

fn wrong(key: impl Display, what: impl Display) -> Wrong {
    Wrong { key: key.to_string(), what: what.to_string() }
}

fn in_text(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let line = 1 + text.get(..start).map_or(0, |before| before.matches('\n').count());
    let unknown = error.message().strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let (what, hint) = match unknown {
        Some(key) => (
            format!("there is no key {key:?} here"),
            suggestion(key).map(|known| format!("; did you mean {known:?}?")).unwrap_or_default(),
        ),
        None => (error.message().replace('\n', " "), String::new()),
    };
    ConfigError::Text { path: path.to_owned(), line, what, hint }
}

fn convert(file: &ConfigFile) -> Result<Settings, Wrong> {
    let server = match &file.server {
        Some(name) => parse("server", name)?,
        None => node_name()?,
    };
    let folder =
        |key, given: &Option<String>, default: &str| absolute(key, given.as_deref().unwrap_or(default));
    let store = file.store.as_ref().ok_or_else(|| {
        wrong("store", "the section is missing: say where records are kept, e.g. path = \"/srv/heirlock\"")
    })?;
    one_of(
        "store.type",
        store.kind.as_deref(),
        "dir",
        &[("etcd", "the etcd store is not part of this version")],
    )?;
    let settings = Settings {
        host: host(file, &server)?,
        server,
        state_directory: folder("state-directory", &file.state_directory, "/var/lib/nfs")?,
        runtime_directory: folder("runtime-directory", &file.runtime_directory, "/run/heirlock")?,
        local_directory: folder("local-directory", &file.local_directory, "/var/lib/heirlock")?,
        store: StoreSettings {
            path: absolute("store.path", &store.path)?,
            shared: store.shared.unwrap_or(false),
        },
        capture: capture(&file.capture)?,
        lock_manager: lock_manager(&file.lock_manager)?,
        notify: NotifySettings {
            rpcbind_port: file.notify.rpcbind_port.unwrap_or(heirlock_nsm::rpcbind::PORT),
            privileged_port: file.notify.privileged_port.unwrap_or(false),
        },
        heartbeat: heartbeat(file)?,
        hooks: hooks(file)?,
        services: file.service.iter().map(service).collect::<Result<_, _>>()?,
    };
    check_together(&settings)?;
    Ok(settings)
}

fn capture(section: &CaptureSection) -> Result<CaptureSettings, Wrong> {
    let mode = match section.mode.as_deref() {
        None | Some("watch") => CaptureMode::Watch,
        Some("callout") => CaptureMode::Callout,
        Some("nsm") => CaptureMode::Nsm,
        Some(found) => {
            return Err(wrong("capture.mode", format!("expected watch, callout or nsm, found {found:?}")));
        }
    };
    let when_unprotected = match section.when_unprotected.as_deref() {
        None | Some("refuse") => WhenUnprotected::Refuse,
        Some("grant") => WhenUnprotected::Grant,
        Some(found) => {
            return Err(wrong(
                "capture.when-unprotected",
                format!("expected refuse or grant, found {found:?}"),
            ));
        }
    };
    let settings = CaptureSettings {
        mode,
        scan_interval: duration("capture.scan-interval", section.scan_interval.as_ref(), "10s")?,
        tombstone_delay: duration("capture.tombstone-delay", section.tombstone_delay.as_ref(), "120s")?,
        forget_after: duration("capture.forget-after", section.forget_after.as_ref(), "7d")?,
        mon_timeout: duration("capture.mon-timeout", section.mon_timeout.as_ref(), "500ms")?,
        when_unprotected,
        port: section.port.unwrap_or(0),
        callout_timeout: duration("capture.callout-timeout", section.callout_timeout.as_ref(), "1s")?,
    };
    for (key, found, max) in [
        ("capture.mon-timeout", settings.mon_timeout, bounds::MON_TIMEOUT_MAX),
        ("capture.callout-timeout", settings.callout_timeout, bounds::CALLOUT_TIMEOUT_MAX),
    ] {
        if found > max {
            let what = format!(
                "expected at most {} ms, found {} ms: lockd waits in its only thread, and with it every client",
                max.as_millis(),
                found.as_millis()
            );
            return Err(wrong(key, what));
        }
    }
    Ok(settings)
}

/// As it is where the file says nothing.
pub(super) fn untouched_capture() -> Option<CaptureSettings> {
    capture(&CaptureSection::default()).ok()
}

fn heartbeat(file: &ConfigFile) -> Result<HeartbeatSettings, Wrong> {
    let interval = duration("heartbeat.interval", file.heartbeat.interval.as_ref(), "1s")?;
    let dead_after = duration("heartbeat.dead-after", file.heartbeat.dead_after.as_ref(), "10s")?;
    let least = limits::DEAD_AFTER_MIN.max(interval * 3);
    if dead_after < least {
        let what = format!(
            "expected at least {} s, three beats, found {} s",
            least.as_secs_f32(),
            dead_after.as_secs_f32()
        );
        return Err(wrong("heartbeat.dead-after", what));
    }
    Ok(HeartbeatSettings { interval, dead_after })
}

fn lock_manager(section: &LockManagerSection) -> Result<LockManagerSettings, Wrong> {
    let kind = match section.kind.as_deref() {
        None | Some("kernel") => LockManagerKind::Kernel,
        Some("command") => LockManagerKind::Command,
        Some(found) => {
            return Err(wrong("lock-manager.type", format!("expected kernel or command, found {found:?}")));
        }
    };
    let strategy: Strategy = word("lock-manager.strategy", section.strategy.as_ref(), Strategy::RestartNfs)?;
    let grace_period = match &section.grace_period {
        Some(_) => Some(duration("lock-manager.grace-period", section.grace_period.as_ref(), "")?),
        None => None,
    };
    let settings = LockManagerSettings {
        kind,
        strategy,
        convey: word("lock-manager.convey", section.convey.as_ref(), Conveyance::Generate)?,
        settle_margin: duration("lock-manager.settle-margin", section.settle_margin.as_ref(), "5s")?,
        restart_nfs: command("lock-manager.restart-nfs", section.restart_nfs.as_ref())?,
        restart_status_monitor: command(
            "lock-manager.restart-status-monitor",
            section.restart_status_monitor.as_ref(),
        )?,
        recognise: command("lock-manager.recognise", section.recognise.as_ref())?,
        incarnation: command("lock-manager.incarnation", section.incarnation.as_ref())?,
        grace_period,
    };
    if kind == LockManagerKind::Command && settings.incarnation.is_none() {
        let what = "type \"command\" needs a command that prints a line which changes with every restart of the lock manager";
        return Err(wrong("lock-manager.incarnation", what));
    }
    if kind == LockManagerKind::Command && settings.grace_period.is_none() {
        return Err(wrong(
            "lock-manager.grace-period",
            "type \"command\" needs it: nothing else tells how long grace lasts",
        ));
    }
    Ok(settings)
}

fn host(file: &ConfigFile, server: &ServerName) -> Result<HostSettings, Wrong> {
    let mut names = names("host.names", &file.host.names)?;
    if names.is_empty() {
        names.push(parse("host.names", server.as_str())?);
    }
    Ok(HostSettings { addresses: addresses("host.addresses", &file.host.addresses)?, names })
}

fn hooks(file: &ConfigFile) -> Result<HookSettings, Wrong> {
    let mut hooks = HookSettings::default();
    for (name, entry) in &file.hooks {
        let key = format!("hooks.{name}");
        let given = command(&key, Some(entry))?;
        match name.as_str() {
            "fence" => hooks.fence = given,
            "volume-up" => hooks.volume_up = given,
            "address-up" => hooks.address_up = given,
            "address-down" => hooks.address_down = given,
            "volume-down" => hooks.volume_down = given,
            _ => {
                let hint =
                    suggestion(name).map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
                return Err(wrong(key, format!("there is no such hook{hint}")));
            }
        }
    }
    Ok(hooks)
}

fn service(section: &ServiceSection) -> Result<ServiceSettings, Wrong> {
    let name: ServiceName = parse("service.name", &section.name)?;
    let key = |what: &str| format!("service {name}: {what}");
    let mode = match section.mode.as_deref() {
        None | Some("manual") => Mode::Manual,
        Some("automatic") => Mode::Automatic,
        Some(found) => {
            return Err(wrong(key("mode"), format!("expected manual or automatic, found {found:?}")));
        }
    };
    let addresses = addresses(&key("addresses"), &section.addresses)?;
    if addresses.is_empty() {
        return Err(wrong(
            key("addresses"),
            "expected at least one: clients are told from the address they mount",
        ));
    }
    Ok(ServiceSettings {
        addresses,
        names: names(&key("names"), &section.names)?,
        exports: section
            .exports
            .iter()
            .map(|path| absolute(&key("exports"), path))
            .collect::<Result<_, _>>()?,
        home: section.home.as_ref().map(|home| parse(&key("home"), home)).transpose()?,
        mode,
        name,
    })
}

/// What no single key can say.
fn check_together(settings: &Settings) -> Result<(), Wrong> {
    let (mut service_names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    if settings.services.len() > limits::SERVICES_MAX {
        return Err(wrong("service", format!("expected at most {}", limits::SERVICES_MAX)));
    }
    for service in &settings.services {
        let name = &service.name;
        if !service_names.insert(name.clone()) {
            return Err(wrong(format!("service {name}"), "there are two of this name"));
        }
        for address in service.addresses.iter().chain(&settings.host.addresses) {
            if address.is_multicast() || address.is_unspecified() {
                return Err(wrong(
                    format!("service {name}: addresses"),
                    format!("{address} is nobody's address"),
                ));
            }
        }
        for address in &service.addresses {
            if !taken.insert(*address) {
                return Err(wrong(
                    format!("service {name}: addresses"),
                    format!("{address} belongs to another service too"),
                ));
            }
        }
        if service.names.len() * 2 + service.addresses.len() > limits::ANNOUNCED_NAMES_MAX {
            let what = format!(
                "names in full and short form and addresses are more than {}",
                limits::ANNOUNCED_NAMES_MAX
            );
            return Err(wrong(format!("service {name}: names"), what));
        }
        if service.mode == Mode::Automatic {
            check_automatic(settings, name)?;
        }
    }
    Ok(())
}

fn check_automatic(settings: &Settings, name: &ServiceName) -> Result<(), Wrong> {
    let key = format!("service {name}: mode");
    if !settings.store.shared {
        let what = "\"automatic\" needs a store that all servers see at the same time; if this one is, say store.shared = true";
        return Err(wrong(key, what));
    }
    if settings.hooks.fence.is_none() {
        let what = "\"automatic\" needs hooks.fence: without its word that a silent server is off, two would serve the same files";
        return Err(wrong(key, what));
    }
    Ok(())
}

fn one_of(key: &str, found: Option<&str>, known: &str, refused: &[(&str, &str)]) -> Result<(), Wrong> {
    let Some(found) = found.filter(|found| *found != known) else { return Ok(()) };
    match refused.iter().find(|(word, _)| *word == found) {
        Some((word, why)) => Err(wrong(key, format!("{word:?}: {why}"))),
        None => Err(wrong(key, format!("expected {known:?}, found {found:?}"))),
    }
}

fn parse<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T, Wrong> {
    text.parse().map_err(|error| wrong(key, error))
}

fn word<T: FromStr<Err: Display>>(key: &str, text: Option<&String>, default: T) -> Result<T, Wrong> {
    text.map_or(Ok(default), |text| parse(key, text))
}

fn names(key: &str, texts: &[String]) -> Result<Vec<MyName>, Wrong> {
    texts.iter().map(|text| parse(key, text)).collect()
}

fn addresses(key: &str, texts: &[String]) -> Result<Vec<IpAddr>, Wrong> {
    let one = |text: &String| {
        text.parse().map_err(|_| wrong(key, format!("expected an IP address, found {text:?}")))
    };
    texts.iter().map(one).collect()
}

fn absolute(key: &str, text: &str) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(wrong(key, format!("expected a path from the root, found {text:?}")))
    }
}

fn command(key: &str, entry: Option<&CommandEntry>) -> Result<Option<Command>, Wrong> {
    let Some(entry) = entry else { return Ok(None) };
    let (argv, time_limit) = match entry {
        CommandEntry::Argv(argv) => (argv, TIME_LIMIT),
        CommandEntry::Table(table) => (
            &table.command,
            match &table.time_limit {
                Some(_) => duration(&format!("{key}.time-limit"), table.time_limit.as_ref(), "")?,
                None => TIME_LIMIT,
            },
        ),
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(wrong(key, "expected a program and its arguments, found nothing"));
    }
    Ok(Some(Command { argv: argv.clone(), time_limit }))
}

/// One number and one unit.
fn duration(key: &str, text: Option<&String>, default: &str) -> Result<Duration, Wrong> {
    let text = text.map_or(default, String::as_str);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit_ms = match text.get(digits..) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 86_400_000,
        _ => 0,
    };
    let number: Option<u64> = text.get(..digits).and_then(|digits| digits.parse().ok());
    match number.and_then(|number| number.checked_mul(unit_ms)).filter(|ms| *ms > 0) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(wrong(
            key,
            format!("expected a duration such as \"120s\", \"500ms\" or \"7d\", found {text:?}"),
        )),
    }
}

fn node_name() -> Result<ServerName, Wrong> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.parse()
        .map_err(|error| wrong("server", format!("the node name {name:?} can't serve: {error}; set it")))
}

#[cfg(test)]
mod tests;
