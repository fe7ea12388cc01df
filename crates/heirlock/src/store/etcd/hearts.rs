//! Heartbeats: keys that change, and no leases. A silence is judged by the watcher's own clock, and the end of a lease would be
//! etcd's opinion of time.

use std::sync::Arc;

use heirlock_core::ServerName;
use heirlock_core::store::{Beaten, ServerHearts, ServerReport, StoreError, StoreErrorKind};

use super::EtcdStore;
use super::client::Purpose;
use super::commit::TRIES;
use super::store::shortened;
use super::wire::{Compare, Entry, Op, Range, Read, Span, Txn};

/// Heartbeats that one question reads beside writing this server's. Where there are more, they are read in portions before.
const READ_AT_ONCE: u64 = 64;

impl EtcdStore {
    /// Reads the heartbeats of all servers and writes this server's, in one step.
    pub(super) fn beat_once(&self, report: &ServerReport) -> Result<Beaten, StoreError> {
        let range = Range { limit: READ_AT_ONCE, ..Range::of(self.keys.servers()) };
        let before = match self.write_report(report, Some(&range)) {
            // The heartbeats of many servers with very many exports: they are read in portions.
            Err(error) if *error.kind() == StoreErrorKind::Unexpected => self.write_report(report, None)?,
            written => written?,
        };
        let hearts = match before {
            Some(read) if !read.is_cut => self.hearts_in(&read.entries),
            // Its own is in these already: no watcher asks for its own.
            _ => self.all_hearts()?,
        };
        Ok(Beaten { hearts, taken: report.beat })
    }

    /// Writes a heartbeat, under the condition that the one before is the one that is known. A heartbeat that comes late, after
    /// a newer one, changes nothing: it would say again that a server beats which has said that it stops.
    pub(super) fn write_report(
        &self,
        report: &ServerReport,
        beside: Option<&Range>,
    ) -> Result<Option<Read>, StoreError> {
        self.read_before().forget();
        let (key, written) = (self.keys.server(&report.server), self.json("a heartbeat", report)?);
        let mut known = self.beaten(&report.server);
        for _ in 0..TRIES {
            let then: Vec<Op> = beside.into_iter().cloned().map(Op::Range).collect();
            let then = then.into_iter().chain([Op::Put(key.clone(), written.clone())]).collect();
            let compares = vec![Compare::ChangedAt(key.clone(), known)];
            let otherwise: Vec<Op> =
                [Range::key(key.clone())].into_iter().chain(beside.cloned()).map(Op::Range).collect();
            self.forget_beaten(&report.server);
            let made = self.make(Txn { compares, then, otherwise }, Purpose::Heartbeat)?;
            let (held, revision) = (made.held, made.revision);
            let mut reads = made.reads();
            if held {
                self.has_beaten(&report.server, revision);
                return Ok(reads.next());
            }
            let found = reads.next().and_then(|read| read.entries.into_iter().next());
            known = found.as_ref().map_or(0, |found| found.changed_at);
            if found.is_some_and(|found| found.value == written) {
                // The answer to it was lost.
                self.has_beaten(&report.server, known);
                return Ok(reads.next());
            }
        }
        Err(self.contended("this server's heartbeat"))
    }

    /// The heartbeats of all servers.
    pub(super) fn all_hearts(&self) -> Result<ServerHearts, StoreError> {
        let entries = self.read_all(&self.keys.servers(), false, Purpose::Heartbeat)?;
        Ok(self.hearts_in(&entries))
    }

    fn hearts_in(&self, entries: &[Entry]) -> ServerHearts {
        let span = self.keys.servers();
        let mut hearts = ServerHearts::default();
        for entry in entries {
            let name = entry.key.strip_prefix(&*span.from).unwrap_or(&entry.key);
            let name = name.escape_ascii().to_string();
            match serde_json::from_slice::<ServerReport>(&entry.value) {
                Ok(report) if report.server.as_str() == name => {
                    hearts.reports.insert(report.server.clone(), Arc::new(report));
                }
                Ok(report) => {
                    let why = format!("expected the heartbeat of {name}, found that of {}", report.server);
                    hearts.unreadable.insert(name, why);
                }
                Err(error) => {
                    let found = shortened(error.to_string().as_bytes());
                    let why = format!(
                        "{}: expected JSON as this version writes it, found {found}; remove the key if it is no part of the store",
                        self.key_text(&entry.key)
                    );
                    hearts.unreadable.insert(name, why);
                }
            }
        }
        hearts
    }

    /// The revision of the last heartbeat that this one wrote; 0 where it knows of none.
    fn beaten(&self, server: &ServerName) -> u64 {
        self.hearts_known().get(server).copied().unwrap_or_default()
    }

    fn has_beaten(&self, server: &ServerName, revision: u64) {
        self.hearts_known().insert(server.clone(), revision);
    }

    fn forget_beaten(&self, server: &ServerName) {
        self.hearts_known().remove(server);
    }

    /// Proves that the store can be written and read: a step that writes and reads, and one that takes it away again.
    pub(super) fn prove(&self, bytes: usize) -> Result<(), StoreError> {
        let key = self.keys.probe();
        let mut written = self.unique.next().into_bytes();
        written.resize(written.len().max(bytes), b'x');
        let then = vec![Op::Put(key.clone(), written.clone()), Op::Range(Range::key(key.clone()))];
        let made = self.make(Txn { then, ..Txn::default() }, Purpose::Call)?;
        if made.reads().next().and_then(Read::value).as_deref() != Some(&*written) {
            return Err(self.unexpected_at("expected what was just written, found something else"));
        }
        self.remove(Span::key(key))
    }
}
