//! Where nfs-utils keeps what is exported now: `etab`, which exportfs writes and rpc.mountd reads.
//!
//! It lies in the state directory of rpc.mountd, which is another one than rpc.statd's on some distributions and may be moved by
//! itself. The arguments of the running daemon decide, then the setting that nfsconf says is in force, as exportfs asks it.

use std::path::{Path, PathBuf};

use super::Host;
use super::nfs_conf::{self, NfsConf};
use super::process;

/// The table of exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportTable {
    /// Where it lies on the host.
    pub(crate) path: PathBuf,
    /// The source of the answer, in words.
    pub(crate) asked: String,
}

const NAME: &str = "etab";

/// Where nfs-utils is built to keep it.
const BUILT_IN: &str = "/var/lib/nfs";

/// The key that moves it, in the section of either daemon; exportfs reads the same two in this order (nfs-utils,
/// utils/exportfs/exportfs.c).
const KEY: &str = "state-directory-path";
const SECTIONS: [&str; 2] = ["mountd", "exportd"];

/// Options with a value, the short one and the long one: utils/mountd/main.c and utils/exportd/exportd.c of nfs-utils. The
/// second daemon serves NFSv4 alone, in the place of the first.
const DAEMONS: [(&str, &[(char, &str)]); 2] = [
    (
        "rpc.mountd",
        &[
            ('s', KEY),
            ('d', "debug"),
            ('f', "exports-file"),
            ('H', "ha-callout"),
            ('N', "no-nfs-version"),
            ('o', "descriptors"),
            ('p', "port"),
            ('P', "port"),
            ('t', "num-threads"),
            ('T', "ttl"),
            ('V', "nfs-version"),
        ],
    ),
    ("nfsv4.exportd", &[('s', KEY), ('d', "debug"), ('t', "num-threads"), ('T', "ttl")]),
];

impl ExportTable {
    /// This host's. Looks at all processes and asks nfsconf: not for a loop that others wait for.
    pub(crate) fn of(host: &Host, state_directory: &Path) -> Self {
        let configured = || {
            let conf = NfsConf::read_some(host, &SECTIONS.map(|section| (section, KEY)));
            let is_usable = |value: &nfs_conf::Value| Path::new(&value.text).is_absolute();
            let set = SECTIONS
                .iter()
                .find_map(|section| Some((section, conf.get(section, KEY).filter(is_usable)?)));
            set.map(|(section, value)| Self {
                path: Path::new(&value.text).join(NAME),
                asked: format!("[{section}] {KEY} of {}", value.file.display()),
            })
        };
        started_with(host).or_else(configured).unwrap_or_else(|| Self::built_in(host, state_directory))
    }

    /// Beside the status monitor's records as on Debian, or in the folder above as on Red Hat, or where nfs-utils is built to
    /// keep it.
    fn built_in(host: &Host, state_directory: &Path) -> Self {
        let above = state_directory.parent().unwrap_or(state_directory);
        let places = [state_directory, above, Path::new(BUILT_IN)].map(|folder| folder.join(NAME));
        let there = places.iter().find(|place| host.at(place).is_file()).unwrap_or(&places[0]);
        Self { path: there.clone(), asked: "nothing moves it".into() }
    }
}

/// The export table in the arguments of the daemon that runs.
fn started_with(host: &Host) -> Option<ExportTable> {
    DAEMONS.iter().find_map(|(daemon, valued)| {
        let found = process::find(host, daemon, &[])?;
        let options = process::options(&process::arguments(host, found.pid), valued);
        let folder = options.get(&'s').map(Path::new).filter(|folder| folder.is_absolute())?;
        Some(ExportTable {
            path: folder.join(NAME),
            asked: format!("the command line of {daemon} (process {})", found.pid),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn the_table_of_exports_is_where_the_daemon_or_else_nfsconf_says() {
        let tree = Tree::debian();
        let of = |state_directory: &str| {
            let table = ExportTable::of(&tree.host(), Path::new(state_directory));
            (table.path.display().to_string(), table.asked)
        };
        assert_eq!(of("/var/lib/nfs").0, "/var/lib/nfs/etab", "there is none yet");
        tree.put("/var/lib/nfs/etab", "");
        assert_eq!(of("/var/lib/nfs/statd").0, "/var/lib/nfs/etab", "as on Red Hat");
        assert_eq!(of("/srv/statd").0, "/var/lib/nfs/etab");
        tree.put("/etc/nfs.conf", "[exportd]\nstate-directory-path=/srv/exportd\n");
        assert_eq!(of("/var/lib/nfs").0, "/srv/exportd/etab");
        tree.put("/etc/nfs.conf.d/site.conf", "[mountd]\nstate-directory-path=srv/mountd\n");
        assert_eq!(
            of("/var/lib/nfs").0,
            "/srv/exportd/etab",
            "a relative one leads to nowhere that is known"
        );
        tree.put("/etc/nfs.conf.d/site.conf", "[mountd]\nstate-directory-path=/srv/mountd\n");
        let (path, asked) = of("/var/lib/nfs");
        assert_eq!(path, "/srv/mountd/etab");
        assert_eq!(asked, "[mountd] state-directory-path of /etc/nfs.conf.d/site.conf");
        tree.nfsconf(false);
        assert_eq!(of("/var/lib/nfs").0, "/srv/exportd/etab", "this version reads no such folder");
        tree.process(812, "/usr/sbin/rpc.mountd", 0);
        assert_eq!(of("/var/lib/nfs").0, "/srv/exportd/etab");
        tree.put("/proc/812/cmdline", "rpc.mountd\0--manage-gids\0-t\0-s\0-gs\0/srv/started\0");
        let (path, asked) = of("/var/lib/nfs");
        assert_eq!(
            (path.as_str(), asked.as_str()),
            ("/srv/started/etab", "the command line of rpc.mountd (process 812)")
        );
    }
}
