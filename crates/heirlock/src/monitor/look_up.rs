//! Asks for the addresses of a name that a restarted server announced, where neither the name nor its source says who
//! it is: a server with several addresses. Nothing waits for it, and the network can't make it ask much.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use heirlock_core::monitor::Event;
use heirlock_nsm::{MonName, StateNumber};

use super::desk::Desk;

/// Names that are asked for at the same time; further ones are let go, and come again with the next repetition.
const AT_ONCE: usize = 4;

/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

#[derive(Clone)]
pub(super) struct LookUp {
    desk: Desk,
    asking: Arc<AtomicUsize>,
}

impl LookUp {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, asking: Arc::default() }
    }

    pub(super) fn ask(&self, name: String, state: StateNumber) {
        if MonName::parse(&name).is_err() {
            return;
        }
        if self.asking.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            self.asking.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let look_up = self.clone();
        thread::spawn(move || {
            let found = (name.as_str(), 0).to_socket_addrs().into_iter().flatten().take(ADDRESSES_MAX);
            for address in found {
                let source = address.ip().to_canonical();
                look_up.desk.tell(Event::Notified { name: name.clone(), source, state, looked_up: true });
            }
            look_up.asking.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
