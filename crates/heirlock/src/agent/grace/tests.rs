use std::time::Duration;

use heirlock_agent::Outside;
use heirlock_agent::agent::grace::*;
use heirlock_core::grace::{Clocks, Recalled};
use heirlock_core::incarnation::Incarnation;

use crate::agent::testing::{Place, place};

fn clocks(place: &Place) -> Clocks {
    let outside = place.agent.outside();
    Clocks { now: outside.now(), since_boot: outside.since_boot() }
}

#[test]
fn the_next_agent_of_this_boot_knows_it_and_one_that_meets_another_life_does_not() {
    let mut place = place();
    let clocks = clocks(&place);
    let outside = place.agent.lock_manager_mut();
    let life = Incarnation { boot: "b".into(), start: "1@2".into(), reopened: 0 };
    let mut note = GraceNote::default();
    assert_eq!(note.recall(Some(&life), outside, clocks), Recalled::default());
    note.opened(&life, clocks.now - Duration::from_secs(4), outside, clocks);

    place.start_again();
    let clocks = self::clocks(&place);
    let outside = place.agent.lock_manager_mut();
    let mut next = GraceNote::default();
    let recalled = next.recall(Some(&life), outside, clocks);
    let open_for = clocks.now.since(recalled.opened.unwrap());
    assert!(open_for >= Duration::from_millis(3_999) && open_for < Duration::from_secs(60), "{open_for:?}");
    assert_eq!(recalled.closed, None);

    next.closed(&life, clocks.now, outside, clocks);
    let recalled = GraceNote::default().recall(Some(&life), outside, clocks);
    assert!(recalled.opened.is_some() && recalled.closed.unwrap() <= clocks.now);
    let another = Incarnation { start: "3@4".into(), ..life.clone() };
    assert_eq!(note.recall(Some(&another), outside, clocks), Recalled::default());
    assert_eq!(note.recall(None, outside, clocks), Recalled::default());
    next.closed(&another, clocks.now, outside, clocks);
    assert_eq!(note.recall(Some(&life), outside, clocks), Recalled::default(), "it is the other one's");
}
