//! rpc.statd on this host: whether it runs, which callout it runs, and whether it could.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::host::Host;
use super::nfs_conf::{NfsConf, Value};
use crate::callout;
use crate::config::Settings;

/// Its unit. Nothing enables it: nfs-server wants it, and mounts start it.
pub(super) const UNIT: &str = "rpc-statd.service";

/// The key of nfs.conf, in `[statd]`, that names its callout.
pub(super) const HA_CALLOUT: &str = "ha-callout";

/// TCP state `LISTEN` in `/proc/net/tcp` (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Where a package has our callout, and where 'heirlock enable' links it where there is no package.
const PACKAGED: &str = "/usr/lib/heirlock/heirlock-callout";
const LINKED: &str = "/usr/local/lib/heirlock/heirlock-callout";

/// The process that it runs as.
pub(super) fn running(host: &Host) -> Option<u32> {
    process(host, "rpc.statd")
}

/// A process of this name.
pub(super) fn process(host: &Host, name: &str) -> Option<u32> {
    host.list("/proc").unwrap_or_default().iter().filter_map(|entry| entry.parse::<u32>().ok()).find(|pid| {
        let comm = host.text(Path::new("/proc").join(pid.to_string()).join("comm"));
        comm.is_some_and(|comm| comm.trim() == name)
    })
}

/// The callout that rpc.statd is to run.
pub(super) fn callout(host: &Host) -> PathBuf {
    let packaged = host.at(PACKAGED).symlink_metadata().is_ok();
    PathBuf::from(if packaged { PACKAGED } else { LINKED })
}

/// What a link to our callout leads to: the program that is nothing else, where it was installed beside heirlock. Under
/// the link's name heirlock itself is one too, at more cost for each start.
pub(super) fn callout_program(host: &Host) -> PathBuf {
    let small = host.program.with_file_name(callout::PROGRAM);
    if host.at(&small).is_file() { small } else { host.program.clone() }
}

/// A callout in nfs.conf that is not ours.
pub(super) fn foreign_callout(host: &Host) -> Option<Value> {
    NfsConf::read(host).get("statd", HA_CALLOUT).filter(|value| Path::new(&value.text) != callout(host))
}

/// As whom rpc.statd runs: the owner of its records.
pub(super) fn user(host: &Host, settings: &Settings) -> Option<u32> {
    fs::metadata(host.at(settings.state_directory.join("sm"))).ok().map(|meta| meta.uid())
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
        let meta = fs::metadata(host.at(above)).map_err(|error| format!("{shown} can't be seen: {error}"))?;
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

/// When a process was started, in seconds since 1970.
pub(super) fn started_at(host: &Host, pid: u32) -> Option<i64> {
    let boot = host.text("/proc/stat")?;
    let boot: i64 = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    let stat = host.text(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // Field 22 of proc(5); the name before it may hold anything.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let seconds = ticks / rustix::param::clock_ticks_per_second().max(1);
    Some(boot + i64::try_from(seconds).ok()?)
}

/// The processes that hold the TCP socket which listens at this port of IPv4, with their names.
pub(super) fn holders(host: &Host, port: u16) -> Vec<(u32, String)> {
    let table = host.text("/proc/net/tcp").unwrap_or_default();
    let sockets: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, LISTEN, .., inode] = fields.get(..10)? else { return None };
            let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (at == port).then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let pids = host.list("/proc").unwrap_or_default();
    let mut pids: Vec<u32> = pids.iter().filter_map(|entry| entry.parse().ok()).collect();
    pids.sort_unstable();
    let holds = |pid: &u32| {
        let folder = Path::new("/proc").join(pid.to_string()).join("fd");
        let fds = host.list(&folder).unwrap_or_default();
        fds.iter().any(|fd| {
            let to = fs::read_link(host.at(folder.join(fd)));
            to.is_ok_and(|to| sockets.iter().any(|socket| to == Path::new(socket)))
        })
    };
    let name = |pid: u32| {
        let comm = host.text(Path::new("/proc").join(pid.to_string()).join("comm"));
        (pid, comm.unwrap_or_default().trim().to_owned())
    };
    if sockets.is_empty() { Vec::new() } else { pids.into_iter().filter(holds).map(name).collect() }
}
