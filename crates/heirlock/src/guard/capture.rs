//! What may be wrong with how records are noticed (`capture.mode`): whether the status monitor of this host is the one that
//! the mode means, and whether it does what the mode promises.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm;

use super::finding::Finding;
use super::host::{Host, Unit};
use super::nfs_conf::NfsConf;
use super::statd;
use crate::config::{CaptureMode, LockManagerKind, Settings};
use crate::files::trusted;
use crate::monitor::Trust;
use crate::{callout, limits, rpc_client};

const STATUS_MONITOR: (u32, u32) = (sm::PROGRAM, sm::VERSION);

/// The first port that any user may have (ip(7)), and the last one that lockd asks from (net/sunrpc/xprtsock.c).
const UNPRIVILEGED_FROM: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const LOCKD_PORTS_TO: &str = "/proc/sys/sunrpc/max_resvport";

/// What the configuration promises, and what in it contradicts that.
pub(super) fn configured(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![promise(settings)];
    let mode = settings.capture.mode.as_str();
    findings.extend(settings.capture.idle_keys().into_iter().map(|(key, meant)| {
        Finding::warning(
            "capture",
            format!("capture.{key} is set, and capture.mode = {mode:?} takes no notice of it"),
            format!("set capture.mode = {:?}, or take the key out", meant.as_str()),
        )
    }));
    let is_status_monitor = settings.capture.mode.properties().is_status_monitor;
    if is_status_monitor && settings.lock_manager.restart_status_monitor.is_some() {
        findings.push(Finding::loses_locks(
            "capture",
            "lock-manager.restart-status-monitor is set, but heirlock is the status monitor: the command would put another one in its place at an adoption",
            "take it out",
        ));
    }
    findings
}

fn promise(settings: &Settings) -> Finding {
    let check = "capture";
    let promise = settings.capture.promise();
    if promise.is_whole { Finding::ok(check, promise.words) } else { Finding::note(check, promise.words) }
}

/// What the live host says of it.
pub(super) fn live(host: &Host, settings: &Settings) -> Vec<Finding> {
    match settings.capture.mode {
        CaptureMode::Watch => [left_over(host), as_started(host, settings)].concat(),
        CaptureMode::Callout => callout(host, settings),
        CaptureMode::Nsm => nsm(host, settings),
    }
}

/// What the rpc.statd that runs was started with, whatever the files say.
fn as_started(host: &Host, settings: &Settings) -> Vec<Finding> {
    // Another lock manager has a status monitor of its own.
    let kernel = settings.lock_manager.kind == LockManagerKind::Kernel;
    let Some(running) = statd::running(host, settings).filter(|_| kernel) else { return Vec::new() };
    let check = "state-directory";
    let (pid, mut findings) = (running.pid, Vec::new());
    let ours = &settings.state_directory;
    if let Some(directory) = running.directory.filter(|directory| !host.is_same(directory, ours)) {
        findings.push(Finding::loses_locks(
            check,
            format!(
                "rpc.statd (process {pid}) keeps its records in {}, and heirlock looks in {}: no client is ever noticed",
                directory.display(),
                ours.display()
            ),
            format!("set state-directory = {:?}", directory.display().to_string()),
        ));
    } else if let Some(owner) =
        statd::user(host, settings).filter(|owner| ![0, *owner].contains(&running.user))
    {
        let sm = ours.join("sm");
        findings.push(Finding::loses_locks(
            check,
            format!(
                "{} belongs to user {owner}, and rpc.statd (process {pid}) runs as user {}: neither can read what the other writes there",
                sm.display(),
                running.user
            ),
            format!("chown -R {} {}, or restart rpc.statd, which runs as the owner", running.user, sm.display()),
        ));
    }
    if let Some(name) = running.name {
        findings.push(Finding::warning(
            "status-monitor-address",
            format!(
                "rpc.statd (process {pid}) was started with -n {} and listens there alone: a client that mounted by another address and was restarted is not heard, and its locks stay",
                name.escape_debug()
            ),
            "start it without -n",
        ));
    }
    findings
}

/// rpc.statd must be what answers; what kept it away in another mode must be gone.
fn left_over(host: &Host) -> Vec<Finding> {
    let masked = match host.unit(statd::UNIT) {
        Unit::Masked(at) if host.systemctl.is_some() => at,
        _ => return Vec::new(),
    };
    vec![Finding::loses_locks(
        "rpc-statd",
        format!(
            "{} masks {}, so nothing is the status monitor here after a boot",
            masked.display(),
            statd::UNIT
        ),
        format!(
            "run 'heirlock enable', or systemctl unmask {} if it was not heirlock that masked it",
            statd::UNIT
        ),
    )]
}

