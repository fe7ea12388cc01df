//! Keeps what is exported while NFS is restarted.
//!
//! nfs-server.service takes all exports back when it stops, and exports what files name when it starts (`exportfs -au` and
//! `exportfs -r`; nfs-utils, systemd/nfs-server.service). Cluster managers export by `exportfs -o`, which is in no file:
//! without help a restart would leave their clients with stale handles in the middle of grace.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::exports_syntax::words;
use crate::files::{self, trusted};
use crate::host::Host;
use crate::lock_manager::exported;

/// Read after all others, so that their word on an export counts.
const NAME: &str = "zz-heirlock-restart.exports";

const REMARK: &str =
    "# What was exported when heirlock restarted NFS, and is in no other file. It may be removed.\n";

/// Where exports are written down.
#[derive(Debug, Clone)]
pub(super) struct Exports {
    host: Host,
    state_directory: PathBuf,
    /// `exports`.
    file: PathBuf,
    /// `exports.d`.
    folder: PathBuf,
}

/// As long as it lives, every export that there was is in a file.
#[derive(Debug)]
#[must_use]
pub(super) struct Kept<'a>(&'a Exports);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

impl Exports {
    pub(super) fn new(host: &Host, state_directory: &Path) -> Self {
        Self {
            host: host.clone(),
            state_directory: state_directory.to_owned(),
            file: host.at("/etc/exports"),
            folder: host.at("/etc/exports.d"),
        }
    }

    /// Writes what is in no file into one. Where that fails it is said, and only what is in files survives.
    pub(super) fn keep(&self) -> Kept<'_> {
        if let Err(error) = self.write() {
            tracing::error!(%error, folder = %self.folder.display(), "exports that are in no file can't be kept in {} while NFS is restarted: {error}", self.folder.display());
        }
        Kept(self)
    }

    /// Takes the file away, also one that an agent left that was killed.
    pub(super) fn forget(&self) {
        let path = self.folder.join(NAME);
        match trusted::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "{} can't be removed, though it is of no use any more: {error}", path.display());
            }
            _ => {}
        }
    }

    fn write(&self) -> io::Result<()> {
        let table = exported(&self.host, &self.state_directory);
        let Some(table) = files::if_present(table)? else { return Ok(()) };
        let in_files = self.in_files()?;
        let is_in_a_file = |line: &str| clients(line).iter().all(|export| in_files.contains(export));
        let missing: Vec<&str> = table.lines().filter(|line| !is_in_a_file(line)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        tracing::info!(
            exports = missing.len(),
            "{} exports that are in no file are kept while NFS is restarted",
            missing.len()
        );
        trusted::make_folders(&self.folder, 0o755)?;
        let text = format!("{REMARK}{}\n", missing.join("\n"));
        trusted::replace(&self.folder.join(NAME), text.as_bytes(), 0o644, true)
    }

    pub(super) fn state_directory(&self) -> &Path {
        &self.state_directory
    }

    /// The paths that are exported now; none where there is no table yet.
    pub(super) fn now(&self) -> io::Result<Vec<PathBuf>> {
        let table = files::if_present(exported(&self.host, &self.state_directory))?.unwrap_or_default();
        Ok(table.lines().filter_map(|line| words(line).into_iter().next()).map(PathBuf::from).collect())
    }

    /// The paths that are not exported now, neither by themselves nor with a folder above them, nor by a file, which counts where NFS
    /// is restarted. The table is looked for once for all of them.
    pub(super) fn lacks<'a>(&self, paths: &'a [PathBuf], restarts: bool) -> Vec<&'a Path> {
        if paths.is_empty() {
            return Vec::new();
        }
        let table = exported(&self.host, &self.state_directory).unwrap_or_default();
        let now = table.lines().flat_map(clients);
        let in_files = restarts.then(|| self.in_files().unwrap_or_default()).into_iter().flatten();
        let exported: BTreeSet<PathBuf> = now.chain(in_files).map(|(path, _)| PathBuf::from(path)).collect();
        let is_exported = |path: &Path| path.ancestors().any(|ancestor| exported.contains(ancestor));
        paths.iter().map(PathBuf::as_path).filter(|path| !is_exported(path)).collect()
    }

    /// The pairs of path and client that files export.
    fn in_files(&self) -> io::Result<BTreeSet<(String, String)>> {
        let mut files = vec![self.file.clone()];
        let names = files::if_present(trusted::names(&self.folder, crate::limits::EXPORTS_FILES_MAX))?
            .unwrap_or_default();
        files.extend(
            names
                .into_iter()
                .filter(|name| name != NAME)
                .map(|name| self.folder.join(name))
                .filter(|path| path.extension().is_some_and(|extension| extension == "exports")),
        );
        let texts = files.iter().map(|file| trusted::read_system(file).unwrap_or_default());
        Ok(texts
            .flat_map(|text| text.replace("\\\n", " ").lines().flat_map(clients).collect::<Vec<_>>())
            .collect())
    }
}

