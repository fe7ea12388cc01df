//! Reads a configuration's text, key by key, and collects all mistakes in it: an administrator who mends one wants to know
//! of the others.
//!
//! The words of an error are an administrator's: where it is, what was expected and found, and how it is written. Missing
//! quotes are the commonest slip; the value is known all the same, and is shown with its quotes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Command;
use crate::limits;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where it begins in the text; nothing for a key that is missing altogether.
    at: Option<usize>,
    /// The same as a line, from 1.
    pub(super) line: Option<usize>,
    /// With the key that it is about, where there is one.
    pub(super) what: String,
    /// A key is not there; it may be what is no TOML.
    is_missing: bool,
}

/// The text of a file, and the mistakes that were found in it.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    /// Where it is no TOML, and whether a mistake says so in better words.
    faults: RefCell<Vec<Fault>>,
    mistakes: RefCell<Vec<Mistake>>,
    /// Every key that was asked for.
    asked: RefCell<BTreeSet<String>>,
}

#[derive(Debug)]
struct Fault {
    span: Range<usize>,
    message: String,
    explained: bool,
}

/// One section of a file, which may be missing.
pub(super) struct Section<'r, 't> {
    reader: &'r Reader<'t>,
    table: Option<&'r DeTable<'t>>,
    /// Where it begins.
    at: Option<usize>,
    /// The words before a key: `capture.`, `service nfs: `.
    prefix: String,
    /// The same in the list of keys: `capture.`, `service.`.
    path: String,
    asked: RefCell<Vec<&'static str>>,
    /// Keys that must be there and are not, with what is to be said of each.
    missing: RefCell<Vec<(&'static str, String)>>,
}

/// A value with its place in the text.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// The table of a text, and a reader of it.
pub(super) fn read(text: &str) -> (Spanned<DeTable<'_>>, Reader<'_>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let fault = |error: &toml::de::Error| Fault {
        span: error.span().unwrap_or(0..0),
        message: error.message().replace('\n', " "),
        explained: false,
    };
    let mut faults: Vec<Fault> = errors.iter().map(fault).collect();
    faults.sort_by_key(|fault| fault.span.start);
    let (mistakes, asked) = (RefCell::default(), RefCell::default());
    (table, Reader { text, faults: RefCell::new(faults), mistakes, asked })
}

impl<'t> Reader<'t> {
    /// All of the file.
    pub(super) fn whole<'r>(&'r self, table: &'r DeTable<'t>) -> Section<'r, 't> {
        Section {
            reader: self,
            table: Some(table),
            at: None,
            prefix: String::new(),
            path: String::new(),
            asked: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    /// All mistakes, in the order of the text; missing keys come last.
    pub(super) fn mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.take();
        let faults = self.faults.take();
        let end = faults.iter().find(|fault| fault.tears()).map(|fault| fault.span.start);
        if let Some(end) = end {
            mistakes.retain(|mistake| mistake.at.is_some_and(|at| at < end));
        }
        if faults.iter().any(|fault| !fault.explained) {
            mistakes.retain(|mistake| !mistake.is_missing);
        }
        let mut lines = BTreeSet::new();
        for fault in faults.iter().filter(|fault| !fault.explained) {
            let at = fault.span.start;
            if end.is_none_or(|end| at <= end) && lines.insert(line_of(self.text, at)) {
                mistakes.push(Mistake {
                    at: Some(at),
                    line: Some(line_of(self.text, at)),
                    what: format!("this is no TOML: {}", fault.message),
                    is_missing: false,
                });
            }
        }
        // Although better words may exist for the fault: a text that is no TOML is never taken for a configuration.
        if let (true, Some(first)) = (mistakes.is_empty(), faults.first()) {
            let (at, what) = (first.span.start, format!("this is no TOML: {}", first.message));
            mistakes.push(Mistake {
                at: Some(at),
                line: Some(line_of(self.text, at)),
                what,
                is_missing: false,
            });
        }
        mistakes.sort_by_key(|mistake| mistake.at.unwrap_or(usize::MAX));
        mistakes.dedup();
        mistakes
    }

    /// Every key that was asked for, with its section.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    fn complain(&self, at: Option<usize>, what: String, is_missing: bool) {
        let line = at.map(|at| line_of(self.text, at));
        self.mistakes.borrow_mut().push(Mistake { at, line, what, is_missing });
    }

    /// As it is written, or its beginning.
    fn raw(&self, span: &Range<usize>) -> &'t str {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        let raw = raw.lines().next().unwrap_or_default();
        raw.char_indices().nth(RAW_CHARS_MAX).map_or(raw, |(end, _)| &raw[..end])
    }

    /// Notes that a mistake explains the faults of TOML here in better words; `true` where there was one.
    fn explain(&self, span: &Range<usize>) -> bool {
        let mut explained = false;
        for fault in self.faults.borrow_mut().iter_mut() {
            if fault.span.start >= span.start && fault.span.end <= span.end && !fault.tears() {
                fault.explained = true;
                explained = true;
            }
        }
        explained
    }
}

