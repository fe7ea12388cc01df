//! The report of a bench: tables for people, rows for programs, goals, and a plot.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// Bytes of a GiB.
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Magic numbers of `statfs(2)`, for those that a bench is likely to meet.
const FILE_SYSTEMS: [(i64, &str); 6] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs: nothing is durable there, set TMPDIR to a folder on a disk"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlayfs"),
];

/// The machine, since no figure means anything without it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// How many processors there are.
    pub processors: usize,
    /// Memory.
    pub memory_gib: f64,
    /// The kind of file system that stores and state directories lie on.
    pub file_system: String,
    /// The load average of the last minute when the bench began: above 1 others worked beside it.
    pub load: String,
}

impl Machine {
    /// The one this runs on.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        let memory = read("/proc/meminfo");
        let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        Self {
            processors: cpus,
            memory_gib: kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0 / GIB,
            file_system: file_system(&std::env::temp_dir()),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    fn words(&self) -> String {
        let Self { processors, memory_gib, file_system, load } = self;
        format!(
            "{processors} processors, {memory_gib:.0} GiB of memory, folders on {file_system}; load {load} at the start"
        )
    }
}

fn file_system(path: &Path) -> String {
    let Ok(found) = rustix::fs::statfs(path) else { return "an unknown file system".to_owned() };
    // The field's type differs between architectures.
    #[allow(clippy::useless_conversion)]
    let magic = i64::from(found.f_type);
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    known.map_or_else(|| format!("a file system of type {magic:#x}"), |(_, name)| (*name).to_owned())
}

/// One goal of this project, and its result.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    /// In words.
    pub goal: String,
    /// The figures it is judged by, in words.
    pub measured: String,
    /// Whether it is met; unknown where its cases were not measured.
    pub met: Option<bool>,
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its columns.
    pub head: Vec<&'static str>,
    /// Its cells.
    pub rows: Vec<Vec<String>>,
}

/// All that a bench has found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The bench.
    pub bench: &'static str,
    /// Where.
    pub machine: Machine,
    /// How long it took.
    pub seconds: f64,
    /// Every case, as measured.
    pub rows: Vec<Value>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// The same for people.
    #[serde(skip)]
    pub table: Table,
    /// As a picture (SVG).
    #[serde(skip)]
    pub plot: String,
    /// The description of the picture.
    #[serde(skip)]
    pub caption: String,
}

impl Report {
    /// As Markdown that a terminal shows as well; without the picture.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n\n{}\n{}", self.machine.words(), self.table.text(), self.goals_text())
    }

    /// The same with the picture.
    #[must_use]
    pub fn markdown(&self) -> String {
        format!(
            "Measured on {}.\n\n{}\n![{}](plots/{}.svg)\n\n{}",
            self.machine.words(),
            self.table.text(),
            self.caption,
            self.bench,
            self.goals_text()
        )
    }

    fn goals_text(&self) -> String {
        let cells = |goal: &Goal| {
            let met = match goal.met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "not measured",
            };
            vec![goal.goal.clone(), goal.measured.clone(), met.to_owned()]
        };
        let rows = self.goals.iter().map(cells).collect();
        Table { head: vec!["goal", "measured", ""], rows }.text()
    }
}

impl Table {
    /// As Markdown has it, its columns aligned so that a terminal shows it as well.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { head, rows } = self;
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
}

/// Three digits that count, and thousands apart: 0.41, 15.4, 13,202.
#[must_use]
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match value.abs() {
        size if size >= 99.95 => grouped(&format!("{value:.0}")),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A count, thousands apart.
#[must_use]
pub fn count(value: usize) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count as a number to reckon with.
#[must_use]
pub fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// The value below which so many percent of the values lie; not a number where there are none.
#[must_use]
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows =
            vec![vec!["sm-notify".to_owned(), "1".to_owned()], vec!["x".to_owned(), "1000".to_owned()]];
        let expected =
            "| tool      | ms   |\n| --------- | ---- |\n| sm-notify | 1    |\n| x         | 1000 |\n";
        assert_eq!(Table { head: vec!["tool", "ms"], rows }.text(), expected);
    }

    #[test]
    fn figures_have_three_digits_and_thousands_are_apart() {
        let figures = [0.414, 9.999, 15.44, 99.96, 13_202.4, 100_000.0, f64::NAN];
        assert_eq!(figures.map(short), ["0.41", "10.0", "15.4", "100", "13,202", "100,000", "–"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(
            [0, 50, 99, 100].map(|percent| percentile(&mut values, percent)),
            [1.0, 101.0, 199.0, 200.0]
        );
        assert!(percentile(&mut [], 50).is_nan());
    }
}
