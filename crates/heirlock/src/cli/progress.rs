//! How far an adoption is, on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use heirlock_core::takeover::Phase;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::render::plain;
use crate::control::{Progress, Wait};

/// How often the spinner moves.
const TICK: Duration = Duration::from_millis(120);

/// A wait that lasts longer is said.
const SAID_AFTER: Duration = Duration::from_secs(1);

/// A spinner until clients are told, then a bar. Drawn on standard error, and only where that is a terminal; elsewhere each
/// wait of more than a second is a line there.
#[derive(Debug, Default)]
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    counts: bool,
    waits: Waits,
    /// The lines that were shown already.
    told: Vec<String>,
}

/// The present wait, since when it lasts, and whether it was said.
#[derive(Debug, Default)]
struct Waits(Option<(Key, Instant, bool)>);

/// The key that tells one wait from the next: within a phase only the counts change.
type Key = (Phase, String);

impl Waits {
    /// The line to be said now, if one is.
    fn note(&mut self, now: Instant, progress: &Progress) -> Option<String> {
        let Some(wait) = &progress.wait else {
            self.0 = None;
            return None;
        };
        let words = if progress.phase == Phase::Intent { wait.for_what.clone() } else { String::new() };
        let key = (progress.phase, words);
        match &mut self.0 {
            Some((known, since, said)) if *known == key => {
                let is_due = !*said && now.duration_since(*since) >= SAID_AFTER;
                *said |= is_due;
                is_due.then(|| in_line(wait))
            }
            other => {
                *other = Some((key, now, false));
                None
            }
        }
    }
}

fn in_line(wait: &Wait) -> String {
    let at_most = wait.at_most_ms.map(|ms| format!(", at most {} s", ms.div_ceil(1000)));
    format!("waiting for {}{}", plain(&wait.for_what), at_most.unwrap_or_default())
}

impl Bar {
    /// Shows the last word of the agent.
    pub(super) fn show(&mut self, progress: &Progress) {
        for line in self.news(progress) {
            let say = || writeln!(io::stderr().lock(), "heirlock: {line}");
            // Where this can't be written there is no other way to say so.
            let _ = match &self.bar {
                Some(bar) => bar.suspend(say),
                None => say(),
            };
        }
        if let Some(line) = self.waits.note(Instant::now(), progress).filter(|_| !io::stderr().is_terminal())
        {
            // Where this can't be written there is no other way to say so.
            let _ = writeln!(io::stderr().lock(), "heirlock: {line}");
        }
        let counts =
            progress.clients > 0 && progress.phase >= Phase::Notifying && progress.phase != Phase::Failed;
        if self.bar.is_none() || counts != self.counts {
            self.finish();
            self.counts = counts;
        }
        let bar = self.bar.get_or_insert_with(|| new_bar(counts, in_words(progress.phase)));
        bar.set_length(number(progress.clients));
        bar.set_position(number(progress.answered));
        match &progress.wait {
            Some(wait) if !counts => bar.set_message(in_line(wait)),
            _ => bar.set_message(in_words(progress.phase)),
        }
    }

    /// The lines of the agent that were not shown yet.
    fn news(&mut self, progress: &Progress) -> Vec<String> {
        let told = progress.told.iter().map(|line| plain(line));
        let news: Vec<String> = told.filter(|line| !self.told.contains(line)).collect();
        self.told.extend(news.iter().cloned());
        news
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

/// The work that goes on after this phase became durable.
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
    fn a_wait_is_said_once_when_it_has_lasted_a_second_and_the_next_one_anew() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let mut at = |ms: u64, phase, for_what: &str, at_most_ms| {
            let wait = Some(Wait { for_what: for_what.into(), at_most_ms });
            let progress = Progress { phase, clients: 3, answered: 0, wait, told: Vec::new() };
            waits.note(start + Duration::from_millis(ms), &progress)
        };
        let (intent, notifying) = (Phase::Intent, Phase::Notifying);
        assert_eq!(at(0, intent, "nfs-b to give nfs up", Some(60_000)), None);
        assert_eq!(at(900, intent, "nfs-b to give nfs up", Some(59_100)), None);
        let said = at(1_100, intent, "nfs-b to give nfs up", Some(58_900));
        assert_eq!(said.as_deref(), Some("waiting for nfs-b to give nfs up, at most 59 s"));
        assert_eq!(at(2_100, intent, "nfs-b to give nfs up", Some(57_900)), None, "once");
        assert_eq!(at(2_200, intent, "nfs-b: its clients are being told", None), None);
        let said = at(3_300, intent, "nfs-b: its clients are being told", None);
        assert_eq!(
            said.as_deref(),
            Some("waiting for nfs-b: its clients are being told"),
            "for another reason"
        );
        assert_eq!(at(4_000, notifying, "3 clients to answer", Some(30_000)), None);
        let said = at(5_000, notifying, "2 clients to answer", Some(29_000));
        assert_eq!(said.as_deref(), Some("waiting for 2 clients to answer, at most 29 s"));
        assert_eq!(
            at(6_000, notifying, "1 client to answer", Some(28_000)),
            None,
            "the counts alone are new"
        );
    }

    #[test]
    fn a_line_of_the_agent_is_shown_once() {
        let mut bar = Bar::default();
        let mut news = |told: &[&str]| {
            let told = told.iter().map(|line| (*line).to_owned()).collect();
            bar.news(&Progress { phase: Phase::Intent, clients: 0, answered: 0, wait: None, told })
        };
        assert_eq!(news(&[]), Vec::<String>::new());
        assert_eq!(news(&["192.0.2.10 is not here\u{1b}"]), ["192.0.2.10 is not here\\u{1b}"]);
        assert_eq!(news(&["192.0.2.10 is not here\u{1b}", "nor is 192.0.2.11"]), ["nor is 192.0.2.11"]);
    }

    #[test]
    fn clients_are_counted_from_when_they_are_told() {
        let mut bar = Bar::default();
        let mut shown = |phase, answered| {
            bar.show(&Progress { phase, clients: 3, answered, wait: None, told: Vec::new() });
            let drawn = bar.bar.as_ref().unwrap();
            (bar.counts, drawn.position(), drawn.message())
        };
        assert_eq!(shown(Phase::Claimed, 0), (false, 0, "conveying the records".into()));
        assert_eq!(shown(Phase::Notifying, 1), (true, 1, "telling clients".into()));
        assert_eq!(shown(Phase::Settling, 3), (true, 3, "waiting for clients to come back".into()));
        assert_eq!(shown(Phase::Failed, 3), (false, 3, "failed".into()));
    }
}
