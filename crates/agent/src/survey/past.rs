//! The history of a service, from claims, journals and outcomes.

use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Sources, Tenure, tenure};
use heirlock_core::store::{Account, Past, Store, StoreError};
use heirlock_core::takeover::{Journal, Part};
use heirlock_core::{Generation, ServiceName};

/// Every known generation, the newest first, and the entries that could not be read.
pub fn history(store: &dyn Store, service: &ServiceName) -> Result<(Vec<Tenure>, Vec<String>), StoreError> {
    let past = store.past(service)?;
    let (mut tenures, mut unreadable) = (past.tenures.clone(), past.unreadable.clone());
    for claim in &past.claims {
        let told = tell(store, service, &past, claim, &mut unreadable)?;
        // A whole generation in the store counts more than the account that was kept of it.
        tenures.retain(|kept| kept.generation != claim.generation);
        tenures.push(told);
    }
    tenures.sort_by_key(|tenure| std::cmp::Reverse(tenure.generation));
    Ok((tenures, unreadable))
}

/// The account of one generation.
pub fn tenure_of(
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
) -> Result<Option<Tenure>, StoreError> {
    let past = store.past(service)?;
    match past.claims.iter().find(|claim| claim.generation == generation) {
        Some(claim) => tell(store, service, &past, claim, &mut Vec::new()).map(Some),
        None => Ok(past.tenures.into_iter().find(|tenure| tenure.generation == generation)),
    }
}

/// Keeps accounts of the generations that [`Store::prune`] is about to remove.
pub fn keep_before(
    store: &dyn Store,
    service: &ServiceName,
    keep_from: Generation,
) -> Result<(), StoreError> {
    let past = store.past(service)?;
    // The newest is never removed.
    for claim in past.claims.iter().skip(1).filter(|claim| claim.generation < keep_from) {
        if !past.tenures.iter().any(|kept| kept.generation == claim.generation) {
            // A generation that can't be read is told as far as it is known: it must not be in the way for ever.
            store.keep_tenure(service, &tell(store, service, &past, claim, &mut Vec::new())?)?;
        }
    }
    Ok(())
}

fn tell(
    store: &dyn Store,
    service: &ServiceName,
    past: &Past,
    claim: &Claim,
    unreadable: &mut Vec<String>,
) -> Result<Tenure, StoreError> {
    let account = account(store, service, past, claim.generation, unreadable)?;
    let journal = account.as_ref().and_then(|account| account.journal.as_ref());
    let outcomes = account.as_ref().map_or(&[][..], |account| &account.outcomes);
    let before = past.claims.iter().find(|other| other.generation < claim.generation);
    let kept = past.tenures.iter().find(|kept| kept.generation < claim.generation);
    let released_before_s = match before {
        Some(before) if before.released => {
            // Whether it can be read is said where it is told of itself.
            let account = self::account(store, service, past, before.generation, &mut Vec::new())?;
            account.and_then(|account| account.journal?.released_at_s)
        }
        Some(_) => None,
        None => kept.and_then(|kept| kept.released_at_s),
    };
    let told = tenure(&Sources {
        claim,
        claim_before: before,
        released_before_s,
        journal,
        state_number: account.as_ref().and_then(|account| account.state).map(|state| state.0),
        is_target: journal.is_some_and(|journal| is_target(journal, service)),
        outcomes,
        records: account.as_ref().map_or(0, |account| account.keys.len()),
    });
    Ok(match (before, kept) {
        (None, Some(kept)) => after(told, kept),
        _ => told,
    })
}

/// Its predecessor was removed: the account that was kept of it says the rest.
fn after(told: Tenure, kept: &Tenure) -> Tenure {
    let moved = told.beginning == Beginning::Asked && kept.released_at_s.is_some();
    let beginning = if moved { Beginning::Moved } else { told.beginning };
    Tenure { from: Some(kept.owner.clone()), beginning, ..told }
}

/// Nothing where the generation was never begun, or can't be read.
fn account(
    store: &dyn Store,
    service: &ServiceName,
    past: &Past,
    generation: Generation,
    unreadable: &mut Vec<String>,
) -> Result<Option<Account>, StoreError> {
    if !past.generations.contains(&generation) {
        return Ok(None);
    }
    match store.account(service, generation) {
        Ok(account) => Ok(Some(account)),
        Err(error) if error.is_absent() => Err(error),
        Err(error) => {
            unreadable.push(error.to_string());
            Ok(None)
        }
    }
}

fn is_target(journal: &Journal, service: &ServiceName) -> bool {
    journal.members.iter().any(|(name, part)| name == service && *part == Part::Target)
}
