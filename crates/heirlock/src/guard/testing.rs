//! Common parts of the tests of this module.

use std::path::Path;
use std::sync::Arc;

use crate::config::{self, Settings};
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

/// A heartbeat.
pub(super) fn report(server: &str, beat: u64) -> ServerReport {
    ServerReport { beat, ..ServerReport::new(server.parse().unwrap(), "agent") }
}
