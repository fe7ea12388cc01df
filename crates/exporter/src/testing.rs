//! An agent for tests: a server that adopted a service, and misses a client.

use std::sync::Mutex;
use std::time::Duration;

use heirlock_agent::control::report::observed::{Bucket, Observed, Seconds, Times};
use heirlock_agent::control::report::{
    AdoptionReport, Ailment, AilmentKind, ClientStatus, DrillStatus, Heart, LockManagerStatus, Next, Problem,
    ProblemKind, ServerStatus, ServiceStatus, StatusReport, judge,
};

use heirlock_core::drill::Verdict;

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

    fn past(&self) -> Result<Vec<AdoptionReport>, String> {
        Ok(vec![adoption()])
    }

    fn problem(&self, problem: &Problem) -> String {
        format!("{}, {HOSTILE}: say 'heirlock doctor' there", problem.kind.as_str())
    }

    fn next(&self, next: Next, service: &ServiceStatus) -> Option<String> {
        (next != Next::Wait).then(|| format!("'heirlock adopt {}', {HOSTILE}", service.service))
    }
}

/// An adoption that told all its clients but one.
pub(crate) fn adoption() -> AdoptionReport {
    let at = |event: &str, at_ms: i64| serde_json::json!({"event": event, "at_ms": at_ms});
    let clients: Vec<_> = (0..200)
        .map(|at| {
            let (outcome, at_ms) = if at == 0 { ("unreachable", 15_000) } else { ("re-registered", 3_300 + at * at / 20) };
            serde_json::json!({"client": HOSTILE, "names": [HOSTILE], "outcome": outcome, "at_ms": at_ms, "why": HOSTILE})
        })
        .collect();
    let report = serde_json::json!({
        "service": "homes", "generation": 4, "state_number": 15, "strategy": "command", "phase": "settled",
        "clients": 200, "re_registered": 199, "acknowledged": 199, "unreachable": 1, "lost": 0, "unknown": 0,
        "timeline": [
            at("primary-lost", -3_000), at("fenced", 40), at("claimed", 90), at("conveyed", 700), at("recognised", 760),
            at("proved", 800), at("ready", 900), at("first-notified", 950), at("last-notified", 1_600), at("settled", 15_200)
        ],
        "slowest": [], "failed": [{"client": HOSTILE, "outcome": "unreachable", "why": HOSTILE}], "others": [],
        "records_at": HOSTILE, "started_at_s": 1_800_000_000_u64,
        "tenure": {
            "generation": 4, "from": "nfs-a", "to": "nfs-b", "cause": "owner-dead", "began_at_s": 1_800_000_000_u64,
            "released_at_s": null, "phase": "settled", "failure": null, "state_number": 15, "clients": 200, "told": 199,
            "re_registered": 199, "unreachable": 1, "lost": 0, "unknown": 0, "last_sign_ms": -3_000,
            "without_service_ms": 3_900, "until_last_client_ms": 8_300
        },
        "each_client": clients
    });
    serde_json::from_value(report).unwrap()
}

/// A drill of a service that another server holds.
fn drill() -> DrillStatus {
    DrillStatus {
        service: "mail".into(),
        verdict: Verdict::LeavesOut,
        at_s: 1_799_740_800,
        took_ms: 5_200,
        clients: 40,
        left_out: 2,
        unreached: vec![HOSTILE.into(), "192.0.2.22".into()],
        why: Some(HOSTILE.into()),
        until_told_ms: Some(2_520),
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
        drills: vec![drill()],
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
