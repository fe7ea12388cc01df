//! Whether a host announces the address that a datagram leaves from, or another one.
//!
//! `arp.rs` announces an address by a datagram to a neighbour that the kernel has to look for: the ARP request names the address that
//! the datagram leaves from. From `arp_announce` 2 on it names the first address of the interface (`arp_solicit` in net/ipv4/arp.c), as
//! hosts behind a load balancer have it.

use super::Host;

/// The kernel's settings of each interface, and those of all of them.
const INTERFACES: &str = "/proc/sys/net/ipv4/conf";

impl Host {
    /// The setting by which the kernel announces another address, if there is one.
    pub(crate) fn announces_another(&self) -> Option<String> {
        let setting = |interface: &str| format!("{INTERFACES}/{interface}/arp_announce");
        let is_so = |interface: &String| {
            let level = self.text(setting(interface));
            level.and_then(|level| level.trim().parse::<u32>().ok()).is_some_and(|level| level >= 2)
        };
        // The greater one of an interface's own value and that of `all` counts; `default` is for interfaces to come.
        let interfaces = self.list(INTERFACES).ok()?.into_iter();
        let found = interfaces.filter(|name| name != "lo" && name != "default").find(is_so)?;
        Some(format!("net.ipv4.conf.{found}.arp_announce"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;
    use super::*;

    #[test]
    fn the_setting_of_an_interface_or_of_all_counts_and_that_of_others_does_not() {
        let tree = Tree::debian();
        let put = |interface: &str, level: &str| {
            tree.put(&format!("{INTERFACES}/{interface}/arp_announce"), level);
        };
        assert_eq!(tree.host().announces_another(), None, "no setting is shown");
        for (interface, level) in [("all", "1\n"), ("eth0", "1\n"), ("lo", "2\n"), ("default", "2\n")] {
            put(interface, level);
        }
        assert_eq!(tree.host().announces_another(), None);
        for interface in ["all", "eth0"] {
            put(interface, "2\n");
            let setting = format!("net.ipv4.conf.{interface}.arp_announce");
            assert_eq!(tree.host().announces_another(), Some(setting));
            put(interface, "0\n");
        }
    }
}
