//! How a run claims: what permits it is decided by `heirlock_core::claim`, and what the claim brings is read here.

use std::collections::BTreeMap;

use heirlock_core::claim::{Authority, Claim, ClaimRefusal, OwnerHeart, check_first, next_generation};
use heirlock_core::takeover::{Claimed, Part, Trouble};
use heirlock_core::{Generation, ServerName, ServiceName};
use heirlock_nsm::StateNumber;

use super::{Agent, clock};
use crate::store::{ClaimAnswer, StoreError};

/// Why a service was not claimed.
enum NotClaimed {
    /// It may not be, or somebody else was faster.
    Refused(String),
    /// Nobody knows: a claim may have been made all the same.
    StoreFails(StoreError),
}

/// The newest claim of a service, of which nothing is known but its number.
#[derive(Debug)]
pub(crate) struct LostClaim {
    generation: Generation,
    why: String,
}

impl From<StoreError> for NotClaimed {
    fn from(error: StoreError) -> Self {
        Self::StoreFails(error)
    }
}

impl Agent {
    pub(crate) fn owner_of(&self, service: &ServiceName) -> Option<ServerName> {
        self.store.newest_claim(service).ok().flatten().map(|claim| claim.owner)
    }

    pub(crate) fn claim_all(
        &mut self,
        services: &[(ServiceName, Part)],
        authority: &Authority,
    ) -> (Vec<Claimed>, Vec<(ServiceName, String)>) {
        // What was captured until this moment belongs into the generation that is left.
        self.scan(self.clock.now());
        let (mut won, mut refused) = (Vec::new(), Vec::new());
        for (service, part) in services {
            let targets_lost = *part == Part::Own && won.is_empty() && services[0].1 == Part::Target;
            if targets_lost {
                break; // nothing is to be taken over, so nothing of our own is touched
            }
            match self.claim(service, authority) {
                Ok(claimed) => won.push(claimed),
                Err(NotClaimed::Refused(why)) => {
                    // What is held is looked up again before anybody asks for it another time.
                    self.beat_due = self.clock.now();
                    refused.push((service.clone(), why));
                }
                Err(NotClaimed::StoreFails(error)) => {
                    // Else whoever owes a run would begin the next one at once.
                    self.health.failed(self.clock.now(), &error.to_string());
                    refused.push((service.clone(), error.to_string()));
                }
            }
        }
        (won, refused)
    }

    /// What is known of the heart of whoever has this claim, at this moment; of our own nothing has to be known.
    pub(crate) fn heart_of_owner(&mut self, newest: Option<&Claim>) -> Result<OwnerHeart, StoreError> {
        match newest {
            Some(claim) if claim.owner != self.settings.server => {
                let now = self.clock.now();
                self.pulse.look(now, self.store.as_ref())?;
                Ok(self.pulse.heart_of(&claim.owner, now))
            }
            _ => Ok(OwnerHeart::NeverSeen),
        }
    }

    /// The newest claim. One that can't be read, and of which nothing tells what it said, is none where the operator insists.
    pub(crate) fn newest_or_lost(
        &self,
        service: &ServiceName,
        authority: &Authority,
    ) -> Result<(Option<Claim>, Option<LostClaim>), StoreError> {
        match self.store.newest_claim(service) {
            Err(error @ StoreError::Claim { generation, .. }) if authority.insisted => {
                Ok((None, Some(LostClaim { generation, why: error.to_string() })))
            }
            newest => Ok((newest?, None)),
        }
    }

    /// What a report says of a claim that can't be read.
    fn claim_trouble(&self, service: &ServiceName, generation: Generation, why: String) -> Trouble {
        let entry = format!("{}/services/{service}/claims/{generation}", self.settings.store.path.display());
        Trouble { service: service.clone(), entry, why, fate_unknown: false }
    }

    fn claim(&mut self, service: &ServiceName, authority: &Authority) -> Result<Claimed, NotClaimed> {
        let (newest, lost) = self.newest_or_lost(service, authority)?;
        let home = self.settings.service(service).and_then(|configured| configured.home.as_ref());
        let us = &self.settings.server;
        check_first(service, newest.as_ref(), us, home, authority)
            .map_err(|refusal| NotClaimed::Refused(refusal.to_string()))?;
        let known = self.acquaintance.memory().known(service);
        let begun = self.store.newest_generation(service, Generation(u64::MAX))?;
        self.check_age(service, begun).map_err(|error| NotClaimed::Refused(error.to_string()))?;
        let heart = self.heart_of_owner(newest.as_ref())?;
        let store = self.store.as_ref();
        let generation = next_generation(service, newest.as_ref(), &self.settings.server, heart, authority)
            .map_err(|refusal| NotClaimed::Refused(refusal.to_string()))?;
        let generation = lost.as_ref().map_or(generation, |lost| generation.max(lost.generation.next()));
        let generation = known.above(generation);
        let claim = Claim {
            adopts: newest.as_ref().is_none_or(|c| c.owner != self.settings.server || c.released),
            ..Claim::new(generation, &self.settings.server, &self.id, clock::wall_s())
        };
        if let ClaimAnswer::Taken(other) = store.claim(service, &claim)? {
            let Claim { owner, generation, .. } = other;
            let overtaken = ClaimRefusal::Overtaken { service: service.clone(), owner, generation };
            return Err(NotClaimed::Refused(overtaken.to_string()));
        }
        tracing::info!(%service, %generation, "{service}: claimed as generation {generation}");
        let (mut records, mut troubles) = (BTreeMap::new(), Vec::new());
        let mut sent: Vec<StateNumber> = self.own_state().into_iter().chain(known.sent()).collect();
        // Loaded after the claim: the owner before us adds nothing any more.
        if let Some(base) = store.newest_generation(service, generation)? {
            let contents = store.load(service, base)?;
            let mended = self.mend(service, base, contents)?;
            sent.extend(mended.sent);
            (records, troubles) = (mended.contents.records, mended.troubles);
        }
        if let Some(lost) = &lost {
            // Nobody knows what was sent under it.
            sent.extend(self.beyond_all(service)?);
            troubles.push(self.claim_trouble(service, lost.generation, lost.why.clone()));
        } else if let Some((newest, why)) = newest.as_ref().and_then(|c| Some((c, c.unreadable.clone()?))) {
            troubles.push(self.claim_trouble(service, newest.generation, why));
        }
        // What this server knows of its own service counts, whatever became of the store.
        let own = newest.as_ref().filter(|newest| newest.owner == self.settings.server && !newest.released);
        let is_own = own.is_some() || lost.is_some();
        if let Some(held) = self.held.get(service).filter(|_| is_own) {
            for (client, bytes) in held.ledger.stored() {
                records.entry(client.clone()).or_insert_with(|| bytes.clone());
            }
        }
        if let Some(claim) = newest {
            let of_owner = self.pulse.servers().get(&claim.owner).and_then(|report| report.state);
            sent.extend(of_owner.map(StateNumber));
        }
        let told = self.held.get(service).map(|held| held.told_in(self.lives.current())).unwrap_or_default();
        Ok(Claimed { service: service.clone(), generation, records, sent, told, troubles })
    }
}
