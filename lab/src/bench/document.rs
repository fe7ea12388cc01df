//! `docs/benchmarks.md` and its plots, brought up to date by what was measured. Prose is people's, and stays.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::Report;

/// Writes the figures of these benches between their marks in `benchmarks.md`, and the plots beside it.
///
/// # Errors
/// When the document can't be read or written, or has no place for a bench.
pub fn write(folder: &Path, reports: &[Report]) -> Result<()> {
    let path = folder.join("benchmarks.md");
    let mut text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    fs::create_dir_all(folder.join("plots"))?;
    for report in reports {
        text = replaced(&text, report.bench, &report.markdown())
            .with_context(|| format!("{} has no place for {}", path.display(), report.bench))?;
        fs::write(folder.join("plots").join(format!("{}.svg", report.bench)), &report.plot)?;
    }
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
}

/// The text between a bench's marks is replaced.
fn replaced(text: &str, bench: &str, figures: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- figures of {bench} -->\n"), format!("<!-- end of {bench} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_replaced_and_prose_stays() {
        let text = "a\n<!-- figures of mon -->\nold\n<!-- end of mon -->\nb\n<!-- figures of scale -->\nx\n<!-- end of scale -->\n";
        let new = replaced(text, "mon", "| new |\n").unwrap();
        let expected = "a\n<!-- figures of mon -->\n\n| new |\n\n<!-- end of mon -->\nb\n<!-- figures of scale -->\nx\n<!-- end of scale -->\n";
        assert_eq!(new, expected);
        assert_eq!(replaced(&new, "mon", "| new |\n").unwrap(), expected, "twice is as once");
        assert_eq!(replaced(text, "adopt", ""), None);
    }
}
