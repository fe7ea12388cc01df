//! The program's exit codes, and the errors that lead to them.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use heirlock_core::drill::Verdict;
use serde::Serialize;

use crate::config::ConfigError;
use crate::control::report::{AdoptionReport, Level};
use crate::control::{AskError, Missing};
use crate::store::StoreError;

/// Scripts and cluster managers go by it: a code keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and every client was told.
    Done,
    /// It failed.
    Failed,
    /// The command line or the configuration can't be.
    Usage,
    /// Refused; nothing was changed.
    Refused,
    /// No agent answers, or none in time.
    NoAgent,
    /// The store fails.
    Store,
    /// Done, but not every client was told (I8).
    Untold,
    /// A drill, by which nothing speaks against an adoption, and which does not prove that one would work.
    Unproved,
    /// The level for a monitoring system, which has numbers of its own (`status --check`); nothing where it could not
    /// be found out.
    Check(Option<Level>),
    /// The code of a resource agent, which the standard of such agents gives its meaning.
    Ocf(u8),
}

/// The same for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done, and every client was told
  1  it failed
  2  the command line or the configuration can't be
  3  refused; nothing was changed
  4  no agent answers, or its loop hangs: the request may be done later
  5  the store fails
  6  done, but some clients were not told: they are lost or unreachable
  7  a drill that proves less than it was asked
Each verb's own --help says what that means for it.";

/// Why a verb was not carried out.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Its meaning for the caller.
    pub(crate) exit: Exit,
    /// In lower case: what was expected and found, and what to do.
    pub(crate) message: String,
    /// The report on the clients, where an adoption could not go on.
    pub(crate) report: Option<Box<AdoptionReport>>,
    /// The needs of an adoption that was refused.
    pub(crate) missing: Vec<Missing>,
}

/// The same as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct FailedDocument<'a> {
    error: &'a str,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a AdoptionReport>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'a [Missing],
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::NoAgent => 4,
            Exit::Store => 5,
            Exit::Untold => 6,
            Exit::Unproved => 7,
            Exit::Check(Some(Level::Well)) => 0,
            Exit::Check(Some(Level::Attention)) => 1,
            Exit::Check(Some(Level::Unprotected)) => 2,
            Exit::Check(None) => 3,
            Exit::Ocf(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

impl Failed {
    /// A failure that is described by its message.
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string(), report: None, missing: Vec::new() }
    }

    /// As a document.
    pub(super) fn document(&self) -> FailedDocument<'_> {
        FailedDocument {
            error: &self.message,
            exit: self.exit.code(),
            report: self.report.as_deref(),
            missing: &self.missing,
        }
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        // Another store than the one that is meant does not fail: it is not used.
        Self::new(if error.is_of_another_store() { Exit::Refused } else { Exit::Store }, error)
    }
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NoAgent { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(
                    Exit::NoAgent,
                    format!("the agent at {path} can't be asked: {source}; run this as root"),
                )
            }
            AskError::NoAgent { .. }
            | AskError::Silent { .. }
            | AskError::Busy { .. }
            | AskError::Untrusted { .. } => Self::new(Exit::NoAgent, error),
            AskError::Gone { .. } => Self::new(Exit::Failed, error),
            AskError::Failed(failure) => Self {
                exit: if failure.refused { Exit::Refused } else { Exit::Failed },
                message: failure.message,
                report: failure.report,
                missing: failure.missing,
            },
        }
    }
}

/// The end of an agent: a store that it could not use is told from everything else.
impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        let store = error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some());
        // Most errors here say their cause themselves; a cause that adds nothing is left out.
        let mut message = String::new();
        for cause in error.chain().map(ToString::to_string) {
            if !message.contains(&cause) {
                message += if message.is_empty() { "" } else { ": " };
                message += &cause;
            }
        }
        Self::new(if store { Exit::Store } else { Exit::Failed }, message)
    }
}