impl Fault {
    /// After it nothing is where it seems to be.
    fn tears(&self) -> bool {
        ["unclosed", "missing comma", "unexpected"].iter().any(|word| self.message.starts_with(word))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.get(..at).map_or(0, |before| before.matches('\n').count())
}

impl<'r, 't> Section<'r, 't> {
    /// Something is wrong with a key, wherever it stands in this section.
    pub(super) fn wrong(&self, key: &'static str, what: impl Display) {
        let at = self.table.and_then(|table| table.get(key)).map(|value| value.span().start).or(self.at);
        self.wrong_at(at, key, what);
    }

    /// Something is wrong with a key at this place.
    pub(super) fn wrong_at(&self, at: Option<usize>, key: &str, what: impl Display) {
        self.reader.complain(at, format!("{}{key}: {what}", self.prefix), false);
    }

    /// A key must be there, and is not. Where one is that looks like it, that one is spoken of instead.
    pub(super) fn missing(&self, key: &'static str, what: impl Display) {
        if !self.has(key) {
            self.missing.borrow_mut().push((key, what.to_string()));
        }
    }

    /// Sets the words before its keys.
    pub(super) fn call(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Whether it says anything of this key, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether this key has a list with nothing in it.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value.is_some_and(|value| matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// Whether the file has it.
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    fn value(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().push(key);
        self.reader.asked.borrow_mut().insert(format!("{}{key}", self.path));
        self.table?.get(key)
    }

    /// Another kind of value was expected.
    fn kind(&self, key: &str, value: &Spanned<DeValue<'t>>, expected: &str, written: impl Display) {
        let raw = self.reader.raw(&value.span());
        self.reader.explain(&value.span());
        self.wrong_at(
            Some(value.span().start),
            key,
            format!("expected {expected}: {key} = {written}, found {raw}"),
        );
    }

    /// The text of one value of this key; a value that lacks its quotes is shown with them, and taken as it is meant.
    fn text_of(&self, key: &str, value: &Spanned<DeValue<'t>>, in_list: bool) -> Option<Located<String>> {
        let (span, at) = (value.span(), value.span().start);
        let raw = self.reader.raw(&span);
        let broken = self.reader.explain(&span);
        match value.get_ref() {
            DeValue::String(text) if !broken => Some(Located { value: text.to_string(), at }),
            DeValue::Array(_) | DeValue::Table(_) => {
                self.wrong_at(Some(at), key, "expected a string, found something in brackets");
                None
            }
            _ => {
                let meant = raw.trim_matches(['"', '\'']).to_owned();
                let written = if in_list { format!("[{meant:?}]") } else { format!("{meant:?}") };
                self.wrong_at(Some(at), key, format!("expected a string: {key} = {written}, found {raw}"));
                Some(Located { value: meant, at })
            }
        }
    }

    /// A string.
    pub(super) fn string(&self, key: &'static str) -> Option<Located<String>> {
        let value = self.value(key)?;
        self.text_of(key, value, false)
    }

    /// A string that stands for something; an example says how it is written.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, key: &'static str, example: &str) -> Option<T> {
        let Located { value, at } = self.string(key)?;
        let parsed = value.parse().map_err(|error| {
            self.wrong_at(Some(at), key, format!("{error}; for example: {key} = {example:?}"));
        });
        parsed.ok()
    }

    /// A value that is one of these words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let Located { value, at } = self.string(key)?;
        let known = words.iter().find(|(word, _)| *word == value);
        if known.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let (last, first) = list.split_last()?;
            let list =
                if first.is_empty() { (*last).to_owned() } else { format!("{} or {last}", first.join(", ")) };
            let example = alike(&value, words.iter().map(|(word, _)| *word))
                .or(words.first().map(|(word, _)| *word))?;
            let what = format!("expected {list}, found {value:?}; for example: {key} = {example:?}");
            self.wrong_at(Some(at), key, what);
        }
        known.map(|(_, value)| *value)
    }

