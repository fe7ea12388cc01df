//! The seconds from the power loss until every client has its lock again, as bars on one scale.

use std::fmt::Write;

/// Columns of the bars.
const COLUMNS: usize = 36;

/// Columns of the words before them.
const WORDS: usize = 31;

/// One stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The event.
    pub(super) what: &'static str,
    /// From when, in milliseconds since the power loss.
    pub(super) from_ms: i64,
    /// Until when.
    pub(super) until_ms: i64,
}

/// The stretches below one another, each where it belongs in time. Empty where there is none.
pub(super) fn draw(stretches: &[Stretch]) -> String {
    let end_ms = stretches.iter().map(|one| one.until_ms).max().unwrap_or(0).max(1);
    let mut text = String::new();
    if stretches.is_empty() {
        return text;
    }
    let _ = writeln!(text, "  {:WORDS$} {}", "seconds since the power loss:", axis(end_ms));
    for Stretch { what, from_ms, until_ms } in stretches {
        let (from, until) = (column(*from_ms, end_ms), column(*until_ms, end_ms));
        // However short, it is there.
        let from = from.min(COLUMNS - 1);
        let until = until.clamp(from + 1, COLUMNS);
        let bar = format!("{}{}", " ".repeat(from), "█".repeat(until - from));
        let _ = writeln!(text, "  {what:WORDS$} {bar:COLUMNS$} {:>5} s", seconds(until_ms - from_ms));
    }
    text
}

/// Whole seconds over the columns that they begin at.
fn axis(end_ms: i64) -> String {
    let step_ms = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000].into_iter().find(|step| end_ms / step <= 8);
    let step_ms = step_ms.unwrap_or(100_000);
    let mut line = String::new();
    for at_ms in (0..=end_ms).step_by(usize::try_from(step_ms).unwrap_or(1_000)) {
        let at = column(at_ms, end_ms);
        if at >= line.chars().count() && at < COLUMNS {
            line += &" ".repeat(at - line.chars().count());
            line += &(at_ms / 1_000).to_string();
        }
    }
    line
}

fn column(at_ms: i64, end_ms: i64) -> usize {
    let columns = i64::try_from(COLUMNS).unwrap_or(1);
    usize::try_from(at_ms.max(0) * columns / end_ms).unwrap_or(0)
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02}", ms / 1_000, ms.rem_euclid(1_000) / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_of_the_demos_picture_stands_below_its_seconds_and_none_is_too_short_to_be_seen() {
        let stretch = |what, from_ms, until_ms| Stretch { what, from_ms, until_ms };
        let text = draw(&[
            stretch("is nfs-a really gone?", 0, 3_000),
            stretch("nfs-b takes over", 3_000, 3_010),
            stretch("clients get their locks back", 3_010, 4_000),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().skip(5).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        assert_eq!(lines.iter().map(|line| line.matches('█').count()).collect::<Vec<_>>(), [0, 27, 1, 9]);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(lines[2].ends_with(" 0.01 s"), "{text}");
        assert_eq!(draw(&[]), "");
    }
}
