//! Telling the clients of one service, as `heirlock`'s notifier does with its sockets.

use std::net::SocketAddr;

use heirlock_agent::{News, RunNumber, Telling};
use heirlock_core::grace::{Grace, Leave};
use heirlock_core::notify::{Event as Heard, Notifier, Plan, Transport, Words};
use heirlock_core::takeover::Event;
use heirlock_core::{Moment, Outcome, ServiceName, limits};
use heirlock_nsm::MonName;

use crate::Ms;
use crate::happening::Happening;
use crate::lock_manager::LockManagerAt;
use crate::work::AgentAt;
use crate::world::{World, millis};

/// Datagrams that leave between two looks at grace.
const BATCH: usize = 64;
/// How long at most between two looks.
const PATIENCE_MS: Ms = 50;

/// One service whose clients are being told.
#[derive(Debug)]
pub(crate) struct Notification {
    number: u64,
    run: RunNumber,
    service: ServiceName,
    notifier: Notifier,
    grace: Grace,
    began: Ms,
    is_first_round: bool,
    has_source: bool,
    /// Clients that can't be called.
    untold: Vec<(MonName, String)>,
}

impl Notification {
    pub(crate) fn new(run: RunNumber, telling: Telling, grace: Grace, seed: u64, now: Ms) -> Self {
        let Telling { notice, clients, untold, names, .. } = telling;
        let plan = Plan {
            words: Words::Restart { names, state: notice.state },
            clients,
            sources: Vec::new(),
            rpcbind_port: 111,
            in_flight_max: BATCH,
            connections_max: BATCH,
            seed,
        };
        Self {
            number: 0,
            run,
            service: notice.service,
            notifier: Notifier::new(plan),
            grace,
            began: now,
            is_first_round: true,
            has_source: false,
            untold,
        }
    }

    /// Whether all were tried that can be, for the first time.
    fn has_just_tried_all(&mut self, now: Ms) -> bool {
        let are_routes_awaited = now - self.began < millis(limits::NOTIFY_ROUTE_TIME_MAX);
        let has_tried = self.notifier.has_tried_all()
            || (!are_routes_awaited && self.notifier.has_tried_all_with_a_route());
        has_tried && std::mem::replace(&mut self.is_first_round, false)
    }
}

impl World {
    pub(crate) fn begin_notification(&mut self, (of, agent): AgentAt, notification: Notification) {
        self.notifications += 1;
        let number = self.notifications;
        self.servers[of].tellings.push(Notification { number, ..notification });
        self.after(0, Happening::Tell { of, agent, number });
    }

    /// One turn of the notifier's loop.
    pub(crate) fn tell(&mut self, at: AgentAt, number: u64) {
        let (of, agent) = at;
        let Some(started) = self.started(at) else { return };
        let Some(place) =
            self.servers[of].tellings.iter().position(|notification| notification.number == number)
        else {
            return; // it was stopped
        };
        let mut notification = self.servers[of].tellings.swap_remove(place);
        let now = self.moment(started);
        let is_over = notification.notifier.is_done() || self.is_too_late(of, now, &mut notification);
        self.hear_events(at, &mut notification);
        if !is_over {
            if notification.has_just_tried_all(self.now) {
                let event = Event::TriedAll { service: notification.service.clone() };
                self.tell_agent(at, 1, News::Event(notification.run, event));
            }
            let due = notification.notifier.next_timeout().map_or(PATIENCE_MS, |at| millis(at.since(now)));
            self.servers[of].tellings.push(notification);
            self.after(due.clamp(1, PATIENCE_MS), Happening::Tell { of, agent, number });
            return;
        }
        let Notification { run, service, notifier, untold, .. } = notification;
        let mut left = notifier.stop("");
        left.extend(untold.into_iter().map(|(client, why)| (client, Outcome::Lost, why)));
        self.tell_agent(at, 1, News::Event(run, Event::NotifyEnded { service, left }));
    }

    /// Sends what may leave; whether it is too late for that.
    fn is_too_late(&mut self, of: LockManagerAt, now: Moment, notification: &mut Notification) -> bool {
        let is_here =
            self.service(&notification.service).is_some_and(|service| self.serving(service) == Some(of));
        if is_here && !notification.has_source {
            notification.has_source = true;
            notification.notifier.add_source(std::net::Ipv4Addr::UNSPECIFIED.into());
        }
        if notification.grace.leave(now) == Leave::ProveFirst {
            let answer = self.probe(of);
            notification.grace.prove(now, answer);
        }
        match notification.grace.leave(now) {
            Leave::Granted => {}
            Leave::ProveFirst => return false,
            Leave::TooLate => return true,
        }
        for _ in 0..BATCH {
            let Some(transmit) = notification.notifier.poll_transmit(now) else { break };
            match transmit.transport {
                Transport::Udp => self.send(of, &notification.service, &transmit),
                // No client here listens over TCP. A client that names no port over UDP had its answer garbled.
                Transport::Tcp => {
                    notification.notifier.handle_failure(transmit.xid, "connection refused".into());
                }
            }
        }
        false
    }

    /// A datagram came to the service's address.
    pub(crate) fn heard(&mut self, of: LockManagerAt, service: &ServiceName, from: SocketAddr, bytes: &[u8]) {
        let at = (of, self.servers[of.server].agent);
        let Some(now) = self.started(at).map(|started| self.moment(started)) else { return };
        let mut notifications = std::mem::take(&mut self.servers[of].tellings);
        for notification in notifications.iter_mut().filter(|notification| notification.service == *service) {
            notification.notifier.handle_reply(now, Transport::Udp, from, bytes);
            self.hear_events(at, notification);
        }
        self.servers[of].tellings = notifications;
    }

    fn hear_events(&mut self, at: AgentAt, notification: &mut Notification) {
        while let Some(event) = notification.notifier.poll_event() {
            if let Heard::Acknowledged(client) = event {
                let event =
                    Event::Acknowledged { service: notification.service.clone(), clients: vec![client] };
                self.tell_agent(at, 1, News::Event(notification.run, event));
            }
        }
    }
}