/// A line's path with each client that it is exported to; without any it is exported to all (exports(5)).
fn clients(line: &str) -> Vec<(String, String)> {
    let mut words = words(line).into_iter();
    let Some(path) = words.next() else { return Vec::new() };
    let clients = words.filter(|word| !word.starts_with('-'));
    let name = |client: String| match client.split_once('(').map_or(client.as_str(), |(name, _)| name) {
        "" => "*".to_owned(),
        name => name.to_owned(),
    };
    let clients: Vec<(String, String)> = clients.map(|client| (path.clone(), name(client))).collect();
    if clients.is_empty() { vec![(path, "*".to_owned())] } else { clients }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    struct Place(Tree, Exports);

    fn place(exports: &str, table: &str) -> Place {
        let tree = Tree::new();
        tree.put("/etc/exports", exports);
        tree.put("/etc/exports.d/one.exports", "/srv/one *(rw)\n");
        tree.put("/etab", table);
        let exports = Exports::new(&tree.host(), Path::new("/"));
        Place(tree, exports)
    }

    impl Place {
        fn kept(&self) -> Option<String> {
            self.0.host().text(Path::new("/etc/exports.d").join(NAME))
        }
    }

    #[test]
    fn exports_of_a_cluster_manager_are_in_a_file_until_nfs_runs_again() {
        let table = "/srv/one\t*(rw,sync,fsid=1)\n/srv/homes\t*(rw,sync,fsid=2)\n\
                     /srv/a\\040b\t10.0.0.0/8(rw,fsid=3)\n/srv/all\t*(ro)\n";
        let place = place("\"/srv/a b\" host(rw)\n/srv/all\n", table);
        let kept = place.1.keep();
        let text = place.kept().unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["/srv/homes\t*(rw,sync,fsid=2)", "/srv/a\\040b\t10.0.0.0/8(rw,fsid=3)"]);
        drop(kept);
        assert_eq!(place.kept(), None);
    }

    #[test]
    fn a_path_is_exported_now_or_after_a_restart_by_itself_or_with_a_folder_above_it() {
        let place = place("/srv/file *(rw)\n", "/srv/homes\t*(rw,fsid=2)\n/srv/a\\040b\t*(rw)\n");
        let has =
            |exports: &Exports, path: &str, restarts| exports.lacks(&[path.into()], restarts).is_empty();
        for (path, now, after) in [
            ("/srv/homes", true, true),
            ("/srv/homes/deep", true, true),
            ("/srv/a b", true, true),
            ("/srv/homes2", false, false),
            ("/srv/file", false, true),
            ("/srv/one/below", false, true),
            ("/srv", false, false),
        ] {
            assert_eq!((has(&place.1, path, false), has(&place.1, path, true)), (now, after), "{path:?}");
        }
        place.0.folder("/statd");
        let below = Exports::new(&place.0.host(), Path::new("/statd"));
        assert!(has(&below, "/srv/homes", false), "as on Red Hat");
    }

    #[test]
    fn the_table_is_looked_for_once_for_all_exports() {
        let place = place("/srv/file *(rw)\n", "/srv/homes\t*(rw,fsid=2)\n");
        let log = place.0.host().at("/asked");
        place.0.tool("nfsconf", &format!("echo $2 $3 >> {}\nexit 1", log.display()));
        let paths = ["/srv/homes", "/srv/none", "/srv/file", "/srv/other"].map(PathBuf::from);
        assert_eq!(place.1.lacks(&paths, true), [Path::new("/srv/none"), Path::new("/srv/other")]);
        let asked = std::fs::read_to_string(&log).unwrap();
        assert_eq!(asked, "mountd state-directory-path\nexportd state-directory-path\n");
        assert!(place.1.lacks(&[], true).is_empty());
        assert_eq!(std::fs::read_to_string(&log).unwrap(), asked, "nothing is asked for nothing");
    }

    #[test]
    fn nothing_is_written_where_files_name_all_or_nothing_is_exported() {
        let place = place("/srv/two host(rw) *(ro)\n", "/srv/one\t*(rw)\n/srv/two\thost(rw,fsid=1)\n");
        let _kept = place.1.keep();
        assert_eq!(place.kept(), None);
        place.0.remove("/etab");
        let _kept = place.1.keep();
        assert_eq!(place.kept(), None);
    }
}
