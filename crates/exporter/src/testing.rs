//! An agent for tests: a server that adopted a service, and misses a client.

use std::sync::Mutex;
use std::time::Duration;

use heirlock_agent::control::report::observed::{Bucket, Observed, Seconds, Times};
use heirlock_agent::control::report::{
    Ailment, AilmentKind, ClientStatus, Heart, LockManagerStatus, Problem, ProblemKind, ServerStatus,
    ServiceStatus, StatusReport, judge,
};

use crate::Source;

/// A name that would be markup, a quote, or a line of its own, wherever it is not escaped.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script>\"'&\nheirlock_up 0";

/// Tells what it was given.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) Mutex<Result<StatusReport, String>>);

impl Told {
    pub(crate) fn new(status: Result<StatusReport, String>) -> Self {
        Self(Mutex::new(status))
    }
}

impl Source for Told {
    fn status(&self) -> Result<StatusReport, String> {
        self.0.lock().unwrap().clone()
    }
}

/// All that there may be.
pub(crate) fn status() -> StatusReport {
    let client = |outcome, why: &str| ClientStatus {
        client: HOSTILE.into(),
        names: vec![HOSTILE.into()],
        outcome,
        since_s: Some(1_800_000_100),
        why: Some(why.into()),
    };
    let adopted = ServiceStatus {
        service: "homes".into(),
        owner: Some("nfs-b".into()),
        held: true,
        configured: true,
        home: Some("nfs-a".into()),
        generation: Some(4),
        state_number: Some(15),
        records: 200,
        tombstones: 3,
        phase: Some("settling".into()),
        clients_to_tell: Some(200),
        clients_told: Some(199),
        grace_left_ms: Some(12_500),
        adopted_at_s: Some(1_800_000_000),
        unreachable: 1,
        missed: vec![client(Some(heirlock_core::Outcome::Unreachable), HOSTILE)],
        ..ServiceStatus::default()
    };
    let elsewhere = ServiceStatus {
        service: "mail".into(),
        owner: Some("nfs-a".into()),
        configured: true,
        generation: Some(1),
        ..ServiceStatus::default()
    };
    let ailing = ServerStatus {
        heart: Heart::Late,
        last_beat_age_ms: Some(4_250),
        ailments: vec![Ailment { kind: AilmentKind::StoreFails, error: Some(HOSTILE.into()) }],
        ..ServerStatus::unknown("nfs-a")
    };
    let mut status = StatusReport {
        agent: "1f2e".into(),
        version: "0.1.0".into(),
        loop_turned_ms_ago: Some(20),
        looked_ms_ago: Some(1_500),
        lock_manager: LockManagerStatus {
            kind: "kernel".into(),
            incarnation: Some("a life".into()),
            serving: true,
            needed: true,
        },
        protected_since_s: None,
        services: vec![adopted, elsewhere],
        servers: vec![
            ailing,
            ServerStatus {
                heart: Heart::Beating,
                last_beat_age_ms: Some(750),
                ..ServerStatus::unknown("nfs-c")
            },
        ],
        at_risk: vec![client(None, "no room")],
        problems: vec![Problem::new(ProblemKind::ClientsAtRisk).with(7)],
        observed: Some(Box::new(observed())),
        ..StatusReport::without_agent("nfs-b", "the folder /srv/heirlock")
    };
    status.store.unprotected_since_s = Some(1_800_000_050);
    judge(&mut status);
    status
}

fn observed() -> Observed {
    let mut observed = Observed { began_at_s: 1_799_990_000, ..Observed::default() };
    observed.records.written_total = 210;
    observed.commits.done_total = 42;
    observed.commits.failed_total = 1;
    observed.commits.seconds = Times {
        count: 43,
        sum: Seconds(Duration::from_millis(910)),
        max: Seconds(Duration::from_millis(300)),
        buckets: vec![
            Bucket { le: Seconds(Duration::from_micros(2_500)), count: 10 },
            Bucket { le: Seconds(Duration::from_secs(1)), count: 43 },
        ],
    };
    observed.monitor.refused_busy_total = 2;
    observed.outcomes.lost_total = 1;
    observed.runs.owner_dead.settled_total = 1;
    observed.hooks.fence.done_total = 1;
    observed.log_lines.suppressed_total = 17;
    observed.requests.adopt.asked_total = 3;
    observed.requests.adopt.refused_total = 1;
    observed
}
