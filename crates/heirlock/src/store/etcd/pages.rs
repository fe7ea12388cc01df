//! Many keys are read a portion at a time: etcd sends no answer above 4 MB. All portions are of one revision, so that they fit
//! together; where that is compacted away meanwhile, all is read anew.

use heirlock_core::store::{StoreError, StoreErrorKind};

use super::EtcdStore;
use super::client::Purpose;
use super::wire::{Done, Entry, Op, Range, Read, Span, Txn};
use crate::limits::STORE_FOLDER_NAMES_MAX;

/// Bytes of keys and values that one portion is to have: as text it is about half of what etcd sends at most.
const PORTION_BYTES: usize = 1024 * 1024;

/// What an entry has besides its key and its value, as text: the names of its fields and its revisions.
const ENTRY_BYTES: usize = 100;

/// Keys of the first portion: so many of the longest records are more than one answer, and then fewer are asked for.
const FIRST_KEYS: u64 = 512;

/// Keys of a portion at most.
const KEYS_MAX: u64 = 8192;

/// How often a reading begins anew because its revision was compacted away.
const READINGS_MAX: u32 = 3;

/// Where a reading stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pages {
    /// What is left to read.
    left: Span,
    is_names: bool,
    keys: u64,
    revision: u64,
    /// Keys that were read.
    read: usize,
    is_over: bool,
}

impl Pages {
    /// Of these keys, with their values or without.
    pub(super) fn of(span: &Span, is_names: bool) -> Self {
        Self { left: span.clone(), is_names, keys: FIRST_KEYS, revision: 0, read: 0, is_over: false }
    }

    /// The next portion; nothing where all is read.
    pub(super) fn next(&self) -> Option<Range> {
        let range = Range { limit: self.keys, revision: self.revision, ..Range::of(self.left.clone()) };
        let range = if self.is_names { range.names() } else { range };
        (!self.is_over).then_some(range)
    }

    /// It was read, at this revision.
    ///
    /// # Errors
    /// Where it is no portion of what was asked for, or there are more keys than a store has. The finding in words.
    pub(super) fn took(&mut self, read: &Read, revision: u64) -> Result<(), String> {
        self.read += read.entries.len();
        if self.read > STORE_FOLDER_NAMES_MAX {
            return Err(format!("expected at most {STORE_FOLDER_NAMES_MAX} keys, found more"));
        }
        if self.revision == 0 {
            self.revision = revision;
        }
        self.is_over = !read.is_cut;
        let Some(last) = read.entries.last() else {
            return match read.is_cut {
                true => Err("expected keys, found none and that there are more".to_owned()),
                false => Ok(()),
            };
        };
        if !read.entries.is_sorted_by(|one, next| one.key < next.key) {
            return Err("expected keys in their order, found them in another one".to_owned());
        }
        self.left.from.clone_from(&last.key);
        self.left.from.push(0);
        let bytes: usize =
            read.entries.iter().map(|entry| entry.key.len() + entry.value.len() + ENTRY_BYTES).sum();
        let each = u64::try_from(bytes / read.entries.len()).unwrap_or(u64::MAX).max(1);
        let fits = u64::try_from(PORTION_BYTES).unwrap_or(u64::MAX) / each;
        // The next ones may be longer: it grows step by step.
        self.keys = fits.clamp(1, (self.keys * 4).min(KEYS_MAX));
        Ok(())
    }

    /// It was too long: fewer keys are asked for. Answers whether that is possible.
    pub(super) fn was_too_long(&mut self) -> bool {
        let can_be_shorter = self.keys > 1;
        self.keys = (self.keys / 4).max(1);
        can_be_shorter
    }
}

/// Keys that were read at one moment, and what was read beside them.
pub(super) type Portion = (Vec<Entry>, Vec<Read>);

