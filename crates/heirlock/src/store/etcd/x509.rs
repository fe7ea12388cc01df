//! What a certificate says of its time and of its subject's common name (RFC 5280, 4.1), and nothing else: whether it is a
//! good one is for the connection to tell.

/// The parts of a certificate that are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// From when it is good, in seconds since 1970.
    pub(super) from_s: i64,
    /// Until when.
    pub(super) until_s: i64,
    /// Its subject has a common name.
    pub(super) has_common_name: bool,
}

// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// The object that stands for a common name: 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

impl Certificate {
    /// What these bytes of DER say; nothing where they are no certificate.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut body, _) = expect(certificate, SEQUENCE)?;
        if let Some((_, rest)) = expect(body, VERSION) {
            body = rest;
        }
        let (_serial, body) = expect(body, INTEGER)?;
        let (_algorithm, body) = expect(body, SEQUENCE)?;
        let (_issuer, body) = expect(body, SEQUENCE)?;
        let (validity, body) = expect(body, SEQUENCE)?;
        let (subject, _) = expect(body, SEQUENCE)?;
        let (from_s, rest) = time(validity)?;
        let (until_s, _) = time(rest)?;
        Some(Self { from_s, until_s, has_common_name: has_common_name(subject) })
    }
}

fn has_common_name(mut subject: &[u8]) -> bool {
    while let Some((mut set, rest)) = expect(subject, SET) {
        while let Some((pair, others)) = expect(set, SEQUENCE) {
            if expect(pair, OBJECT).is_some_and(|(object, _)| object == COMMON_NAME) {
                return true;
            }
            set = others;
        }
        subject = rest;
    }
    false
}

/// What lies in an element of this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (digits.iter().fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| *found == tag)
}

/// A time in seconds since 1970, and what follows it.
fn time(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, century) = match expect(bytes, UTC_TIME) {
        Some((text, rest)) => (text, rest, false),
        None => expect(bytes, GENERALIZED_TIME).map(|(text, rest)| (text, rest, true))?,
    };
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.len() != if century { 14 } else { 12 } {
        return None;
    }
    let (year, text) = text.split_at_checked(if century { 4 } else { 2 })?;
    let year = match year.parse::<i64>().ok()? {
        year if century => year,
        // RFC 5280, 4.1.2.5.1.
        year if year >= 50 => 1900 + year,
        year => 2000 + year,
    };
    let part = |at: usize| text.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let is_one =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    is_one
        .then(|| ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
        .map(|s| (s, rest))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. The year begins in March here, so that a leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An element of DER.
    fn element(tag: u8, inside: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], inside].concat()
    }

    fn certificate(from: &[u8], until: &[u8], subject: &[u8]) -> Vec<u8> {
        let body = [
            element(VERSION, &[2, 1, 2]),
            element(INTEGER, &[7]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[from, until].concat()),
            element(SEQUENCE, subject),
        ];
        element(SEQUENCE, &element(SEQUENCE, &body.concat()))
    }

    fn name(object: &[u8]) -> Vec<u8> {
        element(SET, &element(SEQUENCE, &[element(OBJECT, object), element(0x0c, b"text")].concat()))
    }

    #[test]
    fn the_time_of_a_certificate_is_told_in_both_its_forms() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", -631_152_000),
            (GENERALIZED_TIME, "20000229120000Z", 951_825_600),
            (GENERALIZED_TIME, "21000301000000Z", 4_107_542_400),
        ] {
            let time = element(tag, text.as_bytes());
            let parsed = Certificate::parse(&certificate(&time, &time, &[])).unwrap();
            assert_eq!((parsed.from_s, parsed.until_s), (expected, expected), "{text}");
        }
        for text in ["", "Z", "7001010000Z", "701301000000Z", "7001010000000", "+00101000000Z"] {
            let time = element(UTC_TIME, text.as_bytes());
            assert_eq!(Certificate::parse(&certificate(&time, &time, &[])), None, "{text}");
        }
    }

    #[test]
    fn a_common_name_is_found_among_other_names() {
        let time = element(UTC_TIME, b"700101000000Z");
        let has = |subject: Vec<u8>| {
            Certificate::parse(&certificate(&time, &time, &subject)).unwrap().has_common_name
        };
        let organisation = [0x55, 0x04, 0x0a];
        assert!(!has(vec![]) && !has(name(&organisation)));
        assert!(has([name(&organisation), name(&COMMON_NAME)].concat()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let time = element(UTC_TIME, b"700101000000Z");
            let mut good = certificate(&time, &time, &name(&COMMON_NAME));
            let at = at.index(good.len());
            good[at] = byte;
            let _ = (Certificate::parse(&bytes), Certificate::parse(&good), Certificate::parse(&good[..at]));
        }
    }
}
