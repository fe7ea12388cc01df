//! The messages to each client, their times, and the meaning of the answers.
//!
//! Every client is asked for the port of its status monitor (rpcbind), then told of the restart under each name of the
//! service in turn (SM_NOTIFY); it has acknowledged when it answered each. Clients are called again until the caller
//! stops: a client that is slow to come back is not given up while grace lasts.
//!
//! - First calls come before repeated ones, and a call that is not answered at once holds its place in the window for a
//!   moment only ([`limits::NOTIFY_BURST`]), however long it is waited for: dead clients cost the living nothing. They
//!   wait in a row of their own, and are called again at a bounded rate.
//! - The window is the number of answers that the socket can hold at once ([`Plan::in_flight_max`]); it opens with each
//!   answer that comes back.
//! - An answer counts only if its transaction and its source are those of the call: any host can send datagrams.
//! - rpcbind is asked over UDP, and a short moment later over TCP as well where it has not answered; the first answer
//!   counts. The client is told over the transport that is registered there, and over the other one where that is silent.
//! - Connections are bounded, and a first one is given up early: a client that does not answer costs the others little.
//! - Where a client is silent its next route is tried: another address of its own, or another one of the service.
//! - Where a client is silent the address that it was called from is announced to the network again: the client may have been cut off
//!   when that was done first, and then it answers to the server that had the address before ([`Notifier::poll_announcement`]).
//! - No I/O, no clock; transactions are drawn from a seed.

mod client;
mod message;
mod route;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::rpc::Reply;
use heirlock_nsm::{MonName, MyName, StateNumber};

pub use heirlock_nsm::rpcbind::Transport;
pub use route::Destination;

use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;
use client::{Answer, Beside, Client};
use message::{Messages, Question};

/// The clients to tell, and the words.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The words that each client's status monitor is to hear.
    pub words: Words,
    /// The clients, each with its addresses.
    pub clients: Vec<(MonName, Vec<Destination>)>,
    /// The addresses from which they are told, as far as they are ready: see [`Notifier::add_source`].
    pub sources: Vec<IpAddr>,
    /// Where clients have their rpcbind: 111.
    pub rpcbind_port: u16,
    /// Answers that the socket holds while none is taken out: more calls are never out at a time.
    pub in_flight_max: usize,
    /// Connections that may be open at a time.
    pub connections_max: usize,
    /// Makes transactions hard to guess.
    pub seed: u64,
}

/// The words for a client's status monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// The server was restarted (SM_NOTIFY): the client reclaims its locks.
    Restart {
        /// The names of the service, in the order in which they are announced.
        names: Vec<MyName>,
        /// The number: odd, and never sent before.
        state: StateNumber,
    },
    /// None: the procedure that does nothing, and that every program answers (RFC 5531, 12: number 0). A drill asks so whether a
    /// client can be reached, by the same ways and over the same transports as an adoption would tell it.
    Nothing,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// From which address; an unspecified one is the one that the route has.
    pub from: IpAddr,
    /// Where to.
    pub to: SocketAddr,
    /// Over what. Over TCP each message has a connection of its own, and [`Notifier::handle_failure`] is told if that
    /// comes to nothing.
    pub transport: Transport,
    /// How long its connection may take, answer included.
    pub time_max: Duration,
    /// Its transaction.
    pub xid: u32,
    /// The message; over TCP still to be framed.
    pub payload: Vec<u8>,
}

/// A notable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It answered under every name.
    Acknowledged(MonName),
    /// Something that is no answer came in its place. Said once a client and reason.
    Strange(MonName, String),
}

