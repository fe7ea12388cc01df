//! Looks clients' names up, in threads that nothing waits for: a dead name server delays no client.

use std::net::{IpAddr, ToSocketAddrs};

use heirlock_nsm::MonName;
use heirlock_nsm::name::no_clients_address;

use crate::host::Host;

/// All addresses of a client's name, the most likely first. Addresses of this server say nothing of where the client is, for it
/// may have them in common with the client (a bridge of containers, say). They are left out, unless the name has no other.
pub(crate) fn resolve(host: &Host, name: &MonName) -> Vec<IpAddr> {
    if !name.is_host_name() {
        return Vec::new();
    }
    let found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if no_clients_address(address).is_none() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let others: Vec<IpAddr> =
        addresses.iter().copied().filter(|address| !host.is_present(*address)).collect();
    if others.is_empty() { addresses } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_scope_and_one_of_no_host_are_not_looked_up() {
        for name in ["fe80::1%lo", "0.0.0.0", "255.255.255.255", "::"] {
            assert!(resolve(&Host::here(), &MonName::parse(name).unwrap()).is_empty(), "{name}");
        }
        let own = resolve(&Host::here(), &MonName::parse("localhost").unwrap());
        assert!(own.iter().all(IpAddr::is_loopback) && !own.is_empty(), "{own:?}");
    }
}
