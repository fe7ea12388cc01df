//! The licences of all crates that are linked into the program, as cargo knows them: which, and their texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The program whose crates are meant.
const PROGRAM: &str = "heirlock";

/// Licences that a program under MIT or Apache-2.0 may be linked with, by their SPDX names. Another one is for a person to
/// look at.
const COMPATIBLE: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "LLVM-exception",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "MIT-0",
];

/// Beginnings of the names of files that have a licence's text.
const FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "UNLICENSE"];

/// Bytes of the longest of them.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The parts of `cargo metadata` that are looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    /// Nothing for a crate of the project's own.
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// Nothing for one that is linked.
    kind: Option<String>,
}

/// All of them, as a document for people.
pub(crate) fn text() -> Result<String> {
    let host = host()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let ran = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            // As the packages have it.
            "--features",
            "heirlock/etcd",
            "--filter-platform",
            &host,
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .context("can't run cargo metadata")?;
    ensure!(ran.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&ran.stderr).trim());
    document(&serde_json::from_slice(&ran.stdout).context("cargo metadata says what is not understood")?)
}

/// The platform that is built for.
fn host() -> Result<String> {
    let ran = Command::new("rustc").arg("-vV").output().context("can't run rustc -vV")?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(ToOwned::to_owned).with_context(|| format!("expected a host of rustc -vV, found {said:?}"))
}

fn document(metadata: &Metadata) -> Result<String> {
    let mut out = String::from(
        "The program is linked with these crates, besides the standard library of Rust, which is under MIT or Apache-2.0\n\
         (https://github.com/rust-lang/rust/blob/master/COPYRIGHT). Each text stands once, with the crates that it belongs to.\n\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked(metadata)? {
        let called = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or_default();
        check(licence).with_context(|| called.clone())?;
        let repository = package.repository.as_deref().unwrap_or("-");
        out.push_str(&format!("{called:34} {licence}\n{:34} {repository}\n", ""));
        let folder = package.manifest_path.parent().context("expected a manifest in a folder")?;
        let found = texts_in(folder).with_context(|| called.clone())?;
        if found.is_empty() {
            out.push_str(&format!("{:34} (it brings no text of its own)\n", ""));
        }
        for text in found {
            texts.entry(text).or_default().push(called.clone());
        }
    }
    for (text, crates) in &texts {
        out.push_str(&format!("\n{}\n{}:\n\n{}\n", "-".repeat(72), crates.join(", "), text.trim_end()));
    }
    Ok(out)
}

/// The crates of others that are linked into the program, by name. Macros run when it is compiled, and are not linked.
fn linked(metadata: &Metadata) -> Result<Vec<&Package>> {
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let is_program = |package: &&Package| package.name == PROGRAM && package.source.is_none();
    let program =
        metadata.packages.iter().find(is_program).context("expected a crate heirlock, found none")?;
    let (mut seen, mut left) = (BTreeSet::new(), vec![program.id.as_str()]);
    while let Some(id) = left.pop() {
        let package = packages.get(id).with_context(|| format!("{id} is in no list"))?;
        let is_macro =
            package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"));
        if is_macro || !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("{id} is not resolved"))?;
        let needed =
            node.deps.iter().filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        left.extend(needed.map(|dependency| dependency.pkg.as_str()));
    }
    let mut linked: Vec<&Package> = seen.iter().filter_map(|id| packages.get(id).copied()).collect();
    linked.retain(|package| package.source.is_some());
    linked.sort_by_key(|package| (&package.name, &package.version));
    Ok(linked)
}

/// Each name of an expression must be known. A choice that has one that is not is looked at by a person all the same.
fn check(licence: &str) -> Result<()> {
    ensure!(!licence.is_empty(), "expected a licence in its manifest, found none");
    let words = licence.split(['(', ')', ' ', '/']).filter(|word| !word.is_empty());
    for word in words.filter(|word| !matches!(*word, "OR" | "AND" | "WITH")) {
        if !COMPATIBLE.contains(&word) {
            bail!("its licence is {licence:?}; expected one of {}", COMPATIBLE.join(", "));
        }
    }
    Ok(())
}

/// The texts of licences in a crate's folder.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && FILES.iter().any(|beginning| name.starts_with(beginning)) {
            names.push(path);
        }
    }
    names.sort();
    names.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path)?.len();
    ensure!(
        bytes <= FILE_BYTES_MAX,
        "expected a licence of at most {FILE_BYTES_MAX} bytes, found {bytes} in {}",
        path.display()
    );
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// heirlock, which is linked with `used`; `built` and `tested` are not, nor is the macro `derive`.
    fn metadata(folder: &Path, licence: Option<&str>) -> Metadata {
        let package = |name: &str, own: bool, kind: &str| {
            let manifest = folder.join(name).join("Cargo.toml");
            json!({"id": name, "name": name, "version": "1.0.0", "license": licence, "repository": null,
                "manifest_path": manifest, "source": if own { Value::Null } else { json!("registry") },
                "targets": [{"kind": [kind]}]})
        };
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let node = |name: &str, deps: Vec<Value>| json!({"id": name, "deps": deps});
        serde_json::from_value(json!({
            "packages": [package("heirlock", true, "bin"), package("used", false, "lib"), package("built", false, "lib"),
                package("tested", false, "lib"), package("derive", false, "proc-macro"), package("syn", false, "lib")],
            "resolve": {"nodes": [
                node("heirlock", vec![needs("used", Value::Null), needs("built", json!("build")),
                    needs("tested", json!("dev")), needs("derive", Value::Null)]),
                node("used", vec![]), node("built", vec![]), node("tested", vec![]),
                node("derive", vec![needs("syn", Value::Null)]), node("syn", vec![])]}
        }))
        .unwrap()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("used")).unwrap();
        fs::write(folder.path().join("used/LICENSE-MIT"), "Copyright: all who used it\n").unwrap();
        fs::write(folder.path().join("used/lib.rs"), "code\n").unwrap();
        folder
    }

    #[test]
    fn the_crates_that_are_linked_are_named_with_their_texts_and_no_others() {
        let folder = folder();
        let text = document(&metadata(folder.path(), Some("MIT OR Apache-2.0"))).unwrap();
        assert!(
            text.contains("used 1.0.0 ") && text.contains("used 1.0.0:\n\nCopyright: all who used it\n"),
            "{text}"
        );
        for other in ["heirlock 1", "built", "tested", "derive", "syn"] {
            assert!(!text.contains(other), "{other}: {text}");
        }
    }

    #[test]
    fn a_licence_that_is_missing_or_unknown_is_refused_with_the_crate() {
        let folder = folder();
        for (licence, expected) in [
            (None, "expected a licence"),
            (Some("MIT OR GPL-3.0-only"), "\"MIT OR GPL-3.0-only\"; expected one of"),
        ] {
            let refused = document(&metadata(folder.path(), licence)).unwrap_err();
            let said = format!("{refused:#}");
            assert!(said.starts_with("used 1.0.0: ") && said.contains(expected), "{said}");
        }
    }

    /// Of the program as it is.
    #[test]
    fn every_crate_of_the_program_has_a_licence_that_is_known() {
        let text = text().unwrap();
        for expected in ["clap 4", "serde 1", "rustix 1", "ureq 3", "ring 0", "Permission is hereby granted"]
        {
            assert!(text.contains(expected), "{expected} is not in the list of licences");
        }
        assert!(!text.contains("proptest"), "a crate of the tests is not linked");
    }
}
