//! From which address of the service a client is told, and at which of its own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where a client is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Its address.
    pub ip: IpAddr,
    /// The number of this server's interface whose link it is on, where the address means another host on each link
    /// (`fe80::`); else 0.
    pub scope: u32,
}

impl From<IpAddr> for Destination {
    fn from(ip: IpAddr) -> Self {
        Self { ip, scope: 0 }
    }
}

impl Destination {
    /// A port there.
    #[must_use]
    pub fn socket(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope).into(),
        }
    }
}

/// One way to a client. An unspecified source is the one that the route to it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: Destination,
    pub(super) from: IpAddr,
}

/// All ways, those that most likely lead there first. A client may be on a network that only one of the service's addresses
/// can be answered at, and by which address it mounted the service isn't known.
pub(super) fn routes(addresses: &[Destination], sources: &[IpAddr]) -> Vec<Route> {
    let near = |address: &Destination| -> Vec<IpAddr> {
        let mut sources: Vec<IpAddr> =
            sources.iter().copied().filter(|from| from.is_ipv4() == address.ip.is_ipv4()).collect();
        sources.sort_by_key(|from| std::cmp::Reverse(common_bits(*from, address.ip)));
        // On its link it knows this server by an address of that link.
        if address.scope != 0 && sources.iter().all(|from| !from.is_unspecified()) {
            sources.insert(0, Ipv6Addr::UNSPECIFIED.into());
        }
        sources
    };
    let by_address: Vec<(Destination, Vec<IpAddr>)> =
        addresses.iter().map(|address| (*address, near(address))).collect();
    let most = by_address.iter().map(|(_, sources)| sources.len()).max().unwrap_or(0);
    (0..most)
        .flat_map(|rank| {
            by_address
                .iter()
                .filter_map(move |(to, sources)| Some(Route { to: *to, from: *sources.get(rank)? }))
        })
        .collect()
}

fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(addresses: &[&str], sources: &[&str]) -> Vec<String> {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        let addresses: Vec<Destination> = parse(addresses).into_iter().map(Destination::from).collect();
        let routes = routes(&addresses, &parse(sources));
        routes.iter().map(|route| format!("{}>{}", route.from, route.to.ip)).collect()
    }

    #[test]
    fn a_client_is_told_from_the_address_on_its_own_network_first_and_from_each_in_turn() {
        assert_eq!(
            ways(&["198.51.100.21"], &["192.0.2.10", "198.51.100.10"]),
            ["198.51.100.10>198.51.100.21", "192.0.2.10>198.51.100.21"]
        );
        assert_eq!(
            ways(&["192.0.2.21", "2001:db8::21", "198.51.100.21"], &["192.0.2.10", "198.51.100.10"]),
            [
                "192.0.2.10>192.0.2.21",
                "198.51.100.10>198.51.100.21",
                "198.51.100.10>192.0.2.21",
                "192.0.2.10>198.51.100.21"
            ],
            "every address of the client before the second source"
        );
        assert_eq!(ways(&["2001:db8::21"], &["192.0.2.10"]), [""; 0]);
    }

    #[test]
    fn on_a_link_the_route_chooses_the_source_first() {
        let client = Destination { ip: "fe80::21".parse().unwrap(), scope: 3 };
        let service: IpAddr = "2001:db8::10".parse().unwrap();
        let from: Vec<IpAddr> = routes(&[client], &[service]).iter().map(|route| route.from).collect();
        assert_eq!(from, [Ipv6Addr::UNSPECIFIED.into(), service]);
        assert_eq!(client.socket(111).to_string(), "[fe80::21%3]:111");
    }
}
