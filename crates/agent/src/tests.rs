//! The things that an agent may touch.

mod overtaken;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

/// Words of code that touches a file, a thread, a socket, a clock, a program or chance.
const TOUCHES: [&str; 20] = [
    "std::fs",
    "std::io",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::sync::atomic",
    "Mutex",
    "Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "ToSocketAddrs",
    "fastrand",
    "rustix",
    "socket2",
    "signal_hook",
];

/// The dependencies of this crate: none has a thing that an agent must not touch, but for the log.
const DEPENDS_ON: [&str; 5] = ["anyhow", "heirlock-core", "heirlock-nsm", "serde", "tracing"];

/// The lines of a file that are neither comments nor tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let others = entries.filter(|path| path.file_stem().is_none_or(|stem| stem != "tests"));
    others.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn an_agent_touches_nothing_but_its_store_and_its_outside() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut found = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        for line in code(&text) {
            let touches = TOUCHES.iter().filter(|what| line.contains(*what));
            found.extend(touches.map(|what| format!("{}: {what}", path.display())));
        }
    }
    assert!(files.len() > 30, "{}", files.len());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_crate_of_the_agent_depends_on_nothing_that_touches_anything() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names: Vec<&str> = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, DEPENDS_ON);
}
