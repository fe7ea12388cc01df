//! Facts that servers compare: each puts its own into its heartbeat, and `doctor` reads the others'.

use std::collections::BTreeMap;

use super::exports::Exports;
use crate::config::Settings;
use crate::host::Host;
use crate::lock_manager;

/// How long lockd's grace period lasts, in seconds.
pub(super) const GRACE_PERIOD: &str = "nlm-grace-period-s";
/// Before the path of an export: its fsid, or `none`.
pub(super) const FSID: &str = "fsid:";
/// heirlock's version.
pub(super) const VERSION: &str = "version";
/// The kernel's release.
pub(super) const KERNEL: &str = "kernel";

/// This host's facts. Unknown ones are left out.
pub(super) fn of(host: &Host, settings: &Settings) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
    facts.insert(KERNEL.into(), rustix::system::uname().release().to_string_lossy().into_owned());
    if let Ok(grace) = lock_manager::open_on(settings, host).grace_length() {
        facts.insert(GRACE_PERIOD.into(), grace.as_secs().to_string());
    }
    let exports = Exports::read(host, &settings.state_directory);
    for path in settings.services.iter().flat_map(|service| &service.exports) {
        let Some(fsids) = exports.fsids(path) else { continue };
        let words: Vec<&str> = fsids.iter().map(|fsid| fsid.as_deref().unwrap_or("none")).collect();
        facts.insert(format!("{FSID}{}", path.display()), words.join(" "));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, settings};

    #[test]
    fn the_facts_are_those_that_make_two_servers_differ() {
        let tree = Tree::debian();
        tree.put("/etc/exports", "/srv/nfs *(rw,fsid=77)\n/srv/other *(rw,fsid=1)\n");
        let facts = of(&tree.host(), &settings(SERVICE));
        let keys: Vec<&str> = facts.keys().map(String::as_str).collect();
        assert_eq!(keys, ["fsid:/srv/nfs", "kernel", "nlm-grace-period-s", "version"]);
        assert_eq!((facts["fsid:/srv/nfs"].as_str(), facts[GRACE_PERIOD].as_str()), ("77", "90"));
    }
}
