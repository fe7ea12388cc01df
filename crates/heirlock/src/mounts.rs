//! The mounts of this server that take locks through its own lock manager: their servers are its peers, and lockd runs on for
//! them also where nfsd stops.

use std::collections::BTreeSet;

use heirlock_nsm::MonName;

/// A mount that takes locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockingMount<'a> {
    /// Where it is mounted.
    pub(crate) at: &'a str,
    /// The server, by its address and by the name that it is mounted by.
    pub(crate) servers: BTreeSet<MonName>,
}

/// Finds them in a mount table (`/proc/mounts`). Only NFSv2 and NFSv3 lock by NLM, and only where not all locks are kept
/// local: the kernel starts lockd for `local_lock=flock` and `local_lock=posix` too (fs/nfs/client.c). `nolock` is the same
/// as `local_lock=all`.
pub(crate) fn locking(table: &str) -> impl Iterator<Item = LockingMount<'_>> {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [source, at, "nfs", options, ..] = fields.as_slice() else { return None };
        let mut options = options.split(',');
        let locks = |o: &str| o != "nolock" && o != "local_lock=all" && !o.starts_with("vers=4");
        if !options.clone().all(locks) {
            return None;
        }
        let by_address = options.find_map(|option| option.strip_prefix("addr="));
        let by_name = source.split_once("]:").or_else(|| source.split_once(':'));
        let by_name = by_name.map(|(server, _)| server.trim_start_matches('['));
        let servers = by_address.into_iter().chain(by_name).filter_map(|name| MonName::parse(name).ok());
        // As records have it, however the mount spells it.
        let servers = servers.map(|name| name.address().map_or(name, MonName::from_address));
        Some(LockingMount { at, servers: servers.collect() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_locks_through_lockd_by_its_version_and_by_what_it_keeps_local() {
        for (line, expected) in [
            ("10.0.0.7:/x /mnt/x nfs rw,vers=3,hard,local_lock=none,addr=10.0.0.7 0 0", Some("10.0.0.7")),
            ("filer:/y /mnt/y nfs rw,vers=3,addr=10.0.0.8 0 0", Some("10.0.0.8 filer")),
            ("filer:/y /mnt/y nfs rw,vers=2,addr=10.0.0.8 0 0", Some("10.0.0.8 filer")),
            ("filer:/y /mnt/y nfs rw,vers=3,local_lock=flock 0 0", Some("filer")),
            ("filer:/y /mnt/y nfs rw,vers=3,local_lock=posix 0 0", Some("filer")),
            ("[2001:db8::5]:/y /mnt/y nfs rw,vers=3,addr=2001:db8::5 0 0", Some("2001:db8::5")),
            ("[::ffff:10.0.0.7]:/y /mnt/y nfs rw,vers=3,addr=::ffff:10.0.0.7 0 0", Some("10.0.0.7")),
            ("filer:/a:/b /mnt/y nfs rw,vers=3 0 0", Some("filer")),
            ("../x:/y /mnt/y nfs rw,vers=3 0 0", Some("")),
            ("filer:/y /mnt/y nfs rw,vers=3,nolock,addr=10.0.0.8 0 0", None),
            ("filer:/y /mnt/y nfs rw,vers=3,nolock,local_lock=all,addr=10.0.0.8 0 0", None),
            ("filer:/y /mnt/y nfs rw,vers=3,local_lock=all,addr=10.0.0.8 0 0", None),
            ("filer:/y /mnt/y nfs rw,vers=4.1,addr=10.0.0.8 0 0", None),
            ("filer:/y /mnt/y nfs4 rw,vers=4.2,addr=10.0.0.8 0 0", None),
            ("/dev/sda1 / ext4 rw 0 0", None),
            ("filer:/y /mnt/y nfs", None),
            ("", None),
        ] {
            let found: Vec<LockingMount<'_>> = locking(line).collect();
            let servers = |mount: &LockingMount<'_>| {
                mount.servers.iter().map(MonName::as_str).collect::<Vec<_>>().join(" ")
            };
            assert_eq!(found.first().map(servers).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn each_is_found_where_it_is_mounted() {
        let table = "a:/x /mnt/x nfs vers=3 0 0\nb:/y /mnt/y nfs4 vers=4.2 0 0\nc:/z /mnt/z nfs vers=3 0 0\n";
        assert_eq!(locking(table).map(|mount| mount.at).collect::<Vec<_>>(), ["/mnt/x", "/mnt/z"]);
    }
}
