//! What the store has lost of a claim or a generation that is held here is written anew, from the agent's knowledge.

use heirlock_core::store::{ClaimAnswer, Contents, Place, StoreError, StoreErrorKind};
use heirlock_core::{Moment, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings::Differences;
use crate::agent::outside::Outside;
use crate::limits::COMMIT_RECORDS_MAX;

impl<O: Outside> Instance<O> {
    /// Looks for all that is held where the store may have lost some of it. Says whether all of it was looked for.
    pub(crate) fn complete_all(&mut self, server: &mut Common<O>, now: Moment) -> bool {
        let services: Vec<ServiceName> = self.held.keys().cloned().collect();
        for service in services {
            if let Err(error) = self.complete(server, &service) {
                server.store_failed(now, &error);
                self.holdings_known = false;
                return false;
            }
        }
        true
    }

    /// Writes a claim and its generation anew that the store has lost, with all that the agent knows of it: the same
    /// number, records, journal and outcomes.
    pub(crate) fn rebuild(
        &mut self,
        server: &mut Common<O>,
        service: &ServiceName,
    ) -> Result<(), StoreError> {
        let Some(held) = self.held.get(service) else { return Ok(()) };
        let (generation, contents) = (held.claim.generation, held.contents());
        if let ClaimAnswer::Taken(other) = server.store().claim(service, &held.claim)? {
            // The next look finds it, and whose the service is then.
            tracing::warn!(%service, owner = %other.owner, generation = %other.generation, "{service}: {} has claimed generation {} meanwhile", other.owner, other.generation);
            return Ok(());
        }
        server.store().begin_generation(service, generation, &contents)?;
        server.saw_generation(service, generation, Some(generation), contents.state);
        tracing::error!(%service, %generation, records = contents.records.len(), "{service}: the store had lost generation {generation}, which was written anew from what this server knows");
        Ok(())
    }

    /// Makes a generation hold all that the agent knows of it. Anything that it holds besides, as an older copy of the store may,
    /// is believed: a client too many is told, one too few loses its locks. Answers the generation's contents after that; nothing
    /// where this server doesn't hold the service, or is beginning its next generation.
    pub(crate) fn complete(
        &mut self,
        server: &Common<O>,
        service: &ServiceName,
    ) -> Result<Option<Contents>, StoreError> {
        if self.run.as_ref().is_some_and(|running| running.begins(service)) {
            return Ok(None); // its next generation is made of what the agent knows
        }
        let Some(held) = self.held.get_mut(service) else { return Ok(None) };
        let generation = held.claim.generation;
        let found = server.store().load(service, generation)?;
        let Differences { lost, strange, came_about } = held.differences(&found);
        if found.state.is_some_and(|state| state != held.state) {
            let there = found.state.map_or_else(|| "none".to_owned(), |state| state.to_string());
            let sentence = format!(
                "{}, generation {generation} of {service}: expected state number {}, found {there}; put back the newest copy \
                 of the store",
                server.store().place(Place::Store),
                held.state
            );
            return Err(StoreError::new(StoreErrorKind::Unexpected, sentence));
        }
        for portion in lost.chunks(COMMIT_RECORDS_MAX) {
            server.store().commit(service, &held.claim, portion)?;
        }
        if !lost.is_empty() || !strange.is_empty() {
            tracing::error!(%service, %generation, written = lost.len(), found = strange.len(), "{service}: the store had lost some of generation {generation}, as an older copy of it has or one with damaged files; what it lacked was written anew");
        }
        held.ledger.committed(&strange);
        held.ledger.committed(&came_about);
        let is_whole = lost.is_empty();
        Ok(Some(if is_whole { found } else { server.store().load(service, generation)? }))
    }
}
