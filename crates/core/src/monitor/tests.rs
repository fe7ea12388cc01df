use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const REFUSE: Rules =
    Rules { mon_timeout: Duration::from_millis(500), when_unprotected: WhenUnprotected::Refuse };
const GRANT: Rules = Rules { when_unprotected: WhenUnprotected::Grant, ..REFUSE };

fn at(ms: u64) -> Moment {
    Moment::at(Duration::from_millis(ms))
}

fn name(text: &str) -> MonName {
    MonName::parse(text).unwrap()
}

fn line(client: &str, cookie: u8) -> MonitorLine {
    let mut line = MonitorLine::generated(name(client), MyName::parse("nfs-a").unwrap());
    line.cookie = [cookie; 16];
    line
}

fn caller() -> Caller {
    Caller { my_name: MyName::parse("nfs-a").unwrap(), prog: 100_021, vers: 4, proc_: 16 }
}

fn mon(ticket: u64, client: &str) -> Event {
    Event::Mon { ticket: Ticket(ticket), line: line(client, 1), peer: false }
}

fn answers(step: &Step) -> Vec<(u64, bool)> {
    let answer = |action: &Action| match action {
        Action::Answer { ticket, granted } => Some((ticket.0, *granted)),
        _ => None,
    };
    step.then.iter().filter_map(answer).collect()
}

fn commit(step: &Step) -> Option<(u64, usize)> {
    step.then.iter().find_map(|action| match action {
        Action::Commit { batch, arrivals } => Some((*batch, arrivals.len())),
        _ => None,
    })
}

fn calls(step: &Step) -> Vec<(&str, u8)> {
    let mut found = Vec::new();
    for action in &step.then {
        if let Action::Call { lines, .. } = action {
            found.extend(lines.iter().map(|line| (line.mon_name.as_str(), line.cookie[0])));
        }
    }
    found
}

fn is_acknowledged(step: &Step) -> bool {
    let is = |wanted: fn(&Action) -> bool| step.then.iter().any(wanted);
    assert!(!is(|a| matches!(a, Action::Acknowledge(_))) || !is(|a| matches!(a, Action::LeaveUnanswered(_))));
    is(|action| matches!(action, Action::Acknowledge(_)))
}

fn notified(name: &str, source: &str, state: u32) -> Event {
    let source = source.parse().unwrap();
    Event::Notified { ticket: Ticket(9), name: name.into(), source, state: StateNumber(state) }
}

fn called(client: &str, how: Called) -> Event {
    Event::Called { client: name(client), how }
}

fn registered(rules: Rules, clients: &[&str]) -> Monitor {
    Monitor::new(rules, clients.iter().map(|client| line(client, 1)).collect())
}

#[test]
fn a_new_client_is_answered_only_when_its_record_is_durable() {
    let mut monitor = registered(REFUSE, &[]);
    let asked = monitor.step(at(0), mon(1, "10.0.0.1"));
    assert_eq!((answers(&asked), commit(&asked)), (vec![], Some((1, 1))));
    let done = monitor.step(at(3), Event::Committed { batch: 1, durable: true });
    assert_eq!(answers(&done), [(1, true)]);
    assert_eq!(done.persist, [Persist::Keep(line("10.0.0.1", 1))], "the cookie survives a kill");
    assert!(done.then.contains(&Action::Changed(name("10.0.0.1"))));
}

#[test]
fn a_client_that_is_durable_costs_no_commit_even_with_another_cookie() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    monitor.step(at(0), Event::Durable([name("10.0.0.1")].into()));
    let again = monitor.step(at(1), mon(1, "10.0.0.1"));
    assert_eq!((answers(&again), commit(&again), again.persist.len()), (vec![(1, true)], None, 0));
    let other = Event::Mon { ticket: Ticket(2), line: line("10.0.0.1", 9), peer: false };
    let other = monitor.step(at(2), other);
    assert_eq!((answers(&other), commit(&other)), (vec![(2, true)], None));
    assert_eq!(monitor.lines(&name("10.0.0.1")), [line("10.0.0.1", 9)], "replaced");
}

#[test]
fn clients_that_ask_while_a_commit_is_on_share_the_next() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    for ticket in 2..=64 {
        let step = monitor.step(at(1), mon(ticket, &format!("10.0.0.{ticket}")));
        assert_eq!(step, Batch::nothing());
    }
    // Asked twice: answered twice.
    monitor.step(at(1), mon(65, "10.0.0.64"));
    let first = monitor.step(at(2), Event::Committed { batch: 1, durable: true });
    assert_eq!((answers(&first), commit(&first)), (vec![(1, true)], Some((2, 64))));
    let second = monitor.step(at(4), Event::Committed { batch: 2, durable: true });
    assert_eq!(answers(&second).len(), 64);
}

