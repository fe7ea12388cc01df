//! `heirlock status --watch` on a terminal, and where there is none.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "agent/harness.rs"]
mod harness;
mod left_out;

use harness::Site;

#[test]
fn a_status_is_shown_anew_until_it_is_interrupted_and_the_terminal_given_back() {
    if Command::new("script").arg("--version").output().is_err() {
        return left_out::leave_out("script (Debian's package bsdutils)");
    }
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    let command = format!(
        "exec {} status --watch --config {}",
        env!("CARGO_BIN_EXE_heirlock"),
        server.path("heirlock.toml").display()
    );
    // script gives its program a terminal. It asks a shell to run the program: a shell that stays beside the program is ended
    // by Ctrl-C as well, and its exit code would be the one seen. Hence exec, and a shell that does not depend on the user.
    let mut script = Command::new("script")
        .env("SHELL", "/bin/sh")
        .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut shown, mut piece) = (String::new(), [0; 4096]);
    let mut out = script.stdout.take().unwrap();
    while shown.matches("\x1b[H").count() < 2 || !shown.ends_with("\x1b[J") {
        let length = out.read(&mut piece).unwrap();
        assert!(length > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    // Ctrl-C, as the terminal has it.
    script.stdin.take().unwrap().write_all(&[3]).unwrap();
    out.read_to_string(&mut shown).unwrap();
    assert!(script.wait().unwrap().success(), "{shown}");
    assert!(shown.starts_with("\x1b[?1049h") && shown.trim_end().ends_with("\x1b[?1049l"), "{shown:?}");
    assert!(shown.matches("nfs-a").count() >= 2, "{shown}");
}

#[test]
fn without_a_terminal_there_is_no_place_to_show_it_in() {
    let site = Site::new();
    let server = site.server("a", "nfs-a");
    let output = server.run(&["status", "--watch"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("expected a terminal for --watch"), "{said}");
    let output = server.run(&["status", "--watch", "--json"]);
    assert_eq!(output.status.code(), Some(2), "one document is no screen");
}
