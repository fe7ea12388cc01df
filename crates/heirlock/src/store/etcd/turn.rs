//! The mark of the last transaction that changed a generation, and what a look at a generation shows its owner before it writes.
//!
//! A transaction whose answer is lost may be carried out now, later, or never. So each one that changes a generation names the
//! mark of the one before as its condition and writes a mark of its own. Where it is carried out twice, the second time its
//! condition does not hold. Where it is carried out late, after another one, neither. And where its answer is lost, the mark
//! that is found tells whether it was carried out.

use heirlock_core::claim::Claim;
use heirlock_core::store::{StoreError, StoreErrorKind};
use heirlock_core::{Generation, ServiceName};

use super::keys::{ClaimKey, Keys, claim_key};
use super::wire::{Compare, Entry, Range, Read, Span};

/// A mark: a number that rises with each transaction of a generation, and a text that no other transaction has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    /// The number.
    pub(super) number: u64,
    /// As it is written.
    pub(super) text: String,
}

impl Turn {
    /// A new one. `unique` is used once.
    pub(super) fn new(number: u64, unique: &str) -> Self {
        Self { number, text: format!("{number} {unique}") }
    }

    /// The mark that was found. One that can't be read, or is not there, counts as the newest that there may be: of a revision,
    /// which rises faster than the marks of any generation.
    pub(super) fn found(value: Option<&[u8]>, revision: u64) -> u64 {
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        let number = text.and_then(|text| text.split_once(' ')).and_then(|(number, _)| number.parse().ok());
        number.unwrap_or(revision)
    }
}

/// Claims that one look reads at most. A service has four, and a mark for each; of more, the newest count.
const CLAIMS_READ: u64 = 64;

/// What a generation and the claims from its own on showed at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground {
    /// The claim that began it, as it is written.
    own: Option<Vec<u8>>,
    /// Those after it, the newest first.
    later: Vec<Entry>,
    /// The generation is whole.
    is_begun: bool,
    /// Its mark, as it is written.
    turn: Option<Vec<u8>>,
    revision: u64,
}

/// What its owner knows of it, and makes the condition of the next transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    own: Option<Vec<u8>>,
    /// Nothing lies after its claim. Else that is as it was at this revision.
    later: Result<(), u64>,
    /// The mark as it is written; nothing where there is none.
    pub(super) turn: Option<Vec<u8>>,
    /// The number of the next mark.
    pub(super) next: u64,
}

/// How many readings show a ground.
pub(super) const READINGS: usize = 3;

/// The readings that show a ground.
pub(super) fn ground_of(keys: &Keys, service: &ServiceName, generation: Generation) -> [Range; READINGS] {
    [
        Range::last(keys.claims_from(service, generation), CLAIMS_READ),
        Range::key(keys.begun(service, generation)).names(),
        Range::key(keys.turn(service, generation)),
    ]
}

impl Ground {
    /// What these readings showed, in their order.
    pub(super) fn new(
        keys: &Keys,
        service: &ServiceName,
        generation: Generation,
        reads: [Read; READINGS],
        revision: u64,
    ) -> Self {
        let [claims, begun, turn] = reads;
        let own_key = keys.claim(service, generation);
        let mark = keys.released(service, generation);
        let (mut own, mut later) = (None, Vec::new());
        for entry in claims.entries {
            match entry.key {
                ref key if *key == own_key => own = Some(entry.value),
                // Whether it was given up makes no claim stand back.
                ref key if *key == mark => {}
                _ => later.push(entry),
            }
        }
        Self { own, later, is_begun: !begun.entries.is_empty(), turn: turn.value(), revision }
    }

    /// The last transaction of the generation is the one with this mark.
    pub(super) fn is_after(&self, turn: &Turn) -> bool {
        self.turn.as_deref() == Some(turn.text.as_bytes())
    }

    /// The last transaction of the generation is the one that was known before.
    pub(super) fn is_as_known(&self, known: &Known) -> bool {
        self.turn == known.turn
    }

    /// What its owner goes by from now on. A claim that can't be read is no claim in its way: an owner must be able to keep its
    /// own records while an entry is damaged.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotOwner`] where another server has claimed the service; `None` where the generation is not there.
    pub(super) fn judge(
        self,
        keys: &Keys,
        service: &ServiceName,
        by: &Claim,
    ) -> Result<Option<Known>, StoreError> {
        let all = keys.claims(service);
        let claims = self.later.iter().filter_map(|entry| match claim_key(&all, &entry.key)? {
            ClaimKey::Claim(generation) => read_claim(&entry.value, generation).ok(),
            ClaimKey::Released(_) => None,
        });
        let own = self.own.as_deref().and_then(|value| read_claim(value, by.generation).ok());
        if let Some(newer) = claims.chain(own).find(|claim| by.gives_way_to(claim)) {
            return Err(StoreError::not_owner(service, by, &newer));
        }
        if !self.is_begun {
            return Ok(None);
        }
        let next = Turn::found(self.turn.as_deref(), self.revision).saturating_add(1);
        let later = if self.later.is_empty() { Ok(()) } else { Err(self.revision) };
        Ok(Some(Known { own: self.own, later, turn: self.turn, next }))
    }
}

