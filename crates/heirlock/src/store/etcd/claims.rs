//! Claims: how they are read, made, given up and written anew, and which entries tell their text where they can't be read.

use std::collections::{BTreeMap, BTreeSet};

use heirlock_core::claim::Claim;
use heirlock_core::store::{Asked, ClaimAnswer, Seen, StoreError, StoreErrorKind};
use heirlock_core::{Generation, ServiceName};

use super::EtcdStore;
use super::client::Purpose;
use super::commit::TRIES;
use super::generation::{BEGUN_READ, parse_journal};
use super::keys::{ClaimKey, claim_key, number};
use super::turn::{is, read_claim};
use super::wire::{Compare, Entry, Op, Range, Span, Txn};

/// Claims of a service that one look reads at most, with their marks: it has four.
const CLAIMS_READ: u64 = 64;

/// Services that one question looks at: etcd takes 128 readings.
const LOOKED_AT_ONCE: usize = 60;

/// The claims of a service, and its newest whole generation, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// As they are written.
    written: BTreeMap<Generation, Vec<u8>>,
    /// Those that were given up.
    released: BTreeSet<Generation>,
    /// The whole generations, as far as they were read.
    begun: BTreeSet<Generation>,
    revision: u64,
}

/// The newest claim, as far as the claims themselves tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Newest {
    None,
    Claim(Claim),
    /// It can't be read. Its generation was begun, and tells what it said.
    Ask(Generation, String),
    /// It can't be read, and began no generation.
    Lost(Generation, String),
}

impl Claims {
    fn new(span: &Span, claims: &[Entry], begun_span: &Span, begun: &[Entry], revision: u64) -> Self {
        let mut all = Self { revision, ..Self::default() };
        for entry in claims {
            match claim_key(span, &entry.key) {
                Some(ClaimKey::Claim(generation)) => {
                    all.written.insert(generation, entry.value.clone());
                }
                Some(ClaimKey::Released(generation)) => {
                    all.released.insert(generation);
                }
                None => {}
            }
        }
        all.begun = begun.iter().filter_map(|entry| number(begun_span, &entry.key)).collect();
        all
    }

    /// The numbers of claims, the newest first.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Generation> {
        self.written.keys().rev().copied()
    }

    /// A claim, or what was found in its place.
    pub(super) fn read(&self, generation: Generation) -> Result<Claim, String> {
        let written = self.written.get(&generation).ok_or("nothing")?;
        let mut claim = read_claim(written, generation)?;
        claim.released |= self.released.contains(&generation);
        Ok(claim)
    }

    /// A generation that was begun was claimed before that: where the claim is not there, it was lost.
    fn newest(&self) -> Newest {
        let (begun, claimed) = (self.begun.last().copied(), self.numbers().next());
        match begun.max(claimed) {
            Some(newest) => self.at(newest),
            None => Newest::None,
        }
    }

    fn at(&self, generation: Generation) -> Newest {
        match self.read(generation) {
            Ok(claim) => Newest::Claim(claim),
            Err(found) if self.begun.contains(&generation) => Newest::Ask(generation, found),
            Err(found) => Newest::Lost(generation, found),
        }
    }
}

impl EtcdStore {
    fn claims_ranges(&self, service: &ServiceName) -> [Range; 2] {
        let (claims, begun) = (self.keys.claims(service), self.keys.all_begun_of(service));
        [Range::last(claims, CLAIMS_READ), Range::last(begun, BEGUN_READ).names()]
    }

    /// The newest claims of a service.
    fn seen(&self, service: &ServiceName) -> Result<Claims, StoreError> {
        let (revision, [claims, begun]) = self.read(self.claims_ranges(service), Purpose::Call)?;
        Ok(self.claims_of(service, &claims.entries, &begun.entries, revision))
    }

    /// All claims of a service.
    pub(super) fn seen_all(&self, service: &ServiceName) -> Result<Claims, StoreError> {
        let claims = self.read_all(&self.keys.claims(service), false, Purpose::Call)?;
        Ok(self.claims_of(service, &claims, &[], 0))
    }

