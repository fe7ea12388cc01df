//! Looks at the lock manager again and again, in a thread of its own: a look may take its time.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;
use std::thread;

use heirlock_agent::Look;
use heirlock_agent::Message;
use heirlock_nsm::nlm;
use heirlock_nsm::rpcbind::Transport;

use super::work::Workshop;
use crate::threads::{self, Lasting};
use crate::{limits, rpc_client};

/// Looks between two questions for NLM's port, where nothing else tells that it has changed.
const LOOKS_A_PORT: u32 = 20;

/// Looks until nobody wants to know any more.
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(workshop: &Workshop) -> io::Result<Lasting> {
    let shop = workshop.clone();
    threads::start("watch", move || {
        let mut known = None;
        for count in 0_u32.. {
            let start = {
                let mut lock_manager = shop.lock_manager.lock().unwrap_or_else(PoisonError::into_inner);
                let at = shop.clock.now();
                let seen = lock_manager.observe().map_err(|error| error.to_string());
                let start = seen.as_ref().ok().and_then(|observation| observation.start.clone());
                let look = seen.map(|observation| Look { at, observation });
                // Sent before the lock manager is let go of: no look may come after what was done since.
                if shop.inbox.send(Message::Observed(Box::new(look))).is_err() {
                    return Ok(());
                }
                start
            };
            if start != known || count.is_multiple_of(LOOKS_A_PORT) {
                known = start;
                let _ = shop.inbox.send(Message::NlmPorts(nlm_ports(shop.settings.notify.rpcbind_port)));
            }
            thread::sleep(limits::OBSERVE_INTERVAL);
        }
        Err(io::Error::other("it has counted as many looks as it can"))
    })
}

fn nlm_ports(rpcbind_port: u16) -> Vec<u16> {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let program = (nlm::PROGRAM, nlm::VERSION_4);
    let found = rpc_client::find_over(here, rpcbind_port, program, Transport::Tcp, limits::PROBE_TIME_MAX);
    found.ok().flatten().into_iter().collect()
}
