//! Times as people read them.

use jiff::tz::TimeZone;

/// The moment at which a page is made, and the zone of its times.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    /// Seconds since 1970.
    pub(crate) s: u64,
    pub(crate) zone: TimeZone,
}

impl Now {
    /// By this host's clock.
    pub(crate) fn here() -> Self {
        let s = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        Self { s, zone: TimeZone::system() }
    }

    /// A time of day, of this host.
    pub(crate) fn time(&self, at_s: u64) -> String {
        let time = i64::try_from(at_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        time.map_or_else(
            || format!("{at_s} s after 1970"),
            |time| time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        )
    }

    /// How long ago that was.
    pub(crate) fn ago(&self, at_s: u64) -> String {
        let age = self.s.saturating_sub(at_s);
        match age {
            0..120 => format!("{age} s ago"),
            120..7_200 => format!("{} min ago", age / 60),
            7_200..172_800 => format!("{} h ago", age / 3_600),
            _ => format!("{} days ago", age / 86_400),
        }
    }
}

/// `1.25 s`, or `3 min 20 s` where it is long.
pub(crate) fn lasted(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        0..10_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        10_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        let shown = [-5, 7, 1_256, 10_049, 119_999, 200_000].map(lasted);
        assert_eq!(shown, ["0.00 s", "0.00 s", "1.25 s", "10.0 s", "119.9 s", "3 min 20 s"]);
        let now = Now { s: 1_800_000_000, zone: TimeZone::UTC };
        assert_eq!(now.time(1_800_000_000), "2027-01-15 08:00:00 UTC");
        assert_eq!(
            [5, 300, 9_000, 200_000].map(|age| now.ago(now.s - age)),
            ["5 s ago", "5 min ago", "2 h ago", "2 days ago"]
        );
        assert_eq!(now.ago(now.s + 9), "0 s ago");
    }
}
