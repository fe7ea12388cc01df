//! The outcome of one client in one adoption (I8: nothing is silent).

use std::fmt;

use serde::{Deserialize, Serialize};

/// An adoption's knowledge of a client's locks. "Reclaimed" is not among them: no protocol tells it, only the lab sees it.
///
/// The order is that of a report: the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It registered with the adoptive lock manager inside grace: it asked to reclaim.
    ReRegistered,
    /// It answered the notification. A status monitor answers whether or not it recognised the sender, so
    /// this is no proof of a reclaim.
    Acknowledged,
    /// It was called until grace ended and never answered.
    Unreachable,
    /// It was not told in time: its locks are gone, and a notification now would do harm (I4).
    Lost,
}

impl Outcome {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::ReRegistered, Self::Acknowledged, Self::Unreachable, Self::Lost];

    /// As reports and metrics spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::ReRegistered => "re-registered",
            Outcome::Acknowledged => "acknowledged",
            Outcome::Unreachable => "unreachable",
            Outcome::Lost => "lost",
        }
    }

    /// Whether this client was told in time.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Outcome::ReRegistered | Outcome::Acknowledged)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_spelled_as_in_the_store_and_the_best_is_first() {
        assert!(Outcome::ALL.is_sorted());
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