fn callout(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = left_over(host);
    findings.extend(as_started(host, settings));
    findings.push(configured_callout(host, settings));
    findings.extend(behind(host, settings));
    findings.push(reachable(host, settings));
    findings
}

/// Where a callout does nothing, records are noticed as in mode `watch`.
const AS_WATCH: &str = "clients are on record some milliseconds late, as by capture.mode = \"watch\"";

fn configured_callout(host: &Host, settings: &Settings) -> Finding {
    let check = "ha-callout";
    let Some(value) = statd::named_callout(host, settings) else {
        let found =
            format!("[statd] ha-callout is not set in nfs.conf, so rpc.statd tells nobody: {AS_WATCH}");
        return Finding::warning(check, found, "run 'heirlock enable'");
    };
    let (named, file) = (PathBuf::from(&value.text), value.file.display());
    if !statd::is_our_callout(host, &value.text)
        && named.file_name().is_none_or(|name| name != callout::PROGRAM)
    {
        let found = format!(
            "{file} says ha-callout={}, which is not heirlock's: {AS_WATCH}",
            value.text.escape_debug()
        );
        return Finding::warning(check, found, format!("take it out of {file}, then run 'heirlock enable'"));
    }
    // What a link names is what is run.
    let program = trusted::read_link(host.at(&named)).unwrap_or_else(|_| named.clone());
    match statd::may_run(host, settings, &named).and_then(|()| statd::may_run(host, settings, &program)) {
        Ok(()) => Finding::ok(check, format!("{file} names {}, and rpc.statd may run it", named.display())),
        Err(why) => Finding::warning(
            check,
            format!("{why}: {AS_WATCH}"),
            "install heirlock where everybody may run it (/usr/local/bin), then run 'heirlock enable' from there",
        ),
    }
}

/// rpc.statd reads nfs.conf at its start, and never again.
fn behind(host: &Host, settings: &Settings) -> Option<Finding> {
    let running = statd::running(host, settings).filter(|running| running.callout.is_none())?;
    let pid = running.pid;
    let started = statd::started_at(host, pid)?;
    let value = NfsConf::read(host).get("statd", statd::HA_CALLOUT)?;
    let written = trusted::stat(host.at(&value.file)).ok()?.mtime();
    (written > started).then(|| {
        Finding::warning(
            "ha-callout",
            format!(
                "{} is younger than rpc.statd (process {pid}), which has read it at its start: {AS_WATCH}",
                value.file.display()
            ),
            format!("systemctl restart {}", statd::UNIT),
        )
    })
}

/// The socket, as rpc.statd's user sees it.
fn reachable(host: &Host, settings: &Settings) -> Finding {
    let check = "callout-socket";
    let socket = settings.runtime_directory.join(callout::SOCKET);
    let shown = socket.display();
    if let Err(error) = UnixStream::connect(host.at(&socket)) {
        let found = format!(
            "no agent listens at {shown} ({error}): locks are granted before their clients are on record"
        );
        return Finding::warning(check, found, "start the agent (systemctl start heirlock)");
    }
    match statd::may_pass(host, settings, &settings.runtime_directory) {
        Ok(()) => {
            Finding::ok(check, format!("the agent listens at {shown}, and rpc.statd's user gets there"))
        }
        Err(why) => Finding::warning(
            check,
            format!("rpc.statd's user doesn't get to {shown}: {why}; {AS_WATCH}"),
            "let others pass through the folder (chmod o+x)",
        ),
    }
}

fn nsm(host: &Host, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(statd::Running { pid, in_container, .. }) = statd::running(host, settings) {
        let remedy = match in_container {
            true => "it is a container's, on this host's network: end it with that one's own tools".into(),
            false => format!(
                "run 'heirlock enable', which stops and masks {}; one that systemd didn't start: kill {pid}",
                statd::UNIT
            ),
        };
        findings.push(Finding::loses_locks(
            "rpc-statd",
            format!("rpc.statd runs as process {pid} beside heirlock: of two status monitors each knows half of the clients"),
            remedy,
        ));
    }
    if let (Unit::Present(at), Some(_)) = (host.unit(statd::UNIT), &host.systemctl) {
        findings.push(Finding::loses_locks(
            "rpc-statd",
            format!("{} is not masked, and nfs-server starts it in heirlock's place", at.display()),
            "run 'heirlock enable'",
        ));
    }
    findings.push(own_socket(host, settings));
    findings.extend(over_v6(host, settings));
    findings.extend(who_speaks(host));
    if findings.iter().all(|finding| finding.check != "rpc-statd") {
        let masked = if host.systemctl.is_some() { ", and systemd doesn't start it" } else { "" };
        findings.push(Finding::ok("rpc-statd", format!("rpc.statd doesn't run beside heirlock{masked}")));
    }
    findings
}

