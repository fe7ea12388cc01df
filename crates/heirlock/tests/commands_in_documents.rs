//! A command that a document shows is one that the command line takes.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Commands that the documents show at least: where fewer are found, this test no longer sees them.
const SHOWN_AT_LEAST: usize = 80;

/// The README, and all below docs but the decisions and laboratory notes, which speak of their time, and the map of modules,
/// which is made from the code.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut documents = vec![root.join("README.md")];
    for folder in ["docs", "docs/guide"] {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let is_read =
            |path: &PathBuf| path.extension().is_some_and(|of| of == "md") && !path.ends_with("modules.md");
        documents.extend(entries.filter(is_read));
    }
    documents
}

/// The commands that are shown as code, by lines or within a sentence, each as its words: those of a pipe, or after `&&`, are
/// commands of their own.
fn shown(text: &str) -> Vec<Vec<String>> {
    let within_sentences = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let code = text.lines().filter(|line| line.starts_with("    ")).chain(within_sentences);
    let simple = code.flat_map(|line| {
        let line = line.split(" #").next().unwrap_or_default();
        line.split(" && ").flat_map(|part| part.split(" | ")).collect::<Vec<_>>()
    });
    let words = simple.map(|command| {
        let command = command.split([';', '>']).next().unwrap_or_default();
        command.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>()
    });
    // 'heirlock VERB' stands for all of them.
    let is_command =
        |words: &[String]| matches!(words, [first, verb, ..] if first == "heirlock" && verb != "VERB");
    words.filter(|words| is_command(words)).collect()
}

#[test]
fn a_command_that_a_document_shows_is_one_that_the_command_line_takes() {
    let mut count = 0;
    for document in documents() {
        for words in shown(&fs::read_to_string(&document).unwrap()) {
            // What is asked for help is not done, and yet each of its words must be known.
            let ran = Command::new(env!("CARGO_BIN_EXE_heirlock"))
                .args(&words[1..])
                .arg("--help")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{}: {}: {said}", document.display(), words.join(" "));
            count += 1;
        }
    }
    assert!(count >= SHOWN_AT_LEAST, "only {count} were seen");
}

#[test]
fn a_link_between_documents_leads_to_a_file() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(document.parent().unwrap().join(path).exists(), "{}: {link}", document.display());
        }
    }
}
