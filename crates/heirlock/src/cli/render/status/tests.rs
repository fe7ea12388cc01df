use heirlock_core::LockManagerName;

use super::super::WIDTH;
use super::super::tests::look;
use super::*;
use crate::control::report::judge;

fn service(name: &str, owner: Option<&str>, held: bool) -> ServiceStatus {
    ServiceStatus {
        service: name.into(),
        owner: owner.map(str::to_owned),
        held,
        configured: true,
        generation: owner.map(|_| 4),
        state_number: owner.map(|_| 11),
        records: if owner.is_some() { 1_021 } else { 0 },
        phase: owner.map(|_| "settled".into()),
        adopted_at_s: owner.map(|_| look().now_s - 200),
        ..ServiceStatus::default()
    }
}

fn other(heart: Heart, age_ms: Option<u64>) -> ServerStatus {
    ServerStatus { heart, last_beat_age_ms: age_ms, ..ServerStatus::unknown("nfs-a") }
}

fn report() -> StatusReport {
    let mut report = StatusReport::without_agent("nfs-b", "/srv/heirlock");
    report.agent = "5f3a91c2".into();
    report.version = "0.1.0".into();
    report.lock_manager.kind = "kernel".into();
    report.lock_manager.incarnation = Some("boot 1b2c, lockd 812".into());
    (report.lock_manager.serving, report.lock_manager.needed) = (true, true);
    report.protected_since_s = Some(look().now_s - 7_300);
    report.services = vec![service("nfs", Some("nfs-b"), true), service("home", Some("nfs-a"), false)];
    report.servers = vec![other(Heart::Beating, Some(312))];
    report
}

fn missed(client: &str, outcome: Outcome) -> ClientStatus {
    ClientStatus {
        client: client.into(),
        names: vec!["client2.example.com".into()],
        outcome: Some(outcome),
        since_s: Some(look().now_s - 120),
        why: Some("no answer".into()),
    }
}

#[test]
fn a_server_that_is_well() {
    let expected = "\
nfs-b, agent 5f3a91c2, heirlock 0.1.0
store         /srv/heirlock: well
protected     since 2026-11-25 08:28:20, 2 h: new clients are on record
lock manager  kernel, serving
              incarnation boot 1b2c, lockd 812

SERVICE  OWNER         CLIENTS  MISSED  GENERATION     LAST ADOPTION
nfs      nfs-b (here)     1021       0           4  2026-11-25 10:26
home     nfs-a            1021       0           4  2026-11-25 10:26
CLIENTS: on record in the store. MISSED: not told in the last adoption, and not
back since. GENERATION: its number rises whenever the service is taken over.

SERVER  ITS AGENT'S HEART
nfs-a   beating, last 0.3 s ago
";
    let mut report = report();
    judge(&mut report);
    assert_eq!(status(&report, &look()), expected);
    let line = "OK - nfs-b: nfs held, 1021 clients on record | clients=1021 unreachable=0 lost=0 at_risk=0\n";
    assert_eq!(checked(&report, crate::control::report::level(&report)), line);
}

#[test]
fn a_watch_that_does_not_come_to_its_end_is_told_with_its_time_its_price_and_what_to_do() {
    let mut report = report();
    let why = "interrupted 33 times, and none of them was watched for 20 s on end";
    let since_s = look().now_s - 200;
    report.problems = vec![Problem::new(ProblemKind::HeartsUnwatched).saying(why).since(since_s)];
    judge(&mut report);
    let text = status(&report, &look()).split_whitespace().collect::<Vec<_>>().join(" ");
    let told = [
        "1 problem since 2026-11-25 10:26:40, 3 min: the watch of the other servers is interrupted 33 times",
        "no service is adopted without being asked",
        "'heirlock doctor' looks at the store",
    ];
    assert!(told.iter().all(|part| text.contains(part)), "{text}");
    let line = checked(&report, crate::control::report::level(&report));
    assert!(line.starts_with("WARNING - nfs-b: the watch of the other servers"), "{line}");
}

