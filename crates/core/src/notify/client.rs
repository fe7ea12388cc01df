//! One client of the notifier: what it is to be asked next, and what its answers mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heirlock_nsm::rpc::ReplyError;
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::{MonName, sm};

use super::{Plan, Transmit};
use crate::limits;
use crate::moment::Moment;
use crate::outcome::Outcome;

/// After so many calls without an answer the client's next address is tried.
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
}

/// One client.
#[derive(Debug)]
pub(super) struct Peer {
    key: MonName,
    addresses: Vec<IpAddr>,
    address: usize,
    port: Option<u16>,
    /// Names under which it was told.
    told: usize,
    done: bool,
    /// Where the call that is out went.
    called: Option<SocketAddr>,
    /// The last transaction, and the one before of the same question.
    xids: [Option<u32>; 2],
    pub(super) waits_until: Option<Moment>,
    pub(super) sent_at: Moment,
    /// Its wait was over, and it stands in the row of those to be called again.
    pub(super) is_silent: bool,
    calls: u32,
    /// Calls in a row that were not answered in time.
    unanswered: u32,
    /// Calls that were not answered in time, ever: a slow client stays slow, and is waited for longer.
    slow: u32,
    reason: Option<String>,
}

impl Peer {
    pub(super) fn new(key: &MonName, addresses: &[IpAddr]) -> Self {
        let addresses = addresses.iter().copied().take(limits::CLIENT_ADDRESSES_MAX).collect();
        Self {
            key: key.clone(),
            addresses,
            address: 0,
            port: None,
            told: 0,
            done: false,
            called: None,
            xids: [None, None],
            waits_until: None,
            sent_at: Moment::START,
            is_silent: false,
            calls: 0,
            unanswered: 0,
            slow: 0,
            reason: None,
        }
    }

    pub(super) fn key(&self) -> &MonName {
        &self.key
    }

    pub(super) fn has_address(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Where an answer must come from.
    pub(super) fn called(&self) -> Option<SocketAddr> {
        self.called
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
        std::mem::take(&mut self.xids).into_iter().flatten()
    }

    pub(super) fn message(&mut self, xid: u32, plan: &Plan) -> Transmit {
        let address = self.addresses[self.address];
        let (port, payload) = match (self.port, plan.names.get(self.told)) {
            (Some(port), Some(name)) => (port, sm::encode_notify_call(xid, name.as_str(), plan.state)),
            _ if address.is_ipv4() => {
                let question = rpcbind::encode_getport_call(xid, sm::PROGRAM, sm::VERSION, Transport::Udp);
                (plan.rpcbind_port, question)
            }
            _ => (plan.rpcbind_port, rpcbind::encode_getaddr_call(xid, sm::PROGRAM, sm::VERSION, "udp6")),
        };
        let to = SocketAddr::new(address, port);
        self.called = Some(to);
        Transmit { to, payload }
    }

    /// How long to wait for an answer.
    pub(super) fn wait(&self) -> Duration {
        let doubled = limits::NOTIFY_RETRY_MS_MIN << self.slow.min(8);
        Duration::from_millis(doubled.min(limits::NOTIFY_RETRY_MS_MAX))
    }

    /// Its wait was over without an answer. Where another question follows, the transactions whose answers mean nothing
    /// any more come back.
    pub(super) fn unanswered(&mut self) -> impl Iterator<Item = u32> + use<> {
        self.unanswered += 1;
        self.slow += 1;
        let ask_again = self.port.is_some() && self.unanswered.is_multiple_of(CALLS_A_PORT);
        let elsewhere = self.addresses.len() > 1 && self.unanswered.is_multiple_of(CALLS_AN_ADDRESS);
        if elsewhere {
            self.address = (self.address + 1) % self.addresses.len();
        }
        let mut forgotten = [None, None];
        if ask_again || elsewhere {
            (self.port, self.called) = (None, None);
            forgotten = std::mem::take(&mut self.xids);
        }
        forgotten.into_iter().flatten()
    }

    pub(super) fn answer(&mut self, outcome: Result<&[u8], ReplyError>, names: usize) -> Answer {
        let result = match outcome {
            Ok(result) => result,
            Err(error) => return Answer::NotNow(format!("it refused the call: {error}")),
        };
        if self.port.is_some() {
            // SM_NOTIFY has no result; what comes with it says nothing.
            self.told += 1;
            self.done = self.told >= names;
            return if self.done { Answer::Done } else { Answer::GoOn };
        }
        let port = match self.called {
            Some(SocketAddr::V4(_)) => rpcbind::decode_getport_result(result),
            _ => rpcbind::decode_getaddr_result(result).map(|address| address.map(|a| a.port())),
        };
        match port {
            Ok(Some(port)) if port != 0 => {
                self.port = Some(port);
                Answer::GoOn
            }
            Ok(_) => Answer::NotNow("its rpcbind answers, but no status monitor is registered there".into()),
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
