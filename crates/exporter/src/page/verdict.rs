//! The answer to the first question: would a failover work now?

use heirlock_agent::control::report::{Heart, Level, ServerStatus, StatusReport};
use heirlock_agent::words::counted;

use super::level_of;
use crate::html::Html;

/// How it is, in a sentence or two.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    level: Level,
    /// The answer.
    head: String,
    /// The facts that it rests on.
    why: String,
}

impl Verdict {
    pub(super) fn of(known: Result<&StatusReport, &str>) -> Self {
        let level = level_of(known);
        let status = match known {
            Ok(status) => status,
            Err(why) => {
                let head = "It is not known whether a failover would work: no agent tells".to_owned();
                return Self { level, head, why: why.to_owned() };
            }
        };
        let adopting = status.services.iter().find(|service| service.clients_to_tell.is_some());
        if let Some(service) = adopting {
            let (told, all) = (service.clients_told.unwrap_or(0), service.clients_to_tell.unwrap_or(0));
            let head = format!("An adoption of {} is on: {told} of {} told", service.service, clients(all));
            let why = "It goes on by itself, unless a step is named below.".to_owned();
            return Self { level: level.max(Level::Attention), head, why };
        }
        let held: Vec<&str> = status
            .services
            .iter()
            .filter(|service| service.held && service.configured)
            .map(|service| service.service.as_str())
            .collect();
        if held.is_empty() {
            let head = match level {
                Level::Well => "This server holds no service that moves, and is well",
                _ => "This server holds no service that moves, and needs a look",
            };
            let why = "Whether a failover would work, the page of the server that holds the service tells.";
            return Self { level, head: head.to_owned(), why: why.to_owned() };
        }
        of_holder(status, level, &held.join(", "))
    }

    /// In one word, for a title or a glance.
    pub(super) fn word(&self) -> &'static str {
        match self.level {
            Level::Well => "Well",
            Level::Attention => "Attention",
            Level::Unprotected => "Unprotected",
        }
    }

    pub(super) fn write(&self, html: &mut Html) {
        let class = match self.level {
            Level::Well => "verdict well",
            Level::Attention => "verdict attention",
            Level::Unprotected => "verdict unprotected",
        };
        html.within("div", &[("class", class), ("role", "status")], |html| {
            html.within("p", &[], |html| {
                html.element("b", &[], &format!("{}: {}", self.word(), self.head));
                html.text(&self.why);
            });
        });
    }
}

fn of_holder(status: &StatusReport, level: Level, held: &str) -> Verdict {
    let ready: Vec<&str> = status
        .servers
        .iter()
        .filter(|server| is_ready(server))
        .map(|server| server.server.as_str())
        .collect();
    let on_record: usize =
        status.services.iter().filter(|service| service.held && service.configured).map(|s| s.records).sum();
    if ready.is_empty() {
        return Verdict {
            level: level.max(Level::Attention),
            head: "A failover would not work now: no other server is ready".to_owned(),
            why: format!(
                "This server holds {held}, {} on record. Every other server is silent, late or ill; see below.",
                clients(on_record)
            ),
        };
    }
    let ready = ready.join(", ");
    if status.protected_since_s.is_none() {
        return Verdict {
            level: level.max(Level::Unprotected),
            head: "A failover now could lose locks: some clients may not be on record".to_owned(),
            why: format!("{ready} could take {held} over, with {} on record.", clients(on_record)),
        };
    }
    Verdict {
        level,
        head: "A failover would work now".to_owned(),
        why: format!(
            "{ready} could take {held} over, and all clients ({on_record}) are on record. Whether volume and address can be \
             there, 'heirlock doctor' on that server tells."
        ),
    }
}

/// Whether another server could take something over, by its own heartbeat: it beats, and tells no ailment.
pub(super) fn is_ready(server: &ServerStatus) -> bool {
    matches!(server.heart, Heart::Beating) && server.ailments.is_empty()
}

/// A number of clients.
pub(super) fn clients(count: usize) -> String {
    counted(count, "client")
}
