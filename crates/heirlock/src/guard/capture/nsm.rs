//! Mode `nsm`: heirlock must be what answers, over sockets that outlive the agent, and no rpc.statd beside it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heirlock_nsm::rpcbind::Transport;
use heirlock_nsm::sm;

use super::super::finding::Finding;
use super::super::statd;
use crate::config::Settings;
use crate::host::{Host, Unit};
use crate::monitor::Trust;
use crate::{limits, rpc_client};

const STATUS_MONITOR: (u32, u32) = (sm::PROGRAM, sm::VERSION);

/// The first port that any user may have (ip(7)), and the last one that lockd asks from (net/sunrpc/xprtsock.c).
const UNPRIVILEGED_FROM: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const LOCKD_PORTS_TO: &str = "/proc/sys/sunrpc/max_resvport";

/// The findings on the live host.
pub(super) fn live(host: &Host, settings: &Settings) -> Vec<Finding> {
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

/// Whether the socket that rpcbind sends lockd to is heirlock's, and outlives the agent.
fn own_socket(host: &Host, settings: &Settings) -> Finding {
    let check = "status-monitor-socket";
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = settings.notify.rpcbind_port;
    // That none is registered, or that rpcbind is away, is said by another check.
    let Ok(Some(port)) =
        rpc_client::find_over(here, port, STATUS_MONITOR, Transport::Tcp, limits::PROBE_TIME_MAX)
    else {
        return Finding::note(check, "no status monitor is registered over TCP, as lockd asks for it");
    };
    let holders = statd::holders(host, port);
    let names: BTreeSet<&str> = holders.iter().map(|(_, name)| name.as_str()).collect();
    let shown: Vec<String> =
        holders.iter().map(|(pid, name)| format!("{} ({pid})", name.escape_debug())).collect();
    if holders.is_empty() {
        return Finding::loses_locks(
            check,
            format!(
                "rpcbind sends lockd to port {port}, where no process listens: every new client is refused its locks"
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
/// (docs/decisions/0010-who-speaks-for-the-lock-manager.md).
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
                "lockd may ask from ports up to {last} (sunrpc.max_resvport), and a request from port {ports_below} or above is taken for any user's: new clients are refused their locks"
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
