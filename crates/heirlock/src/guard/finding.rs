//! The finding of a check.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It will hurt some day, or some clients.
    Warning,
    /// Locks are lost at the next adoption.
    LosesLocks,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Finding {
    /// The name of the check: a word that does not change, for scripts.
    pub(crate) check: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// The finding in words.
    pub(crate) found: String,
    /// The remedy for an administrator.
    pub(crate) remedy: Option<String>,
}

impl Severity {
    /// As it is printed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::LosesLocks => "loses-locks",
        }
    }
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn note(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Note, found: found.into(), remedy: None }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn loses_locks(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, severity: Severity::LosesLocks, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// One line; the remedy on the next.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {}: {}", self.severity.as_str(), self.check, self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:<11} {remedy}", ""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_its_remedy_the_next() {
        let finding = Finding::loses_locks("lift-grace", "it is y", "run 'heirlock enable'");
        assert_eq!(finding.to_string(), "loses-locks lift-grace: it is y\n            run 'heirlock enable'");
        assert_eq!(Finding::ok("store", "well").to_string(), "ok          store: well");
    }

    #[test]
    fn a_severity_is_printed_for_scripts_in_kebab_case() {
        let json = serde_json::to_value(Finding::loses_locks("lift-grace", "y", "n")).unwrap();
        let expected = serde_json::json!({
            "check": "lift-grace", "severity": "loses-locks", "found": "y", "remedy": "n"
        });
        assert_eq!(json, expected);
        assert_eq!(Severity::LosesLocks.as_str(), json["severity"]);
    }
}
