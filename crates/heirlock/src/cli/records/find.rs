//! Finds the client that is meant: by its address, or by a name that it registered under.

use std::net::IpAddr;

use heirlock_core::{Record, RecordKey, ServiceName};
use heirlock_nsm::MonName;

use super::{Failed, Newest, lines_of};
use crate::cli::exit::Exit;

/// The key of the client that is meant, as the store keeps it.
///
/// # Errors
/// Where there is none, or where several have that name.
pub(super) fn find<'a>(
    newest: &'a Newest,
    service: &ServiceName,
    given: &MonName,
) -> Result<(&'a RecordKey, &'a Record), Failed> {
    let records = &newest.contents.records;
    if let Some(found) = records.get_key_value(given) {
        return Ok(found);
    }
    // The most exact of these that fits any client decides.
    let ways: [fn(&MonName, &MonName) -> bool; 3] = [is_same_address, is_same_name, is_short_of];
    for fits in ways {
        let found: Vec<(&RecordKey, &Record)> = records
            .iter()
            .filter(|(key, record)| {
                fits(given, key.client()) || lines_of(record).iter().any(|line| fits(given, &line.mon_name))
            })
            .collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            several => return Err(ambiguous(service, given, several)),
        }
    }
    let what = format!(
        "generation {} of {service} has no record of {given}; 'heirlock records list {service}' shows those it has",
        newest.generation
    );
    Err(Failed::new(Exit::Usage, what))
}

/// `::ffff:192.0.2.1` and `192.0.2.1`, or two spellings of an IPv6 address.
fn is_same_address(given: &MonName, known: &MonName) -> bool {
    let canonical =
        |name: &MonName| name.as_str().parse::<IpAddr>().ok().map(|address| address.to_canonical());
    canonical(given).is_some_and(|address| canonical(known) == Some(address))
}

fn is_same_name(given: &MonName, known: &MonName) -> bool {
    given.as_str().eq_ignore_ascii_case(known.as_str())
}

/// `client2` of `client2.example.com`.
fn is_short_of(given: &MonName, known: &MonName) -> bool {
    let is_name = known.as_str().parse::<IpAddr>().is_err() && !given.as_str().contains('.');
    let first = known.as_str().split('.').next().unwrap_or_default();
    is_name && given.as_str().eq_ignore_ascii_case(first)
}

fn ambiguous(service: &ServiceName, given: &MonName, several: &[(&RecordKey, &Record)]) -> Failed {
    const NAMED_MAX: usize = 10;
    let names: Vec<String> = several.iter().take(NAMED_MAX).map(|(key, _)| key.to_string()).collect();
    let more = several.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = format!(
        "{} clients of {service} are called {given}: {}{more}; say which by its address",
        several.len(),
        names.join(", ")
    );
    Failed::new(Exit::Usage, what)
}
