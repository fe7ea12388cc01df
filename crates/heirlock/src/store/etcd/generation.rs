//! Generations: whole or not at all, from the first to the last.

use heirlock_core::history::Tenure;
use heirlock_core::limits::TENURES_KEPT;
use heirlock_core::store::{Account, Contents, Damaged, DamagedPart, Past, StoreError};
use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Generation, Record, RecordKey, ServiceName};
use heirlock_nsm::StateNumber;
use heirlock_nsm::record::parse_record;

use super::EtcdStore;
use super::client::Purpose;
use super::commit::TRIES;
use super::keys::{Part, number, part};
use super::portions::{End, write_all_but_last};
use super::read_before::{Known, ReadBefore};
use super::store::shortened;
use super::turn::{Turn, is};
use super::wire::{Compare, Entry, Op, Range, Span, Txn};
use crate::limits::{ETCD_TXN_BYTES_MAX, ETCD_TXN_OPS_MAX, FOUND_CHARS_MAX};

/// Keys that one transaction removes at most.
const REMOVED_AT_ONCE: u64 = 1000;

impl EtcdStore {
    /// Writes a generation below its place, and at last the mark that it is whole. Until then no reader sees it.
    ///
    /// An attempt names itself by its own mark, which the first transaction writes and each further one has as its condition:
    /// what is left on the way of an earlier attempt is carried out no more.
    pub(super) fn begin(
        &self,
        service: &ServiceName,
        generation: Generation,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        let puts = self.puts_of(service, generation, contents)?;
        let Some(attempt) = self.begin_attempt(service, generation)? else { return Ok(()) };
        let mark = Op::Put(self.keys.begun(service, generation), attempt.text.clone().into_bytes());
        let write = |portion| self.write_portion(service, generation, &attempt, portion);
        let Some(mut last) = write_all_but_last(puts, contents.records.len(), &write)? else { return Ok(()) };
        last.push(mark);
        write(last).unwrap_or(Ok(()))
    }

