//! The last status that the agent made known, for a caller that asks while its loop is busy.

use std::sync::{Mutex, PoisonError};

use heirlock_agent::first_status;
use heirlock_core::Moment;

use crate::config::Settings;
use crate::control::report::{DrillReport, DrillStatus, StatusReport};
use crate::drill::kept;
use crate::from_elsewhere;
use crate::host::Host;
use crate::store;

/// The last status.
#[derive(Debug)]
pub(crate) struct Snapshot {
    known: Mutex<Known>,
    /// The last drill of each service. The agent has no part in drills.
    drills: Mutex<Vec<DrillStatus>>,
}

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
        let known = Known { report: first_status(settings, &place), turned: None, looked: None };
        Self { known: Mutex::new(known), drills: Mutex::new(kept::load(&settings.local_directory)) }
    }

    /// The last one, as it is told now.
    pub(crate) fn report(&self, now: Moment) -> StatusReport {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ms_ago = |at: Moment| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let mut report = StatusReport {
            loop_turned_ms_ago: known.turned.map(ms_ago),
            looked_ms_ago: known.looked.map(ms_ago),
            drills: self.drills.lock().unwrap_or_else(PoisonError::into_inner).clone(),
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
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// This is the last drill of its service, made now.
    ///
    /// # Errors
    /// Where it can't be kept for the next agent; in words. It is in the status all the same.
    pub(super) fn keep_drill(&self, settings: &Settings, report: &DrillReport) -> Result<(), String> {
        let mut drills = self.drills.lock().unwrap_or_else(PoisonError::into_inner);
        let is_configured =
            |name: &str| settings.services.iter().any(|service| service.name.as_str() == name);
        kept::put(&mut drills, DrillStatus::from(report), is_configured);
        kept::save(&settings.local_directory, &drills)
    }
}
