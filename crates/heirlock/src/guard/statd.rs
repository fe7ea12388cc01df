//! rpc.statd on this host: whether it runs, with what it was started, which callout it runs, and whether it could.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::callout;
use crate::config::Settings;
use crate::files::trusted;
use crate::host::Host;
use crate::host::nfs_conf::{NfsConf, Value};
use crate::host::process;

/// Its unit. Nothing enables it: nfs-server wants it, and mounts start it.
pub(super) const UNIT: &str = "rpc-statd.service";

/// Where it looks for records, unless told otherwise: as Debian and as Red Hat build it.
pub(super) const DIRECTORIES: [&str; 2] = ["/var/lib/nfs", "/var/lib/nfs/statd"];

/// The key of nfs.conf, in `[statd]`, that names its callout.
pub(super) const HA_CALLOUT: &str = "ha-callout";

/// TCP state `LISTEN` in `/proc/net/tcp` (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Where a package has our callout, and where 'heirlock enable' links it where there is no package.
const PACKAGED: &str = "/usr/lib/heirlock/heirlock-callout";
const LINKED: &str = "/usr/local/lib/heirlock/heirlock-callout";

/// rpc.statd as it runs, whatever the files say: the options that it was started with decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    /// Its number.
    pub(super) pid: u32,
    /// As whom it runs.
    pub(super) user: u32,
    /// Where it keeps its records, where that can be seen.
    pub(super) directory: Option<PathBuf>,
    /// The callout that its command line names (`-H`).
    pub(super) callout: Option<String>,
    /// The only address or name that it listens at (`-n`).
    pub(super) name: Option<String>,
    /// It is a container's: its own tools end it.
    pub(super) in_container: bool,
}

/// Options of rpc.statd that have a value (nfs-utils, utils/statd/statd.c), the short one and the long one.
const VALUED: [(char, &str); 7] = [
    ('H', "ha-callout"),
    ('n', "name"),
    ('p', "port"),
    ('o', "outgoing-port"),
    ('P', "state-directory-path"),
    ('T', "nlm-port"),
    ('U', "nlm-udp-port"),
];

/// The status monitor's directory where the configuration doesn't name it, and the source of that path in words: rpc.statd as
/// it runs, or else nfsconf, or else the way in which nfs-utils is built here.
pub(super) fn directory(host: &Host) -> (PathBuf, String) {
    let key = ("statd", "state-directory-path");
    let set = NfsConf::read_some(host, &[key]).get(key.0, key.1);
    let set = set.filter(|value| Path::new(&value.text).is_absolute());
    let folders = set.iter().map(|value| PathBuf::from(&value.text));
    let folders = folders.chain(DIRECTORIES.iter().map(PathBuf::from)).collect::<Vec<_>>();
    // A process of that name that another user runs does not count.
    let running = running_as(host, &owners_of_records(host, &folders));
    let works_in = running.and_then(|running| {
        let directory = running.directory.filter(|directory| host.at(directory).is_dir())?;
        Some((directory, format!("rpc.statd (process {}) keeps its records there", running.pid)))
    });
    let configured = || {
        let value = set?;
        let asked = format!("[statd] state-directory-path of {}", value.file.display());
        Some((PathBuf::from(value.text), asked))
    };
    works_in.or_else(configured).unwrap_or_else(|| {
        let there = |folder: &&&str| host.at(Path::new(folder).join("sm")).is_dir();
        // Red Hat's lies in Debian's, and only where it is used.
        let folder = DIRECTORIES.iter().rev().find(there).unwrap_or(&DIRECTORIES[0]);
        (PathBuf::from(folder), "nothing moves it".to_owned())
    })
}

/// This host's rpc.statd.
pub(super) fn running(host: &Host, settings: &Settings) -> Option<Running> {
    running_as(host, &users(host, settings))
}

