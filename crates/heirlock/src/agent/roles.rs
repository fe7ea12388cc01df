//! Who is a peer, and who is certainly a client: read from the mount table and the TCP table.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use heirlock_core::ledger::Roles;
use heirlock_nsm::MonName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::mounts;

/// NFS's own port. lockd's differs from boot to boot and is asked for at rpcbind.
const NFS_PORT: u16 = 2049;

/// TCP state `ESTABLISHED` in `/proc/net/tcp` (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// Reads the roles from `/proc`. What can't be read says nothing: a record is a client's unless it is known better.
///
/// Who is connected is asked only where it may take a peer's role from it: one that is mounted now, or one that somebody
/// remembers. For each piece that is read of `net/tcp` the kernel walks through all of its table, which takes milliseconds.
pub(crate) fn read(proc: &Path, nlm_ports: &[u16], remembers: bool) -> Roles {
    let table = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let peers = peers(&table("mounts"));
    if peers.is_empty() && !remembers {
        return Roles::default();
    }
    let mut connected = connected(&table("net/tcp"), nlm_ports);
    connected.extend(connected_v6(&table("net/tcp6"), nlm_ports));
    Roles { peers, connected }
}

/// The servers that this host mounts from, of which the kernel says when they have become others: asked for each
/// newcomer of a storm, the whole mount table would be most of the work.
#[derive(Debug)]
pub(crate) struct Peers {
    proc: PathBuf,
    mounts: Option<File>,
    names: BTreeSet<MonName>,
}

impl Peers {
    /// Those that this folder, `/proc`, tells of.
    pub(crate) fn of(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), mounts: None, names: BTreeSet::new() }
    }

    /// Whether this is a server that we mount from and nothing else. The TCP table is read only if it may be one.
    pub(crate) fn contain(&mut self, name: &MonName) -> bool {
        if self.mounts.as_ref().is_none_or(has_changed) {
            self.look();
        }
        // lockd's own port isn't known here; whoever locks has a connection to NFS as well, or had one a moment ago.
        self.names.contains(name) && read(&self.proc, &[], false).is_peer(name)
    }

    fn look(&mut self) {
        let mut table = String::new();
        let mut open = File::open(self.proc.join("mounts")).ok();
        if open.as_mut().is_none_or(|file| file.read_to_string(&mut table).is_err()) {
            open = None;
        }
        self.names = peers(&table);
        self.mounts = open;
    }
}

/// Whether the mount table is another one than when it was opened (proc(5): `/proc/pid/mounts`).
fn has_changed(mounts: &File) -> bool {
    let mut asked = [PollFd::new(mounts, PollFlags::PRI)];
    let answer = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    answer.is_err() || asked[0].revents().intersects(PollFlags::PRI | PollFlags::ERR)
}

fn peers(table: &str) -> BTreeSet<MonName> {
    mounts::locking(table).flat_map(|mount| mount.servers).collect()
}

fn connected(table: &str, nlm_ports: &[u16]) -> BTreeSet<MonName> {
    connections(table, nlm_ports)
        .filter_map(|address| {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.swap_bytes())))
        })
        .map(MonName::from_address)
        .collect()
}

fn connected_v6(table: &str, nlm_ports: &[u16]) -> BTreeSet<MonName> {
    connections(table, nlm_ports).filter_map(parse_v6).map(MonName::from_address).collect()
}

/// Four 32-bit words, each in the byte order of the machine; a v4-mapped one is the IPv4 address it stands for.
fn parse_v6(text: &str) -> Option<IpAddr> {
    let mut octets = [0_u8; 16];
    for (word, chunk) in octets.chunks_mut(4).enumerate() {
        let digits = text.get(word * 8..word * 8 + 8)?;
        chunk.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.swap_bytes().to_be_bytes());
    }
    let address = Ipv6Addr::from(octets);
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

/// The remote addresses, as the table spells them, of established connections to NFS's or NLM's local port.
fn connections<'a>(table: &'a str, nlm_ports: &'a [u16]) -> impl Iterator<Item = &'a str> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let ours = port == NFS_PORT || nlm_ports.contains(&port);
        (ours && state == ESTABLISHED).then_some(remote.rsplit_once(':')?.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: &BTreeSet<MonName>) -> Vec<&str> {
        set.iter().map(MonName::as_str).collect()
    }

    #[test]
    fn whoever_we_mount_from_with_locks_is_a_peer() {
        let table = "10.0.0.7:/x /mnt/x nfs rw,vers=3,hard,addr=10.0.0.7 0 0\n\
                     filer:/y /mnt/y nfs rw,vers=3,addr=10.0.0.8 0 0\n\
                     10.0.0.5:/n /mnt/n nfs rw,vers=3,local_lock=all,addr=10.0.0.5 0 0\n\
                     /dev/sda1 / ext4 rw 0 0\n";
        assert_eq!(names(&peers(table)), ["10.0.0.7", "10.0.0.8", "filer"]);
    }

    #[test]
    fn a_connection_to_nfs_or_nlm_makes_a_client() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0A00630A:0801 1500630A:03E7 01 0 0\n\
            1: 0A00630A:A28B 1600630A:03E8 01 0 0\n\
            2: 0A00630A:0016 1700630A:03E8 01 0 0\n\
            3: 00000000:0801 00000000:0000 0A 0 0\n";
        assert_eq!(names(&connected(table, &[0xA28B])), ["10.99.0.21", "10.99.0.22"]);
    }

    #[test]
    fn a_mapped_address_is_the_one_it_stands_for() {
        let table = "  sl\n0: 0000000000000000FFFF00000A00630A:0801 0000000000000000FFFF00001500630A:03E7 01 0\n\
                     1: X:0801 B80D0120000000000000000005000000:03E7 01 0\n";
        assert_eq!(names(&connected_v6(table, &[])), ["10.99.0.21", "2001:db8::5"]);
    }
}