impl Known {
    /// The conditions of the next transaction: the generation is whole, no claim was made since, and the last transaction is
    /// the one that is known.
    pub(super) fn conditions(
        &self,
        keys: &Keys,
        service: &ServiceName,
        generation: Generation,
    ) -> [Compare; 4] {
        let (claim, after) = (keys.claim(service, generation), keys.claims_after(service, generation));
        [
            Compare::Present(keys.begun(service, generation)),
            is(claim, self.own.clone()),
            match self.later {
                Ok(()) => Compare::Absent(after),
                Err(revision) => Compare::UnchangedSince(after, revision),
            },
            is(keys.turn(service, generation), self.turn.clone()),
        ]
    }

    /// The same after a transaction with this mark.
    pub(super) fn after(self, turn: &Turn) -> Self {
        Self { turn: Some(turn.text.clone().into_bytes()), next: turn.number.saturating_add(1), ..self }
    }

    /// Whether it still says all that matters after other changes of the store: it names all that it saw.
    pub(super) fn may_be_kept(&self) -> bool {
        self.later.is_ok()
    }
}

/// The condition that a key has this value, or is not there.
pub(super) fn is(key: Vec<u8>, value: Option<Vec<u8>>) -> Compare {
    match value {
        Some(value) => Compare::Value(key, value),
        None => Compare::Absent(Span::key(key)),
    }
}

/// A claim as it was written under its number.
///
/// # Errors
/// What was found in its place, in words.
pub(super) fn read_claim(value: &[u8], generation: Generation) -> Result<Claim, String> {
    let claim: Claim = serde_json::from_slice(value).map_err(|error| {
        error.to_string().chars().take(crate::limits::FOUND_CHARS_MAX).collect::<String>()
    })?;
    match claim.generation == generation {
        true => Ok(claim),
        false => Err(format!("the claim of generation {}", claim.generation)),
    }
}

/// The failure of a commit whose answer was lost, and of which no later look can tell whether it was made.
pub(super) fn unsure(place: &str, service: &ServiceName) -> StoreError {
    let said = format!(
        "{place}: the answer to a commit of {service} was lost, and another transaction has followed it: it may have been made; \
         see that no two agents run under this server's name"
    );
    StoreError::new(StoreErrorKind::Unavailable, said)
}

#[cfg(test)]
mod tests {
    use heirlock_core::ServerName;
    use proptest::prelude::*;

    use super::*;

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    fn claim(generation: u64, owner: &str) -> Claim {
        Claim::new(Generation(generation), &ServerName::parse(owner).unwrap(), "run", 7)
    }

    fn entry(key: Vec<u8>, value: &[u8]) -> Entry {
        Entry { key, value: value.to_vec(), changed_at: 3 }
    }

    fn written(keys: &Keys, claim: &Claim) -> Entry {
        entry(keys.claim(&nfs(), claim.generation), &serde_json::to_vec(claim).unwrap())
    }

    fn ground(keys: &Keys, claims: Vec<Entry>, turn: Option<&str>) -> Ground {
        let read = |entries| Read { entries, is_cut: false };
        let turn = turn.map(|turn| entry(keys.turn(&nfs(), Generation(2)), turn.as_bytes()));
        let begun = entry(keys.begun(&nfs(), Generation(2)), b"");
        let reads = [read(claims), read(vec![begun]), read(turn.into_iter().collect())];
        Ground::new(keys, &nfs(), Generation(2), reads, 40)
    }

    #[test]
    fn a_claim_of_another_server_ends_it_and_no_other_entry_does() {
        let keys = Keys::below("/h/");
        let by = claim(2, "a");
        let judge = |claims| ground(&keys, claims, Some("5 x")).judge(&keys, &nfs(), &by);
        let own = written(&keys, &by);
        assert_eq!(judge(vec![own.clone()]).unwrap().unwrap().next, 6);
        let foreign = judge(vec![written(&keys, &claim(3, "b")), own.clone()]).unwrap_err();
        assert!(foreign.is_not_owner());
        assert!(
            judge(vec![written(&keys, &claim(2, "b"))]).unwrap_err().is_not_owner(),
            "under its own number"
        );
        let mark = entry(keys.released(&nfs(), Generation(2)), b"");
        let damaged = entry(keys.claim(&nfs(), Generation(4)), b"{");
        let stray = entry(b"/h/claims/nfs/zzz".to_vec(), b"");
        for harmless in [written(&keys, &claim(3, "a")), damaged, stray] {
            let known = judge(vec![harmless, mark.clone(), own.clone()]).unwrap().unwrap();
            assert!(!known.may_be_kept(), "what lies after it is looked at each time");
        }
        let known = judge(vec![mark, own]).unwrap().unwrap();
        assert!(known.may_be_kept(), "its own mark is not after it");
    }

    #[test]
    fn a_mark_tells_the_transaction_whose_answer_was_lost() {
        let keys = Keys::below("/h/");
        let known = ground(&keys, vec![], Some("5 x")).judge(&keys, &nfs(), &claim(2, "a")).unwrap().unwrap();
        let ours = Turn::new(known.next, "y");
        assert!(ground(&keys, vec![], Some("6 y")).is_after(&ours));
        assert!(!ground(&keys, vec![], Some("6 z")).is_after(&ours));
        assert!(ground(&keys, vec![], Some("5 x")).is_as_known(&known));
        assert!(!ground(&keys, vec![], None).is_as_known(&known));
        assert_eq!(known.after(&ours).next, 7);
    }

    proptest! {
        #[test]
        fn a_damaged_mark_is_followed_by_a_number_beyond_all_before(turn: Option<Vec<u8>>) {
            let number = Turn::found(turn.as_deref(), 1000);
            let text = turn.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            let told = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
            prop_assert!(number == 1000 || Some(number) == told);
        }
    }
}
