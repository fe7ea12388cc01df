//! Telling the clients of one service, as `heirlock`'s notifier does with its sockets.

use std::net::{Ipv4Addr, SocketAddr};

use heirlock_core::ServiceName;
use heirlock_core::grace::{Grace, Leave, Probe};
use heirlock_core::notify::{Event as Heard, Notifier, Plan, Transport};
use heirlock_core::takeover::{Event, Notice, tells_peers};

use super::Agent;
use crate::Ms;
use crate::outside::Out;

/// Datagrams that leave between two looks at grace.
const BATCH: usize = 64;
/// How long at most between two looks.
const PATIENCE_MS: Ms = 50;

/// One service whose clients are being told.
#[derive(Debug)]
pub(super) struct Telling {
    run: u32,
    service: ServiceName,
    notifier: Notifier,
    grace: Grace,
}

impl Agent {
    pub(super) fn notify(&mut self, out: &mut Out<'_>, notices: Vec<Notice>) {
        let running = self.run.as_ref();
        let Some((run, grace)) = running.and_then(|run| Some((run.number, *run.machine.grace()?))) else {
            return;
        };
        let rebooted = running.is_some_and(|running| running.machine.has_rebooted());
        for mut notice in notices {
            if !tells_peers(&notice.service, rebooted) {
                let peer = out.server().peer.clone();
                notice.clients.retain(|client| *client != peer);
            }
            let addresses =
                |client: &heirlock_nsm::MonName| client.address().into_iter().map(Into::into).collect();
            let plan = Plan {
                names: out.names_of(&notice.service),
                state: notice.state,
                clients: notice.clients.iter().map(|c| (c.clone(), addresses(c))).collect(),
                sources: Vec::new(),
                rpcbind_port: 111,
                in_flight_max: BATCH,
                connections_max: BATCH,
                seed: out.notifier_seed(),
            };
            let service = notice.service;
            self.tellings.push(Some(Telling { run, service, notifier: Notifier::new(plan), grace }));
            out.tell_later(self.tellings.len() - 1, 0);
        }
    }

    /// One turn of the notifier's loop.
    pub(crate) fn tell(&mut self, out: &mut Out<'_>, index: usize) {
        let Some(Some(telling)) = self.tellings.get_mut(index) else { return };
        let now = out.now();
        let mut is_over = telling.notifier.is_done();
        if !is_over {
            if out.has_address(&telling.service) {
                telling.notifier.add_source(Ipv4Addr::UNSPECIFIED.into());
            }
            if telling.grace.leave(now) == Leave::ProveFirst {
                telling.grace.prove(now, out.probe());
            }
            match telling.grace.leave(now) {
                Leave::Granted => {
                    for _ in 0..BATCH {
                        let Some(transmit) = telling.notifier.poll_transmit(now) else { break };
                        match transmit.transport {
                            Transport::Udp => out.send(&telling.service, &transmit),
                            // No client here listens; who names no port over UDP had its answer garbled.
                            Transport::Tcp => {
                                telling.notifier.handle_failure(transmit.xid, "connection refused".into());
                            }
                        }
                    }
                }
                Leave::ProveFirst => {}
                Leave::TooLate => is_over = true,
            }
        }
        if !is_over {
            let due = telling.notifier.next_timeout().map_or(PATIENCE_MS, |at| millis(at.since(now)));
            out.tell_later(index, due.clamp(1, PATIENCE_MS));
            return;
        }
        if let Some(telling) = self.tellings[index].take() {
            let left = telling.notifier.stop("");
            out.later(1, telling.run, Event::NotifyEnded { service: telling.service, left });
        }
    }

    /// A datagram came to the service's address.
    pub(crate) fn heard(&mut self, out: &mut Out<'_>, service: &ServiceName, from: SocketAddr, bytes: &[u8]) {
        let now = out.now();
        for telling in self.tellings.iter_mut().flatten().filter(|telling| telling.service == *service) {
            telling.notifier.handle_reply(now, Transport::Udp, from, bytes);
            while let Some(event) = telling.notifier.poll_event() {
                if let Heard::Acknowledged(client) = event {
                    let event = Event::Acknowledged { service: service.clone(), clients: vec![client] };
                    out.later(1, telling.run, event);
                }
            }
        }
    }
}

pub(crate) fn millis(time: std::time::Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX)
}

/// What a probe of a lock manager answers.
pub(crate) fn probe(serves: bool, in_grace: bool) -> Probe {
    match (serves, in_grace) {
        (true, true) => Probe::InGrace,
        (true, false) => Probe::NotInGrace,
        (false, _) => Probe::NoAnswer,
    }
}
