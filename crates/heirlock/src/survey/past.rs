//! The history of a service, from claims, journals and outcomes.

use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Sources, Tenure, tenure};
use heirlock_core::takeover::{Journal, Part};
use heirlock_core::{Generation, ServiceName};

use crate::store::{Account, Past, Store, StoreError};

/// Every known generation, the newest first, and the entries that could not be read.
pub(crate) fn history(
    store: &dyn Store,
    service: &ServiceName,
) -> Result<(Vec<Tenure>, Vec<String>), StoreError> {
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
pub(crate) fn tenure_of(
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
pub(crate) fn keep_before(
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
        records: account.as_ref().map_or(0, |account| account.clients.len()),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heirlock_core::limits::TENURES_KEPT;
    use heirlock_core::takeover::{Cause, Milestone, OutcomeLine, Stamp};
    use heirlock_core::{Outcome, ServerName};
    use heirlock_nsm::{MonName, StateNumber};

    use super::*;
    use crate::store::dir::DirStore;
    use crate::store::{Change, Contents};

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-b\n";

    fn service() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn begin(store: &dyn Store, generation: u64, owner: &str, journal: &Journal) {
        let claim = Claim::new(Generation(generation), &server(owner), "agent", 100 * generation);
        store.claim(&service(), &claim).unwrap();
        let records = BTreeMap::from([(MonName::parse("10.0.0.1").unwrap(), LINE.as_bytes().to_vec())]);
        let contents = Contents {
            state: Some(StateNumber(11)),
            records,
            journal: Some(journal.clone()),
            outcomes: vec![OutcomeLine::new("10.0.0.1", Outcome::Acknowledged, 2500)],
            damaged: Vec::new(),
        };
        store.begin_generation(&service(), Generation(generation), &contents).unwrap();
    }

    fn adopted(owner: &str, started_at_s: u64) -> Journal {
        Journal {
            timeline: vec![Stamp { event: Milestone::Ready, at_ms: 2_000 }],
            members: vec![(service(), Part::Target)],
            cause: Cause::Asked,
            ..Journal::quiet("run", &server(owner), started_at_s)
        }
    }

    /// nfs-a has it, gives it to nfs-b, and nfs-b dies.
    fn story() -> (tempfile::TempDir, DirStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::create(&folder.path().join("store")).unwrap();
        let home = Journal::quiet("run", &server("nfs-a"), 100);
        begin(&store, 1, "nfs-a", &home);
        let released = Change::PutJournal(Box::new(Journal { released_at_s: Some(192), ..home }));
        store.commit(&service(), Generation(1), &[released]).unwrap();
        store.release(&service(), Generation(1)).unwrap();
        begin(&store, 2, "nfs-b", &adopted("nfs-b", 200));
        begin(&store, 3, "nfs-a", &Journal { cause: Cause::OwnerDead, ..adopted("nfs-a", 300) });
        (folder, store)
    }

    #[test]
    fn the_history_of_a_service_says_from_whom_to_whom_and_why() {
        let (_folder, store) = story();
        let (tenures, unreadable) = history(&store, &service()).unwrap();
        let told: Vec<_> = tenures
            .iter()
            .map(|t| (t.generation.0, t.from.as_ref().map(ServerName::as_str), t.owner.as_str(), t.beginning))
            .collect();
        let expected = [
            (3, Some("nfs-b"), "nfs-a", Beginning::OwnerDead),
            (2, Some("nfs-a"), "nfs-b", Beginning::Moved),
            (1, None, "nfs-a", Beginning::First),
        ];
        assert_eq!((told.as_slice(), unreadable), (expected.as_slice(), Vec::new()));
        assert_eq!(tenures[1].gap.until_ready_ms(), Some(10_000), "from the release on");
        assert_eq!((tenures[1].clients.clients, tenures[1].clients.told), (1, 1));
    }

    #[test]
    fn a_pruned_generation_is_told_as_before_and_a_second_time_changes_nothing() {
        let (_folder, store) = story();
        let before = history(&store, &service()).unwrap();
        for _ in 0..2 {
            keep_before(&store, &service(), Generation(3)).unwrap();
            store.prune(&service(), Generation(3)).unwrap();
        }
        assert_eq!(store.past(&service()).unwrap().claims.len(), 1);
        assert_eq!(history(&store, &service()).unwrap(), before);
        assert_eq!(tenure_of(&store, &service(), Generation(2)).unwrap().as_ref(), Some(&before.0[1]));
        assert_eq!(tenure_of(&store, &service(), Generation(9)).unwrap(), None);
    }

    #[test]
    fn kept_accounts_are_bounded_and_damaged_ones_are_named() {
        let (folder, store) = story();
        let some = tenure_of(&store, &service(), Generation(1)).unwrap().unwrap();
        for number in 1..=u64::try_from(TENURES_KEPT + 3).unwrap() {
            store
                .keep_tenure(&service(), &Tenure { generation: Generation(number), ..some.clone() })
                .unwrap();
        }
        let kept = store.past(&service()).unwrap().tenures;
        assert_eq!((kept.len(), kept.last().unwrap().generation), (TENURES_KEPT, Generation(4)));
        let path = folder.path().join("store/services/nfs/history/5");
        std::fs::write(&path, "torn").unwrap();
        let (_, unreadable) = history(&store, &service()).unwrap();
        assert!(unreadable.len() == 1 && unreadable[0].contains("history/5"), "{unreadable:?}");
    }
}
