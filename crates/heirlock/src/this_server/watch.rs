//! Looks at the lock manager again and again, in a thread of its own: a look may take its time.

use std::io;
use std::thread;

use heirlock_agent::Look;
use heirlock_agent::News;

use super::work::Workshop;
use crate::limits;
use crate::threads::{self, Lasting};

/// Looks between two questions for NLM's port, where nothing else tells that it has changed.
const LOOKS_A_PORT: u32 = 20;

/// Looks until no caller wants to know any more.
///
/// # Errors
/// Where no thread can be had.
pub(super) fn start(workshop: &Workshop) -> io::Result<Lasting> {
    let shop = workshop.clone();
    threads::start("watch", move || {
        let mut known = None;
        for count in 0_u32.. {
            let start = {
                let turn = shop.turn();
                let at = shop.clock.now();
                let seen = shop.lock_manager.observe().map_err(|error| error.to_string());
                let start = seen.as_ref().ok().and_then(|observation| observation.start.clone());
                let look = seen.map(|observation| Look { at, observation });
                // Sent within the turn: no look may come after the work that was done since.
                if shop.inbox.send(News::Observed(Box::new(look))).is_err() {
                    return Ok(());
                }
                drop(turn);
                start
            };
            if start != known || count.is_multiple_of(LOOKS_A_PORT) {
                known = start;
                let _ = shop.inbox.send(News::NlmPorts(shop.lock_manager.ports()));
            }
            thread::sleep(limits::OBSERVE_INTERVAL);
        }
        Err(io::Error::other("it has counted as many looks as it can"))
    })
}
