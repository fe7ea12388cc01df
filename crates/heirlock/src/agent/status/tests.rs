use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heirlock_agent::Outside;
use heirlock_agent::agent::holdings::{Held, claim_first};
use heirlock_agent::agent::status::*;
use heirlock_core::claim::{Authority, Claim, OwnerHeart};
use heirlock_core::takeover::{
    Cause, ClientSummary, Conveyance, End, Hindrance, Journal, Milestone, OutcomeLine, Part, Phase, Plan,
    Stamp, Strategy, Summary, Takeover, Until,
};
use heirlock_core::{Generation, Moment, Outcome, RecordKey, ServerName, ServiceName};
use heirlock_nsm::{MonName, StateNumber};
use tracing_subscriber::layer::SubscriberExt;

use crate::agent::testing::{Place, place, service};
use crate::control::report::{Ailment, AilmentKind, Heart, Problem, ProblemKind, ServiceStatus, Slow};
use crate::limits;
use crate::store::dir::DirStore;
use crate::store::{Contents, ServerReport};
use crate::survey::past::tenure_of;

fn stamp(event: Milestone, at_ms: i64) -> Stamp {
    Stamp { event, at_ms }
}

fn line(client: &str, outcome: Outcome, at_ms: i64) -> OutcomeLine {
    OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, at_ms)
}

#[test]
fn the_slowest_are_those_that_took_long_to_answer_and_not_those_that_came_back_late() {
    let server: ServerName = "nfs-b".parse().unwrap();
    let outcomes = vec![
        line("192.0.2.1", Outcome::Acknowledged, 40_010),
        line("192.0.2.2", Outcome::Acknowledged, 40_700),
        line("192.0.2.3", Outcome::Unreachable, 55_000),
        line("192.0.2.1", Outcome::ReRegistered, 50_000),
    ];
    // Prepared, and told 39 s later, when the address was there; resumed once.
    let timeline = vec![
        stamp(Milestone::Proved, 1_000),
        stamp(Milestone::Ready, 40_000),
        stamp(Milestone::Ready, 40_500),
        stamp(Milestone::Settled, 56_000),
    ];
    let journal = Journal { timeline, ..Journal::quiet("r", &server, 0) };
    let claim = Claim::new(Generation(3), &server, "r", 0);
    let contents = Contents { outcomes, ..Contents::default() };
    let held = Held::new(claim, contents, journal, false, Duration::ZERO);
    let store = DirStore::at(Path::new("/srv/heirlock"));
    let report = of_journal(&ServiceName::parse("nfs").unwrap(), &held, &store);
    assert_eq!(report.records_at, "/srv/heirlock/services/nfs/3/sm");
    let slow = |client: &str, took_ms| Slow { client: client.into(), took_ms };
    assert_eq!(report.slowest, [slow("192.0.2.2", 700), slow("192.0.2.1", 10)]);
    assert_eq!((report.acknowledged, report.re_registered), (2, 1));
}

#[test]
fn a_run_that_was_interrupted_leaves_clients_of_whom_nothing_is_known() {
    let server: ServerName = "nfs-b".parse().unwrap();
    let outcomes = vec![line("192.0.2.1", Outcome::Acknowledged, 9)];
    let records =
        ["192.0.2.1", "192.0.2.2"].map(|client| (MonName::parse(client).unwrap(), Vec::new())).into();
    let contents = |phase| {
        let journal = Some(Journal { phase, ..Journal::quiet("r", &server, 0) });
        Contents {
            outcomes: outcomes.clone(),
            records: Clone::clone(&records),
            journal,
            ..Contents::default()
        }
    };
    let store = DirStore::at(Path::new("/srv/heirlock"));
    let counted = |phase| {
        let claim = Claim::new(Generation(3), &server, "r", 0);
        let report = past_report(&service("nfs"), claim, contents(phase), &store).unwrap();
        (report.clients, report.acknowledged, report.unknown)
    };
    assert_eq!(counted(Phase::Notifying), (2, 1, 1));
    assert_eq!(counted(Phase::Settled), (1, 1, 0), "the other one came later");
}

/// The message of each event, without its fields, as `journalctl` shows it.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Messages {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Message<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Message(&mut self.0.lock().unwrap()));
    }
}

fn client(client: &str, outcome: Option<Outcome>, why: Option<&str>) -> ClientSummary {
    let (client, why) = (RecordKey::parse(client).unwrap(), why.map(str::to_owned));
    ClientSummary { client, outcome, at_ms: 0, answered_ms: None, why }
}

fn machine(targets: &[&str]) -> Takeover {
    let plan = Plan {
        run: "5f3a".into(),
        server: "nfs-b".parse().unwrap(),
        cause: Cause::Asked,
        targets: targets.iter().map(|name| ServiceName::parse(name).unwrap()).collect(),
        standing: heirlock_core::takeover::Standing::default(),
        strategy: Strategy::Notify,
        convey: Conveyance::Generate,
        until: Until::Settled,
        authority: Authority::default(),
        fence: false,
        margin: Duration::from_secs(5),
        limits: heirlock_core::takeover::TimeLimits::each(Duration::from_secs(60)),
        primary_lost: None,
        started_at_s: 0,
    };
    Takeover::new(Moment::START, plan)
}

