//! A planned move of a service to another server that lives: whether it may be asked for, and how far it is.
//!
//! A caller asks on any server. That server's heartbeat says so ([`MoveRequest`]). The server that is to have the service sees it,
//! looks whether it could adopt the service, asks the owner to give it up as a failback does, and adopts it. Its own heartbeat says how
//! far it is ([`MoveProgress`]).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::claim::{Claim, OwnerHeart};
use crate::names::{ServerName, ServiceName};
use crate::planted::{Bug, planted};
use crate::takeover::Phase;

/// What a caller on one server asks another server for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MoveRequest {
    /// The server that is to have the service.
    pub to: ServerName,
    /// Tells this request from others: drawn at random.
    pub asked: u64,
}

/// How far a move is, as the server says that is to have the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MoveProgress {
    /// Of which service.
    pub service: ServiceName,
    /// The phase of the adoption; `intent` until it begins.
    pub phase: Phase,
    /// Clients to be told.
    pub clients: usize,
    /// Clients that have answered.
    pub answered: usize,
    /// Every client has answered or had its first round of tries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tried_all: bool,
    /// The present wait, in words as in "waiting for …".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// How long that takes at most, in milliseconds, where it is known: from the heartbeat before the one that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most_ms: Option<u64>,
    /// It is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<MoveEnd>,
}

impl MoveProgress {
    /// The request was seen, and nothing was done yet.
    #[must_use]
    pub fn begun(service: ServiceName) -> Self {
        let phase = Phase::Intent;
        Self {
            service,
            phase,
            clients: 0,
            answered: 0,
            tried_all: false,
            waits_for: None,
            at_most_ms: None,
            end: None,
        }
    }

    /// Whether it says more than an earlier word of the same move but for the time that is left, which runs down by itself.
    #[must_use]
    pub fn is_news_after(&self, said: &Self) -> bool {
        let at_most_ms = if planted(Bug::BeatForTime) { self.at_most_ms } else { said.at_most_ms };
        Self { at_most_ms, ..self.clone() } != *said
    }
}

/// The end of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveEnd {
    /// The service is there. The outcomes of its clients are in the store.
    Done {
        /// whether anything was done: the service may have been there before
        changed: bool,
    },
    /// It is not.
    Failed {
        /// why, and the remedy
        why: String,
        /// nothing was changed
        refused: bool,
    },
}

/// Why a move can't be asked for. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoveRefusal {
    /// No agent of that name has ever run.
    #[error(
        "{service} can't move to {to}: no server of that name has written to the store; there are: {known}"
    )]
    UnknownServer {
        /// what was to move
        service: ServiceName,
        /// where to
        to: ServerName,
        /// the servers that are known
        known: String,
    },
    /// The heart of the server that is to have it is still.
    #[error(
        "{service} can't move to {to}: its agent says nothing for {for_ms} ms; start it, then say it again"
    )]
    TargetSilent {
        /// what was to move
        service: ServiceName,
        /// where to
        to: ServerName,
        /// for how long
        for_ms: u64,
    },
    /// The server that is to have it was stopped in order.
    #[error(
        "{service} can't move to {to}: its agent was stopped in order or is in maintenance; start it, or say \
         'heirlock maintenance off' there, then say it again"
    )]
    TargetPaused {
        /// what was to move
        service: ServiceName,
        /// where to
        to: ServerName,
    },
    /// It is too early to say whether the server lives that is to have it.
    #[error(
        "it isn't known yet whether the agent of {to} lives, to which {service} is to move; say it again in {in_ms} ms"
    )]
    TargetUnknown {
        /// what was to move
        service: ServiceName,
        /// where to
        to: ServerName,
        /// when it will be known at the latest
        in_ms: u64,
    },
    /// No server had it.
    #[error(
        "no server has ever claimed {service}, so there is nothing to move: say 'heirlock adopt {service}' on {to}"
    )]
    NeverClaimed {
        /// what was to move
        service: ServiceName,
        /// where to
        to: ServerName,
    },
    /// The owner can't give it up.
    #[error(
        "{owner}, which has {service}, does not live, so it can't give it up; make sure that it is off, and say \
         'heirlock adopt {service} --owner-fenced {owner}' on {to}"
    )]
    OwnerSilent {
        /// what was to move
        service: ServiceName,
        /// whose it is
        owner: ServerName,
        /// where to
        to: ServerName,
    },
}

