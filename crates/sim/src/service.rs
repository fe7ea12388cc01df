//! Services, and what servers and services are called.

use std::net::{IpAddr, Ipv4Addr};

use heirlock_agent::InstanceNumber;
use heirlock_core::{ServerName, ServiceName};
use heirlock_nsm::MyName;

use crate::lock_manager::LockManagerAt;
use crate::schedule::ServicePlan;
use crate::server::Server;

/// One service, as all servers have it in their configuration.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    /// By what name clients mount it.
    pub(crate) names: Vec<MyName>,
    /// The address that moves with it.
    pub(crate) address: Option<IpAddr>,
    pub(crate) home: usize,
    pub(crate) automatic: bool,
    /// See [`ServicePlan::candidates`].
    pub(crate) candidates: Vec<Vec<usize>>,
    /// The server whose implicit service it is.
    pub(crate) host_of: Option<usize>,
    /// The lock manager that serves it, by server.
    pub(crate) served_by: Vec<InstanceNumber>,
}

impl Service {
    /// The service that is configured so, at this place among those that move.
    pub(crate) fn floating(at: usize, plan: &ServicePlan) -> Self {
        let address = IpAddr::from(Ipv4Addr::new(10, 2, 0, u8::try_from(at + 1).unwrap_or_default()));
        let name = floating_name(at);
        Self {
            names: my_names(&[format!("{name}.example.org")]),
            address: Some(address),
            name,
            home: plan.home,
            automatic: plan.is_automatic,
            candidates: plan.candidates.clone(),
            host_of: None,
            served_by: plan.served_by.clone(),
        }
    }

    /// The implicit service of one of so many servers.
    pub(crate) fn of_host(server: &Server, servers: usize) -> Self {
        Self {
            name: ServiceName::host(&server.name),
            names: my_names(&[server.name.to_string()]),
            address: None,
            home: server.index,
            automatic: false,
            candidates: Vec::new(),
            host_of: Some(server.index),
            served_by: vec![InstanceNumber::FIRST; servers],
        }
    }

    /// The lock manager that serves it on this server.
    pub(crate) fn lock_manager_on(&self, server: usize) -> LockManagerAt {
        LockManagerAt { server, number: self.served_by[server] }
    }
}

pub(crate) fn server_name(at: usize) -> ServerName {
    ServerName::try_from(format!("nfs-{}", ["a", "b", "c"][at])).unwrap_or_else(|_| server_name(at))
}

fn my_names(names: &[String]) -> Vec<MyName> {
    names.iter().filter_map(|name| MyName::parse(name).ok()).collect()
}

/// The name of a service that moves.
pub(crate) fn floating_name(at: usize) -> ServiceName {
    ServiceName::try_from(format!("svc{at}")).unwrap_or_else(|_| ServiceName::host(&server_name(0)))
}
