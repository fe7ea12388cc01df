//! The manual pages: heirlock(8), a page for each verb from the command line's own definition, heirlock.toml(5), and those of the
//! resource agents.

use clap::{Command, CommandFactory};

use super::super::args::Cli;
use super::page::{Page, lower_first, see_also, title};
use super::roff::Lines;
use super::{configuration, resource_agents, texts};

/// The section of all pages but those of files and of resource agents.
const SECTION: &str = "8";

/// All pages.
pub(super) fn pages() -> Vec<Page> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![program(&command), configuration::page()];
    verbs(&command, &mut pages);
    pages.extend(resource_agents::pages());
    pages
}

fn verbs(command: &Command, pages: &mut Vec<Page>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages.push(verb_page(verb));
        verbs(verb, pages);
    }
}

fn program(command: &Command) -> Page {
    let mut lines = begin(&command.clone().subcommand_value_name("verb"));
    lines.section("description");
    lines.text(texts::PROGRAM);
    options(command, &mut lines);
    lines.section("verbs");
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        lines.item(&format!("{}({SECTION})", page_name(verb)), &about);
    }
    let mut below = Below::of(command);
    below.environment = texts::PROGRAM_ENVIRONMENT;
    below.end(&mut lines, texts::PROGRAM_FILES, texts::PROGRAM_EXAMPLES);
    see_also(
        &mut lines,
        &["heirlock.toml(5)", "rpc.statd(8)", "sm-notify(8)", "exportfs(8)", "systemctl(1)"],
    );
    Page { name: "heirlock".into(), section: SECTION, text: lines.finish() }
}

