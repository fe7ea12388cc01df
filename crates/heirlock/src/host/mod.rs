//! A host, as one value: the root of all that is read from the machine. Nothing else in this program names a file of the
//! machine and reads it.
//!
//! | thing | from |
//! |---|---|
//! | files of the system: units, nfs.conf, exports, /run | [`Host::root`] |
//! | tables of a namespace: mounts, TCP, addresses | [`Host::process`], whose namespaces count |
//! | whether an address is here | a socket in that network namespace |
//! | tables of the kernel: the boot, lockd, other processes | /proc below [`Host::root`] |
//! | other sockets (which program answers at a port), /proc/fs/lockd | the network namespace of the thread that asks, which [`Host::start`] begins there |
//!
//! [`Host::here`] is that of this program. It is made once, where the program begins, and handed down. Another instance of the
//! NFS server has another one, as the tests make it: its root is /proc/PROCESS/root of a process in its mount namespace, and a
//! thread that works for it is begun in its network namespace. Other tests have one below a temporary folder.
//!
//! Three things are of this program itself, for any host that it works for: how its own threads and children do ([`doing`],
//! [`descendants`]), and whether systemd started it ([`runs_systemd`]).

mod announcing;
mod boot;
pub(crate) mod descendants;
pub(crate) mod doing;
pub(crate) mod groups;
mod interfaces;
pub(crate) mod mountd;
mod namespace;
pub(crate) mod nfs_conf;
mod peers;
mod presence;
pub(crate) mod process;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod volumes;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::files::{self, trusted};

pub(crate) use mountd::ExportTable;
pub(crate) use peers::Peers;

/// Bytes of the largest file of the host that is read.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where systemd looks for a unit; the first one that has it decides (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    ADMINISTRATORS_UNITS,
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Where an administrator's units and masks lie. NixOS has all units there.
pub(crate) const ADMINISTRATORS_UNITS: &str = "/etc/systemd/system";

/// Where programs of nfs-utils are installed, besides where their units and PATH say.
const PROGRAM_FOLDERS: [&str; 8] = [
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/run/current-system/sw/bin",
    "/run/current-system/sw/sbin",
];

/// Units that start programs of nfs-utils.
const PROGRAM_UNITS: [&str; 3] = ["rpc-statd.service", "rpc-statd-notify.service", "nfs-server.service"];

/// The process whose namespaces count, where it is this program itself.
const SELF: &str = "self";

/// The socket by which rpcbind answers programs of its own host.
const RPCBIND_SOCKET: &str = "/run/rpcbind.sock";

/// One root for all that is read from the machine.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The folder that stands for `/`.
    pub(crate) root: PathBuf,
    /// The name under /proc of a process that is in this host's mount and network namespace: its mounts, and its tables of the
    /// network, are this host's.
    pub(crate) process: String,
    /// How it is known which addresses are here.
    pub(crate) network: Network,
    /// systemd's, where systemd runs.
    pub(crate) systemctl: Option<PathBuf>,
    /// The program that the unit starts.
    pub(crate) program: PathBuf,
    /// Where programs lie that are asked; the host's own where it is `None`.
    pub(crate) tools: Option<PathBuf>,
}

/// How it is known which addresses are on a host.
#[derive(Debug, Clone)]
pub(crate) enum Network {
    /// Sockets say it, in the network namespace of the host's process.
    BySockets,
    /// A test says so.
    #[cfg(test)]
    With(BTreeSet<std::net::IpAddr>),
}

/// The state of a unit, as systemd would load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unit {
    /// There is none of this name.
    Absent,
    /// It can't be started.
    Masked(PathBuf),
    /// It can.
    Present(PathBuf),
}

impl Host {
    /// This one.
    pub(crate) fn here() -> Self {
        Self {
            root: PathBuf::from("/"),
            process: SELF.to_owned(),
            network: Network::BySockets,
            systemctl: runs_systemd().then(|| PathBuf::from("systemctl")),
            program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/heirlock")),
            tools: None,
        }
    }

