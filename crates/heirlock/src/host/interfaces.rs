//! The addresses on the interfaces of a host, as the kernel says under /proc/PROCESS/net (proc(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Host;

/// Flags of an IPv6 address that is not to be gone by (linux/if_addr.h): temporary, failed, deprecated, tentative.
const PASSING: u8 = 0x01 | 0x08 | 0x20 | 0x40;

/// The scope of addresses that mean the same on every link (`IPV6_ADDR_SCOPE_MASK`, net/ipv6.h).
const GLOBAL: &str = "00";

impl Host {
    /// The addresses of its interfaces. A table that can't be read has none: a host may be without IPv6.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let table = |name: &str| self.table(name).unwrap_or_default();
        let mut found: Vec<IpAddr> = of_fib_trie(&table("fib_trie")).map(IpAddr::V4).collect();
        found.extend(of_if_inet6(&table("if_inet6")).map(IpAddr::V6));
        found.sort();
        found.dedup();
        found
    }
}

/// Each address of an interface is a route of its own to this host: `|-- 192.0.2.2`, and below it `/32 host LOCAL`.
fn of_fib_trie(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf = None;
    table.lines().filter_map(move |line| {
        let line = line.trim();
        match line.strip_prefix("|-- ") {
            Some(address) => {
                leaf = address.parse().ok();
                None
            }
            None => leaf.filter(|_| line == "/32 host LOCAL"),
        }
    })
}

/// `fd000000000000000000000000000002 04 40 00 82 eth0`: address, interface, length of the prefix, scope, flags, name.
fn of_if_inet6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (address, _, _, scope, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let bits = u128::from_str_radix(address, 16).ok().filter(|_| address.len() == 32)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (scope == GLOBAL && flags & PASSING == 0).then(|| Ipv6Addr::from_bits(bits))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        \u{20}    +-- 127.0.0.0/8 2 0 2\n           |-- 127.0.0.0\n              /8 host LOCAL\n\
        \u{20}          |-- 127.0.0.1\n              /32 host LOCAL\n\
        \u{20}    |-- 192.0.2.0\n           /24 link UNICAST\n     |-- 192.0.2.2\n           /32 host LOCAL\n\
        \u{20}    |-- 192.0.2.255\n           /32 link BROADCAST\nLocal:\n     |-- 192.0.2.2\n           /32 host LOCAL\n";
    const INET6: &str = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
        00000000000000000000000000000001 01 80 10 80       lo\n\
        fd000000000000000000000000000002 04 40 00 82     eth0\n\
        fd000000000000000000000000000003 04 40 00 01     eth0\n\
        fd000000000000000000000000000004 04 40 00 a0     eth0\nfd 04\n";

    #[test]
    fn the_kernels_tables_tell_the_addresses_of_the_interfaces() {
        let tree = Tree::new();
        assert_eq!(tree.host().addresses(), Vec::<IpAddr>::new(), "no table is no address");
        tree.put("/proc/self/net/fib_trie", TRIE);
        tree.put("/proc/self/net/if_inet6", INET6);
        let expected: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.2", "fd00::2"].map(|address| address.parse().unwrap()).into();
        assert_eq!(tree.host().addresses(), expected);
    }

    #[test]
    fn every_address_of_this_very_host_can_be_bound_here() {
        let here = Host::here().addresses();
        assert!(here.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{here:?}");
        assert!(here.iter().all(|address| std::net::UdpSocket::bind((*address, 0)).is_ok()), "{here:?}");
    }
}
