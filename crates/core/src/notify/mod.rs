//! Which datagram goes to which client when, and what its answer means.
//!
//! Every client is asked for the port of its status monitor (rpcbind), then told of the restart under each name of the
//! service in turn (SM_NOTIFY); it has acknowledged when it answered each. Clients are called again until the caller
//! stops: nobody who is slow to come back is given up while grace lasts.
//!
//! - First calls come before repeated ones, and a call that nobody answers at once holds its place in the window for a
//!   moment only ([`limits::NOTIFY_BURST`]), however long it is waited for: dead clients cost the living nothing.
//! - An answer counts only if its transaction and its source are those of the call: anybody can send datagrams.
//! - No I/O, no clock; transactions are drawn from a seed.

mod client;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::rpc::Reply;
use heirlock_nsm::{MonName, MyName, StateNumber};

use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;
use client::{Answer, Peer};

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
    /// Makes transactions hard to guess.
    pub seed: u64,
}

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
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
    plan: Plan,
    peers: Vec<Peer>,
    /// Peers by the transaction that they have to answer.
    calls: HashMap<u32, usize>,
    /// Never called yet.
    fresh: VecDeque<usize>,
    /// Answered one call, and are due for the next.
    going_on: VecDeque<usize>,
    /// Their wait is over without an answer.
    silent: VecDeque<usize>,
    /// Calls whose wait is not over, by its end.
    waits: BTreeSet<(Moment, usize)>,
    /// Calls so recent that their answers may all come at once, by when they were sent.
    recent: BTreeSet<(Moment, usize)>,
    events: VecDeque<Event>,
    said: BTreeMap<usize, BTreeSet<&'static str>>,
    random: u64,
    left: usize,
}

impl Notifier {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let peers: Vec<Peer> =
            plan.clients.iter().map(|(key, addresses)| Peer::new(key, addresses)).collect();
        let fresh = (0..peers.len()).filter(|at| peers[*at].has_address()).collect();
        Self {
            left: peers.len(),
            peers,
            calls: HashMap::new(),
            fresh,
            going_on: VecDeque::new(),
            silent: VecDeque::new(),
            waits: BTreeSet::new(),
            recent: BTreeSet::new(),
            events: VecDeque::new(),
            said: BTreeMap::new(),
            // Zero would stay zero for ever.
            random: plan.seed | 1,
            plan,
        }
    }

    /// The next datagram that may leave now, if there is one. To be asked again after every datagram that came, and at
    /// [`Notifier::next_timeout`]; asking once more than needed does no harm.
    pub fn poll_transmit(&mut self, now: Moment) -> Option<Transmit> {
        self.end_waits(now);
        while let Some(first) = self.recent.first().copied() {
            if now.since(first.0) < limits::NOTIFY_BURST {
                break;
            }
            self.recent.remove(&first);
        }
        if self.recent.len() >= limits::NOTIFY_IN_FLIGHT_MAX {
            return None;
        }
        let next =
            self.going_on.pop_front().or_else(|| self.fresh.pop_front()).or_else(|| self.next_silent())?;
        Some(self.call(now, next))
    }

    /// The next whose wait was over, unless its answer came late.
    fn next_silent(&mut self) -> Option<usize> {
        loop {
            let next = self.silent.pop_front()?;
            if std::mem::take(&mut self.peers[next].is_silent) {
                return Some(next);
            }
        }
    }

    /// When something is due that no datagram announces.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Moment> {
        let wait = self.waits.first().map(|(end, _)| *end);
        let full = self.recent.len() >= limits::NOTIFY_IN_FLIGHT_MAX;
        let room = self.recent.first().filter(|_| full).map(|(sent, _)| *sent + limits::NOTIFY_BURST);
        wait.into_iter().chain(room).min()
    }

    /// A datagram came.
    pub fn handle_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8]) {
        let Some(at) = Reply::xid_of(bytes).and_then(|xid| self.calls.get(&xid).copied()) else { return };
        let peer = &mut self.peers[at];
        if peer.called() != Some(from) {
            self.strange(at, "wrong source", format!("an answer came from {from}, which was not asked"));
            return;
        }
        let answer = match Reply::decode(bytes) {
            Ok(reply) => peer.answer(reply.outcome, self.plan.names.len()),
            Err(error) => Answer::Strange(error.to_string()),
        };
        match answer {
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
        let xid = self.draw_xid();
        let peer = &mut self.peers[at];
        // A late answer to the call before is still welcome, one to an older one isn't.
        let forgotten = peer.begin_call(xid);
        let transmit = peer.message(xid, &self.plan);
        let wait = peer.wait() + Duration::from_millis(self.random % 64);
        peer.waits_until = Some(now + wait);
        peer.sent_at = now;
        if let Some(forgotten) = forgotten {
            self.calls.remove(&forgotten);
        }
        self.calls.insert(xid, at);
        self.waits.insert((now + wait, at));
        self.recent.insert((now, at));
        transmit
    }

    fn end_call(&mut self, at: usize) {
        if let Some(end) = self.peers[at].waits_until.take() {
            self.waits.remove(&(end, at));
        }
        self.recent.remove(&(self.peers[at].sent_at, at));
        self.peers[at].is_silent = false;
        for xid in self.peers[at].end_calls() {
            self.calls.remove(&xid);
        }
    }

    fn end_waits(&mut self, now: Moment) {
        while let Some((end, at)) = self.waits.first().copied() {
            if end > now {
                return;
            }
            self.waits.pop_first();
            self.peers[at].waits_until = None;
            for forgotten in self.peers[at].unanswered() {
                self.calls.remove(&forgotten);
            }
            self.peers[at].is_silent = true;
            self.silent.push_back(at);
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

#[cfg(test)]
mod tests;
