use heirlock_core::drill::Unreached;

use super::super::tests::look;
use super::*;

fn report() -> DrillReport {
    let client = |client: &str, names: &[&str], why: &str| Unreached {
        client: client.to_owned(),
        names: names.iter().map(ToString::to_string).collect(),
        why: why.to_owned(),
    };
    DrillReport {
        service: "nfs".into(),
        server: "nfs-b".into(),
        verdict: Verdict::LeavesOut,
        owner: Some("nfs-a".into()),
        at_s: 1_795_598_700,
        took_ms: 5_200,
        clients: 200,
        answered: 198,
        left_out: 2,
        asked_from: Vec::new(),
        estimate: Estimate {
            until_served_ms: Some(2_400),
            until_told_ms: Some(2_520),
            until_settled_ms: Some(92_100),
            telling_ms: Some(120),
            adoptions: 2,
            is_of_others: false,
        },
        checks: vec![
            Check::new("store", Finding::Met, "200 clients on record"),
            Check::new("fence", Finding::Unchecked, "it was not checked")
                .with_remedy("set hooks.fence-check"),
        ],
        unreached: vec![
            client("192.0.2.21", &["client2.example.com"], "it does not answer (3 calls)"),
            client("192.0.2.100", &[], "its rpcbind answers, but no status monitor is registered there"),
        ],
    }
}

#[test]
fn a_drill_is_a_sentence_its_checks_and_the_clients_that_would_not_be_told() {
    let expected = "\
nfs: an adoption by nfs-b would work and leave 2 clients out
  198 of 200 clients answered, asked from this server's own addresses, which a
  firewall may treat otherwise than the service's
  an adoption would take 2.4 s until the service is served and 2.5 s until the
  last client is told; it settles within 92.1 s (the slowest of 2 adoptions by
  this server, and the answers of this drill)

checks
  ok          store: 200 clients on record
  unchecked   fence: it was not checked
              set hooks.fence-check

would not be told: 2 clients
  192.0.2.21   client2.example.com: it does not answer (3 calls)
  192.0.2.100  its rpcbind answers, but no status monitor is registered there
  what it means: such a client would not hear of the adoption: its locks would
                 be lost, and its programs would go on as if they had them
";
    let text = drill(&report(), &look());
    assert_eq!(text.lines().take(17).collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>(), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("'heirlock records forget nfs CLIENT'"), "{text}");
}

#[test]
fn more_clients_than_are_shown_are_counted_and_hostile_text_is_none() {
    let mut many = report();
    many.unreached = (0..60)
        .map(|number| Unreached { client: format!("192.0.2.{number}"), ..many.unreached[0].clone() })
        .collect();
    many.left_out = 70_000;
    many.unreached[0].why = "\u{1b}[2Jowned\nnfs: an adoption by nfs-b would work".into();
    let text = drill(&many, &look());
    assert!(text.contains("  and 69950 more: --json names them\n"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("\nnfs: an adoption by nfs-b would work\n"), "{text}");
}

#[test]
fn the_last_drill_is_one_line_of_the_status_and_its_reason_is_said() {
    let mut kept = DrillStatus::from(&report());
    kept.at_s = look().now_s - 3 * 86_400;
    let said = |verdict: Verdict, why: Option<&str>| {
        last_drill(&DrillStatus { verdict, why: why.map(str::to_owned), ..kept.clone() }, &look())
    };
    assert!(said(Verdict::LeavesOut, None).ends_with(": 2 clients would not be told of an adoption here"));
    assert!(said(Verdict::Fails, Some("no volume")).ends_with("an adoption here would not work: no volume"));
    assert!(said(Verdict::HeldHere, Some("x")).ends_with("it was held here, and 2 clients did not answer"));
    assert!(
        said(Verdict::Works, None).starts_with("last drill 3 days ago: "),
        "{}",
        said(Verdict::Works, None)
    );
}
