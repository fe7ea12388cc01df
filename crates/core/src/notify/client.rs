//! One client of the notifier: the next question to it, and the meaning of its answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::MonName;
use heirlock_nsm::name::no_clients_address;
use heirlock_nsm::rpc::ReplyError;
use heirlock_nsm::rpcbind::{self, Transport};

use super::message::Question;
use super::route::{Destination, Route, routes};
use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;
use crate::planted::{Bug, planted};

/// After so many calls without an answer the client's next route is tried, though this one has answered before.
const CALLS_A_ROUTE: u32 = 3;

/// After so many notifications without an answer its rpcbind is asked again: the port may be another one since a restart,
/// or its status monitor may be heard over the other transport alone.
const CALLS_A_PORT: u32 = 2;

/// The meaning of an answer.
pub(super) enum Answer {
    /// There is more to ask.
    GoOn,
    /// It was told under every name.
    Done,
    /// It can't be told at the moment.
    NotNow(String),
    /// It is no answer.
    Strange(String),
    /// It says what is known already.
    Old,
}

/// The question to rpcbind over TCP that goes beside the one over UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// It is not asked.
    No,
    /// It waits for a place among the connections.
    InRow,
    /// A connection is open for it, for this transaction.
    Out(u32),
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    key: MonName,
    addresses: Vec<Destination>,
    routes: Vec<Route>,
    route: usize,
    /// Where its status monitor is.
    port: Option<(Transport, u16)>,
    /// For which transport its rpcbind is asked.
    asks_for: Transport,
    /// Over this transport no status monitor is registered, as its rpcbind said since it was last asked anew.
    missing: Option<Transport>,
    /// Something came by this route.
    lives: bool,
    /// Names under which it was told.
    told: usize,
    done: bool,
    /// The last transaction, and the one before of the same question.
    xids: [Option<u32>; 2],
    pub(super) waits_until: Option<Moment>,
    /// When the call was sent whose answer may come in one burst with others.
    pub(super) in_flight: Option<Moment>,
    /// Its wait was over, and it stands in the row of those to be called again.
    pub(super) is_silent: bool,
    /// A connection to it is open, for the next question.
    pub(super) is_connected: bool,
    pub(super) beside: Beside,
    beside_calls: usize,
    /// For which transport its rpcbind is asked there.
    beside_asks_for: Transport,
    beside_reason: Option<String>,
    calls: u32,
    /// Calls in a row that were not answered in time.
    unanswered: u32,
    /// Calls that were not answered in time, ever: a slow client stays slow, and is waited for longer.
    slow: u32,
    reason: Option<String>,
    /// It answered, or had its first round of tries.
    had_first_round: bool,
}

impl Client {
    pub(super) fn new(key: MonName, addresses: &[Destination], sources: &[IpAddr]) -> Self {
        let mut client = Self {
            key,
            addresses: Vec::new(),
            routes: Vec::new(),
            route: 0,
            port: None,
            asks_for: Transport::Udp,
            missing: None,
            lives: false,
            told: 0,
            done: false,
            xids: [None, None],
            waits_until: None,
            in_flight: None,
            is_silent: false,
            is_connected: false,
            beside: Beside::No,
            beside_calls: 0,
            beside_asks_for: Transport::Tcp,
            beside_reason: None,
            calls: 0,
            unanswered: 0,
            slow: 0,
            reason: None,
            had_first_round: false,
        };
        client.add_addresses(addresses, sources);
        client
    }