#[test]
fn the_log_says_of_each_client_that_was_not_told_who_and_why_in_the_message() {
    let clients = vec![
        client("10.97.0.20", Some(Outcome::ReRegistered), None),
        client("10.97.0.21", Some(Outcome::Lost), Some("grace is not open on 10.97.0.10")),
        client("10.97.0.22", Some(Outcome::Unreachable), Some("no answer")),
        client("10.97.0.23", None, None),
    ];
    let summary = Summary {
        service: ServiceName::parse("nfs").unwrap(),
        part: Part::Target,
        generation: Generation(4),
        state: StateNumber(11),
        clients,
    };
    let messages = Messages::default();
    let subscriber = tracing_subscriber::registry().with(messages.clone());
    tracing::subscriber::with_default(subscriber, || {
        let failed =
            End::Failed { hindrance: Hindrance::Proof, why: "grace ended".into(), summaries: vec![summary] };
        log_end(&machine(&["nfs"]), &failed);
        log_end(&machine(&["nfs"]), &End::Refused("nfs-a lives".into()));
    });
    let expected = [
        "nfs: the run 5f3a failed: grace ended",
        "nfs: 1 of 4 clients told, 1 of them registered again; unreachable: 1, lost: 1 (generation 4)",
        "nfs: 10.97.0.21 was not told (lost): grace is not open on 10.97.0.10",
        "nfs: 10.97.0.22 was not told (unreachable): no answer",
        "nfs: 10.97.0.23 was not told (unknown): the run ended before its outcome was known",
        "nfs: refused, and nothing was changed: nfs-a lives",
    ];
    assert_eq!(*messages.0.lock().unwrap(), expected);
}

fn held_here(name: &str) -> Place {
    let mut place = place();
    let us = place.agent.settings().server.clone();
    let (claim, journal) = (Claim::new(Generation::FIRST, &us, "agent", 0), Journal::quiet("run", &us, 0));
    let store = place.agent.store();
    claim_first(store, &service(name), &claim, StateNumber(1), &journal).unwrap().unwrap();
    place.turn();
    place
}

fn status_of(place: &Place, name: &str) -> ServiceStatus {
    place.status().services.into_iter().find(|service| service.service == name).unwrap()
}

#[test]
fn right_after_a_release_the_service_has_no_owner_and_the_time_of_the_release_is_on_record() {
    let mut place = held_here("new");
    let service = service("new");
    assert_eq!(status_of(&place, "new").owner.as_deref(), Some("nfs-b"));
    place.agent.address_gone(place.agent.outside().now(), &service, Ok(()));
    let after = status_of(&place, "new");
    assert_eq!((after.owner, after.released_by.as_deref(), after.held), (None, Some("nfs-b"), false));
    let kept = tenure_of(place.agent.store(), &service, Generation::FIRST);
    assert!(kept.unwrap().unwrap().released_at_s.is_some());
}

#[test]
fn a_standby_that_runs_no_lock_manager_has_no_alarm_before_it_holds_something() {
    let mut standby = place();
    standby.turn();
    assert!(standby.agent.lives().running().is_none(), "it was not looked at");
    assert_eq!((standby.agent.ailments(), standby.agent.problems()), (Vec::new(), Vec::new()));
    let place = held_here("new");
    assert_eq!(place.agent.ailments(), ["no-lock-manager"]);
    assert_eq!(place.agent.problems(), [Problem::new(ProblemKind::NoLockManager)]);
}

#[test]
fn protection_is_claimed_from_the_moment_on_from_which_everything_is_on_record() {
    let mut place = place();
    assert_eq!(place.agent.protection().since_s(), None);
    place.turn();
    let since = place.agent.protection().since_s();
    assert!(since.is_some());
    place.turn();
    assert_eq!(place.agent.protection().since_s(), since);
    let now = place.agent.outside().now();
    place.agent.fails(now, "no space");
    place.agent.note_protection();
    assert_eq!(place.agent.protection().since_s(), None);
}

#[test]
fn a_heart_that_misses_beats_is_late_and_no_longer_said_to_beat() {
    let server: ServerName = "nfs-a".parse().unwrap();
    let report = ServerReport { ailments: vec!["no-lock-manager".into()], ..ServerReport::new(server, "a") };
    let of = |heart| server_status(&report, heart, Duration::from_secs(1));
    let beating = |seconds| OwnerHeart::Beating { last_change: Duration::from_secs(seconds) };
    assert_eq!((of(beating(1)).heart, of(beating(1)).last_beat_age_ms), (Heart::Beating, Some(1_000)));
    assert_eq!(of(beating(4)).heart, Heart::Late);
    assert_eq!(of(OwnerHeart::Silent { for_time: Duration::from_secs(12) }).heart, Heart::Silent);
    assert_eq!(of(OwnerHeart::Paused).heart, Heart::Paused);
    assert_eq!(of(OwnerHeart::Paused).ailments, [Ailment { kind: AilmentKind::NoLockManager, error: None }]);
}

#[test]
fn a_run_that_the_store_holds_up_says_so() {
    let settings = Arc::clone(place().agent.settings());
    let wait = |store| progress(Moment::START, &machine(&["nfs"]), &settings, store).wait.unwrap().for_what;
    assert!(wait(None).contains("to be looked for"));
    assert_eq!(wait(Some(("no volume", None))), "the store to work again (no volume)");
}

/// The directory belongs to another user, which may fill it.
#[test]
fn of_countless_entries_that_are_no_records_some_are_named_and_all_are_counted() {
    let mut place = place();
    let sm = place.directory.path().join("nfs/sm");
    let entries = limits::PROBLEMS_OF_A_KIND_MAX + 7;
    (0..entries).for_each(|n| std::fs::write(sm.join(format!("no name {n}")), "").unwrap());
    place.agent.scan(place.agent.outside().now());
    let problems = place.status().problems;
    let named: Vec<_> = problems.iter().filter(|problem| problem.kind == ProblemKind::NoRecord).collect();
    assert_eq!(named.len(), limits::PROBLEMS_OF_A_KIND_MAX + 1);
    assert!(named.last().unwrap().error.as_ref().unwrap().starts_with("7 more entries"));
}