    fn claims_of(&self, service: &ServiceName, claims: &[Entry], begun: &[Entry], revision: u64) -> Claims {
        Claims::new(&self.keys.claims(service), claims, &self.keys.all_begun_of(service), begun, revision)
    }

    pub(super) fn newest(&self, service: &ServiceName) -> Result<Option<Claim>, StoreError> {
        let claims = self.seen(service)?;
        self.resolve(service, &claims, claims.newest())
    }

    /// The claim itself, or as the generation tells that it began.
    fn resolve(
        &self,
        service: &ServiceName,
        claims: &Claims,
        newest: Newest,
    ) -> Result<Option<Claim>, StoreError> {
        match newest {
            Newest::None => Ok(None),
            Newest::Claim(claim) => Ok(Some(claim)),
            Newest::Lost(generation, found) => Err(self.lost(service, generation, &found)),
            Newest::Ask(generation, found) => {
                let (_, [journal]) =
                    self.read([Range::key(self.keys.journal(service, generation))], Purpose::Call)?;
                match journal.value().map(|value| parse_journal(&value)) {
                    Some(Ok(journal)) => {
                        let released = claims.released.contains(&generation);
                        let why = self.unreadable_claim(service, generation, &found);
                        Ok(Some(journal.lost_claim(generation, released, why)))
                    }
                    _ => Err(self.lost(service, generation, &found)),
                }
            }
        }
    }

    /// A claim is free where no claim of its number or of a higher one is there, and no generation of such a number was begun.
    /// It is made under the condition that all of this is as it was looked at. Repeated, it finds the claim that it made.
    pub(super) fn claim_once(&self, service: &ServiceName, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        let written = self.json("a claim", claim)?;
        let mut claims = self.seen(service)?;
        for _ in 0..TRIES {
            let newest = claims.newest();
            let is_free = match &newest {
                Newest::None => true,
                Newest::Claim(newest) => newest.generation < claim.generation,
                Newest::Ask(newest, _) | Newest::Lost(newest, _) => *newest < claim.generation,
            };
            if !is_free {
                let there = self.resolve(service, &claims, newest)?;
                return Ok(match there {
                    Some(there)
                        if there.generation == claim.generation
                            && there.is_still(claim)
                            && there.unreadable.is_none() =>
                    {
                        ClaimAnswer::Won
                    }
                    // One that was made as a released one is still the one that was made.
                    Some(there) if there == *claim => ClaimAnswer::Won,
                    Some(there) => ClaimAnswer::Taken(there),
                    None => return Err(self.contended("a claim")),
                });
            }
            let key = self.keys.claim(service, claim.generation);
            let compares = vec![
                Compare::Absent(Span::key(key.clone())),
                Compare::UnchangedSince(self.keys.claims(service), claims.revision),
                Compare::UnchangedSince(self.keys.all_begun_of(service), claims.revision),
            ];
            let otherwise = self.claims_ranges(service).map(Op::Range).to_vec();
            let txn = Txn { compares, then: vec![Op::Put(key, written.clone())], otherwise };
            let made = self.make(txn, Purpose::Call)?;
            if made.held {
                return Ok(ClaimAnswer::Won);
            }
            let revision = made.revision;
            let mut reads = made.reads();
            let (found, begun) = (reads.next().unwrap_or_default(), reads.next().unwrap_or_default());
            claims = self.claims_of(service, &found.entries, &begun.entries, revision);
        }
        Err(self.contended("a claim"))
    }

