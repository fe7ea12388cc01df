use super::*;

const HARM: Harm = Harm { granted_to_another: true, holder_still_believes: true };

fn report() -> DemoReport {
    DemoReport {
        clients: 2,
        acknowledged: 2,
        re_registered: 2,
        unreachable: 0,
        lost: 0,
        state_number: 9,
        primary_state_number: 7,
        told: 2,
        locks_held_again: 2,
        without_heirlock: HARM,
        rival: Answers { refused: 7, granted: 0 },
        timeline: vec![
            entry("captured", -12),
            entry("claimed", 3_010),
            entry("first-notified", 3_050),
            entry("last-lock-held-again", 3_100),
        ],
        slowest: vec![Slow { client: "127.201.0.1".into(), at_ms: 3_100 }],
        failed: Vec::new(),
        contradictions: Vec::new(),
        records_at: "/tmp/x/store/services/homes/2/sm".into(),
        kept: false,
        store: "store",
        folder: "/tmp/x".into(),
    }
}

#[test]
fn all_is_well_only_under_a_new_odd_number_that_every_client_saw() {
    assert!(report().all_is_well());
    for bad in [
        DemoReport { state_number: 7, ..report() },
        DemoReport { state_number: 8, ..report() },
        DemoReport { acknowledged: 1, unreachable: 1, ..report() },
        DemoReport { told: 1, ..report() },
        DemoReport { contradictions: vec!["x".into()], ..report() },
    ] {
        assert!(!bad.all_is_well(), "{bad:?}");
        assert!(!bad.verdict().contains("Every client was told"));
    }
}

fn adoption() -> AdoptionReport {
    serde_json::from_value(serde_json::json!({
        "service": "homes", "generation": 2, "state_number": 9, "strategy": "command", "phase": "settled",
        "clients": 2, "re_registered": 2, "acknowledged": 2, "unreachable": 0, "lost": 0, "unknown": 0,
        "timeline": [{"event": "first-notified", "at_ms": 100}], "slowest": [], "failed": [], "others": [],
        "records_at": "/x", "started_at_s": 0
    }))
    .unwrap()
}

#[test]
fn the_agents_word_is_held_against_the_clients() {
    let options = Options { clients: 2, unreachable: 0, keep: false, page: None, store: StoreKind::Dir };
    let account = || Account { living: 2, told: 2, held_again: 2, ..Account::default() };
    assert_eq!(account().contradictions(&adoption(), &options), Vec::<String>::new());
    let without = vec!["127.201.0.2".to_owned()];
    for (account, word) in [
        (Account { told: 1, ..account() }, "2 clients acknowledged, and 1 were told as they should be"),
        (Account { without, ..account() }, "the first is 127.201.0.2"),
    ] {
        let found = account.contradictions(&adoption(), &options);
        assert!(found.iter().any(|text| text.contains(word)), "{found:?}");
    }
    let one_forgotten = AdoptionReport { clients: 1, acknowledged: 1, ..adoption() };
    let found = Account { told: 1, living: 2, ..account() }.contradictions(&one_forgotten, &options);
    assert_eq!(found.len(), 2, "it was never captured, and never told: {found:?}");
}

#[test]
fn the_agents_times_are_counted_from_the_kill() {
    let account = Account { told_at: vec![3_400, 3_350], ..Account::default() };
    let settled_at = |at_ms| {
        let mut adoption = adoption();
        let event = Milestone::Settled;
        adoption.timeline.push(crate::control::report::TimelineEntry { event, at_ms });
        shift_ms(&adoption, &account)
    };
    assert_eq!(shift_ms(&adoption(), &account), 3_250);
    assert_eq!(settled_at(500), 3_250);
    assert_eq!(settled_at(120), 3_280, "it settled after the last client was told");
}

#[test]
fn a_demo_without_its_harm_or_with_a_stolen_lock_is_not_well() {
    let now = Instant::now();
    let scene = |harm, granted| Scene {
        harm,
        rival: Answers { refused: 1, granted },
        captured_at: now,
        lost_at: now,
    };
    assert_eq!(scene(HARM, 0).contradictions(), Vec::<String>::new());
    assert_eq!(scene(HARM, 1).contradictions().len(), 1);
    assert_eq!(scene(Harm { granted_to_another: false, ..HARM }, 0).contradictions().len(), 1);
}

#[test]
fn the_screen_fits_and_tells_the_whole_story() {
    let options =
        Options { clients: 5_000, unreachable: 4_999, keep: false, page: None, store: StoreKind::Dir };
    let missed = |client: &str| Missed {
        client: client.into(),
        outcome: Outcome::Unreachable,
        why: "it has lost its power, and does not answer".into(),
    };
    let report = DemoReport { failed: vec![missed("127.201.0.249")], unreachable: 1, ..report() };
    let screen = [first_part(), outcome_of_the_first_part(HARM), second_part(&options), report.text()];
    let screen = screen.join("\n");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    for part in
        ["127.202.0.1 asks for the same lock, and gets it", "Two programs write", "have their lock back"]
    {
        assert!(screen.contains(part), "{part} in {screen}");
    }
    assert_eq!(report.stretches().len(), 3);
}
