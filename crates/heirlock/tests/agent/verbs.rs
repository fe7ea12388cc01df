//! Verbs of a server, and what they say.

use std::process::Output;

use crate::harness::Server;

/// All that a program said.
pub(super) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a verb and checks its exit code and parts of its output.
#[track_caller]
pub(super) fn expect(server: &Server, words: &[&str], exit: i32, parts: &[&str]) {
    let output = server.run(words);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{words:?}: expected {part:?} in {text}");
    }
}

/// The reason for which the store of a server's agent fails.
pub(super) fn error_of(server: &Server) -> Option<String> {
    Some(server.try_status()?["store"]["error"].as_str()?.to_owned())
}
