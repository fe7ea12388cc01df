//! The notifier's sockets: carries messages between `heirlock_core::notify` and the network.
//!
//! One thread, one UDP socket for each family. It sends in portions, takes all answers out between two of them, and
//! sleeps only when nothing may be sent; so the socket never holds more answers than its buffer does, and a hundred
//! thousand clients cost each what one costs.

mod sockets;
mod streams;

use std::net::IpAddr;
use std::time::Duration;

use heirlock_core::grace::Leave;
use heirlock_core::notify::{Event, Notifier, Plan, Transport};
use heirlock_core::{Moment, Outcome};
use heirlock_nsm::{MonName, MyName, StateNumber};

use crate::config::NotifySettings;

use sockets::Sockets;
use streams::Streams;

/// Datagrams that leave between two looks at grace and at what came back.
const BATCH: usize = 64;

/// How long at most between two looks.
const PATIENCE: Duration = Duration::from_millis(50);

/// Whom to tell for one service.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The names of the service, in the order in which they are announced.
    pub(crate) names: Vec<MyName>,
    /// The number.
    pub(crate) state: StateNumber,
    /// The clients and their addresses.
    pub(crate) clients: Vec<(MonName, Vec<IpAddr>)>,
    /// The service's addresses. A client is told from the first of its own family; without one, from whatever address
    /// the route to it has.
    pub(crate) from: Vec<IpAddr>,
    /// Ports.
    pub(crate) settings: NotifySettings,
}

/// Whoever has clients told.
pub(crate) trait Principal {
    /// The time.
    fn now(&self) -> Moment;

    /// Whether a notification may leave now.
    fn may_leave(&mut self, now: Moment) -> Leave;

    /// These clients have answered, since the last time.
    fn acknowledged(&mut self, clients: Vec<MonName>);

    /// Addresses of clients known by a name that were found out since the last time.
    fn resolved(&mut self) -> Vec<(MonName, Vec<IpAddr>)> {
        Vec::new()
    }
}

/// Tells the clients until all have acknowledged or the principal says that it is too late. Answers who has not, and why.
pub(crate) fn run(task: Task, principal: &mut impl Principal) -> Vec<(MonName, Outcome, String)> {
    let sockets = match Sockets::bind(&task) {
        Ok(sockets) => sockets,
        Err(error) => {
            let why = format!("no socket for it could be bound to the service's address: {error}");
            return task
                .clients
                .into_iter()
                .map(|(client, _)| (client, Outcome::Lost, why.clone()))
                .collect();
        }
    };
    let mut streams = Streams::new(&task);
    let plan = Plan {
        names: task.names,
        state: task.state,
        clients: task.clients,
        rpcbind_port: task.settings.rpcbind_port,
        in_flight_max: sockets.holds(),
        seed: fastrand::u64(..),
    };
    let mut notifier = Notifier::new(plan);
    while !notifier.is_done() {
        for (client, addresses) in principal.resolved() {
            notifier.add_addresses(&client, &addresses);
        }
        let sent_all = match principal.may_leave(principal.now()) {
            Leave::Granted => send_batch(&mut notifier, &sockets, &mut streams, principal),
            // No proof now: what was sent may still be answered.
            Leave::ProveFirst => true,
            Leave::TooLate => {
                sockets.drain(&mut notifier, principal);
                report(&mut notifier, principal);
                break;
            }
        };
        if sent_all {
            let due = notifier.next_timeout().map_or(PATIENCE, |at| at.since(principal.now()));
            sockets::wait(&sockets, &streams, due.clamp(Duration::from_millis(1), PATIENCE));
        }
        sockets.drain(&mut notifier, principal);
        streams.go_on(&mut notifier, principal.now());
        report(&mut notifier, principal);
    }
    notifier.stop()
}

/// Sends a portion, and says whether nothing more may leave now.
fn send_batch(
    notifier: &mut Notifier,
    sockets: &Sockets,
    streams: &mut Streams,
    principal: &impl Principal,
) -> bool {
    let now = principal.now();
    for _ in 0..BATCH {
        let Some(transmit) = notifier.poll_transmit(now) else { return true };
        if transmit.transport == Transport::Tcp {
            streams.open(&transmit, notifier, now);
            continue;
        }
        // What can't be sent (no route, a full queue) is as good as lost on the way: it is repeated.
        if let Err(error) = sockets.send(&transmit.payload, transmit.to) {
            tracing::debug!(to = %transmit.to, %error, "a datagram could not be sent; it will be repeated");
        }
    }
    false
}

fn report(notifier: &mut Notifier, principal: &mut impl Principal) {
    let mut acknowledged = Vec::new();
    while let Some(event) = notifier.poll_event() {
        match event {
            Event::Acknowledged(client) => acknowledged.push(client),
            Event::Strange(client, why) => tracing::warn!(%client, why, "no answer to a notification"),
        }
    }
    if !acknowledged.is_empty() {
        principal.acknowledged(acknowledged);
    }
}
