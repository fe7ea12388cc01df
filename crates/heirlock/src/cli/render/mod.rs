//! Text for people: made here from values, and from nothing else, so that every word of it can be tested.

mod adoption;
mod drill;
mod guard;
mod history;
mod records;
mod status;
mod store;
mod table;

use std::fmt::Write;

use jiff::tz::TimeZone;

pub(super) use adoption::adoption;
pub(super) use drill::drill;
pub(super) use guard::{findings, steps};
pub(super) use history::history;
pub(super) use records::{exported, imported, record, records, services};
pub(super) use status::{checked, in_words, next_in_words, status, unknown};
pub(super) use store::{store_moved, store_taken_back};

use crate::words::counted;
use table::Table;

use crate::control::report::EntryTrouble;

/// Columns of the narrowest terminal that everything is readable on.
const WIDTH: usize = 80;

/// The surroundings that a text depends on.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Whether colours are wanted.
    pub(super) colours: bool,
    /// Now, in seconds since 1970: ages are counted from it.
    pub(super) now_s: u64,
    /// Where times are local to.
    pub(super) zone: TimeZone,
}

impl Look {
    pub(super) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// `2026-11-25 10:30:12`, where this process is.
    fn local_time(&self, seconds: u64) -> String {
        let time = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        time.map_or_else(
            || format!("{seconds} s after 1970"),
            |time| time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        )
    }

    /// The same without its seconds.
    fn local_minute(&self, seconds: u64) -> String {
        let time = self.local_time(seconds);
        time.get(..16).map_or_else(|| time.clone(), str::to_owned)
    }

    /// How long ago that was.
    fn age(&self, seconds: u64) -> String {
        let age = self.now_s.saturating_sub(seconds);
        match age {
            0..120 => format!("{age} s"),
            120..7_200 => format!("{} min", age / 60),
            7_200..172_800 => format!("{} h", age / 3_600),
            _ => format!("{} days", age / 86_400),
        }
    }
}

/// Text from elsewhere, on one line, with everything escaped that would do something to a terminal: control characters,
/// line separators, and marks that change the direction of the text after them.
pub(super) fn plain(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// The same for JSON, which itself escapes only some: the others lie in the strings of a document.
pub(super) fn json_safe(document: &str) -> String {
    document.chars().fold(String::with_capacity(document.len()), |mut shown, c| {
        if c != '\n' && plain(c.encode_utf8(&mut [0; 4])) != c.to_string() {
            // All of these lie below U+10000: one unit of four digits.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
        shown
    })
}

/// The agent's words.
pub(super) fn words(text: &str, troubles: &[EntryTrouble]) -> String {
    let shown = text.lines().fold(String::new(), |shown, line| shown + &plain(line) + "\n");
    troubles.iter().fold(shown, |shown, EntryTrouble { entry, why }| {
        shown + &wrapped("  ", &plain(&format!("{entry}: {why}")))
    })
}

/// One thing, one line or a few: broken between words before the last column, and indented by what `first` takes.
fn wrapped(first: &str, text: &str) -> String {
    let indent = " ".repeat(first.chars().count());
    let (mut shown, mut column) = (first.to_owned(), indent.len());
    for (count, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if count > 0 && column + 1 + length > WIDTH {
            shown.push('\n');
            shown.push_str(&indent);
            column = indent.len();
        } else if count > 0 {
            shown.push(' ');
            column += 1;
        }
        shown.push_str(word);
        column += length;
    }
    shown.push('\n');
    shown
}

#[cfg(test)]
pub(super) mod tests {
    pub(in crate::cli) use super::adoption::tests::report;
    use super::*;

    /// At 2026-11-25 09:30:00 UTC, an hour east of Greenwich.
    pub(super) fn look() -> Look {
        Look { colours: false, now_s: 1_795_599_000, zone: TimeZone::fixed(jiff::tz::Offset::constant(1)) }
    }

    #[test]
    fn nothing_from_the_network_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{9b}d\u{202e}e"), "a\\u{1b}[31mb\\nc\\u{9b}d\\u{202e}e");
        assert_eq!(plain("größe 192.0.2.1"), "größe 192.0.2.1");
        let document = serde_json::to_string_pretty(&["a\u{1b}\u{7f}\u{9b}\u{202e}ü"]).unwrap();
        let safe = json_safe(&document);
        assert_eq!(safe, "[\n  \"a\\u001b\\u007f\\u009b\\u202eü\"\n]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), ["a\u{1b}\u{7f}\u{9b}\u{202e}ü"]);
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let plain = look();
        let coloured = Look { colours: true, ..look() };
        assert_eq!((plain.bad("x"), coloured.bad("x")), ("x".into(), "\u{1b}[1;31mx\u{1b}[0m".into()));
    }

    #[test]
    fn times_are_local_and_ages_have_one_unit() {
        let look = look();
        assert_eq!(look.local_time(1_795_599_000), "2026-11-25 10:30:00");
        let ages = [5, 119, 120, 7_199, 7_200, 200_000].map(|age| look.age(look.now_s - age));
        assert_eq!(ages, ["5 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
        assert_eq!(look.age(look.now_s + 10), "0 s");
        assert_eq!(look.local_time(u64::MAX), "18446744073709551615 s after 1970");
    }

    #[test]
    fn long_lines_break_between_words() {
        let shown = wrapped("  ! ", &"word ".repeat(30));
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.lines().nth(1).unwrap().starts_with("    word"), "{shown}");
    }
}
