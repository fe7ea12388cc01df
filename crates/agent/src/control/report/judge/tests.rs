use super::super::ServerStatus;
use super::*;

fn report(service: ServiceStatus, heart: Heart) -> StatusReport {
    let mut report = StatusReport::without_agent("nfs-b", "the folder /srv/heirlock");
    report.services = vec![ServiceStatus { service: "nfs".into(), configured: true, ..service }];
    report.servers = vec![ServerStatus { heart, ..ServerStatus::unknown("nfs-a") }];
    judge(&mut report);
    report
}

fn kinds(report: &StatusReport) -> Vec<ProblemKind> {
    report.problems.iter().map(|problem| problem.kind).collect()
}

fn held() -> ServiceStatus {
    ServiceStatus {
        held: true,
        owner: Some("nfs-b".into()),
        phase: Some("settled".into()),
        ..ServiceStatus::default()
    }
}

fn of_another() -> ServiceStatus {
    ServiceStatus { owner: Some("nfs-a".into()), ..ServiceStatus::default() }
}

#[test]
fn a_service_whose_owner_is_silent_is_served_by_no_server_and_its_mode_tells_the_next_step() {
    let manual = report(of_another(), Heart::Silent);
    assert_eq!((kinds(&manual), level(&manual)), (vec![ProblemKind::OwnerSilent], Level::Unprotected));
    assert_eq!(manual.services[0].next, Some(Next::AdoptFenced));
    let automatic = report(ServiceStatus { automatic: true, ..of_another() }, Heart::Silent);
    assert_eq!(automatic.services[0].next, Some(Next::Wait));
    let left_to = || Some("nfs-c is to adopt it".to_owned());
    let left = report(ServiceStatus { automatic: true, left_to: left_to(), ..of_another() }, Heart::Silent);
    assert_eq!((left.services[0].next, &left.problems[0].error), (Some(Next::Wait), &left_to()));
    let nobodys = ServiceStatus { automatic: true, lacks_candidates: true, ..of_another() };
    assert_eq!(report(nobodys, Heart::Silent).services[0].next, Some(Next::AdoptFenced), "no agent will");
    for heart in [Heart::Beating, Heart::Late, Heart::Paused, Heart::Unknown] {
        let well = report(of_another(), heart);
        assert_eq!((level(&well), well.services[0].next), (Level::Well, None), "{heart:?}");
    }
}

#[test]
fn a_service_that_no_server_ever_claimed_is_not_well_and_its_home_is_who_claims_it() {
    let judged = |home: Option<&str>, well| {
        let mut report = StatusReport::without_agent("nfs-b", "/srv/heirlock");
        report.store.well = well;
        let home = home.map(str::to_owned);
        report.services =
            vec![ServiceStatus { service: "new".into(), configured: true, home, ..ServiceStatus::default() }];
        judge(&mut report);
        let server = report.problems.first().and_then(|problem| problem.server.clone());
        (kinds(&report), server, report.services[0].next)
    };
    let never = || vec![ProblemKind::NeverClaimed];
    assert_eq!(judged(None, true), (never(), None, Some(Next::Adopt)));
    assert_eq!(judged(Some("nfs-b"), true), (never(), None, Some(Next::Adopt)));
    assert_eq!(judged(Some("nfs-a"), true), (never(), Some("nfs-a".into()), None));
    assert_eq!(judged(None, false), (vec![], None, None), "no server has read it");
}

#[test]
fn an_adoption_that_no_client_was_told_of_is_said_to_be_done_again() {
    let failed =
        ServiceStatus { failure: Some("no address".into()), lost: 3, adopted_at_s: Some(1), ..held() };
    assert_eq!(report(failed, Heart::Beating).services[0].next, Some(Next::Adopt));
    let lost = ServiceStatus { lost: 1, adopted_at_s: Some(1), ..held() };
    assert_eq!(report(lost, Heart::Beating).services[0].next, Some(Next::LookAtClients));
}

#[test]
fn a_service_that_was_released_waits_for_an_adopter() {
    let released = ServiceStatus { released_by: Some("nfs-a".into()), ..ServiceStatus::default() };
    let report = report(released, Heart::Beating);
    assert_eq!((kinds(&report), level(&report)), (vec![ProblemKind::Unserved], Level::Attention));
    assert_eq!(report.services[0].next, Some(Next::Adopt));
}