/// Tells the clients of one service.
#[derive(Debug)]
pub struct Notifier {
    messages: Messages,
    in_flight_max: usize,
    connections_max: usize,
    sources: Vec<IpAddr>,
    clients: Vec<Client>,
    /// Clients whose key is no address: more of their addresses may become known.
    named: BTreeMap<MonName, usize>,
    /// The calls that wait for an answer, by transaction.
    calls: HashMap<u32, Call>,
    /// Never called yet.
    fresh: VecDeque<usize>,
    /// Answered one call, and are due for the next.
    going_on: VecDeque<usize>,
    /// Due for a call over TCP, for which there was no place yet.
    for_tcp: VecDeque<usize>,
    /// Their rpcbind did not answer at once over UDP: it is to be asked over TCP as well.
    to_ask_beside: VecDeque<usize>,
    /// Connections that are open.
    connections: usize,
    /// Their wait is over without an answer.
    silent: VecDeque<usize>,
    /// The next call to a silent one leaves at this moment or later.
    repeat_from: Moment,
    /// Calls whose wait is not over, by its end.
    waits: BTreeSet<(Moment, usize)>,
    /// Calls in the order in which they were sent; those that are answered or old are dropped from its front.
    recent: VecDeque<(Moment, usize)>,
    /// Of these, those whose answers may still all come at once.
    in_flight: usize,
    /// The service's addresses from which a client was called in vain since they were last announced.
    unheard: BTreeSet<IpAddr>,
    /// From when on each of them may be announced again; one that is not among them may be at any time.
    announce_from: BTreeMap<IpAddr, Moment>,
    /// Answers that came.
    answers: usize,
    events: VecDeque<Event>,
    said: BTreeMap<usize, BTreeSet<&'static str>>,
    random: u64,
    left: usize,
    /// Clients that have neither answered nor had their first round of tries.
    in_first_round: usize,
    /// Clients to whom there is no route: no address of theirs is known, or none of the service is ready.
    routeless: usize,
}

/// A call that is out.
#[derive(Debug, Clone, Copy)]
struct Call {
    at: usize,
    to: SocketAddr,
    question: Question,
    /// It goes beside another one.
    is_beside: bool,
}

