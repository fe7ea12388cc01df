//! The messages that an agent is handed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use heirlock_core::ServiceName;
use heirlock_core::grace::Probe;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::lives::Recognised;
use heirlock_core::takeover::Event;
use heirlock_nsm::MonName;

use super::look::{Look, Looked};
use super::work::{Fit, PlacedOf, RunNumber, Unplaced};
use crate::config::{Hook, InstanceNumber};
use crate::control::{Request, Responder};
use crate::status_monitor::{Said, Wanted};

/// Answers a callout that waits: its client is durable, or why it is not.
pub type Answered = Box<dyn FnOnce(&Result<(), String>) + Send>;

/// A message to the loop.
pub enum Message {
    /// What is new of a lock manager.
    Of(InstanceNumber, News),
    /// A caller asks over the control socket.
    Request(Box<Request>, Responder),
    /// A call of the store has ended that had been given up: the store is asked again.
    StoreAnswers,
    /// The store says that another server has made or given up a claim: a hint, which replaces no look.
    StoreChanged,
    /// Stop in order.
    Stop,
}

/// What is new of one lock manager.
pub enum News {
    /// Something happened in the status monitor's directory: a hint.
    Changed,
    /// The status monitor's directory was looked at.
    Looked(Box<Looked>),
    /// The directory was read at the start, where heirlock is the status monitor: the files of these clients are to follow.
    DirectoryRead(Box<Result<BTreeSet<MonName>, String>>),
    /// The changes of the directory are durable, or why they are not.
    DirectorySynced(Result<(), String>),
    /// The lock manager was looked at.
    Observed(Box<Result<Look, String>>),
    /// The lock manager of this life was asked whether grace is open.
    GraceAsked(Incarnation, (Probe, String)),
    /// Where NLM listens over TCP.
    NlmPorts(Vec<u16>),
    /// Work that a run asked for is done.
    Event(RunNumber, Event),
    /// Grace was not proved to be open for this run, for the reason that is told, and nothing is exported here.
    ServesNobody(RunNumber, String),
    /// The needs of an adoption were looked for, for a run.
    Fit(RunNumber, Fit),
    /// The needs of an adoption of a service that is to come here (home, or by a move) were looked for.
    HomeLookedFor(ServiceName, Fit),
    /// Records were placed, for a run.
    Placed(RunNumber, Vec<PlacedOf>),
    /// The placed records were taken away: the clients whose files could not be, or why none was.
    PlacedTakenAway(Result<Unplaced, String>),
    /// The lock manager was made to recognise, for a run.
    Recognised(RunNumber, Box<Result<Recognised, String>>),
    /// The facts that other servers compare with their own.
    Facts(Result<BTreeMap<String, String>, String>),
    /// A name was looked up.
    Resolved(MonName, Result<Vec<IpAddr>, String>),
    /// The address of a service that is being released is gone, or isn't.
    AddressGone(ServiceName, Result<(), String>),
    /// The address of a service that is held still, and which a release had taken away, is back, or isn't.
    AddressBack(ServiceName, Result<(), String>),
    /// The volume of a service that was released is gone, or isn't.
    VolumeGone(ServiceName, Result<(), String>),
    /// A hook has run for so long, and succeeded or failed. Its result is told besides.
    HookRan(Hook, Duration, bool),
    /// Our own status monitor wants something of the store.
    Monitor(Wanted),
    /// rpc.statd's callout says something, and waits for an answer.
    Callout(Said, Answered),
}

/// Clients of one service that answered one after the other answered together.
pub fn join_alike(messages: impl Iterator<Item = Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::new();
    for message in messages {
        match (joined.last_mut(), message) {
            (
                Some(Message::Of(instance, News::Event(run, Event::Acknowledged { service, clients }))),
                Message::Of(other, News::Event(of, Event::Acknowledged { service: same, clients: more })),
            ) if *instance == other && *run == of && *service == same => clients.extend(more),
            (_, message) => joined.push(message),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_first(event: Event) -> Message {
        Message::Of(InstanceNumber::FIRST, News::Event(RunNumber::default(), event))
    }

    fn answered(service: &str, client: &str) -> Message {
        let clients = vec![MonName::parse(client).unwrap()];
        let service = ServiceName::parse(service).unwrap();
        of_first(Event::Acknowledged { service, clients })
    }

    #[test]
    fn answers_that_come_together_are_made_durable_together_and_nothing_overtakes_them() {
        let service = ServiceName::parse("nfs").unwrap();
        let ended = of_first(Event::NotifyEnded { service, left: vec![] });
        let came = [
            answered("nfs", "192.0.2.1"),
            answered("nfs", "192.0.2.2"),
            answered("home", "192.0.2.1"),
            ended,
            answered("nfs", "192.0.2.3"),
        ];
        let said: Vec<String> = join_alike(came.into_iter())
            .iter()
            .map(|message| match message {
                Message::Of(_, News::Event(_, Event::Acknowledged { service, clients })) => {
                    format!("{service} {}", clients.len())
                }
                Message::Of(_, News::Event(..)) => "ended".to_owned(),
                _ => "other".to_owned(),
            })
            .collect();
        assert_eq!(said, ["nfs 2", "home 1", "ended", "nfs 1"]);
    }
}