#[test]
fn a_commit_waits_a_moment_for_as_many_registrations_as_shared_the_last_one() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    (2..=4).for_each(|n| assert_eq!(commit(&monitor.step(at(1), mon(n, &format!("10.0.0.{n}")))), None));
    let shared = monitor.step(at(2), Event::Committed { batch: 1, durable: true });
    assert_eq!(commit(&shared), Some((2, 3)));
    monitor.step(at(4), Event::Committed { batch: 2, durable: true });
    // As many ask again: they wait for the last of them, and for nothing else.
    for n in 11..=12 {
        assert_eq!(commit(&monitor.step(at(5), mon(n, &format!("10.0.0.{n}")))), None);
        assert_eq!(monitor.next_timeout(), Some(at(5) + limits::MON_GATHER_TIME));
    }
    assert_eq!(commit(&monitor.step(at(5), mon(13, "10.0.0.13"))), Some((3, 3)));
    monitor.step(at(8), Event::Committed { batch: 3, durable: true });
    // Fewer ask: they wait for a moment, and the next for fewer.
    monitor.step(at(10), mon(21, "10.0.0.21"));
    let late = at(10) + limits::MON_GATHER_TIME;
    assert_eq!(commit(&monitor.step(late, Event::Tick)), Some((4, 1)));
    monitor.step(at(14), Event::Committed { batch: 4, durable: true });
    assert_eq!(commit(&monitor.step(at(15), mon(31, "10.0.0.31"))), Some((5, 1)));
}

#[test]
fn after_one_time_out_clients_are_refused_at_once_until_a_probe_succeeds() {
    let mut monitor = registered(REFUSE, &["10.0.0.9"]);
    monitor.step(at(0), Event::Durable([name("10.0.0.9")].into()));
    monitor.step(at(0), mon(1, "10.0.0.1"));
    assert_eq!(monitor.next_timeout(), Some(at(500)));
    assert_eq!(monitor.step(at(499), Event::Tick), Batch::nothing());
    assert_eq!(answers(&monitor.step(at(500), Event::Tick)), [(1, false)]);
    assert_eq!(answers(&monitor.step(at(501), mon(2, "10.0.0.2"))), [(2, false)], "at once");
    assert_eq!(answers(&monitor.step(at(501), mon(3, "10.0.0.9"))), [(3, true)], "who is known goes on");
    // The commit that took too long fails in the end, and then the store is tried.
    assert_eq!(monitor.next_timeout(), None, "the commit that is on is a probe by itself");
    monitor.step(at(900), Event::Committed { batch: 1, durable: false });
    assert_eq!(monitor.next_timeout(), Some(at(1100)));
    assert_eq!(monitor.step(at(1100), Event::Tick).then, [Action::Probe]);
    assert_eq!(monitor.step(at(1101), Event::Tick).then, [], "one at a time");
    monitor.step(at(1200), Event::Probed(false));
    assert_eq!(answers(&monitor.step(at(1201), mon(4, "10.0.0.2"))), [(4, false)]);
    assert_eq!(monitor.step(at(1400), Event::Tick).then, [Action::Probe]);
    monitor.step(at(1401), Event::Probed(true));
    assert!(commit(&monitor.step(at(1402), mon(5, "10.0.0.2"))).is_some());
    assert_eq!(monitor.standing().refused, 3);
    let refusals = Refusals { late: 1, store_fails: 2, ..Refusals::default() };
    assert_eq!(monitor.standing().refusals, refusals);
}

#[test]
fn a_lock_manager_that_holds_no_service_refuses_for_that_reason_until_it_holds_one() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    assert_eq!(answers(&monitor.step(at(2), Event::HoldsNothing { batch: 1 })), [(1, false)]);
    assert_eq!(answers(&monitor.step(at(3), mon(2, "10.0.0.2"))), [(2, false)], "at once");
    monitor.step(at(300), Event::Tick);
    monitor.step(at(301), Event::Probed(false));
    assert_eq!(answers(&monitor.step(at(302), mon(3, "10.0.0.2"))), [(3, false)]);
    let standing = monitor.standing();
    assert_eq!(standing.refusals, Refusals { no_service: 3, ..Refusals::default() });
    assert!(standing.failing && standing.holds_nothing && standing.refused == 3);
    // It holds one now, and the store fails.
    monitor.step(at(600), Event::Tick);
    monitor.step(at(601), Event::Probed(true));
    monitor.step(at(602), mon(4, "10.0.0.2"));
    monitor.step(at(603), Event::Committed { batch: 2, durable: false });
    monitor.step(at(604), mon(5, "10.0.0.2"));
    let refusals = Refusals { no_service: 3, late: 1, store_fails: 1, ..Refusals::default() };
    assert_eq!((monitor.standing().refusals, monitor.standing().holds_nothing), (refusals, false));
}

