//! CHANGELOG.md in the words of other systems. Its newest section is the package's; it is `Unreleased` until a version is
//! released.

use anyhow::{Context, Result, ensure};

/// The heading of changes that no released version has.
const UNRELEASED: &str = "Unreleased";

/// Columns of a line, which lintian counts.
const COLUMNS: usize = 78;

/// The version of a package: the program's, or one before it that rises with each commit. `timestamp` is the commit's, as
/// `20260131235959`.
///
/// # Errors
/// Where the changelog speaks of another version, or a word can't be part of one.
pub(crate) fn version(changelog: &str, program: &str, timestamp: &str, commit: &str) -> Result<String> {
    let heading = newest(changelog)?.0;
    if heading != UNRELEASED {
        let released = heading.split_whitespace().next().unwrap_or_default();
        ensure!(
            released == program,
            "expected the newest section of CHANGELOG.md to be \"{UNRELEASED}\" or {program}, found {heading:?}"
        );
        return Ok(program.to_owned());
    }
    let is_number = timestamp.len() == 14 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(is_number, "expected a time of 14 digits, found {timestamp:?}");
    let is_hash = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ensure!(is_hash, "expected the hash of a commit, found {commit:?}");
    // A tilde sorts before everything, even the end, with dpkg and with rpm.
    Ok(format!("{program}~{timestamp}.{commit}"))
}

/// The newest section as debian/changelog has it (deb-changelog(5)); `date` as `date -R` prints it.
///
/// # Errors
/// Where there is no section, or nothing in it.
pub(crate) fn debian(changelog: &str, version: &str, maintainer: &str, date: &str) -> Result<String> {
    let mut out = format!("heirlock ({version}) unstable; urgency=medium\n\n");
    for entry in entries(changelog)? {
        out.push_str(&wrapped(&entry, "  * ", "    "));
    }
    out.push_str(&format!("\n -- {maintainer}  {date}\n"));
    Ok(out)
}

/// The newest section as a spec file has it below `%changelog`; `date` as `Sun Nov 29 2026`.
///
/// # Errors
/// As for [`debian`].
pub(crate) fn rpm(changelog: &str, version: &str, maintainer: &str, date: &str) -> Result<String> {
    let mut out = format!("* {date} {maintainer} - {version}-1\n");
    for entry in entries(changelog)? {
        // A percent sign begins a macro.
        out.push_str(&wrapped(&entry, "- ", "  ").replace('%', "%%"));
    }
    Ok(out)
}

/// The heading of the newest section, and its text.
fn newest(changelog: &str) -> Result<(&str, &str)> {
    let (_, from) =
        changelog.split_once("\n## ").context("expected a section (##) in CHANGELOG.md, found none")?;
    let (heading, text) = from.split_once('\n').unwrap_or((from, ""));
    Ok((heading.trim(), text.split("\n## ").next().unwrap_or_default()))
}

/// The entries of the newest section, each on one line and without marks of Markdown.
fn entries(changelog: &str) -> Result<Vec<String>> {
    let (heading, text) = newest(changelog)?;
    let mut entries: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match (line.strip_prefix("- "), entries.last_mut()) {
            (Some(begun), _) => entries.push(begun.trim().to_owned()),
            (None, Some(last)) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            (None, None) => {}
        }
    }
    ensure!(!entries.is_empty(), "expected entries below {heading:?} in CHANGELOG.md, found none");
    Ok(entries.into_iter().map(|entry| entry.replace('`', "")).collect())
}

fn wrapped(text: &str, first: &str, others: &str) -> String {
    let mut lines = vec![first.to_owned()];
    let mut is_begun = false;
    for word in text.split_whitespace() {
        let used = lines.last().map_or(0, |line| line.chars().count());
        if is_begun && used + 1 + word.chars().count() > COLUMNS {
            lines.push(others.to_owned());
            is_begun = false;
        }
        if let Some(line) = lines.last_mut() {
            if is_begun {
                line.push(' ');
            }
            line.push_str(word);
        }
        is_begun = true;
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\n## Unreleased\n- One `thing`,\n  in two lines.\n- Another, 100 % of it.\n\n## 0.0.9\n- Old.\n";

    #[test]
    fn a_version_that_is_not_released_comes_before_the_one_that_will_be() {
        let at = |time| version(TEXT, "0.1.0", time, "abc1234").unwrap();
        assert_eq!(at("20261129113500"), "0.1.0~20261129113500.abc1234");
        assert!(at("20261129113501") > at("20261129113500"));
        assert!(version(TEXT, "0.1.0", "today", "abc").is_err());
        assert!(version(TEXT, "0.1.0", "20261129113500", "a-b").is_err());
    }

    #[test]
    fn a_released_version_is_the_programs_own_or_refused() {
        let released = TEXT.replace("Unreleased", "0.1.0 (2026-12-01)");
        assert_eq!(version(&released, "0.1.0", "", "").unwrap(), "0.1.0");
        let refused = version(&released, "0.2.0", "", "").unwrap_err().to_string();
        assert!(refused.contains("0.2.0, found \"0.1.0 (2026-12-01)\""), "{refused}");
    }

    #[test]
    fn the_newest_section_alone_is_the_packages() {
        let deb = debian(TEXT, "1", "A <a@example.com>", "Sun, 29 Nov 2026 11:35:33 +0000").unwrap();
        assert_eq!(
            deb,
            "heirlock (1) unstable; urgency=medium\n\n  * One thing, in two lines.\n  * Another, 100 % of it.\n\n \
             -- A <a@example.com>  Sun, 29 Nov 2026 11:35:33 +0000\n"
        );
        let rpm = rpm(TEXT, "1", "A <a@example.com>", "Sun Nov 29 2026").unwrap();
        assert_eq!(
            rpm,
            "* Sun Nov 29 2026 A <a@example.com> - 1-1\n- One thing, in two lines.\n- Another, 100 %% of it.\n"
        );
        assert!(debian("# Changelog\n", "1", "", "").is_err());
        assert!(debian("# Changelog\n\n## Unreleased\n\n## 0.1\n- Old.\n", "1", "", "").is_err());
    }

    #[test]
    fn no_line_of_the_projects_own_is_too_long() {
        let deb = debian(crate::CHANGELOG, "0.1.0~20261129113500.abc1234", "A <a@b>", "today").unwrap();
        assert!(deb.lines().count() > 20);
        for line in deb.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
