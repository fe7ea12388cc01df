//! The exports of this host and their fsids, with which a file handle begins. A handle that another server can't read is
//! a lock that can't be reclaimed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::exports_syntax::words;
use crate::host::Host;
use crate::host::mountd::ExportTable;

const FILE: &str = "/etc/exports";
const FOLDER: &str = "/etc/exports.d";

/// The fsids of each exported path; `None` among them where an export has none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Exports(BTreeMap<PathBuf, BTreeSet<Option<String>>>);

impl Exports {
    /// The host's exports: those of now, and from the files those of other paths.
    pub(super) fn read(host: &Host, state_directory: &Path) -> Self {
        let mut files = vec![PathBuf::from(FILE)];
        let names = host.list(FOLDER).unwrap_or_default();
        files.extend(
            names
                .iter()
                .filter(|name| !name.starts_with('.') && name.ends_with(".exports"))
                .map(|name| Path::new(FOLDER).join(name)),
        );
        let mut exports = Self::default();
        for file in files {
            exports.add(&host.text(file).unwrap_or_default());
        }
        let mut live = Self::default();
        let table = ExportTable::of(host, state_directory);
        live.add(&host.text(table.path).unwrap_or_default());
        exports.0.extend(live.0);
        exports
    }

    /// The fsids under which a path is exported, by itself or by a folder above it.
    pub(super) fn fsids(&self, path: &Path) -> Option<&BTreeSet<Option<String>>> {
        path.ancestors().find_map(|ancestor| self.0.get(ancestor))
    }

    fn add(&mut self, text: &str) {
        for line in text.replace("\\\n", " ").lines() {
            let mut words = words(line).into_iter();
            let Some(path) = words.next() else { continue };
            let fsids = self.0.entry(PathBuf::from(path)).or_default();
            let mut default = None;
            let mut clients = 0;
            for word in words {
                if let Some(options) = word.strip_prefix('-') {
                    default = fsid(options);
                    continue;
                }
                let options = word.split_once('(').map_or("", |(_, options)| options.trim_end_matches(')'));
                fsids.insert(fsid(options).or_else(|| default.clone()));
                clients += 1;
            }
            if clients == 0 {
                // Without a client it is exported to all.
                fsids.insert(default);
            }
        }
    }
}

/// `root` is another word for 0 (exports(5)).
fn fsid(options: &str) -> Option<String> {
    let found = options.split(',').filter_map(|option| option.trim().strip_prefix("fsid=")).next_back()?;
    Some(if found == "root" { "0" } else { found }.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::Tree;

    const STATE: &str = "/var/lib/nfs";

    fn fsids(exports: &Exports, path: &str) -> Vec<String> {
        let found = exports.fsids(Path::new(path)).cloned().unwrap_or_default();
        found.into_iter().map(|fsid| fsid.unwrap_or_else(|| "none".into())).collect()
    }

    #[test]
    fn the_syntax_of_exports_is_understood() {
        let tree = Tree::new();
        tree.put(
            "/etc/exports",
            "# all\n/srv/nfs 10.0.0.0/8(rw,fsid=77) *(ro)\n/srv/a -sync,fsid=5 one two(rw,fsid=6)\n\
             \"/srv/my files\" *(rw,fsid=root)\n/srv/b\\040c *(fsid=9) # x\n/srv/long \\\n *(rw,fsid=8)\n/srv/all\n",
        );
        tree.put("/etc/exports.d/x.exports", "/srv/d *(fsid=AB12)\n");
        tree.put("/etc/exports.d/x.bak", "/srv/e *(fsid=1)\n");
        let exports = Exports::read(&tree.host(), Path::new(STATE));
        for (path, expected) in [
            ("/srv/nfs", vec!["none", "77"]),
            ("/srv/a", vec!["5", "6"]),
            ("/srv/my files/deep", vec!["0"]),
            ("/srv/b c", vec!["9"]),
            ("/srv/long", vec!["8"]),
            ("/srv/all", vec!["none"]),
            ("/srv/d", vec!["ab12"]),
            ("/srv/e", vec![]),
        ] {
            assert_eq!(fsids(&exports, path), expected, "{path}");
        }
    }

    #[test]
    fn exports_of_now_count_more_than_the_file() {
        let tree = Tree::new();
        let fsid = || fsids(&Exports::read(&tree.host(), Path::new(STATE)), "/srv/nfs");
        tree.put("/etc/exports", "/srv/nfs *(rw)\n");
        tree.put("/var/lib/nfs/etab", "/srv/nfs\t*(rw,sync,wdelay,fsid=77,sec=sys,rw)\n");
        assert_eq!(fsid(), ["77"]);
        tree.put("/etc/nfs.conf", "[mountd]\nstate-directory-path=/srv/mountd\n");
        assert_eq!(fsid(), ["none"], "it is another table that counts");
        tree.put("/srv/mountd/etab", "/srv/nfs\t*(rw,fsid=78)\n");
        assert_eq!(fsid(), ["78"]);
    }
}
