//! The observed grace period of the life that runs, noted where the agent's next start finds it.

use heirlock_core::Moment;
use heirlock_core::grace::{Recalled, Remembered};
use heirlock_core::incarnation::Incarnation;

use super::outside::Outside;

/// Since when grace has been open, and when it was last seen closed.
#[derive(Debug, Default)]
pub struct GraceNote {
    /// The note as it was last written.
    noted: Option<Remembered>,
}

impl GraceNote {
    /// The observations of the agent before us in the life that the store knows.
    pub fn recall(&mut self, known: Option<&Incarnation>, outside: &impl Outside) -> Recalled {
        self.noted = outside.grace_note();
        let recalled = self.noted.as_ref().zip(known);
        recalled
            .map(|(noted, life)| noted.recall(life, outside.now(), outside.since_boot()))
            .unwrap_or_default()
    }

    /// Grace of this life did not open before `since`.
    pub fn opened(&mut self, life: &Incarnation, since: Moment, outside: &mut impl Outside) {
        let noted = Remembered::opened(life.clone(), since, outside.now(), outside.since_boot());
        outside.note_grace(self.noted.insert(noted));
    }

    /// Grace of this life is closed now.
    pub fn closed(&mut self, life: &Incarnation, outside: &mut impl Outside) {
        let noted = self.noted.get_or_insert_with(|| Remembered::of(life.clone()));
        if noted.sees_closed(life, outside.since_boot()) {
            outside.note_grace(noted);
        }
    }
}
