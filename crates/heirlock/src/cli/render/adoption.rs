//! The report of an adoption, as text.

use heirlock_core::Outcome;
use heirlock_core::takeover::Milestone;

use super::super::exit::Exit;
use super::history::{cause_in_words, seconds};
use super::table::Side;
use super::{Look, Table, counted, plain, wrapped};
use crate::control::report::{AdoptionReport, TenureReport};

/// Clients of one outcome that are shown one by one; all are in the JSON document and in the store.
const MISSED_SHOWN_MAX: usize = 50;

/// Width of the first column.
const KEY: usize = 16;

/// The report in words.
pub(in crate::cli) fn adoption(report: &AdoptionReport, look: &Look) -> String {
    let mut text = head(report, look);
    text.push_str(&timeline(report));
    text.push_str(&counts(report, look));
    if !report.unready.is_empty() {
        text.push_str(&format!("\n{}\n", look.bad("not ready, so no client was told from there")));
        for why in &report.unready {
            text.push_str(&wrapped("  ", &plain(why)));
        }
    }
    if !report.slowest.is_empty() {
        text.push_str("\nslowest answers, from the first notification on\n");
        for slow in &report.slowest {
            text.push_str(&format!("  {:>12}  {}\n", offset(slow.took_ms), plain(&slow.client)));
        }
    }
    for outcome in [Outcome::Unreachable, Outcome::Lost] {
        text.push_str(&missed(report, outcome, look));
    }
    text.push_str(&troubles(report, look));
    if !report.others.is_empty() {
        text.push_str("\ntold as well, since the same lock manager dropped their locks\n");
        for other in &report.others {
            let line = format!(
                "{}: state number {}, {}, {} acknowledged, {} missed",
                plain(&other.service),
                other.state_number,
                counted(other.clients, "client"),
                other.acknowledged,
                other.missed
            );
            text.push_str(&wrapped("  ", &line));
        }
    }
    text.push_str(&each_client(report, look));
    if !report.records_at.is_empty() {
        text.push_str(&format!("\nrecords lie in {}\n", plain(&report.records_at)));
    }
    text
}

/// For how long grace stays open, and until when the address has to be here.
fn prepared(report: &AdoptionReport, service: &str) -> String {
    let seconds = |ms: u64| format!("{} s", ms / 1_000);
    let open = report.grace_left_ms.map(|ms| format!(", and grace stays open for {}", seconds(ms)));
    let within = report.finish_within_ms.map(|ms| format!(" within {}", seconds(ms)));
    let (open, within) = (open.unwrap_or_default(), within.unwrap_or_default());
    format!("prepared{open}: bring the address up, then 'heirlock adopt {service} --finish'{within}")
}

fn head(report: &AdoptionReport, look: &Look) -> String {
    let service = plain(&report.service);
    let verdict = match report.phase.as_str() {
        _ if Exit::from(report) == Exit::Failed => look.bad("failed"),
        // Where no client is on record none was told: a person may know better, and look for the right store.
        "settled" if Exit::from(report) == Exit::Done && report.clients == 0 => {
            "no client is on record, so none was told".to_owned()
        }
        "settled" if Exit::from(report) == Exit::Done => look.good("every client was told"),
        "settled"
            if report.lost + report.unreachable + report.unknown == 0 && !report.troubles.is_empty() =>
        {
            look.bad("every client that is known was told, but not all could be read or written")
        }
        "settled" => look.bad("not every client was told"),
        "settling" if Exit::from(report) == Exit::Done => {
            look.good("every client was told; they come back until the grace period ends")
        }
        "notifying" => {
            "told, but for those that have not answered yet; they are called until grace ends".to_owned()
        }
        "prepared" => prepared(report, &service),
        phase => format!("under way: {}", plain(phase)),
    };
    let mut text = format!("{}: {verdict}\n", look.strong(&service));
    for (key, value) in [
        ("generation", report.generation.to_string()),
        ("state number", report.state_number.to_string()),
        ("strategy", plain(&report.strategy)),
        ("began", look.local_time(report.started_at_s)),
    ] {
        // Of a generation that was removed not everything is known.
        if !value.is_empty() {
            text.push_str(&format!("  {key:KEY$}{value}\n"));
        }
    }
    // Of a generation of the past its tenure says why.
    if let Some(failure) = report.failure.as_ref().filter(|_| report.tenure.is_none()) {
        text.push_str(&wrapped(&format!("  {:KEY$}", "failed"), &plain(failure)));
    }
    text + &report.tenure.as_deref().map(tenure).unwrap_or_default()
}