    /// Writes a claim anew that can't be read, under the condition that it is as it was found: a number that is free for a
    /// moment would be won by another server.
    pub(super) fn restore(&self, service: &ServiceName, claim: &Claim) -> Result<(), StoreError> {
        let (key, written) = (self.keys.claim(service, claim.generation), self.json("a claim", claim)?);
        let (_, [found]) = self.read([Range::key(key.clone())], Purpose::Call)?;
        let found = found.value();
        if found.as_deref().is_some_and(|found| read_claim(found, claim.generation).is_ok()) {
            return Ok(());
        }
        let compares = vec![is(key.clone(), found)];
        // Where the condition does not hold, another one has written it, or this one did before its answer was lost.
        self.make(Txn { compares, then: vec![Op::Put(key, written)], ..Txn::default() }, Purpose::Call)
            .map(drop)
    }

    /// Marks a claim as given up. A mark without its claim would give away a later claim of this number.
    pub(super) fn give_up(&self, service: &ServiceName, generation: Generation) -> Result<(), StoreError> {
        let claims = self.seen(service)?;
        let there = claims.at(generation);
        let there = match there {
            Newest::Lost(..) if !claims.written.contains_key(&generation) => {
                let key = self.key_text(&self.keys.claim(service, generation));
                return Err(self.unexpected_at(&format!(
                    "expected claim {generation} of {service} in the key {key}, found nothing; ask 'heirlock history' whose \
                     the service is"
                )));
            }
            there => there,
        };
        self.resolve(service, &claims, there)?;
        let mark = self.keys.released(service, generation);
        self.make(Txn { then: vec![Op::Put(mark, Vec::new())], ..Txn::default() }, Purpose::Call).map(drop)
    }

    /// One question for many services.
    pub(super) fn look_at(&self, of: &[Asked]) -> Vec<Seen> {
        of.chunks(LOOKED_AT_ONCE).flat_map(|of| self.look_at_some(of)).collect()
    }

    fn look_at_some(&self, of: &[Asked]) -> Vec<Seen> {
        let ranges = of.iter().flat_map(|asked| self.claims_ranges(&asked.service));
        let then = ranges.map(Op::Range).collect();
        let made = match self.make(Txn { then, ..Txn::default() }, Purpose::Call) {
            Ok(made) => made,
            Err(error) => {
                let seen = |asked: &Asked| Seen {
                    service: asked.service.clone(),
                    newest: Err(error.clone()),
                    begun: Ok(None),
                };
                return of.iter().map(seen).collect();
            }
        };
        let revision = made.revision;
        let mut reads = made.reads();
        let see = |asked: &Asked| {
            let (claims, begun) = (reads.next().unwrap_or_default(), reads.next().unwrap_or_default());
            let is_cut = begun.is_cut;
            let claims = self.claims_of(&asked.service, &claims.entries, &begun.entries, revision);
            let newest = self.resolve(&asked.service, &claims, claims.newest());
            let claimed =
                newest.as_ref().ok().and_then(|newest| newest.as_ref().map(|claim| claim.generation));
            let begun = match asked.held.or(claimed).filter(|_| newest.is_ok()) {
                Some(at_most) => match claims.begun.range(..=at_most).next_back() {
                    None if is_cut => self.newest_begun(&asked.service, at_most),
                    found => Ok(found.copied()),
                },
                None => Ok(None),
            };
            Seen { service: asked.service.clone(), newest, begun }
        };
        of.iter().map(see).collect()
    }

    /// Why a claim can't be read, for people.
    pub(super) fn unreadable_claim(
        &self,
        service: &ServiceName,
        generation: Generation,
        found: &str,
    ) -> String {
        format!(
            "{}, key {}: expected JSON as this version writes it, found {found}",
            self.shown(),
            self.key_text(&self.keys.claim(service, generation))
        )
    }

    fn lost(&self, service: &ServiceName, generation: Generation, found: &str) -> StoreError {
        let key = self.key_text(&self.keys.claim(service, generation));
        let said = format!(
            "{}: expected claim {generation} of {service} in the key {key}, found {found}: the store can't say whose {service} is; put \
             the key back from a copy of the store; where there is none, see that no other server serves {service}, and say \
             'heirlock adopt {service} --force', which claims it anew",
            self.shown()
        );
        StoreError::new(StoreErrorKind::Claim { service: service.clone(), generation }, said)
    }
}
