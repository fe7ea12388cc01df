//! How far an adoption is, on a terminal.

use std::time::Duration;

use heirlock_core::takeover::Phase;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::control::Progress;

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(120);

/// A spinner until clients are told, then a bar. Drawn on standard error, and only where that is a terminal.
#[derive(Debug, Default)]
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    counts: bool,
}

impl Bar {
    /// Shows the last word of the agent.
    pub(super) fn show(&mut self, progress: &Progress) {
        let counts =
            progress.clients > 0 && progress.phase >= Phase::Notifying && progress.phase != Phase::Failed;
        if self.bar.is_none() || counts != self.counts {
            self.finish();
            self.counts = counts;
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(counts, in_words(progress.phase)));
        bar.set_length(number(progress.clients));
        bar.set_position(number(progress.answered));
        bar.set_message(in_words(progress.phase));
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_bar(counts: bool, message: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template =
        if counts { "{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}" } else { "{spinner} {msg} {elapsed}" };
    // The templates are the two above: either is one.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    // Before it moves: it would show an empty line first.
    bar.set_message(message);
    bar.enable_steady_tick(TICK);
    bar
}

/// What goes on after this phase became durable.
fn in_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Intent => "making sure that the owner is off",
        Phase::Fenced => "claiming",
        Phase::Claimed => "conveying the records",
        Phase::Conveyed => "making the lock manager recognise them",
        Phase::Recognised => "waiting for the grace period",
        Phase::Proved => "waiting for address and exports",
        Phase::Ready | Phase::Notifying => "telling clients",
        Phase::Settling => "waiting for clients to come back",
        Phase::Settled => "settled",
        Phase::Failed => "failed",
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_from_when_they_are_told() {
        let mut bar = Bar::default();
        let mut shown = |phase, answered| {
            bar.show(&Progress { phase, clients: 3, answered });
            let drawn = bar.bar.as_ref().unwrap();
            (bar.counts, drawn.position(), drawn.message())
        };
        assert_eq!(shown(Phase::Claimed, 0), (false, 0, "conveying the records".into()));
        assert_eq!(shown(Phase::Notifying, 1), (true, 1, "telling clients".into()));
        assert_eq!(shown(Phase::Settling, 3), (true, 3, "waiting for clients to come back".into()));
        assert_eq!(shown(Phase::Failed, 3), (false, 3, "failed".into()));
    }
}