/// From whom, why, and how long clients were without the service.
fn tenure(tenure: &TenureReport) -> String {
    let mut text = String::new();
    let mut say = |key: &str, value: &str| text.push_str(&wrapped(&format!("  {key:KEY$}"), value));
    if let Some(from) = &tenure.from {
        say("from and to", &format!("{} to {}", plain(from), plain(&tenure.to)));
    }
    say("why", &cause_in_words(tenure));
    if let Some(failure) = &tenure.failure {
        say("failed", &plain(failure));
    }
    let since = match tenure.last_sign_ms {
        Some(_) => "from the last sign of the service",
        None => "from the beginning of the run",
    };
    if let Some(ms) = tenure.without_service_ms {
        say("no service", &format!("{}, {since} until it could be reached again", seconds(ms)));
    }
    if let Some(ms) = tenure.until_last_client_ms {
        say("last client", &format!("back after {}, {since}", seconds(ms)));
    }
    text
}

/// Each client, where that was asked for.
fn each_client(report: &AdoptionReport, look: &Look) -> String {
    if report.each_client.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("CLIENT", Side::Left),
        ("NAME", Side::Left),
        ("OUTCOME", Side::Left),
        ("KNOWN AFTER", Side::Right),
    ]);
    for client in &report.each_client {
        table.row(vec![
            plain(&client.client),
            if client.names.is_empty() { "-".to_owned() } else { plain(&client.names.join(" ")) },
            client.outcome.map_or_else(|| "not known".to_owned(), |outcome| outcome.to_string()),
            client.outcome.map_or_else(|| "-".to_owned(), |_| offset(client.at_ms)),
        ]);
    }
    format!("\n{}\n", table.lines(look).join("\n"))
}

fn timeline(report: &AdoptionReport) -> String {
    if report.timeline.is_empty() {
        return String::new();
    }
    let lines =
        report.timeline.iter().map(|e| format!("  {:>12}  {}\n", offset(e.at_ms), milestone(e.event)));
    lines.fold("\ntimeline\n".to_owned(), |text, line| text + &line)
}

fn counts(report: &AdoptionReport, look: &Look) -> String {
    let mut text = format!("\n{}\n", counted(report.clients, "client"));
    for (what, count, bad) in [
        ("acknowledged", report.acknowledged, false),
        ("re-registered", report.re_registered, false),
        ("unreachable", report.unreachable, true),
        ("lost", report.lost, true),
        ("not known yet", report.unknown, false),
    ] {
        if count == 0 && what == "not known yet" {
            continue;
        }
        let line = format!("  {what:KEY$}{count:>8}");
        text.push_str(&if bad && count > 0 { look.bad(&line) } else { line });
        text.push_str(if what == "re-registered" { "  of those that acknowledged\n" } else { "\n" });
    }
    text
}

fn missed(report: &AdoptionReport, outcome: Outcome, look: &Look) -> String {
    let missed: Vec<_> = report.failed.iter().filter(|missed| missed.outcome == outcome).collect();
    if missed.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", look.bad(&format!("{outcome}: {}", counted(missed.len(), "client"))));
    for client in missed.iter().take(MISSED_SHOWN_MAX) {
        text.push_str(&wrapped("  ", &format!("{}: {}", plain(&client.client), plain(&client.why))));
    }
    if let Some(more) = missed.len().checked_sub(MISSED_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more: --json names them all\n"));
    }
    text.push_str(&wrapped("  what to do: ", remedy(outcome, report).as_str()));
    text
}

/// Entries that could not be read or written; each concerns a client of its own.
fn troubles(report: &AdoptionReport, look: &Look) -> String {
    if report.troubles.is_empty() {
        return String::new();
    }
    let heading = format!(
        "not as they should be: {} of the store or of the status monitor",
        counted(report.troubles.len(), "file")
    );
    let mut text = format!("\n{}\n", look.bad(&heading));
    for trouble in report.troubles.iter().take(MISSED_SHOWN_MAX) {
        text.push_str(&wrapped("  ", &format!("{}: {}", plain(&trouble.entry), plain(&trouble.why))));
    }
    if let Some(more) = report.troubles.len().checked_sub(MISSED_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more: --json names them all\n"));
    }
    text
}

