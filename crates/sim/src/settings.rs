//! How a server of the simulation is configured: as a person would, but quicker where that costs no truth.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use heirlock_agent::config::{
    CaptureMode, CaptureSettings, Command, ControlSettings, HeartbeatSettings, HookSettings, HostSettings,
    InstanceSettings, LockManagerKind, LockManagerSettings, Mode, NotifySettings, ServiceSettings, Settings,
    StoreSettings,
};
use heirlock_core::LockManagerName;
use heirlock_core::candidates::Candidates;
use heirlock_core::monitor::WhenUnprotected;
use heirlock_core::takeover::{Conveyance, Strategy};

use crate::lock_manager::{GRACE_MS, LockManager, LockManagerAt};
use crate::schedule::Capture;
use crate::service::{Service, server_name};
use crate::world::World;

/// How much of grace must be left for a notification to leave.
pub(crate) const MARGIN: Duration = Duration::from_secs(3);
/// After how long a silence a server is taken for dead.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(4);
const TOMBSTONE_DELAY: Duration = Duration::from_secs(20);
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// After how long a client that could not be told is forgotten, unless it came back.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(25);
/// How long lockd waits for our own status monitor.
pub(crate) const MON_TIMEOUT: Duration = Duration::from_millis(500);
/// How long rpc.statd waits for its callout.
pub(crate) const CALLOUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of each hook. The world carries hooks out.
pub(crate) const HOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a grace period lasts at the least.
pub(crate) fn grace_length() -> Duration {
    Duration::from_millis(GRACE_MS)
}

/// How a lock manager is made to recognise.
fn strategy_of(it: &LockManager) -> Strategy {
    match it.is_newer || it.at.server + it.at.number.place() == 1 {
        true => Strategy::RestartNfs,
        false => Strategy::RestartLockManager,
    }
}

/// The own address of a server.
pub(crate) fn host_address(server: usize) -> IpAddr {
    Ipv4Addr::new(10, 4, 0, u8::try_from(server + 1).unwrap_or_default()).into()
}

/// The configuration of one server.
pub(crate) fn settings_of(world: &World, at: usize) -> Settings {
    let server = &world.servers[at];
    let has_hooks = world.services.iter().any(|service| service.automatic);
    let hook = |name: &str| {
        let command = Command { argv: vec![name.to_owned()], time_limit: HOOK_TIME_MAX };
        has_hooks.then_some(command)
    };
    let floating = world.services.iter().filter(|service| service.host_of.is_none());
    let first = instance_settings(&world.servers[LockManagerAt::first(at)]);
    let further = server.lock_managers.iter().skip(1).map(instance_settings);
    Settings {
        server: server.name.clone(),
        state_directory: first.state_directory,
        state_directory_is_set: true,
        runtime_directory: "/run/heirlock".into(),
        local_directory: "/var/lib/heirlock".into(),
        store: StoreSettings { path: "/srv/heirlock".into(), shared: true, etcd: None },
        capture: first.capture,
        lock_manager: first.lock_manager,
        control: ControlSettings::default(),
        notify: NotifySettings { rpcbind_port: 111, privileged_port: false },
        heartbeat: HeartbeatSettings {
            interval: BEAT_INTERVAL,
            dead_after: DEAD_AFTER,
            candidate_time: DEAD_AFTER * 3,
        },
        host: HostSettings {
            addresses: vec![host_address(at)],
            names: world
                .services
                .iter()
                .filter(|s| s.host_of == Some(at))
                .flat_map(|s| s.names.clone())
                .collect(),
        },
        hooks: HookSettings {
            fence: hook("fence"),
            address_up: hook("address-up"),
            address_down: hook("address-down"),
            ..HookSettings::default()
        },
        services: floating.map(|service| service_settings(service, at)).collect(),
        further: further.collect(),
    }
}

/// The configuration of one lock manager.
fn instance_settings(it: &LockManager) -> InstanceSettings {
    let state_directory = match it.at.number.place() {
        0 => "/var/lib/nfs".into(),
        place => format!("/var/lib/nfs{place}").into(),
    };
    let name = match it.at.number.place() {
        0 => Ok(LockManagerName::host()),
        place => LockManagerName::parse(&place.to_string()),
    };
    let name = name.unwrap_or_else(|_| LockManagerName::host());
    InstanceSettings {
        name,
        state_directory,
        capture: capture_of(it),
        lock_manager: LockManagerSettings {
            kind: LockManagerKind::Kernel,
            strategy: strategy_of(it),
            convey: if it.at.stream() == 0 { Conveyance::Copy } else { Conveyance::Generate },
            settle_margin: MARGIN,
            prepared_time: MARGIN * 2,
            restart_nfs: None,
            restart_status_monitor: None,
            recognise: None,
            incarnation: None,
            grace_period: None,
        },
    }
}

fn capture_of(it: &LockManager) -> CaptureSettings {
    CaptureSettings {
        mode: match it.capture {
            Capture::Watch => CaptureMode::ALL.watch,
            Capture::Callout => CaptureMode::ALL.callout,
            Capture::Nsm => CaptureMode::ALL.nsm,
        },
        scan_interval: SCAN_INTERVAL,
        tombstone_delay: TOMBSTONE_DELAY,
        mon_timeout: MON_TIMEOUT,
        when_unprotected: match it.grants_unprotected {
            true => WhenUnprotected::Grant,
            false => WhenUnprotected::Refuse,
        },
        callout_timeout: CALLOUT_TIMEOUT,
        forget_after: FORGET_AFTER,
        ..CaptureSettings::default()
    }
}

fn service_settings(service: &Service, server: usize) -> ServiceSettings {
    ServiceSettings {
        name: service.name.clone(),
        addresses: service.address.into_iter().collect(),
        names: service.names.clone(),
        exports: Vec::new(),
        home: Some(server_name(service.home)),
        mode: if service.automatic { Mode::Automatic } else { Mode::Manual },
        candidates: candidates_of(service),
        instance: service.lock_manager_on(server).number,
    }
}

fn candidates_of(service: &Service) -> Option<Candidates> {
    let names = |group: &Vec<usize>| group.iter().map(|server| server_name(*server)).collect();
    // None where the schedule names none.
    Candidates::new(service.candidates.iter().map(names).collect()).ok()
}
