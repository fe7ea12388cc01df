//! Findings and steps of the guard.

use super::{Look, plain, wrapped};
use crate::guard::{Finding, Severity, Step, StepOutcome};

/// The worst comes last: that is where a terminal ends.
pub(in crate::cli) fn findings(findings: &[Finding], look: &Look) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.severity);
    let mut shown = String::new();
    for finding in &sorted {
        let word = format!("{:<12}", finding.severity.as_str());
        let text = wrapped(&word, &plain(&format!("{}: {}", finding.check, finding.found)));
        let painted = match finding.severity {
            Severity::Ok => look.good(word.trim_end()),
            Severity::Note => word.trim_end().to_owned(),
            Severity::Warning => look.strong(word.trim_end()),
            Severity::LosesLocks => look.bad(word.trim_end()),
        };
        shown.push_str(&text.replacen(word.trim_end(), &painted, 1));
        if let Some(remedy) = &finding.remedy {
            shown.push_str(&wrapped(&" ".repeat(12), &plain(&format!("→ {remedy}"))));
        }
    }
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (loses, warnings) = (count(Severity::LosesLocks), count(Severity::Warning));
    shown.push_str(&match (loses, warnings) {
        (0, 0) => format!("\n{} checks, nothing to complain of\n", findings.len()),
        (0, _) => format!("\n{} checks, {warnings} with a warning\n", findings.len()),
        _ => {
            format!("\n{} checks, {warnings} with a warning, {loses} that will lose locks\n", findings.len())
        }
    });
    shown
}

/// The steps that were taken, in their order.
pub(in crate::cli) fn steps(steps: &[Step]) -> String {
    let mut shown = String::new();
    for step in steps {
        let outcome = match step.outcome {
            StepOutcome::Done => "done",
            StepOutcome::Planned => "would do",
            StepOutcome::AlreadySo => "so already",
            StepOutcome::Left => "left",
        };
        shown.push_str(&wrapped(&format!("{outcome:<12}"), &plain(&step.what)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look { colours: false, now_s: 0, zone: jiff::tz::TimeZone::UTC }
    }

    fn finding(severity: Severity, remedy: Option<&str>) -> Finding {
        Finding {
            check: "lift-grace",
            severity,
            found: "it is \u{1b}y".into(),
            remedy: remedy.map(Into::into),
        }
    }

    #[test]
    fn the_worst_comes_last_with_its_remedy_and_a_sum() {
        let text = findings(
            &[finding(Severity::LosesLocks, Some("run 'heirlock enable'")), finding(Severity::Ok, None)],
            &look(),
        );
        let expected = "ok          lift-grace: it is \\u{1b}y\nloses-locks lift-grace: it is \\u{1b}y\n            \
                        → run 'heirlock enable'\n\n2 checks, 0 with a warning, 1 that will lose locks\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_go_to_the_severity_alone() {
        let text = findings(&[finding(Severity::Ok, None)], &Look { colours: true, ..look() });
        assert!(text.starts_with("\u{1b}[32mok\u{1b}[0m          lift-grace"), "{text:?}");
    }

    #[test]
    fn a_step_says_what_came_of_it() {
        let step = Step { what: "write /etc/nfs.conf.d/heirlock.conf".into(), outcome: StepOutcome::Planned };
        assert_eq!(steps(&[step]), "would do    write /etc/nfs.conf.d/heirlock.conf\n");
    }
}