fn remedy(outcome: Outcome, report: &AdoptionReport) -> String {
    let service = plain(&report.service);
    match outcome {
        Outcome::Lost if report.failure.is_some() => format!(
            "the adoption failed as a whole. Mend its cause and say 'heirlock adopt {service}' again: such a client still \
             believes that it holds its locks, and reclaims them when it is told, save what others got meanwhile."
        ),
        Outcome::Unreachable => format!(
            "if such a client is up, its locks are gone: restart the programs there that use them. It is remembered and told at \
             the next adoption; if it is gone for good, 'heirlock records forget {service} CLIENT'."
        ),
        Outcome::Lost => "the time to reclaim is over: such a client believes it holds locks that others can get. \
             Stop there what uses them, look at the files, start it again. It will be told at the next adoption."
            .to_owned(),
        Outcome::ReRegistered | Outcome::Acknowledged => String::new(),
    }
}

fn milestone(event: Milestone) -> &'static str {
    match event {
        Milestone::PrimaryLost => "last sign of life of the primary",
        Milestone::Asked => "its owner was asked to give it up",
        Milestone::GivingUp => "its owner began to give it up",
        Milestone::GivenUp => "its owner gave it up",
        Milestone::Fenced => "primary confirmed off",
        Milestone::Claimed => "claimed",
        Milestone::Conveyed => "records conveyed",
        Milestone::Recognised => "lock manager recognised",
        Milestone::Proved => "grace proved to be open",
        Milestone::Ready => "address, exports and lock manager ready",
        Milestone::FirstNotified => "first client notified",
        Milestone::LastNotified => "last client notified",
        Milestone::Settled => "settled",
        Milestone::Failed => "failed",
    }
}

