//! Whether the history of services keeps what heirlock promises: generations rise, one server acts in each, a client that may hold
//! locks is told in the next one or named, and no state number is used twice. Judged is what lies in the store, at one look or at
//! many, and what the caller has observed besides. Kept accounts of generations that were removed say too little to be judged.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heirlock_nsm::StateNumber;

use crate::claim::Claim;
use crate::names::{Generation, ServerName, ServiceName};
use crate::records::RecordKey;
use crate::store::{Account, Store, StoreError};
use crate::takeover::Journal;

/// A rule that every history keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The newest generation never falls, and a claim that was given up stays given up.
    GenerationsRise,
    /// One server acts in a generation: the one that claimed it (I3).
    OneServer,
    /// A generation begins with all clients of the one before, and has each client that was seen with a lock (I2).
    NoClientForgotten,
    /// A client on record before an adoption has an outcome when its run is over (I8).
    NoClientUnreported,
    /// No two lives of lock managers announce the same state number of a service (I5).
    NumbersUsedOnce,
}

impl Rule {
    /// The invariant of the design that it is a part of.
    #[must_use]
    pub fn invariant(self) -> u8 {
        match self {
            Rule::GenerationsRise | Rule::OneServer => 3,
            Rule::NoClientForgotten => 2,
            Rule::NoClientUnreported => 8,
            Rule::NumbersUsedOnce => 5,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::GenerationsRise => "generations rise",
            Rule::OneServer => "one server acts in a generation",
            Rule::NoClientForgotten => "no client is forgotten",
            Rule::NoClientUnreported => "every client has an outcome",
            Rule::NumbersUsedOnce => "a state number is used once",
        })
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// In the history of which service.
    pub service: ServiceName,
    /// Which rule.
    pub rule: Rule,
    /// How, in words.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.service, self.what, self.rule)
    }
}

/// One generation, as it was last seen.
#[derive(Debug, Clone, Default)]
struct Known {
    claim: Option<Claim>,
    account: Option<Account>,
}

/// One service, as far as it was seen.
#[derive(Debug, Clone, Default)]
struct Past {
    generations: BTreeMap<Generation, Known>,
    /// Clients that hold locks, by the caller's own observation.
    holders: BTreeSet<RecordKey>,
    /// The life of a lock manager under which a client was told a number.
    told: BTreeMap<(RecordKey, StateNumber), String>,
}

/// Checks histories. A rule that was broken is found once, however often it is looked at.
#[derive(Debug, Clone, Default)]
pub struct HistoryCheck {
    services: BTreeMap<ServiceName, Past>,
    broken: BTreeSet<Broken>,
}

