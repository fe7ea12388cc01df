//! Which file systems leave with a service.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use heirlock_core::ServiceName;

use crate::config::ServiceSettings;
use crate::files::trusted;

/// The exports of a service whose file system holds nothing else that is exported: all locks on it are the service's.
///
/// `exported` are the paths that are exported now.
pub(super) fn leaving(
    services: &[ServiceSettings],
    service: &ServiceName,
    exported: &[PathBuf],
) -> Vec<PathBuf> {
    let device = |path: &Path| trusted::stat(path).ok().map(|found| found.dev());
    let (own, others): (Vec<_>, Vec<_>) = services.iter().partition(|other| other.name == *service);
    let own: Vec<&Path> = own.iter().flat_map(|s| &s.exports).map(PathBuf::as_path).collect();
    let others = others.iter().flat_map(|s| &s.exports).map(PathBuf::as_path);
    let staying: Vec<u64> = others
        .chain(exported.iter().map(PathBuf::as_path))
        .filter(|path| !own.iter().any(|own| path.starts_with(own)))
        .filter_map(device)
        .collect();
    let leaves = |path: &&&Path| device(path).is_some_and(|device| !staying.contains(&device));
    own.iter().filter(leaves).map(|path| path.to_path_buf()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InstanceNumber, Mode};
    use std::fs;

    fn service(name: &str, export: &Path) -> ServiceSettings {
        ServiceSettings {
            name: name.parse().unwrap(),
            addresses: Vec::new(),
            names: Vec::new(),
            exports: vec![export.to_owned()],
            home: None,
            mode: Mode::Manual,
            candidates: None,
            instance: InstanceNumber::FIRST,
        }
    }

    #[test]
    fn a_file_system_leaves_unless_something_else_is_exported_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let (homes, projects) = (folder.path().join("homes"), folder.path().join("projects"));
        fs::create_dir_all(homes.join("below")).unwrap();
        fs::create_dir(&projects).unwrap();
        let name: ServiceName = "homes".parse().unwrap();
        let elsewhere = service("projects", Path::new("/proc"));
        let leaving = |other: &ServiceSettings, exported: &[PathBuf]| {
            leaving(&[service("homes", &homes), other.clone()], &name, exported)
        };
        let own = [homes.clone(), homes.join("below")];
        assert_eq!(leaving(&elsewhere, &own), std::slice::from_ref(&homes));
        assert!(
            leaving(&elsewhere, std::slice::from_ref(&projects)).is_empty(),
            "the server's own clients lock there"
        );
        assert!(leaving(&service("projects", &projects), &own).is_empty(), "another service's do");
        fs::remove_dir_all(&homes).unwrap();
        assert!(leaving(&elsewhere, &own).is_empty(), "nothing is there");
    }
}
