use std::collections::BTreeMap;

use heirlock_agent::Outside;
use heirlock_agent::agent::*;

use crate::agent::testing::place;
use crate::limits;

#[test]
fn facts_that_servers_compare_are_gathered_beside_the_loop_and_by_one_thread_at_a_time() {
    let mut place = place();
    let now = place.agent.outside().now();
    assert_eq!(place.agent.facts(now), BTreeMap::new(), "nothing is waited for");
    place.agent.facts(now + limits::FACTS_INTERVAL * 3);
    let known = place.next_that(|message| match message {
        News::Facts(known) => Some(known),
        _ => None,
    });
    let known = known.unwrap();
    assert!(*place.agent.facts_are_awaited() && known.contains_key("kernel"), "{known:?}");
    place.hear(News::Facts(Ok(known.clone())));
    let now = place.agent.outside().now();
    assert_eq!(place.agent.facts(now), known);
    assert!(!*place.agent.facts_are_awaited(), "they are new");
    let more = place.news().filter(|news| matches!(news, News::Facts(_))).count();
    assert_eq!(more, 0);
}

#[test]
fn facts_that_servers_compare_are_gathered_again_in_time_where_they_could_not_be() {
    let mut place = place();
    let known = BTreeMap::from([("kernel".to_owned(), "6.12".to_owned())]);
    place.hear(News::Facts(Ok(known.clone())));
    *place.agent.facts_are_awaited() = true;
    place.hear(News::Facts(Err("its thread ended without a report".into())));
    let now = place.agent.outside().now();
    assert_eq!(place.agent.facts(now), known, "it is as it was");
    assert!(!*place.agent.facts_are_awaited(), "and not asked for at once");
    place.agent.facts(now + limits::FACTS_INTERVAL);
    assert!(*place.agent.facts_are_awaited());
}
