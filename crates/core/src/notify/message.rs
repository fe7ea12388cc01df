//! The few messages of the notifier. All clients get the same ones but for the transaction, so each is encoded once.

use std::net::SocketAddr;

use heirlock_nsm::rpc::{Credential, encode_call};
use heirlock_nsm::rpcbind::{self, Transport};
use heirlock_nsm::sm;

use super::{Plan, Words};

/// A question to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Where its status monitor is.
    Port {
        /// Reached over what.
        wants: Transport,
        /// Asked over what. rpcbind's later versions answer for the transport that they are asked over, version 2 for the
        /// one that it is asked for.
        over: Transport,
        /// The number of the route by which it is asked.
        route: usize,
    },
    /// To take notice, under the name of that number; in a drill to answer, and no more.
    Notice {
        /// Told over what.
        over: Transport,
        /// The number of the name.
        name: usize,
    },
}

impl Question {
    /// Over what it is asked.
    pub(super) fn over(self) -> Transport {
        match self {
            Question::Port { over, .. } | Question::Notice { over, .. } => over,
        }
    }
}

/// The procedure of every program that does nothing (RFC 5531, 12).
const NULL: u32 = 0;

/// Messages with a transaction of zero.
#[derive(Debug)]
pub(super) struct Messages {
    rpcbind_port: u16,
    getport: [Vec<u8>; 2],
    getaddr: [Vec<u8>; 2],
    notices: Vec<Vec<u8>>,
}

impl Messages {
    pub(super) fn new(plan: &Plan) -> Self {
        let getport = |transport| rpcbind::encode_getport_call(0, sm::PROGRAM, sm::VERSION, transport);
        let getaddr = |netid| rpcbind::encode_getaddr_call(0, sm::PROGRAM, sm::VERSION, netid);
        Self {
            rpcbind_port: plan.rpcbind_port,
            getport: [getport(Transport::Udp), getport(Transport::Tcp)],
            getaddr: [getaddr("udp6"), getaddr("tcp6")],
            notices: match &plan.words {
                Words::Restart { names, state } => {
                    names.iter().map(|name| sm::encode_notify_call(0, name.as_str(), *state)).collect()
                }
                Words::Nothing => {
                    vec![encode_call(0, sm::PROGRAM, sm::VERSION, NULL, &Credential::None, &[])]
                }
            },
        }
    }

    pub(super) fn rpcbind_port(&self) -> u16 {
        self.rpcbind_port
    }

    pub(super) fn names(&self) -> usize {
        self.notices.len()
    }

    pub(super) fn render(&self, question: Question, to: SocketAddr, xid: u32) -> Vec<u8> {
        let which = |transport| usize::from(transport == Transport::Tcp);
        let message = match question {
            Question::Port { wants, .. } if to.is_ipv4() => &self.getport[which(wants)],
            Question::Port { wants, .. } => &self.getaddr[which(wants)],
            Question::Notice { name, .. } => &self.notices[name],
        };
        let mut message = message.clone();
        message[..4].copy_from_slice(&xid.to_be_bytes());
        message
    }
}
