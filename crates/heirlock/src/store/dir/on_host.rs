//! A folder as the store of a host: the disk that it lies on, the volume that has to be mounted, and the folder's own mode.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use heirlock_core::store::{Store, StoreError, StoreErrorKind};
use heirlock_core::store_identity::Found;

use super::super::on_host::{Ground, PlaceFinding, StoreOnHost, Unusable};
use super::DirStore;
use crate::config::Settings;
use crate::files::{Folder, trusted};
use crate::host::{Host, volumes};

/// tmpfs and ramfs (statfs(2)).
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Where a server keeps its own files, as its status monitor does.
const OWN: &str = "/var/lib";

impl StoreOnHost for DirStore {
    fn shown(&self, settings: &Settings) -> String {
        settings.store.path.display().to_string()
    }

    fn check(&self, host: &Host, settings: &Settings) -> Vec<PlaceFinding> {
        let exports = settings.services.iter().flat_map(|service| &service.exports);
        let around = exports.filter(|export| settings.store.path.starts_with(export)).max();
        let lies = match (Disk::of(&self.root), Disk::of(&host.at(OWN))) {
            (Ok(store), Ok(own)) => store.beside(own),
            (Err(error), _) | (_, Err(error)) => PlaceFinding::Unknown(error.to_string()),
        };
        around.cloned().map(PlaceFinding::Exported).into_iter().chain([lies]).collect()
    }

    fn try_room(&self) -> Result<(), String> {
        let tried = Folder::open(&self.root).and_then(|folder| folder.try_to_write());
        tried.map_err(|error| format!("no file can be written in {}: {error}", self.root.display()))
    }

    fn missing(&self, host: &Host, settings: &Settings) -> Option<String> {
        volumes::unmounted(host, &settings.store.path)
    }

    fn unusable(&self, settings: &Settings, error: &StoreError) -> Unusable {
        let remedy = match error.kind() {
            StoreErrorKind::Absent { is_remembered: false } => {
                "mount its volume; where there never was a store, 'heirlock enable' makes one"
            }
            StoreErrorKind::NotInForce => "see the finding",
            _ => "mount its volume",
        };
        if settings.store.shared || error.is_of_another_store() {
            return Unusable { remedy: remedy.to_owned(), costs_locks: true };
        }
        // On a volume that one server has at a time, the others can't see it.
        let remedy =
            format!("{remedy}; on a server that doesn't have the volume now this is as it should be");
        Unusable { remedy, costs_locks: false }
    }

    fn ground(&self, settings: &Settings) -> Option<Ground> {
        let there = trusted::stat(&self.root).ok();
        let mode = there.map(|there| there.permissions().mode() & 0o7777);
        Some(Ground { folder: settings.store.path.clone(), mode })
    }

    fn set_up(&self) -> Result<Found, StoreError> {
        self.set_up_folder()?;
        self.found()
    }

    fn remove_empty(&self, mode_before: Option<u32>) -> io::Result<()> {
        self.make_empty()?;
        let given_back = mode_before.map_or(Ok(()), |mode| trusted::set_mode(&self.root, mode));
        given_back.map_err(|error| {
            io::Error::new(error.kind(), format!("its mode can't be given back to it: {error}"))
        })
    }
}

/// A disk: its device number, and its kind of file system.
#[derive(Debug, Clone, Copy)]
struct Disk {
    device: u64,
    kind: i64,
}

impl Disk {
    /// Of the nearest folder above that exists.
    fn of(path: &Path) -> io::Result<Self> {
        let there = path
            .ancestors()
            .find(|ancestor| ancestor.exists())
            .map_or_else(|| PathBuf::from("/"), Path::to_owned);
        Ok(Self { device: trusted::stat(&there)?.dev(), kind: rustix::fs::statfs(&there)?.f_type })
    }

    /// The finding on a store on this disk, on a server whose own files are on that one.
    fn beside(self, own: Self) -> PlaceFinding {
        if MEMORY_FILE_SYSTEMS.contains(&self.kind) {
            PlaceFinding::InMemory
        } else if self.device == own.device {
            PlaceFinding::OwnDisk
        } else {
            PlaceFinding::OtherDisk
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;
    use crate::host::testing::Tree;

    /// A server that serves two exports.
    fn settings() -> Settings {
        let text = "server = \"nfs-a\"\n[store]\npath = \"/srv/heirlock\"\n[[service]]\nname = \"nfs\"\n\
                    addresses = [\"192.0.2.10\"]\nexports = [\"/srv\", \"/srv/heirlock\"]\n";
        config::parse(Path::new("test.toml"), text).unwrap()
    }

    #[test]
    fn a_store_on_the_disk_of_its_server_or_in_memory_is_told_from_one_beside_it() {
        let disk = |device, kind| Disk { device, kind };
        let own = disk(1, 0xef53);
        assert_eq!(disk(2, 0xef53).beside(own), PlaceFinding::OtherDisk);
        assert_eq!(disk(1, 0xef53).beside(own), PlaceFinding::OwnDisk);
        assert_eq!(disk(2, 0x0102_1994).beside(own), PlaceFinding::InMemory);
        assert_eq!(disk(1, 0x0102_1994).beside(own), PlaceFinding::InMemory);
    }

    #[test]
    fn a_memory_file_system_is_recognised() {
        let shm = Path::new("/dev/shm");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        if mounts.contains(" /dev/shm tmpfs ") {
            assert!(MEMORY_FILE_SYSTEMS.contains(&Disk::of(&shm.join("not/there")).unwrap().kind));
        }
    }

    #[test]
    fn a_store_in_an_export_is_said_with_the_innermost_one() {
        let tree = Tree::debian();
        let store = DirStore::at(&tree.host().at("/srv/heirlock"));
        let found = store.check(&tree.host(), &settings());
        assert_eq!(found.first(), Some(&PlaceFinding::Exported("/srv/heirlock".into())));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_store_that_is_taken_away_leaves_its_folder_as_it_was_and_nothing_else_is_taken() {
        let tree = Tree::debian();
        let (host, settings) = (tree.host(), settings());
        let at = host.at("/srv/heirlock");
        let store = DirStore::at(&at);
        assert_eq!(store.ground(&settings).unwrap().mode, None);
        fs::create_dir_all(&at).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        let ground = Ground { folder: "/srv/heirlock".into(), mode: Some(0o755) };
        assert_eq!(store.ground(&settings), Some(ground));
        store.set_up().unwrap();
        assert_eq!(store.ground(&settings).unwrap().mode, Some(0o700));
        store.remove_empty(Some(0o755)).unwrap();
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        assert_eq!(store.ground(&settings).unwrap().mode, Some(0o755));
        store.set_up().unwrap();
        fs::write(at.join("services/nfs"), "").unwrap();
        store.remove_empty(None).unwrap_err();
        assert!(at.join("heirlock-store").exists());
    }
}
