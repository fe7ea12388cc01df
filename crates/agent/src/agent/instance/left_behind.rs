//! Services that another server has claimed from this one, while their address is on this server still: the evidence of the store
//! and of the addresses. `heirlock_core::left_behind` decides what follows from it.

use heirlock_core::claim::Claim;
use heirlock_core::left_behind::was_held_by;
use heirlock_core::store::StoreError;
use heirlock_core::takeover::Strategy;
use heirlock_core::{ServerName, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::work::RunNumber;
use crate::agent::work::Work;

impl<O: Outside> Instance<O> {
    /// Another server holds this service. Where that was claimed from this one, the address has to go.
    pub(crate) fn is_others(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        claim: &Claim,
    ) -> Result<(), StoreError> {
        let has_address = self.has_address_of(server, service);
        self.note_others(server, service, claim, has_address)
    }

    pub fn note_others(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
        claim: &Claim,
        has_address: bool,
    ) -> Result<(), StoreError> {
        let mut left_behind = std::mem::take(&mut self.left_behind);
        let was_ours = || self.was_ours(server, service, claim);
        let goes = left_behind.note(server.server(), service, claim, has_address, was_ours);
        self.left_behind = left_behind;
        if goes? {
            self.left_behind_problems().iter().for_each(|problem| tracing::error!("{problem}"));
            self.outside.begin(Work::LeaveAddress(service.clone()));
        }
        Ok(())
    }

    /// The lines of `status` on them.
    pub fn left_behind_problems(&self) -> Vec<String> {
        let here = self.left_behind.here(|service| self.held.contains_key(service));
        here.map(|(service, owner)| left_behind(service, owner)).collect()
    }

    /// The same of one service, where it is among them.
    pub(crate) fn left_behind_problem(&self, service: &ServiceName) -> Option<String> {
        let mut here = self.left_behind.here(|service| self.held.contains_key(service));
        here.find(|(left, _)| *left == service).map(|(service, owner)| left_behind(service, owner))
    }

    /// Why a run that was asked for may not restart anything here, if so.
    pub(crate) fn would_drop_locks_of_others(
        &self,
        server: &Common<O>,
        run: RunNumber,
        strategy: Strategy,
    ) -> Option<String> {
        self.would_drop_locks_at(run, strategy, |service| self.has_address_of(server, service))
    }

    pub fn would_drop_locks_at(
        &self,
        run: RunNumber,
        strategy: Strategy,
        has_address: impl Fn(&ServiceName) -> bool,
    ) -> Option<String> {
        let asked = &self.asked.iter().find(|asked| asked.number == run)?.machine;
        let is_held = |service: &ServiceName| self.held.contains_key(service);
        let (service, owner) = self.left_behind.dropped_by(asked, strategy, is_held, has_address)?;
        Some(format!(
            "'{strategy}' would drop locks that clients of {service} took on this server, and no server would tell them: {service} belongs to {owner}, and its address is here still; take the address away, or adopt {service} first"
        ))
    }

    /// A loopback address is on every server, and says nothing.
    pub(crate) fn has_address_of(&self, server: &Common<O>, service: &ServiceName) -> bool {
        let configured = server.settings().service(service);
        let is_here =
            |address: &std::net::IpAddr| !address.is_loopback() && self.outside.is_present(*address);
        configured.is_some_and(|service| service.addresses.iter().any(is_here))
    }

    /// The same of all its addresses.
    pub(super) fn has_all_addresses_of(&self, server: &Common<O>, service: &ServiceName) -> bool {
        let configured = server.settings().service(service);
        let is_here = |address: &std::net::IpAddr| address.is_loopback() || self.outside.is_present(*address);
        configured.is_some_and(|service| service.addresses.iter().all(is_here))
    }

    /// Whether a generation before this claim is this server's.
    fn was_ours(&self, server: &Common<O>, service: &ServiceName, claim: &Claim) -> Result<bool, StoreError> {
        was_held_by(server.server(), claim, |at_most| {
            let Some(generation) = server.store().newest_generation(service, at_most)? else {
                return Ok(None);
            };
            let contents = server.store().load(service, generation)?;
            holdings::say_senseless_journal(&contents);
            let server = contents.journal.map(|journal| journal.server);
            Ok(Some((generation, server)))
        })
    }
}

fn left_behind(service: &ServiceName, owner: &ServerName) -> String {
    format!(
        "{service} belongs to {owner}, and its address is on this server still: no other server knows of locks that its clients take here; take the address away, or set hooks.address-down"
    )
}
