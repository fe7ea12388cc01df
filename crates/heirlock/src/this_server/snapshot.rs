//! The last status that the agent made known, for a caller that asks while its loop is busy.

use std::sync::{Mutex, PoisonError};

use heirlock_agent::first_status;
use heirlock_core::Moment;

use crate::config::Settings;
use crate::control::report::StatusReport;
use crate::from_elsewhere;
use crate::host::Host;
use crate::store;

/// The last status.
#[derive(Debug)]
pub(crate) struct Snapshot(Mutex<Known>);

/// The status of the last turn of the loop; its age is told when the status is asked for.
#[derive(Debug)]
struct Known {
    report: StatusReport,
    turned: Option<Moment>,
    looked: Option<Moment>,
}

impl Snapshot {
    /// Before anything is known.
    pub(super) fn new(host: &Host, settings: &Settings) -> Self {
        let place = store::open(host, settings).place(store::Place::Store);
        Self(Mutex::new(Known { report: first_status(settings, &place), turned: None, looked: None }))
    }

    /// The last one, as it is told now.
    pub(crate) fn report(&self, now: Moment) -> StatusReport {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ms_ago = |at: Moment| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let mut report = StatusReport {
            loop_turned_ms_ago: known.turned.map(ms_ago),
            looked_ms_ago: known.looked.map(ms_ago),
            ..known.report.clone()
        };
        if let Some(observed) = &mut report.observed {
            // The program's, which counts them wherever they are suppressed; the agent has no log.
            observed.log_lines.suppressed_total = from_elsewhere::suppressed_lines();
        }
        report
    }

    /// This is the last one, made now.
    pub(super) fn set(&self, now: Moment, report: StatusReport, looked: Option<Moment>) {
        let known = Known { report, turned: Some(now), looked };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}