    /// The host of an instance: as a process sees it that is in its mount and network namespace.
    #[cfg(test)]
    pub(crate) fn of(process: u32) -> Self {
        let root = Path::new("/proc").join(process.to_string()).join("root");
        Self { root, process: process.to_string(), ..Self::here() }
    }

    /// A program that can be asked.
    pub(crate) fn tool(&self, name: &str) -> Option<PathBuf> {
        match &self.tools {
            Some(folder) => Some(folder.join(name)).filter(|path| path.is_file()),
            None => self.installed(name),
        }
    }

    /// Where a program of nfs-utils is installed: in one of the usual folders, beside what their units start, or in PATH.
    pub(crate) fn installed(&self, name: &str) -> Option<PathBuf> {
        let usual = PROGRAM_FOLDERS.iter().map(PathBuf::from);
        let of_units =
            PROGRAM_UNITS.iter().filter_map(|unit| self.started_by(unit)?.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").filter(|_| self.root == Path::new("/")).unwrap_or_default();
        let of_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect::<Vec<_>>();
        usual
            .chain(of_units)
            .chain(of_path)
            .map(|folder| folder.join(name))
            .find(|path| self.at(path).is_file())
    }

    /// The program that a unit starts, as its file says.
    fn started_by(&self, unit: &str) -> Option<PathBuf> {
        let Unit::Present(path) = self.unit(unit) else { return None };
        let text = self.text(path)?;
        let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("ExecStart="))?;
        let program =
            line.trim_start_matches(['-', '@', ':', '+', '!', '|', ' ']).split_whitespace().next()?;
        Some(PathBuf::from(program)).filter(|path| path.is_absolute())
    }

    /// Where a path of the host lies.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where a file of the kernel's lies, below /proc.
    pub(crate) fn proc(&self, path: impl AsRef<Path>) -> PathBuf {
        self.at("/proc").join(path)
    }

    /// Where a table of its network lies, such as `tcp`.
    pub(crate) fn net(&self, table: &str) -> PathBuf {
        self.of_process("net").join(table)
    }

    /// Where the table of its mounts lies.
    pub(crate) fn mount_table(&self) -> PathBuf {
        self.of_process("mounts")
    }

    /// The text of a table of its network; `None` where there is none.
    pub(crate) fn table(&self, name: &str) -> Option<String> {
        trusted::read_system(self.net(name)).ok()
    }

    /// Its mounts; none where the table can't be read.
    pub(crate) fn mounts(&self) -> String {
        trusted::read_system(self.mount_table()).unwrap_or_default()
    }

    /// The socket by which its rpcbind answers.
    pub(crate) fn rpcbind_socket(&self) -> PathBuf {
        self.at(RPCBIND_SOCKET)
    }

    /// Its node name (uname(2)): of the thread that asks, as its network is.
    pub(crate) fn node(&self) -> Option<String> {
        rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
    }

    /// The release of its kernel.
    pub(crate) fn kernel(&self) -> String {
        rustix::system::uname().release().to_string_lossy().into_owned()
    }

    fn of_process(&self, name: &str) -> PathBuf {
        self.proc(&self.process).join(name)
    }

