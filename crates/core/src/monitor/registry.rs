//! The clients that are registered, and which of them a notification is about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use heirlock_nsm::{MonName, MonitorLine, StateNumber};

use super::key;
use crate::{Moment, limits};

/// A client that is registered.
#[derive(Debug, Clone, Default)]
struct Client {
    lines: Vec<MonitorLine>,
    /// The number that the lock manager was last told. A new one has 0, as with rpc.statd.
    seen: u32,
    /// When it was.
    told_at: Option<Moment>,
}

/// The registrations, by client. A look-up costs the same with one client and with ten thousand.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    clients: BTreeMap<MonName, Client>,
    /// Clients that were registered by a name that is no address, by that name in lower case.
    names: BTreeMap<String, BTreeSet<MonName>>,
    lines: usize,
}

impl Registry {
    pub(super) fn new(kept: Vec<MonitorLine>) -> Self {
        let mut registry = Self::default();
        for line in kept {
            let client = key(&line.mon_name);
            if registry.has_room(&client) {
                registry.insert(&client, line);
            }
        }
        registry
    }

    /// Whether one more registration of this client finds room.
    pub(super) fn has_room(&self, client: &MonName) -> bool {
        match self.clients.get(client) {
            Some(known) => known.lines.len() < limits::MON_LINES_MAX,
            None => self.clients.len() < limits::RECORDS_MAX,
        }
    }

    /// Takes a registration in; `false` where it is there already. The same one with another cookie replaces it.
    pub(super) fn insert(&mut self, client: &MonName, line: MonitorLine) -> bool {
        let known = self.clients.entry(client.clone()).or_default();
        if line.mon_name.address().is_none() {
            let name = line.mon_name.as_str().to_ascii_lowercase();
            self.names.entry(name).or_default().insert(client.clone());
        }
        match known.lines.iter_mut().find(|other| is_same(other, &line)) {
            Some(other) if *other == line => false,
            Some(other) => {
                *other = line;
                true
            }
            None => {
                // Nearly every client has one, and a vector that grows makes room for four.
                if known.lines.is_empty() {
                    known.lines.reserve_exact(1);
                }
                known.lines.push(line);
                self.lines += 1;
                true
            }
        }
    }

    /// Whether this registration is there, whatever its cookie.
    pub(super) fn has(&self, client: &MonName, line: &MonitorLine) -> bool {
        self.lines(client).iter().any(|other| is_same(other, line))
    }

    /// Takes registrations away.
    pub(super) fn remove(
        &mut self,
        client: &MonName,
        which: impl Fn(&MonitorLine) -> bool,
    ) -> Vec<MonitorLine> {
        let Some(known) = self.clients.get_mut(client) else { return Vec::new() };
        let gone: Vec<MonitorLine> = known.lines.extract_if(.., |line| which(line)).collect();
        self.lines -= gone.len();
        if known.lines.is_empty() {
            self.clients.remove(client);
            for line in &gone {
                let name = line.mon_name.as_str().to_ascii_lowercase();
                if let Some(clients) = self.names.get_mut(&name) {
                    clients.remove(client);
                    if clients.is_empty() {
                        self.names.remove(&name);
                    }
                }
            }
        }
        gone
    }

    /// The clients that a notification is about: those whose name or address it announces, or whose address it comes from.
    pub(super) fn meant(&self, name: &str, sources: &[IpAddr]) -> BTreeSet<MonName> {
        let mut meant: BTreeSet<MonName> =
            self.names.get(&name.to_ascii_lowercase()).cloned().unwrap_or_default();
        meant.extend(name.parse().ok().map(MonName::from_address));
        meant.extend(sources.iter().copied().map(MonName::from_address));
        meant.retain(|client| self.clients.contains_key(client));
        meant
    }

    /// Whether the lock manager knows this number of the client's, as far as it was told.
    pub(super) fn has_seen(&self, client: &MonName, state: StateNumber) -> bool {
        self.clients.get(client).is_some_and(|known| known.seen == state.0)
    }

    /// When the lock manager was last told that the client was restarted.
    pub(super) fn told_at(&self, client: &MonName) -> Option<Moment> {
        self.clients.get(client).and_then(|known| known.told_at)
    }

    /// The lock manager took a call: only from now on does the same number mean nothing new.
    pub(super) fn told(&mut self, now: Moment, client: &MonName, state: StateNumber) {
        if let Some(known) = self.clients.get_mut(client) {
            (known.seen, known.told_at) = (state.0, Some(now));
        }
    }

    pub(super) fn holds(&self, client: &MonName) -> bool {
        self.clients.contains_key(client)
    }

    pub(super) fn lines(&self, client: &MonName) -> &[MonitorLine] {
        self.clients.get(client).map_or(&[], |known| &known.lines)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &MonitorLine> {
        self.clients.values().flat_map(|known| &known.lines)
    }

    pub(super) fn clients(&self) -> Vec<MonName> {
        self.clients.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lines
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

/// The same registration, whatever its cookie.
fn is_same(a: &MonitorLine, b: &MonitorLine) -> bool {
    (&a.mon_name, &a.my_name, a.prog, a.vers, a.proc_) == (&b.mon_name, &b.my_name, b.prog, b.vers, b.proc_)
}
