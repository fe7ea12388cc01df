//! The one way out: text or JSON to standard output, errors to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::exit::{Exit, Failed};
use super::render::{self, Look, json_safe, plain};

/// How this run speaks.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    look: Look,
}

impl Output {
    /// Colours only on a terminal whose user wants them (<https://no-color.org>).
    pub(super) fn new(json: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = io::stdout().is_terminal() && !unwanted;
        Self { json, look: Look { colours, now_s: now_s(), zone: jiff::tz::TimeZone::system() } }
    }

    /// Whether nothing but a document is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// The look of a text that is made now.
    pub(super) fn look_now(&self) -> Look {
        Look { now_s: now_s(), ..self.look.clone() }
    }

    /// Prints a value: as a document, or as its text.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Failed> {
        let out = if self.json { document(value)? } else { text(value, &self.look) };
        match write(&mut io::stdout().lock(), &out) {
            // `heirlock … | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failed::new(Exit::Failed, format!("can't write to standard output: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Says something beside what was asked for.
    #[expect(clippy::unused_self, reason = "all that goes out goes out by the output")]
    pub(super) fn warn(&self, message: &impl Display) {
        // Where this can't be written there is no other way to say so.
        let _ = writeln!(io::stderr().lock(), "heirlock: {}", plain(&message.to_string()));
    }

    /// Says that it failed, and returns the exit code for it.
    pub(super) fn failed(&self, failed: &Failed) -> Exit {
        let message: Vec<String> = failed.message.lines().map(plain).collect();
        // Where this can't be written there is no other way to say so.
        let _ = writeln!(io::stderr().lock(), "heirlock: {}", message.join("\n"));
        if self.json {
            return self.document_of(failed);
        }
        if let Some(report) = &failed.report {
            let _ = self.print(report, |report, look| render::adoption(report, look));
        }
        failed.exit
    }

    /// The failure as a document alone.
    pub(super) fn document_of(&self, failed: &Failed) -> Exit {
        let _ = self.print(&failed.document(), |_, _| String::new());
        failed.exit
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn document<T: Serialize>(value: &T) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failed::new(Exit::Failed, format!("can't make JSON of it: {error}")))?;
    Ok(json_safe(&text) + "\n")
}

fn write(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
