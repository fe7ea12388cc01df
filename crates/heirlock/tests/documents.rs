//! The documents that the program carries, as an administrator or a package gets them: completions, the sample, manual pages.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn heirlock(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heirlock"))
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "86400")
        // None is read for any of them.
        .env("HEIRLOCK_CONFIG", "/nowhere/heirlock.toml")
        .output()
        .unwrap()
}

fn text(arguments: &[&str]) -> String {
    let ran = heirlock(arguments);
    assert!(ran.status.success() && ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_sample_is_the_one_that_is_shipped_and_a_configuration() {
    let sample = text(&["sample-config"]);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/heirlock.toml");
    assert_eq!(sample, fs::read_to_string(shipped).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heirlock.toml");
    fs::write(&path, &sample).unwrap();
    let checked = heirlock(&["check-config", "--config", path.to_str().unwrap()]);
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
}

#[test]
fn the_configuration_that_the_guide_gives_for_pacemaker_is_one_that_its_agents_take() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/pacemaker.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (_, below) = guide.split_once("\n## heirlock.toml\n").unwrap();
    let is_part = |line: &&str| line.is_empty() || line.starts_with("    ");
    let listing: Vec<&str> =
        below.lines().skip_while(|line| !line.starts_with("    ")).take_while(is_part).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heirlock.toml");
    for strategy in ["restart-nfs", "notify"] {
        let text = listing.join("\n").replace("\"restart-nfs\"", &format!("\"{strategy}\""));
        assert!(text.contains(&format!("strategy = \"{strategy}\"")), "{text}");
        fs::write(&path, &text).unwrap();
        let validated = Command::new(env!("CARGO_BIN_EXE_heirlock"))
            .args(["ocf", "service", "validate-all"])
            .env("HEIRLOCK_CONFIG", &path)
            .env("OCF_RESKEY_service", "homes")
            .env("OCF_RESKEY_CRM_meta_on_node", "nfs-a")
            // The cluster's tools are not asked.
            .env("PATH", folder.path())
            .output()
            .unwrap();
        assert_eq!(validated.status.code(), Some(0), "{validated:?}\n{text}");
    }
}

#[test]
fn each_shell_gets_completions_that_it_can_read_and_that_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&["completions", shell]);
        for word in ["adopt", "check-config", "owner-fenced", "sample-config"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script = text(&["completions", "bash"]);
    let complete =
        "COMP_WORDS=(heirlock ado); COMP_CWORD=1; _heirlock heirlock ado heirlock; echo ${COMPREPLY[@]}";
    let ran = Command::new("bash").args(["-c", &format!("{script}\n{complete}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "adopt", "{ran:?}");
}

#[test]
fn a_page_is_asked_for_by_its_verb_and_all_are_written_into_a_folder() {
    let adopt = text(&["man", "adopt"]);
    assert!(adopt.starts_with(".TH \"HEIRLOCK-ADOPT\" \"8\" \"1970-01-02\" \"heirlock "), "{adopt}");
    for same in [&["man", "heirlock-adopt"][..], &["man", "heirlock-adopt.8"]] {
        assert_eq!(text(same), adopt);
    }
    assert_eq!(text(&["man", "records", "list"]), text(&["man", "records-list"]));
    assert!(text(&["man"]).starts_with(".TH \"HEIRLOCK\" \"8\""));
    let document: Value = serde_json::from_str(&text(&["man", "adopt", "--json"])).unwrap();
    assert_eq!(document, json!({"name": "heirlock-adopt.8", "text": adopt}));

    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("share/man");
    let said = text(&["man", "--all", into.to_str().unwrap()]);
    let written: Vec<String> = said.lines().map(ToOwned::to_owned).collect();
    assert!(written.len() > 25, "{said}");
    assert_eq!(fs::read_to_string(into.join("man8/heirlock-adopt.8")).unwrap(), adopt);
    for path in written.iter().chain([&into.join("man5/heirlock.toml.5").display().to_string()]) {
        assert!(fs::read_to_string(path).unwrap().starts_with(".TH "), "{path}");
    }
}

#[test]
fn a_page_that_is_not_there_is_a_usage_error_that_names_those_that_are() {
    let ran = heirlock(&["man", "nonsense"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(
        said.contains("there is no page \"nonsense\"; expected one of heirlock, heirlock.toml, agent"),
        "{said}"
    );
}
