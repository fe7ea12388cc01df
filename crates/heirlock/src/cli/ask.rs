//! The verbs that the agent carries out.

use heirlock_core::ServiceName;
use serde::Serialize;

use crate::config::Settings;
use crate::control::report::EntryTrouble;
use crate::control::{self, Answer, AnswerWhen, AskError, Request};

use super::exit::{Exit, Failed};
use super::output::Output;
use super::progress::Bar;
use super::render;

/// The answer of a verb, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a ServiceName>,
    changed: bool,
    text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    troubles: &'a [EntryTrouble],
}

/// The request asks for no client to be told: it is enough that the adoption is accepted, or that grace is open.
fn ends_before_telling(request: &Request) -> bool {
    matches!(
        request,
        Request::Adopt { answer_when: AnswerWhen::Accepted, .. } | Request::Adopt { prepare: true, .. }
    )
}

/// Asks the agent, and shows how far it is. The bar is gone before the answer is printed, which it would be mixed into.
pub(super) fn answer(settings: &Settings, request: &Request) -> Result<Answer, AskError> {
    let mut bar = Bar::default();
    control::ask(&settings.runtime_directory, request, |progress| bar.show(&progress))
}

/// Asks the agent, shows how far it is, and prints its answer.
pub(super) fn ask(settings: &Settings, request: &Request, output: &Output) -> Result<Exit, Failed> {
    let answer = answer(settings, request);
    // A caller that asked for no more knows that it goes on.
    let ends_before_telling = ends_before_telling(request);
    let exit = show(answer?, output)?;
    Ok(if ends_before_telling && exit == Exit::Untold { Exit::Done } else { exit })
}

/// Prints an answer.
pub(super) fn show(answer: Answer, output: &Output) -> Result<Exit, Failed> {
    match answer {
        Answer::Status(report) => {
            output.print(&report, |report, look| render::status(report, look))?;
            // Everything else in it is a matter of reading; an unprotected service is one of acting.
            Ok(if report.store.well { Exit::Done } else { Exit::Store })
        }
        Answer::Past { adoptions } => {
            output.print(&adoptions, |adoptions, look| {
                adoptions.iter().map(|report| render::adoption(report, look)).collect()
            })?;
            Ok(Exit::Done)
        }
        Answer::Drill(report) => {
            output.print(&report, |report, look| render::drill(report, look))?;
            Ok(Exit::from(report.verdict))
        }
        Answer::Adoption(report) => {
            output.print(&report, |report, look| render::adoption(report, look))?;
            Ok(Exit::from(&*report))
        }
        // What became of its clients is for `moving` to look up.
        Answer::Moved { service, to, changed } => {
            let text = format!("{service} is on {to}");
            show(Answer::Verb { service: Some(service), changed, text, troubles: Vec::new() }, output)
        }
        Answer::Verb { service, changed, text, troubles } => {
            let done = Done { service: service.as_ref(), changed, text: &text, troubles: &troubles };
            output.print(&done, |done, _| render::words(done.text, done.troubles))?;
            Ok(if troubles.is_empty() { Exit::Done } else { Exit::Untold })
        }
    }
}
