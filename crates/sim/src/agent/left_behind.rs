//! Services that another server has claimed from this one, while their address is here still.

use heirlock_core::ServiceName;
use heirlock_core::claim::Claim;
use heirlock_core::left_behind::was_held_by;
use heirlock_core::takeover::Strategy;

use super::Agent;
use crate::outside::Out;

impl Agent {
    pub(super) fn is_others(
        &mut self,
        out: &mut Out<'_>,
        service: &ServiceName,
        claim: &Claim,
    ) -> Result<(), String> {
        let (us, has_address) = (out.server().name.clone(), out.has_address(service));
        let was_ours = || was_held_by(&us, claim, |at_most| out.newest_journal(service, at_most));
        if self.left_behind.note(&us, service, claim, has_address, was_ours)? {
            out.say(|| format!("{service} is {}'s, and its address is here", claim.owner));
            out.leave_address(service);
        }
        Ok(())
    }

    pub(super) fn would_drop_locks_of_others(&self, out: &Out<'_>, strategy: Strategy) -> Option<String> {
        let asked = &self.asked.as_ref()?.machine;
        let is_held = |service: &ServiceName| self.held.contains_key(service);
        let has_address = |service: &ServiceName| out.has_address(service);
        let (service, _) = self.left_behind.dropped_by(asked, strategy, is_held, has_address)?;
        Some(format!("clients of {service} have locks here, and nobody would tell them"))
    }
}
