//! Where a client is called from this server, or why it is not called.
//!
//! Some clients are registered under an address that means another host on each server: a server that mounts what it serves itself
//! is registered as `127.0.0.1`, `::1`, or by the floating address of the service, and a client on one link by an address of that
//! link. On the server that such a client registered at, it is called at that very address. Any other server would call itself,
//! or another host, whose status monitor answers: the client would be reported as told. There it is called at the own address of the
//! server that it registered at (its interfaces tell it, and `host.addresses`), or named as not told. The client's record names
//! that server: rpc.statd writes its server's node name into each line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use heirlock_nsm::{MonName, MonitorLine};

use crate::limits::CLIENT_ADDRESSES_MAX;
use crate::names::ServerName;
use crate::notify::Destination;
use crate::own_addresses::addresses_from_elsewhere;
use crate::store::ServerReport;
use crate::takeover::Part;

/// The knowledge of a server by which it calls clients.
#[derive(Debug)]
pub struct Standpoint<'a> {
    /// This server.
    pub server: &'a ServerName,
    /// Its services, as they are configured.
    pub services: Vec<Floating<'a>>,
    /// The addresses that clients mount it by under its own name.
    pub own: &'a [IpAddr],
    /// The last heartbeats of all servers.
    pub servers: &'a BTreeMap<ServerName, Arc<ServerReport>>,
}

/// A configured service.
#[derive(Debug, Clone, Copy)]
pub struct Floating<'a> {
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// This server holds it.
    pub is_held: bool,
    /// The lock manager that calls the clients serves it.
    pub is_served_here: bool,
}

/// The tables of the host that calls.
pub trait Surroundings {
    /// The node name under which its status monitor registers clients.
    fn node(&self) -> String;

    /// Whether an address is on this host.
    fn is_present(&self, address: IpAddr) -> bool;

    /// Where a client is, as far as its name says it by itself.
    fn destination_of(&self, name: &MonName) -> Option<Destination>;

    /// The addresses that a name was looked up to.
    fn resolved(&self, name: &MonName) -> Vec<IpAddr>;
}

/// Where a client registered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Registered {
    Here,
    /// With this server.
    At(ServerName),
    /// With a server of this name, which the store does not know.
    Nowhere(String),
}

impl Standpoint<'_> {
    /// Where a client with these lines in its record is called. `part`: whether its service is taken over, or was held here before.
    ///
    /// # Errors
    /// Why it can't be called from here, for people.
    pub fn addresses_of(
        &self,
        client: &MonName,
        lines: &[MonitorLine],
        part: Part,
        host: &impl Surroundings,
    ) -> Result<Vec<Destination>, String> {
        if self.means_another_elsewhere(client) {
            match self.registered_at(lines, part, host) {
                Registered::Here => {}
                Registered::At(other) => return self.at_server(client, &other, host),
                Registered::Nowhere(server) => {
                    return Err(format!(
                        "{client} means the server that it registered at ({server}), which is not this one, and whose own address the store does not know"
                    ));
                }
            }
        }
        let mut addresses: Vec<Destination> = host.destination_of(client).into_iter().collect();
        let further = host.resolved(client).into_iter().map(Destination::from);
        let further = further.chain(lines.iter().flat_map(|line| {
            let by_name = host.resolved(&line.mon_name).into_iter().map(Destination::from);
            host.destination_of(&line.mon_name).into_iter().chain(by_name)
        }));
        for address in further {
            // Nearly every client's line repeats its name, and to ask the kernel for an address takes a socket.
            if addresses.len() >= CLIENT_ADDRESSES_MAX || addresses.contains(&address) {
                continue;
            }
            // Further addresses may be such as many hosts have; this server's own address leads to no other host.
            if addresses.is_empty() || !host.is_present(address.ip) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Whether a client's name means the same host here as where it registered.
    pub fn means_the_same_here(
        &self,
        client: &MonName,
        lines: &[MonitorLine],
        host: &impl Surroundings,
    ) -> bool {
        !self.means_another_elsewhere(client)
            || self.registered_at(lines, Part::Target, host) == Registered::Here
    }

    fn means_another_elsewhere(&self, client: &MonName) -> bool {
        let Some(address) = client.address() else {
            return client.scoped().is_some() || client.as_str().eq_ignore_ascii_case("localhost");
        };
        let mut served = self.services.iter().filter(|service| service.is_served_here);
        if address.is_loopback() {
            // Where a service is on the loopback interface itself, so are its clients.
            return !served.flat_map(|service| service.addresses).chain(self.own).any(IpAddr::is_loopback);
        }
        // Of a service that is another server's it is that one: it means the same everywhere.
        served.any(|service| service.is_held && service.addresses.contains(&address))
    }

    fn registered_at(&self, lines: &[MonitorLine], part: Part, host: &impl Surroundings) -> Registered {
        let node = host.node();
        let mut names = lines.iter().map(|line| line.my_name.as_str());
        let is_here = |name: &str| is_same(name, &node) || is_same(name, self.server.as_str());
        if names.clone().any(is_here) {
            return Registered::Here;
        }
        let of = |name: &str| {
            let is_it = |report: &&ServerReport| {
                is_same(name, report.server.as_str()) || report.nodes().any(|node| is_same(name, node))
            };
            self.servers.values().map(AsRef::as_ref).find(is_it).map(|report| report.server.clone())
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
        client: &MonName,
        other: &ServerName,
        host: &impl Surroundings,
    ) -> Result<Vec<Destination>, String> {
        if client.scoped().is_some() {
            return Err(format!("{client} means a client on a link of {other}, and another one elsewhere"));
        }
        let report = self.servers.get(other);
        let said = report.map(|report| report.addresses.as_slice()).unwrap_or_default();
        let further = self.servers.iter().filter(|(name, _)| *name != other);
        let others: Vec<IpAddr> = further.flat_map(|(_, report)| report.addresses.iter().copied()).collect();
        let floating: Vec<IpAddr> =
            self.services.iter().flat_map(|service| service.addresses).copied().collect();
        let is_present = |address| host.is_present(address);
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
