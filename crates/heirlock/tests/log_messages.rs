//! Each log line is understood by itself: journalctl shows the message alone, and not the fields beside it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

/// Fields that name a thing or a reason: a message beside one of them says so too.
const SAID: [&str; 20] = [
    "service", "client", "server", "owner", "name", "address", "path", "file", "folder", "error", "why",
    "problems", "from", "life", "phase", "program", "status", "other", "what", "outcome",
];

/// One event: where it is, its fields' names and its message.
struct Event {
    at: String,
    fields: Vec<String>,
    message: String,
}

#[test]
fn every_message_says_who_and_why_itself() {
    let mut events = Vec::new();
    for folder in ["src", "../agent/src"] {
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            events.extend(events_of(&file));
        }
    }
    assert!(events.len() > 60, "only {} events found: is something wrong with this test?", events.len());
    let faults: Vec<String> = events.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn fault(event: &Event) -> Option<String> {
    let Event { at, fields, message } = event;
    if fields.is_empty() || message.contains("{}") {
        return None;
    }
    if !message.contains('{') {
        return Some(format!("{at}: {message:?} says nothing of its fields {fields:?}"));
    }
    let unsaid = fields.iter().find(|field| {
        let said = ["}", ":"].iter().any(|end| message.contains(&format!("{{{field}{end}")));
        SAID.contains(&field.as_str()) && !said
    });
    unsaid.map(|field| format!("{at}: {message:?} does not say its field {field}"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

fn events_of(file: &Path) -> Vec<Event> {
    let text = fs::read_to_string(file).unwrap();
    let mut events = Vec::new();
    for level in ["error", "warn", "info"] {
        let call = format!("tracing::{level}!(");
        for (at, _) in text.match_indices(&call) {
            let line = text[..at].lines().count();
            let arguments = arguments(&text[at + call.len()..]);
            let message = arguments.iter().find(|argument| argument.starts_with('"'));
            let before = arguments.iter().take_while(|argument| !argument.starts_with('"'));
            events.push(Event {
                at: format!("{}:{line}", file.display()),
                fields: before.map(|field| field_name(field)).collect(),
                message: message.unwrap_or(&String::new()).clone(),
            });
        }
    }
    events
}

/// `%service`, `owner = %claim.owner`: the name.
fn field_name(field: &str) -> String {
    let name = field.split('=').next().unwrap_or(field);
    name.trim().trim_start_matches(['%', '?']).to_owned()
}

/// The text between the parentheses of a macro, split at its commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut found, mut one) = (Vec::new(), String::new());
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for c in text.chars() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else {
            match c {
                '"' => in_text = true,
                '(' | '[' | '{' => depth += 1,
                ')' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(one.trim().to_owned());
                    one.clear();
                    continue;
                }
                _ => {}
            }
        }
        one.push(c);
    }
    found.push(one.trim().to_owned());
    found.retain(|argument| !argument.is_empty());
    found
}
