//! The history of a service, from claims, journals and outcomes. Each generation is read once, for all that is made of it.

use std::collections::BTreeMap;

use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Sources, Tenure, tenure};
use heirlock_core::history_check::{Broken, HistoryCheck};
use heirlock_core::store::{Account, Past, Store, StoreError};
use heirlock_core::takeover::{Journal, Part};
use heirlock_core::{Generation, ServiceName};

/// The history of a service, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Every known generation, the newest first.
    pub tenures: Vec<Tenure>,
    /// The entries that could not be read.
    pub unreadable: Vec<String>,
    /// The rules of every history that this one breaks. Of entries that can't be read nothing can be judged.
    pub broken: Vec<Broken>,
}

/// Every known generation, the newest first, and the entries that could not be read.
///
/// # Errors
/// Where the store can't be read.
pub fn history(store: &dyn Store, service: &ServiceName) -> Result<(Vec<Tenure>, Vec<String>), StoreError> {
    let past = store.past(service)?;
    let mut accounts = Accounts::of(store, service, &past);
    let tenures = all(&mut accounts)?;
    Ok((tenures, accounts.all_unreadable()))
}

/// The same, judged.
///
/// # Errors
/// As `history`.
pub fn judged(store: &dyn Store, service: &ServiceName) -> Result<Judged, StoreError> {
    let past = store.past(service)?;
    let mut accounts = Accounts::of(store, service, &past);
    let tenures = all(&mut accounts)?;
    // One whose claim is lost is told of nowhere, and judged all the same.
    for generation in &past.generations {
        accounts.read(*generation)?;
    }
    let unreadable = accounts.all_unreadable();
    let mut check = HistoryCheck::default();
    if unreadable.is_empty() {
        let read = accounts.read.into_iter().filter_map(|(generation, account)| Some((generation, account?)));
        check.past(service, &past.claims, read);
    }
    Ok(Judged { tenures, unreadable, broken: check.broken().cloned().collect() })
}

/// The account of one generation.
///
/// # Errors
/// As `history`.
pub fn tenure_of(
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
) -> Result<Option<Tenure>, StoreError> {
    let past = store.past(service)?;
    match past.claims.iter().find(|claim| claim.generation == generation) {
        Some(claim) => tell(&mut Accounts::of(store, service, &past), claim).map(Some),
        None => Ok(past.tenures.into_iter().find(|tenure| tenure.generation == generation)),
    }
}

/// Keeps accounts of the generations that [`Store::prune`] is about to remove.
///
/// # Errors
/// As `history`, and where they can't be written.
pub fn keep_before(
    store: &dyn Store,
    service: &ServiceName,
    keep_from: Generation,
) -> Result<(), StoreError> {
    let past = store.past(service)?;
    let mut accounts = Accounts::of(store, service, &past);
    // The newest is never removed.
    for claim in past.claims.iter().skip(1).filter(|claim| claim.generation < keep_from) {
        if !past.tenures.iter().any(|kept| kept.generation == claim.generation) {
            // A generation that can't be read is told as far as it is known: it must not be in the way for ever.
            store.keep_tenure(service, &tell(&mut accounts, claim)?)?;
        }
    }
    Ok(())
}

/// The generations of a service, each read when it is asked for first.
struct Accounts<'a> {
    store: &'a dyn Store,
    service: &'a ServiceName,
    past: &'a Past,
    /// Nothing where a generation was never begun, or can't be read.
    read: BTreeMap<Generation, Option<Account>>,
    /// Those that can't be read, in words, in the order in which they were asked for.
    unreadable: Vec<String>,
}

impl<'a> Accounts<'a> {
    fn of(store: &'a dyn Store, service: &'a ServiceName, past: &'a Past) -> Self {
        Self { store, service, past, read: BTreeMap::new(), unreadable: Vec::new() }
    }

    fn read(&mut self, generation: Generation) -> Result<Option<&Account>, StoreError> {
        if !self.read.contains_key(&generation) {
            let account = self.ask(generation)?;
            self.read.insert(generation, account);
        }
        Ok(self.read.get(&generation).and_then(Option::as_ref))
    }

    fn ask(&mut self, generation: Generation) -> Result<Option<Account>, StoreError> {
        if !self.past.generations.contains(&generation) {
            return Ok(None);
        }
        match self.store.account(self.service, generation) {
            Ok(account) => Ok(Some(account)),
            Err(error) if error.is_absent() => Err(error),
            Err(error) => {
                self.unreadable.push(error.to_string());
                Ok(None)
            }
        }
    }

    /// All entries that can't be read, of those that were asked for.
    fn all_unreadable(&self) -> Vec<String> {
        [self.past.unreadable.as_slice(), &self.unreadable].concat()
    }
}

fn all(accounts: &mut Accounts<'_>) -> Result<Vec<Tenure>, StoreError> {
    let past = accounts.past;
    let mut tenures = past.tenures.clone();
    for claim in &past.claims {
        let told = tell(accounts, claim)?;
        // A whole generation in the store counts more than the account that was kept of it.
        tenures.retain(|kept| kept.generation != claim.generation);
        tenures.push(told);
    }
    tenures.sort_by_key(|tenure| std::cmp::Reverse(tenure.generation));
    Ok(tenures)
}

fn tell(accounts: &mut Accounts<'_>, claim: &Claim) -> Result<Tenure, StoreError> {
    let (past, service) = (accounts.past, accounts.service);
    let before = past.claims.iter().find(|other| other.generation < claim.generation);
    let kept = past.tenures.iter().find(|kept| kept.generation < claim.generation);
    // Itself first: the newest that can't be read is named first.
    accounts.read(claim.generation)?;
    let released_before_s = match before {
        Some(before) if before.released => {
            accounts.read(before.generation)?.and_then(|account| account.journal.as_ref()?.released_at_s)
        }
        Some(_) => None,
        None => kept.and_then(|kept| kept.released_at_s),
    };
    let account = accounts.read(claim.generation)?;
    let journal = account.and_then(|account| account.journal.as_ref());
    let told = tenure(&Sources {
        claim,
        claim_before: before,
        released_before_s,
        journal,
        state_number: account.and_then(|account| account.state).map(|state| state.0),
        is_target: journal.is_some_and(|journal| is_target(journal, service)),
        outcomes: account.map_or(&[][..], |account| &account.outcomes),
        records: account.map_or(0, |account| account.keys.len()),
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

fn is_target(journal: &Journal, service: &ServiceName) -> bool {
    journal.members.iter().any(|(name, part)| name == service && *part == Part::Target)
}
