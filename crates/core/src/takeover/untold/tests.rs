use std::time::Duration;

use super::super::tests::{
    Kept, ack, asked_for, at, claimed, end_of, notifying, outcome_of, owing, plan, service,
};
use super::super::{Cause, Event, Outcome, Phase, Plan, Strategy, Until, Work};
use super::*;

/// A run that has claimed these services and placed what it had to.
fn conveyed(plan: Plan, names: &[&str]) -> (Takeover, Kept) {
    let (mut run, mut kept) = (Takeover::new(at(0), plan), Kept::default());
    let client_of = |name: &str| if name == "nfs" { "10.0.0.1" } else { "10.0.0.8" };
    let won = names.iter().map(|name| claimed(name, 5, &[client_of(name)], &[7])).collect();
    let claimed = Event::Claimed { won, refused: vec![], unread: vec![] };
    for event in [Event::Start, Event::Fit(Ok(())), claimed, Event::Conveyed(Ok(vec![]))] {
        kept.persist(&run.step(at(500), event));
    }
    assert_eq!(run.phase(), Phase::Conveyed);
    (run, kept)
}

/// The end of a run whose recognition fails, or hangs until its time is up.
fn end(run: &mut Takeover, kept: &mut Kept, hangs: bool) -> super::super::End {
    let steps = if hangs {
        let _ = run.step(at(1_000), Event::Begun(Work::Recognition));
        let late = at(1_000) + run.plan.limits.recognition + Duration::from_millis(1);
        run.step(late, Event::Tick { present: Default::default(), looked_at: None })
    } else {
        run.step(at(1_000), Event::Recognised(Err("the command ended with 1".into())))
    };
    kept.persist(&steps);
    end_of(&steps)
}

fn own_restart() -> Plan {
    let plan = owing(&["home"], plan(Strategy::RestartNfs, Until::Settled));
    Plan { cause: Cause::OwnRestart, targets: Vec::new(), ..plan }
}

#[test]
fn clients_of_a_recovery_whose_recognition_hangs_or_fails_are_lost_for_that_reason() {
    for (hangs, said) in
        [(true, "the lock manager was not made to recognise in time"), (false, "the command")]
    {
        let (mut run, mut kept) = conveyed(own_restart(), &["home"]);
        let ended = end(&mut run, &mut kept, hangs);
        assert_eq!(outcome_of(&ended, "home", "10.0.0.8"), Some(Outcome::Lost));
        let left = kept.of(&service("home"));
        let [line] = left.outcomes.as_slice() else { panic!("{:?}", left.outcomes) };
        assert!(line.why.as_deref().is_some_and(|why| why.starts_with(said)) && !line.is_final, "{line:?}");
        assert_eq!(
            (left.journal.phase, left.journal.failure.as_deref()),
            (Phase::Failed, line.why.as_deref())
        );
    }
}

#[test]
fn an_adoption_that_fails_on_its_way_loses_the_clients_that_it_owes_word_and_no_others() {
    let alive = plan(Strategy::RestartNfs, Until::Settled);
    for (plan, of_home) in [(alive.clone(), None), (owing(&["home"], alive), Some(Outcome::Lost))] {
        for hangs in [true, false] {
            let (mut run, mut kept) = conveyed(plan.clone(), &["nfs", "home"]);
            let ended = end(&mut run, &mut kept, hangs);
            assert_eq!(outcome_of(&ended, "nfs", "10.0.0.1"), Some(Outcome::Lost));
            assert_eq!(outcome_of(&ended, "home", "10.0.0.8"), of_home);
            assert_eq!(kept.of(&service("home")).outcomes.len(), usize::from(of_home.is_some()));
        }
    }
}

#[test]
fn clients_that_answered_before_the_agent_ended_are_not_lost_where_the_next_agent_can_not_go_on() {
    let (mut run, mut kept) = asked_for();
    notifying(&mut run, &mut kept);
    ack(&mut run, &mut kept, "nfs", "10.0.0.1");
    let limits = run.plan.limits;
    let mut next = Takeover::resume(at(0), Duration::from_secs(5), limits, kept.found()).unwrap();
    let ended = end(&mut next, &mut kept, true);
    assert_eq!(outcome_of(&ended, "nfs", "10.0.0.1"), Some(Outcome::Acknowledged));
    assert_eq!(outcome_of(&ended, "nfs", "10.0.0.2"), Some(Outcome::Lost));
    assert_eq!(outcome_of(&ended, "home", "10.0.0.8"), Some(Outcome::Lost), "its locks are gone");
}