fn running_as(host: &Host, users: &[u32]) -> Option<Running> {
    let found = process::find(host, "rpc.statd", users)?;
    let options = process::options(&process::arguments(host, found.pid), &VALUED);
    // It works in its directory (nfs-utils, support/nsm/file.c); its options say which directory was meant.
    let works_in = process::working_directory(host, found.pid).filter(|folder| folder != Path::new("/"));
    Some(Running {
        pid: found.pid,
        user: found.user,
        directory: works_in.or_else(|| options.get(&'P').map(PathBuf::from)),
        callout: options.get(&'H').cloned(),
        name: options.get(&'n').cloned(),
        in_container: found.in_container,
    })
}

/// As whom rpc.statd and sm-notify may run besides root: the owners of the directories where they keep their records, which
/// only root can give away.
pub(super) fn users(host: &Host, settings: &Settings) -> Vec<u32> {
    let mut folders = vec![settings.state_directory.clone()];
    folders.extend(DIRECTORIES.iter().map(PathBuf::from));
    owners_of_records(host, &folders)
}

fn owners_of_records(host: &Host, folders: &[PathBuf]) -> Vec<u32> {
    let records = folders.iter().map(|folder| host.at(folder.join("sm")));
    records.filter_map(|records| trusted::stat_of_link(records).ok()).map(|meta| meta.uid()).collect()
}

/// The callout that rpc.statd is to run.
pub(super) fn callout(host: &Host) -> PathBuf {
    let packaged = trusted::stat_of_link(host.at(PACKAGED)).is_ok();
    PathBuf::from(if packaged { PACKAGED } else { LINKED })
}

/// Whether a callout is ours, by whatever name: our link, or the program that it leads to.
pub(super) fn is_our_callout(host: &Host, named: &str) -> bool {
    let (named, program) = (Path::new(named), callout_program(host));
    let is_program = |path: &Path| host.is_same(path, &program) || host.is_same(path, &host.program);
    named == callout(host)
        || (is_program(named) && named.file_name().is_some_and(|name| name == callout::PROGRAM))
}

/// The target of a link to our callout: the program that is nothing else, where it was installed beside heirlock. Under
/// the link's name heirlock itself is one too, at more cost for each start.
pub(super) fn callout_program(host: &Host) -> PathBuf {
    let small = host.program.with_file_name(callout::PROGRAM);
    if host.at(&small).is_file() { small } else { host.program.clone() }
}

/// The callout that rpc.statd runs, or will at its next start: its options come before nfs.conf.
pub(super) fn named_callout(host: &Host, settings: &Settings) -> Option<Value> {
    let running = running(host, settings);
    let on_command_line = running.and_then(|running| {
        let file = format!("the command line of rpc.statd (process {})", running.pid).into();
        Some(Value { text: running.callout?, file })
    });
    on_command_line.or_else(|| NfsConf::read_some(host, &[("statd", HA_CALLOUT)]).get("statd", HA_CALLOUT))
}

/// As whom rpc.statd runs: the owner of its records.
pub(super) fn user(host: &Host, settings: &Settings) -> Option<u32> {
    trusted::stat_of_link(host.at(settings.state_directory.join("sm"))).ok().map(|meta| meta.uid())
}

/// Whether rpc.statd's user may run this program; else why not.
pub(super) fn may_run(host: &Host, settings: &Settings, program: &Path) -> Result<(), String> {
    may_pass(host, settings, program)
        .map_err(|why| format!("{} can't be run by rpc.statd, for {why}", program.display()))
}