/// Whose socket is it that rpcbind sends lockd to, and does it outlive the agent?
fn own_socket(host: &Host, settings: &Settings) -> Finding {
    let check = "status-monitor-socket";
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = settings.notify.rpcbind_port;
    // That none is registered, or that rpcbind is away, is said by another check.
    let Ok(Some(port)) =
        rpc_client::find_over(here, port, STATUS_MONITOR, Transport::Tcp, limits::PROBE_TIME_MAX)
    else {
        return Finding::note(check, "nobody is registered as status monitor over TCP, as lockd asks for it");
    };
    let holders = statd::holders(host, port);
    let names: BTreeSet<&str> = holders.iter().map(|(_, name)| name.as_str()).collect();
    let shown: Vec<String> =
        holders.iter().map(|(pid, name)| format!("{} ({pid})", name.escape_debug())).collect();
    if holders.is_empty() {
        return Finding::loses_locks(
            check,
            format!(
                "rpcbind sends lockd to port {port}, where nobody listens: every new client is refused its locks"
            ),
            "start the agent (systemctl start heirlock)",
        );
    }
    if !names.contains("heirlock") {
        return Finding::loses_locks(
            check,
            format!(
                "rpcbind sends lockd to port {port}, which is held by {} and not by heirlock",
                shown.join(", ")
            ),
            "end it, and start the agent (systemctl start heirlock): it registers itself anew within a second",
        );
    }
    if holders.len() == 1 {
        return Finding::warning(
            check,
            format!(
                "port {port} is held by the agent alone, {}: while it is restarted new clients are refused their locks",
                shown.join(", ")
            ),
            "let systemd hold it ('heirlock enable' starts heirlock.socket), or start 'heirlock supervise' in the agent's place",
        );
    }
    Finding::ok(
        check,
        format!("port {port} is heirlock's and outlives the agent: held by {}", shown.join(", ")),
    )
}

/// The lock manager is known by its port, which only root may have, unless the host was told otherwise
/// (docs/decisions/who-speaks-for-the-lock-manager.md).
fn who_speaks(host: &Host) -> Vec<Finding> {
    let check = "lock-manager-port";
    let number = |path: &str| host.text(path)?.trim().parse::<u32>().ok();
    let (least, most) = (number(UNPRIVILEGED_FROM), number(LOCKD_PORTS_TO));
    let ports_below = Trust::PRIVILEGED.ports_below;
    let mut findings = Vec::new();
    if let Some(first) = least.filter(|first| *first < ports_below) {
        findings.push(Finding::warning(
            check,
            format!(
                "any user of this server may use ports from {first} on (net.ipv4.ip_unprivileged_port_start), and so may take registrations away in the name of the lock manager: such clients are not told of an adoption"
            ),
            format!("sysctl net.ipv4.ip_unprivileged_port_start={ports_below}"),
        ));
    }
    if let Some(last) = most.filter(|last| *last >= ports_below) {
        findings.push(Finding::loses_locks(
            check,
            format!(
                "lockd may ask from ports up to {last} (sunrpc.max_resvport), and what comes from port {ports_below} or above is taken for any user's: new clients are refused their locks"
            ),
            format!("sysctl sunrpc.max_resvport={}", ports_below - 1),
        ));
    }
    findings
}

/// lockd asks over IPv4; a client that was restarted says so over what it mounted by.
fn over_v6(host: &Host, settings: &Settings) -> Option<Finding> {
    host.text("/proc/net/if_inet6").filter(|text| !text.trim().is_empty())?;
    let check = "status-monitor-ipv6";
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let port = settings.notify.rpcbind_port;
    let found = [Transport::Udp, Transport::Tcp].map(|transport| {
        rpc_client::find_over(here, port, STATUS_MONITOR, transport, limits::PROBE_TIME_MAX)
    });
    let [udp, tcp] = found;
    Some(match udp.clone().ok().flatten().or(tcp.clone().ok().flatten()) {
        Some(port) => Finding::ok(check, format!("registered for IPv6, at port {port}")),
        None if udp.is_ok() || tcp.is_ok() => Finding::warning(
            check,
            "the status monitor is not registered for IPv6: locks of a client that mounted by IPv6 and was restarted stay until this server is",
            "let heirlock.socket listen at [::] ('heirlock enable' writes it so), and restart heirlock",
        ),
        None => {
            let why = udp.err().unwrap_or_default();
            Finding::note(check, format!("rpcbind doesn't answer over IPv6: {why}"))
        }
    })
}

#[cfg(test)]
mod tests;
