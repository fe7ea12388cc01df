//! Asks for the addresses of a name that a restarted server announced, where neither the name nor its source is
//! registered: a server with several addresses. The machine decides how many names are looked up at a time, and how often.

use std::net::ToSocketAddrs;

use heirlock_core::limits;
use heirlock_core::monitor::{Event, Ticket};
use heirlock_nsm::StateNumber;

use super::shared::SharedMonitor;
use crate::threads;

/// Asks in a thread of its own, and tells the machine.
pub(super) fn ask(monitor: &SharedMonitor, ticket: Ticket, name: String, state: StateNumber) {
    let teller = monitor.clone();
    let began = threads::start("look-up", move || {
        let found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten();
        let addresses =
            found.take(limits::LOOK_UP_ADDRESSES_MAX).map(|found| found.ip().to_canonical()).collect();
        teller.tell(Event::LookedUp { ticket, addresses: Some(addresses), state });
    });
    if began.is_err() {
        monitor.tell(Event::LookedUp { ticket, addresses: None, state });
    }
}
