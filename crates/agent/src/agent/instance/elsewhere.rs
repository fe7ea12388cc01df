//! Where a client is called, as this lock manager knows it: [`heirlock_core::calling`] decides, by the records that are held here,
//! the last heartbeats and the names that were looked up.

use std::net::IpAddr;

use heirlock_core::ServiceName;
use heirlock_core::calling::{Floating, Standpoint, Surroundings};
use heirlock_core::notify::Destination;
use heirlock_core::takeover::Part;
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, MonitorLine};

use super::{Instance, is_served_by};
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};

impl<O: Outside> Surroundings for Instance<O> {
    fn node(&self) -> String {
        self.outside.node().unwrap_or_default()
    }

    fn is_present(&self, address: IpAddr) -> bool {
        self.outside.is_present(address)
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        self.outside.destination_of(name)
    }

    fn resolved(&self, name: &MonName) -> Vec<IpAddr> {
        self.capture.addresses().get(name).cloned().unwrap_or_default()
    }
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
        self.standpoint(server).addresses_of(client, &lines, part, self)
    }

    /// Whether a client's record is this server's to place into its status monitor's directory: its name means the same here
    /// as where it registered.
    pub fn means_the_same_here(&self, server: &Common<O>, client: &MonName, record: &[u8]) -> bool {
        let lines = parse_record(record).map(|parsed| parsed.lines).unwrap_or_default();
        self.standpoint(server).means_the_same_here(client, &lines, self)
    }

    fn standpoint<'a>(&self, server: &'a Common<O>) -> Standpoint<'a> {
        let settings = server.settings();
        let floating = |service: &'a crate::config::ServiceSettings| Floating {
            addresses: &service.addresses,
            is_held: self.held.contains_key(&service.name),
            is_served_here: is_served_by(self.number, service),
        };
        Standpoint {
            server: server.server(),
            services: settings.services.iter().map(floating).collect(),
            own: &settings.host.addresses,
            servers: server.pulse().servers(),
        }
    }

    fn lines_of(&self, service: &ServiceName, client: &MonName) -> Vec<MonitorLine> {
        let record = self.held.get(service).and_then(|held| held.ledger.stored().get(client));
        record.and_then(|record| parse_record(record).ok()).map(|parsed| parsed.lines).unwrap_or_default()
    }
}