#[test]
fn a_commit_that_succeeds_too_late_ends_the_refusals() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    monitor.step(at(500), Event::Tick);
    let late = monitor.step(at(800), Event::Committed { batch: 1, durable: true });
    assert_eq!(answers(&late), [], "it was refused already");
    assert!(!monitor.standing().failing);
    assert_eq!(answers(&monitor.step(at(801), mon(2, "10.0.0.1"))), [(2, true)], "durable by now");
}

#[test]
fn a_commit_that_fails_refuses_all_registrations_that_wait_for_it() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    monitor.step(at(0), mon(2, "10.0.0.2"));
    let failed = monitor.step(at(2), Event::Committed { batch: 1, durable: false });
    assert_eq!((answers(&failed), commit(&failed)), (vec![(1, false), (2, false)], None));
    assert_eq!(monitor.lines(&name("10.0.0.1")), [], "lockd was told that it isn't monitored");
}

#[test]
fn a_status_monitor_that_is_to_grant_lists_clients_at_risk_until_the_store_catches_up() {
    let mut monitor = registered(GRANT, &[]);
    monitor.step(at(0), mon(1, "10.0.0.1"));
    let granted = monitor.step(at(500), Event::Tick);
    assert_eq!(answers(&granted), [(1, true)]);
    assert!(granted.then.contains(&Action::Changed(name("10.0.0.1"))), "so that a look finds it");
    assert_eq!(monitor.standing().at_risk, [name("10.0.0.1")]);
    monitor.step(at(900), Event::Durable([name("10.0.0.1")].into()));
    assert_eq!(monitor.standing().at_risk, []);
}

#[test]
fn a_peer_is_never_refused_for_want_of_a_store() {
    let mut monitor = registered(REFUSE, &[]);
    let asked = Event::Mon { ticket: Ticket(1), line: line("10.0.0.7", 1), peer: true };
    monitor.step(at(0), asked.clone());
    assert_eq!(answers(&monitor.step(at(500), Event::Tick)), [(1, true)]);
    assert_eq!(answers(&monitor.step(at(501), asked)), [(1, true)]);
    let (refused, refusals) = (monitor.standing().refused, monitor.standing().refusals);
    assert_eq!((refused, refusals), (0, Refusals { granted_all_the_same: 2, ..Refusals::default() }));
}

#[test]
fn unmon_takes_the_registration_and_leaves_the_store_alone() {
    let mut monitor = registered(REFUSE, &["10.0.0.1", "10.0.0.2"]);
    monitor.step(at(0), Event::Durable([name("10.0.0.1"), name("10.0.0.2")].into()));
    let gone = monitor.step(at(1), Event::Unmon { mon_name: name("10.0.0.1"), caller: caller() });
    assert_eq!(gone.persist, [Persist::Drop(line("10.0.0.1", 1))]);
    assert_eq!(gone.then, [Action::Changed(name("10.0.0.1"))]);
    assert_eq!(answers(&monitor.step(at(2), mon(1, "10.0.0.1"))), [(1, true)], "still durable");
    // Under another name none is registered.
    let other = Caller { my_name: MyName::parse("other").unwrap(), ..caller() };
    assert_eq!(monitor.step(at(3), Event::UnmonAll(other)), Batch::nothing());
    assert_eq!(monitor.step(at(3), Event::UnmonAll(caller())).persist.len(), 2);
}

#[test]
fn a_client_that_is_registered_or_waits_can_not_be_forgotten_and_a_forgotten_one_is_committed_anew() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    monitor.step(at(0), Event::Durable([name("10.0.0.1")].into()));
    assert!(!monitor.may_forget(&name("10.0.0.1")));
    monitor.step(at(0), mon(1, "10.0.0.2"));
    assert!(!monitor.may_forget(&name("10.0.0.2")));
    monitor.step(at(1), Event::Unmon { mon_name: name("10.0.0.1"), caller: caller() });
    assert!(monitor.may_forget(&name("10.0.0.1")));
    monitor.step(at(2), Event::Committed { batch: 1, durable: true });
    assert!(commit(&monitor.step(at(3), mon(3, "10.0.0.1"))).is_some());
}

