//! A lock manager as its clients meet it: NLM and NFS at an address of a host, found by its rpcbind.

use std::net::IpAddr;
use std::time::Duration;

use heirlock_core::grace::Probe;

use crate::config::Settings;
use crate::host::{Host, Peers};
use crate::{limits, probe};

/// Where a lock manager is asked.
pub(crate) struct Nlm {
    /// The host that it serves on.
    pub(super) host: Host,
    /// Where rpcbind answers.
    pub(super) rpcbind_port: u16,
}

impl Nlm {
    pub(super) fn on(host: &Host, settings: &Settings) -> Self {
        Self { host: host.clone(), rpcbind_port: settings.notify.rpcbind_port }
    }

    /// See [`LockManager::in_grace_at`](super::LockManager::in_grace_at).
    pub(super) fn in_grace_at(&self, address: IpAddr, limit: Duration) -> (Probe, String) {
        probe::grace(address, self.rpcbind_port, limit)
    }

    /// See [`LockManager::serves_at`](super::LockManager::serves_at).
    pub(super) fn serves_at(&self, address: IpAddr) -> Result<(), String> {
        probe::registered(address, self.rpcbind_port, limits::PROBE_TIME_MAX)
    }

    /// See [`LockManager::ports`](super::LockManager::ports).
    pub(super) fn ports(&self) -> Vec<u16> {
        probe::ports(self.rpcbind_port)
    }

    /// See [`LockManager::peers`](super::LockManager::peers).
    pub(super) fn peers(&self) -> Peers {
        self.host.peers()
    }
}
