use proptest::prelude::*;

use super::*;

fn nfs() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn checks(findings: &[Finding]) -> Vec<Check> {
    findings.iter().map(|finding| Check::new("volume", *finding, "so it is")).collect()
}

#[test]
fn each_verdict_has_its_ground() {
    use Finding::{Met, Noted, Unchecked, Unmet};
    for (findings, left_out, expected) in [
        (&[Met, Noted][..], 0, Verdict::Works),
        (&[Met, Unchecked], 0, Verdict::Unproved),
        (&[Met, Unchecked], 1, Verdict::LeavesOut),
        (&[Unchecked, Unmet], 1, Verdict::Fails),
        (&[], 0, Verdict::Works),
    ] {
        assert_eq!(Verdict::of(false, &checks(findings), left_out), expected, "{findings:?} {left_out}");
        assert_eq!(Verdict::of(true, &checks(findings), left_out), Verdict::HeldHere);
    }
    let no_store = [Check::new(STORE, Unmet, "it is not there")];
    for is_held in [false, true] {
        assert_eq!(Verdict::of(is_held, &no_store, 0), Verdict::StoreFails);
    }
    let not_here = [Check::new(STORE, Unchecked, "its volume comes with an adoption")];
    assert_eq!(Verdict::of(false, &not_here, 0), Verdict::Unproved);
}

#[test]
fn a_verdict_is_spelt_as_json_has_it() {
    for verdict in Verdict::ALL {
        assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
    }
    assert!(Verdict::ALL.is_sorted());
    for finding in [Finding::Met, Finding::Noted, Finding::Unchecked, Finding::Unmet] {
        assert_eq!(serde_json::to_value(finding).unwrap(), finding.as_str());
    }
}

#[test]
fn a_drill_begins_beside_no_adoption_and_no_other_drill_and_says_what_is_on() {
    assert_eq!(may_begin(&nfs(), &GoingOn::default()), Ok(()));
    let drilling = GoingOn { drill: Some(("home".into(), 12)), ..GoingOn::default() };
    let why = may_begin(&nfs(), &drilling).unwrap_err().to_string();
    assert!(
        why.starts_with("a drill of home has been on here for 12 s") && why.ends_with("drill nfs"),
        "{why}"
    );
    let both = GoingOn { adopting: vec!["home".into(), "nfs".into()], ..drilling };
    let why = may_begin(&nfs(), &both).unwrap_err().to_string();
    assert!(why.starts_with("an adoption is on here (home, nfs): "), "{why}");
}

#[test]
fn clients_are_named_by_number_and_names_after_them() {
    let mut clients: Vec<Unreached> = ["zeta", "192.0.2.100", "2001:db8::9", "192.0.2.21", "alpha"]
        .map(|client| Unreached { client: client.to_owned(), names: Vec::new(), why: String::new() })
        .to_vec();
    clients.sort_by(in_order);
    let order: Vec<&str> = clients.iter().map(|client| client.client.as_str()).collect();
    assert_eq!(order, ["192.0.2.21", "192.0.2.100", "2001:db8::9", "alpha", "zeta"]);
}

fn findings() -> impl Strategy<Value = Finding> {
    prop_oneof![Just(Finding::Met), Just(Finding::Noted), Just(Finding::Unchecked), Just(Finding::Unmet)]
}

proptest! {
    /// A green verdict is one of which everything was looked at, and nothing makes a verdict better but a finding less.
    #[test]
    fn more_that_is_found_never_makes_a_verdict_better(
        found in proptest::collection::vec(findings(), 0..8),
        more in findings(),
        left_out in 0_usize..3,
        is_held in any::<bool>(),
    ) {
        let verdict = Verdict::of(is_held, &checks(&found), left_out);
        let green = found.iter().all(|finding| matches!(finding, Finding::Met | Finding::Noted)) && left_out == 0;
        prop_assert_eq!(verdict == Verdict::Works, green && !is_held);
        let with_more: Vec<Finding> = found.iter().copied().chain([more]).collect();
        prop_assert!(Verdict::of(is_held, &checks(&with_more), left_out) >= verdict);
        prop_assert!(Verdict::of(is_held, &checks(&found), left_out + 1) >= verdict);
        let mut turned = checks(&found);
        turned.reverse();
        prop_assert_eq!(Verdict::of(is_held, &turned, left_out), verdict);
    }
}
