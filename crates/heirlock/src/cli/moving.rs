//! `heirlock move`: a service is moved to another server that lives, and what became of its clients is told, and how long they were
//! without it.

use heirlock_core::{ServerName, ServiceName};

use crate::config::Settings;
use crate::control::{Answer, AnswerWhen, Request};
use crate::host::Host;
use crate::store::memory::open_ours;

use super::exit::{Exit, Failed};
use super::output::Output;
use super::{ask, history, render};

/// Has a service moved, whichever server this is said on.
pub(super) fn run(
    service: &ServiceName,
    to: ServerName,
    answer_when: AnswerWhen,
    host: &Host,
    settings: &Settings,
    output: &Output,
) -> Result<Exit, Failed> {
    let request = Request::Move { service: service.clone(), to, answer_when };
    let report = match ask::answer(settings, &request)? {
        // Its agent has told all but what the store adds, which is no reason to tell nothing.
        Answer::Adoption(report) => match open_ours(host, settings) {
            Ok((store, _)) => history::with_tenure(store.as_ref(), service, *report),
            Err(_) => *report,
        },
        Answer::Moved { service, to, changed } => {
            let unread = |why: &dyn std::fmt::Display| {
                let what = format!(
                    "{service} is on {to}, and what became of its clients can't be read here: {why}; say 'heirlock report {service}' \
                     on {to}"
                );
                Failed::new(Exit::Store, what)
            };
            let (store, _) = open_ours(host, settings).map_err(|error| unread(&error))?;
            let report = history::adopted_elsewhere(store.as_ref(), &service, changed);
            report.map_err(|failed| unread(&failed.message))?
        }
        other => return ask::show(other, output),
    };
    output.print(&report, render::adoption)?;
    Ok(Exit::from(&report))
}
