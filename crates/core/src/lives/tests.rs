use super::*;
use crate::names::ServerName;
use crate::takeover::{Journal, Part, Phase, Until};

fn at(seconds: u64) -> Moment {
    Moment::at(Duration::from_secs(seconds))
}

fn seen(start: &str) -> Observation {
    Observation { boot: "b".into(), start: Some(start.into()), in_grace: Some(false), serving: true }
}

fn stopped() -> Observation {
    Observation { start: None, serving: false, ..seen("") }
}

fn life(start: &str, reopened: u32) -> Incarnation {
    Incarnation { boot: "b".into(), start: start.into(), reopened }
}

fn done(start: &str, in_place: bool) -> Recognised {
    Recognised {
        observation: seen(start),
        in_place,
        grace_opened: at(50),
        grace_length: Duration::from_secs(20),
        too_late_for_the_lost: false,
    }
}

/// Grace of the life that is known did not open before that.
fn opened_at(seconds: u64) -> Recalled {
    Recalled { opened: Some(at(seconds)), ..Recalled::default() }
}

/// Life 1 was known to the store, and was looked at twice.
fn at_home() -> Lives {
    let mut lives = Lives::new(Some(life("1", 0)), Recalled::default());
    assert_eq!((lives.looked(at(10), &seen("1")), lives.looked(at(12), &seen("1"))), (None, None));
    assert!(!lives.is_reborn() && lives.is_serving());
    lives
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn journal(phase: Phase, life: Option<Incarnation>) -> Journal {
    Journal { phase, life, ..Journal::quiet("r", &ServerName::parse("nfs-b").unwrap(), 0) }
}

fn holding<'a>(service: &'a ServiceName, journal: &'a Journal) -> Holding<'a> {
    Holding { service, journal, has_clients: true, has_left: false }
}

#[test]
fn a_life_that_a_look_shows_began_after_the_look_before() {
    let mut lives = at_home();
    assert_eq!(lives.looked(at(14), &seen("2")), Some(Begun { life: life("2", 0), since: Some(at(12)) }));
    assert_eq!((lives.grace_seen(), lives.is_reborn()), (Some(at(12)), true));
    let mut fresh = Lives::new(None, Recalled::default());
    assert_eq!(fresh.looked(at(3), &seen("1")), Some(Begun { life: life("1", 0), since: None }));
    assert_eq!(fresh.grace_seen(), None, "nothing is known of its age");
}

#[test]
fn a_lock_manager_that_has_stopped_shows_no_life_that_goes_on() {
    let mut lives = Lives::new(Some(life("1", 0)), opened_at(5));
    assert_eq!((lives.looked(at(6), &seen("1")), lives.looked_at()), (None, Some(at(6))));
    assert_eq!((lives.grace_seen(), lives.to_recover_in()), (Some(at(5)), Some(&life("1", 0))));
    assert_eq!(lives.looked(at(8), &stopped()), None);
    assert_eq!((lives.looked_at(), lives.grace_seen(), lives.running()), (None, None, None));
    assert_eq!((lives.current(), lives.to_recover_in()), (Some(&life("1", 0)), None));
    let not_served = Observation { serving: false, ..seen("1") };
    assert_eq!(lives.looked(at(9), &not_served), None);
    assert_eq!((lives.running(), lives.to_recover_in()), (Some(&life("1", 0)), None));
}

#[test]
fn deletions_count_while_clients_are_served_and_no_run_is_on() {
    let mut lives = at_home();
    let _ = lives.looked(at(13), &seen("1"));
    assert_eq!(lives.where_deletions_count(at(13), false), Some(&life("1", 0)));
    assert_eq!(lives.where_deletions_count(at(13), true), None);
    let _ = lives.looked(at(14), &stopped());
    assert_eq!(lives.where_deletions_count(at(14), false), None);
}

/// An agent that stood still finds the hint of a deletion in its queue before the look that shows another life.
#[test]
fn deletions_do_not_count_in_a_life_that_no_look_has_shown_lately() {
    let mut lives = at_home();
    let _ = lives.looked(at(20), &seen("1"));
    let until = at(20) + limits::LOOK_AGE_MAX;
    assert_eq!(lives.where_deletions_count(until, false), Some(&life("1", 0)));
    assert_eq!(lives.where_deletions_count(until + Duration::from_millis(1), false), None);
    let _ = lives.looked(at(60), &seen("1"));
    assert_eq!(lives.where_deletions_count(at(61), false), Some(&life("1", 0)));
}

#[test]
fn the_consequences_of_a_recognition_that_is_awaited_are_its_runs_task() {
    for (start, in_place, reopened) in [("2", false, 0), ("1", true, 1)] {
        let mut lives = at_home();
        let (begun, recognition) = lives.recognised(&done(start, in_place), true);
        assert_eq!((begun, lives.is_reborn()), (None, false));
        assert_eq!(recognition.unwrap().life, life(start, reopened));
        assert_eq!(lives.grace_seen(), Some(at(50)));
    }
}

#[test]
fn a_recognition_that_no_run_awaits_is_a_life_that_began_as_any_other_does() {
    for (start, in_place, reopened) in [("2", false, 0), ("1", true, 1)] {
        let mut lives = at_home();
        let (begun, recognition) = lives.recognised(&done(start, in_place), false);
        assert_eq!(begun, Some(Begun { life: life(start, reopened), since: Some(at(50)) }));
        assert!(lives.is_reborn() && recognition.is_ok());
        // Clients without a noted life had their locks in the life that it ended.
        let (name, met) = (service("nfs"), journal(Phase::Settled, None));
        assert_eq!(lives.owed([holding(&name, &met)]).lost, std::slice::from_ref(&name));
    }
    let mut lives = at_home();
    assert_eq!(lives.recognised(&done("1", false), false).0, None, "the life goes on");
    assert!(!lives.is_reborn());
}

#[test]
fn nothing_is_recognised_by_a_lock_manager_that_does_not_run() {
    for awaited in [true, false] {
        let mut lives = Lives::new(Some(life("1", 0)), opened_at(5));
        let gone = Recognised { observation: stopped(), ..done("1", false) };
        let (begun, recognition) = lives.recognised(&gone, awaited);
        assert_eq!((begun, recognition), (None, Err("no lock manager runs".into())));
        assert_eq!(lives.grace_seen(), awaited.then_some(at(5)));
    }
}

#[test]
fn an_answer_of_the_life_before_tells_nothing_of_clients_without_a_noted_life() {
    let mut lives = at_home();
    let (name, met) = (service("nfs"), journal(Phase::Settled, None));
    let owed = |lives: &Lives| {
        let owed = lives.owed([holding(&name, &met)]);
        (owed.unknown.len(), owed.lost.len(), owed.fresh.len())
    };
    assert_eq!(owed(&lives), (1, 0, 0));
    assert_eq!(lives.told_of_earlier_locks(&life("0", 0), Probe::InGrace), None);
    assert_eq!(owed(&lives), (1, 0, 0));
    assert_eq!(lives.told_of_earlier_locks(&life("1", 0), Probe::InGrace), Some(EarlierLocks::Lost));
    assert_eq!(owed(&lives), (0, 1, 0));
    assert_eq!(lives.told_of_earlier_locks(&life("1", 0), Probe::NotInGrace), Some(EarlierLocks::Alive));
    assert_eq!(owed(&lives), (0, 0, 1));
    let _ = lives.looked(at(14), &seen("2"));
    assert_eq!(owed(&lives), (0, 1, 0), "it began under our eyes");
    lives.followed_up(true, true);
    assert_eq!(owed(&lives), (1, 0, 0), "who is met later is asked about again");
}

#[test]
fn another_life_is_followed_up_by_a_run_that_is_on_and_by_none_that_was_refused() {
    for (began, is_on, reborn) in [(true, true, false), (true, false, true), (false, false, false)] {
        let mut lives = at_home();
        let _ = lives.looked(at(14), &seen("2"));
        lives.followed_up(began, is_on);
        assert_eq!(lives.is_reborn(), reborn);
    }
    let mut lives = at_home();
    lives.run_ended(at(20), &End::Settled(Vec::new()), true);
    assert!(!lives.is_reborn(), "it did what followed");
    lives.run_ended(at(20), &End::Refused("no".into()), false);
    assert!(!lives.is_reborn(), "nothing followed");
    lives.run_ended(at(20), &End::Refused("no".into()), true);
    assert!(lives.is_reborn(), "what it was to do is still to be done");
}

#[test]
fn duties_ask_for_a_run_of_their_own_or_wait_for_one_that_tells_their_clients_too() {
    let mut lives = at_home();
    let name = service("nfs");
    let [lost, whole] = ["0", "1"].map(|start| journal(Phase::Settled, Some(life(start, 0))));
    let members = vec![(name.clone(), Part::Target)];
    let cut = Journal { members, until: Until::Prepared, ..journal(Phase::Claimed, None) };
    let next = |lives: &Lives, now: u64, of: &Journal, is_asked: bool| {
        lives.next(at(now), &lives.owed([holding(&name, of)]), is_asked)
    };
    assert_eq!(next(&lives, 20, &whole, false), Next::Nothing);
    for is_asked in [true, false] {
        assert_eq!(next(&lives, 20, &lost, is_asked), Next::Begin(Order::own_restart()));
    }
    let Next::Begin(order) = next(&lives, 20, &cut, false) else { panic!() };
    assert_eq!(
        (order.cause, order.until, order.targets),
        (Cause::Asked, Until::Prepared, vec![name.clone()])
    );
    assert_eq!(next(&lives, 20, &cut, true), Next::Later, "what is asked for tells them as well");
    lives.run_ended(at(20), &End::Refused("no".into()), false);
    assert_eq!(next(&lives, 20, &cut, false), Next::Later, "it would be refused again");
    assert_eq!(next(&lives, 20, &lost, false), Next::Begin(Order::own_restart()));
    assert!(matches!(next(&lives, 60, &cut, false), Next::Begin(_)));
    lives.run_ended(at(60), &End::Settled(Vec::new()), false);
    assert!(matches!(next(&lives, 60, &cut, false), Next::Begin(_)));
}

#[test]
fn a_server_stands_as_its_holdings_and_its_lock_manager_do() {
    let mut lives = at_home();
    let host = ServiceName::host(&ServerName::parse("nfs-b").unwrap());
    let (nfs, given) = (service("nfs"), service("given"));
    let [of_host, of_nfs] = ["1", "0"].map(|start| journal(Phase::Settled, Some(life(start, 0))));
    let gone = Holding { has_left: true, ..holding(&given, &of_nfs) };
    let stands = |lives: &Lives| {
        let held = [holding(&host, &of_host), holding(&nfs, &of_nfs), gone];
        lives.standing(&host, held.into_iter())
    };
    let standing = stands(&lives);
    assert_eq!(
        standing.own,
        [host.clone(), nfs.clone(), given.clone()],
        "one that is being given up would lose its locks"
    );
    assert_eq!((standing.lost, standing.unknown), (vec![nfs.clone()], Vec::new()));
    assert_eq!((standing.life_before, standing.life_now), (Some(life("1", 0)), Some(life("1", 0))));
    let _ = lives.looked(at(14), &stopped());
    assert_eq!(stands(&lives).life_now, None);
}

#[test]
fn grace_is_counted_from_the_restart_and_the_lost_may_be_too_late() {
    let work = Recognising {
        strategy: Strategy::RestartNfs,
        before: at(30),
        grace_seen: Some(at(10)),
        answer: Some(Probe::NoAnswer),
    };
    let done = |work: Recognising, in_place, age: Option<u64>| {
        work.done(at(33), seen("1"), in_place, age.map(Duration::from_secs), Duration::from_secs(20))
    };
    let restarted = done(work, false, Some(2)).unwrap();
    assert_eq!((restarted.grace_opened, restarted.too_late_for_the_lost), (at(31), true));
    let waits = Recognising { strategy: Strategy::Notify, answer: None, ..work };
    let asked = done(waits, false, None).unwrap();
    assert_eq!((asked.grace_opened, asked.too_late_for_the_lost), (at(10), false));
    let blind = Recognising { grace_seen: None, ..waits };
    assert!(done(blind, false, None).unwrap_err().contains("how long grace has been open"));
    assert_eq!(done(blind, true, None).unwrap().grace_opened, at(30));
    assert!(asks_first(Strategy::RestartNfs, true));
    assert!(!asks_first(Strategy::RestartNfs, false) && !asks_first(Strategy::Notify, true));
}

#[test]
fn a_grace_that_is_open_though_the_agent_before_saw_it_closed_shows_that_locks_were_dropped_in_place() {
    let recalled = Recalled { closed: Some(at(5)), ..Recalled::default() };
    let open = Observation { in_grace: Some(true), ..seen("1") };
    let mut lives = Lives::new(Some(life("1", 0)), recalled.clone());
    let begun = Begun { life: life("1", 1), since: Some(at(5)) };
    assert_eq!((lives.looked(at(8), &open), lives.is_reborn()), (Some(begun), true));
    assert_eq!(lives.looked(at(10), &open), None, "once");
    // Grace that was open when the agent before ended is not news, nor is one that is closed still.
    for (recalled, seen) in [(Recalled::default(), open.clone()), (recalled.clone(), seen("1"))] {
        let mut lives = Lives::new(Some(life("1", 0)), recalled);
        assert_eq!((lives.looked(at(8), &seen), lives.is_reborn()), (None, false));
    }
    // Another start of its threads is another life in any case, which began after that look.
    let mut lives = Lives::new(Some(life("1", 0)), recalled);
    assert_eq!(lives.looked(at(8), &seen("2")), Some(Begun { life: life("2", 0), since: Some(at(5)) }));
}

#[test]
fn that_grace_is_closed_is_noted_of_a_life_that_runs() {
    let mut lives = at_home();
    let closed = Observation { in_grace: Some(false), ..seen("1") };
    assert_eq!(lives.looked(at(14), &closed), None);
    assert_eq!(lives.seen_closed(&closed), Some(&life("1", 0)));
    let said_nothing = Observation { in_grace: None, ..seen("1") };
    assert_eq!(lives.seen_closed(&said_nothing), None);
    assert_eq!((lives.looked(at(15), &stopped()), lives.seen_closed(&stopped())), (None, None));
}

#[test]
fn a_life_whose_beginning_the_agent_before_saw_is_followed_up_where_the_store_does_not_know_it() {
    let later = Recalled { later: Some(life("1", 1)), ..opened_at(5) };
    let mut lives = Lives::new(Some(life("1", 0)), later);
    assert_eq!(
        (lives.is_reborn(), lives.current(), lives.grace_seen()),
        (true, Some(&life("1", 1)), Some(at(5)))
    );
    assert_eq!(lives.looked(at(8), &seen("1")), None, "it goes on");
    let (name, told) = (service("nfs"), journal(Phase::Settled, Some(life("1", 0))));
    assert_eq!(lives.owed([holding(&name, &told)]).lost, std::slice::from_ref(&name));
}
