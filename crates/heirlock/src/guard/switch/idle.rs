//! Whether this server can do without heirlock: asked before a package is removed, for whose removal no person may have looked at
//! the services.

use super::super::records::{self, Kept};
use super::{GuardError, Run};
use crate::store::StoreError;

/// The way out, which is a person's decision.
const WAY_OUT: &str = "'heirlock disable' without --if-idle gives this host back all the same";

/// Names at most so many services.
const NAMED_MAX: usize = 10;

impl Run<'_> {
    /// Refuses where clients on record would lose what protects their locks: where a service is this server's and has clients,
    /// or where clients are being told.
    pub(super) fn check_idle(&self) -> Result<(), GuardError> {
        let reasons: Vec<String> = match self.kept_here() {
            Ok(kept) => kept.iter().filter_map(|kept| self.reason(kept.as_ref())).collect(),
            Err(error) => vec![format!("whether clients depend on this server can't be told: {error}")],
        };
        if reasons.is_empty() {
            return Ok(());
        }
        let more = reasons.len().saturating_sub(NAMED_MAX);
        let mut named: Vec<String> = reasons.into_iter().take(NAMED_MAX).collect();
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        Err(GuardError::Refused { what: format!("{}; {WAY_OUT}", named.join("; ")) })
    }

    fn kept_here(&self) -> Result<Vec<Result<Kept, StoreError>>, StoreError> {
        let store = records::store(self.host, self.settings)?;
        records::kept(store.as_ref(), self.settings)
    }

    fn reason(&self, kept: Result<&Kept, &StoreError>) -> Option<String> {
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return Some(format!("the clients of a service can't be read: {error}")),
        };
        let service = &kept.service;
        if kept.owner.as_ref() != Some(&self.settings.server) {
            return None;
        }
        if let Some(phase) = kept.phase.filter(|phase| !phase.is_over()) {
            return Some(format!(
                "{}the clients of {service} are being told (phase {phase}); wait until 'heirlock status' says that it is settled",
                self.whose(service)
            ));
        }
        // What this server serves under its own name is handed back to the status monitor, with all its clients.
        let clients = kept.clients.len();
        (clients > 0 && !service.is_host()).then(|| {
            format!(
                "{}{service} is this server's, with {clients} client(s) on record, which no server would tell of its loss; say 'heirlock release {service}' first, and adopt it on another server",
                self.whose(service)
            )
        })
    }
}
