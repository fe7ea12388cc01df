//! Common parts of the tests of this module.

use std::path::Path;

use crate::config::{self, Settings};
pub(super) use crate::host::testing::Tree;
use crate::store::ServerReport;

pub(super) const SERVICE: &str = "[[service]]\nname = \"nfs\"\naddresses = [\"192.0.2.10\"]\n\
    names = [\"nfs.example.com\"]\nexports = [\"/srv/nfs\"]\nhome = \"nfs-a\"\n";

/// A configuration of that service in this capture mode.
pub(super) fn in_mode(mode: &str) -> Settings {
    settings(&format!("[capture]\nmode = \"{mode}\"\n{SERVICE}"))
}

/// A configuration of the server nfs-a with this added.
pub(super) fn settings(more: &str) -> Settings {
    let text = format!("server = \"nfs-a\"\n[store]\npath = \"/srv/heirlock\"\n{more}");
    config::parse(Path::new("test.toml"), &text).unwrap()
}

/// A heartbeat.
pub(super) fn report(server: &str, beat: u64) -> ServerReport {
    ServerReport { beat, ..ServerReport::new(server.parse().unwrap(), "agent") }
}