/// Whether rpc.statd's user may pass through all of a path; else where not.
pub(super) fn may_pass(host: &Host, settings: &Settings, path: &Path) -> Result<(), String> {
    let Some(user) = user(host, settings) else { return Ok(()) };
    for above in path.ancestors() {
        // Links on the way are followed; where they lead lies on the same host.
        let shown = above.display();
        let meta =
            trusted::stat(host.at(above)).map_err(|error| format!("{shown} can't be seen: {error}"))?;
        let needed = if meta.uid() == user { 0o100 } else { 0o001 };
        if user != 0 && meta.mode() & needed == 0 {
            return Err(format!(
                "{shown} has mode {:04o} and is not open to its user {user}",
                meta.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

/// The processes that hold the TCP socket which listens at this port of IPv4, with the programs that they are.
pub(super) fn holders(host: &Host, port: u16) -> Vec<(u32, String)> {
    let table = host.table("tcp").unwrap_or_default();
    let sockets: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, LISTEN, .., inode] = fields.get(..10)? else { return None };
            let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (at == port).then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let pids = process::numbers(host);
    let holds = |pid: &u32| {
        let folder = process::folder(*pid).join("fd");
        let fds = host.list(&folder).unwrap_or_default();
        fds.iter().any(|fd| {
            let to = trusted::read_link(host.at(folder.join(fd)));
            to.is_ok_and(|to| sockets.iter().any(|socket| to == Path::new(socket)))
        })
    };
    let name = |pid: u32| (pid, process::program(host, pid).unwrap_or_default());
    if sockets.is_empty() { Vec::new() } else { pids.into_iter().filter(holds).map(name).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{Tree, settings};

    #[test]
    fn rpc_statds_options_are_read_as_it_reads_them() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let of = |line: &str| process::options(&words(line), &VALUED);
        for (line, option, expected) in [
            ("rpc.statd --no-notify -P /run/x -n 127.0.0.1", 'P', Some("/run/x")),
            ("rpc.statd -FLP/run/x", 'P', Some("/run/x")),
            ("rpc.statd --state-directory-path=/a --state=/b", 'P', Some("/b")),
            ("rpc.statd --no-notify", 'n', None),
            ("rpc.statd --na nfs", 'n', Some("nfs")),
            ("rpc.statd -p 662 --ha-callout /usr/sbin/c", 'H', Some("/usr/sbin/c")),
            ("rpc.statd -o 2 -- -H x", 'H', None),
            ("rpc.statd -H", 'H', None),
        ] {
            assert_eq!(of(line).get(&option).map(String::as_str), expected, "{line}");
        }
    }

    #[test]
    fn a_directory_that_is_not_configured_is_where_the_running_daemon_or_else_nfsconf_says() {
        let tree = Tree::debian();
        let found = || {
            let (path, asked) = directory(&tree.host());
            (path.display().to_string(), asked)
        };
        assert_eq!(found(), ("/var/lib/nfs".into(), "nothing moves it".into()));
        tree.folder("/var/lib/nfs/statd/sm");
        assert_eq!(found().0, "/var/lib/nfs/statd", "as on Red Hat");
        tree.put("/etc/nfs.conf", "[statd]\nstate-directory-path=/srv/statd\n");
        assert_eq!(found(), ("/srv/statd".into(), "[statd] state-directory-path of /etc/nfs.conf".into()));
        tree.process(4711, "/usr/sbin/rpc.statd", rustix::process::geteuid().as_raw());
        tree.put("/proc/4711/cmdline", "rpc.statd\0-P\0/srv/started\0");
        assert_eq!(found().0, "/srv/statd", "there is no such folder");
        tree.folder("/srv/started/sm");
        let asked = "rpc.statd (process 4711) keeps its records there".to_owned();
        assert_eq!(found(), ("/srv/started".into(), asked));
        tree.process(4711, "/usr/sbin/rpc.statd", 54_321);
        tree.put("/proc/4711/cmdline", "rpc.statd\0-P\0/srv/started\0");
        assert_eq!(found().0, "/srv/statd", "another user's process");
        tree.put("/etc/nfs.conf", "[statd]\nstate-directory-path=srv/statd\n");
        assert_eq!(found().0, "/var/lib/nfs/statd", "no path from the root");
    }

    #[test]
    fn the_working_directory_of_rpc_statd_comes_before_its_arguments() {
        let tree = Tree::with_statd();
        let directory = || running(&tree.host(), &settings("")).unwrap().directory;
        assert_eq!(directory(), None);
        tree.put("/proc/4711/cmdline", "rpc.statd\0-P\0/srv/nfs-state\0");
        assert_eq!(directory(), Some("/srv/nfs-state".into()));
        tree.relink("/proc/4711/cwd", "/srv/elsewhere");
        assert_eq!(directory(), Some("/srv/elsewhere".into()));
    }
}