impl EtcdStore {
    /// Reads keys in order, a portion at a time. `beside` is read with each of them, at the same revision. Where the reading
    /// has to begin anew, `take` is told so by `None`.
    pub(super) fn read_pages(
        &self,
        span: &Span,
        is_names: bool,
        purpose: Purpose,
        beside: &[Range],
        take: &mut dyn FnMut(Option<Portion>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for _ in 0..READINGS_MAX {
            let mut pages = Pages::of(span, is_names);
            let mut is_gone = false;
            while let Some(range) = pages.next() {
                let revision = range.revision;
                let beside = beside.iter().map(|range| Range { revision, ..range.clone() });
                let then = std::iter::once(range).chain(beside).map(Op::Range).collect();
                match self.ask(Txn { then, ..Txn::default() }, purpose) {
                    Err(error) if error.is_too_long() && pages.was_too_long() => continue,
                    Err(error) if error.is_compacted() => {
                        is_gone = true;
                        break;
                    }
                    Err(error) => return Err(error.at(self.shown())),
                    Ok(made) => {
                        let made = made?;
                        let (portion, rest) = split(made.done);
                        pages.took(&portion, made.revision).map_err(|found| self.unexpected_at(&found))?;
                        take(Some((portion.entries, rest)))?;
                    }
                }
            }
            if !is_gone {
                return Ok(());
            }
            take(None)?;
        }
        let said = format!(
            "{}: expected that what is read is kept for a moment, found it compacted away; compact etcd less often",
            self.shown()
        );
        Err(StoreError::new(StoreErrorKind::Unavailable, said))
    }

    /// All of these keys.
    pub(super) fn read_all(
        &self,
        span: &Span,
        is_names: bool,
        purpose: Purpose,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut all = Vec::new();
        self.read_pages(span, is_names, purpose, &[], &mut |portion| {
            match portion {
                Some((mut entries, _)) => all.append(&mut entries),
                None => all.clear(),
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// The first reading, and the others.
fn split(done: Vec<Done>) -> (Read, Vec<Read>) {
    let mut reads = done.into_iter().filter_map(|done| match done {
        Done::Read(read) => Some(read),
        Done::Changed => None,
    });
    (reads.next().unwrap_or_default(), reads.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u16, bytes: usize) -> Entry {
        Entry { key: format!("a/{key:05}").into_bytes(), value: vec![b'x'; bytes], changed_at: 1 }
    }

    fn all() -> Span {
        Span::between("a/", "a0")
    }

    /// An etcd that has these keys, and sends so many bytes at most.
    fn answer(kept: &[Entry], range: &Range, bytes_max: usize) -> Option<Read> {
        let there: Vec<&Entry> = kept.iter().filter(|entry| entry.key >= range.span.from).collect();
        let limit = usize::try_from(range.limit).unwrap();
        let entries: Vec<Entry> = there.iter().take(limit).map(|entry| (*entry).clone()).collect();
        let bytes: usize = entries.iter().map(|entry| entry.value.len()).sum();
        (bytes <= bytes_max).then_some(Read { is_cut: there.len() > entries.len(), entries })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_key_is_read_once_and_in_order(sizes in proptest::collection::vec(0_usize..70_000, 0..120), copies in 1_usize..12) {
            let kept: Vec<Entry> = sizes.iter().cycle().take(sizes.len() * copies).zip(0..).map(|(bytes, key)| entry(key, *bytes)).collect();
            let (mut pages, mut read, mut asked) = (Pages::of(&all(), false), Vec::new(), 0);
            while let Some(range) = pages.next() {
                asked += 1;
                prop_assert!(asked < 10_000, "it ends");
                match answer(&kept, &range, 3 * 1024 * 1024) {
                    None => prop_assert!(pages.was_too_long()),
                    Some(page) => {
                        let expected = if read.is_empty() { 0 } else { 9 };
                        prop_assert_eq!(range.revision, expected);
                        pages.took(&page, 9).unwrap();
                        read.extend(page.entries);
                    }
                }
            }
            prop_assert_eq!(read, kept);
        }
    }

    #[test]
    fn a_portion_that_can_t_be_is_refused_in_place_of_being_asked_for_for_ever() {
        let read = |entries, is_cut| Read { entries, is_cut };
        let mut pages = Pages::of(&all(), false);
        assert!(pages.took(&read(vec![], true), 1).unwrap_err().contains("found none"));
        let turned = read(vec![entry(2, 0), entry(1, 0)], true);
        assert!(pages.clone().took(&turned, 1).unwrap_err().contains("order"));
        let twice = read(vec![entry(2, 0), entry(2, 0)], true);
        assert!(pages.clone().took(&twice, 1).is_err());
        let mut asked = 0;
        while pages.was_too_long() {
            asked += 1;
        }
        assert!(asked < 10, "one key is the least");
    }

    #[test]
    fn portions_grow_to_what_fits_and_no_further() {
        let mut pages = Pages::of(&all(), false);
        let mut kept = (0..60_000).map(|key| entry(key, 120));
        let mut limits = Vec::new();
        for _ in 0..4 {
            let limit = usize::try_from(pages.next().unwrap().limit).unwrap();
            limits.push(limit);
            pages.took(&Read { entries: kept.by_ref().take(limit).collect(), is_cut: true }, 1).unwrap();
        }
        assert_eq!(limits[0], 512);
        assert!(limits[3] > 4_000 && limits[3] <= 8192, "{limits:?}");
    }
}
