//! What an administrator writes on a server of the lab: heirlock's configuration, and the programs that it names.

use super::{HOMES, Name, PROJECTS, Service, Setup};
use crate::capture::Capture;
use crate::documented::FENCE_AGENT;
use crate::guest_program;

/// The store, in the folder that all guests share.
pub(super) const STORE: &str = "/srv/store/heirlock";

/// `[store]` of a server whose store is there.
pub(super) fn in_folder() -> String {
    format!("path = \"{STORE}\"\nshared = true")
}

/// The file beside those of the power switch in which a fence that has confirmed says so.
pub(super) const FENCED: &str = "fenced";

/// rpc.statd ends, if it runs.
pub(super) const STOP_STATUS_MONITOR: &str = "! [ -s /run/rpc.statd.pid ] || {
    pid=$(cat /run/rpc.statd.pid)
    kill $pid
    while kill -0 $pid 2>/dev/null; do sleep 0.05; done
}";

/// It starts. -L: without telling any client.
pub(super) const START_STATUS_MONITOR: &str = "rpc.statd -L";

/// It starts with heirlock's callout, and, as heirlock does that, without telling any client.
pub(super) const START_WITH_CALLOUT: &str = "rpc.statd -L -H /usr/local/bin/heirlock-callout";

/// heirlock.toml of one server. Where systemd runs it, NFS and rpc.statd are restarted as heirlock does that unless it is
/// told otherwise.
pub(super) fn of_server(
    server: Name,
    address: &str,
    setup: &Setup,
    capture: Capture,
    run_by_systemd: bool,
    store: &str,
) -> String {
    let Setup {
        services,
        home,
        elsewhere,
        strategy,
        convey,
        hooks,
        fence,
        automatic,
        candidates,
        heartbeat: [interval, dead_after],
        when_unprotected,
        tombstone_delay,
    } = setup;
    // Where heirlock is the status monitor itself, there is none to restart.
    let restart_status_monitor = match capture {
        Capture::Watch | Capture::Callout if !run_by_systemd => {
            "restart-status-monitor = [\"/etc/heirlock/restart-status-monitor\"]"
        }
        _ => "",
    };
    let restart_nfs = if run_by_systemd { "" } else { "restart-nfs = [\"/etc/heirlock/restart-nfs\"]" };
    let mut text = format!(
        "server = \"{server}\"
         # On a disk that a reboot leaves alone: what is in a guest is in its memory.
         local-directory = \"/srv/store/local/{server}\"
         [store]
         {store}
         [capture]
         mode = \"{capture}\"
         when-unprotected = \"{when_unprotected}\"
         tombstone-delay = \"{tombstone_delay}\"
         [lock-manager]
         strategy = \"{strategy}\"
         convey = \"{convey}\"
         prepared-time = \"5s\"
         {restart_nfs}
         {restart_status_monitor}
         [heartbeat]
         interval = \"{interval}\"
         dead-after = \"{dead_after}\"
         [host]
         addresses = [\"{address}\"]
         [hooks]\n"
    );
    if *fence {
        text.push_str("fence = { command = [\"/etc/heirlock/fence\"], time-limit = \"60s\" }\n");
    }
    if *hooks {
        for hook in ["volume-up", "address-up", "address-down", "volume-down"] {
            text.push_str(&format!("{hook} = [\"/etc/heirlock/{hook}\"]\n"));
        }
    }
    let mode = if *automatic { "automatic" } else { "manual" };
    let candidates = match candidates {
        [] => String::new(),
        some => format!("candidates = {some:?}\n"),
    };
    for Service { name, address, .. } in *services {
        let other = elsewhere.iter().find(|(service, _)| service == name).map(|(_, home)| *home);
        let home = other.or(*home).map(|home| format!("home = \"{home}\"\n")).unwrap_or_default();
        text.push_str(&format!(
            "[[service]]
             name = \"{name}\"
             addresses = [\"{address}\"]
             names = [\"{name}\"]
             exports = [\"/srv/{name}\"]
             {home}{candidates}mode = \"{mode}\"\n"
        ));
    }
    text
}

/// The fence: it asks the power switch, which kills the kernel of the server, or waits for the scenario's word that the server is
/// off.
fn fence(by_switch: bool) -> String {
    let off = match by_switch {
        true => "printf 'action=off\\nplug=%s\\n' $HEIRLOCK_OWNER | /etc/heirlock/fence-agent",
        false => {
            "for i in $(seq 200); do
                 ! grep -q off /srv/store/power/$HEIRLOCK_OWNER || break
                 sleep 0.1
             done
             grep -q off /srv/store/power/$HEIRLOCK_OWNER || { echo \"$HEIRLOCK_OWNER is still on\"; exit 1; }"
        }
    };
    format!(
        "{off}\nmkdir -p /srv/store/power\necho \"$(uname -n) $HEIRLOCK_OWNER\" >> /srv/store/power/{FENCED}\n"
    )
}

/// Where a server keeps when its NFS was restarted by heirlock's word: a line each time, with the begin and the end, in seconds after
/// the boot.
pub(super) const NFS_RESTARTS: &str = "/run/lab/nfs-restarts";

/// NFS is restarted, and nothing else is counted as that: the shell reads the time by itself, without a process more.
fn restart_nfs() -> String {
    format!(
        "read began _ < /proc/uptime
         rpc.nfsd 0
         rpc.nfsd 4
         read ended _ < /proc/uptime
         echo $began $ended >> {NFS_RESTARTS}\n"
    )
}

/// The programs that the configuration names, as an administrator writes them. The hooks are idempotent.
pub(super) fn scripts(capture: Capture, by_switch: bool) -> Vec<(&'static str, String)> {
    let script = |body: &str| format!("#!/bin/sh\nset -e\n{body}");
    let services = format!(
        "case $HEIRLOCK_SERVICE in
         {}) disk={} fsid={} ;;
         {}) disk={} fsid={} ;;
         esac
         export=/srv/$HEIRLOCK_SERVICE\n",
        HOMES.name, HOMES.disk, HOMES.fsid, PROJECTS.name, PROJECTS.disk, PROJECTS.fsid
    );
    let guest_program = guest_program::NAME;
    let start_status_monitor = match capture {
        Capture::Watch | Capture::Nsm => START_STATUS_MONITOR,
        Capture::Callout => START_WITH_CALLOUT,
    };
    vec![
        ("restart-nfs", script(&restart_nfs())),
        (
            "restart-status-monitor",
            script(&format!("{STOP_STATUS_MONITOR}\n{start_status_monitor}\n")),
        ),
        ("fence", script(&fence(by_switch))),
        ("fence-agent", FENCE_AGENT.to_owned()),
        (
            "volume-up",
            script(&format!(
                "{services}
                 mkdir -p $export
                 grep -q \" $export ext4 \" /proc/mounts || mount -t ext4 $disk $export
                 exportfs -o rw,no_root_squash,fsid=$fsid,insecure \"*:$export\"\n"
            )),
        ),
        (
            "volume-down",
            script(&format!(
                "{services}
                 exportfs -u \"*:$export\" || true
                 exportfs -f
                 ! grep -q \" $export ext4 \" /proc/mounts || umount $export\n"
            )),
        ),
        (
            "address-up",
            script(&format!(
                "ip addr show dev vec0 | grep -q \" $HEIRLOCK_ADDRESSES/\" || ip addr add $HEIRLOCK_ADDRESSES/24 dev vec0
                 {guest_program} announce $HEIRLOCK_ADDRESSES {}\n",
                crate::network::UNUSED_ADDRESS
            )),
        ),
        (
            "address-down",
            script("! ip addr show dev vec0 | grep -q \" $HEIRLOCK_ADDRESSES/\" || ip addr del $HEIRLOCK_ADDRESSES/24 dev vec0\n"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::SETUP;
    use super::*;

    /// The shell takes leading blanks in its stride, TOML as well; quotes must be in pairs.
    #[test]
    fn a_configuration_names_every_script() {
        for capture in [Capture::Watch, Capture::Nsm, Capture::Callout] {
            let setup = Setup { hooks: true, ..SETUP };
            let text = of_server("nfs-a", "10.99.0.1", &setup, capture, false, &in_folder());
            for (name, script) in scripts(capture, false) {
                let named = text.contains(&format!("\"/etc/heirlock/{name}\""));
                // The fence calls its agent.
                let needed = match name {
                    "restart-status-monitor" => capture != Capture::Nsm,
                    other => other != "fence-agent",
                };
                assert_eq!(named, needed, "{name}");
                assert!(script.starts_with("#!/bin/sh\n"));
            }
            assert_eq!(text.matches('"').count() % 2, 0);
            let text = of_server("nfs-a", "10.99.0.1", &setup, capture, true, &in_folder());
            assert!(!text.contains("/etc/heirlock/restart-"), "heirlock knows how systemd restarts: {text}");
        }
    }
}
