//! Clients whose address means another host on each server: a server that mounts what it serves itself is registered as
//! `127.0.0.1`, `::1`, or by the floating address of the service, and a client on one link by an address of that link.
//!
//! On the server that such a client registered at, it is called at that very address. Any other server would call itself, or
//! another host, whose status monitor answers: the client would be reported as told. There it is called at the own address of the
//! server that it registered at (its interfaces tell it, and `host.addresses`), or named as not told. The client's record names
//! that server: rpc.statd writes its server's node name into each line.

use std::net::IpAddr;

use heirlock_core::limits::CLIENT_ADDRESSES_MAX;
use heirlock_core::notify::Destination;
use heirlock_core::own_addresses::addresses_from_elsewhere;
use heirlock_core::store::ServerReport;
use heirlock_core::takeover::Part;
use heirlock_core::{ServerName, ServiceName};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, MonitorLine};

use super::Instance;
use crate::agent::common::{Common, floating};
use crate::agent::outside::{InstanceOutside, Outside};

/// Where a client registered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Registered {
    Here,
    /// With this server.
    At(ServerName),
    /// With a server of this name, which the store does not know.
    Nowhere(String),
}

impl<O: Outside> Instance<O> {
    /// Where a client is called, or why it is not.
    pub fn addresses_of(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        part: Part,
        client: &MonName,
    ) -> Result<Vec<Destination>, String> {
        let lines = self.lines_of(service, client);
        let resolved = |name: &MonName| self.capture.addresses().get(name).cloned().unwrap_or_default();
        if self.means_another_elsewhere(server, client) {
            match self.registered_at(server, &lines, part) {
                Registered::Here => {}
                Registered::At(other) => return self.at_server(server, client, &other),
                Registered::Nowhere(server) => {
                    return Err(format!(
                        "{client} means the server that it registered at ({server}), which is not this one, and whose own address the store does not know"
                    ));
                }
            }
        }
        let mut addresses: Vec<Destination> = self.outside.destination_of(client).into_iter().collect();
        let further = resolved(client).into_iter().map(Destination::from);
        let further = further.chain(lines.iter().flat_map(|line| {
            let by_name = resolved(&line.mon_name).into_iter().map(Destination::from);
            self.outside.destination_of(&line.mon_name).into_iter().chain(by_name)
        }));
        for address in further {
            // Nearly every client's line repeats its name, and to ask the kernel for an address takes a socket.
            if addresses.len() >= CLIENT_ADDRESSES_MAX || addresses.contains(&address) {
                continue;
            }
            // Further addresses may be such as many hosts have; this server's own address leads to no other host.
            if addresses.is_empty() || !self.outside.is_present(address.ip) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Whether a client's record is this server's to place into its status monitor's directory: its name means the same here
    /// as where it registered.
    pub fn means_the_same_here(&self, server: &Common<O>, client: &MonName, record: &[u8]) -> bool {
        let lines = parse_record(record).map(|parsed| parsed.lines).unwrap_or_default();
        !self.means_another_elsewhere(server, client)
            || self.registered_at(server, &lines, Part::Target) == Registered::Here
    }

    fn lines_of(&self, service: &ServiceName, client: &MonName) -> Vec<MonitorLine> {
        let record = self.held.get(service).and_then(|held| held.ledger.stored().get(client));
        record.and_then(|record| parse_record(record).ok()).map(|parsed| parsed.lines).unwrap_or_default()
    }

    fn means_another_elsewhere(&self, server: &Common<O>, client: &MonName) -> bool {
        let Some(address) = client.address() else {
            return client.scoped().is_some() || client.as_str().eq_ignore_ascii_case("localhost");
        };
        let services = self.services(server);
        let mut ours =
            services.clone().flat_map(|service| &service.addresses).chain(&server.settings().host.addresses);
        if address.is_loopback() {
            // Where a service is on the loopback interface itself, so are its clients.
            return !ours.any(IpAddr::is_loopback);
        }
        // Of a service that is another server's it is that one: it means the same everywhere.
        let is_floating = |service: &&crate::config::ServiceSettings| service.addresses.contains(&address);
        services.clone().filter(is_floating).any(|service| self.held.contains_key(&service.name))
    }

    fn registered_at(&self, server: &Common<O>, lines: &[MonitorLine], part: Part) -> Registered {
        let node = self.outside.node().unwrap_or_default();
        let mut names = lines.iter().map(|line| line.my_name.as_str());
        let is_here = |name: &str| is_same(name, &node) || is_same(name, server.server().as_str());
        if names.clone().any(is_here) {
            return Registered::Here;
        }
        let of = |name: &str| {
            let is_it = |report: &&ServerReport| {
                is_same(name, report.server.as_str()) || report.nodes().any(|node| is_same(name, node))
            };
            server
                .pulse()
                .servers()
                .values()
                .map(AsRef::as_ref)
                .find(is_it)
                .map(|report| report.server.clone())
        };
        if let Some(server) = names.clone().find_map(of) {
            return Registered::At(server);
        }
        match (part, names.next()) {
            // This server itself captured the records that it held before the run, under any name that it had then.
            (Part::Own, _) => Registered::Here,
            (Part::Target, name) => Registered::Nowhere(name.unwrap_or("unknown").to_owned()),
        }
    }

    /// A server that mounted its own service is called at its own address.
    fn at_server(
        &self,
        server: &Common<O>,
        client: &MonName,
        other: &ServerName,
    ) -> Result<Vec<Destination>, String> {
        if client.scoped().is_some() {
            return Err(format!("{client} means a client on a link of {other}, and another one elsewhere"));
        }
        let report = server.pulse().servers().get(other);
        let said = report.map(|report| report.addresses.as_slice()).unwrap_or_default();
        let further = server.pulse().servers().iter().filter(|(name, _)| *name != other);
        let others: Vec<IpAddr> = further.flat_map(|(_, report)| report.addresses.iter().copied()).collect();
        let floating = floating(server.settings());
        let is_present = |address| self.outside.is_present(address);
        let addresses = addresses_from_elsewhere(said, &floating, &others, is_present);
        let addresses: Vec<Destination> = addresses.into_iter().map(Destination::from).collect();
        match addresses.is_empty() {
            false => Ok(addresses),
            true => Err(format!(
                "{client} is {other} itself, which mounted its own service; its own address is not known: set host.addresses there"
            )),
        }
    }
}

/// Servers are known by short names and by full ones.
fn is_same(one: &str, other: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let both_full = one.contains('.') && other.contains('.');
    if both_full { one.eq_ignore_ascii_case(other) } else { !one.is_empty() && short(one) == short(other) }
}
