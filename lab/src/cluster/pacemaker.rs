//! Servers that are nodes of a real Pacemaker, which moves the services: corosync and Pacemaker of Debian, their stock
//! resource agents, the configuration of the guide, and a fence that kills the kernel of the other node.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::power::{PowerSwitch, Switched};
use super::{Cluster, Name, Service, write_executable};
use crate::busy::stretched;
use crate::documented::{Documented, expect_pacemaker};
use crate::limits::{GROUP_TIME_MAX, TOKEN_TIME, TOKEN_TIME_MAX};

/// Tells a guest's init that it is a node.
pub(super) const WORD: &str = "lab_cluster=pacemaker";

/// Starts both daemons in a guest, the second when all nodes have the first.
const START: &str = include_str!("../guest/start-pacemaker");

/// The NFS server for the resource agent that starts it.
const NFS_SERVER: &str = include_str!("../guest/nfs-server");

impl Cluster {
    /// From now on these guests boot as nodes of a cluster that is configured as the guide says, with a power switch that
    /// the cluster's fence agent uses. Grace periods are as long as a cluster manager needs.
    ///
    /// # Errors
    /// When this machine has no Pacemaker, or its tools find fault with the configuration.
    pub fn with_pacemaker(&mut self, nodes: &[Name], documented: &Documented) -> Result<()> {
        expect_pacemaker()?;
        documented.make_cib(&self.folder, &[])?;
        let mut members = Vec::new();
        for node in nodes {
            members.push((*node, self.address(node)?));
        }
        let token = stretched(TOKEN_TIME).min(TOKEN_TIME_MAX);
        fs::write(self.folder.join("corosync.conf"), corosync(&members, token))?;
        write_executable(&self.folder.join("start-pacemaker"), START)?;
        write_executable(&self.folder.join("nfs-server"), NFS_SERVER)?;
        self.switch = Some(PowerSwitch::new(self.store().join("fence"))?);
        self.nodes = nodes.to_vec();
        self.lengthen_grace();
        Ok(())
    }

    /// The file that Pacemaker would start with on these nodes.
    ///
    /// # Errors
    /// When its tools find fault with the configuration.
    pub fn made_of(&self, documented: &Documented, nodes: &[Name]) -> Result<String> {
        documented.make_cib(&self.folder, nodes)?;
        Ok(fs::read_to_string(self.folder.join("cib.xml"))?)
    }

    /// The service's volume gets the files that clients lock; Pacemaker mounts it later.
    ///
    /// # Errors
    /// When a step fails.
    pub fn prepare_volume(&self, node: Name, service: &Service) -> Result<()> {
        let Service { name, disk, .. } = service;
        let command = format!(
            "set -e; mkdir -p /srv/{name}; mount -t ext4 {disk} /srv/{name}; chmod 777 /srv/{name}
             for file in f g h; do touch /srv/{name}/$file; chmod 666 /srv/{name}/$file; done
             umount /srv/{name}"
        );
        self.ok(node, &command).map(drop)
    }

    /// Starts corosync on the nodes, and Pacemaker where all are members: a node that is alone for long fences the others.
    ///
    /// # Errors
    /// When a step fails.
    pub fn start_pacemaker(&self, nodes: &[Name]) -> Result<()> {
        for node in nodes {
            self.ok(node, "/opt/start-pacemaker corosync")?;
        }
        let all = self.nodes.len();
        for node in nodes {
            self.wait_until(
                node,
                &format!("[ \"$(corosync-quorumtool -l 2>/dev/null | grep -c ' nfs-')\" -eq {all} ]"),
            )?;
        }
        for node in nodes {
            self.ok(
                node,
                "(setsid /opt/start-pacemaker pacemaker > /run/lab/start 2>&1 < /dev/null & true)",
            )?;
        }
        for node in nodes {
            self.wait_until(node, "crmadmin --dc_lookup --timeout=5s 2>/dev/null | grep -q 'nfs-'")?;
        }
        self.say(format!("{} run Pacemaker", nodes.join(", ")));
        Ok(())
    }

    /// Waits until a node tells that a resource runs on that node, and nowhere else.
    ///
    /// # Errors
    /// When it does not come to that within [`GROUP_TIME_MAX`].
    pub fn wait_until_runs(&self, asked: Name, resource: &str, on: Name) -> Result<()> {
        let what = format!("{resource} on {on}");
        self.wait_for(&what, GROUP_TIME_MAX, || Ok((self.runs_on(asked, resource)? == [on]).then_some(())))?;
        self.say(format!("{resource} runs on {on}"));
        Ok(())
    }

