//! Tells the network that an address is here now.
//!
//! `ip addr add` announces nothing, so clients would go on answering to the dead server's hardware address, for as long
//! as their neighbour entry lasts, and the locks would be lost meanwhile. A kernel that looks for a neighbour broadcasts
//! an ARP request with the sender's own address in it, and every host that knows that address takes the hardware address
//! from it (RFC 826). So a datagram from the new address to neighbours that do not exist does the work, without a raw
//! socket. For IPv6 the kernel itself announces addresses it adds (unsolicited neighbour advertisement, RFC 4861 section
//! 7.2.6, where `ndisc_notify` is on), and the neighbour solicitation does the rest.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The discard port: a host that has the address after all throws the datagram away (RFC 863).
const DISCARD: u16 = 9;

/// How many neighbours are looked for: each one causes an announcement that is repeated for three seconds.
const LOOKS: u8 = 2;

/// Announces an address of this server on the network that it is in.
///
/// # Errors
/// Where the address isn't on this server, or nothing can be sent.
pub(crate) fn announce(address: IpAddr) -> io::Result<()> {
    let IpAddr::V4(address) = address else { return Ok(()) };
    if address.is_loopback() {
        return Ok(());
    }
    let socket = UdpSocket::bind(SocketAddr::new(address.into(), 0))?;
    socket.set_broadcast(true)?;
    let mut sent = Err(io::Error::other("no neighbour to look for"));
    for neighbour in unlikely_neighbours(address).take(usize::from(LOOKS)) {
        sent = socket.send_to(b"", SocketAddr::new(neighbour.into(), DISCARD)).map(|_| ()).or(sent);
    }
    sent
}

/// Announces it once more, for a client that does not answer. An address that was taken away meanwhile can't be announced, and no
/// client is told from it.
pub(crate) fn announce_again(address: IpAddr) {
    if let Err(error) = announce(address) {
        tracing::debug!(%address, %error, "{address} could not be announced again: {error}");
    }
}

/// Addresses of the same /24, from its end, where few servers are; a new one each time, so that no entry that is still
/// being looked for swallows the announcement.
fn unlikely_neighbours(address: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d] = address.octets();
    let start = fastrand::u8(200..254);
    (0..54)
        .map(move |step| Ipv4Addr::new(a, b, c, 200 + (start - 200 + step) % 54))
        .filter(move |n| n.octets()[3] != d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_here_cannot_be_announced() {
        assert!(announce("192.0.2.1".parse().unwrap()).is_err());
    }

    #[test]
    fn neighbours_are_of_the_same_network_and_never_the_address_itself() {
        let address = Ipv4Addr::new(10, 99, 0, 210);
        for neighbour in unlikely_neighbours(address) {
            assert_eq!(neighbour.octets()[..3], [10, 99, 0]);
            assert!(neighbour != address && (200..254).contains(&neighbour.octets()[3]), "{neighbour}");
        }
    }
}
