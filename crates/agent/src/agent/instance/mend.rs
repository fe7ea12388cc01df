//! Entries of a generation that can't be read in the store, and the fate of their clients at an adoption.
//!
//! The name of a record's file is its client: so a client whose record can't be read is told all the same, from a record that is
//! made anew. But the record's text is lost, and it is not known whether anything else was lost with it. So the report names it,
//! and never says that all went well (I8).

use heirlock_core::store::{Contents, Damaged, Place, StoreError};
use heirlock_core::takeover::Trouble;
use heirlock_core::{Generation, RecordKey, ServiceName};
use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonitorLine, StateNumber};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::holdings;
use crate::agent::outside::Outside;

/// The kind of log lines on entries of the store: any server of the store can make any number of them.
pub(super) const UNREADABLE_ENTRY: &str = "unreadable entry of the store";

/// How many state numbers are passed over where the last one that was sent can't be read (I5): each generation takes the
/// next odd one.
const NUMBERS_PASSED_OVER: u32 = 1024;

/// A generation, and its records that were made anew.
pub(crate) struct Mended {
    pub(crate) contents: Contents,
    /// Every state number of it that may have been sent.
    pub(crate) sent: Vec<StateNumber>,
    pub(crate) troubles: Vec<Trouble>,
}

impl<O: Outside> Instance<O> {
    /// Gives every client of a generation a record, as far as its name is known.
    pub(crate) fn mend(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        generation: Generation,
        mut contents: Contents,
    ) -> Result<Mended, StoreError> {
        let mut sent: Vec<StateNumber> = contents.state.into_iter().collect();
        // Every generation has a number: one without has lost it.
        let is_one =
            contents.journal.is_some() || !contents.records.is_empty() || !contents.damaged.is_empty();
        if contents.state.is_none() && is_one {
            sent.extend(self.beyond_earlier(server, service, generation)?);
        }
        let mut troubles = self.inherited(service, &contents);
        let folder = server.store().place(Place::Generation(service, generation));
        let my_name = self.announced_names(server, service).into_iter().next();
        for damaged in std::mem::take(&mut contents.damaged).into_iter().filter(Damaged::is_named) {
            let entry = format!("{folder}/{}", damaged.path);
            let why = &damaged.why;
            if server.outside().may_say(UNREADABLE_ENTRY) {
                tracing::error!(%service, entry, why, "{service}: the entry {entry} of the store can't be read: {why}");
            }
            let known = damaged.key().map(RecordKey::client).cloned().zip(my_name.clone());
            let fate_unknown = damaged.is_record() && known.is_none();
            let told = match (&known, damaged.is_record()) {
                (Some(_), _) => "; its client is told by its name",
                (None, true) => "; if it was a client's record, that client was not told",
                (None, false) => "",
            };
            if let Some((client, my_name)) = known {
                let line = MonitorLine::generated(client.clone(), my_name);
                contents.records.insert_if_absent(client, || render_record(&[line]).into());
            }
            let why = format!("{}{told}", damaged.why);
            troubles.push(Trouble { service: service.clone(), entry, why, fate_unknown });
        }
        Ok(Mended { contents, sent, troubles })
    }

    /// The entries that an interrupted run named: the generation that it began was made anew from those that it could read.
    fn inherited(&self, service: &ServiceName, contents: &Contents) -> Vec<Trouble> {
        holdings::say_senseless_journal(contents);
        let journal = contents.journal.as_ref().filter(|journal| !journal.phase.is_over());
        let named = journal.map(|journal| journal.troubles.iter()).unwrap_or_default();
        named.filter(|trouble| trouble.service == *service).cloned().collect()
    }

    /// A number that is beyond all that are known by more than could have been sent since.
    pub(crate) fn beyond_all(
        &self,
        server: &Common<O>,
        service: &ServiceName,
    ) -> Result<Option<StateNumber>, StoreError> {
        self.beyond_earlier(server, service, Generation(u64::MAX))
    }

    /// A number that is beyond those of earlier generations by more than could have been sent since.
    fn beyond_earlier(
        &self,
        server: &Common<O>,
        service: &ServiceName,
        generation: Generation,
    ) -> Result<Option<StateNumber>, StoreError> {
        let known = server.pulse().servers().values().flat_map(|report| report.states());
        let remembered = server.memory().known(service).sent();
        let own = self.own_state().into_iter().chain(remembered).map(|state| state.0);
        let mut highest = known.chain(own).max();
        let mut at_most = Generation(generation.0.saturating_sub(1));
        while let Some(earlier) = server.store().newest_generation(service, at_most)? {
            if let Some(state) = server.store().number_of(service, earlier)? {
                highest = highest.max(Some(state.0));
                break;
            }
            at_most = Generation(earlier.0.saturating_sub(1));
        }
        Ok(highest.map(|number| StateNumber(number.saturating_add(NUMBERS_PASSED_OVER))))
    }
}
