use heirlock_core::ServerName;
use heirlock_core::claim::Claim;

use super::*;
use crate::store::Contents;

fn stamp(event: Milestone, at_ms: i64) -> Stamp {
    Stamp { event, at_ms }
}

#[test]
fn the_slowest_are_those_that_took_long_to_answer_and_not_those_that_came_back_late() {
    let server: ServerName = "nfs-b".parse().unwrap();
    let line = |client: &str, outcome: &str, at_ms: i64| {
        format!("{{\"client\": \"{client}\", \"outcome\": \"{outcome}\", \"at-ms\": {at_ms}}}")
    };
    let outcomes = vec![
        line("192.0.2.1", "acknowledged", 40_010),
        line("192.0.2.2", "acknowledged", 40_700),
        line("192.0.2.3", "unreachable", 55_000),
        line("192.0.2.1", "re-registered", 50_000),
    ];
    // Prepared, and told 39 s later, when the address was there; resumed once.
    let timeline = vec![
        stamp(Milestone::Proved, 1_000),
        stamp(Milestone::Ready, 40_000),
        stamp(Milestone::Ready, 40_500),
        stamp(Milestone::Settled, 56_000),
    ];
    let journal = Journal { timeline, ..Journal::quiet("r", &server, 0) };
    let claim = Claim::new(Generation(3), &server, "r", 0);
    let contents = Contents { outcomes, ..Contents::default() };
    let held = Held::new(claim, contents, journal, false, std::time::Duration::ZERO);
    let text = "server = \"nfs-b\"\n[store]\npath = \"/srv/heirlock\"\n";
    let settings = Settings::parse(Path::new("test.toml"), text).unwrap();
    let report = of_journal(&ServiceName::parse("nfs").unwrap(), &held, &settings);
    let slow = |client: &str, took_ms| Slow { client: client.into(), took_ms };
    assert_eq!(report.slowest, [slow("192.0.2.2", 700), slow("192.0.2.1", 10)]);
    assert_eq!((report.acknowledged, report.re_registered), (2, 1));
}