    /// A yes or no.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        if let DeValue::Boolean(boolean) = value.get_ref() {
            return Some(*boolean);
        }
        let meant =
            matches!(self.reader.raw(&value.span()).trim_matches(['"', '\'']), "true" | "yes" | "on" | "1");
        self.kind(key, value, "true or false, without quotes", meant);
        None
    }

    /// The number of a port, not below this one.
    pub(super) fn port(&self, key: &'static str, min: u16) -> Option<u16> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => u16::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let port = number.filter(|port| *port >= min);
        if port.is_none() {
            let example = self.reader.raw(&value.span()).trim_matches(['"', '\'']).parse::<u16>().ok();
            let example = example.filter(|port| *port >= min).unwrap_or(111);
            self.kind(key, value, &format!("a port from {min} to 65535, without quotes"), example);
        }
        port
    }

    /// One number and one unit, within bounds; the sentence says what they are for.
    pub(super) fn duration(
        &self,
        key: &'static str,
        bounds: &RangeInclusive<Duration>,
        why: &str,
        example: &str,
    ) -> Option<Duration> {
        let Located { value, at } = self.string(key)?;
        let example = format!("for example: {key} = {example:?}");
        let Some(found) = duration(&value) else {
            let what = format!("expected a number and a unit (ms, s, m, h or d), found {value:?}; {example}");
            self.wrong_at(Some(at), key, what);
            return None;
        };
        if bounds.contains(&found) {
            return Some(found);
        }
        let (least, most) = (Spelled(*bounds.start()), Spelled(*bounds.end()));
        let what = format!(
            "expected at least \"{least}\" and at most \"{most}\", found {value:?}: {why}; {example}"
        );
        self.wrong_at(Some(at), key, what);
        None
    }

    /// A list of strings that each stand for something; none twice.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Vec<Located<T>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let raw = self.reader.raw(&value.span()).trim_matches(['"', '\'']);
            self.kind(key, value, "a list of strings", format!("[{raw:?}]"));
            return Vec::new();
        };
        let mut found: Vec<Located<T>> = Vec::new();
        for item in items {
            let Some(Located { value: text, at }) = self.text_of(key, item, true) else { continue };
            match parse(&text) {
                Ok(value) if found.iter().any(|other| same(&other.value, &value)) => {
                    self.wrong_at(Some(at), key, format!("{text:?} is there twice; take one out"));
                }
                Ok(value) => found.push(Located { value, at }),
                Err(why) => {
                    self.wrong_at(Some(at), key, format!("{why}; for example: {key} = [{example:?}]"));
                }
            }
        }
        found
    }

    /// Whether this key is not there, or has one of these words.
    pub(super) fn has_word<T>(&self, key: &str, words: &[(&str, T)]) -> bool {
        let value = self.table.and_then(|table| table.get(key)).map(Spanned::get_ref);
        value.is_none_or(
            |value| matches!(value, DeValue::String(text) if words.iter().any(|(word, _)| word == text)),
        )
    }

    /// A list of strings that each stand for something, and of lists of these: groups in an order, where a string is a group of one.
    /// What can't be parsed was said, and is left out; then, and where there is no such key, there are no groups.
    pub(super) fn groups<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        example: &str,
    ) -> Option<Vec<Vec<T>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let raw = self.reader.raw(&value.span());
            self.reader.explain(&value.span());
            self.wrong_at(Some(value.span().start), key, format!("expected a list, found {raw}; {example}"));
            return None;
        };
        let one = |item: &Spanned<DeValue<'t>>| {
            let Located { value: text, at } = self.text_of(key, item, true)?;
            parse(&text).map_err(|why| self.wrong_at(Some(at), key, why)).ok()
        };
        let group = |item: &Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Array(inner) => inner.iter().map(one).collect::<Vec<_>>(),
            _ => vec![one(item)],
        };
        // All are looked at, so that each mistake is said.
        let groups: Vec<Vec<Option<T>>> = items.iter().map(group).collect();
        groups.into_iter().map(|group| group.into_iter().collect()).collect()
    }

    /// A program and its arguments, or a table that also says how long it may take.
    pub(super) fn command(&self, key: &'static str) -> Option<Command> {
        let value = self.value(key)?;
        let example = format!("{key} = [\"/usr/local/sbin/{key}\"]");
        match value.get_ref() {
            DeValue::Array(_) => {
                self.argv(key, value, &example).map(|argv| Command { argv, time_limit: TIME_LIMIT })
            }
            DeValue::Table(table) => {
                let section = Section {
                    table: Some(table),
                    at: Some(value.span().start),
                    prefix: format!("{}{key}.", self.prefix),
                    path: format!("{}{key}.", self.path),
                    asked: RefCell::default(),
                    missing: RefCell::default(),
                    reader: self.reader,
                };
                section.asked.borrow_mut().push("command");
                let argv = match table.get("command") {
                    Some(argv) => self.argv(key, argv, &example),
                    None => {
                        section.missing("command", format!("it is missing; for example: {key} = {{ command = [\"/usr/local/sbin/{key}\"], time-limit = \"90s\" }}"));
                        None
                    }
                };
                let why = "a command that takes longer holds the adoption up";
                let limit = section.duration("time-limit", &limits::COMMAND_TIME, why, "90s");
                section.finish();
                argv.map(|argv| Command { argv, time_limit: limit.unwrap_or(TIME_LIMIT) })
            }
            _ => {
                let raw = self.reader.raw(&value.span()).trim_matches(['"', '\'']);
                let words: Vec<&str> = raw.split_whitespace().collect();
                self.kind(key, value, "a program and its arguments, without a shell", format!("{words:?}"));
                None
            }
        }
    }

    fn argv(&self, key: &str, value: &Spanned<DeValue<'t>>, example: &str) -> Option<Vec<String>> {
        let at = Some(value.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_at(at, key, format!("expected a list of strings; for example: {example}"));
            return None;
        };
        let argv: Option<Vec<String>> =
            items.iter().map(|item| self.text_of(key, item, true).map(|text| text.value)).collect();
        let argv = argv?;
        let program = argv.first().map(String::as_str).unwrap_or_default();
        if program.is_empty() {
            self.wrong_at(
                at,
                key,
                format!("expected a program and its arguments, found nothing; for example: {example}"),
            );
            return None;
        }
        if program.contains('/') && !program.starts_with('/') {
            let what = format!(
                "expected a program's path from the root, found {program:?}, which means another file in every folder; for example: {example}"
            );
            self.wrong_at(at, key, what);
            return None;
        }
        Some(argv)
    }

    /// A section of this one.
    pub(super) fn section(&self, key: &'static str) -> Section<'r, 't> {
        let value = self.value(key);
        let table = value.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong(key, format!("expected a section, written [{key}] on a line of its own"));
                None
            }
        });
        self.inner(key, table, value.map(|value| value.span().start))
    }

    /// All sections of one name.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'r, 't>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.reader.explain(&value.span());
            let what = format!(
                "expected sections that are each written [[{key}]], in two pairs of brackets, on a line of its own"
            );
            self.wrong(key, what);
            return Vec::new();
        };
        let section = |item: &'r Spanned<DeValue<'t>>| {
            let table = match item.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => None,
            };
            self.inner(key, table, Some(item.span().start))
        };
        items.iter().map(section).collect()
    }

    fn inner(&self, key: &str, table: Option<&'r DeTable<'t>>, at: Option<usize>) -> Section<'r, 't> {
        Section {
            reader: self.reader,
            table,
            at,
            prefix: format!("{}{key}.", self.prefix),
            path: format!("{}{key}.", self.path),
            asked: RefCell::default(),
            missing: RefCell::default(),
        }
    }

    /// Refuses keys that were not asked for, since a misspelt key is a setting that silently isn't one.
    pub(super) fn finish(self) {
        let known = self.asked.take();
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let meant = alike(name, known.iter().copied());
            self.missing.borrow_mut().retain(|(missing, _)| Some(*missing) != meant);
            let hint = match meant {
                Some(known) => format!("; did you mean {known:?}?"),
                None => format!("; expected {}", known.join(", ")),
            };
            self.reader.complain(
                Some(key.span().start),
                format!("there is no key {name:?} here{hint}"),
                false,
            );
        }
        for (key, what) in self.missing.take() {
            self.reader.complain(self.at, format!("{}{key}: {what}", self.prefix), true);
        }
    }
}