/// Whether `us` may ask for a move. `heart` is what `us` knows of a server's heart, and `known` are the servers whose heartbeats it found
/// in the store.
///
/// # Errors
/// Where the server that is to have it does not live as far as is known, no server ever had the service, or its owner does not live.
/// An owner that is paused may live: its maintenance is a usual reason for a move.
pub fn may_move(
    service: &ServiceName,
    newest: Option<&Claim>,
    us: &ServerName,
    to: &ServerName,
    heart: impl Fn(&ServerName) -> OwnerHeart,
    known: &[&ServerName],
) -> Result<(), MoveRefusal> {
    let (of, at) = (|| service.clone(), || to.clone());
    if to != us {
        match heart(to) {
            OwnerHeart::Beating { .. } => {}
            OwnerHeart::Silent { for_time } => {
                return Err(MoveRefusal::TargetSilent { service: of(), to: at(), for_ms: millis(for_time) });
            }
            OwnerHeart::Paused => return Err(MoveRefusal::TargetPaused { service: of(), to: at() }),
            _ if !known.contains(&to) => {
                let known: Vec<&str> = known.iter().map(|server| server.as_str()).collect();
                return Err(MoveRefusal::UnknownServer { service: of(), to: at(), known: known.join(", ") });
            }
            OwnerHeart::NeverSeen => {
                return Err(MoveRefusal::TargetUnknown { service: of(), to: at(), in_ms: 0 });
            }
            OwnerHeart::Unknown { watched, needed } => {
                let in_ms = millis(needed.saturating_sub(watched));
                return Err(MoveRefusal::TargetUnknown { service: of(), to: at(), in_ms });
            }
        }
    }
    let Some(claim) = newest else {
        return Err(MoveRefusal::NeverClaimed { service: of(), to: at() });
    };
    let is_elsewhere = !claim.released && claim.owner != *to && claim.owner != *us;
    if is_elsewhere && matches!(heart(&claim.owner), OwnerHeart::Silent { .. } | OwnerHeart::NeverSeen) {
        return Err(MoveRefusal::OwnerSilent { service: of(), owner: claim.owner.clone(), to: at() });
    }
    Ok(())
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Generation;

    const BEATING: OwnerHeart = OwnerHeart::Beating { last_change: Duration::from_millis(300) };
    const SILENT: OwnerHeart = OwnerHeart::Silent { for_time: Duration::from_secs(20) };

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    /// Asked on nfs-c: a move of a service of nfs-a to this server, where the owner's and the target's hearts are so.
    fn ask(to: &str, of_owner: OwnerHeart, of_target: OwnerHeart) -> Result<(), String> {
        let claim = Claim::new(Generation(4), &server("nfs-a"), "agent", 0);
        asked(Some(&claim), to, of_owner, of_target)
    }

    fn asked(
        claim: Option<&Claim>,
        to: &str,
        of_owner: OwnerHeart,
        of_target: OwnerHeart,
    ) -> Result<(), String> {
        let heart = |of: &ServerName| if of.as_str() == "nfs-a" { of_owner } else { of_target };
        let service = ServiceName::parse("nfs").unwrap();
        let (a, b, us) = (server("nfs-a"), server("nfs-b"), server("nfs-c"));
        may_move(&service, claim, &us, &server(to), heart, &[&a, &b, &us]).map_err(|why| why.to_string())
    }

    #[test]
    fn a_service_of_a_living_owner_moves_to_a_living_server_or_to_this_one() {
        assert_eq!(ask("nfs-b", BEATING, BEATING), Ok(()));
        assert_eq!(ask("nfs-b", OwnerHeart::Paused, BEATING), Ok(()), "it is being maintained");
        assert_eq!(ask("nfs-c", BEATING, SILENT), Ok(()), "this server has no heart of its own to watch");
    }

    #[test]
    fn a_server_that_does_not_live_or_is_unknown_gets_nothing_and_each_is_said_in_its_own_words() {
        let said = |heart| ask("nfs-b", BEATING, heart).unwrap_err();
        assert!(said(SILENT).contains("says nothing for 20000 ms"));
        assert!(said(OwnerHeart::Paused).contains("in maintenance"));
        assert!(said(OwnerHeart::NeverSeen).contains("isn't known yet"));
        for heart in [
            OwnerHeart::NeverSeen,
            OwnerHeart::Unknown { watched: Duration::ZERO, needed: Duration::from_secs(6) },
        ] {
            let said = ask("nfs-x", BEATING, heart).unwrap_err();
            assert!(
                said.contains("no server of that name") && said.contains("nfs-a, nfs-b, nfs-c"),
                "{said}"
            );
        }
        let unknown = OwnerHeart::Unknown { watched: Duration::from_secs(2), needed: Duration::from_secs(6) };
        assert!(said(unknown).contains("in 4000 ms"));
    }

    #[test]
    fn every_word_of_a_move_is_news_but_the_time_that_is_left() {
        let said = MoveProgress {
            waits_for: Some("2 clients to answer".into()),
            at_most_ms: Some(9_000),
            ..MoveProgress::begun(ServiceName::parse("nfs").unwrap())
        };
        assert!(!said.is_news_after(&said));
        let later = MoveProgress { at_most_ms: Some(8_000), ..said.clone() };
        assert!(!later.is_news_after(&said));
        let end = Some(MoveEnd::Done { changed: true });
        for news in [
            MoveProgress { phase: Phase::Notifying, ..later.clone() },
            MoveProgress { clients: 2, ..later.clone() },
            MoveProgress { answered: 1, ..later.clone() },
            MoveProgress { tried_all: true, ..later.clone() },
            MoveProgress { waits_for: None, ..later.clone() },
            MoveProgress { end, ..later },
        ] {
            assert!(news.is_news_after(&said), "{news:?}");
        }
    }

    #[test]
    fn a_dead_owner_gives_nothing_up_unless_it_has_before() {
        for heart in [SILENT, OwnerHeart::NeverSeen] {
            let said = ask("nfs-b", heart, BEATING).unwrap_err();
            assert!(said.contains("--owner-fenced nfs-a' on nfs-b"), "{said}");
        }
        let released = Claim { released: true, ..Claim::new(Generation(4), &server("nfs-a"), "agent", 0) };
        assert_eq!(
            asked(Some(&released), "nfs-b", SILENT, BEATING),
            Ok(()),
            "as a move that was interrupted leaves it"
        );
        let moved = Claim::new(Generation(5), &server("nfs-b"), "agent", 0);
        assert_eq!(
            asked(Some(&moved), "nfs-b", SILENT, BEATING),
            Ok(()),
            "it is there, and its clients may be owed word"
        );
        assert!(
            asked(None, "nfs-b", BEATING, BEATING).unwrap_err().contains("no server has ever claimed nfs")
        );
    }
}
