//! The message of a verb whose agent says nothing: all that is known of the agent, and the remedy.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "agent/harness.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use harness::{Server, Site};
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An agent whose loop has made no turn for so many milliseconds: it answers nothing but its state. Each time that it is
/// asked for it, it has made none for a while longer.
fn in_the_place_of(server: &Server, mut status: Value) {
    let socket = server.path("run/control.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(socket).unwrap();
    // While its loop turns nothing is said, and the wait goes on.
    let mut turned_ms_ago = 900;
    thread::spawn(move || {
        let mut waiting: Vec<UnixStream> = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            if request.contains("\"status\"") {
                status["kind"] = "status".into();
                status["loop_turned_ms_ago"] = turned_ms_ago.into();
                turned_ms_ago += 90_000;
                let _ = writeln!(stream, "{}", json!({"done": status}));
            } else {
                waiting.push(stream);
            }
        }
    });
}

#[test]
fn a_verb_says_that_the_agents_loop_makes_no_turn_and_waits_no_longer_than_it_may() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    let status = server.try_status().unwrap();
    server.kill();
    in_the_place_of(&server, status);
    let told = server.run(&["release", "nfs"]);
    assert_eq!(told.status.code(), Some(4), "{told:?}");
    let said = text(&told.stderr);
    assert!(said.contains("waiting for the agent (process "), "{said}");
    assert!(said.contains("whose loop had made no turn for 90 s"), "{said}");
    assert!(said.contains("its loop last turned 270 s ago"), "{said}");
    assert!(said.contains("the request is carried out when it goes on"), "{said}");
}

#[test]
fn an_agent_that_is_stopped_is_named_with_its_process_and_the_signal_that_lets_it_go_on() {
    let site = Site::new();
    let mut server = site.server("a", "nfs-a");
    server.up();
    server.signal("STOP");
    let told = server.run(&["maintenance", "on"]);
    server.signal("CONT");
    assert_eq!(told.status.code(), Some(4), "{told:?}");
    let said = text(&told.stderr);
    assert!(said.contains(" is stopped by a signal") && said.contains("kill -CONT "), "{said}");
    server.wait_for("an agent that goes on", |server| server.serves().then_some(()));
}
