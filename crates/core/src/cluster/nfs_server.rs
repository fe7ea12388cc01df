//! Stock resource agents that start an NFS server or tell clients, beside heirlock.

use super::expected::ExpectedService;
use super::parts::Parts;
use super::remark::{Remark, Subject, by_tools};
use super::resources::{Cluster, Resource, truth};

/// Those that do harm to every service of the node that they run on.
pub(super) fn of_cluster(cluster: &Cluster) -> Vec<Remark> {
    let mut remarks: Vec<Remark> = cluster
        .resources
        .iter()
        .filter(|one| one.is_ocf("heartbeat", "nfsnotify") && !one.is_disabled())
        .map(tells_as_well)
        .collect();
    let servers: Vec<&Resource> = cluster
        .resources
        .iter()
        .filter(|one| one.is_ocf("heartbeat", "nfsserver") && !one.is_disabled())
        .collect();
    remarks.extend(servers.iter().flat_map(|one| parameters(one)));
    let alone: Vec<&&Resource> = servers.iter().filter(|one| one.clone.is_none()).collect();
    if let [first, second, ..] = alone.as_slice() {
        remarks.push(Remark::loses_locks(
            Subject::NfsServer,
            format!(
                "{} and {} both start and stop the NFS server of a node: when they meet on one, the stop of either drops the locks of both",
                first.id, second.id
            ),
            "with several services keep the NFS server always on (form A in docs/guide/pacemaker.md)",
        ));
    }
    remarks
}

fn tells_as_well(resource: &Resource) -> Remark {
    let id = &resource.id;
    Remark::loses_locks(
        Subject::NfsServer,
        format!(
            "{id} (ocf:heartbeat:nfsnotify) tells clients as well, under another state number: locks that were reclaimed by then are lost, or can't be reclaimed at the next failover"
        ),
        by_tools(
            format!("pcs resource delete {id}"),
            format!("crm resource stop {id} && crm configure delete {id}"),
        ),
    )
}

fn parameters(server: &Resource) -> Vec<Remark> {
    let id = &server.id;
    let mut remarks = Vec::new();
    let is_silent = server.parameters.get("nfs_no_notify").and_then(|value| truth(value)) == Some(true);
    if !is_silent {
        remarks.push(Remark::loses_locks(
            Subject::NfsServer,
            format!(
                "{id} (ocf:heartbeat:nfsserver) runs sm-notify at each start, beside heirlock: clients are told under another state number, and before their locks can be reclaimed"
            ),
            by_tools(
                format!("pcs resource update {id} nfs_no_notify=true"),
                format!("crm resource param {id} set nfs_no_notify true"),
            ),
        ));
    }
    if let Some(folder) = server.parameters.get("nfs_shared_infodir").filter(|folder| !folder.is_empty()) {
        remarks.push(Remark::loses_locks(
            Subject::NfsServer,
            format!(
                "{id} has nfs_shared_infodir={folder}: it mixes the records of all nodes, and writes a random state number into it, so clients refuse what heirlock tells them"
            ),
            by_tools(
                format!("pcs resource update {id} nfs_shared_infodir="),
                format!("crm resource param {id} delete nfs_shared_infodir"),
            ),
        ));
    }
    remarks
}

/// Those that the configuration of a service contradicts.
pub(super) fn check(cluster: &Cluster, service: &ExpectedService, parts: &Parts) -> Vec<Remark> {
    let (name, strategy) = (&service.name, service.strategy);
    let mut remarks = Vec::new();
    let stock =
        cluster.resources.iter().find(|one| one.is_ocf("heartbeat", "nfsserver") && !one.is_disabled());
    if let Some(server) = stock.filter(|_| service.is_status_monitor) {
        remarks.push(Remark::loses_locks(
            Subject::NfsServer,
            format!(
                "{name}: capture.mode makes heirlock the status monitor, and the monitor of {} (ocf:heartbeat:nfsserver) fails where rpc.statd does not run: Pacemaker then restarts NFS again and again",
                server.id
            ),
            "set capture.mode = \"watch\" or \"callout\" on all nodes, then 'heirlock enable'; or keep the NFS server always on without that resource agent",
        ));
    }
    match parts.servers.first().map(|place| cluster.get(*place)) {
        Some(server) if strategy.opens_grace() => remarks.push(Remark::warning(
            Subject::NfsServer,
            format!(
                "{name}: {} has just started the NFS server when the service is adopted, and lock-manager.strategy = \"{strategy}\" starts it once more",
                server.id
            ),
            "set strategy = \"notify\" in [lock-manager] on all nodes, and restart the agents",
        )),
        None if !strategy.opens_grace() => remarks.push(Remark::loses_locks(
            Subject::NfsServer,
            format!(
                "{name}: lock-manager.strategy = \"{strategy}\" rests upon an NFS server that has just been started, and no resource starts one on the node of the service: no grace period is open, and every adoption is refused"
            ),
            "set strategy = \"restart-nfs\" in [lock-manager] on all nodes, and restart the agents",
        )),
        _ => {}
    }
    remarks
}
