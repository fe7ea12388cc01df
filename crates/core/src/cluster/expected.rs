//! What one server's own configuration expects of the cluster.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::takeover::Strategy;
use crate::{ServerName, ServiceName};

/// See the module.
#[derive(Debug, Clone)]
pub struct Expected {
    /// This server.
    pub server: ServerName,
    /// The name of the node that this server is, as the cluster itself says; unknown where it does not say.
    pub node: Option<String>,
    /// The servers that have ever written to the store, this one among them; unknown where the store can't be read.
    pub servers: Option<BTreeSet<ServerName>>,
    /// The file that heirlock is configured by.
    pub file: PathBuf,
    /// Where records are kept.
    pub store: PathBuf,
    /// The hooks that are set, by their keys.
    pub hooks: Vec<&'static str>,
    /// The services.
    pub services: Vec<ExpectedService>,
}

/// One service.
#[derive(Debug, Clone)]
pub struct ExpectedService {
    /// Its name.
    pub name: ServiceName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The paths that it exports.
    pub exports: Vec<PathBuf>,
    /// Whether it has a home.
    pub has_home: bool,
    /// Whether an agent adopts it without being asked.
    pub is_adopted_unasked: bool,
    /// How its lock manager is made to recognise.
    pub strategy: Strategy,
    /// heirlock is the status monitor of its lock manager, and rpc.statd does not run.
    pub is_status_monitor: bool,
    /// How long the actions of heirlock's resource agents take at the most.
    pub times: Times,
    /// How much time a prepared adoption leaves for all that comes before clients are told (`lock-manager.prepared-time`).
    pub prepared_time: Duration,
}

/// How long the actions of heirlock's resource agents may take: as long as their descriptions ask for, and longer where the
/// configuration has commands that may take longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `start` of `ocf:heirlock:service`.
    pub service_start: Duration,
    /// `stop` of it.
    pub service_stop: Duration,
    /// `start` of `ocf:heirlock:notify`.
    pub notify_start: Duration,
    /// `stop` of it.
    pub notify_stop: Duration,
    /// `monitor` of both.
    pub monitor: Duration,
}
