//! Columns.

use super::{Look, WIDTH};

/// Between two columns.
const GAP: &str = "  ";

/// The part of a name that is left at least.
const CUT_MIN: usize = 8;

/// Where a cell's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A table with a head. Where it is wider than a terminal, its widest column of names is cut, and says so.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The head, then each row as a line of its own: lines that belong below a row can be put between them.
    pub(super) fn lines(&self, look: &Look) -> Vec<String> {
        let widths = self.widths();
        let head: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let mut lines = vec![look.strong(&self.line(&head, &widths))];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths)));
        lines
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(at, (head, _)): (usize, &(&str, Side))| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.max().unwrap_or(0).max(head.len())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        while widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1) > WIDTH {
            // Numbers are never cut: half a number is a wrong one.
            let names = widths.iter_mut().zip(&self.columns).filter(|(_, (_, side))| *side == Side::Left);
            match names.map(|(width, _)| width).max().filter(|width| **width > CUT_MIN) {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        widths
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, (_, side)), width) in cells.iter().zip(&self.columns).zip(widths) {
            let cell = match cell.chars().count() > *width {
                true => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
                false => cell.clone(),
            };
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *side == Side::Left { ("", &*padding) } else { (&*padding, "") };
            line.extend([before, &cell, after, GAP]);
        }
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::look;
    use super::*;

    #[test]
    fn cells_stand_below_their_head_and_names_are_cut_where_there_is_no_room() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right), ("END", Side::Left)]);
        table.row(vec!["größe".into(), "7".into(), "a".into()]);
        table.row(vec!["b".into(), "1234".into(), String::new()]);
        assert_eq!(table.lines(&look()), ["NAME      N  END", "größe     7  a", "b      1234"]);
        table.row(vec!["x".repeat(100), "5".into(), "c".into()]);
        assert_eq!(table.lines(&look())[3], format!("{}…     5  c", "x".repeat(68)));
    }
}
