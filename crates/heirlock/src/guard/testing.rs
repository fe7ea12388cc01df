//! Common parts of the tests of this module.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heirlock_agent::config::InstanceSettings;

use crate::config::{self, CaptureSettings, InstanceNumber, ServiceSettings, Settings};
pub(super) use crate::host::testing::Tree;
use crate::lock_manager::LockManager;
use crate::store::ServerReport;

pub(crate) const SERVICE: &str = "[[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10\"]\n\
    names = [\"nfs.example.com\"]\nexports = [\"/srv/nfs\"]\nhome = \"nfs-a\"\n";

/// The lock manager of this host that is configured.
pub(super) fn lock_manager(tree: &Tree, settings: &Settings) -> Arc<dyn LockManager> {
    crate::lock_manager::open_on(settings, &tree.host())
}

/// A configuration of that service in this capture mode.
pub(super) fn in_mode(mode: &str) -> Settings {
    settings(&format!("[capture]\nmode = \"{mode}\"\n{SERVICE}"))
}

/// A configuration of the server nfs-a with this added.
pub(crate) fn settings(more: &str) -> Settings {
    let text = format!("server = \"nfs-a\"\n[store]\npath = \"/srv/heirlock\"\n{more}");
    config::parse(Path::new("test.toml"), &text).unwrap()
}

/// The same server with a second lock manager, `two`, which serves the service `beta`. Its grace lasts 45 s, and the directory of its
/// status monitor is /var/lib/nfs-two.
pub(super) fn with_second_lock_manager(mut settings: Settings) -> Settings {
    let by_commands = self::settings(
        "[lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nrecognise = [\"true\"]\nincarnation = [\"echo\", \"1\"]\n\
         grace-period = \"45s\"\n[[service]]\nname = \"beta\"\naddresses = [\"192.0.2.20\"]\nnames = [\"beta.example.com\"]\n\
         exports = [\"/srv/beta\"]\n",
    );
    settings.further = vec![InstanceSettings {
        name: heirlock_core::LockManagerName::parse("two").unwrap(),
        state_directory: "/var/lib/nfs-two".into(),
        capture: CaptureSettings { tombstone_delay: Duration::from_secs(30), ..by_commands.capture.clone() },
        lock_manager: by_commands.lock_manager.clone(),
    }];
    let beta = by_commands.services.into_iter().next().unwrap();
    settings.services.push(ServiceSettings { instance: InstanceNumber::at(1), ..beta });
    settings
}

/// A heartbeat.
pub(super) fn report(server: &str, beat: u64) -> ServerReport {
    ServerReport { beat, ..ServerReport::new(server.parse().unwrap(), "agent") }
}

/// A host on which nothing is missing for an adoption.
pub(super) fn fit() -> Tree {
    let tree = Tree::debian();
    tree.relink("/etc/systemd/system/rpc-statd-notify.service", "/dev/null");
    tree.put("/etc/nfs.conf.d/heirlock.conf", "[sm-notify]\nlift-grace=n\n");
    tree.put("/run/sm-notify.pid", "");
    tree.put("/etc/exports", "/srv/nfs *(rw,fsid=77)\n");
    tree.folder("/srv/nfs");
    tree
}
