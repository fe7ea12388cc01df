//! The addresses that mean a server itself, and those at which another server calls it.
//!
//! They are looked for on its interfaces. An address that floats is on a server today and elsewhere tomorrow: called there,
//! another host would answer in its place. Those of the configured services are known to float; of every other one it is
//! known as soon as a second server has it.

use std::net::IpAddr;

use crate::limits::CLIENT_ADDRESSES_MAX;

/// The addresses of a server that move to no other one, as far as it knows: those that are configured, then those of its
/// interfaces.
#[must_use]
pub fn own_addresses(configured: &[IpAddr], on_interfaces: &[IpAddr], floating: &[IpAddr]) -> Vec<IpAddr> {
    let found =
        on_interfaces.iter().filter(|address| is_of_one_host(**address) && !floating.contains(address));
    let mut own: Vec<IpAddr> = Vec::new();
    for address in configured.iter().chain(found).map(IpAddr::to_canonical) {
        if own.len() < CLIENT_ADDRESSES_MAX && !own.contains(&address) {
            own.push(address);
        }
    }
    own
}

/// At which of the addresses that a server said to be its own it is called from elsewhere. `is_here` says whether the caller
/// has an address itself, `others` are those that further servers said to be theirs.
pub fn addresses_from_elsewhere(
    said: &[IpAddr],
    floating: &[IpAddr],
    others: &[IpAddr],
    is_here: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let means_it = |address: &IpAddr| {
        !address.is_loopback()
            && !floating.contains(address)
            && !others.contains(address)
            && !is_here(*address)
    };
    said.iter().copied().filter(means_it).collect()
}

/// Not such as every host has, or several have on different links.
fn is_of_one_host(address: IpAddr) -> bool {
    let on_a_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast() && !on_a_link
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_interfaces_tell_what_the_configuration_does_not_and_nothing_that_floats() {
        let interfaces =
            all(&["127.0.0.1", "::1", "192.0.2.1", "192.0.2.10", "169.254.0.1", "fe80::1", "2001:db8::1"]);
        let floating = all(&["192.0.2.10"]);
        assert_eq!(own_addresses(&[], &interfaces, &floating), all(&["192.0.2.1", "2001:db8::1"]));
        let configured = all(&["198.51.100.1", "192.0.2.1"]);
        let own = own_addresses(&configured, &interfaces, &floating);
        assert_eq!(
            own,
            all(&["198.51.100.1", "192.0.2.1", "2001:db8::1"]),
            "configured addresses come first"
        );
        let many: Vec<IpAddr> = (1..=200).map(|last| [10, 0, 0, last].into()).collect();
        assert_eq!(own_addresses(&[], &many, &[]).len(), CLIENT_ADDRESSES_MAX);
    }

    #[test]
    fn an_address_that_is_here_or_that_another_server_has_as_well_is_not_called() {
        let said = all(&["127.0.0.1", "192.0.2.1", "192.0.2.10", "172.17.0.1", "192.0.2.50"]);
        let here: IpAddr = "172.17.0.1".parse().unwrap();
        let called =
            addresses_from_elsewhere(&said, &all(&["192.0.2.10"]), &all(&["192.0.2.50"]), |one| one == here);
        assert_eq!(called, all(&["192.0.2.1"]));
    }
}