impl HistoryCheck {
    /// Looks at all services of a store. Generations that are removed while they are looked at are left out.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn look(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        for service in store.services()? {
            self.look_at(store, &service)?;
        }
        Ok(())
    }

    /// Looks at one service.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn look_at(&mut self, store: &dyn Store, service: &ServiceName) -> Result<(), StoreError> {
        let past = store.past(service)?;
        let mut accounts = Vec::new();
        for generation in past.generations.iter().rev() {
            match store.account(service, *generation) {
                Ok(account) => accounts.push((*generation, account)),
                // A generation that is no more in a second look was pruned.
                Err(error) => match store.past(service)?.generations.contains(generation) {
                    true => return Err(error),
                    false => continue,
                },
            }
        }
        self.past(service, &past.claims, accounts);
        Ok(())
    }

    /// All that one look has shown of a service: its claims, the newest first as a store gives them, and its generations by rising
    /// number.
    pub fn past(
        &mut self,
        service: &ServiceName,
        claims: &[Claim],
        accounts: impl IntoIterator<Item = (Generation, Account)>,
    ) {
        for claim in claims.iter().rev() {
            self.claimed(service, claim);
        }
        for (generation, account) in accounts {
            self.account(service, generation, account);
        }
    }

    /// A claim was seen. Claims are given in the order in which they were made, or all of a look by rising number.
    pub fn claimed(&mut self, service: &ServiceName, claim: &Claim) {
        let past = self.services.entry(service.clone()).or_default();
        let known = &mut past.generations.entry(claim.generation).or_default().claim;
        let mut broken = Vec::new();
        if let Some(before) = known.as_ref().filter(|before| before.unreadable.is_none()) {
            if before.owner != claim.owner {
                let what = format!(
                    "generation {} was claimed by {}, and is {}'s now",
                    claim.generation, before.owner, claim.owner
                );
                broken.push((Rule::OneServer, what));
            }
            if before.released && !claim.released {
                let what = format!("generation {} was given up, and is held again", claim.generation);
                broken.push((Rule::GenerationsRise, what));
            }
        }
        *known = Some(claim.clone());
        self.breaks(service, broken);
    }

    /// The newest claim of a service, at this moment.
    pub fn newest(&mut self, service: &ServiceName, claim: &Claim) {
        let past = self.services.get(service);
        let newest = past.and_then(|past| past.generations.last_key_value()).map(|(newest, _)| *newest);
        if let Some(newest) = newest.filter(|newest| claim.generation < *newest) {
            let what =
                format!("the newest claim was that of generation {newest}, and is {} now", claim.generation);
            self.breaks(service, vec![(Rule::GenerationsRise, what)]);
        }
        self.claimed(service, claim);
    }

    /// A generation was seen, after its claim and after the generations before it.
    pub fn account(&mut self, service: &ServiceName, generation: Generation, account: Account) {
        let Some(past) = self.services.get_mut(service) else { return };
        let is_first_sight = past.generations.get(&generation).is_none_or(|known| known.account.is_none());
        let mut broken = Vec::new();
        let claim = past.generations.get(&generation).and_then(|known| known.claim.as_ref());
        broken.extend(claim.and_then(|claim| foreign_journal(claim, account.journal.as_ref())));
        let before = past.generations.range(..generation).next_back();
        if let Some(before) = before.and_then(|(_, known)| known.account.as_ref()) {
            broken.extend(unreported(service, before, generation, &account));
        }
        let earlier = past.generations.range(..generation);
        let earlier = earlier.filter_map(|(number, known)| Some((*number, known.account.as_ref()?)));
        broken.extend(repeated_number(earlier, generation, &account));
        let adopts = claim.is_some_and(|claim| claim.adopts);
        if is_first_sight && adopts {
            broken.extend(forgotten_holder(past.holders.iter(), generation, &account));
        }
        past.generations.entry(generation).or_default().account = Some(account);
        self.breaks(service, broken);
    }

    /// A generation begins with these clients, right now: it has all of the generation before.
    pub fn begins(&mut self, service: &ServiceName, generation: Generation, keys: &BTreeSet<RecordKey>) {
        let Some(past) = self.services.get(service) else { return };
        let before = past.generations.range(..generation).next_back();
        let before = before.and_then(|(_, known)| known.account.as_ref());
        let missing = before.and_then(|before| before.keys.iter().find(|key| !keys.contains(*key)));
        if let Some(client) = missing {
            let what = format!("generation {generation} begins without {client}, which the one before had");
            self.breaks(service, vec![(Rule::NoClientForgotten, what)]);
        }
    }

    /// A server writes into a generation, or does something for it that clients notice.
    pub fn acts(&mut self, service: &ServiceName, generation: Generation, server: &ServerName) {
        let known = self.services.get(service).and_then(|past| past.generations.get(&generation));
        let owner = known.and_then(|known| known.claim.as_ref()).map(|claim| claim.owner.clone());
        if let Some(owner) = owner.filter(|owner| owner != server) {
            let what = format!("{server} acts in generation {generation}, which {owner} claimed");
            self.breaks(service, vec![(Rule::OneServer, what)]);
        }
    }

    /// A client got a lock of which it was promised that it is told: it is missed where a later generation that takes the service
    /// over neither has nor names it.
    pub fn granted(&mut self, service: &ServiceName, client: &RecordKey) {
        self.services.entry(service.clone()).or_default().holders.insert(client.clone());
    }

    /// A client gave its last lock up.
    pub fn gave_up(&mut self, service: &ServiceName, client: &RecordKey) {
        if let Some(past) = self.services.get_mut(service) {
            past.holders.remove(client);
        }
    }

    /// A client was told a number. `life` tells lives of lock managers apart, those of different servers as well.
    pub fn told(&mut self, service: &ServiceName, client: &RecordKey, number: StateNumber, life: &str) {
        let past = self.services.entry(service.clone()).or_default();
        let before = past.told.insert((client.clone(), number), life.to_owned());
        if let Some(before) = before.filter(|before| before != life) {
            let what = format!("{client} is told number {number} in the life {life}, and was in {before}");
            self.breaks(service, vec![(Rule::NumbersUsedOnce, what)]);
        }
    }

    /// The rules that were broken, in order of services.
    pub fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.broken.iter()
    }

    /// How many generations were seen with all that they hold.
    #[must_use]
    pub fn generations_seen(&self) -> usize {
        let all = self.services.values().flat_map(|past| past.generations.values());
        all.filter(|known| known.account.is_some()).count()
    }

    fn breaks(&mut self, service: &ServiceName, broken: Vec<(Rule, String)>) {
        let broken = broken.into_iter().map(|(rule, what)| Broken { service: service.clone(), rule, what });
        self.broken.extend(broken);
    }
}

