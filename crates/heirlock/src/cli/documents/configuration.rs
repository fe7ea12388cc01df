//! heirlock.toml(5), made from the sample: its comments are the reference, so there is one text and not two.

use super::SAMPLE;
use super::page::{Page, see_also, title};
use super::roff::Lines;

/// A key of the sample.
#[derive(Debug)]
struct Key<'t> {
    /// With its value, as it is written.
    line: &'t str,
    text: Vec<&'t str>,
}

/// A section of the sample.
#[derive(Debug)]
struct Section<'t> {
    /// With its brackets; empty for the keys above the first one.
    header: &'t str,
    text: Vec<&'t str>,
    keys: Vec<Key<'t>>,
}

/// The sample, taken apart.
#[derive(Debug)]
struct Sample<'t> {
    /// The paragraphs at its head.
    introduction: Vec<Vec<&'t str>>,
    sections: Vec<Section<'t>>,
}

/// Takes the sample apart. A comment has a blank after its sign; a key that is left to its default has none.
fn sample(text: &str) -> Sample<'_> {
    let mut introduction = Vec::new();
    let mut sections = vec![Section { header: "", text: Vec::new(), keys: Vec::new() }];
    let mut comment: Vec<&str> = Vec::new();
    // Its head ends with the first paragraph that has a key in it.
    let mut is_head = true;
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("# ").or((line == "#").then_some("")) {
            if is_head && words.is_empty() {
                introduction.push(std::mem::take(&mut comment));
            } else {
                comment.push(words);
            }
        } else if line.is_empty() {
            if is_head && !comment.is_empty() {
                introduction.push(std::mem::take(&mut comment));
            }
            comment.clear();
        } else if line.starts_with('[') {
            is_head = false;
            sections.push(Section { header: line, text: std::mem::take(&mut comment), keys: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            is_head = false;
            let line = line.trim_start_matches('#');
            section.keys.push(Key { line, text: std::mem::take(&mut comment) });
        }
    }
    Sample { introduction, sections }
}

/// The page.
pub(super) fn page() -> Page {
    let mut lines = Lines::default();
    lines.request(&title("heirlock.toml", "5", "File formats"));
    lines.section("name");
    lines.filled("heirlock.toml - the configuration of heirlock on one NFS server");
    lines.section("synopsis");
    lines.filled("/etc/heirlock/heirlock.toml");
    lines.section("description");
    lines.text(super::texts::CONFIGURATION);
    let Sample { introduction, sections } = sample(SAMPLE);
    // The first paragraph is for a reader who has the file open.
    for paragraph in introduction.iter().skip(1) {
        lines.request(".PP");
        lines.filled(&paragraph.join("\n"));
    }
    lines.section("keys above all sections");
    for (number, section) in sections.iter().enumerate() {
        if number == 1 {
            lines.section("sections");
        }
        if number > 0 {
            lines.part(section.header);
        }
        explained(&mut lines, &section.text, false);
        for key in &section.keys {
            lines.request(".TP");
            lines.request(&format!("\\fB{}\\fR", super::roff::escape(key.line)));
            explained(&mut lines, &key.text, true);
        }
    }
    super::texts::CONFIGURATION_SECTIONS.iter().for_each(|(title, text)| {
        lines.section(title);
        lines.text(text);
    });
    see_also(&mut lines, &["heirlock(8)", "heirlock-check-config(8)", "heirlock-sample-config(8)"]);
    Page { name: "heirlock.toml".into(), section: "5", text: lines.finish() }
}

/// A comment: prose, and lists of words that are set in.
fn explained(lines: &mut Lines, text: &[&str], within_key: bool) {
    let mut is_list = false;
    for line in text {
        let depth = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        match (depth, trimmed.split_once("  ")) {
            (2, Some((word, said))) => {
                if !is_list {
                    lines.request(".RS");
                }
                is_list = true;
                lines.item(word, said.trim_start());
            }
            (0, _) => {
                if is_list {
                    lines.request(".RE");
                    lines.request(if within_key { ".IP" } else { ".PP" });
                }
                is_list = false;
                lines.filled(&required(trimmed));
            }
            _ => lines.filled(trimmed),
        }
    }
    if is_list {
        lines.request(".RE");
    }
}

/// The sample marks what must be set by a word in capitals, for eyes that look for it.
fn required(line: &str) -> String {
    line.strip_prefix("SET: ").map_or(line.to_owned(), |rest| format!("Must be set: {rest}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys_of;

    /// The keys that a page explains, each with its section before it.
    fn explained_keys(page: &str) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let mut section = String::new();
        for line in page.lines().map(|line| line.replace("\\-", "-").replace("\\(dq", "\"")) {
            if let Some(header) = line.strip_prefix(".SS \"[") {
                section = format!("{}.", header.trim_matches(['[', ']', '"']));
            }
            if let Some((name, _)) = line.strip_prefix("\\fB").and_then(|line| line.split_once(" = ")) {
                keys.insert(format!("{section}{name}"));
            }
        }
        keys
    }

    #[test]
    fn the_page_explains_each_key_that_is_read_and_no_other() {
        let read = keys_of(SAMPLE);
        // Sections have been asked for by their names as well.
        let is_section = |key: &str| read.iter().any(|other| other.starts_with(&format!("{key}.")));
        let read: BTreeSet<String> = read.iter().filter(|key| !is_section(key)).cloned().collect();
        assert!(read.len() > 40, "{read:?}");
        assert_eq!(explained_keys(&page().text), read);
    }

    #[test]
    fn each_key_and_each_section_has_its_own_words() {
        let Sample { introduction, sections } = sample(SAMPLE);
        assert!(introduction.len() >= 3, "{introduction:?}");
        assert!(sections.len() > 8, "{sections:?}");
        for section in &sections {
            for key in &section.keys {
                assert!(!key.text.is_empty(), "{}: {} has no word of its own", section.header, key.line);
            }
        }
    }

    #[test]
    fn a_list_in_a_comment_is_one_in_the_page() {
        let text = page().text;
        for mode in ["watch", "callout", "nsm"] {
            assert!(text.contains(&format!(".TP\n\\fB{mode}\\fR\n")), "{mode}: {text}");
        }
    }
}