#[test]
fn a_service_of_another_server_that_this_one_does_not_know_is_its_own_affair() {
    let mut report = report(of_another(), Heart::Silent);
    report.services[0].configured = false;
    report.services[0].released_by = Some("nfs-a".into());
    report.problems.clear();
    judge(&mut report);
    assert_eq!((level(&report), report.services[0].next), (Level::Well, None));
}

#[test]
fn clients_that_lost_their_locks_are_worse_than_those_that_never_answered() {
    let unreachable = report(ServiceStatus { unreachable: 2, ..held() }, Heart::Beating);
    assert_eq!(
        (level(&unreachable), unreachable.services[0].next),
        (Level::Attention, Some(Next::LookAtClients))
    );
    let lost = report(ServiceStatus { unreachable: 2, lost: 1, ..held() }, Heart::Beating);
    assert_eq!(kinds(&lost), [ProblemKind::ClientsLost, ProblemKind::ClientsUnreachable]);
    assert_eq!((level(&lost), lost.problems[0].clients), (Level::Unprotected, Some(1)));
}

#[test]
fn a_failed_adoption_is_an_alarm_until_every_client_is_back() {
    let failed = ServiceStatus { failure: Some("grace ended".into()), ..held() };
    let late = report(ServiceStatus { lost: 1, ..failed.clone() }, Heart::Beating);
    assert_eq!(kinds(&late), [ProblemKind::AdoptionFailed, ProblemKind::ClientsLost]);
    assert_eq!(level(&report(failed.clone(), Heart::Beating)), Level::Well, "all are back");
    let broken = report(ServiceStatus { phase: Some("failed".into()), ..failed }, Heart::Beating);
    assert_eq!((level(&broken), broken.services[0].next), (Level::Unprotected, Some(Next::Adopt)));
}

#[test]
fn an_adoption_that_no_agent_goes_on_with_waits_for_one() {
    let owner = Some("nfs-b".into());
    let phase = Some("notifying".into());
    let interrupted = ServiceStatus { owner, phase, adopted_at_s: Some(1), ..ServiceStatus::default() };
    assert_eq!(report(interrupted.clone(), Heart::Silent).services[0].next, Some(Next::StartAgent));
    let on = ServiceStatus { held: true, clients_to_tell: Some(3), ..interrupted };
    assert_eq!(report(on, Heart::Silent).services[0].next, Some(Next::Wait));
}

#[test]
fn a_prepared_adoption_says_that_it_waits() {
    let prepared = ServiceStatus { awaits_finish: true, clients_to_tell: Some(3), ..held() };
    let waits = report(prepared, Heart::Silent);
    assert_eq!((kinds(&waits), level(&waits)), (vec![ProblemKind::AwaitsFinish], Level::Attention));
    assert_eq!(waits.services[0].next, Some(Next::Finish));
    let on = report(ServiceStatus { clients_to_tell: Some(3), ..held() }, Heart::Silent);
    assert_eq!((level(&on), on.services[0].next), (Level::Well, Some(Next::Wait)));
}

#[test]
fn a_kind_of_problem_has_one_spelling() {
    for kind in ProblemKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    let words: std::collections::BTreeSet<&str> = ProblemKind::ALL.map(ProblemKind::as_str).into();
    assert_eq!(words.len(), ProblemKind::ALL.len());
}

#[test]
fn a_drill_that_failed_needs_a_look_until_the_next_one_or_until_the_service_is_held_here() {
    let judged = |verdict, service| {
        let mut report = StatusReport::without_agent("nfs-b", "the folder /srv/heirlock");
        report.services = vec![ServiceStatus { service: "nfs".into(), configured: true, ..service }];
        report.servers = vec![ServerStatus { heart: Heart::Beating, ..ServerStatus::unknown("nfs-a") }];
        report.drills = vec![DrillStatus {
            service: "nfs".into(),
            verdict,
            at_s: 1,
            took_ms: 1,
            clients: 3,
            left_out: 1,
            unreached: Vec::new(),
            why: Some("no volume".into()),
            until_told_ms: None,
        }];
        judge(&mut report);
        report
    };
    for verdict in Verdict::ALL {
        let report = judged(verdict, of_another());
        let fails = matches!(verdict, Verdict::Fails | Verdict::StoreFails);
        assert_eq!(kinds(&report), vec![ProblemKind::DrillFails; usize::from(fails)], "{verdict}");
        assert_eq!(level(&report), if fails { Level::Attention } else { Level::Well });
    }
    let failed = judged(Verdict::Fails, of_another());
    assert_eq!(failed.problems[0].error.as_deref(), Some("no volume"));
    assert_eq!(kinds(&judged(Verdict::Fails, held())), []);
}
