//! The seams at which another instance of the NFS server, or another kind of lock manager, is put in.
//!
//! The machine is read only through a `Host`, which is made once and handed down: an instance in namespaces of its
//! own has another one. No place but a lock manager and the configuration asks which kind a lock manager is, or which strategy.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where the machine keeps its files.
const OF_THE_MACHINE: [&str; 9] = ["/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/var", "/lib", "/sbin"];

/// The folder in which a `Host` reads them.
const HOST: &str = "host/";

/// These name files of the machine, and hand the names to a `Host`.
const NAME_TO_A_HOST: [&str; 3] = ["guard/", "lock_manager/", "store/dir/on_host.rs"];

/// These name files that are no instance's, or name them to people alone.
const OTHERS: [(&str, &str); 10] = [
    ("callout/mod.rs", "heirlock's own configuration, and defaults"),
    ("cli/documents/configuration.rs", "prose of the manual pages"),
    ("cli/documents/texts.rs", "prose of the manual pages"),
    ("cli/exporter.rs", "the agent's socket, by default"),
    ("config/load.rs", "defaults, and examples in messages"),
    ("config/load/store.rs", "examples in messages"),
    ("config/reader.rs", "examples in messages"),
    ("demo/stage.rs", "a hook of the demo's servers"),
    ("ocf/mark.rs", "the notes of resource agents"),
    ("files/trusted.rs", "the null device, which is an empty file"),
];

/// Words of code that open a file by its whole path.
const OPENS: [&str; 4] = ["trusted::", "Folder::open", "UnixStream::connect", "UnixDatagram::"];

/// These know the kinds of lock managers and their strategies, by folder or by file.
const KNOW_KINDS: [(&str, &str); 4] = [
    ("src/config/", "words of the configuration, and properties"),
    ("src/lock_manager/", "the kinds themselves"),
    ("../agent/src/config/", "the same"),
    ("../agent/src/agent/instance/runs.rs", "a self-adoption that goes on follows what has happened: notify"),
];

/// The program's own text of a source file, without its tests.
struct Source {
    name: String,
    text: String,
}

#[test]
fn files_of_the_machine_are_named_in_the_host_module_or_to_a_host() {
    let mut named = 0;
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.name.starts_with(HOST)) {
        let may = NAME_TO_A_HOST.iter().any(|folder| source.name.starts_with(folder))
            || OTHERS.iter().any(|(file, _)| source.name == *file);
        for (number, line) in code(source).filter(|(_, line)| names_a_file(line)) {
            named += 1;
            if !may {
                faults.push(format!("{}:{number}: {}", source.name, line.trim()));
            }
        }
    }
    assert!(named > 20, "only {named} names found: is something wrong with this test?");
    assert!(faults.is_empty(), "not through a Host:\n{}", faults.join("\n"));
}

#[test]
fn a_file_that_is_named_to_a_host_is_opened_where_that_says_it_lies() {
    let mut faults = Vec::new();
    let mut opened = 0;
    for source in
        sources().iter().filter(|source| NAME_TO_A_HOST.iter().any(|at| source.name.starts_with(at)))
    {
        let constants: Vec<&str> = code(source).filter_map(|(_, line)| constant(line)).collect();
        let code: String = code(source).map(|(_, line)| format!("{line}\n")).collect();
        for statement in code.split([';', '{', '}']).filter(|one| OPENS.iter().any(|open| one.contains(open)))
        {
            let names = names_a_file(statement) || constants.iter().any(|name| has_word(statement, name));
            if names && !statement.contains(".at(") {
                faults.push(format!("{}: {}", source.name, statement.trim()));
            }
            opened += 1;
        }
    }
    assert!(opened > 10, "only {opened} calls found: is something wrong with this test?");
    assert!(faults.is_empty(), "not below a Host's root:\n{}", faults.join("\n"));
}

#[test]
fn a_host_is_made_once_where_the_program_begins() {
    let sources = sources();
    let makes = |source: &&Source| source.name != "host/mod.rs" && source.text.contains("Host::here()");
    let made: Vec<&str> = sources.iter().filter(makes).map(|source| source.name.as_str()).collect();
    assert_eq!(made, ["cli/mod.rs"]);
    let count = sources.iter().map(|source| source.text.matches("Host::here()").count()).sum::<usize>();
    assert_eq!(count, 1);
}

/// A look, the status monitor and an import give a record one role only if they ask the same object for it.
#[test]
fn which_hosts_are_peers_is_asked_of_the_lock_manager_alone() {
    let mut asked = Vec::new();
    for source in sources() {
        let asks = |line: &str| ["host.peers()", "host().peers()"].iter().any(|call| line.contains(call));
        asked.extend(code(&source).filter(|(_, line)| asks(line)).map(|_| source.name.clone()));
    }
    assert_eq!(asked, ["lock_manager/nlm.rs"]);
}

#[test]
fn no_other_place_asks_which_kind_a_lock_manager_is_or_which_strategy() {
    let mut known = 0;
    let mut faults = Vec::new();
    for folder in ["src", "../agent/src"] {
        for source in sources_in(folder) {
            let name = format!("{folder}/{}", source.name);
            let may = KNOW_KINDS.iter().any(|(place, _)| name.starts_with(place));
            let asks =
                |line: &str| ["LockManagerKind::", "Strategy::"].iter().any(|kind| line.contains(kind));
            for (number, line) in code(&source).filter(|(_, line)| asks(line)) {
                known += 1;
                if !may {
                    faults.push(format!("{name}:{number}: {}", line.trim()));
                }
            }
        }
    }
    assert!(known > 20, "only {known} places found: is something wrong with this test?");
    assert!(faults.is_empty(), "asks for a kind, and not for a property of it:\n{}", faults.join("\n"));
}

fn names_a_file(text: &str) -> bool {
    OF_THE_MACHINE.iter().any(|folder| {
        text.match_indices(&format!("\"{folder}")).any(|(at, _)| {
            let after = text[at + 1 + folder.len()..].chars().next();
            matches!(after, Some('/' | '"'))
        })
    })
}

/// The name of a constant whose value is a file of the machine.
fn constant(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("const ")?;
    let (name, value) = rest.split_once(':')?;
    names_a_file(value).then_some(name)
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// The lines of code with their numbers, without remarks.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn sources() -> Vec<Source> {
    sources_in("src").into_iter().filter(|source| !source.name.starts_with("agent/")).collect()
}

fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<Source> = Vec::new();
    for path in files(&root) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let is_test = name.contains("tests") || name.contains("testing");
        if is_test || ["fake_programs.rs", "namespaces.rs"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let own = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        found.push(Source { name, text: own });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}