    /// The nodes that a resource runs on, as a node tells.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn runs_on(&self, asked: Name, resource: &str) -> Result<Vec<String>> {
        let said = self.ok(asked, &format!("crm_resource --locate --resource {resource} 2>&1 || true"))?;
        let nodes = said.lines().filter_map(|line| line.split_once(" is running on: "));
        Ok(nodes.map(|(_, node)| node.trim().to_owned()).collect())
    }

    /// Waits until the newest answer to a resource's recurring monitor on its node is this code.
    ///
    /// # Errors
    /// When it does not come to that within [`GROUP_TIME_MAX`].
    pub fn wait_until_monitored(&self, node: Name, resource: &str, code: i32) -> Result<()> {
        let query = format!(
            "cibadmin --query --xpath \"//node_state[@uname='{node}']//lrm_rsc_op[@operation='monitor' and @interval!='0' and \
             starts-with(@id,'{resource}_')]\" 2>&1 || true"
        );
        let sought = format!(" rc-code=\"{code}\"");
        self.wait_for(&format!("{resource}'s monitor to say {code}"), GROUP_TIME_MAX, || {
            Ok(self.ok(node, &query)?.contains(&sought).then_some(()))
        })?;
        self.say(format!("the monitor of {resource} says {code}"));
        Ok(())
    }

    /// All that the power switch was asked so far.
    #[must_use]
    pub fn switched(&self) -> Vec<Switched> {
        self.switch.as_ref().map(PowerSwitch::done).unwrap_or_default()
    }

    /// From now on the power switch switches nothing off, and says so; or it works again.
    pub fn break_power_switch(&self, is_broken: bool) {
        if let Some(switch) = &self.switch {
            switch.break_it(is_broken);
        }
        self.say(format!("the power switch {}", if is_broken { "is broken" } else { "works again" }));
    }

    /// No node may have been fenced.
    ///
    /// # Errors
    /// When one was.
    pub fn expect_no_fence(&self) -> Result<()> {
        let fences: Vec<_> = self.switched().into_iter().filter(Switched::is_fence).collect();
        ensure!(fences.is_empty(), "expected no fence, found {fences:?}");
        Ok(())
    }

    /// Waits until the cluster has fenced a guest that the lab killed before, and gives the time of it.
    ///
    /// # Errors
    /// When it does not, or when another guest was fenced.
    pub fn wait_until_fenced(&self, guest: Name) -> Result<Switched> {
        let fence = self.wait_for(&format!("the fence of {guest}"), GROUP_TIME_MAX, || {
            Ok(self.switched().into_iter().find(|one| one.is_fence() && one.is_off))
        })?;
        if fence.guest != guest {
            bail!("expected {guest} to be fenced, found {fence:?}");
        }
        self.say(format!("{guest} is fenced"));
        Ok(fence)
    }

    /// No action of a resource and no fence may have failed. A resource that was degraded for a while has not: the store of a
    /// machine that does much else is slow now and then.
    ///
    /// # Errors
    /// When one has, with its reason; or when the node does not answer.
    pub fn expect_no_failure(&self, node: Name) -> Result<()> {
        let shown = self.ok(node, "crm_mon --one-shot --inactive")?;
        let failed = failures(&shown);
        ensure!(failed.is_empty(), "expected no failed action, found {failed:?}");
        Ok(())
    }
}

/// The lines of crm_mon's lists of failed actions, without those of resources that are active and degraded.
fn failures(shown: &str) -> Vec<&str> {
    let lists = shown.split("\n\n").filter(|part| part.trim_start().starts_with("Failed "));
    lists
        .flat_map(str::lines)
        .filter(|line| line.contains("* ") && !line.contains("'OCF_DEGRADED'"))
        .collect()
}

/// As the guide's clusters have it, two nodes or more. A node whose token is away for that long is taken for dead.
fn corosync(members: &[(Name, String)], token: Duration) -> String {
    let mut nodes = String::new();
    for (index, (name, address)) in members.iter().enumerate() {
        nodes.push_str(&format!(
            "    node {{\n        name: {name}\n        nodeid: {}\n        ring0_addr: {address}\n    }}\n",
            index + 1
        ));
    }
    let token = token.as_millis();
    let two_node = if members.len() == 2 { "    two_node: 1\n" } else { "" };
    format!(
        "totem {{\n    version: 2\n    cluster_name: lab\n    transport: knet\n    crypto_cipher: none\n    crypto_hash: none\n    \
         token: {token}\n}}\nnodelist {{\n{nodes}}}\nquorum {{\n    provider: corosync_votequorum\n{two_node}}}\nlogging {{\n    \
         to_stderr: no\n    to_syslog: no\n    to_logfile: yes\n    logfile: /var/log/corosync/corosync.log\n    timestamp: hires\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_action_is_found_and_a_degraded_resource_is_none() {
        let list = "Full List of Resources:\n  * x (stonith:fence_lab): Started nfs-b\n\nFailed Resource Actions:\n  \
                    * homes-service 5s-interval monitor on nfs-b returned 'OCF_DEGRADED' (slow)\n";
        assert!(failures(list).is_empty());
        let failed = format!("{list}  * homes-volume start on nfs-b returned 'error'\n");
        assert_eq!(failures(&failed), ["  * homes-volume start on nfs-b returned 'error'"]);
        let fence = format!("{list}\nFailed Fencing Actions:\n  * off of nfs-a failed\n");
        assert_eq!(failures(&fence), ["  * off of nfs-a failed"]);
    }

    #[test]
    fn two_nodes_go_on_with_one_vote() {
        let two = [
            (crate::cluster::NFS_A, "10.99.0.1".to_owned()),
            (crate::cluster::NFS_B, "10.99.0.2".to_owned()),
        ];
        let text = corosync(&two, TOKEN_TIME);
        assert!(
            text.contains("two_node: 1")
                && text.contains("ring0_addr: 10.99.0.2")
                && text.contains("nodeid: 2")
                && text.contains("token: 2500")
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(!corosync(&two[..1], TOKEN_TIME).contains("two_node"));
    }
}
