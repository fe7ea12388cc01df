//! Services that another server has claimed from this one, while their address is here still.

use heirlock_core::claim::Claim;
use heirlock_core::takeover::Strategy;
use heirlock_core::{Generation, ServiceName};

use super::Agent;
use crate::outside::Out;

/// What is known of a service that another server holds.
#[derive(Debug)]
pub(super) struct LeftBehind {
    generation: Generation,
    was_ours: bool,
    is_here: bool,
}

impl Agent {
    pub(super) fn is_others(
        &mut self,
        out: &mut Out<'_>,
        service: &ServiceName,
        claim: &Claim,
    ) -> Result<(), String> {
        let is_here = !claim.released && out.has_address(service);
        let known = self.left_behind.get(service).filter(|known| known.generation == claim.generation);
        let was_here = known.is_some_and(|known| known.is_here);
        let was_ours = match known {
            Some(known) => known.was_ours,
            None if is_here && claim.owner != out.server().name => Self::was_ours(out, service, claim)?,
            None => return Ok(()),
        };
        self.left_behind
            .insert(service.clone(), LeftBehind { generation: claim.generation, was_ours, is_here });
        if is_here && was_ours && !was_here {
            out.say(|| format!("{service} is {}'s, and its address is here", claim.owner));
            out.leave_address(service);
        }
        Ok(())
    }

    pub(super) fn would_drop_locks_of_others(&self, out: &Out<'_>, strategy: Strategy) -> Option<String> {
        let asked = &self.asked.as_ref()?.machine;
        let left = self.left_behind.iter().find(|(service, left)| {
            left.is_here
                && left.was_ours
                && !self.held.contains_key(*service)
                && asked.would_drop_untold(strategy, service)
                && out.has_address(service)
        });
        left.map(|(service, _)| format!("clients of {service} have locks here, and nobody would tell them"))
    }

    fn was_ours(out: &mut Out<'_>, service: &ServiceName, claim: &Claim) -> Result<bool, String> {
        let mut before = claim.generation.0.checked_sub(1).map(Generation);
        while let Some(at_most) = before {
            let Some(contents) = out.load_newest(service, at_most)? else { return Ok(false) };
            if contents.journal.server == out.server().name {
                return Ok(true);
            }
            before = at_most.0.checked_sub(1).map(Generation);
        }
        Ok(false)
    }
}
