//! Which message goes to which client when, and what its answer means.
//!
//! Every client is asked for the port of its status monitor (rpcbind), then told of the restart under each name of the
//! service in turn (SM_NOTIFY); it has acknowledged when it answered each. Clients are called again until the caller
//! stops: nobody who is slow to come back is given up while grace lasts.
//!
//! - First calls come before repeated ones, and a call that nobody answers at once holds its place in the window for a
//!   moment only ([`limits::NOTIFY_BURST`]), however long it is waited for: dead clients cost the living nothing. They
//!   wait in a row of their own, and are called again at a bounded rate.
//! - The window is what the socket can hold if all answers come at once ([`Plan::in_flight_max`]); it opens by what
//!   comes back.
//! - An answer counts only if its transaction and its source are those of the call: anybody can send datagrams.
//! - A client is told over UDP, and over TCP where its rpcbind knows no other; at its next address where one is silent.
//! - No I/O, no clock; transactions are drawn from a seed.

mod client;
mod message;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::rpc::Reply;
use heirlock_nsm::{MonName, MyName, StateNumber};

pub use heirlock_nsm::rpcbind::Transport;

use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;
use client::{Answer, Peer};
use message::{Messages, Question};

/// Whom to tell, and what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The names of the service, in the order in which they are announced.
    pub names: Vec<MyName>,
    /// The number: odd, and never sent before.
    pub state: StateNumber,
    /// The clients, each with its addresses.
    pub clients: Vec<(MonName, Vec<IpAddr>)>,
    /// Where clients have their rpcbind: 111.
    pub rpcbind_port: u16,
    /// Answers that the socket holds if nobody takes them out: more calls are never out at a time.
    pub in_flight_max: usize,
    /// Makes transactions hard to guess.
    pub seed: u64,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Over what. Over TCP each message has a connection of its own, and [`Notifier::handle_failure`] is told if that
    /// comes to nothing.
    pub transport: Transport,
    /// Its transaction.
    pub xid: u32,
    /// What; over TCP still to be framed.
    pub payload: Vec<u8>,
}

/// What became known.
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
    peers: Vec<Peer>,
    /// Those whose key is no address: more of their addresses may become known.
    named: BTreeMap<MonName, usize>,
    /// What has to be answered, by transaction.
    calls: HashMap<u32, Call>,
    /// Never called yet.
    fresh: VecDeque<usize>,
    /// Answered one call, and are due for the next.
    going_on: VecDeque<usize>,
    /// Due for a call over TCP, for which there was no place yet.
    for_tcp: VecDeque<usize>,
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
    /// Answers that came.
    answers: usize,
    events: VecDeque<Event>,
    said: BTreeMap<usize, BTreeSet<&'static str>>,
    random: u64,
    left: usize,
}

/// A call that is out.
#[derive(Debug, Clone, Copy)]
struct Call {
    at: usize,
    to: SocketAddr,
    question: Question,
}