/// A drill is done in any case: its exit code tells what an adoption would come to.
impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Works => Exit::Done,
            Verdict::Unproved | Verdict::HeldHere => Exit::Unproved,
            Verdict::LeavesOut => Exit::Untold,
            Verdict::Fails => Exit::Failed,
            Verdict::StoreFails => Exit::Store,
        }
    }
}

/// Whether an adoption is done, and every client told. An adoption that goes on has told no client before it notifies.
impl From<&AdoptionReport> for Exit {
    fn from(report: &AdoptionReport) -> Self {
        let is_told = report.acknowledged == report.clients
            && report.failed.is_empty()
            && report.others.iter().all(|other| other.acknowledged == other.clients);
        match report.phase.as_str() {
            _ if report.failure.is_some() => Exit::Failed,
            "failed" => Exit::Failed,
            // Its clients are told by --finish.
            "prepared" => Exit::Done,
            // Entries that can't be read count at the end: a cluster manager that prepares must go on to --finish.
            "notifying" | "settling" | "settled" if is_told && report.troubles.is_empty() => Exit::Done,
            _ => Exit::Untold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::tests::report;
    use super::*;
    use crate::control::report::{EntryTrouble, OtherService};
    use crate::store::StoreErrorKind;

    #[test]
    fn only_an_adoption_that_told_all_clients_is_done() {
        assert_eq!(Exit::from(&report()), Exit::Done);
        for (what, spoil) in [
            ("unreachable", (|r| (r.unreachable, r.acknowledged) = (1, 199)) as fn(&mut AdoptionReport)),
            ("lost", |r| (r.lost, r.acknowledged) = (1, 199)),
            ("unknown", |r| (r.unknown, r.acknowledged) = (1, 199)),
            ("another service's", |r| (r.others[0].missed, r.others[0].acknowledged) = (1, 0)),
            ("another service's unknown", |r| r.others[0].clients += 1),
            ("half way", |r| r.phase = "conveyed".into()),
            ("not heard of yet", |r| (r.phase, r.acknowledged) = ("notifying".into(), 199)),
            ("an entry that can't be read", |r| {
                r.troubles = vec![EntryTrouble { entry: "sm/x".into(), why: "a pipe".into() }];
            }),
        ] {
            let mut report = report();
            spoil(&mut report);
            assert_eq!(Exit::from(&report), Exit::Untold, "{what}");
        }
        let told = AdoptionReport { phase: "settling".into(), ..report() };
        assert_eq!(Exit::from(&told), Exit::Done, "a caller that waits for no more is told so");
        let failed = AdoptionReport { failure: Some("no address".into()), ..report() };
        assert_eq!(Exit::from(&failed), Exit::Failed, "a failure is told from a client that is off");
        assert_eq!(Exit::from(&AdoptionReport { phase: "failed".into(), ..report() }), Exit::Failed);
        let own = OtherService {
            service: "host.nfs-b".into(),
            state_number: 5,
            clients: 2,
            acknowledged: 0,
            missed: 0,
        };
        let prepared = AdoptionReport {
            phase: "prepared".into(),
            unknown: 200,
            acknowledged: 0,
            others: vec![own],
            ..report()
        };
        assert_eq!(Exit::from(&prepared), Exit::Done);
    }

    #[test]
    fn a_store_that_fails_is_told_from_other_failures_of_the_agent() {
        let store = StoreError::new(StoreErrorKind::Unavailable, "the store can't write /x: no; mend it");
        let failed = Failed::from(anyhow::Error::new(store).context("can't begin"));
        assert_eq!(failed.exit, Exit::Store);
        assert!(
            failed.message.starts_with("can't begin: the store can't write /x: no; "),
            "{}",
            failed.message
        );
        assert_eq!(Failed::from(anyhow::anyhow!("no")).exit, Exit::Failed);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for exit in
            [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::NoAgent, Exit::Store, Exit::Untold]
        {
            assert!(HELP.contains(&format!("\n  {}  ", exit.code())), "{exit:?}");
        }
    }
}
