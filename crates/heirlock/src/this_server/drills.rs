//! Drills: one at a time, in a thread of its own beside the loop, while the connections that asked wait.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use heirlock_core::ServiceName;
use heirlock_core::drill::{GoingOn, Verdict, may_begin};

use super::Snapshot;
use crate::clock::{self, Clock};
use crate::config::Settings;
use crate::control::report::{DrillReport, StatusReport};
use crate::control::{Answer, Progress, Responder, Wait};
use crate::drill::{self, Drill, Steps, hung};
use crate::host::Host;
use crate::limits::{DRILL_PROGRESS_INTERVAL, DRILL_SLACK};

/// The drills of this server.
#[derive(Clone)]
pub(super) struct Drills {
    host: Host,
    settings: Arc<Settings>,
    clock: Clock,
    snapshot: Arc<Snapshot>,
    /// The drill whose thread has not ended.
    on: Arc<Mutex<Option<(ServiceName, Instant)>>>,
}

/// The thread of the drill that is on ends, in any way.
struct Ends(Arc<Mutex<Option<(ServiceName, Instant)>>>);

impl Drop for Ends {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drills {
    pub(super) fn new(host: &Host, settings: &Arc<Settings>, clock: Clock, snapshot: Arc<Snapshot>) -> Self {
        let (host, settings) = (host.clone(), Arc::clone(settings));
        Self { host, settings, clock, snapshot, on: Arc::default() }
    }

    /// Drills a service, and answers once that is over: for the thread of the connection that asked.
    pub(super) fn answer(&self, service: &ServiceName, responder: Responder) {
        if let Err(why) = self.check_known(service) {
            return responder.failed(&why, true);
        }
        let begun = self.begin(service);
        match begun {
            Ok((steps, report)) => self.wait(service, &steps, &report, responder),
            Err(why) => responder.failed(&why, true),
        }
    }

    fn check_known(&self, service: &ServiceName) -> Result<(), String> {
        if self.settings.service(service).is_some() {
            return Ok(());
        }
        let known = self.settings.services_in_words();
        Err(format!(
            "expected a service that moves, found {service}, which this server's configuration does not have; there is: {known}"
        ))
    }

    fn status(&self) -> StatusReport {
        self.snapshot.report(self.clock.now())
    }

    /// Begins one, unless something is on beside which none is made.
    fn begin(&self, service: &ServiceName) -> Result<(Arc<Steps>, Receiver<Option<DrillReport>>), String> {
        let adopting = drill::adopting(&self.status());
        let mut on = self.on.lock().unwrap_or_else(PoisonError::into_inner);
        let drilling = on.as_ref().map(|(of, since)| (of.to_string(), since.elapsed().as_secs()));
        may_begin(service, &GoingOn { adopting, drill: drilling }).map_err(|refusal| refusal.to_string())?;
        let settings = self.settings.of_instance(self.settings.instance_of(service));
        let settings = settings.ok_or("the configuration has no lock manager for it")?;
        let (steps, (sender, report)) = (Arc::new(Steps::new()), channel());
        let (these, of, shown) = (self.clone(), service.clone(), Arc::clone(&steps));
        *on = Some((service.clone(), Instant::now()));
        let ends = Ends(Arc::clone(&self.on));
        drop(on);
        let begun = self.host.start("drill", move || {
            let status = || these.status();
            let at_s = clock::wall_s();
            let drill = Drill {
                host: &these.host,
                settings: &settings,
                service: &of,
                status: &status,
                at_s,
                steps: &shown,
            };
            let report = drill.carry_out();
            if let Some(report) = &report {
                these.keep(report);
            }
            drop(ends);
            // The connection may have given up.
            let _ = sender.send(report);
        });
        begun.map(|_| (steps, report)).map_err(|error| error.to_string())
    }

    /// Tells the caller how far it is, and the end of it.
    fn wait(
        &self,
        service: &ServiceName,
        steps: &Steps,
        report: &Receiver<Option<DrillReport>>,
        mut responder: Responder,
    ) {
        let (began, at_s) = (Instant::now(), clock::wall_s());
        loop {
            match report.recv_timeout(DRILL_PROGRESS_INTERVAL) {
                Ok(Some(report)) => return responder.done(Answer::Drill(Box::new(report))),
                Ok(None) => {
                    let why = format!(
                        "an adoption began here while {service} was drilled, and the drill made way for it: drill {service} when that has settled"
                    );
                    return responder.failed(&why, true);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return responder.failed("the thread of the drill ended without a report", false);
                }
            }
            let step = steps.now();
            let left = step.ends.saturating_duration_since(Instant::now());
            if left.is_zero() && step.ends.elapsed() >= DRILL_SLACK {
                let report = hung(service, &self.settings, at_s, began.elapsed(), &step.what);
                self.keep(&report);
                return responder.done(Answer::Drill(Box::new(report)));
            }
            // Whether it is read or not: the drill goes on, and its result is kept.
            let _ = responder.progress(&Progress::waiting(wait_for(&step.what, left)));
        }
    }

    /// Its result is in the status from now on, also after a boot.
    fn keep(&self, report: &DrillReport) {
        let service = &report.service;
        let first = report.against().next().map(|check| format!(": {}", check.found)).unwrap_or_default();
        let (verdict, clients, left_out) = (report.verdict, report.clients, report.left_out);
        match verdict {
            Verdict::Works => {
                tracing::info!(%service, clients, "{service}: a drill shows that an adoption by this server would work, and would reach all of {clients} clients");
            }
            _ => {
                tracing::warn!(%service, %verdict, clients, left_out, "{service}: a drill ended with '{verdict}', and an adoption by this server would leave out {left_out} of {clients} clients{first}");
            }
        }
        if let Err(why) = self.snapshot.keep_drill(&self.settings, report) {
            tracing::error!(%service, why, "{service}: the result of the drill is lost when the agent ends: {why}");
        }
    }
}

fn wait_for(what: &str, left: Duration) -> Wait {
    Wait { for_what: what.to_owned(), at_most_ms: u64::try_from(left.as_millis()).ok() }
}

#[cfg(test)]
mod tests;
