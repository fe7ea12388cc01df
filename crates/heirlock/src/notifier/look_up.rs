//! Looks names of clients up beside the sending, in threads that nothing waits for: a name service that hangs delays only
//! the clients that are known by nothing else.

use std::collections::VecDeque;
use std::net::ToSocketAddrs;
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
        let threads = names.len().min(limits::NOTIFY_LOOKUPS_AT_ONCE_MAX);
        let due = Instant::now();
        let row: Arc<Row> = Arc::new(Mutex::new(names.into_iter().map(|name| (due, name)).collect()));
        for _ in 0..threads {
            let (row, sender) = (Arc::downgrade(&row), sender.clone());
            let begun = threads::start("look-up", move || {
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
