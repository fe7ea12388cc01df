//! Looks names of clients up beside the sending, in threads that nothing waits for: a name service that hangs delays only
//! the clients that are known by nothing else.

use std::collections::VecDeque;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use heirlock_core::limits::CLIENT_ADDRESSES_MAX;
use heirlock_core::notify::Destination;
use heirlock_nsm::MonName;
use heirlock_nsm::name::no_clients_address;

use crate::limits;
use crate::threads;

/// How often a thread looks whether its result is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// Threads of all notifiers of this program.
static LOOKING_UP: AtomicUsize = AtomicUsize::new(0);

type Row = Mutex<VecDeque<(Instant, MonName)>>;

/// Names that are being looked up: a few at a time, and those that were not found again after a while.
#[derive(Debug)]
pub(crate) struct LookUp {
    found: Receiver<(MonName, Vec<Destination>)>,
    /// The threads end when it is gone.
    _row: Arc<Row>,
}

impl LookUp {
    /// Begins.
    pub(crate) fn begin(names: Vec<MonName>) -> Self {
        let (sender, found) = channel();
        let threads = threads_for(names.len(), LOOKING_UP.load(Ordering::SeqCst));
        let due = Instant::now();
        let row: Arc<Row> = Arc::new(Mutex::new(names.into_iter().map(|name| (due, name)).collect()));
        for _ in 0..threads {
            let (row, sender) = (Arc::downgrade(&row), sender.clone());
            let place = Place::take();
            let begun = threads::start("look-up", move || {
                let _place = place;
                while let Some((due, name)) = next(&row) {
                    if due > Instant::now() {
                        thread::sleep(LOOK.min(due.saturating_duration_since(Instant::now())));
                        put_back(&row, due, name);
                        continue;
                    }
                    let addresses = addresses_of(&name);
                    if addresses.is_empty() {
                        put_back(&row, Instant::now() + limits::NOTIFY_LOOKUP_RETRY, name);
                    } else if sender.send((name, addresses)).is_err() {
                        return;
                    }
                }
            });
            if let Err(error) = begun {
                tracing::error!(%error, "names of clients are looked up by fewer threads, or by none: {error}");
                break;
            }
        }
        Self { found, _row: row }
    }

    /// The addresses that were found since the last time.
    pub(crate) fn found(&self) -> Vec<(MonName, Vec<Destination>)> {
        self.found.try_iter().collect()
    }
}

/// How many threads look so many names up, while so many do already.
fn threads_for(names: usize, looking_up: usize) -> usize {
    let wanted = names.min(limits::NOTIFY_LOOKUPS_AT_ONCE_MAX);
    let threads = wanted.min(limits::NOTIFY_LOOKUPS_MAX.saturating_sub(looking_up).max(1));
    if threads < wanted {
        tracing::warn!(
            looking_up,
            "names of clients are looked up one at a time, for the name service has not answered for {looking_up} names yet"
        );
    }
    threads
}

/// The place of one thread. A name service that hangs may hold it for longer than its notifier is there.
struct Place;

impl Place {
    fn take() -> Self {
        LOOKING_UP.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKING_UP.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The row is not held while a name service is waited for.
fn next(row: &Weak<Row>) -> Option<(Instant, MonName)> {
    row.upgrade()?.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn put_back(row: &Weak<Row>, due: Instant, name: MonName) {
    if let Some(row) = row.upgrade() {
        row.lock().unwrap_or_else(PoisonError::into_inner).push_back((due, name));
    }
}

fn addresses_of(name: &MonName) -> Vec<Destination> {
    let Ok(found) = (name.as_str(), 0).to_socket_addrs() else { return Vec::new() };
    let mut addresses: Vec<Destination> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if no_clients_address(address).is_none() && !addresses.contains(&address.into()) {
            addresses.push(address.into());
        }
    }
    addresses.truncate(CLIENT_ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_service_that_hangs_is_given_no_more_threads_with_each_run_than_one() {
        assert_eq!(threads_for(3, 0), 3);
        assert_eq!(threads_for(1_000, 0), limits::NOTIFY_LOOKUPS_AT_ONCE_MAX);
        assert_eq!(threads_for(1_000, limits::NOTIFY_LOOKUPS_MAX - 5), 5);
        for hanging in [limits::NOTIFY_LOOKUPS_MAX, limits::NOTIFY_LOOKUPS_MAX + 7] {
            assert_eq!(threads_for(1_000, hanging), 1, "one that answers again is noticed");
        }
        assert_eq!(threads_for(0, limits::NOTIFY_LOOKUPS_MAX), 0);
    }

    #[test]
    fn the_place_of_a_thread_is_free_when_it_has_ended() {
        let name = MonName::parse("localhost").unwrap();
        let look_up = LookUp::begin(vec![name.clone()]);
        let end = Instant::now() + Duration::from_secs(120);
        while look_up.found().is_empty() {
            assert!(Instant::now() < end, "localhost was not found");
            thread::sleep(Duration::from_millis(10));
        }
        drop(look_up);
        while LOOKING_UP.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < end, "a thread has kept its place");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