#[test]
fn a_notification_calls_for_the_client_that_its_name_or_source_matches_once_a_number() {
    let mut monitor = registered(REFUSE, &["10.0.0.1", "client2.example.com"]);
    let by_source = monitor.step(at(0), notified("another", "10.0.0.1", 5));
    assert_eq!(calls(&by_source), [("10.0.0.1", 1)]);
    assert_eq!(calls(&monitor.step(at(1), notified("10.0.0.1", "10.9.9.9", 5))), [], "it is being told");
    let by_name = monitor.step(at(2), notified("CLIENT2.example.com", "10.9.9.9", 5));
    assert_eq!(calls(&by_name), [("client2.example.com", 1)]);
    monitor.step(at(5), called("10.0.0.1", Called::Taken));
    let again = monitor.step(at(6), notified("x", "10.0.0.1", 5));
    assert_eq!((again.persist.as_slice(), calls(&again)), (&[][..], vec![]), "the same number again");
    assert!(is_acknowledged(&again));
    let lower = monitor.step(at(5_000), notified("x", "10.0.0.1", 3));
    assert_eq!(calls(&lower).len(), 1, "a lower one differs too");
    assert_eq!(calls(&monitor.step(at(5_001), notified("x", "10.0.0.77", 3))), []);
}

#[test]
fn a_call_to_the_lock_manager_is_on_record_before_the_answer_and_until_it_was_made() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    let asked = monitor.step(at(0), notified("x", "10.0.0.1", 5));
    assert_eq!(asked.persist, [Persist::Owe(name("10.0.0.1"), StateNumber(5))]);
    assert!(is_acknowledged(&asked));
    let failed = monitor.step(at(1), called("10.0.0.1", Called::Untaken));
    assert_eq!((failed.persist.as_slice(), monitor.standing().owed), (&[][..], 1));
    // Killed, and started again with what is on record.
    let owed = [(name("10.0.0.1"), StateNumber(5))].into();
    let mut next = Monitor::resumed(REFUSE, vec![line("10.0.0.1", 1)], owed);
    assert!(next.next_timeout().is_some_and(|due| due <= at(0)));
    assert_eq!(calls(&next.step(at(0), Event::Tick)), [("10.0.0.1", 1)]);
    assert_eq!(
        next.step(at(1), called("10.0.0.1", Called::Taken)).persist,
        [Persist::Paid(name("10.0.0.1"))]
    );
    assert_eq!(next.standing().owed, 0);
}

/// A monitor that was started anew, and that a known client asks 100 ms after that.
fn resumed_and_asked() -> Monitor {
    let rules = Rules { mon_timeout: Duration::from_secs(2), ..REFUSE };
    let mut monitor = Monitor::resumed(rules, vec![line("10.0.0.1", 1)], BTreeMap::new());
    assert_eq!(answers(&monitor.step(at(100), mon(1, "10.0.0.1"))), []);
    assert_eq!(monitor.next_timeout(), Some(at(100) + limits::MON_CONFIRMED_TIME_MAX));
    monitor
}

#[test]
fn a_known_client_of_an_earlier_run_waits_until_it_is_known_which_are_durable_and_no_longer_than_it_may() {
    let mut monitor = resumed_and_asked();
    let durable = monitor.step(at(200), Event::Durable([name("10.0.0.1")].into()));
    assert_eq!(answers(&durable), [(1, true)]);
    assert_eq!(answers(&monitor.step(at(201), mon(2, "10.0.0.1"))), [(2, true)], "at once from now on");

    let mut monitor = resumed_and_asked();
    let due = at(100) + limits::MON_CONFIRMED_TIME_MAX;
    assert_eq!(answers(&monitor.step(due, Event::Tick)), [(1, true)], "the store is slow or away");
    assert_eq!(answers(&monitor.step(due, mon(2, "10.0.0.1"))), [(2, true)], "nor does the next one wait");
}

#[test]
fn a_known_client_that_a_service_lacks_which_is_held_since_waits_for_a_commit() {
    let mut monitor = resumed_and_asked();
    let durable = monitor.step(at(200), Event::Durable(BTreeSet::new()));
    assert_eq!((answers(&durable), commit(&durable)), (vec![], Some((1, 1))));
    assert_eq!(monitor.next_timeout(), Some(at(2_100)), "as any other, since it asked");
    let done = monitor.step(at(300), Event::Committed { batch: 1, durable: true });
    assert_eq!(answers(&done), [(1, true)]);
}

