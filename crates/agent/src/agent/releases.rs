//! The releases that are on.

use std::collections::BTreeMap;

use heirlock_core::{Moment, ServiceName};

use crate::control::Responder;
use crate::control::report::EntryTrouble;

/// Releases that are on.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    on: BTreeMap<ServiceName, Release>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Release {
    /// The callers that wait for it.
    pub(super) responders: Vec<Responder>,
    /// For which request of another server it is.
    pub(super) asked: Option<u64>,
    /// When it began, unless it waits to.
    pub(super) began_at: Option<Moment>,
    /// It has not begun: a run is about to have the lock manager restarted, or to be told of its claim. Until when that may take.
    pub(super) begins_by: Option<Moment>,
    /// Until when its address has to be gone; none once the claim is given up.
    pub(super) address_until: Option<Moment>,
    /// Until when the work that is on for it has to report; none while there is none.
    pub(super) report_until: Option<Moment>,
    /// Its callers were told that this work hangs. All that is left of the release is the report that is still to come.
    pub(super) hangs: bool,
    /// Until when the store has to answer; none while it does.
    pub(super) store_until: Option<Moment>,
    /// Entries of the store that can't be read: the clients that they belong to are not known.
    pub(super) troubles: Vec<EntryTrouble>,
}

impl Release {
    /// In words.
    pub(super) fn says_that_it_hangs(&self, service: &ServiceName) -> String {
        let what = if self.address_until.is_some() { "address" } else { "volume" };
        format!(
            "an earlier release of {service} hangs, and its {what} is still being taken away; end the program that \
             hangs, or start the agent again"
        )
    }
}

impl Releases {
    /// One more is.
    pub(super) fn add(&mut self, service: &ServiceName, release: Release) {
        self.on.insert(service.clone(), release);
    }

    /// None is.
    pub(crate) fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// Whether that of this service is.
    pub(crate) fn contains(&self, service: &ServiceName) -> bool {
        self.on.contains_key(service)
    }

    /// Whether the address of this service is gone for its release, and its claim is not given up yet.
    pub(crate) fn has_no_address(&self, service: &ServiceName) -> bool {
        let is_gone = |release: &Release| {
            release.address_until.is_some() && release.report_until.is_none() && !release.hangs
        };
        self.on.get(service).is_some_and(is_gone)
    }

    /// When that of this service began.
    pub(super) fn began_at(&self, service: &ServiceName) -> Option<Moment> {
        self.on.get(service)?.began_at
    }

    /// That of this service, where it is.
    pub(super) fn of(&self, service: &ServiceName) -> Option<&Release> {
        self.on.get(service)
    }

    /// The same, to change it.
    pub(super) fn of_mut(&mut self, service: &ServiceName) -> Option<&mut Release> {
        self.on.get_mut(service)
    }

    /// The services that are given away.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        self.on.keys().cloned().collect()
    }

    /// When work has to have reported.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.on.values().flat_map(|release| [release.report_until, release.begins_by]).flatten().min()
    }

    /// Those that have not begun, and until when they wait.
    pub(super) fn to_begin(&self) -> Vec<(ServiceName, Moment)> {
        let waits =
            |(service, release): (&ServiceName, &Release)| Some((service.clone(), release.begins_by?));
        self.on.iter().filter_map(waits).collect()
    }

    /// Those whose work should have reported by now, hang. Answers of which services they are, and whether the claim is still
    /// held.
    pub(super) fn begin_to_hang(&mut self, now: Moment) -> Vec<(ServiceName, bool)> {
        let is_late = |release: &Release| release.report_until.is_some_and(|until| now >= until);
        let mut late = Vec::new();
        for (service, release) in self.on.iter_mut().filter(|(_, release)| is_late(release)) {
            (release.report_until, release.hangs) = (None, true);
            late.push((service.clone(), release.address_until.is_some()));
        }
        late
    }

    /// A report comes. Whether it is that of work that hung, for which no caller waits any more; then the release is over.
    pub(super) fn is_late_report(&mut self, service: &ServiceName) -> bool {
        let hung = self.on.get(service).is_some_and(|release| release.hangs);
        if hung {
            self.on.remove(service);
        }
        hung
    }

    /// That of a service has ended. Answers its callers, and the entries that can't be read.
    pub(super) fn end(&mut self, service: &ServiceName) -> (Vec<Responder>, Vec<EntryTrouble>) {
        self.on.remove(service).map(|release| (release.responders, release.troubles)).unwrap_or_default()
    }
}
