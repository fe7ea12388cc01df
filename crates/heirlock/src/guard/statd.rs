//! rpc.statd on this host: whether it runs, which callout it runs, and whether it could.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::host::Host;
use super::nfs_conf::{NfsConf, Value};
use crate::config::Settings;

/// Its unit. Nothing enables it: nfs-server wants it, and mounts start it.
pub(super) const UNIT: &str = "rpc-statd.service";

/// The key of nfs.conf, in `[statd]`, that names its callout.
pub(super) const HA_CALLOUT: &str = "ha-callout";

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
    let Some(user) = user(host, settings) else { return Ok(()) };
    let shown = program.display();
    for above in program.ancestors() {
        // Links on the way are followed; where they lead lies on the same host.
        let meta = match fs::metadata(host.at(above)) {
            Ok(meta) => meta,
            Err(error) => return Err(format!("{shown} can't be looked at: {error}")),
        };
        let needed = if meta.uid() == user { 0o100 } else { 0o001 };
        if user != 0 && meta.mode() & needed == 0 {
            return Err(format!(
                "{shown} can't be run by user {user}, as whom rpc.statd runs ({} has mode {:04o})",
                above.display(),
                meta.mode() & 0o7777
            ));
        }
    }
    Ok(())
}
