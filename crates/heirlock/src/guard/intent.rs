//! What an adoption by this host will need, asked before anything is claimed.

use std::path::Path;

use heirlock_core::ServiceName;

use super::finding::Finding;
use super::host::Host;
use super::volumes;
use crate::config::{ServiceSettings, Settings};
use crate::files::trusted;

/// What the services to be taken over need of this host's file systems and isn't there now. Where a hook brings the volume,
/// nothing has to be.
pub(super) fn volumes(host: &Host, settings: &Settings, targets: &[ServiceName]) -> Vec<Finding> {
    if settings.hooks.volume_up.is_some() {
        return Vec::new();
    }
    let targets = settings.services.iter().filter(|service| targets.contains(&service.name));
    targets
        .flat_map(|service| service.exports.iter().filter_map(|path| volume(host, service, path)))
        .collect()
}

fn volume(host: &Host, service: &ServiceSettings, path: &Path) -> Option<Finding> {
    let (check, shown) = ("volume", path.display());
    let name = &service.name;
    if let Some(at) = volumes::unmounted(host, path) {
        let found = format!("{name}: {shown} lies on the volume of {at}, and nothing is mounted there");
        return Some(Finding::loses_locks(
            check,
            found,
            format!("mount it (mount {at}), or set hooks.volume-up"),
        ));
    }
    let found = match trusted::stat(host.at(path)) {
        Ok(_) => return None,
        Err(error) => format!("{name}: {shown}, which it exports, can't be found here: {error}"),
    };
    Some(Finding::loses_locks(check, found, "mount its volume, or set hooks.volume-up"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{SERVICE, Tree, settings};

    fn missing(tree: &Tree, more: &str) -> Vec<String> {
        let found = volumes(&tree.host(), &settings(&format!("{SERVICE}{more}")), &["nfs".parse().unwrap()]);
        found.into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn an_export_whose_volume_is_not_here_is_missing_unless_a_hook_brings_it() {
        let tree = Tree::new();
        tree.put("/proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
        let nowhere = missing(&tree, "");
        assert!(
            nowhere.len() == 1 && nowhere[0].starts_with("nfs: /srv/nfs, which it exports,"),
            "{nowhere:?}"
        );
        tree.folder("/srv/nfs");
        assert_eq!(missing(&tree, ""), Vec::<String>::new());
        tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
        let unmounted = missing(&tree, "");
        assert_eq!(unmounted, ["nfs: /srv/nfs lies on the volume of /srv, and nothing is mounted there"]);
        let other = "[[service]]\nname = \"other\"\naddresses = [\"192.0.2.11\"]\nexports = [\"/nowhere\"]\n";
        assert_eq!(missing(&tree, other), unmounted, "what is not taken over needs nothing");
        let hook = settings(&format!("[hooks]\nvolume-up = [\"true\"]\n{SERVICE}"));
        assert_eq!(volumes(&tree.host(), &hook, &["nfs".parse().unwrap()]), []);
        tree.put("/proc/mounts", "/dev/drbd0 /srv ext4 rw 0 0\n");
        assert_eq!(missing(&tree, ""), Vec::<String>::new());
    }
}
