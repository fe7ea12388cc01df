//! The clients that were registered when the lock manager recognised: a registration that differs has come since.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::limits;
use crate::records::{AsKey, RecordKey, Records};

/// Bytes of what [`Registrations::render`] makes: a line each, of the longest names.
pub const REGISTRATIONS_BYTES_MAX: usize =
    (limits::RECORDS_MAX + 1) * (heirlock_nsm::limits::FILE_NAME_BYTES_MAX + 18);

/// The registrations that a run found when it recognised. They decide which clients have come back, so they have to
/// outlive the agent as its run does: they are kept as text where the next agent of the same boot finds it. A boot ends
/// the life that the run is bound to, and takes the text away with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrations {
    run: String,
    /// Each client and what tells its record from another one. A record itself may be large.
    prints: BTreeMap<RecordKey, u64>,
}

impl Registrations {
    /// The present registrations, noted for a run.
    #[must_use]
    pub fn of(run: &str, clients: &Records) -> Self {
        let prints = clients.iter().map(|(key, record)| (key.clone(), fingerprint(record))).collect();
        Self { run: run.to_owned(), prints }
    }

    /// Whether a client with this record registered after these were noted.
    #[must_use]
    pub fn is_back(&self, client: &impl AsKey, record: &[u8]) -> bool {
        let client: &dyn AsKey = client;
        self.prints.get(client) != Some(&fingerprint(record))
    }

    /// Of these clients those that registered after these were noted.
    #[must_use]
    pub fn came(&self, now: &Records) -> BTreeSet<RecordKey> {
        let back = now.iter().filter(|(key, record)| self.is_back(*key, record));
        back.map(|(key, _)| key.clone()).collect()
    }

    /// As text: the run and the number of clients in the first line, then a client a line.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("{} {}\n", self.run, self.prints.len());
        for (client, print) in &self.prints {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{print:016x} {}", client.as_str());
        }
        text
    }

    /// Takes up what an earlier agent noted for this run. `None` where it is another run's, or was cut short.
    #[must_use]
    pub fn parse(text: &str, run: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (of, count) = lines.next()?.split_once(' ')?;
        if of != run {
            return None;
        }
        let parse = |line: &str| {
            let (print, client) = line.split_once(' ')?;
            Some((RecordKey::parse(client).ok()?, u64::from_str_radix(print, 16).ok()?))
        };
        let prints = lines.map(parse).collect::<Option<BTreeMap<_, _>>>()?;
        (prints.len().to_string() == count).then(|| Self { run: run.to_owned(), prints })
    }
}

/// FNV-1a with 64 bits: it stays the same from one version of the program to the next. Records are written by this
/// server's own status monitor, with a cookie of the kernel's, so two that look alike gain an attacker nothing.
fn fingerprint(record: &[u8]) -> u64 {
    record
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(clients: &[(&str, &str)]) -> Records {
        clients.iter().map(|(name, record)| (RecordKey::parse(name).unwrap(), *record)).collect()
    }

    #[test]
    fn a_client_that_registers_anew_or_for_the_first_time_has_come_back_and_no_other() {
        let before =
            Registrations::of("r1", &registered(&[("10.0.0.1", "a"), ("10.0.0.2", "a"), ("10.0.0.3", "a")]));
        let now = registered(&[("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.0.0.4", "a")]);
        let came: Vec<String> = before.came(&now).iter().map(ToString::to_string).collect();
        assert_eq!(came, ["10.0.0.2", "10.0.0.4"]);
    }

    #[test]
    fn the_next_agent_reads_what_the_one_before_wrote() {
        for clients in [
            registered(&[]),
            registered(&[("10.0.0.1", "a"), ("client.example.org", "b"), ("fe80::1%eth0", "")]),
        ] {
            let noted = Registrations::of("r1", &clients);
            assert_eq!(Registrations::parse(&noted.render(), "r1"), Some(noted));
        }
    }

    #[test]
    fn a_text_of_another_run_or_one_that_was_cut_short_tells_nothing() {
        let text = Registrations::of("r1", &registered(&[("10.0.0.1", "a"), ("10.0.0.22", "b")])).render();
        assert_eq!(Registrations::parse(&text, "r2"), None);
        for end in 0..text.len() {
            assert_eq!(Registrations::parse(&text[..end], "r1"), None, "cut after {end} bytes");
        }
    }

    #[test]
    fn the_fingerprint_of_registrations_never_changes() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8, "as its authors publish it");
    }
}
