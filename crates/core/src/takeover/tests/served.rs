//! Whether what is taken over is served here, and told.

use super::*;

#[test]
fn where_no_client_of_what_is_taken_over_could_be_called_the_adoption_failed_and_can_be_done_again() {
    let (mut run, mut kept) = asked_for();
    notifying_without_address(&mut run, &mut kept);
    ack(&mut run, &mut kept, "home", "10.0.0.8");
    ended(&mut run, &mut kept, "home", &[]);
    let mut one_was_called = (run.clone(), kept.clone());
    let mut is_served = (run.clone(), kept.clone());
    ended(&mut run, &mut kept, "nfs", &[("10.0.0.1", Outcome::Lost), ("10.0.0.2", Outcome::Lost)]);
    assert_eq!(run.not_back(), 1, "who was never told does not come back");
    let steps = tick(&mut run, &mut kept, 20_000, &[]);
    let End::Failed { hindrance, why, .. } = end_of(&steps) else { panic!("{steps:?}") };
    assert_eq!((hindrance, why.as_str()), (Hindrance::NoClientCalled, "no answer"));
    let journals = |kept: &mut Kept| ["nfs", "home"].map(|name| kept.of(&service(name)).journal.clone());
    let [nfs, home] = journals(&mut kept);
    assert_eq!((nfs.phase, nfs.failure.as_deref()), (Phase::Settled, Some("no answer")));
    assert!(
        !crate::duty::is_adopted(&nfs, true, Some(&life("2"))),
        "an adoption that is asked for again begins"
    );
    assert_eq!(home.failure, None, "our own clients were told");

    // It is served, and has no client that can be called: the adoption stands all the same.
    let (run, kept) = (&mut is_served.0, &mut is_served.1);
    kept.persist(&run.step(at(2_000), Event::Served(service("nfs"))));
    ended(run, kept, "nfs", &[("10.0.0.1", Outcome::Lost), ("10.0.0.2", Outcome::Lost)]);
    assert!(matches!(end_of(&tick(run, kept, 20_000, &[])), End::Settled(_)));

    let (run, kept) = (&mut one_was_called.0, &mut one_was_called.1);
    ended(run, kept, "nfs", &[("10.0.0.1", Outcome::Lost), ("10.0.0.2", Outcome::Unreachable)]);
    let steps = tick(run, kept, 20_000, &[]);
    assert!(matches!(end_of(&steps), End::Settled(_)), "{steps:?}");
    let [nfs, _] = journals(kept);
    assert!(nfs.failure.is_none() && crate::duty::is_adopted(&nfs, true, Some(&life("2"))));
}

#[test]
fn ready_is_what_moves_and_not_what_this_server_serves_under_its_own_name() {
    let ready = |run: &Takeover| -> Vec<i64> {
        let stamps = run.timeline().iter().filter(|stamp| stamp.event == Milestone::Ready);
        stamps.map(|stamp| stamp.at_ms).collect()
    };
    let (mut run, mut kept) = asked_for();
    let won = vec![claimed("nfs", 5, &["10.0.0.1"], &[7]), claimed("home", 2, &["10.0.0.8"], &[3])];
    let then = [Event::Served(service("home")), Event::BroughtUp(Ok(()))];
    for event in until_proved(won).into_iter().chain(then) {
        kept.persist(&run.step(at(1_500), event));
    }
    assert_eq!((run.phase(), ready(&run)), (Phase::Notifying, vec![]), "nfs is nowhere");
    kept.persist(&run.step(at(4_000), Event::Served(service("nfs"))));
    kept.persist(&run.step(at(5_000), Event::Served(service("nfs"))));
    assert_eq!(ready(&run), [4_000], "once, and when it was served");
    let journal = &kept.of(&service("nfs")).journal;
    assert!(journal.timeline.iter().any(|stamp| stamp.event == Milestone::Ready), "also in the store");

    // A service without an address but the server's own is ready when its clients can be told.
    let own = Plan { cause: Cause::OwnRestart, targets: vec![], ..plan(Strategy::Notify, Until::Settled) };
    let host = ServiceName::host(&own.server);
    let mut run = Takeover::new(at(0), own);
    let won = vec![Claimed { service: host, ..claimed("home", 2, &["10.0.0.8"], &[3]) }];
    for event in [
        Event::Start,
        Event::Claimed { won, refused: vec![], unread: vec![] },
        Event::Conveyed(Ok(Vec::new())),
        recognition(life("2")),
        Event::Proved(Ok(())),
        Event::BroughtUp(Ok(())),
    ] {
        run.step(at(1_500), event);
    }
    assert_eq!((run.phase(), ready(&run)), (Phase::Notifying, vec![1_500]));
}

#[test]
fn a_self_adoption_leaves_clients_to_others_only_before_grace_is_proved_and_an_adoption_never_does() {
    let all: BTreeSet<RecordKey> = [client("10.0.0.1"), client("10.0.0.8")].into();
    let mut own = Takeover::new(
        at(0),
        Plan {
            cause: Cause::OwnRestart,
            targets: Vec::new(),
            ..owing(&["home"], plan(Strategy::Notify, Until::Settled))
        },
    );
    own.step(at(0), Event::Start);
    let won = vec![claimed("home", 2, &["10.0.0.8", "10.0.0.9"], &[3])];
    own.step(at(0), Event::Claimed { won, refused: Vec::new(), unread: Vec::new() });
    own.step(at(0), Event::Conveyed(Ok(Vec::new())));
    assert_eq!(own.leave_to_others(&all), 0, "it has not recognised");
    own.step(at(0), recognition(life("2")));
    assert_eq!((own.leave_to_others(&all), own.leave_to_others(&all)), (1, 0));
    let steps = own.step(at(0), Event::Proved(Err("nothing is exported".into())));
    let end = end_of(&steps);
    let left = steps.persist.iter().filter_map(|persist| match persist {
        Persist::Journal { journal, .. } => Some((journal.phase, journal.left_to_others)),
        _ => None,
    });
    assert_eq!(left.collect::<Vec<_>>(), [(Phase::Settled, 1)], "the store says of how many nothing is kept");
    assert_eq!(outcome_of(&end, "home", "10.0.0.9"), Some(Outcome::Lost));
    assert_eq!(own.counts().0, 1);
    let (mut asked, mut kept) = asked_for();
    notifying_without_address(&mut asked, &mut kept);
    assert_eq!(asked.leave_to_others(&all), 0);
}
