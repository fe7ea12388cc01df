//! The notifier's sockets: carries messages between `heirlock_core::notify` and the network.
//!
//! One thread, one UDP socket for each address of the service. It sends in portions, takes all answers out between two of them, and
//! sleeps only when nothing may be sent; so the socket never holds more answers than its buffer does, and a hundred
//! thousand clients cost each what one costs.

mod destination;
mod look_up;
mod sockets;
mod streams;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use heirlock_core::grace::Leave;
use heirlock_core::log_limit::{Source, cut};
use heirlock_core::notify::{Destination, Event, Notifier, Plan, Transport, Words};
use heirlock_core::{Moment, Outcome, limits};
use heirlock_nsm::MonName;

use crate::config::NotifySettings;
use crate::from_elsewhere;

pub(crate) use destination::destination_of;
pub(crate) use look_up::LookUp;

use sockets::Sockets;
use streams::Streams;

/// Datagrams that leave between two looks at grace and at what came back.
const BATCH: usize = 64;

/// How long at most between two looks.
const PATIENCE: Duration = Duration::from_millis(50);

/// The clients to tell for one service.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The words that each is to hear.
    pub(crate) words: Words,
    /// The clients and their addresses.
    pub(crate) clients: Vec<(MonName, Vec<Destination>)>,
    /// The service's addresses. A client is told from those of its own family, in turn until it answers; where the service
    /// has none of that family, from the address that the route to the client has.
    pub(crate) from: Vec<IpAddr>,
    /// Ports.
    pub(crate) settings: NotifySettings,
}

/// The part of the program that has clients told.
pub(crate) trait Principal {
    /// The time.
    fn now(&self) -> Moment;

    /// Whether a notification may leave now.
    fn may_leave(&mut self, now: Moment) -> Leave;

    /// These clients have answered, since the last time.
    fn acknowledged(&mut self, clients: Vec<MonName>);

    /// Every client has answered, or had its first round of tries. Said once.
    fn tried_all(&mut self) {}

    /// Addresses of clients known by a name that were found out since the last time.
    fn resolved(&mut self) -> Vec<(MonName, Vec<Destination>)> {
        Vec::new()
    }

    /// A client that is called from this address of the service is silent. It may answer to the server that had the address
    /// before, so the address is to be announced to the network again. Not where a client is only asked whether it can be reached.
    fn announce(&mut self, _address: IpAddr) {}

    /// Whether clients can be told from this address of the service now, or else what is missing. Asked again and again
    /// until it can be.
    fn is_ready(&mut self, _address: IpAddr) -> Result<(), String> {
        Ok(())
    }
}

/// The addresses from which clients are told, each as soon as it is ready.
struct Sources {
    sockets: Sockets,
    awaited: Vec<IpAddr>,
    /// Why those are not ready.
    unready: Vec<String>,
}

impl Sources {
    fn new(task: &Task) -> Self {
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let lacks = |any: &IpAddr| task.from.iter().all(|from| from.is_ipv4() != any.is_ipv4());
        let awaited = task.from.iter().copied().chain(any.into_iter().filter(lacks)).collect();
        Self { sockets: Sockets::new(task.settings.privileged_port), awaited, unready: Vec::new() }
    }

    /// Addresses that have become ready since the last time.
    fn newly_ready(&mut self, principal: &mut impl Principal) -> Vec<IpAddr> {
        let (mut ready, mut unready) = (Vec::new(), Vec::new());
        self.awaited.retain(|address| {
            let is_any = address.is_unspecified();
            let there = if is_any { Ok(()) } else { principal.is_ready(*address) };
            // Without IPv6 on this server no client can be told over it; clients with IPv4 are told all the same.
            let bound = there.and_then(|()| {
                let bound = self.sockets.bind(*address);
                bound.map_err(|error| format!("no socket could be bound to {address}: {error}"))
            });
            match bound {
                Ok(()) => ready.push(*address),
                Err(why) => unready.push(why),
            }
            !ready.contains(address)
        });
        self.unready = unready;
        ready
    }
}

/// Tells the clients until all have acknowledged or the principal says that it is too late. Returns the clients that have
/// not, and why.
pub(crate) fn run(task: Task, principal: &mut impl Principal) -> Vec<(MonName, Outcome, String)> {
    let mut sources = Sources::new(&task);
    let ready = sources.newly_ready(principal);
    let mut streams = Streams::new(task.settings.privileged_port);
    let plan = Plan {
        words: task.words,
        clients: task.clients,
        sources: ready,
        rpcbind_port: task.settings.rpcbind_port,
        in_flight_max: sources.sockets.holds(),
        connections_max: streams::connections_max(),
        seed: fastrand::u64(..),
    };
    let mut notifier = Notifier::new(plan);
    let (mut is_first_round, began) = (true, principal.now());
    while !notifier.is_done() {
        for (client, addresses) in principal.resolved() {
            notifier.add_addresses(&client, &addresses);
        }
        while let Some(address) = notifier.poll_announcement(principal.now()) {
            principal.announce(address);
        }
        let sent_all = match principal.may_leave(principal.now()) {
            Leave::Granted => send_batch(&mut notifier, &mut sources.sockets, &mut streams, principal),
            // No proof now: datagrams that were sent may still be answered.
            Leave::ProveFirst => true,
            Leave::TooLate => {
                sources.sockets.drain(&mut notifier, principal);
                report(&mut notifier, principal);
                break;
            }
        };
        if sent_all {
            let due = notifier.next_timeout().map_or(PATIENCE, |at| at.since(principal.now()));
            let due = due.clamp(Duration::from_millis(1), PATIENCE);
            sockets::wait(&sources.sockets, &mut streams, due);
            for address in sources.newly_ready(principal) {
                notifier.add_source(address);
            }
        }
        sources.sockets.drain(&mut notifier, principal);
        streams.go_on(&mut notifier, principal.now());
        report(&mut notifier, principal);
        if is_first_round && has_tried_all(&notifier, principal.now().since(began)) {
            is_first_round = false;
            principal.tried_all();
        }
    }
    notifier.stop(&sources.unready.join("; "))
}

/// Whether all were tried that can be. A name may take a moment to be looked up, an address to be ready.
fn has_tried_all(notifier: &Notifier, waited: Duration) -> bool {
    let are_routes_awaited = waited < limits::NOTIFY_ROUTE_TIME_MAX;
    notifier.has_tried_all() || (!are_routes_awaited && notifier.has_tried_all_with_a_route())
}

/// Sends a portion, and says whether nothing more may leave now.
fn send_batch(
    notifier: &mut Notifier,
    sockets: &mut Sockets,
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
        // A datagram that can't be sent (no route, a full queue) is as good as lost on the way: it is repeated.
        if let Err(error) = sockets.send(&transmit.payload, transmit.from, transmit.to) {
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
            Event::Strange(client, why) => {
                if from_elsewhere::may_say("no answer to a notification", Source::of(client.address())) {
                    tracing::warn!(
                        client = cut(client.as_str()),
                        why = cut(&why),
                        "{}: its reply to a notification is no answer: {}",
                        cut(client.as_str()),
                        cut(&why)
                    );
                }
            }
        }
    }
    if !acknowledged.is_empty() {
        principal.acknowledged(acknowledged);
    }
}
