//! The outcomes of one generation: the lines that its run left in the store, in the order in which they were
//! learnt.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Journal, OutcomeLine};
use crate::incarnation::Incarnation;
use crate::outcome::Outcome;
use crate::records::{AsKey, KeyRef, RecordKey};

/// The last that was learnt of each client; a run learns only what is better than what it knew.
#[must_use]
pub fn last_outcomes(lines: &[OutcomeLine]) -> BTreeMap<KeyRef<'_>, &OutcomeLine> {
    lines.iter().map(|line| (line.client.as_key(), line)).collect()
}

/// Clients of which this is the last that was learnt.
pub fn with_outcome(lines: &[OutcomeLine], wanted: Outcome) -> impl Iterator<Item = &RecordKey> {
    // Asked at every turn of the agent's loop, for a rare case: it costs one look through the lines.
    let any = lines.iter().any(|line| line.outcome == wanted);
    let last = any.then(|| last_outcomes(lines).into_values());
    last.into_iter().flatten().filter(move |line| line.outcome == wanted).map(|line| &line.client)
}

/// Clients that were told in this life of the lock manager, by the run that began the generation with this journal.
#[must_use]
pub fn told_in(journal: &Journal, lines: &[OutcomeLine], life: Option<&Incarnation>) -> BTreeSet<RecordKey> {
    if life.is_none() || journal.life.as_ref() != life {
        return BTreeSet::new();
    }
    let good = last_outcomes(lines).into_values().filter(|line| line.outcome.is_good());
    good.map(|line| line.client.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServerName;

    fn line(client: &str, outcome: Outcome) -> OutcomeLine {
        OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, 0)
    }

    fn names(clients: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
        clients.into_iter().map(|client| client.to_string()).collect()
    }

    fn lines() -> Vec<OutcomeLine> {
        vec![
            line("10.0.0.1", Outcome::Unreachable),
            line("10.0.0.2", Outcome::Acknowledged),
            line("10.0.0.1", Outcome::ReRegistered),
            line("10.0.0.2", Outcome::Lost),
            line("10.0.0.3", Outcome::Acknowledged),
        ]
    }

    #[test]
    fn the_last_line_of_a_client_counts() {
        let lines = lines();
        assert_eq!(names(with_outcome(&lines, Outcome::Lost)), ["10.0.0.2"]);
        assert_eq!(names(with_outcome(&lines, Outcome::Unreachable)), [""; 0]);
        assert_eq!(last_outcomes(&lines)[&lines[0].client.as_key()].outcome, Outcome::ReRegistered);
    }

    #[test]
    fn a_client_was_told_in_the_life_of_its_generation_and_in_no_other() {
        let life = Incarnation { boot: "b".into(), start: "1".into(), reopened: 0 };
        let quiet = Journal::quiet("r", &ServerName::parse("nfs-b").unwrap(), 0);
        let served = Journal { life: Some(life.clone()), ..quiet.clone() };
        assert_eq!(names(told_in(&served, &lines(), Some(&life))), ["10.0.0.1", "10.0.0.3"]);
        let later = Incarnation { reopened: 1, ..life };
        assert!(told_in(&served, &lines(), Some(&later)).is_empty());
        assert!(told_in(&served, &lines(), None).is_empty() && told_in(&quiet, &lines(), None).is_empty());
    }
}