    pub(super) fn key(&self) -> &MonName {
        &self.key
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether there is a way to it: an address of its own, and one of the service that reaches it.
    pub(super) fn has_route(&self) -> bool {
        !self.routes.is_empty()
    }

    pub(super) fn add_addresses(&mut self, addresses: &[Destination], sources: &[IpAddr]) {
        for address in addresses.iter().filter(|address| no_clients_address(address.ip).is_none()) {
            if self.addresses.len() < limits::CLIENT_ADDRESSES_MAX && !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
        self.find_routes(sources);
    }

    /// Routes that are known keep their numbers.
    pub(super) fn find_routes(&mut self, sources: &[IpAddr]) {
        for route in routes(&self.addresses, sources) {
            if self.routes.len() < limits::NOTIFY_ROUTES_MAX && !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
    }

    /// Whether it has had its first round of tries just now: so many calls came to nothing, as many at least as there
    /// are routes to it, each of which is tried in turn while it is silent. A caller that waits for all to be told waits for this one no longer; it is called again all the same.
    pub(super) fn ends_first_round(&mut self) -> bool {
        let routes = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        let is_through = self.done || self.slow >= limits::NOTIFY_ROUND_CALLS.max(routes);
        is_through && !std::mem::replace(&mut self.had_first_round, true)
    }

    /// A call begins. Returns the transaction that is no longer waited for, if there is one.
    pub(super) fn begin_call(&mut self, xid: u32) -> Option<u32> {
        self.calls += 1;
        let [last, before] = self.xids;
        self.xids = [Some(xid), last];
        before
    }

    /// The question is answered.
    pub(super) fn end_calls(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.unanswered = 0;
        self.lives = true;
        std::mem::take(&mut self.xids).into_iter().flatten()
    }

    /// The next question, the address that it leaves from, and the one that it goes to.
    pub(super) fn question(&self, rpcbind_port: u16) -> (Question, IpAddr, SocketAddr) {
        let route = self.routes[self.route];
        match self.port {
            Some((over, port)) => {
                (Question::Notice { over, name: self.told }, route.from, route.to.socket(port))
            }
            None => {
                // Version 2 is spared the connection: over UDP it answers for both.
                let over = if route.to.ip.is_ipv4() { Transport::Udp } else { self.asks_for };
                let question = Question::Port { wants: self.asks_for, over, route: self.route };
                (question, route.from, route.to.socket(rpcbind_port))
            }
        }
    }

    /// The address of the service that its last call left from. It was called, so there is a route to it.
    pub(super) fn source(&self) -> IpAddr {
        self.routes[self.route].from
    }

    /// Over what it is asked next.
    pub(super) fn next_transport(&self) -> Transport {
        self.question(0).0.over()
    }

    /// The question to its rpcbind over TCP beside that. The routes are taken in turn, one each time.
    pub(super) fn question_beside(&self, rpcbind_port: u16) -> (Question, IpAddr, SocketAddr) {
        let at = self.beside_calls % self.routes.len();
        let route = self.routes[at];
        // The later versions answer for TCP in any case.
        let wants = if route.to.ip.is_ipv4() { self.beside_asks_for } else { Transport::Tcp };
        let question = Question::Port { wants, over: Transport::Tcp, route: at };
        (question, route.from, route.to.socket(rpcbind_port))
    }

    /// Whether its rpcbind, asked over UDP, may be heard over TCP alone.
    pub(super) fn may_be_asked_beside(&self) -> bool {
        let asked = !self.done && self.has_route() && self.port.is_none();
        asked && self.beside == Beside::No && self.next_transport() == Transport::Udp
    }

    /// How long the connection for it may take: short at first, so that the dead cost the living little.
    pub(super) fn begin_beside(&mut self, xid: u32) -> Duration {
        let doubled = limits::NOTIFY_CONNECTION_MS_MIN << self.beside_calls.min(8);
        self.beside = Beside::Out(xid);
        Duration::from_millis(doubled).min(limits::NOTIFY_CONNECTION_TIME_MAX)
    }

    /// Nothing came of it.
    pub(super) fn failed_beside(&mut self, why: String) {
        self.beside = Beside::No;
        self.beside_calls += 1;
        self.beside_reason = Some(why);
    }

    /// How long to wait for an answer. The caller that opens connections gives each up before that.
    pub(super) fn wait(&self, transport: Transport) -> Duration {
        if planted(Bug::Flood) {
            return Duration::from_millis(1);
        }
        let doubled = limits::NOTIFY_RETRY_MS_MIN << self.slow.min(8);
        let wait = Duration::from_millis(doubled.min(limits::NOTIFY_RETRY_MS_MAX));
        match transport {
            Transport::Udp => wait,
            Transport::Tcp => wait.max(limits::NOTIFY_CONNECTION_TIME_MAX + limits::NOTIFY_BURST),
        }
    }

    /// Its wait was over without an answer. Late ones are welcome all the same.
    pub(super) fn unanswered(&mut self) {
        self.unanswered += 1;
        self.slow += 1;
        let elsewhere = !self.lives || self.unanswered.is_multiple_of(CALLS_A_ROUTE);
        if self.routes.len() > 1 && elsewhere {
            self.route = (self.route + 1) % self.routes.len();
            self.lives = false;
            self.ask_again(Transport::Udp);
        } else if let Some((silent, _)) = self.port
            && self.unanswered.is_multiple_of(CALLS_A_PORT)
        {
            self.ask_again(other(silent));
            self.beside_asks_for = other(silent);
        }
    }

    fn ask_again(&mut self, asks_for: Transport) {
        (self.port, self.asks_for, self.missing) = (None, asks_for, None);
        self.beside_asks_for = Transport::Tcp;
    }

    pub(super) fn answer(
        &mut self,
        question: Question,
        is_beside: bool,
        from: SocketAddr,
        outcome: Result<&[u8], ReplyError>,
        names: usize,
    ) -> Answer {
        let result = match outcome {
            Ok(result) => result,
            Err(error) => return Answer::NotNow(format!("it refused the call: {error}")),
        };
        match question {
            // SM_NOTIFY has no result; bytes that come with the answer mean nothing.
            Question::Notice { name, .. } if name == self.told => {
                self.told += 1;
                self.done = self.told >= names;
                if self.done { Answer::Done } else { Answer::GoOn }
            }
            Question::Port { wants, route, .. } if self.port.is_none() => match port_in(from, result) {
                Ok(Some(port)) => {
                    self.route = route;
                    self.port = Some((wants, port));
                    Answer::GoOn
                }
                Ok(None) => self.not_registered(wants, from, is_beside),
                Err(error) => Answer::Strange(format!("its rpcbind did not answer with a port: {error}")),
            },
            _ => Answer::Old,
        }
    }

    /// Its rpcbind answers, and knows no status monitor over this transport: there may be one over the other.
    fn not_registered(&mut self, wanted: Transport, from: SocketAddr, is_beside: bool) -> Answer {
        // An old answer, to a question that was asked for both since.
        if !is_beside && wanted != self.asks_for {
            return Answer::Old;
        }
        // Asked over TCP, the later versions speak of TCP alone.
        let is_all = is_beside && from.is_ipv6();
        if self.missing == Some(other(wanted)) || is_all {
            self.ask_again(Transport::Udp);
            return Answer::NotNow("its rpcbind answers, but no status monitor is registered there".into());
        }
        self.missing = Some(wanted);
        match is_beside {
            true => self.beside_asks_for = other(wanted),
            false => self.asks_for = other(wanted),
        }
        Answer::GoOn
    }

    pub(super) fn remember(&mut self, why: String) {
        self.reason = Some(why);
    }

    /// The outcome and the reason for it, if it has not acknowledged. `unready` says which addresses of the service were
    /// not ready.
    pub(super) fn left_over(&self, unready: &str) -> Option<(MonName, Outcome, String)> {
        if self.done {
            return None;
        }
        let (outcome, why) = match &self.reason {
            _ if self.addresses.is_empty() => (Outcome::Unreachable, self.no_address()),
            _ if self.routes.is_empty() => (Outcome::Lost, self.no_route(unready)),
            _ if self.calls == 0 => (Outcome::Lost, "the time was up before it was called".to_owned()),
            Some(reason) => (Outcome::Unreachable, reason.clone()),
            None if self.port.is_some() || self.told > 0 => {
                (Outcome::Unreachable, "its status monitor does not answer".to_owned())
            }
            None => {
                let over_tcp = self.beside_reason.iter().map(|why| format!("; over TCP: {why}"));
                let why =
                    format!("it does not answer ({} calls){}", self.calls, over_tcp.collect::<String>());
                (Outcome::Unreachable, why)
            }
        };
        Some((self.key.clone(), outcome, why))
    }

    fn no_address(&self) -> String {
        match (self.key.address().and_then(no_clients_address), self.key.scoped()) {
            (Some(why), _) => format!("no client can be told there: {why}"),
            (None, Some((_, zone))) => {
                format!("this server has no interface {zone}, on whose link it would be")
            }
            (None, None) => "no numeric address of it is known: its name could not be resolved".to_owned(),
        }
    }

    fn no_route(&self, unready: &str) -> String {
        let (v4, v6) =
            (self.addresses.iter().any(|a| a.ip.is_ipv4()), self.addresses.iter().any(|a| a.ip.is_ipv6()));
        let family = match (v4, v6) {
            (true, false) => "IPv4 ",
            (false, true) => "IPv6 ",
            _ => "",
        };
        let why = if unready.is_empty() { String::new() } else { format!(": {unready}") };
        format!("no {family}address of the service was ready to tell it from{why}")
    }
}

fn other(transport: Transport) -> Transport {
    match transport {
        Transport::Udp => Transport::Tcp,
        Transport::Tcp => Transport::Udp,
    }
}

/// The port in rpcbind's answer; `None` where nothing is registered.
fn port_in(from: SocketAddr, result: &[u8]) -> Result<Option<u16>, heirlock_nsm::xdr::DecodeError> {
    let port = match from {
        SocketAddr::V4(_) => rpcbind::decode_getport_result(result)?,
        SocketAddr::V6(_) => rpcbind::decode_getaddr_result(result)?.map(|address| address.port()),
    };
    Ok(port.filter(|port| *port != 0))
}
