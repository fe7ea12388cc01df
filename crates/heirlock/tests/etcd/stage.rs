//! Three members over TLS on a switch, and servers that reach them over a cable each: a server is a network namespace, and its
//! clients are on its own loopback interface, so that a cable that is drawn cuts it off from etcd and not from them.
//!
//! Where a member has a switch of its own, with a server beside it, the trunk between both switches can be cut: then both see each other
//! still, and none of the rest.

use std::path::{Path, PathBuf};

use super::certificates::{authority, certificate};
use super::harness::{Server, Site};
use super::keys;
use super::members::{Members, Place, Tls, within};
use super::network::Network;
use super::{CLIENTS, sh};

/// The members' addresses on the switch. Servers have those from 192.0.2.11 on.
const MEMBERS: [[u8; 4]; 3] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]];

/// The member on the far switch, where there is one.
pub(crate) const FAR: usize = 0;

/// All of it.
pub(crate) struct Stage {
    pub(crate) etcd: Members,
    pub(crate) site: Site,
    /// The server beside the far member.
    beside: Option<char>,
    _certificates: tempfile::TempDir,
}

impl Stage {
    /// Nothing where no etcd is installed, which is noted. Where a server is named, it is on a switch beside a member of its own. The
    /// members have these options besides.
    pub(crate) fn new(beside: Option<char>, options: &[&str]) -> Option<Self> {
        sh(
            "mount -t tmpfs none /run && ip link set lo up && ip link add switch type bridge && ip link set switch up",
        );
        if beside.is_some() {
            sh("ip link add far type bridge && ip link set far up && \
                ip link add trunk type veth peer name trunk-far && \
                ip link set trunk master switch up && ip link set trunk-far master far up && \
                ip netns add member && ip link add cable-member type veth peer name eth0 netns member && \
                ip link set cable-member master far up && \
                ip -n member link set lo up && ip -n member link set eth0 up");
        }
        let mut places = Vec::new();
        for (member, address) in MEMBERS.into_iter().enumerate() {
            let is_far = beside.is_some() && member == FAR;
            let [a, b, c, d] = address;
            let at = if is_far { "-n member addr add" } else { "addr add" };
            let device = if is_far { "eth0" } else { "switch" };
            sh(&format!("ip {at} {a}.{b}.{c}.{d}/24 dev {device}"));
            let namespace = is_far.then(far);
            places.push(Place { address: address.into(), namespace });
        }
        let folder = tempfile::tempdir().unwrap();
        let ca = authority(folder.path());
        let (own, key) = certificate(folder.path(), "own", "/O=heirlock");
        let tls: Tls = [ca, own, key];
        let etcd = Members::start_at(&places, Some(&tls), options)?;
        keys::make_store(&etcd);
        let [ca, own, key] = tls.map(|path| path.display().to_string());
        let site = Site::on(|_| {
            let urls = etcd.urls();
            format!(
                "type = \"etcd\"\nendpoints = {urls:?}\nca = {ca:?}\ncertificate = {own:?}\nkey = {key:?}\n"
            )
        });
        Some(Self { etcd, site, beside, _certificates: folder })
    }

    /// A server `nfs-<letter>` with its cable. It has both clients of its own, which come back to it when they are told.
    pub(crate) fn server(&self, letter: char, last: u8) -> (Server, Network) {
        let switch = if self.beside == Some(letter) { "far" } else { "switch" };
        sh(&format!(
            "ip netns add {letter} && ip link add cable-{letter} type veth peer name eth0 netns {letter} && \
             ip link set cable-{letter} master {switch} up && ip -n {letter} link set lo up && \
             ip -n {letter} addr add 192.0.2.{last}/24 dev eth0 && ip -n {letter} link set eth0 up"
        ));
        let name: &'static str = if letter == 'a' { "nfs-a" } else { "nfs-b" };
        let server = self.site.server(&letter.to_string(), name);
        let home = server.path("");
        let network = within(&namespace(&letter.to_string()), move || Network::new(&CLIENTS, name, home));
        super::meets(&server, &network);
        (server, network)
    }

    /// Starts its agent in its namespace, and waits until it serves.
    pub(crate) fn up(&self, server: &mut Server, letter: char) {
        self.start(server, letter);
        server.wait_for("an agent that answers", |server| server.serves().then_some(()));
    }

    /// Starts its agent in its namespace.
    pub(crate) fn start(&self, server: &mut Server, letter: char) {
        server.start_by(&["nsenter".to_owned(), format!("--net=/run/netns/{letter}")]);
    }

    /// Draws the cable of a server: what is sent is lost, and nobody is told.
    pub(crate) fn cut(&self, letter: char) {
        sh(&format!("ip link set cable-{letter} down"));
    }

    /// Cuts the trunk between the switches, or mends it: the far member and the server beside it are alone.
    pub(crate) fn split(&mut self, is_split: bool) {
        sh(&format!("ip link set trunk {}", if is_split { "down" } else { "up" }));
        self.etcd.note_cut_off(FAR, is_split);
    }

    /// Puts it back.
    pub(crate) fn mend(&self, letter: char) {
        sh(&format!("ip link set cable-{letter} up"));
    }

    /// The generations of `nfs` that were claimed or given up.
    pub(crate) fn claims(&self) -> Vec<String> {
        keys::claims(&self.etcd, "nfs")
    }

    /// The clients on record in a generation of `nfs`.
    pub(crate) fn clients(&self, generation: u64) -> Vec<String> {
        keys::clients(&self.etcd, "nfs", generation)
    }

    /// How many heartbeats of a server etcd has taken.
    pub(crate) fn beats(&self, server: &str) -> u64 {
        keys::heartbeat(&self.etcd, server).writes
    }
}

/// The network namespace of the far member.
pub(crate) fn far() -> PathBuf {
    namespace("member")
}

/// The file of a network namespace.
fn namespace(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}
