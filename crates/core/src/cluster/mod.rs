//! Whether a cluster manager's configuration lets locks survive a failover: Pacemaker's resources, constraints and properties,
//! beside what heirlock is configured for on one server.
//!
//! | file | holds |
//! |---|---|
//! | `configuration.rs` | the cluster's configuration, as it is written down |
//! | `expected.rs` | what one server's own configuration expects of the cluster |
//! | `resources.rs`, `relations.rs` | each resource with what it inherits; what starts before what, and on the node of what |
//! | `parts.rs` | which resources a service is made of |
//! | `remark.rs` | what is found: how bad it is, what it costs, and the command that mends it |
//! | `fences.rs`, `agents.rs`, `order.rs`, `nfs_server.rs`, `state.rs`, `times.rs`, `server.rs` | the checks |
//!
//! A service is Pacemaker's where a resource of the cluster brings one of its addresses, exports one of its paths, or is one of
//! heirlock's resource agents for it. Names of resources mean nothing.

mod agents;
mod configuration;
mod expected;
mod fences;
mod nfs_server;
mod order;
mod parts;
mod relations;
mod remark;
mod resources;
mod server;
mod state;
#[cfg(test)]
mod testing;
mod times;

pub use configuration::{
    Attributes, Colocation, ColocationMember, Configuration, Content, Entry, Location, Operation, Order,
    Primitive, Step, Wanted,
};
pub use expected::{Expected, ExpectedService, Times};
pub use remark::{Remark, Subject, Weight};

use parts::Parts;
use resources::Cluster;

/// All that is to be said of a cluster, for the server that `expected` is of. Something is said of every service.
#[must_use]
pub fn judge(configuration: &Configuration, expected: &Expected) -> Vec<Remark> {
    let cluster = Cluster::of(configuration);
    let (placed, others): (Vec<_>, Vec<_>) = expected
        .services
        .iter()
        .map(|service| (service, Parts::of(&cluster, service, expected)))
        .partition(|(_, parts)| parts.is_placed());
    let mut remarks: Vec<Remark> =
        others.iter().map(|(service, _)| agents::placed_nowhere(service)).collect();
    remarks.extend(agents::of_unknown_services(&cluster, expected));
    if placed.is_empty() {
        return remarks;
    }
    remarks.extend(fences::check(&cluster));
    remarks.extend(server::check(&cluster, expected, &placed));
    remarks.extend(nfs_server::of_cluster(&cluster));
    remarks.extend(state::of_cluster(&cluster));
    for (service, parts) in &placed {
        let mut found = agents::check(&cluster, service, parts);
        found.extend(order::check(&cluster, service, parts));
        found.extend(nfs_server::check(&cluster, service, parts));
        found.extend(state::check(&cluster, service, parts));
        found.extend(times::check(&cluster, service, parts));
        if found.iter().all(|remark| remark.weight <= Weight::Note) {
            found.push(agents::well(&cluster, service, parts));
        }
        remarks.extend(found);
    }
    remarks
}

#[cfg(test)]
mod tests;
