//! Whether an address is on a host.
//!
//! The kernel is asked by sockets, which belong to the network namespace of the thread that makes them. For a host of another
//! namespace a thread is begun there.
//!
//! Whether a socket can be bound to an address says it only on some hosts. Where net.ipv4.ip_nonlocal_bind or
//! net.ipv6.ip_nonlocal_bind is set, as it often is beside keepalived and HAProxy, a socket can be bound to any address of
//! the world. So the kernel is asked in a second way, which these settings do not touch.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;

use super::{Host, Network};

/// Any port: a datagram socket is connected and nothing is sent.
const NO_PORT: u16 = 9;

impl Host {
    /// Whether an address is on this host, and ready to be sent from.
    pub(crate) fn is_present(&self, address: IpAddr) -> bool {
        self.check_address(address).is_ok()
    }

    /// The same, with what the kernel says.
    ///
    /// # Errors
    /// `AddrNotAvailable`, as a rule, where it is not.
    pub(crate) fn check_address(&self, address: IpAddr) -> io::Result<()> {
        match &self.network {
            Network::BySockets => self.within("presence", || check(address))?,
            #[cfg(test)]
            Network::With(addresses) if addresses.contains(&address) => Ok(()),
            #[cfg(test)]
            Network::With(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

fn check(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
    match address {
        // Takes an address of one of this host's interfaces, and no other (ip_dev_find in net/ipv4/ip_sockglue.c).
        IpAddr::V4(address) => SockRef::from(&socket).set_multicast_if_v4(&address),
        // A datagram to one of this host's own addresses leaves from that address (RFC 6724, 5, rule 1).
        IpAddr::V6(address) => match source_towards(address)? {
            source if source == address => Ok(()),
            _ => Err(io::ErrorKind::AddrNotAvailable.into()),
        },
    }
}

fn source_towards(address: Ipv6Addr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect((address, NO_PORT))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sh(script: &str) {
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success(), "{script}");
    }

    fn found(addresses: &[&str]) -> Vec<bool> {
        addresses.iter().map(|address| Host::here().is_present(address.parse().unwrap())).collect()
    }

    #[test]
    fn an_address_is_here_where_an_interface_has_it_and_not_where_it_can_only_be_bound() {
        let name = "host::presence::tests::an_address_is_here_where_an_interface_has_it_and_not_where_it_can_only_be_bound";
        if !crate::namespaces::is_inside(name, true, "root") {
            return;
        }
        sh(
            "ip link set lo up && ip link add d0 type veth peer name d1 && ip link set d0 up && ip link set d1 up \
            && ip addr add 192.0.2.1/24 dev d0 && ip addr add 192.0.2.10/24 dev d0 && ip addr add 192.0.2.11/32 dev d0 \
            && ip addr add 198.51.100.1/32 dev lo && ip route add default via 192.0.2.254 \
            && ip -6 addr add 2001:db8::1/64 dev d0 nodad && ip -6 addr add 2001:db8::10/128 dev d0 nodad \
            && ip -6 route add default via 2001:db8::ff",
        );
        // The first, another of its network as a floating one is, one of a network of its own, one of the loopback
        // interface; then what is elsewhere, near and far.
        let here = ["192.0.2.1", "192.0.2.10", "192.0.2.11", "198.51.100.1", "127.0.0.1", "127.9.9.9"];
        let here6 = ["::1", "2001:db8::1", "2001:db8::10"];
        let elsewhere =
            ["192.0.2.21", "203.0.113.1", "192.0.2.255", "2001:db8::21", "2001:db8:1::1", "fe80::1"];
        for may_bind in [0, 1] {
            for family in ["ipv4", "ipv6"] {
                sh(&format!("echo {may_bind} > /proc/sys/net/{family}/ip_nonlocal_bind"));
            }
            assert_eq!(UdpSocket::bind("203.0.113.1:0").is_ok(), may_bind == 1);
            assert_eq!(found(&here), [true; 6], "{may_bind}");
            assert_eq!(found(&here6), [true; 3], "{may_bind}");
            assert_eq!(found(&elsewhere), [false; 6], "{may_bind}");
        }
        sh("ip addr del 192.0.2.10/24 dev d0 && ip -6 addr del 2001:db8::10/128 dev d0");
        assert_eq!(found(&["192.0.2.10", "2001:db8::10"]), [false; 2]);
    }
}
