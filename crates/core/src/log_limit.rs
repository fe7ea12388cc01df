//! Which log lines may be written that a packet, or another user's program, causes. A host that sends packets must not be
//! able to fill the disk, nor to hide important lines behind others.
//!
//! In each interval a source may cause so many lines of one kind, and all sources together so many. The rest is counted,
//! and said in one line a kind when the interval is over. Text that came from elsewhere is cut by [`cut`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{Moment, limits};

/// The cause of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A packet from this address.
    Address(IpAddr),
    /// A program of this user.
    User(u32),
    /// A source that nothing tells apart from others.
    Unknown,
}

impl Source {
    /// An address, where there is one.
    #[must_use]
    pub fn of(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Unknown, Self::from)
    }
}

impl From<IpAddr> for Source {
    /// An IPv4 address is one source however it is written. A host of IPv6 has all the addresses of its /64, so that counts
    /// as one.
    fn from(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Self::Address(address) => write!(f, "{address}"),
            Self::User(user) => write!(f, "user {user}"),
            Self::Unknown => f.write_str("others"),
        }
    }
}

/// The lines of one kind that were not written, in an interval that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// The kind of line.
    pub kind: &'static str,
    /// How many lines were not written.
    pub lines: u64,
    /// How many sources caused them, as far as they were told apart.
    pub sources: usize,
    /// The source of most of them.
    pub most: Source,
}

/// Counts lines, by kind and source. Its memory is bounded: kinds are written in the program, and of each kind
/// [`limits::LOG_SOURCES_MAX`] sources are told apart.
#[derive(Debug, Clone, Default)]
pub struct LogLimit {
    kinds: BTreeMap<&'static str, Interval>,
}

/// The lines of one kind in one interval.
#[derive(Debug, Clone)]
struct Interval {
    since: Moment,
    written: u32,
    sources: BTreeMap<Source, Counted>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    written: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line of this kind may be written, whose cause is this source. [`LogLimit::over`] is to be asked before.
    pub fn may_write(&mut self, now: Moment, kind: &'static str, source: Source) -> bool {
        let interval = self.kinds.entry(kind).or_insert_with(|| Interval {
            since: now,
            written: 0,
            sources: BTreeMap::new(),
        });
        let is_told_apart =
            interval.sources.contains_key(&source) || interval.sources.len() < limits::LOG_SOURCES_MAX;
        let counted =
            interval.sources.entry(if is_told_apart { source } else { Source::Unknown }).or_default();
        if interval.written >= limits::LOG_LINES_MAX || counted.written >= limits::LOG_LINES_OF_SOURCE_MAX {
            counted.suppressed += 1;
            return false;
        }
        interval.written += 1;
        counted.written += 1;
        true
    }

    /// Ends the intervals that are over, and says what was suppressed in them.
    pub fn over(&mut self, now: Moment) -> Vec<Suppressed> {
        let is_over = |interval: &Interval| now.since(interval.since) >= limits::LOG_INTERVAL;
        let over = self.kinds.extract_if(.., |_, interval| is_over(interval));
        over.filter_map(|(kind, interval)| interval.suppressed(kind)).collect()
    }

    /// Ends all intervals before their time: the program ends.
    pub fn finish(&mut self) -> Vec<Suppressed> {
        let all = std::mem::take(&mut self.kinds);
        all.into_iter().filter_map(|(kind, interval)| interval.suppressed(kind)).collect()
    }
}

impl Interval {
    fn suppressed(&self, kind: &'static str) -> Option<Suppressed> {
        let suppressed = || self.sources.iter().filter(|(_, counted)| counted.suppressed > 0);
        let (most, _) = suppressed().max_by_key(|(_, counted)| counted.suppressed)?;
        let lines = suppressed().map(|(_, counted)| counted.suppressed).sum();
        Some(Suppressed { kind, lines, sources: suppressed().count(), most: *most })
    }
}

/// Text from elsewhere as it may stand in a log line: without control characters, and no longer than
/// [`limits::LOG_TEXT_CHARS_MAX`].
#[must_use]
pub fn cut(text: &str) -> String {
    let mut characters = text.escape_debug();
    let mut kept: String = characters.by_ref().take(limits::LOG_TEXT_CHARS_MAX).collect();
    if characters.next().is_some() {
        kept.push_str(&format!("… ({} bytes)", text.len()));
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    fn source(number: u32) -> Source {
        IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn one_source_does_not_take_the_lines_of_another() {
        let mut limit = LogLimit::default();
        let written = (0..3_000).filter(|_| limit.may_write(at(1), "notified", source(1))).count();
        assert_eq!(written, limits::LOG_LINES_OF_SOURCE_MAX as usize);
        assert!(limit.may_write(at(1), "notified", source(2)), "another source");
        assert!(limit.may_write(at(1), "refused", source(1)), "another kind");
    }

    #[test]
    fn suppressed_lines_are_reported_once_when_their_interval_is_over() {
        let mut limit = LogLimit::default();
        let mut cause = |from, times| (0..times).filter(|_| limit.may_write(at(1), "notified", from)).count();
        cause(source(1), 1_000);
        cause(source(2), 20);
        assert_eq!(limit.over(at(2)), []);
        let end = at(1) + limits::LOG_INTERVAL;
        let own = u64::from(limits::LOG_LINES_OF_SOURCE_MAX);
        let expected = Suppressed { kind: "notified", lines: 1_020 - 2 * own, sources: 2, most: source(1) };
        let expected = [expected];
        assert_eq!(limit.clone().finish(), expected, "also where the program ends before");
        assert_eq!(limit.over(end), expected);
        assert_eq!((limit.over(end), limit.finish()), (vec![], vec![]));
        assert!(limit.may_write(end, "notified", source(1)), "a new interval");
    }

    #[test]
    fn a_host_of_ipv6_is_one_source_however_many_addresses_it_sends_from() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn text_from_elsewhere_is_cut_and_says_how_long_it_was() {
        assert_eq!(cut("client1"), "client1");
        assert_eq!(cut("a\nb"), "a\\nb");
        let long = cut(&"ä".repeat(500));
        assert_eq!(long.chars().count(), limits::LOG_TEXT_CHARS_MAX + "… (1000 bytes)".chars().count());
        assert!(long.ends_with("… (1000 bytes)"), "{long}");
    }

    proptest! {
        /// However many sources there are: what is written and kept in memory is bounded, and every line is written
        /// or counted.
        #[test]
        fn lines_and_memory_are_bounded_and_every_line_is_written_or_counted(
            asked in prop::collection::vec((0_u32..2_000, 0_u64..2_000), 1..3_000)
        ) {
            let mut limit = LogLimit::default();
            let (mut now, mut written, mut suppressed) = (0, 0, 0);
            let mut in_interval = 0;
            for (from, later) in &asked {
                now += later / 10;
                for over in limit.over(at(now)) {
                    suppressed += over.lines;
                    in_interval = 0;
                }
                if limit.kinds.is_empty() { in_interval = 0; }
                if limit.may_write(at(now), "kind", source(*from)) {
                    written += 1;
                    in_interval += 1;
                }
                prop_assert!(in_interval <= limits::LOG_LINES_MAX);
                prop_assert!(limit.kinds["kind"].sources.len() <= limits::LOG_SOURCES_MAX + 1);
            }
            suppressed += limit.over(at(now) + limits::LOG_INTERVAL).iter().map(|over| over.lines).sum::<u64>();
            prop_assert_eq!(written + suppressed, asked.len() as u64);
        }
    }
}
