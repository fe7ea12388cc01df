//! docs/modules.md names every module with its own first sentence. `HEIRLOCK_REWRITE=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of modules, from the root of the repository, and their crates.
const CRATES: [(&str, &str); 8] = [
    ("crates/nsm/src", "the wire and the files of NSM, NLM and rpcbind"),
    ("crates/core/src", "every decision, without I/O, clock and randomness"),
    ("crates/agent/src", "the agent, which touches nothing by itself"),
    ("crates/exporter/src", "metrics and a page over HTTP"),
    ("crates/heirlock/src", "the program"),
    ("crates/package/src", "what the packages are made of"),
    ("crates/sim/src", "the simulator"),
    ("lab/src", "real kernels, scenarios and benches"),
];

const HEAD: &str = "# Modules\n\nEach module's own first sentence. A test writes this page anew with `HEIRLOCK_REWRITE=1 cargo test -p heirlock --test \
module_map`, and fails where it is not up to date.\n";

#[test]
fn the_map_of_modules_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut map = HEAD.to_owned();
    for (folder, what) in CRATES {
        write!(map, "\n## {folder}: {what}\n\n| module | what it is |\n|---|---|\n").unwrap();
        let mut modules = modules_in(&root.join(folder));
        modules.sort();
        for path in modules {
            let name = path.strip_prefix(root.join(folder)).unwrap().display().to_string();
            let sentence = first_sentence(&fs::read_to_string(&path).unwrap());
            assert!(!sentence.is_empty(), "{folder}/{name} does not say what it is");
            writeln!(map, "| [{name}](../{folder}/{name}) | {} |", sentence.replace('|', "\\|")).unwrap();
        }
    }
    let page = root.join("docs/modules.md");
    if std::env::var_os("HEIRLOCK_REWRITE").is_some() {
        fs::write(&page, &map).unwrap();
    }
    let written = fs::read_to_string(&page).unwrap_or_default();
    let stale = map.lines().zip(written.lines()).find(|(now, before)| now != before);
    assert!(map == written, "docs/modules.md is not up to date ({stale:?}): see its first lines");
}

/// All source files but tests.
fn modules_in(folder: &Path) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if stem == "tests" || stem == "testing" || stem.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            modules.extend(modules_in(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            modules.push(path);
        }
    }
    modules
}

/// The first sentence of what a module says of itself.
fn first_sentence(text: &str) -> String {
    let said = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let said = said.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    // A point inside a name, such as statd.c, ends nothing.
    let end = said.find(". ").map_or(said.len(), |at| at + 1);
    said[..end].to_owned()
}
