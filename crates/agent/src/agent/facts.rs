//! The facts that other servers compare with their own.

use std::collections::BTreeMap;

use heirlock_core::Moment;

use crate::limits::FACTS_INTERVAL;

/// The facts that other servers compare with their own. They change with a configuration, hardly ever. They are gathered beside the
/// loop, for programs are asked; until the first are there, none are told.
#[derive(Debug, Default)]
pub struct Facts {
    gathered_at: Option<Moment>,
    known: BTreeMap<String, String>,
    /// They are being gathered. While gathering hangs with a disk, it is not begun a second time.
    awaited: bool,
}

impl Facts {
    /// Those that are known.
    pub(crate) fn known(&self) -> &BTreeMap<String, String> {
        &self.known
    }

    /// Whether they are to be gathered now. From now on they are being gathered.
    pub(crate) fn begins(&mut self, now: Moment) -> bool {
        let is_old = self.gathered_at.is_none_or(|at| now.since(at) >= FACTS_INTERVAL);
        is_old && !std::mem::replace(&mut self.awaited, true)
    }

    /// Whether they are being gathered, for a test.
    #[cfg(feature = "inside")]
    pub fn awaited_mut(&mut self) -> &mut bool {
        &mut self.awaited
    }

    /// They were gathered, or could not be: then those that were known stay. Says whether others are known now.
    pub(crate) fn gathered(
        &mut self,
        now: Moment,
        gathered: Result<BTreeMap<String, String>, String>,
    ) -> bool {
        let known = gathered.unwrap_or_else(|why| {
            tracing::warn!(why, "what other servers compare with their own is not gathered now: {why}");
            self.known.clone()
        });
        let is_news = self.known != known;
        *self = Self { gathered_at: Some(now), known, awaited: false };
        is_news
    }
}
