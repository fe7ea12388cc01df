//! The verbs that the agent carries out.

use serde::Serialize;

use crate::config::Settings;
use crate::control::report::EntryTrouble;
use crate::control::{self, Answer, AnswerWhen, Request};

use super::exit::{Exit, Failed};
use super::output::Output;
use super::progress::Bar;
use super::render;

/// Words as `--json` prints them.
#[derive(Debug, Serialize)]
struct Words<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    troubles: &'a [EntryTrouble],
}

/// Nothing but a word that it is accepted is waited for.
fn is_accepted_alone(request: &Request) -> bool {
    matches!(request, Request::Adopt { answer_when: AnswerWhen::Accepted, .. })
}

/// Asks the agent, shows how far it is, and prints its answer.
pub(super) fn ask(settings: &Settings, request: &Request, output: &Output) -> Result<Exit, Failed> {
    let mut bar = Bar::default();
    let answer = control::ask(&settings.runtime_directory, request, |progress| bar.show(&progress));
    // Before anything is printed: a bar that is still there would be mixed into it.
    drop(bar);
    // A caller that did not want to wait knows that it goes on.
    let accepted_alone = is_accepted_alone(request);
    let exit = show(answer?, output)?;
    Ok(if accepted_alone && exit == Exit::Untold { Exit::Done } else { exit })
}

/// Prints an answer.
pub(super) fn show(answer: Answer, output: &Output) -> Result<Exit, Failed> {
    match answer {
        Answer::Status(report) => {
            output.print(&report, |report, look| render::status(report, look))?;
            // Everything else in it is a matter of reading; an unprotected service is one of acting.
            Ok(if report.store.well { Exit::Done } else { Exit::Store })
        }
        Answer::Adoption(report) => {
            output.print(&report, |report, look| render::adoption(report, look))?;
            Ok(Exit::from(&*report))
        }
        Answer::Words { text, troubles } => {
            let words = Words { text: &text, troubles: &troubles };
            output.print(&words, |words, _| render::words(words.text, words.troubles))?;
            Ok(if troubles.is_empty() { Exit::Done } else { Exit::Untold })
        }
    }
}
