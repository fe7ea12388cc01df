//! Facts that servers compare: each puts its own into its heartbeat, and `doctor` reads the others'.

use std::collections::BTreeMap;

use crate::config::Settings;
use crate::lock_manager::LockManager;

/// Before the path of an export: its fsid, or `none`.
pub(super) const FSID: &str = "fsid:";
/// heirlock's version.
pub(super) const VERSION: &str = "version";
/// Before the name of a service that is `automatic`: its candidates, or `any`.
pub(super) const CANDIDATES: &str = "candidates:";

/// This host's facts. Unknown ones are left out.
pub(super) fn of(settings: &Settings, lock_manager: &dyn LockManager) -> BTreeMap<String, String> {
    let mut facts = lock_manager.facts();
    facts.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
    let exports = lock_manager.fsids();
    for path in settings.services.iter().flat_map(|service| &service.exports) {
        let Some(fsids) = exports.of(path) else { continue };
        let words: Vec<&str> = fsids.iter().map(|fsid| fsid.as_deref().unwrap_or("none")).collect();
        facts.insert(format!("{FSID}{}", path.display()), words.join(" "));
    }
    for service in settings.services.iter().filter(|service| service.is_adopted_unasked()) {
        let candidates = service.candidates.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string);
        facts.insert(format!("{CANDIDATES}{}", service.name), candidates);
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, lock_manager, settings};
    use crate::lock_manager::GRACE_PERIOD;

    #[test]
    fn the_facts_are_those_that_make_two_servers_differ() {
        let tree = Tree::debian();
        tree.put("/etc/exports", "/srv/nfs *(rw,fsid=77)\n/srv/other *(rw,fsid=1)\n");
        let settings = settings(SERVICE);
        let facts = of(&settings, lock_manager(&tree, &settings).as_ref());
        let keys: Vec<&str> = facts.keys().map(String::as_str).collect();
        assert_eq!(keys, ["fsid:/srv/nfs", "kernel", "nlm-grace-period-s", "version"]);
        assert_eq!((facts["fsid:/srv/nfs"].as_str(), facts[GRACE_PERIOD].as_str()), ("77", "90"));
        let mut automatic = settings.clone();
        automatic.services[0].mode = crate::config::Mode::Automatic;
        let candidates = |settings: &Settings| {
            let facts = of(settings, lock_manager(&tree, settings).as_ref());
            facts["candidates:nfs"].clone()
        };
        assert_eq!(candidates(&automatic), "any");
        let order = ["nfs-b", "nfs-c"].map(|name| vec![name.parse().unwrap()]);
        automatic.services[0].candidates =
            Some(heirlock_core::candidates::Candidates::new(order.into()).unwrap());
        assert_eq!(candidates(&automatic), "nfs-b > nfs-c");
    }
}
