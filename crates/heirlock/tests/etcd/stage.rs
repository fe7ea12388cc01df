//! Three members over TLS on a switch, and servers that reach them over a cable each: a server is a network namespace, and its
//! clients are on its own loopback interface, so that a cable that is drawn cuts it off from etcd and not from them.

use std::path::Path;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::certificates::{authority, certificate};
use super::harness::{Server, Site};
use super::keys;
use super::members::{Members, Tls};
use super::network::Network;
use super::{CLIENTS, sh};

/// The members' addresses on the switch. Servers have those from 192.0.2.11 on.
const MEMBERS: [[u8; 4]; 3] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]];

/// All of it.
pub(crate) struct Stage {
    pub(crate) etcd: Members,
    pub(crate) site: Site,
    _certificates: tempfile::TempDir,
}

impl Stage {
    /// Nothing where no etcd is installed, which is noted.
    pub(crate) fn new() -> Option<Self> {
        sh(
            "mount -t tmpfs none /run && ip link set lo up && ip link add switch type bridge && ip link set switch up",
        );
        for [a, b, c, d] in MEMBERS {
            sh(&format!("ip addr add {a}.{b}.{c}.{d}/24 dev switch"));
        }
        let folder = tempfile::tempdir().unwrap();
        let ca = authority(folder.path());
        let (own, key) = certificate(folder.path(), "own", "/O=heirlock");
        let tls: Tls = [ca, own, key];
        let etcd = Members::start(&MEMBERS.map(Into::into), Some(&tls))?;
        keys::make_store(&etcd);
        let [ca, own, key] = tls.map(|path| path.display().to_string());
        let site = Site::on(|_| {
            let urls = etcd.urls();
            format!(
                "type = \"etcd\"\nendpoints = {urls:?}\nca = {ca:?}\ncertificate = {own:?}\nkey = {key:?}\n"
            )
        });
        Some(Self { etcd, site, _certificates: folder })
    }

    /// A server `nfs-<letter>` with its cable. It has both clients of its own, which come back to it when they are told.
    pub(crate) fn server(&self, letter: char, last: u8) -> (Server, Network) {
        sh(&format!(
            "ip netns add {letter} && ip link add cable-{letter} type veth peer name eth0 netns {letter} && \
             ip link set cable-{letter} master switch up && ip -n {letter} link set lo up && \
             ip -n {letter} addr add 192.0.2.{last}/24 dev eth0 && ip -n {letter} link set eth0 up"
        ));
        let name: &'static str = if letter == 'a' { "nfs-a" } else { "nfs-b" };
        let server = self.site.server(&letter.to_string(), name);
        let home = server.path("");
        let network = within(letter, move || Network::new(&CLIENTS, name, home));
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

/// Makes something in the network namespace of a server.
fn within<T: Send>(letter: char, make: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            let path = Path::new("/run/netns").join(letter.to_string());
            let namespace = std::fs::File::open(path).unwrap();
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
                .unwrap();
            make()
        });
        made.join().unwrap()
    })
}
