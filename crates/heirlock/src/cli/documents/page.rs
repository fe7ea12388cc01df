//! One manual page, and what all pages have in common.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::roff::{Lines, escape};

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) name: String,
    pub(super) section: &'static str,
    /// As man(7) has it.
    pub(super) text: String,
}

impl Page {
    pub(super) fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// Below the folder of all pages.
    pub(super) fn place(&self) -> String {
        format!("man{}/{}", self.section, self.file_name())
    }

    /// As it is asked for: a verb by itself.
    pub(super) fn short_name(&self) -> &str {
        self.name.strip_prefix("heirlock-").unwrap_or(&self.name)
    }

    pub(super) fn is_called(&self, wanted: &str) -> bool {
        [self.name.as_str(), self.short_name(), self.file_name().as_str()].contains(&wanted)
    }
}

/// The first line of a page.
pub(super) fn title(name: &str, section: &str, manual: &str) -> String {
    let day = day().strftime("%Y-%m-%d");
    let version = env!("CARGO_PKG_VERSION");
    format!(".TH \"{}\" \"{section}\" \"{day}\" \"heirlock {version}\" \"{manual}\"", name.to_uppercase())
}

/// Of the source, where a build says it (<https://reproducible-builds.org/specs/source-date-epoch>), else today.
fn day() -> jiff::Zoned {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|said| said.parse().ok());
    let at = said.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or_else(Timestamp::now);
    at.to_zoned(TimeZone::UTC)
}

pub(super) fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

pub(super) fn see_also(lines: &mut Lines, pages: &[&str]) {
    lines.section("see also");
    let references = pages.iter().filter_map(|page| page.split_once('('));
    let references: Vec<String> =
        references.map(|(name, section)| format!(".BR {} ({section}", escape(name))).collect();
    lines.request(&references.join(" ,\n"));
}