fn verb_page(verb: &Command) -> Page {
    let name = page_name(verb);
    let words = texts::of(name.trim_start_matches("heirlock-"));
    let synopsis = words.and_then(|words| words.synopsis);
    let mut lines = match synopsis {
        Some(synopsis) => begin(&verb.clone().override_usage(synopsis)),
        None => begin(verb),
    };
    lines.section("description");
    match words {
        Some(words) => lines.text(words.description),
        None => lines.filled(&verb.get_about().map(ToString::to_string).unwrap_or_default()),
    }
    // A program of its own takes none of ours.
    if synopsis.is_none() {
        options(verb, &mut lines);
    }
    if verb.has_subcommands() {
        lines.section("verbs");
        for inner in verb.get_subcommands() {
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            lines.item(&format!("{}({SECTION})", page_name(inner)), &about);
        }
    }
    Below::of(verb).end(&mut lines, words.map_or(&[], |words| words.files), "");
    see_also(&mut lines, words.map_or(&["heirlock(8)"], |words| words.see_also));
    Page { name, section: SECTION, text: lines.finish() }
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// Title, name and synopsis.
fn begin(command: &Command) -> Lines {
    let mut lines = Lines::default();
    let name = page_name(command);
    lines.request(&title(&name, SECTION, "System administration"));
    let page = clap_mangen::Man::new(command.clone());
    lines.section("name");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // What comes before the dash is what man and apropos look for, so it stays bare.
    lines.request(&format!("{name} \\- {}", super::roff::escape(&lower_first(about.trim_end_matches('.')))));
    lines.request(&rendered(|out| page.render_synopsis_section(out)));
    lines
}

fn options(command: &Command, lines: &mut Lines) {
    let page = clap_mangen::Man::new(command.clone());
    lines.request(&rendered(|out| page.render_options_section(out)));
}

/// The part of a page that clap_mangen makes.
fn rendered(render: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    // Memory takes all that is written.
    let _ = render(&mut bytes);
    // It begins each part with a definition of its own for this mark.
    let text = String::from_utf8_lossy(&bytes).replace("\\*(Aq", "\\(aq");
    let lines = text.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "));
    let mut lines: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    // One end of a line is enough.
    lines.dedup_by(|line, before| *line == ".br" && *before == ".br");
    lines.join("\n")
}

/// The text below a verb's `--help`, in its parts.
#[derive(Debug, Default)]
struct Below {
    /// Parts of the verb's own.
    own: Vec<(String, Vec<String>)>,
    examples: Vec<String>,
    /// In the order of the text; a code is a number and its meaning.
    exit: Vec<String>,
    /// Variables, and what each one says.
    environment: &'static [(&'static str, &'static str)],
}

impl Below {
    fn of(command: &Command) -> Self {
        let below = command.get_after_long_help().or(command.get_after_help());
        let below = below.map(ToString::to_string).unwrap_or_default();
        let mut parts = Self::default();
        let mut heading = String::new();
        for line in below.lines() {
            let is_heading = !line.starts_with(' ') && (line.ends_with(':') || line.starts_with("Examples:"));
            if is_heading {
                heading = line.to_owned();
                if line.starts_with("Exit codes ") {
                    parts.exit.push(line.to_owned());
                } else if !line.starts_with("Examples") && !line.starts_with("Exit codes") {
                    parts.own.push((line.trim_end_matches(':').to_owned(), Vec::new()));
                } else if let Some(("Examples", said)) = line.split_once(": ") {
                    parts.examples.push(said.to_owned());
                }
                continue;
            }
            let part = match heading.split([':', ' ']).next() {
                Some("Examples") => &mut parts.examples,
                Some("Exit") => &mut parts.exit,
                _ => match parts.own.last_mut() {
                    Some((_, part)) => part,
                    None => continue,
                },
            };
            part.push(line.to_owned());
        }
        parts
    }

    /// The sections at the end of a page, in their usual order.
    fn end(&mut self, lines: &mut Lines, files: &[(&str, &str)], more_examples: &str) {
        for (title, part) in &self.own {
            lines.section(title);
            lines.filled(&part.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n"));
        }
        lines.section("exit status");
        for line in self.exit.iter().filter(|line| !line.is_empty()) {
            match line.strip_prefix("  ").and_then(|line| line.split_once("  ")) {
                Some((code, meaning)) if code.parse::<u8>().is_ok() => lines.item(code, meaning),
                Some(_) => lines.filled(line.trim()),
                None => {
                    lines.request(".PP");
                    lines.filled(line);
                }
            }
        }
        if !self.environment.is_empty() {
            lines.section("environment");
            self.environment.iter().for_each(|(name, about)| lines.item(name, about));
        }
        if !files.is_empty() {
            lines.section("files");
            files.iter().for_each(|(path, about)| lines.item(path, about));
        }
        lines.section("examples");
        let (prose, typed): (Vec<_>, Vec<_>) = self.examples.iter().partition(|line| !line.starts_with(' '));
        prose.iter().filter(|line| !line.is_empty()).for_each(|line| lines.filled(line));
        let typed: Vec<&str> = typed.iter().map(|line| line.trim_start()).collect();
        if !typed.is_empty() {
            lines.verbatim(typed.into_iter());
        }
        lines.text(more_examples);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sections(page: &Page) -> Vec<String> {
        let titles = page.text.lines().filter_map(|line| line.strip_prefix(".SH "));
        titles.map(|title| title.trim_matches('"').to_owned()).collect()
    }

    #[test]
    fn each_verb_has_a_page_and_words_of_its_own() {
        let names: BTreeSet<String> = pages().iter().map(|page| page.short_name().to_owned()).collect();
        let mut expected: BTreeSet<String> = texts::verbs().map(ToOwned::to_owned).collect();
        let others = ["heirlock", "heirlock.toml", "ocf_heirlock_service", "ocf_heirlock_notify"];
        expected.extend(others.map(ToOwned::to_owned));
        assert_eq!(names, expected);
        assert!(names.len() > 25, "{names:?}");
    }

    #[test]
    fn each_page_has_its_sections_in_the_usual_order() {
        let order = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "VERBS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ];
        for page in pages().iter().filter(|page| page.section == SECTION) {
            let found = sections(page);
            for needed in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
                assert!(found.iter().any(|title| title == needed), "{}: no {needed}: {found:?}", page.name);
            }
            let places: Vec<usize> =
                found.iter().filter_map(|title| order.iter().position(|known| known == title)).collect();
            assert!(places.is_sorted(), "{}: {found:?}", page.name);
            let code = ".TP\n\\fB0\\fR\n";
            assert!(page.text.contains(code), "{}: no exit status 0", page.name);
        }
    }

    #[test]
    fn what_a_page_refers_to_of_ours_is_there() {
        let pages = pages();
        let mut references = 0;
        for page in &pages {
            let (_, see_also) = page.text.split_once(".SH \"SEE ALSO\"").unwrap();
            for line in see_also.lines().filter_map(|line| line.strip_prefix(".BR heirlock")) {
                let (rest, section) = line.split_once(" (").unwrap();
                let name = format!("heirlock{}.{}", rest.replace("\\-", "-"), &section[..1]);
                assert!(pages.iter().any(|page| page.file_name() == name), "{}: {name}", page.name);
                references += 1;
            }
        }
        assert!(references > pages.len(), "{references}");
    }

    #[test]
    fn the_text_below_the_help_is_taken_apart() {
        let pages = pages();
        let page = |name: &str| &pages.iter().find(|page| page.is_called(name)).unwrap().text;
        assert!(page("enable").contains(".SH \"THE STORE\"\nA store has an identity"), "{}", page("enable"));
        let status = page("status");
        assert!(status.contains("Exit codes of \\-\\-check"), "{status}");
        assert!(status.contains(".TP\n\\fB2\\fR\nCRITICAL:"), "{status}");
        assert!(
            page("adopt").contains("heirlock adopt nfs \\-\\-owner\\-fenced nfs\\-a"),
            "{}",
            page("adopt")
        );
        assert!(page("callout").contains("\nrpc.statd runs it, it is not typed:\n"), "{}", page("callout"));
        assert!(!page("agent").contains("ends\\-with"), "an option for the demo alone is not shown");
    }

    /// No request but those of man(7), and no string that only some formatters define.
    #[test]
    fn a_page_is_made_of_requests_that_every_formatter_knows() {
        const KNOWN: [&str; 13] =
            [".TH", ".SH", ".SS", ".TP", ".PP", ".IP", ".RS", ".RE", ".EX", ".EE", ".BR", ".br", ".B"];
        for page in pages() {
            for line in page.text.lines().filter(|line| line.starts_with('.')) {
                let request = line.split(' ').next().unwrap();
                assert!(KNOWN.contains(&request), "{}: {line}", page.name);
            }
            assert!(!page.text.contains("\\*("), "{}", page.name);
            assert!(page.text.starts_with(".TH "), "{}", page.name);
        }
    }
}