impl Notifier {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let messages = Messages::new(&plan);
        let sources = plan.sources;
        let clients: Vec<Client> =
            plan.clients.into_iter().map(|(key, addresses)| Client::new(key, &addresses, &sources)).collect();
        let named = (0..clients.len()).filter(|at| clients[*at].key().address().is_none());
        Self {
            messages,
            in_flight_max: plan.in_flight_max.clamp(1, limits::NOTIFY_IN_FLIGHT_MAX),
            connections_max: plan.connections_max.clamp(1, limits::NOTIFY_CONNECTIONS_MAX),
            sources,
            left: clients.len(),
            in_first_round: clients.len(),
            routeless: clients.iter().filter(|client| !client.has_route()).count(),
            named: named.map(|at| (clients[at].key().clone(), at)).collect(),
            calls: HashMap::new(),
            fresh: (0..clients.len()).filter(|at| clients[*at].has_route()).collect(),
            going_on: VecDeque::new(),
            for_tcp: VecDeque::new(),
            to_ask_beside: VecDeque::new(),
            connections: 0,
            silent: VecDeque::new(),
            repeat_from: Moment::START,
            waits: BTreeSet::new(),
            recent: VecDeque::new(),
            in_flight: 0,
            unheard: BTreeSet::new(),
            announce_from: BTreeMap::new(),
            answers: 0,
            events: VecDeque::new(),
            said: BTreeMap::new(),
            // Zero would stay zero for ever.
            random: plan.seed | 1,
            clients,
        }
    }

    /// More addresses of a client that is known by a name. Where there was no route to it, it is called from now on.
    pub fn add_addresses(&mut self, client: &MonName, addresses: &[Destination]) {
        let Some(at) = self.named.get(client).copied() else { return };
        let had_none = !self.clients[at].has_route();
        self.clients[at].add_addresses(addresses, &self.sources);
        if had_none && self.clients[at].has_route() {
            self.routeless -= 1;
            self.fresh.push_back(at);
        }
    }

    /// One more address from which clients can be told: it is ready now. Clients without a route are called from now on.
    pub fn add_source(&mut self, source: IpAddr) {
        if self.sources.contains(&source) {
            return;
        }
        self.sources.push(source);
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let had_none = !client.has_route();
            client.find_routes(&self.sources);
            if had_none && client.has_route() {
                self.routeless -= 1;
                self.fresh.push_back(at);
            }
        }
    }

    /// The next message that may leave now, if there is one. To be asked again after every answer that came, and at
    /// [`Notifier::next_timeout`]; asking once more than needed does no harm.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Transmit> {
        self.end_waits(now);
        self.forget_old(now);
        if let Some(next) = self.next_datagram(now, Self::next_first) {
            return Some(self.call(now, next));
        }
        if let Some(transmit) = self.next_connection(now) {
            return Some(transmit);
        }
        if let Some(next) = self.next_datagram(now, Self::next_silent) {
            return Some(self.call(now, next));
        }
        self.next_connection(now)
    }

    /// The next address of the service that is to be announced to the network now, for a client that was called from there is
    /// silent. To be asked before [`Notifier::poll_transmit`]: the call that follows is answered to this server then.
    pub fn poll_announcement(&mut self, now: Moment) -> Option<IpAddr> {
        self.end_waits(now);
        let may = |address: &&IpAddr| self.announce_from.get(address).is_none_or(|from| *from <= now);
        let due = self.unheard.iter().find(may).copied()?;
        self.unheard.remove(&due);
        self.announce_from.insert(due, now + limits::NOTIFY_ANNOUNCE_INTERVAL);
        Some(due)
    }

    /// The next in this row that is called over UDP, as far as the window has room. Clients that are called over TCP go into the
    /// row for it.
    fn next_datagram(&mut self, now: Moment, row: fn(&mut Self, Moment) -> Option<usize>) -> Option<usize> {
        if self.in_flight >= self.window() {
            return None;
        }
        while let Some(next) = row(self, now) {
            if self.clients[next].is_done() {
                continue;
            }
            if self.clients[next].next_transport() == Transport::Udp {
                return Some(next);
            }
            self.for_tcp.push_back(next);
        }
        None
    }

    /// The next message over TCP, as far as connections are left. A client whose status monitor is known comes first.
    fn next_connection(&mut self, now: Moment) -> Option<Transmit> {
        if self.connections >= self.connections_max {
            return None;
        }
        while let Some(next) = self.for_tcp.pop_front() {
            if !self.clients[next].is_done() && self.clients[next].next_transport() == Transport::Tcp {
                return Some(self.call(now, next));
            }
        }
        while let Some(next) = self.to_ask_beside.pop_front() {
            // It may have answered meanwhile.
            if self.clients[next].beside == Beside::InRow {
                self.clients[next].beside = Beside::No;
                if self.clients[next].may_be_asked_beside() {
                    return Some(self.ask_beside(next));
                }
            }
        }
        None
    }

    fn next_first(&mut self, _: Moment) -> Option<usize> {
        self.going_on.pop_front().or_else(|| self.fresh.pop_front())
    }

    /// The next whose wait was over, unless its answer came late.
    fn next_silent(&mut self, now: Moment) -> Option<usize> {
        if now < self.repeat_from {
            return None;
        }
        loop {
            let next = self.silent.pop_front()?;
            if std::mem::take(&mut self.clients[next].is_silent) {
                // A call that comes late makes up for a little of it, not for all.
                let late_at_most = now - limits::NOTIFY_REPEAT_SPACING * 64;
                self.repeat_from = self.repeat_from.max(late_at_most) + limits::NOTIFY_REPEAT_SPACING;
                return Some(next);
            }
        }
    }

    /// How many calls may be out whose answers could all come at once.
    fn window(&self) -> usize {
        self.in_flight_max.min(limits::NOTIFY_IN_FLIGHT_AT_FIRST + self.answers)
    }

    /// When something is due that no answer announces.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        let wait = self.waits.first().map(|(end, _)| *end);
        let full = self.in_flight >= self.window();
        // Then the window has room again, or rpcbind is asked over TCP as well.
        let counts = full || self.connections < self.connections_max;
        let room = self.recent.front().filter(|_| counts).map(|(sent, _)| *sent + limits::NOTIFY_BURST);
        let repeat = (!full && !self.silent.is_empty()).then_some(self.repeat_from);
        wait.into_iter().chain(room).chain(repeat).min()
    }

    /// An answer came over this transport.
    pub fn handle_reply(&mut self, now: Moment, transport: Transport, from: SocketAddr, bytes: &[u8]) {
        let Some(xid) = Reply::xid_of(bytes) else { return };
        let Some(Call { at, to, question, is_beside }) = self.calls.get(&xid).copied() else { return };
        if to != from || question.over() != transport {
            self.strange(at, "wrong source", format!("an answer came from {from}, which was not asked"));
            return;
        }
        if is_beside {
            self.calls.remove(&xid);
            self.end_beside(at);
        } else if transport == Transport::Tcp {
            self.close_connection(at);
        }
        let answer = match Reply::decode(bytes) {
            Ok(reply) => {
                self.clients[at].answer(question, is_beside, to, reply.outcome, self.messages.names())
            }
            Err(error) => Answer::Strange(error.to_string()),
        };
        self.take_in(at, is_beside, answer);
        self.end_waits(now);
    }

    fn take_in(&mut self, at: usize, is_beside: bool, answer: Answer) {
        match answer {
            Answer::Old => {}
            Answer::Strange(why) if is_beside => self.clients[at].failed_beside(why),
            Answer::Strange(why) => self.strange(at, "garbage", why),
            // It lives, but can't be told now: called again when its wait is over.
            Answer::NotNow(why) => {
                if is_beside {
                    self.clients[at].failed_beside(why.clone());
                }
                self.strange(at, "not now", why);
            }
            // There is more to ask of rpcbind over TCP, and a client that is spoken to does not stand at the end of the row.
            Answer::GoOn if is_beside && self.clients[at].may_be_asked_beside() => {
                self.clients[at].beside = Beside::InRow;
                self.to_ask_beside.push_front(at);
            }
            Answer::GoOn => {
                self.end_call(at);
                self.going_on.push_back(at);
            }
            Answer::Done => {
                self.end_call(at);
                self.left -= 1;
                self.end_first_round(at);
                self.events.push_back(Event::Acknowledged(self.clients[at].key().clone()));
            }
        }
    }

    /// The connection for a call came to nothing. The client is called again when its wait is over.
    pub fn handle_failure(&mut self, xid: u32, why: String) {
        let Some(Call { at, is_beside, .. }) = self.calls.remove(&xid) else { return };
        if is_beside {
            self.end_beside(at);
            self.clients[at].failed_beside(why);
            return;
        }
        self.close_connection(at);
        self.strange(at, "no connection", why);
    }

    /// Whether an answer to this call is still of use. Where none is, its connection can be closed.
    #[must_use]
    pub fn is_awaited(&self, xid: u32) -> bool {
        self.calls.contains_key(&xid)
    }

    /// The next notable answer since the last time.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether every client has acknowledged.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Whether every client has answered or had its first round of tries ([`limits::NOTIFY_ROUND_CALLS`]): a living client
    /// needs no more.
    #[must_use]
    pub fn has_tried_all(&self) -> bool {
        self.in_first_round == 0
    }

    /// The same, but for clients to whom there is no route so far.
    #[must_use]
    pub fn has_tried_all_with_a_route(&self) -> bool {
        self.in_first_round == self.routeless
    }

    /// Ends it: nothing may be sent any more. Says what became of those that have not acknowledged; of those to whom there
    /// was no route also why addresses of the service were not `ready`, where that is known.
    #[must_use]
    pub fn stop(self, unready: &str) -> Vec<(MonName, Outcome, String)> {
        self.clients.iter().filter_map(|client| client.left_over(unready)).collect()
    }

    fn end_first_round(&mut self, at: usize) {
        self.in_first_round -= usize::from(self.clients[at].ends_first_round());
    }

    fn call(&mut self, now: Moment, at: usize) -> Transmit {
        self.forget_call(at);
        let xid = self.draw_xid();
        let jitter = self.random;
        let client = &mut self.clients[at];
        // A late answer to the call before is still welcome, one to an older one isn't.
        if let Some(forgotten) = client.begin_call(xid) {
            self.calls.remove(&forgotten);
        }
        let (question, from, to) = client.question(self.messages.rpcbind_port());
        let transport = question.over();
        let wait = spread(client.wait(transport), jitter);
        client.waits_until = Some(now + wait);
        client.in_flight = Some(now);
        if transport == Transport::Tcp {
            client.is_connected = true;
            self.connections += 1;
        }
        self.calls.insert(xid, Call { at, to, question, is_beside: false });
        self.waits.insert((now + wait, at));
        self.recent.push_back((now, at));
        self.in_flight += 1;
        let payload = self.messages.render(question, to, xid);
        Transmit { from, to, transport, time_max: limits::NOTIFY_CONNECTION_TIME_MAX, xid, payload }
    }

    /// Asks a client's rpcbind over TCP, while the question over UDP is out.
    fn ask_beside(&mut self, at: usize) -> Transmit {
        let xid = self.draw_xid();
        let (question, from, to) = self.clients[at].question_beside(self.messages.rpcbind_port());
        let time_max = self.clients[at].begin_beside(xid);
        self.connections += 1;
        self.calls.insert(xid, Call { at, to, question, is_beside: true });
        let payload = self.messages.render(question, to, xid);
        Transmit { from, to, transport: Transport::Tcp, time_max, xid, payload }
    }

    /// Ends the wait for the question that went beside another one, if one did.
    fn end_beside(&mut self, at: usize) {
        if let Beside::Out(xid) = std::mem::replace(&mut self.clients[at].beside, Beside::No) {
            self.calls.remove(&xid);
            self.connections -= 1;
        }
    }

    fn end_call(&mut self, at: usize) {
        self.answers += 1;
        self.forget_call(at);
        self.end_beside(at);
        for xid in self.clients[at].end_calls() {
            self.calls.remove(&xid);
        }
    }

    /// Ends the wait for the call that is out, if one is.
    fn forget_call(&mut self, at: usize) {
        if let Some(end) = self.clients[at].waits_until.take() {
            self.waits.remove(&(end, at));
        }
        if self.clients[at].in_flight.take().is_some() {
            self.in_flight -= 1;
        }
        self.clients[at].is_silent = false;
        self.close_connection(at);
    }

    fn close_connection(&mut self, at: usize) {
        if std::mem::take(&mut self.clients[at].is_connected) {
            self.connections -= 1;
        }
    }

    fn end_waits(&mut self, now: Moment) {
        while let Some((end, at)) = self.waits.first().copied() {
            if end > now {
                return;
            }
            self.waits.pop_first();
            self.close_connection(at);
            let client = &mut self.clients[at];
            client.waits_until = None;
            // Where the route chooses the address, it is none of the service's.
            self.unheard.extend(Some(client.source()).filter(|source| !source.is_unspecified()));
            client.unanswered();
            client.is_silent = true;
            self.silent.push_back(at);
            self.end_first_round(at);
        }
    }

    /// Datagrams that were sent long ago are no longer answered in one burst with those that are sent now.
    fn forget_old(&mut self, now: Moment) {
        while let Some((sent, at)) = self.recent.front().copied() {
            let is_out = self.clients[at].in_flight == Some(sent);
            if is_out && now.since(sent) < limits::NOTIFY_BURST {
                return;
            }
            if is_out {
                self.clients[at].in_flight = None;
                self.in_flight -= 1;
                if self.clients[at].may_be_asked_beside() {
                    self.clients[at].beside = Beside::InRow;
                    self.to_ask_beside.push_back(at);
                }
            }
            self.recent.pop_front();
        }
    }

    fn strange(&mut self, at: usize, kind: &'static str, why: String) {
        if self.said.entry(at).or_default().insert(kind) {
            self.events.push_back(Event::Strange(self.clients[at].key().clone(), why.clone()));
        }
        self.clients[at].remember(why);
    }

    /// xorshift64*: not secret, but not to be guessed by counting either.
    fn draw_xid(&mut self) -> u32 {
        loop {
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            let mixed = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
            let xid = u32::from_be_bytes([mixed[0], mixed[1], mixed[2], mixed[3]]);
            if !self.calls.contains_key(&xid) {
                return xid;
            }
        }
    }
}

/// Up to a quarter longer: those that were called together are not called again together.
fn spread(wait: Duration, random: u64) -> Duration {
    let quarter_ms = u64::try_from(wait.as_millis() / 4).unwrap_or(u64::MAX).max(1);
    wait + Duration::from_millis(random % quarter_ms)
}

#[cfg(test)]
mod tests;