#[test]
fn a_flood_of_numbers_for_one_client_is_one_call_at_a_time_and_one_line_on_record() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    let (mut records, mut made) = (0, 0);
    for number in 1..=10_000 {
        let step = monitor.step(at(0), notified("x", "10.0.0.1", number));
        assert!(is_acknowledged(&step));
        records += step.persist.len();
        made += calls(&step).len();
    }
    assert_eq!((records, made), (1, 1));
    monitor.step(at(1), called("10.0.0.1", Called::Taken));
    let later = at(1) + limits::DOWNCALL_SPACING;
    assert_eq!(monitor.next_timeout(), Some(later));
    let step = monitor.step(later, Event::Tick);
    assert!(matches!(&step.then[..], [Action::Call { state: StateNumber(10_000), .. }]), "{step:?}");
}

#[test]
fn a_notification_that_matches_no_registered_client_costs_no_record() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    for number in 0..10_000_u32 {
        let source = std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string();
        let step = monitor.step(at(0), notified(&source, &source, number));
        assert!(step.persist.is_empty() && calls(&step).is_empty() && is_acknowledged(&step));
    }
}

#[test]
fn a_notification_that_finds_no_room_is_not_answered() {
    let clients: Vec<MonitorLine> = (0..limits::DOWNCALLS_OWED_MAX + 1)
        .map(|number| {
            line(&std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap()).to_string(), 1)
        })
        .collect();
    let mut monitor = Monitor::new(REFUSE, clients.clone());
    let mut answered = 0;
    for client in &clients {
        answered +=
            usize::from(is_acknowledged(&monitor.step(at(0), notified("x", client.mon_name.as_str(), 5))));
    }
    assert_eq!(answered, limits::DOWNCALLS_OWED_MAX);
    assert_eq!((monitor.standing().owed, monitor.standing().left_unanswered), (answered, 1));
}

#[test]
fn a_client_that_is_unmonitored_is_owed_nothing() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    monitor.step(at(0), notified("x", "10.0.0.1", 5));
    monitor.step(at(1), Event::Unmon { mon_name: name("10.0.0.1"), caller: caller() });
    monitor.step(at(2), called("10.0.0.1", Called::Untaken));
    let due = monitor.next_timeout().unwrap();
    let step = monitor.step(due, Event::Tick);
    assert_eq!((step.persist, step.then), (vec![Persist::Paid(name("10.0.0.1"))], vec![]));
}

fn look_ups(step: &Step) -> usize {
    step.then.iter().filter(|action| matches!(action, Action::LookUp { .. })).count()
}

#[test]
fn a_name_that_matches_no_client_is_looked_up_and_answered_afterwards() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    let step = monitor.step(at(0), notified("client1", "10.9.9.9", 5));
    let look_up = Action::LookUp { ticket: Ticket(9), name: "client1".into(), state: StateNumber(5) };
    assert_eq!(step.then, [look_up], "and no answer");
    let addresses = vec!["10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()];
    let found = monitor.step(
        at(1),
        Event::LookedUp { ticket: Ticket(9), addresses: Some(addresses), state: StateNumber(5) },
    );
    assert_eq!(found.persist, [Persist::Owe(name("10.0.0.1"), StateNumber(5))]);
    assert!(is_acknowledged(&found) && calls(&found).len() == 1);
    monitor.step(at(2_000), notified("client1", "10.9.9.9", 5));
    let none = Event::LookedUp { ticket: Ticket(9), addresses: Some(Vec::new()), state: StateNumber(5) };
    let step = monitor.step(at(2_001), none);
    assert!(step.persist.is_empty() && is_acknowledged(&step), "it is none of our clients");
}