    /// The bytes of a file, or `None` where there is none.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> io::Result<Option<Vec<u8>>> {
        files::if_present(trusted::read(&self.at(path), FILE_BYTES_MAX))
    }

    /// The text of a file; `None` where there is none or it can't be read: for files that may be missing.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        self.read(path).ok().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub(crate) fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = files::if_present(trusted::names(&self.at(path), crate::limits::PROCESSES_MAX))?
            .unwrap_or_default();
        let mut names: Vec<String> = entries.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Whether two paths lead to the same place; where one can't be seen, whether they are spelt alike.
    pub(crate) fn is_same(&self, one: &Path, other: &Path) -> bool {
        let place = |path: &Path| trusted::stat(self.at(path)).map(|meta| (meta.dev(), meta.ino()));
        match (place(one), place(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => one == other,
        }
    }

    /// The texts of all units whose names end so and that are not masked.
    pub(crate) fn unit_texts(&self, kind: &str) -> Vec<String> {
        let folders = UNIT_FOLDERS.iter().filter_map(|folder| self.list(folder).ok());
        let names: BTreeSet<String> = folders.flatten().filter(|name| name.ends_with(kind)).collect();
        let present = names.iter().filter_map(|name| match self.unit(name) {
            Unit::Present(path) => self.text(path),
            Unit::Absent | Unit::Masked(_) => None,
        });
        present.collect()
    }

    /// The state of a unit, as systemd would load it, told from the files alone: asking systemctl takes too long.
    pub(crate) fn unit(&self, name: &str) -> Unit {
        for folder in UNIT_FOLDERS {
            let path = Path::new(folder).join(name);
            let Ok(metadata) = trusted::stat_of_link(self.at(&path)) else { continue };
            let to_null = trusted::read_link(self.at(&path))
                .is_ok_and(|to| to == Path::new("/dev/null") || is_null(&to));
            if to_null || (metadata.is_file() && metadata.len() == 0) {
                return Unit::Masked(path);
            }
            return Unit::Present(path);
        }
        Unit::Absent
    }
}

/// Whether systemd runs the machine (sd_booted(3)).
pub(crate) fn runs_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A link to the null device by another name, such as `../../../dev/null`.
fn is_null(to: &Path) -> bool {
    to.ends_with("dev/null") && trusted::stat("/dev/null").is_ok_and(|m| m.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn the_folder_with_the_highest_precedence_says_whether_a_unit_is_masked() {
        let tree = Tree::new();
        let host = tree.host();
        let name = "rpc-statd-notify.service";
        assert_eq!(host.unit(name), Unit::Absent);
        tree.put("/lib/systemd/system/rpc-statd-notify.service", "[Unit]\n");
        assert_eq!(host.unit(name), Unit::Present(Path::new("/lib/systemd/system").join(name)));
        tree.folder("/etc/systemd/system");
        let mask = host.at("/etc/systemd/system/rpc-statd-notify.service");
        symlink("/dev/null", &mask).unwrap();
        assert_eq!(host.unit(name), Unit::Masked(Path::new("/etc/systemd/system").join(name)));
        fs::remove_file(&mask).unwrap();
        tree.put("/etc/systemd/system/rpc-statd-notify.service", "");
        assert!(matches!(host.unit(name), Unit::Masked(_)), "an empty file masks as well");
    }

    #[test]
    fn a_file_that_is_not_there_is_none_and_a_folder_that_is_not_there_is_empty() {
        let tree = Tree::new();
        assert_eq!(tree.host().read("/etc/nfs.conf").unwrap(), None);
        assert!(tree.host().list("/etc/nfs.conf.d").unwrap().is_empty());
        tree.put("/etc/nfs.conf", "x");
        assert_eq!(tree.host().text("/etc/nfs.conf").as_deref(), Some("x"));
    }

    #[test]
    fn programs_are_found_where_units_start_them() {
        let tree = Tree::new();
        let host = tree.host();
        assert_eq!(host.installed("sm-notify"), None);
        tree.put("/nix/store/x/sbin/sm-notify", "program\n");
        tree.put(
            "/etc/systemd/system/rpc-statd.service",
            "[Service]\nExecStart=-/nix/store/x/sbin/rpc.statd -L\n",
        );
        assert_eq!(host.installed("sm-notify"), Some("/nix/store/x/sbin/sm-notify".into()));
        tree.put("/usr/local/bin/sm-notify", "program\n");
        assert_eq!(host.installed("sm-notify"), Some("/usr/local/bin/sm-notify".into()));
    }
}