/// Characters of the file that one mistake shows.
const RAW_CHARS_MAX: usize = 80;

/// How long a command may take, unless told otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// One number and one unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit_ms = UNITS.iter().find(|(unit, _)| text.get(digits..) == Some(unit))?.1;
    let number: u64 = text.get(..digits)?.parse().ok()?;
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Units with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration as the configuration spells it.
pub(super) struct Spelled(pub(super) Duration);

impl Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let whole = UNITS.iter().find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms));
        let (unit, unit_ms) = whole.unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", ms / unit_ms)
    }
}

/// The one that looks most like this word, if any does.
fn alike<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, known) =
        known.map(|known| (edit_distance(word, known), known)).min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.chars().count() / 4).then_some(known)
}

/// Levenshtein's, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_recognised_and_a_foreign_one_is_not() {
        let known = ["addresses", "names", "tombstone-delay"];
        let alike = |word| alike(word, known.into_iter());
        assert_eq!(alike("adresses"), Some("addresses"));
        assert_eq!(alike("tombstone_delay"), Some("tombstone-delay"));
        assert_eq!(alike("frobnicate"), None);
    }

    #[test]
    fn a_duration_is_spelt_as_it_may_be_written() {
        for text in ["500ms", "1s", "90s", "10m", "2h", "7d"] {
            assert_eq!(Spelled(duration(text).unwrap()).to_string(), text);
        }
        for text in ["", "s", "5", "5 s", "-5s", "1.5s", "18446744073709551615d", "5µs"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(Spelled(duration("0s").unwrap()).to_string(), "0ms");
    }
}
