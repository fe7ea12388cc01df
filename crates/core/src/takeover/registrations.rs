//! The clients that were registered when the lock manager recognised: a registration that differs has come since.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::limits;
use crate::records::{Record, RecordKey};

/// Bytes that are read of what [`Registrations::render`] makes: a print for each client, and for as many more names and addresses
/// of theirs as could be noted beside a client's name.
pub const REGISTRATIONS_BYTES_MAX: usize =
    (limits::RECORDS_MAX + 1) * (heirlock_nsm::limits::FILE_NAME_BYTES_MAX + 18);

/// The registrations that a run found when it recognised. They decide which clients have come back, so they have to
/// outlive the agent as its run does: they are kept as text where the next agent of the same boot finds it. A boot ends
/// the life that the run is bound to, and takes the text away with it.
///
/// Noted is each line of each record, and not under which key its client was known: a client whose name has come to lead to
/// another address, or of whose lines one is gone, has not registered for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrations {
    run: String,
    /// What tells a line from all others. A line names its client.
    prints: BTreeSet<u64>,
}

impl Registrations {
    /// The present registrations, noted for a run.
    #[must_use]
    pub fn of<'a>(run: &str, registered: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>) -> Self {
        let prints = registered.into_iter().flat_map(|(_, record)| prints(record)).collect();
        Self { run: run.to_owned(), prints }
    }

    /// This record is one of them.
    pub fn note(&mut self, record: &[u8]) {
        self.prints.extend(prints(record));
    }

    /// Whether a client with this record registered after these were noted.
    #[must_use]
    pub fn is_back(&self, record: &[u8]) -> bool {
        prints(record).any(|print| !self.prints.contains(&print))
    }

    /// Of these clients those that registered after these were noted.
    #[must_use]
    pub fn came<'a>(
        &self,
        now: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>,
    ) -> BTreeSet<RecordKey> {
        let back = now.into_iter().filter(|(_, record)| self.is_back(record));
        back.map(|(key, _)| key.clone()).collect()
    }

    /// The same, where a record may be that of a registration that was refused: a client has come by a line that is one of
    /// `registered`.
    #[must_use]
    pub fn came_among<'a>(
        &self,
        registered: &Self,
        now: impl IntoIterator<Item = (&'a RecordKey, &'a Record)>,
    ) -> BTreeSet<RecordKey> {
        let is_new = |print| !self.prints.contains(&print) && registered.prints.contains(&print);
        let back = now.into_iter().filter(|(_, record)| prints(record).any(is_new));
        back.map(|(key, _)| key.clone()).collect()
    }

    /// As text: the run and the number of prints in the first line, then a print a line.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("{} {}\n", self.run, self.prints.len());
        for print in &self.prints {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{print:016x}");
        }
        text
    }

    /// Takes up what an earlier agent noted for this run. `None` where it is another run's, or was cut short. An agent of
    /// version 0.1 noted a client's name behind the print of its record, which is one line for nearly all of them.
    #[must_use]
    pub fn parse(text: &str, run: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (of, count) = lines.next()?.split_once(' ')?;
        if of != run {
            return None;
        }
        let mut noted = 0_usize;
        let parse = |line: &str| {
            noted += 1;
            u64::from_str_radix(line.split_once(' ').map_or(line, |(print, _)| print), 16).ok()
        };
        let prints = lines.map(parse).collect::<Option<BTreeSet<_>>>()?;
        (noted.to_string() == count).then(|| Self { run: run.to_owned(), prints })
    }
}

/// One for each line, whether or not a line feed ends the last one.
fn prints(record: &[u8]) -> impl Iterator<Item = u64> {
    let lines = record.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| fingerprint(line.iter().copied().chain([b'\n'])))
}

/// FNV-1a with 64 bits: it stays the same from one version of the program to the next. Records are written by this
/// server's own status monitor, with a cookie of the kernel's, so two that look alike gain an attacker nothing.
fn fingerprint(line: impl Iterator<Item = u8>) -> u64 {
    line.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Records;

    fn registered(clients: &[(&str, &str)]) -> Records {
        clients.iter().map(|(name, record)| (RecordKey::parse(name).unwrap(), *record)).collect()
    }

    #[test]
    fn a_client_that_registers_anew_or_for_the_first_time_has_come_back_and_no_other() {
        let before = Registrations::of(
            "r1",
            &registered(&[("10.0.0.1", "1a"), ("10.0.0.2", "2a"), ("10.0.0.3", "3a")]),
        );
        let now = registered(&[("10.0.0.1", "1a"), ("10.0.0.2", "2b"), ("10.0.0.4", "4a")]);
        let came: Vec<String> = before.came(&now).iter().map(ToString::to_string).collect();
        assert_eq!(came, ["10.0.0.2", "10.0.0.4"]);
    }

    #[test]
    fn a_client_whose_registration_was_refused_has_not_come_back() {
        let before = Registrations::of("r1", &registered(&[("10.0.0.1", "1a"), ("10.0.0.2", "2a")]));
        let found =
            registered(&[("10.0.0.1", "1b"), ("10.0.0.2", "2a"), ("10.0.0.3", "3a"), ("10.0.0.4", "4a")]);
        let monitored = registered(&[("10.0.0.1", "1a"), ("10.0.0.2", "2a"), ("10.0.0.4", "4a")]);
        let came = before.came_among(&Registrations::of("r1", &monitored), &found);
        assert_eq!(came.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.4"]);
    }

    #[test]
    fn a_client_that_is_known_by_another_key_or_by_fewer_lines_has_not_come_back_for_that() {
        let before = Registrations::of(
            "r1",
            &registered(&[("client", "1a"), ("10.0.0.2", "2a\n2b\n"), ("10.0.0.3", "3a\n")]),
        );
        let now = registered(&[("10.0.0.1", "1a\n"), ("10.0.0.2", "2b"), ("10.0.0.3", "3a\n3b\n")]);
        let came: Vec<String> = before.came(&now).iter().map(ToString::to_string).collect();
        assert_eq!(came, ["10.0.0.3"]);
    }

    #[test]
    fn a_text_of_version_0_1_is_read_with_the_names_of_its_clients() {
        let text = format!("r1 1\n{:016x} 10.0.0.1\n", fingerprint(b"1a\n".iter().copied()));
        let noted = Registrations::parse(&text, "r1").unwrap();
        assert!(!noted.is_back(b"1a\n") && noted.is_back(b"1b\n"));
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
        assert_eq!(fingerprint([].into_iter()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(
            fingerprint(b"foobar".iter().copied()),
            0x8594_4171_f739_67e8,
            "as its authors publish it"
        );
    }
}
