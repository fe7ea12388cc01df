//! Where a client is called that is known by an address of one link (`fe80::21%eth0`).

use heirlock_core::notify::Destination;
use heirlock_nsm::MonName;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// Bytes of an interface's name, without the zero at its end: IFNAMSIZ of `linux/if.h`.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Where the client of this name is, as far as the name says it by itself: an address, or one on the link of an interface
/// that this server has.
pub(crate) fn destination_of(name: &MonName) -> Option<Destination> {
    if let Some(address) = name.address() {
        return Some(address.into());
    }
    let (address, zone) = name.scoped()?;
    // Elsewhere an interface adds nothing to an address.
    if !address.is_unicast_link_local() {
        return Some(Destination { ip: address.into(), scope: 0 });
    }
    Some(Destination { ip: address.into(), scope: interface(zone)? })
}

/// The number of an interface, by its name or its number.
fn interface(zone: &str) -> Option<u32> {
    if zone.len() > INTERFACE_NAME_BYTES_MAX {
        return None;
    }
    let asked = socket(AddressFamily::INET6, SocketType::DGRAM, None)
        .or_else(|_| socket(AddressFamily::INET, SocketType::DGRAM, None))
        .ok()?;
    if let Ok(number) = netdevice::name_to_index(&asked, zone) {
        return Some(number);
    }
    let number: u32 = zone.parse().ok()?;
    netdevice::index_to_name(&asked, number).ok().map(|_| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<String> {
        destination_of(&MonName::parse(name).unwrap()).map(|to| to.socket(111).to_string())
    }

    #[test]
    fn a_link_local_client_is_on_the_link_of_its_interface() {
        assert_eq!(of("fe80::21%lo").as_deref(), Some("[fe80::21%1]:111"));
        assert_eq!(of("fe80::21%1").as_deref(), Some("[fe80::21%1]:111"));
        assert_eq!(of("2001:db8::21%lo").as_deref(), Some("[2001:db8::21]:111"));
        for unknown in
            ["fe80::21%no-such-if", "fe80::21%4000000000", "fe80::21%a-name-that-is-too-long", "client1"]
        {
            assert_eq!(of(unknown), None, "{unknown}");
        }
        assert_eq!(of("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1:111"));
    }
}
