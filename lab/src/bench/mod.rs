//! Benches: heirlock beside Debian's own programs, run as they would be run in production, in private network namespaces.
//!
//! A bench makes [`Row`]s; how they are shown is the same for all of them: a table, one JSON document, and a plot.

pub mod notify;
pub mod plot;

use std::fmt::Write;

use serde::Serialize;

/// What a bench says of the machine, since no figure means anything without it.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// The processor's name, and how many there are.
    pub processors: String,
    /// The load average of the last minute when the bench began: above 1 others worked beside it.
    pub load: String,
}

impl Machine {
    /// The one this runs on.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let models: Vec<&str> = cpus
            .lines()
            .filter_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|s| s.1))
            .collect();
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: format!("{} × {}", models.len(), models.first().unwrap_or(&"unknown")),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// A table as Markdown has it, its columns aligned so that a terminal shows it as well.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a String can't fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
    };
    line(&head.iter().map(ToString::to_string).collect::<Vec<_>>());
    line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["sm-notify".to_owned(), "1".to_owned()], vec!["x".to_owned(), "1000".to_owned()]];
        let expected =
            "| tool      | ms   |\n| --------- | ---- |\n| sm-notify | 1    |\n| x         | 1000 |\n";
        assert_eq!(table(&["tool", "ms"], &rows), expected);
    }
}
