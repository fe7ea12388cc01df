//! The removal of conveyed records that is on, and the runs whose end waits for it.

use heirlock_core::Moment;
use heirlock_core::takeover::End;

use super::running::Running;

/// The removal of conveyed records that is on, and the runs whose end is told after it.
#[derive(Default)]
pub(crate) struct Conveying {
    /// How often it was begun to take all away, and has not ended.
    begun: usize,
    /// When it is said that this hangs; nothing once that was said.
    due: Option<Moment>,
    /// Runs that are over. Their callers are answered when the directory is as it was before them.
    ended: Vec<(Running, End)>,
}

impl Conveying {
    /// It is begun to take all away. When that hangs is said at that moment.
    pub(crate) fn begins(&mut self, hangs_at: Moment) {
        self.begun += 1;
        self.due = Some(hangs_at);
    }

    /// It has ended once. Says whether nothing is being taken away now.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.begun = self.begun.saturating_sub(1);
        if self.is_over() {
            self.due = None;
        }
        self.is_over()
    }

    /// Whether it hangs. That is answered once.
    pub(crate) fn hangs(&mut self, now: Moment) -> bool {
        self.due.take_if(|due| now >= *due).is_some()
    }

    /// A run has ended, and that is told after it; or is given back, where it is to be told now.
    pub(crate) fn tells_later(&mut self, running: Running, end: End) -> Option<(Running, End)> {
        if self.due.is_none() {
            return Some((running, end));
        }
        self.ended.push((running, end));
        None
    }

    /// The runs whose end is to be told now.
    pub(crate) fn take_ended(&mut self) -> Vec<(Running, End)> {
        std::mem::take(&mut self.ended)
    }

    /// When the loop must look after it.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Whether nothing is being taken away.
    pub(crate) fn is_over(&self) -> bool {
        self.begun == 0
    }
}
