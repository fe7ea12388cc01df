//! The past of services.

use heirlock_core::history::Beginning;

use super::table::Side;
use super::{Look, Table, plain, wrapped};
use crate::control::report::{HistoryReport, TenureReport};

/// Each service with its generations.
pub(in crate::cli) fn history(services: &[HistoryReport], look: &Look) -> String {
    if services.is_empty() {
        return "the store holds no service yet\n".to_owned();
    }
    let parts: Vec<String> = services.iter().map(|service| of_one(service, look)).collect();
    parts.join("\n")
        + "\nGEN: the generation; its number rises whenever the service is taken over.\n\
           NO SERVICE: from the last sign of the service until it could be reached again.\n\
           MISSED: clients that were unreachable, or lost.\n\
           WHY alongside: its lock manager was restarted to adopt another service.\n\
           'heirlock report SERVICE --generation N' tells more of one.\n"
}

fn of_one(report: &HistoryReport, look: &Look) -> String {
    let mut table = Table::new(&[
        ("GEN", Side::Right),
        ("BEGAN", Side::Right),
        ("FROM", Side::Left),
        ("TO", Side::Left),
        ("WHY", Side::Left),
        ("NO SERVICE", Side::Right),
        ("CLIENTS", Side::Right),
        ("MISSED", Side::Right),
    ]);
    for one in &report.generations {
        table.row(row(one, look));
    }
    let lines = table.lines(look);
    let mut text =
        format!("{}\n{}\n", look.strong(&plain(&report.service)), lines.first().map_or("", String::as_str));
    for (one, line) in report.generations.iter().zip(lines.iter().skip(1)) {
        text.push_str(&format!("{line}\n"));
        if is_run(one) && !one.phase.is_over() {
            text.push_str(&format!("     not over: it has reached the phase {}\n", one.phase));
        }
        if let Some(failure) = &one.failure {
            text.push_str(&wrapped("     failed: ", &plain(failure)));
        }
        if let Some(at_s) = one.released_at_s {
            text.push_str(&format!("     given up by {} at {}\n", plain(&one.to), look.local_time(at_s)));
        }
    }
    for what in &report.unreadable {
        text.push_str(&wrapped("  can't be read: ", &plain(what)));
    }
    for what in &report.broken {
        text.push_str(&wrapped("  a promise was broken: ", &plain(what)));
    }
    text
}

fn row(one: &TenureReport, look: &Look) -> Vec<String> {
    let number = |count: usize| if is_run(one) { count.to_string() } else { "-".to_owned() };
    vec![
        one.generation.to_string(),
        look.local_minute(one.began_at_s),
        one.from.as_deref().map_or_else(|| "-".to_owned(), plain),
        plain(&one.to),
        cause(one.cause).to_owned(),
        one.without_service_ms.map_or_else(|| "-".to_owned(), seconds),
        number(one.clients),
        number(one.unreachable + one.lost),
    ]
}

/// Whether a run began it.
fn is_run(one: &TenureReport) -> bool {
    !matches!(one.cause, Beginning::First | Beginning::Unknown)
}

/// Why a generation began, in a word or two.
fn cause(beginning: Beginning) -> &'static str {
    match beginning {
        Beginning::First => "first",
        Beginning::Asked => "asked for",
        Beginning::Moved => "moved",
        Beginning::OwnerDead => "owner silent",
        Beginning::OwnRestart => "restart",
        Beginning::Alongside => "alongside",
        Beginning::Unknown => "not known",
    }
}

/// The same as a sentence's part, of a report.
pub(super) fn cause_in_words(tenure: &TenureReport) -> String {
    let from = tenure.from.as_deref().map_or_else(|| "another server".to_owned(), plain);
    match tenure.cause {
        Beginning::First => "no server had claimed it before".to_owned(),
        Beginning::Asked => format!("its adoption from {from} was asked for"),
        Beginning::Moved => format!("{from} had given it up in order"),
        Beginning::OwnerDead => format!("the heart of {from} was silent"),
        Beginning::OwnRestart => "the lock manager was restarted, and its locks were gone".to_owned(),
        Beginning::Alongside => "its lock manager was restarted for another service's adoption".to_owned(),
        Beginning::Unknown => "that is not known".to_owned(),
    }
}