impl Notifier {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let messages = Messages::new(&plan);
        let peers: Vec<Peer> =
            plan.clients.into_iter().map(|(key, addresses)| Peer::new(key, &addresses)).collect();
        let named = (0..peers.len()).filter(|at| peers[*at].key().address().is_none());
        Self {
            messages,
            in_flight_max: plan.in_flight_max.clamp(1, limits::NOTIFY_IN_FLIGHT_MAX),
            left: peers.len(),
            named: named.map(|at| (peers[at].key().clone(), at)).collect(),
            calls: HashMap::new(),
            fresh: (0..peers.len()).filter(|at| peers[*at].has_address()).collect(),
            going_on: VecDeque::new(),
            for_tcp: VecDeque::new(),
            connections: 0,
            silent: VecDeque::new(),
            repeat_from: Moment::START,
            waits: BTreeSet::new(),
            recent: VecDeque::new(),
            in_flight: 0,
            answers: 0,
            events: VecDeque::new(),
            said: BTreeMap::new(),
            // Zero would stay zero for ever.
            random: plan.seed | 1,
            peers,
        }
    }

    /// More addresses of a client that is known by a name. Where none was known, it is called from now on.
    pub fn add_addresses(&mut self, client: &MonName, addresses: &[IpAddr]) {
        let Some(at) = self.named.get(client).copied() else { return };
        let had_none = !self.peers[at].has_address();
        self.peers[at].add_addresses(addresses);
        if had_none && self.peers[at].has_address() {
            self.fresh.push_back(at);
        }
    }

    /// The next message that may leave now, if there is one. To be asked again after every answer that came, and at
    /// [`Notifier::next_timeout`]; asking once more than needed does no harm.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Transmit> {
        self.end_waits(now);
        self.forget_old(now);
        if self.in_flight >= self.window() {
            return None;
        }
        while let Some(next) = self.next_due(now) {
            if self.peers[next].next_transport() == Transport::Tcp {
                self.for_tcp.push_back(next);
            } else if !self.peers[next].is_done() {
                return Some(self.call(now, next));
            }
        }
        let place = self.connections < limits::NOTIFY_CONNECTIONS_MAX;
        let next = if place { self.for_tcp.pop_front() } else { None }?;
        Some(self.call(now, next))
    }

    fn next_due(&mut self, now: Moment) -> Option<usize> {
        self.going_on.pop_front().or_else(|| self.fresh.pop_front()).or_else(|| self.next_silent(now))
    }

    /// The next whose wait was over, unless its answer came late.
    fn next_silent(&mut self, now: Moment) -> Option<usize> {
        if now < self.repeat_from {
            return None;
        }
        loop {
            let next = self.silent.pop_front()?;
            if std::mem::take(&mut self.peers[next].is_silent) {
                // Whoever asks late makes up for a little of it, not for all.
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
        let room = self.recent.front().filter(|_| full).map(|(sent, _)| *sent + limits::NOTIFY_BURST);
        let repeat = (!full && !self.silent.is_empty()).then_some(self.repeat_from);
        wait.into_iter().chain(room).chain(repeat).min()
    }

    /// An answer came over this transport.
    pub fn handle_reply(&mut self, now: Moment, transport: Transport, from: SocketAddr, bytes: &[u8]) {
        let Some(xid) = Reply::xid_of(bytes) else { return };
        let Some(Call { at, to, question }) = self.calls.get(&xid).copied() else { return };
        if to != from || question.over(to) != transport {
            self.strange(at, "wrong source", format!("an answer came from {from}, which was not asked"));
            return;
        }
        if transport == Transport::Tcp {
            self.close_connection(at);
        }
        let answer = match Reply::decode(bytes) {
            Ok(reply) => self.peers[at].answer(question, to, reply.outcome, self.messages.names()),
            Err(error) => Answer::Strange(error.to_string()),
        };
        match answer {
            Answer::Old => {}
            Answer::Strange(why) => self.strange(at, "garbage", why),
            // It lives, but can't be told now: called again when its wait is over.
            Answer::NotNow(why) => self.strange(at, "not now", why),
            Answer::GoOn => {
                self.end_call(at);
                self.going_on.push_back(at);
            }
            Answer::Done => {
                self.end_call(at);
                self.left -= 1;
                self.events.push_back(Event::Acknowledged(self.peers[at].key().clone()));
            }
        }
        self.end_waits(now);
    }

    /// The connection for a call came to nothing. The client is called again when its wait is over.
    pub fn handle_failure(&mut self, xid: u32, why: String) {
        let Some(Call { at, .. }) = self.calls.remove(&xid) else { return };
        self.close_connection(at);
        self.strange(at, "no connection", why);
    }

    /// What became known since the last time.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether every client has acknowledged.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Ends it: nothing may be sent any more. Says what became of those that have not acknowledged.
    #[must_use]
    pub fn stop(self) -> Vec<(MonName, Outcome, String)> {
        self.peers.iter().filter_map(Peer::left_over).collect()
    }

    fn call(&mut self, now: Moment, at: usize) -> Transmit {
        self.forget_call(at);
        let xid = self.draw_xid();
        let jitter = self.random;
        let peer = &mut self.peers[at];
        // A late answer to the call before is still welcome, one to an older one isn't.
        if let Some(forgotten) = peer.begin_call(xid) {
            self.calls.remove(&forgotten);
        }
        let (question, to) = peer.question(self.messages.rpcbind_port());
        let transport = question.over(to);
        let wait = spread(peer.wait(transport), jitter);
        peer.waits_until = Some(now + wait);
        peer.in_flight = Some(now);
        if transport == Transport::Tcp {
            peer.is_connected = true;
            self.connections += 1;
        }
        self.calls.insert(xid, Call { at, to, question });
        self.waits.insert((now + wait, at));
        self.recent.push_back((now, at));
        self.in_flight += 1;
        Transmit { to, transport, xid, payload: self.messages.render(question, to, xid) }
    }

    fn end_call(&mut self, at: usize) {
        self.answers += 1;
        self.forget_call(at);
        for xid in self.peers[at].end_calls() {
            self.calls.remove(&xid);
        }
    }

    /// Nobody waits for the call that is out any more, if one is.
    fn forget_call(&mut self, at: usize) {
        if let Some(end) = self.peers[at].waits_until.take() {
            self.waits.remove(&(end, at));
        }
        if self.peers[at].in_flight.take().is_some() {
            self.in_flight -= 1;
        }
        self.peers[at].is_silent = false;
        self.close_connection(at);
    }

    fn close_connection(&mut self, at: usize) {
        if std::mem::take(&mut self.peers[at].is_connected) {
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
            let peer = &mut self.peers[at];
            peer.waits_until = None;
            peer.unanswered();
            peer.is_silent = true;
            self.silent.push_back(at);
        }
    }

    /// What was sent long ago no longer comes in one burst with what is sent now.
    fn forget_old(&mut self, now: Moment) {
        while let Some((sent, at)) = self.recent.front().copied() {
            let is_out = self.peers[at].in_flight == Some(sent);
            if is_out && now.since(sent) < limits::NOTIFY_BURST {
                return;
            }
            if is_out {
                self.peers[at].in_flight = None;
                self.in_flight -= 1;
            }
            self.recent.pop_front();
        }
    }

    fn strange(&mut self, at: usize, kind: &'static str, why: String) {
        if self.said.entry(at).or_default().insert(kind) {
            self.events.push_back(Event::Strange(self.peers[at].key().clone(), why.clone()));
        }
        self.peers[at].remember(why);
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
