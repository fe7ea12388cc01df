//! A record belongs to every service of its lock manager (I7). The records that an adoption brings are made known to the services
//! that this server holds already, in portions, from the moment on in which the lock manager recognises, and before the first
//! client is told: a client that then registers again is durable everywhere, and waits for no disk. The last ones of a crowd that
//! has to wait for commits would wait longer than lockd does, and lose their locks.

use heirlock_core::store::RecordChange;
use heirlock_core::{Moment, Record, RecordKey, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings::{Held, commit_all};
use crate::agent::outside::Outside;
use crate::limits;

impl<O: Outside> Instance<O> {
    /// The lock manager has recognised: the clients of the services that were taken over will be told.
    pub(crate) fn share_adopted(&mut self, server: &Common<O>) {
        if !self.settings.capture.mode.properties().shares_before_telling {
            return;
        }
        let targets = self.run.as_ref().map(|r| r.machine.targets().to_vec()).unwrap_or_default();
        let adopted = targets.iter().filter_map(|service| self.held.get(service));
        let records = adopted.flat_map(|held| held.ledger.stored());
        // The old server's own mounts are no clients of what this server serves.
        let records = records.filter(|(key, record)| self.means_the_same_here(server, key.client(), record));
        let records: Vec<_> = records.map(|(key, record)| (key.clone(), record.clone())).collect();
        self.shared.add(records);
    }

    /// Shares what one commit carries, so that heartbeats and newcomers get their turn in between.
    pub fn share_a_portion(&mut self, server: &mut Common<O>, now: Moment) {
        if self.shared.due().is_none_or(|due| now < due) {
            return;
        }
        let portion = self.shared.take_portion();
        let mut work: Vec<(&ServiceName, &mut Held, Vec<RecordChange>)> = self
            .held
            .iter_mut()
            .map(|(service, held)| {
                let entries = lacks(held, &portion);
                (service, held, entries)
            })
            .filter(|(_, _, entries)| !entries.is_empty())
            .collect();
        let mut committing = server.committing();
        if let Err(error) = commit_all(&mut committing, &mut work) {
            server.store_failed(now, &error);
            self.shared.put_back(portion, now + limits::STORE_RETRY);
            return;
        }
        self.shared.shared();
    }

    /// Tells the clients that the run wants told, once they are shared. A client does not wait for a store that fails, nor long
    /// for one that is slow: told in grace, and made to wait for a commit, it is better off than told too late.
    pub fn notify_once_shared(&mut self, server: &mut Common<O>, now: Moment) {
        let (left, may_wait) = (self.shared.left(), self.shared.goes_on());
        let due =
            self.run.as_mut().and_then(|running| running.untold.take_if(|u| !may_wait || now >= u.until));
        let Some(untold) = due else { return };
        if left > 0 {
            tracing::warn!(
                left,
                "clients are told though {left} of them are not durable in every service yet: the store is slow"
            );
        }
        self.notify(server, untold.notices);
    }
}

/// The records that a service does not have yet, as far as it has room.
fn lacks(held: &Held, portion: &[(RecordKey, Record)]) -> Vec<RecordChange> {
    let unknown = portion.iter().filter(|(key, _)| !held.ledger.holds(key));
    unknown.take(held.room()).map(|(key, record)| RecordChange::put(key, record.clone())).collect()
}