/// Another server than the one that claimed a generation wrote its journal.
fn foreign_journal(claim: &Claim, journal: Option<&Journal>) -> Option<(Rule, String)> {
    let journal = journal.filter(|journal| journal.server != claim.owner)?;
    let (generation, owner, server) = (claim.generation, &claim.owner, &journal.server);
    Some((
        Rule::OneServer,
        format!("{server} wrote the journal of generation {generation}, which {owner} claimed"),
    ))
}

/// A generation has the number of an earlier one. A run that goes on in a new generation, in the life that it told of, keeps its
/// number.
fn repeated_number<'a>(
    mut earlier: impl Iterator<Item = (Generation, &'a Account)>,
    generation: Generation,
    account: &Account,
) -> Option<(Rule, String)> {
    let number = account.state?;
    let life = |account: &Account| account.journal.as_ref().and_then(|journal| journal.life.clone());
    let goes_on = |before: &Account| life(before).is_some() && life(before) == life(account);
    let (before, _) = earlier.find(|(_, before)| before.state == Some(number) && !goes_on(before))?;
    let what = format!("generation {generation} has the number {number}, and generation {before} had it");
    Some((Rule::NumbersUsedOnce, what))
}

/// A client of the generation before of which a run that is over says nothing, beside those that it left to others (I8). Servers that
/// this one mounts from are records of its own service alone, and are told of a reboot only: where there was none, nothing tells
/// them from clients.
fn unreported(
    service: &ServiceName,
    before: &Account,
    generation: Generation,
    account: &Account,
) -> Option<(Rule, String)> {
    let journal = account.journal.as_ref()?;
    let has_peers = service.is_host() && !journal.has_rebooted();
    // A run that failed says why, and the next one does all again.
    let is_over = journal.phase.is_over() && journal.failure.is_none();
    // A generation that only goes on with the duties of the one before has its journal, and no outcomes of its own.
    let goes_on = before.journal.as_ref().is_some_and(|before| before.run == journal.run);
    if !is_over || journal.members.is_empty() || has_peers || goes_on {
        return None;
    }
    let named: BTreeSet<&RecordKey> = account.outcomes.iter().map(|line| &line.client).collect();
    let mut unnamed = before.keys.iter().filter(|key| !named.contains(key));
    let client = unnamed.nth(journal.left_to_others)?;
    let what = format!(
        "{client} was on record before generation {generation}, whose run is over ({}) and says nothing of it",
        journal.phase
    );
    Some((Rule::NoClientUnreported, what))
}

/// A client that holds locks, and that a generation neither has nor names.
fn forgotten_holder<'a>(
    mut holders: impl Iterator<Item = &'a RecordKey>,
    generation: Generation,
    account: &Account,
) -> Option<(Rule, String)> {
    let is_named = |key: &RecordKey| account.outcomes.iter().any(|line| line.client == *key);
    let client = holders.find(|key| !account.keys.contains(*key) && !is_named(key))?;
    let what = format!("{client} holds locks, and generation {generation} takes the service over without it");
    Some((Rule::NoClientForgotten, what))
}
