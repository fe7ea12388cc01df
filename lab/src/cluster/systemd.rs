//! Servers that systemd runs, with the units of Debian's packages and heirlock's own, as its users have them. The others have
//! a shell for their first process, which does what the units do.

use anyhow::{Result, ensure};

use super::{Cluster, Name};

/// Tells a guest's init that systemd follows it.
pub(super) const WORD: &str = "lab_manager=systemd";

/// Starts the kernel's NFS server, and what its unit wants.
pub(super) const START_NFS: &str = "systemctl start nfs-server.service";

/// The options of every export.
const OPTIONS: &str = "rw,no_root_squash,insecure";

impl Cluster {
    /// From now on that server boots with systemd as its first process.
    pub fn under_systemd(&mut self, server: Name) {
        self.run_by_systemd.push(server);
    }

    /// Is systemd its first process?
    pub(super) fn is_run_by_systemd(&self, server: Name) -> bool {
        self.run_by_systemd.contains(&server)
    }

    /// A shell command that exports a path. nfs-server.service, when it starts and when it stops, drops all that is in no
    /// file.
    pub(super) fn export(&self, server: Name, path: &str, fsid: &str) -> String {
        if self.is_run_by_systemd(server) {
            format!(
                "mkdir -p /etc/exports.d; echo \"{path} *({OPTIONS},fsid={fsid})\" > \"/etc/exports.d/$(basename {path}).exports\"
                 exportfs -r"
            )
        } else {
            format!("exportfs -o {OPTIONS},fsid={fsid} \"*:{path}\"")
        }
    }

    /// A shell command that takes the export back.
    pub(super) fn unexport(&self, server: Name, path: &str) -> String {
        if self.is_run_by_systemd(server) {
            format!("rm -f \"/etc/exports.d/$(basename {path}).exports\"; exportfs -r")
        } else {
            format!("exportfs -u \"*:{path}\"")
        }
    }

    /// A property of a unit, as `systemctl show` has it.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn unit_property(&self, server: Name, unit: &str, property: &str) -> Result<String> {
        let shown = self.ok(server, &format!("systemctl show --value --property={property} {unit}"))?;
        Ok(shown.trim().to_owned())
    }

    /// A service's main process.
    ///
    /// # Errors
    /// When none runs.
    pub fn main_process(&self, server: Name, unit: &str) -> Result<String> {
        let process = self.unit_property(server, unit, "MainPID")?;
        ensure!(process != "0", "expected {unit} of {server} to run, found no process");
        Ok(process)
    }

    /// Waits until systemd has done all that it was asked for: where a unit only wants another one, systemd starts the other
    /// one after the start has been answered.
    ///
    /// # Errors
    /// When it does not come to an end.
    pub fn wait_until_systemd_rests(&self, server: Name) -> Result<()> {
        self.wait_until(server, "[ -z \"$(systemctl list-jobs --no-legend)\" ]")
    }
}
