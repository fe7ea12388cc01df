//! Which resources a service is made of.

use std::collections::BTreeSet;
use std::path::Path;

use super::expected::{Expected, ExpectedService};
use super::resources::{Cluster, Place};

/// The resources of one service, each kind in the order of the configuration.
#[derive(Debug)]
pub(super) struct Parts {
    /// Volumes that its exports lie on.
    pub(super) volumes: Vec<Place>,
    /// Volumes that heirlock's store lies on.
    pub(super) store_volumes: Vec<Place>,
    /// The NFS server, where it moves with the service.
    pub(super) servers: Vec<Place>,
    pub(super) exports: Vec<Place>,
    /// `ocf:heirlock:service`
    pub(super) services: Vec<Place>,
    pub(super) addresses: Vec<Place>,
    /// `ocf:heirlock:notify`
    pub(super) notifies: Vec<Place>,
}

impl Parts {
    pub(super) fn of(cluster: &Cluster, service: &ExpectedService, expected: &Expected) -> Self {
        let name = service.name.as_str();
        let of_heirlock = |kind| cluster.places(|one| one.is_of_heirlock(kind, name));
        let (services, notifies) = (of_heirlock("service"), of_heirlock("notify"));
        let addresses = cluster.places(|one| service.addresses.iter().any(|address| one.brings(*address)));
        let core: Vec<Place> = services.iter().chain(&addresses).chain(&notifies).copied().collect();
        let is_beside = |place: Place| core.iter().any(|one| cluster.relations.are_together(*one, place));
        let mut exports = cluster
            .places(|one| one.exports().iter().any(|path| service.exports.iter().any(|known| known == path)));
        // The paths need not be in heirlock's configuration.
        exports.extend(
            cluster.places(|one| !one.exports().is_empty()).into_iter().filter(|place| is_beside(*place)),
        );
        sort(&mut exports);
        let mut paths: BTreeSet<_> = service.exports.iter().cloned().collect();
        paths.extend(exports.iter().flat_map(|place| cluster.get(*place).exports()));
        let below = |path: &Path| cluster.places(|one| one.mounts().is_some_and(|at| path.starts_with(at)));
        let mut volumes: Vec<Place> = paths.iter().flat_map(|path| below(path)).collect();
        sort(&mut volumes);
        let servers = cluster.places(|one| one.is_nfs_server() && one.clone.is_none());
        let servers = servers.into_iter().filter(|place| is_beside(*place)).collect();
        Self {
            volumes,
            store_volumes: below(&expected.store),
            servers,
            exports,
            services,
            addresses,
            notifies,
        }
    }

    /// Whether the cluster decides where the service is.
    pub(super) fn is_placed(&self) -> bool {
        [&self.services, &self.notifies, &self.addresses, &self.exports].iter().any(|part| !part.is_empty())
    }

    /// All of them, as far as they are of this service alone.
    pub(super) fn all(&self) -> Vec<Place> {
        let mut all: Vec<Place> = [
            &self.volumes,
            &self.store_volumes,
            &self.servers,
            &self.exports,
            &self.services,
            &self.addresses,
            &self.notifies,
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect();
        sort(&mut all);
        all
    }

    /// The group that a new resource of the service belongs to.
    pub(super) fn group<'a>(&self, cluster: &'a Cluster) -> Option<&'a str> {
        let known = self.addresses.iter().chain(&self.services).chain(&self.notifies).chain(&self.exports);
        known.filter_map(|place| cluster.get(*place).group.as_deref()).next()
    }
}

fn sort(places: &mut Vec<Place>) {
    places.sort_unstable();
    places.dedup();
}
