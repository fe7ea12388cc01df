//! Whether clients find what they need at each address of the services, and at the server's own: a client that mounted by
//! one that isn't served can't come back, whether it is told or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heirlock_nsm::rpcbind::{self, Transport};

use super::finding::Finding;
use crate::config::Settings;
use crate::host::Host;
use crate::lock_manager::LockManager;
use crate::{limits, probe, rpc_client};

const CHECK: &str = "addresses";

pub(super) fn check(host: &Host, settings: &Settings, lock_manager: &dyn LockManager) -> Vec<Finding> {
    let port = settings.notify.rpcbind_port;
    let limit = limits::PROBE_TIME_MAX;
    let services = settings.services.iter().flat_map(|service| {
        service.addresses.iter().map(move |address| (*address, format!("an address of {}", service.name)))
    });
    let own =
        settings.host.addresses.iter().map(|address| (*address, "this server's own address".to_owned()));
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        own.chain(services).partition(|(address, _)| host.is_present(*address));
    // A standby that serves nothing yet is well.
    let serves = rpc_client::find(Ipv4Addr::LOCALHOST.into(), port, probe::NLM, limit).is_ok();
    let mut findings = Vec::new();
    let mut good = 0;
    for (address, whose) in &here {
        let answer = if serves { lock_manager.serves_at(*address) } else { Ok(()) };
        match answer {
            Ok(()) => good += 1,
            Err(why) => findings.push(Finding::loses_locks(
                CHECK,
                format!("{address}, {whose}, is here and not served: {why}"),
                "have rpcbind, NFS and lockd listen there (udp6 and tcp6 in /etc/netconfig for IPv6), or take it out of the configuration",
            )),
        }
    }
    // That rpcbind does not answer is said by another check.
    let v6 = here.iter().filter(|_| !serves).chain(&elsewhere).find(|(address, _)| address.is_ipv6());
    if let Some((address, whose)) = v6
        && rpcbind_at(Ipv4Addr::LOCALHOST.into(), rpcbind::VERSION_2, port).is_ok()
        && let Err(why) = rpcbind_at(Ipv6Addr::LOCALHOST.into(), rpcbind::VERSION_4, port)
    {
        findings.push(Finding::loses_locks(
            CHECK,
            format!("{address}, {whose}, could not be served here: rpcbind is not reached over IPv6: {why}"),
            "have rpcbind listen to IPv6 as well (udp6 and tcp6 in /etc/netconfig), or take the address out of the configuration",
        ));
    }
    if findings.is_empty() && serves && good > 0 {
        let found = match good {
            1 => "NFS and NLM answer at the address that is here".to_owned(),
            _ => format!("NFS and NLM answer at all {good} addresses that are here"),
        };
        findings.push(Finding::ok(CHECK, found));
    }
    findings.extend(announcement(host, settings));
    findings
}

/// Whether heirlock can announce an address that comes here.
fn announcement(host: &Host, settings: &Settings) -> Option<Finding> {
    settings.services.iter().flat_map(|service| &service.addresses).find(|address| address.is_ipv4())?;
    let setting = host.announces_another()?;
    Some(Finding::warning(
        "announcement",
        format!(
            "{setting} is 2: heirlock can't announce a service's address that comes here, and clients go on answering to the server that had it before"
        ),
        format!(
            "sysctl -w {setting}=1, or have the hook address-up announce the address (arping -U -I INTERFACE ADDRESS); cluster managers that bring an address announce it"
        ),
    ))
}

/// Whether rpcbind answers there, in this version.
fn rpcbind_at(here: IpAddr, version: u32, port: u16) -> Result<(), String> {
    let program = (rpcbind::PROGRAM, version);
    // Whether it knows itself is no matter.
    rpc_client::find_over(here, port, program, Transport::Tcp, limits::PROBE_TIME_MAX)
        .or_else(|_| rpc_client::find_over(here, port, program, Transport::Udp, limits::PROBE_TIME_MAX))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_programs;
    use crate::guard::finding::Severity;
    use crate::guard::testing::settings;
    use crate::host::testing::Tree;
    use crate::lock_manager;

    fn found(port: u16, addresses: &str) -> Vec<(Severity, String)> {
        let text = format!(
            "[notify]\nrpcbind-port = {port}\n[[service]]\nname = \"nfs\"\naddresses = [{addresses}]\nnames = [\"nfs.example.com\"]\n"
        );
        {
            let (host, settings) = (Host::here(), settings(&text));
            check(&host, &settings, lock_manager::open_on(&settings, &host).as_ref())
        }
        .into_iter()
        .map(|finding| (finding.severity, finding.found))
        .collect()
    }

    #[test]
    fn each_address_that_is_here_is_asked_and_the_one_that_is_not_served_is_named() {
        let nlm = fake_programs::idle("127.9.6.1");
        let port = fake_programs::rpcbind("127.0.0.1", 0, Some(nlm));
        fake_programs::rpcbind("127.9.6.1", port, Some(nlm));
        let all = found(port, "\"127.9.6.1\"");
        assert_eq!(all, [(Severity::Ok, "NFS and NLM answer at the address that is here".to_owned())]);
        let one = found(port, "\"127.9.6.1\", \"127.9.6.2\"");
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(
            one[0].0 == Severity::LosesLocks
                && one[0].1.starts_with("127.9.6.2, an address of nfs, is here and not served: ")
        );
    }

    #[test]
    fn a_kernel_that_announces_another_address_is_said_where_a_service_has_one_of_ipv4() {
        let tree = Tree::debian();
        let said = |addresses: &str| {
            let text = format!("[[service]]\nname = \"nfs\"\naddresses = [{addresses}]\nnames = [\"nfs\"]\n");
            announcement(&tree.host(), &settings(&text)).map(|finding| finding.found)
        };
        assert_eq!(said("\"10.0.0.10\""), None);
        tree.put("/proc/sys/net/ipv4/conf/eth0/arp_announce", "2\n");
        let found = said("\"2001:db8::10\", \"10.0.0.10\"").unwrap();
        assert!(found.starts_with("net.ipv4.conf.eth0.arp_announce is 2: "), "{found}");
        assert_eq!(said("\"2001:db8::10\""), None, "neighbour discovery has no such setting");
    }

    #[test]
    fn a_standby_whose_rpcbind_does_not_serve_ipv6_is_told_before_it_adopts() {
        let port = fake_programs::rpcbind("127.0.0.1", 0, None);
        let found = found(port, "\"2001:db8::10\"");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].0 == Severity::LosesLocks
                && found[0].1.starts_with("2001:db8::10, an address of nfs, could not be served here: ")
        );
    }
}
