//! One client of the notifier: what it is to be asked next, and what its answers mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::MonName;
use heirlock_nsm::rpc::ReplyError;
use heirlock_nsm::rpcbind::{self, Transport};

use super::message::Question;
use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;

/// After so many calls without an answer the client's next address is tried, though this one has answered before.
const CALLS_AN_ADDRESS: u32 = 3;

/// After so many notifications without an answer its rpcbind is asked again: the port may be another one since a restart.
const CALLS_A_PORT: u32 = 2;

/// What an answer means.
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

/// One client.
#[derive(Debug)]
pub(super) struct Peer {
    key: MonName,
    addresses: Vec<IpAddr>,
    address: usize,
    /// Where its status monitor is.
    port: Option<(Transport, u16)>,
    /// For which transport its rpcbind is asked.
    asks_for: Transport,
    /// Something came from this address.
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
    /// A connection to it is open.
    pub(super) is_connected: bool,
    calls: u32,
    /// Calls in a row that were not answered in time.
    unanswered: u32,
    /// Calls that were not answered in time, ever: a slow client stays slow, and is waited for longer.
    slow: u32,
    reason: Option<String>,
}

impl Peer {
    pub(super) fn new(key: MonName, addresses: &[IpAddr]) -> Self {
        let mut peer = Self {
            key,
            addresses: Vec::new(),
            address: 0,
            port: None,
            asks_for: Transport::Udp,
            lives: false,
            told: 0,
            done: false,
            xids: [None, None],
            waits_until: None,
            in_flight: None,
            is_silent: false,
            is_connected: false,
            calls: 0,
            unanswered: 0,
            slow: 0,
            reason: None,
        };
        peer.add_addresses(addresses);
        peer
    }

    pub(super) fn key(&self) -> &MonName {
        &self.key
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn has_address(&self) -> bool {
        !self.addresses.is_empty()
    }

    pub(super) fn add_addresses(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if self.addresses.len() < limits::CLIENT_ADDRESSES_MAX && !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
    }

    /// A call begins; the transaction that nobody waits for any more comes back.
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

    /// What it is asked next, and where.
    pub(super) fn question(&self, rpcbind_port: u16) -> (Question, SocketAddr) {
        let address = self.addresses[self.address];
        match self.port {
            Some((transport, port)) => {
                (Question::Notice(transport, self.told), SocketAddr::new(address, port))
            }
            None => (Question::Port(self.asks_for, self.address), SocketAddr::new(address, rpcbind_port)),
        }
    }

    /// Over what it is asked next.
    pub(super) fn next_transport(&self) -> Transport {
        let (question, to) = self.question(0);
        question.over(to)
    }

    /// How long to wait for an answer. Whoever opens connections gives each up before that.
    pub(super) fn wait(&self, transport: Transport) -> Duration {
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
        let elsewhere = !self.lives || self.unanswered.is_multiple_of(CALLS_AN_ADDRESS);
        if self.addresses.len() > 1 && elsewhere {
            self.address = (self.address + 1) % self.addresses.len();
            self.lives = false;
            self.ask_again();
        } else if self.port.is_some() && self.unanswered.is_multiple_of(CALLS_A_PORT) {
            self.ask_again();
        }
    }

    fn ask_again(&mut self) {
        (self.port, self.asks_for) = (None, Transport::Udp);
    }

    pub(super) fn answer(
        &mut self,
        question: Question,
        from: SocketAddr,
        outcome: Result<&[u8], ReplyError>,
        names: usize,
    ) -> Answer {
        let result = match outcome {
            Ok(result) => result,
            Err(error) => return Answer::NotNow(format!("it refused the call: {error}")),
        };
        match question {
            // SM_NOTIFY has no result; what comes with it says nothing.
            Question::Notice(_, name) if name == self.told => {
                self.told += 1;
                self.done = self.told >= names;
                if self.done { Answer::Done } else { Answer::GoOn }
            }
            Question::Port(transport, address) if self.port.is_none() => {
                self.port_is_known(transport, address, from, result)
            }
            _ => Answer::Old,
        }
    }

    fn port_is_known(
        &mut self,
        transport: Transport,
        address: usize,
        from: SocketAddr,
        result: &[u8],
    ) -> Answer {
        let port = match from {
            SocketAddr::V4(_) => rpcbind::decode_getport_result(result),
            SocketAddr::V6(_) => {
                rpcbind::decode_getaddr_result(result).map(|address| address.map(|a| a.port()))
            }
        };
        match port {
            Ok(Some(port)) if port != 0 => {
                self.address = address;
                self.port = Some((transport, port));
                Answer::GoOn
            }
            Ok(_) if transport == Transport::Udp && self.asks_for == Transport::Udp => {
                self.asks_for = Transport::Tcp;
                Answer::GoOn
            }
            Ok(_) => {
                self.asks_for = Transport::Udp;
                Answer::NotNow("its rpcbind answers, but no status monitor is registered there".into())
            }
            Err(error) => Answer::Strange(format!("its rpcbind answered what is no port: {error}")),
        }
    }

    pub(super) fn remember(&mut self, why: String) {
        self.reason = Some(why);
    }

    /// What to say of it if it has not acknowledged.
    pub(super) fn left_over(&self) -> Option<(MonName, Outcome, String)> {
        if self.done {
            return None;
        }
        let (outcome, why) = match &self.reason {
            _ if self.addresses.is_empty() => (
                Outcome::Unreachable,
                "no numeric address of it is known: its name could not be resolved".to_owned(),
            ),
            _ if self.calls == 0 => {
                (Outcome::Lost, "it was not called before grace was too short".to_owned())
            }
            Some(reason) => (Outcome::Unreachable, reason.clone()),
            None if self.port.is_some() || self.told > 0 => {
                (Outcome::Unreachable, "its status monitor does not answer".to_owned())
            }
            None => (Outcome::Unreachable, format!("it does not answer ({} calls)", self.calls)),
        };
        Some((self.key.clone(), outcome, why))
    }
}
