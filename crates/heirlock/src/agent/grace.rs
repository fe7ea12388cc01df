//! What was seen of the grace period of the life that runs, noted where the agent's next start finds it.

use heirlock_core::Moment;
use heirlock_core::grace::{Recalled, Remembered};
use heirlock_core::incarnation::Incarnation;

use super::outside::Outside;

/// Since when grace has been open, and when it was last seen closed.
#[derive(Debug, Default)]
pub(crate) struct GraceNote {
    /// What is noted.
    noted: Option<Remembered>,
}

impl GraceNote {
    /// What the agent before us saw of the life that the store knows.
    pub(crate) fn recall(&mut self, known: Option<&Incarnation>, outside: &impl Outside) -> Recalled {
        self.noted = outside.grace_note();
        let recalled = self.noted.as_ref().zip(known);
        recalled
            .map(|(noted, life)| noted.recall(life, outside.now(), outside.since_boot()))
            .unwrap_or_default()
    }

    /// Grace of this life did not open before `since`.
    pub(crate) fn opened(&mut self, life: &Incarnation, since: Moment, outside: &mut impl Outside) {
        let noted = Remembered::opened(life.clone(), since, outside.now(), outside.since_boot());
        outside.note_grace(self.noted.insert(noted));
    }

    /// Grace of this life is closed now.
    pub(crate) fn closed(&mut self, life: &Incarnation, outside: &mut impl Outside) {
        let noted = self.noted.get_or_insert_with(|| Remembered::of(life.clone()));
        if noted.sees_closed(life, outside.since_boot()) {
            outside.note_grace(noted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::testing::place;

    #[test]
    fn the_next_agent_of_this_boot_knows_it_and_one_that_meets_another_life_does_not() {
        let mut place = place();
        let outside = &mut place.agent.outside;
        let life = Incarnation { boot: "b".into(), start: "1@2".into(), reopened: 0 };
        let mut note = GraceNote::default();
        assert_eq!(note.recall(Some(&life), outside), Recalled::default());
        note.opened(&life, outside.now() - Duration::from_secs(4), outside);

        place.start_again();
        let outside = &mut place.agent.outside;
        let mut next = GraceNote::default();
        let recalled = next.recall(Some(&life), outside);
        let open_for = outside.now().since(recalled.opened.unwrap());
        assert!(
            open_for >= Duration::from_millis(3_999) && open_for < Duration::from_secs(60),
            "{open_for:?}"
        );
        assert_eq!(recalled.closed, None);

        next.closed(&life, outside);
        let recalled = GraceNote::default().recall(Some(&life), outside);
        assert!(recalled.opened.is_some() && recalled.closed.unwrap() <= outside.now());
        let another = Incarnation { start: "3@4".into(), ..life.clone() };
        assert_eq!(note.recall(Some(&another), outside), Recalled::default());
        assert_eq!(note.recall(None, outside), Recalled::default());
        next.closed(&another, outside);
        assert_eq!(note.recall(Some(&life), outside), Recalled::default(), "it is the other one's");
    }
}
