//! The peers of a host, and the hosts that are certainly its clients: read from the mount table and the TCP table.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heirlock_core::ledger::Roles;
use heirlock_nsm::MonName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Host;
use crate::files::trusted;
use crate::mounts;

/// NFS's own port. lockd's differs from boot to boot and is asked for at rpcbind.
const NFS_PORT: u16 = 2049;

/// TCP state `ESTABLISHED` in `/proc/net/tcp` (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// The peers of a host, as `/proc` says. The servers that this host mounts from are remembered until the kernel says
/// that they have become others: asked for at each look, and for each newcomer of a storm, the whole mount table would be
/// most of the work.
#[derive(Debug)]
pub(crate) struct Peers {
    host: Host,
    mounts: Option<File>,
    names: BTreeSet<MonName>,
}

impl Host {
    /// Its peers, and the hosts that are certainly its clients.
    pub(crate) fn peers(&self) -> Peers {
        Peers { host: self.clone(), mounts: None, names: BTreeSet::new() }
    }
}

impl Peers {
    /// The roles now. A table that can't be read says nothing: a record is a client's unless it is known better.
    ///
    /// The connected hosts are asked for only where a connection may take a peer's role from it: of a peer that is mounted
    /// now, or one that is remembered. For each piece that is read of `net/tcp` the kernel walks through all of its table,
    /// which takes milliseconds.
    pub(crate) fn roles(&mut self, nlm_ports: &[u16], remembers: bool) -> Roles {
        self.look_if_changed();
        if self.names.is_empty() && !remembers {
            return Roles::default();
        }
        Roles { peers: self.names.clone(), connected: self.connected(nlm_ports) }
    }

    /// Whether this is a server that we mount from and nothing else.
    pub(crate) fn contain(&mut self, name: &MonName) -> bool {
        self.look_if_changed();
        // lockd's own port isn't known here; a client that locks has a connection to NFS as well, or had one a moment ago.
        self.names.contains(name) && !self.connected(&[]).contains(name)
    }

    fn look_if_changed(&mut self) {
        if self.mounts.as_ref().is_some_and(|mounts| !has_changed(mounts)) {
            return;
        }
        let mut table = Vec::new();
        let mut open = trusted::open(&self.host.mount_table()).ok();
        if open.as_mut().is_none_or(|file| file.read_to_end(&mut table).is_err()) {
            // Nor does the piece that came before the failure say anything.
            (open, table) = (None, Vec::new());
        }
        // Every user may mount something at a name that is no text (FUSE): it says nothing of the other mounts.
        self.names = peers(&String::from_utf8_lossy(&table));
        self.mounts = open;
    }

    fn connected(&self, nlm_ports: &[u16]) -> BTreeSet<MonName> {
        let table = |name: &str| self.host.table(name).unwrap_or_default();
        let mut connected = connected(&table("tcp"), nlm_ports);
        connected.extend(connected_v6(&table("tcp6"), nlm_ports));
        connected
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
    use crate::host::testing::{Instance, Tree};

    fn names(set: &BTreeSet<MonName>) -> Vec<&str> {
        set.iter().map(MonName::as_str).collect()
    }

    #[test]
    fn a_server_that_we_mount_from_with_locks_is_a_peer() {
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

    /// A host whose tables are ordinary files, of which the kernel never says that they changed.
    fn tree(mounts: impl AsRef<[u8]>, tcp: &str) -> Tree {
        let tree = Tree::new();
        tree.put("/proc/self/mounts", mounts);
        tree.put("/proc/self/net/tcp", tcp);
        tree
    }

    const MOUNTS: &str = "10.0.0.7:/x /mnt/x nfs rw,vers=3,addr=10.0.0.7 0 0\n\
                          10.0.0.8:/x /mnt/y nfs rw,vers=3,addr=10.0.0.8 0 0\n";
    const TCP: &str = "  sl  local_address rem_address   st\n\
                       0: 0A00630A:0801 0800000A:03E7 01 0 0\n\
                       1: 0A00630A:A28B 0900000A:03E8 01 0 0\n";

    #[test]
    fn the_mount_table_is_read_once_while_it_stays_the_same() {
        let tree = tree(MOUNTS, TCP);
        let mut peers = tree.host().peers();
        let roles = peers.roles(&[], false);
        assert_eq!(
            (names(&roles.peers), names(&roles.connected)),
            (vec!["10.0.0.7", "10.0.0.8"], vec!["10.0.0.8"])
        );
        tree.remove("/proc/self/mounts");
        assert_eq!(peers.roles(&[], false), roles);
        let [peer, client, unknown] =
            ["10.0.0.7", "10.0.0.8", "10.0.0.9"].map(|n| MonName::parse(n).unwrap());
        assert!(peers.contain(&peer) && !peers.contain(&client) && !peers.contain(&unknown));
        // Connections change without a word.
        tree.remove("/proc/self/net/tcp");
        assert!(peers.contain(&client));
    }

    #[test]
    fn a_mount_point_that_is_no_text_hides_no_peer() {
        let table = [b"fuse /mnt/\xff\xfe fuse.x rw 0 0\n".as_slice(), MOUNTS.as_bytes()].concat();
        let tree = tree(table, TCP);
        assert_eq!(names(&tree.host().peers().roles(&[], false).peers), ["10.0.0.7", "10.0.0.8"]);
    }

    #[test]
    fn without_mounts_connected_hosts_are_asked_for_where_peers_are_remembered() {
        let tree = tree("/dev/sda1 / ext4 rw 0 0\n", TCP);
        let mut peers = tree.host().peers();
        assert_eq!(peers.roles(&[0xA28B], false), Roles::default());
        assert_eq!(names(&peers.roles(&[0xA28B], true).connected), ["10.0.0.8", "10.0.0.9"]);
        // A table that can't be read is none, and is asked for again.
        let tree = Tree::new();
        let mut peers = tree.host().peers();
        assert_eq!(peers.roles(&[], true), Roles::default());
        tree.put("/proc/self/mounts", MOUNTS);
        assert_eq!(names(&peers.roles(&[], false).peers), ["10.0.0.7", "10.0.0.8"]);
    }

    #[test]
    fn the_kernel_says_when_the_mount_table_changed() {
        let mounts = "mount -t tmpfs none /mnt";
        let Some(mut instance) = Instance::begin(&["--mount"], "true", mounts) else { return };
        let mut peers = instance.host.peers();
        assert_eq!(peers.roles(&[], false), Roles::default());
        let table = peers.mounts.as_ref().unwrap();
        assert!(!has_changed(table) && !has_changed(table));
        instance.go_on();
        assert!(has_changed(table));
    }
}