/// `+1.204 s`
fn offset(at_ms: i64) -> String {
    let (sign, ms) = (if at_ms < 0 { '-' } else { '+' }, at_ms.unsigned_abs());
    format!("{sign}{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::look;
    use super::*;
    use crate::control::report::{ClientOutcome, Missed, OtherService, Slow, TimelineEntry};

    /// An adoption that went well.
    pub(in crate::cli) fn report() -> AdoptionReport {
        let at = |event, at_ms| TimelineEntry { event, at_ms };
        AdoptionReport {
            service: "nfs".into(),
            generation: 4,
            state_number: 11,
            strategy: "restart-nfs".into(),
            phase: "settled".into(),
            grace_left_ms: None,
            finish_within_ms: None,
            failure: None,
            clients: 200,
            re_registered: 180,
            acknowledged: 200,
            unreachable: 0,
            lost: 0,
            unknown: 0,
            timeline: vec![
                at(Milestone::PrimaryLost, -10_213),
                at(Milestone::Claimed, 4),
                at(Milestone::Settled, 91_500),
            ],
            slowest: vec![Slow { client: "192.0.2.17".into(), took_ms: 2_104 }],
            failed: Vec::new(),
            troubles: Vec::new(),
            others: vec![OtherService {
                service: "host.nfs-b".into(),
                state_number: 7,
                clients: 1,
                acknowledged: 1,
                missed: 0,
            }],
            unready: Vec::new(),
            records_at: "/srv/heirlock/services/nfs/4".into(),
            started_at_s: 1_795_598_700,
            tenure: None,
            each_client: Vec::new(),
            changed: None,
        }
    }

    #[test]
    fn an_address_from_which_no_client_could_be_told_is_named() {
        let unready = vec!["2001:db8::10, an address of nfs, is not served here: no answer".to_owned()];
        let text = adoption(&AdoptionReport { unready, ..report() }, &look());
        let expected =
            "\nnot ready, so no client was told from there\n  2001:db8::10, an address of nfs, is not";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn an_adoption_that_told_all_clients() {
        let expected = "\
nfs: every client was told
  generation      4
  state number    11
  strategy        restart-nfs
  began           2026-11-25 10:25:00

timeline
     -10.213 s  last sign of life of the primary
      +0.004 s  claimed
     +91.500 s  settled

200 clients
  acknowledged         200
  re-registered        180  of those that acknowledged
  unreachable            0
  lost                   0

slowest answers, from the first notification on
      +2.104 s  192.0.2.17

told as well, since the same lock manager dropped their locks
  host.nfs-b: state number 7, 1 client, 1 acknowledged, 0 missed

records lie in /srv/heirlock/services/nfs/4
";
        assert_eq!(adoption(&report(), &look()), expected);
    }

    #[test]
    fn no_client_on_record_is_no_success_at_telling_them() {
        let empty = AdoptionReport { clients: 0, acknowledged: 0, re_registered: 0, ..report() };
        let text = adoption(&empty, &look());
        assert!(text.starts_with("nfs: no client is on record, so none was told\n"), "{text}");
        assert!(!text.contains("every client"), "{text}");
    }

    #[test]
    fn a_report_from_the_store_says_from_whom_why_and_how_long_and_names_each_client() {
        let client = |client: &str, names: &[&str], outcome| ClientOutcome {
            client: client.into(),
            names: names.iter().map(ToString::to_string).collect(),
            outcome: Some(outcome),
            at_ms: 4_300,
            why: None,
        };
        let report = AdoptionReport {
            tenure: Some(Box::new(super::super::history::tests::tenure())),
            each_client: vec![
                client("192.0.2.1", &["one.example.com"], Outcome::ReRegistered),
                client("192.0.2.2", &[], Outcome::Unreachable),
            ],
            ..report()
        };
        let text = adoption(&report, &look());
        let expected = "
  began           2026-11-25 10:25:00
  from and to     nfs-a to nfs-b
  why             the heart of nfs-a was silent
  no service      12.0 s, from the last sign of the service until it could be
                  reached again
  last client     back after 14.5 s, from the last sign of the service

";
        assert!(text.contains(expected), "{text}");
        let expected = "
CLIENT     NAME             OUTCOME        KNOWN AFTER
192.0.2.1  one.example.com  re-registered     +4.300 s
192.0.2.2  -                unreachable       +4.300 s

records lie in ";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn every_client_that_was_missed_is_named_with_reason_and_remedy() {
        let missed =
            |client: &str, outcome, why: &str| Missed { client: client.into(), outcome, why: why.into() };
        let report = AdoptionReport {
            failed: vec![
                missed("192.0.2.9", Outcome::Unreachable, "no answer until grace ended"),
                missed("bad\u{1b}[2J", Outcome::Lost, "no address is known"),
            ],
            unreachable: 1,
            lost: 1,
            acknowledged: 198,
            ..report()
        };
        let text = adoption(&report, &look());
        assert!(text.starts_with("nfs: not every client was told\n"), "{text}");
        let expected = "
unreachable: 1 client
  192.0.2.9: no answer until grace ended
  what to do: if such a client is up, its locks are gone: restart the programs
              there that use them. It is remembered and told at the next
              adoption; if it is gone for good, 'heirlock records forget nfs
              CLIENT'.

lost: 1 client
  bad\\u{1b}[2J: no address is known
  what to do: the time to reclaim is over: such a client believes it holds locks
              that others can get. Stop there what uses them, look at the files,
              start it again. It will be told at the next adoption.
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn after_a_failure_the_advice_is_to_adopt_again() {
        let missed = Missed { client: "192.0.2.9".into(), outcome: Outcome::Lost, why: "no address".into() };
        let failure = Some("192.0.2.10 is not on this server".to_owned());
        let report = AdoptionReport { failed: vec![missed], lost: 1, acknowledged: 0, failure, ..report() };
        let text = adoption(&report, &look());
        assert!(text.starts_with("nfs: failed\n") && !text.contains("Stop there"), "{text}");
        assert!(text.contains("  failed          192.0.2.10 is not on this server\n"), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("Mend its cause and say 'heirlock adopt nfs' again: "), "{text}");
    }

    #[test]
    fn a_flood_of_missed_clients_is_cut_and_says_so() {
        let missed = |n: usize| Missed {
            client: format!("192.0.2.{n}"),
            outcome: Outcome::Unreachable,
            why: "no answer".into(),
        };
        let report = AdoptionReport { failed: (0..60).map(missed).collect(), unreachable: 60, ..report() };
        let text = adoption(&report, &look());
        assert!(
            text.contains("unreachable: 60 clients\n") && text.contains("  and 10 more: --json"),
            "{text}"
        );
    }
}