#[test]
fn a_flood_of_names_makes_few_look_ups_and_what_was_not_looked_up_is_not_answered() {
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    let (mut asked, mut unanswered) = (0, 0);
    for number in 0..3_000_u64 {
        let source = std::net::Ipv4Addr::from(0x0b00_0000 + u32::try_from(number).unwrap()).into();
        let ticket = Ticket(number);
        let event = Event::Notified { ticket, name: format!("host{number}"), source, state: StateNumber(5) };
        let step = monitor.step(at(number), event);
        match look_ups(&step) {
            0 => unanswered += u64::from(!is_acknowledged(&step)),
            _ => asked += 1,
        }
    }
    // None of them has come to an end.
    assert_eq!((asked, unanswered), (limits::LOOK_UPS_AT_ONCE_MAX, 3_000 - 4));
    // One source has one at a time.
    let mut monitor = registered(REFUSE, &["10.0.0.1"]);
    assert_eq!(look_ups(&monitor.step(at(0), notified("a", "10.9.9.9", 5))), 1);
    assert_eq!(look_ups(&monitor.step(at(5_000), notified("b", "10.9.9.9", 5))), 0);
    let other = Event::Notified {
        ticket: Ticket(10),
        name: "b".into(),
        source: "10.9.9.8".parse().unwrap(),
        state: StateNumber(5),
    };
    assert_eq!(look_ups(&monitor.step(at(5_000), other)), 1);
}

#[test]
fn a_client_has_so_many_registrations_and_no_more() {
    let mut monitor = registered(REFUSE, &[]);
    monitor.step(at(0), Event::Durable([name("10.0.0.1")].into()));
    for i in 0..=limits::MON_LINES_MAX {
        let mut line = line("10.0.0.1", 1);
        line.my_name = MyName::parse(&format!("nfs-{i}")).unwrap();
        let step = monitor.step(at(1), Event::Mon { ticket: Ticket(1), line, peer: false });
        assert_eq!(answers(&step), [(1, i < limits::MON_LINES_MAX)], "{i}");
    }
}

proptest! {
    /// For all events in any order: each request is answered exactly once, within the time limit, and a client
    /// is granted under "refuse" only if a commit made it durable or the store was said to know it.
    #[test]
    fn no_client_is_granted_without_being_durable(
        events in prop::collection::vec((0_u8..9, 0_u8..6, 0_u64..300), 1..80)
    ) {
        let mut monitor = registered(REFUSE, &[]);
        let (mut now, mut tickets) = (0, 0);
        let mut open: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
        let mut durable: BTreeSet<u8> = BTreeSet::new();
        let mut flight: Option<(u64, Vec<u8>)> = None;
        for (kind, who, later) in events {
            now += later;
            let client = format!("10.0.0.{who}");
            // The server never sleeps past a time-out.
            let mut steps = Vec::new();
            while let Some(due) = monitor.next_timeout().filter(|due| *due <= at(now)) {
                steps.push((due, monitor.step(due, Event::Tick)));
                if monitor.next_timeout() == Some(due) { break; }
            }
            let event = match kind {
                0..=3 => {
                    tickets += 1;
                    open.insert(tickets, (who, now));
                    mon(tickets, &client)
                }
                4 => match flight.take() {
                    Some((batch, clients)) => {
                        durable.extend(clients);
                        Event::Committed { batch, durable: true }
                    }
                    None => Event::Tick,
                },
                5 => match flight.take() {
                    Some((batch, _)) => Event::Committed { batch, durable: false },
                    None => Event::Probed(later % 2 == 0),
                },
                6 => Event::Unmon { mon_name: name(&client), caller: caller() },
                7 => {
                    if monitor.may_forget(&name(&client)) {
                        durable.remove(&who);
                    }
                    Event::Tick
                }
                // The store came to know one more by itself (a look at the directory, an adoption), or was read anew, and one is
                // missing that was there.
                _ => {
                    if later % 3 > 0 {
                        durable.insert(who);
                    } else {
                        durable.remove(&who);
                    }
                    let known = durable.iter().map(|who| name(&format!("10.0.0.{who}")));
                    Event::Durable(known.collect())
                }
            };
            steps.push((at(now), monitor.step(at(now), event)));
            for (when, step) in steps {
                for (ticket, granted) in answers(&step) {
                    let (who, since) = open.remove(&ticket).expect("answered once");
                    prop_assert!(when.since(at(since)) <= REFUSE.mon_timeout);
                    prop_assert!(!granted || durable.contains(&who), "granted though not durable");
                }
                if let Some(Action::Commit { batch, arrivals }) =
                    step.then.iter().find(|action| matches!(action, Action::Commit { .. }))
                {
                    prop_assert!(flight.is_none(), "one commit at a time");
                    let last = |a: &Arrival| a.line.mon_name.as_str().rsplit('.').next().unwrap().parse().unwrap();
                    flight = Some((*batch, arrivals.iter().map(last).collect()));
                }
            }
        }
        let end = monitor.step(at(now + 1_000), Event::Tick);
        for (ticket, _) in answers(&end) { open.remove(&ticket); }
        prop_assert!(open.is_empty(), "no request waits for ever");
    }
}