    /// Writes a part of a generation that is being begun. `Some` where no other part is to follow.
    fn write_portion(
        &self,
        service: &ServiceName,
        generation: Generation,
        attempt: &Turn,
        then: Vec<Op>,
    ) -> Option<End> {
        let compares = self.being_begun(service, generation, attempt);
        let otherwise = self.begun_and_turn(service, generation).map(Op::Range).to_vec();
        match self.make(Txn { compares, then, otherwise }, Purpose::Call) {
            Ok(made) if made.held => None,
            Ok(made) => {
                let is_begun = made.reads().next().is_some_and(|begun| !begun.entries.is_empty());
                // Whole already: by this attempt, where the answer to its last step was lost, or by another run of this server.
                Some(if is_begun { Ok(()) } else { Err(self.contended("a generation that it begins")) })
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Takes what an earlier attempt left out of the way. `None` where the generation is there.
    fn begin_attempt(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<Turn>, StoreError> {
        let (_, [begun, turn]) = self.read(self.begun_and_turn(service, generation), Purpose::Call)?;
        let (mut is_begun, mut before) = (!begun.entries.is_empty(), turn.value());
        let attempt = Turn::new(0, &self.unique.next());
        for _ in 0..TRIES {
            if is_begun {
                return Ok(None);
            }
            let key = self.keys.turn(service, generation);
            let absent = Compare::Absent(Span::key(self.keys.begun(service, generation)));
            let compares = vec![absent, is(key.clone(), before)];
            let then = vec![
                Op::Put(key, attempt.text.clone().into_bytes()),
                Op::Delete(self.keys.generation(service, generation)),
            ];
            let otherwise = self.begun_and_turn(service, generation).map(Op::Range).to_vec();
            let made = self.make(Txn { compares, then, otherwise }, Purpose::Call)?;
            if made.held {
                return Ok(Some(attempt));
            }
            let mut reads = made.reads();
            is_begun = reads.next().is_some_and(|begun| !begun.entries.is_empty());
            before = reads.next().and_then(super::wire::Read::value);
            if before.as_deref() == Some(attempt.text.as_bytes()) {
                return Ok(Some(attempt));
            }
        }
        Err(self.contended("a generation that it begins"))
    }

    /// All that it begins with. The puts of records are made one at a time: with very many of them they are more than the records
    /// themselves.
    fn puts_of<'a>(
        &'a self,
        service: &'a ServiceName,
        generation: Generation,
        contents: &'a Contents,
    ) -> Result<impl Iterator<Item = Op> + Send + 'a, StoreError> {
        for (key, record) in &contents.records {
            self.check_record(record.len(), key.as_str())?;
        }
        let records = contents
            .records
            .iter()
            .map(move |(key, record)| Op::Put(self.keys.record(service, generation, key), record.to_vec()));
        let mut puts = Vec::new();
        if let Some(state) = contents.state {
            puts.push(Op::Put(self.keys.state(service, generation), state.render_file().to_vec()));
        }
        if let Some(journal) = &contents.journal {
            puts.push(Op::Put(self.keys.journal(service, generation), self.journal_text(journal)?));
        }
        for (text, place) in self.outcome_texts(&contents.outcomes)?.into_iter().zip(0..) {
            puts.push(Op::Put(self.keys.outcome(service, generation, [0, place]), text));
        }
        Ok(records.chain(puts))
    }

    /// The newest whole generation at or below this number.
    pub(super) fn newest_begun(
        &self,
        service: &ServiceName,
        at_most: Generation,
    ) -> Result<Option<Generation>, StoreError> {
        let span = self.keys.begun_up_to(service, at_most);
        let (_, [newest]) = self.read([Range::last(span.clone(), BEGUN_READ).names()], Purpose::Call)?;
        let all = newest.entries.iter().filter_map(|entry| number(&span, &entry.key));
        Ok(all.max())
    }

    pub(super) fn load_all(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Contents, StoreError> {
        let (span, begun) = (self.keys.generation(service, generation), self.keys.begun(service, generation));
        let before = std::mem::take(&mut *self.read_before());
        let mut loaded = Loaded::beside(&before);
        let beside = [Range::key(begun).names()];
        let read = self.read_pages(&span, false, Purpose::Call, &beside, &mut |portion| {
            let Some((entries, beside)) = portion else {
                loaded = Loaded::beside(&before);
                return Ok(());
            };
            if beside.first().is_none_or(|begun| begun.entries.is_empty()) {
                return Err(self.no_generation(service, generation));
            }
            entries.into_iter().for_each(|entry| loaded.take(&span, entry));
            Ok(())
        });
        let read = read.map(|()| loaded.contents());
        // Of a reading that failed nothing is kept, and the next one finds what this one found.
        *self.read_before() = read.as_ref().map_or(before, |contents| ReadBefore::of(&contents.records));
        read
    }

    pub(super) fn account_of(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Account, StoreError> {
        let ranges = [
            Range::key(self.keys.begun(service, generation)).names(),
            Range::key(self.keys.state(service, generation)),
            Range::key(self.keys.journal(service, generation)),
        ];
        let (_, [begun, state, journal]) = self.read(ranges, Purpose::Call)?;
        if begun.entries.is_empty() {
            return Err(self.no_generation(service, generation));
        }
        let place = self.keys.generation(service, generation).from;
        let key = |entry: Entry| match part(entry.key.strip_prefix(&*place)?) {
            Part::Record(key) => key.ok(),
            _ => None,
        };
        let mut keys = Vec::new();
        self.read_pages(&self.keys.records(service, generation), true, Purpose::Call, &[], &mut |portion| {
            match portion {
                Some((entries, _)) => keys.extend(entries.into_iter().filter_map(key)),
                None => keys.clear(),
            }
            Ok(())
        })?;
        let outcomes = self.read_all(&self.keys.outcomes(service, generation), false, Purpose::Call)?;
        Ok(Account {
            keys: keys.into_iter().collect(),
            state: state.value().and_then(|value| StateNumber::parse_file(&value).ok()),
            journal: journal.value().and_then(|value| parse_journal(&value).ok()),
            outcomes: outcomes.iter().flat_map(|entry| parse_outcomes(&entry.value)).collect(),
        })
    }

    pub(super) fn number(
        &self,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        let ranges = [
            Range::key(self.keys.begun(service, generation)).names(),
            Range::key(self.keys.state(service, generation)),
        ];
        let (_, [begun, state]) = self.read(ranges, Purpose::Call)?;
        let state = state.value().filter(|_| !begun.entries.is_empty());
        Ok(state.and_then(|value| StateNumber::parse_file(&value).ok()))
    }

    pub(super) fn past_of(&self, service: &ServiceName) -> Result<Past, StoreError> {
        let mut past = Past::default();
        let claims = self.seen_all(service)?;
        for number in claims.numbers() {
            match claims.read(number) {
                Ok(claim) => past.claims.push(claim),
                Err(why) => past.unreadable.push(self.unreadable_claim(service, number, &why)),
            }
        }
        let begun = self.keys.all_begun_of(service);
        let generations = self.read_all(&begun, true, Purpose::Call)?;
        past.generations = generations.iter().rev().filter_map(|entry| number(&begun, &entry.key)).collect();
        let span = self.keys.tenures(service);
        for entry in self.read_all(&span, false, Purpose::Call)?.iter().rev() {
            match serde_json::from_slice::<Tenure>(&entry.value) {
                Ok(tenure) => past.tenures.push(tenure),
                Err(error) => {
                    let found = shortened(error.to_string().as_bytes());
                    past.unreadable.push(format!("{}: {found}", self.key_text(&entry.key)));
                }
            }
        }
        Ok(past)
    }

    /// Under the condition that there is none, and never changed: the server that removes a generation first tells of it.
    pub(super) fn keep_one(&self, service: &ServiceName, tenure: &Tenure) -> Result<(), StoreError> {
        let key = self.keys.tenure(service, tenure.generation);
        let then = vec![Op::Put(key.clone(), self.json("an account", tenure)?)];
        let compares = vec![Compare::Absent(Span::key(key))];
        self.make(Txn { compares, then, ..Txn::default() }, Purpose::Call)?;
        let span = self.keys.tenures(service);
        let kept = self.read_all(&span, true, Purpose::Call)?;
        let mut kept = kept.into_iter().filter(|entry| number(&span, &entry.key).is_some());
        match kept.nth_back(TENURES_KEPT) {
            Some(old) => {
                let mut after = old.key;
                after.push(0);
                self.remove(Span { to: Some(after), ..span })
            }
            None => Ok(()),
        }
    }

    /// Removes generations and claims below `keep_from` save the newest of either, and what was left of their making or
    /// removal. First the marks that they are whole: half a generation must not pass for a whole one.
    pub(super) fn prune_all(&self, service: &ServiceName, keep_from: Generation) -> Result<(), StoreError> {
        if let Some(newest) = self.newest_begun(service, Generation(u64::MAX))? {
            let before = newest.min(keep_from);
            let then = vec![
                Op::Delete(self.keys.begun_before(service, before)),
                Op::Delete(self.keys.turns_before(service, before)),
            ];
            // The newest stays, whatever another one removes in this moment.
            let compares = vec![Compare::Present(self.keys.begun(service, newest))];
            if self.make(Txn { compares, then, ..Txn::default() }, Purpose::Call)?.held {
                self.remove_pages(&self.keys.generations_before(service, before))?;
            }
        }
        if let Some(newest) = self.seen_all(service)?.numbers().next() {
            let before = newest.min(keep_from);
            let then = vec![Op::Delete(self.keys.claims_before(service, before))];
            let compares = vec![Compare::Present(self.keys.claim(service, newest))];
            self.make(Txn { compares, then, ..Txn::default() }, Purpose::Call)?;
        }
        Ok(())
    }

    /// Removes keys, so many at a time that no other client of etcd has to wait for it.
    pub(super) fn remove_pages(&self, span: &Span) -> Result<(), StoreError> {
        loop {
            let range = Range { limit: REMOVED_AT_ONCE, ..Range::of(span.clone()).names() };
            let (_, [read]) = self.read([range], Purpose::Call)?;
            let Some(last) = read.entries.last() else { return Ok(()) };
            let mut after = last.key.clone();
            after.push(0);
            self.remove(Span::between(span.from.clone(), after))?;
            if !read.is_cut {
                return Ok(());
            }
        }
    }

    /// Removes keys. Repeated, it does the same.
    pub(super) fn remove(&self, span: Span) -> Result<(), StoreError> {
        self.make(Txn { then: vec![Op::Delete(span)], ..Txn::default() }, Purpose::Call).map(drop)
    }
}

/// Marks of whole generations that are read to find the newest: another key among them is none of the store's.
pub(super) const BEGUN_READ: u64 = 64;

/// Puts in portions that etcd takes, with room for one more in each. There is one at least.
pub(super) fn portions(puts: impl IntoIterator<Item = Op>) -> impl Iterator<Item = Vec<Op>> {
    let (mut puts, mut is_first) = (puts.into_iter().peekable(), true);
    std::iter::from_fn(move || {
        if puts.peek().is_none() && !is_first {
            return None;
        }
        is_first = false;
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while let Some(put) = puts.next_if(|put| {
            let is_full = portion.len() + 2 > ETCD_TXN_OPS_MAX;
            !is_full && (bytes == 0 || bytes + put.bytes() <= ETCD_TXN_BYTES_MAX)
        }) {
            bytes += put.bytes();
            portion.push(put);
        }
        Some(portion)
    })
}

/// A generation while it is read.
struct Loaded<'a> {
    contents: Contents,
    records: Vec<(RecordKey, Record)>,
    before: Known<'a>,
}

impl<'a> Loaded<'a> {
    /// Nothing yet. What is the same as in these records is kept once.
    fn beside(before: &'a ReadBefore) -> Self {
        Self { contents: Contents::default(), records: Vec::new(), before: before.in_order() }
    }

    fn take(&mut self, span: &Span, entry: Entry) {
        let below = entry.key.strip_prefix(&*span.from).unwrap_or(&entry.key);
        let path = || below.escape_ascii().to_string();
        let mut damaged = |why: String, part| self.contents.damaged.push(Damaged { path: path(), why, part });
        match part(below) {
            Part::Record(Ok(key)) => match self.before.same(&key, &entry.value) {
                Some(same) => self.records.push(same),
                None => match parse_record(&entry.value) {
                    Ok(_) => self.records.push((key, Record::from(entry.value))),
                    Err(error) => damaged(error.to_string(), DamagedPart::Record(Some(key))),
                },
            },
            Part::Record(Err(why)) => damaged(why, DamagedPart::Record(None)),
            Part::State => match StateNumber::parse_file(&entry.value) {
                Ok(state) => self.contents.state = Some(state),
                Err(error) => damaged(error.to_string(), DamagedPart::State),
            },
            Part::Journal => match parse_journal(&entry.value) {
                Ok(journal) => self.contents.journal = Some(journal),
                Err(why) => damaged(why, DamagedPart::JournalText),
            },
            Part::Outcomes => self.contents.outcomes.extend(parse_outcomes(&entry.value)),
            Part::Stray => {}
        }
    }

    fn contents(self) -> Contents {
        Contents { records: self.records.into_iter().collect(), ..self.contents }
    }
}

/// The journal of a generation, or why its text is none.
pub(super) fn parse_journal(value: &[u8]) -> Result<Journal, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string().chars().take(FOUND_CHARS_MAX).collect())
}

/// Outcomes; a line without sense is left out.
fn parse_outcomes(value: &[u8]) -> Vec<OutcomeLine> {
    value.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}