#[test]
fn of_a_store_that_could_not_be_read_no_number_is_shown() {
    let mut report = report();
    (report.agent, report.protected_since_s) = (String::new(), None);
    (report.store.well, report.store.error) = (false, Some("its volume is not mounted".into()));
    report.services = vec![service("nfs", None, false)];
    report.servers.clear();
    judge(&mut report);
    let text = status(&report, &look());
    for part in [
        "The store can't be\n              read either:\n",
        "SERVICE  OWNER    CLIENTS  MISSED  GENERATION  LAST ADOPTION\nnfs      unknown        -       -           -              -\n",
        "\nother servers are not known, since the store does not show them\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let line = checked(&report, crate::control::report::level(&report));
    assert!(!line.contains("clients="), "of what was not read there is no number: {line}");
}

#[test]
fn a_service_without_an_owner_says_why_and_what_to_type() {
    let mut report = report();
    report.services = vec![service("nfs", None, false), service("home", None, false)];
    report.services[0].generation = Some(4);
    report.services[0].released_by = Some("o".repeat(64));
    judge(&mut report);
    let text = status(&report, &look());
    let expected = format!(
        "none         0       0           4           none\n  released: by {},\n            and no server has adopted it\n  next: 'heirlock adopt nfs'",
        "o".repeat(64)
    );
    assert!(text.contains(&expected), "{expected}\n is not in\n{text}");
    let line = checked(&report, crate::control::report::level(&report));
    let never = "home: no server has claimed it yet, so none of its clients would be told of an adoption";
    assert!(line.starts_with("WARNING") && line.contains(never), "{line}");
    assert_eq!(report.services[1].next, Some(Next::Adopt));
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn a_store_that_fails_and_everything_else_that_is_wrong_is_said() {
    let mut report = report();
    report.store.well = false;
    report.store.error = Some("the store can't write /srv/heirlock/x: No space left; make room".into());
    report.store.unprotected_since_s = Some(look().now_s - 200);
    report.protected_since_s = None;
    report.maintenance = true;
    report.services[0].phase = Some("failed".into());
    report.services[0].failure = Some("grace did not open within 10 s".into());
    report.at_risk = vec![ClientStatus { outcome: None, why: None, ..missed("192.0.2.9", Outcome::Lost) }];
    report.problems = vec![Problem::new(ProblemKind::NoRecord).at("sm/\u{1b}]0;x").saying("expected a name")];
    report.servers.clear();
    judge(&mut report);
    let text = status(&report, &look());
    for part in [
        "store         /srv/heirlock: it fails\n",
        "              unprotected since 2026-11-25 10:26:40, 3 min\n",
        "              the store can't write /srv/heirlock/x: No space left; make room\n",
        "maintenance   on: this server's silence is no reason to adopt its services\n",
        "  failed\n  failed: grace did not open within 10 s\n  next: 'heirlock adopt nfs' serves it here\nhome ",
        "\nat risk: 192.0.2.9 (client2.example.com) has locks that are not on record since\n",
        "\nother servers are not known, since the store does not show them\n",
        "\nhome     nfs-a               -       -           4              -\n",
        "\n2 problems\n  sm/\\u{1b}]0;x: expected a name\n  nfs: the last adoption failed: grace did",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn clients_that_were_missed_are_named_with_their_names_and_since_when() {
    let mut report = report();
    report.services[0].missed =
        vec![missed("192.0.2.2", Outcome::Unreachable), missed("192.0.2.3", Outcome::Lost)];
    (report.services[0].unreachable, report.services[0].lost) = (4, 1);
    judge(&mut report);
    let text = status(&report, &look());
    for part in [
        "nfs      nfs-b (here)     1021       5 ",
        "\n  missed: 192.0.2.2 (client2.example.com) is unreachable since 2026-11-25\n          10:28:00, 2 min: no answer\n",
        "\n  missed: 3 more; --json names more of them\n  next: 'heirlock report nfs' names them and the remedy for each",
        "\n2 problems\n  nfs: 1 client lost its locks in the last adoption ('heirlock report nfs')\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let line = checked(&report, crate::control::report::level(&report));
    assert!(line.starts_with("CRITICAL - nfs-b: nfs: 1 client lost its locks"), "{line}");
    assert!(
        line.ends_with("| clients=1021 unreachable=4 lost=1 at_risk=0\n") && line.lines().count() == 1,
        "{line}"
    );
    report.problems.push(Problem::new(ProblemKind::ClientsAtRisk).with(150));
    let line = checked(&report, Level::Unprotected);
    assert!(line.ends_with(" at_risk=150\n"), "also those that are not named: {line}");
}

#[test]
fn an_adoption_that_is_on_says_what_it_waits_for_how_long_and_what_to_type() {
    let mut report = report();
    let nfs = &mut report.services[0];
    (nfs.phase, nfs.clients_to_tell, nfs.clients_told) = (Some("notifying".into()), Some(200), Some(188));
    nfs.grace_left_ms = Some(61_400);
    judge(&mut report);
    let text = status(&report, &look());
    let expected =
        "under way\n  under way: it tells the clients; 188 of 200 clients told\n  grace: 61.4 s left\n";
    assert!(text.contains(expected), "{text}");
    let nfs = &mut report.services[0];
    (nfs.phase, nfs.awaits_finish) = (Some("proved".into()), true);
    judge(&mut report);
    let text = status(&report, &look());
    assert!(text.contains("\n  next: bring its address up, then 'heirlock adopt nfs --finish'\n"), "{text}");
}

#[test]
fn an_adoption_that_waits_in_line_says_for_which_run() {
    let mut report = report();
    let nfs = &mut report.services[0];
    (nfs.phase, nfs.clients_to_tell, nfs.clients_told) = (Some("intent".into()), Some(0), Some(0));
    nfs.waits_for = Some("the lock manager to be restarted for homes first".into());
    judge(&mut report);
    let text = status(&report, &look());
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "under way: it waits in line for the lock manager to be restarted for homes first; 0 of 0 clients told";
    assert!(words.contains(expected), "{text}");
}

#[test]
fn a_standby_says_whose_heart_is_silent_and_what_to_type_and_has_no_alarm_of_its_own_lock_manager() {
    let mut report = report();
    report.services = vec![service("nfs", Some("nfs-a"), false)];
    (report.lock_manager.serving, report.lock_manager.needed) = (false, false);
    judge(&mut report);
    let text = status(&report, &look());
    assert!(text.contains("lock manager  kernel, not serving; nothing here needs it\n"), "{text}");
    assert!(!text.contains("problem"), "{text}");
    let line = checked(&report, crate::control::report::level(&report));
    assert!(line.starts_with("OK - nfs-b: holds no service; its agent and its store work |"), "{line}");
    report.servers = vec![other(Heart::Silent, Some(12_300))];
    judge(&mut report);
    let text = status(&report, &look());
    for part in [
        "nfs-a   silent for 12.3 s\n",
        "\n  next: make sure that nfs-a is off, then 'heirlock adopt nfs\n        --owner-fenced=nfs-a'\n",
        "\n1 problem\n  nfs: its owner nfs-a is silent, and no server serves it\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn several_lock_managers_are_shown_by_name_and_so_are_their_problems() {
    let mut report = report();
    let named = |name: &str, serving| NamedLockManager {
        name: name.into(),
        status: LockManagerStatus { serving, ..report.lock_manager.clone() },
        captures_all: serving,
        services: vec![format!("of-{name}"), "more".into()],
        ..NamedLockManager::default()
    };
    report.lock_managers = vec![named("host", true), named("two", false)];
    let two = LockManagerName::parse("two").unwrap();
    let problem = |kind| Problem::new(kind).saying("EIO").of_lock_manager(Some(&two));
    report.problems =
        vec![problem(ProblemKind::NoLockManager), problem(ProblemKind::MonitorDirectoryUnreadable)];
    let stopped = Ailment { kind: AilmentKind::NoLockManager, error: None }.of_lock_manager(Some(&two));
    report.servers[0].ailments = vec![stopped];
    let text = status(&report, &look());
    for part in [
        "\nlock manager  host: kernel, serving\n              incarnation boot 1b2c, lockd 812\n              of of-host, more\n              its new clients are on record\n",
        "\nlock manager  two: kernel, not serving\n",
        "some of its clients may not be on record\n",
        "\n  lock manager two does not run, though a service that is held here needs it\n",
        "\n  lock manager two: the status monitor's directory can't be read, so new",
        "lock manager two does not run\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn when_a_server_was_stopped_in_order_is_never_cut() {
    let mut report = report();
    report.servers = vec![ServerStatus { last_beat_at_s: Some(look().now_s), ..other(Heart::Paused, None) }];
    let text = status(&report, &look());
    let expected =
        "nfs-a   stopped in order, or in maintenance\n  last beat: at 2026-11-25 10:30:00 by its clock\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn without_an_agent_that_is_said_first_with_the_remedy() {
    let mut report = report();
    report.agent = String::new();
    report.protected_since_s = None;
    report.servers = vec![ServerStatus { last_beat_at_s: Some(look().now_s), ..other(Heart::Unknown, None) }];
    let text = status(&report, &look());
    for part in [
        "nfs-b, heirlock 0.1.0\nagent         no agent answers; ",
        "protected     no: clients that register here are not noticed\n",
        "lock manager  kernel: not known\n",
        "nfs-a   not known, last at 2026-11-25 10:30:00 by its clock\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn the_longest_names_fit_into_80_columns() {
    let mut report = report();
    let mut longest = service(&"s".repeat(64), Some(&"o".repeat(64)), true);
    longest.state_number = Some(u32::MAX);
    longest.records = 200_000;
    report.services.push(longest);
    let text = status(&report, &look());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn however_many_problems_there_are_their_words_are_few_and_the_worst_come_first() {
    let mut report = report();
    let strange = |number: usize| {
        Problem::new(ProblemKind::Other).saying(&format!("sm/{number}: {}", "\u{1b}x".repeat(2_000)))
    };
    report.problems = (0..10_000).map(strange).collect();
    report.problems.push(Problem::new(ProblemKind::StoreFails));
    let text = status(&report, &look());
    assert!(
        text.contains("\n10001 problems\n") && text.contains("and 9901 more, which 'heirlock status"),
        "{text}"
    );
    let line = checked(&report, crate::control::report::level(&report));
    assert!(line.starts_with("CRITICAL - nfs-b: ") && line.contains("; and 9996 more |"), "{line}");
    assert!(line.len() < 4_096 && line.lines().count() == 1, "{} bytes", line.len());
    let worst = in_words(&Problem::new(ProblemKind::StoreFails));
    assert!(line.contains(&format!(": {worst}; ")), "{line}");
}