/// `12.3 s`, `5 min 12 s`
pub(super) fn seconds(ms: u64) -> String {
    let tenths = (ms + 50) / 100;
    match tenths {
        0..6_000 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} min", (ms + 30_000) / 60_000),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use heirlock_core::takeover::Phase;

    use super::super::WIDTH;
    use super::super::tests::look;
    use super::*;

    #[test]
    fn a_run_that_is_on_says_how_far_it_is() {
        let on = TenureReport { phase: Phase::Notifying, ..tenure() };
        let report = HistoryReport {
            service: "nfs".into(),
            generations: vec![on],
            unreadable: vec![],
            broken: vec![],
        };
        let text = history(&[report], &look());
        assert!(text.contains("       2\n     not over: it has reached the phase notifying\n"), "{text}");
    }

    pub(in crate::cli::render) fn tenure() -> TenureReport {
        TenureReport {
            generation: 4,
            from: Some("nfs-a".into()),
            to: "nfs-b".into(),
            cause: Beginning::OwnerDead,
            began_at_s: 1_795_598_700,
            released_at_s: None,
            phase: Phase::Settled,
            failure: None,
            state_number: Some(11),
            clients: 200,
            told: 198,
            re_registered: 180,
            unreachable: 1,
            lost: 1,
            unknown: 0,
            last_sign_ms: Some(-10_200),
            without_service_ms: Some(12_040),
            until_last_client_ms: Some(14_500),
        }
    }

    #[test]
    fn a_past_is_a_line_for_each_generation_the_newest_first() {
        let home = TenureReport {
            generation: 3,
            from: None,
            to: "nfs-a".into(),
            cause: Beginning::First,
            released_at_s: Some(1_795_598_690),
            without_service_ms: None,
            ..tenure()
        };
        let failed = TenureReport {
            generation: 5,
            from: Some("nfs-b".into()),
            cause: Beginning::OwnRestart,
            phase: Phase::Failed,
            failure: Some("grace did not open".into()),
            ..tenure()
        };
        let report = HistoryReport {
            service: "nfs".into(),
            generations: vec![failed, tenure(), home],
            unreadable: vec!["services/nfs/history/2: expected JSON".into()],
            broken: vec![
                "generation 5 has the number 9, and generation 4 had it (a state number is used once)".into(),
            ],
        };
        let expected = "\
nfs
GEN             BEGAN  FROM   TO     WHY           NO SERVICE  CLIENTS  MISSED
  5  2026-11-25 10:25  nfs-b  nfs-b  restart           12.0 s      200       2
     failed: grace did not open
  4  2026-11-25 10:25  nfs-a  nfs-b  owner silent      12.0 s      200       2
  3  2026-11-25 10:25  -      nfs-a  first                  -        -       -
     given up by nfs-a at 2026-11-25 10:24:50
  can't be read: services/nfs/history/2: expected JSON
  a promise was broken: generation 5 has the number 9, and generation 4 had it
                        (a state number is used once)

GEN: the generation; its number rises whenever the service is taken over.
NO SERVICE: from the last sign of the service until it could be reached again.
MISSED: clients that were unreachable, or lost.
WHY alongside: its lock manager was restarted to adopt another service.
'heirlock report SERVICE --generation N' tells more of one.
";
        assert_eq!(history(&[report], &look()), expected);
        assert_eq!(history(&[], &look()), "the store holds no service yet\n");
    }

    #[test]
    fn long_names_fit_into_80_columns() {
        let long = TenureReport { from: Some("f".repeat(64)), to: "t".repeat(64), ..tenure() };
        let report = HistoryReport {
            service: "nfs".into(),
            generations: vec![long],
            unreadable: vec![],
            broken: vec![],
        };
        let text = history(&[report], &look());
        assert!(text.lines().take(3).all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn times_have_a_tenth_of_a_second_until_they_are_long() {
        assert_eq!([0, 293, 12_040, 599_949].map(seconds), ["0.0 s", "0.3 s", "12.0 s", "599.9 s"]);
        assert_eq!([599_950, 600_000, 5_399_999].map(seconds), ["10 min", "10 min", "90 min"]);
    }
}
