use proptest::prelude::*;

use super::*;

/// A CIB with this in its configuration.
fn cib(inside: &str) -> String {
    format!("<cib><configuration>{inside}</configuration><status/></cib>")
}

fn read(inside: &str) -> Configuration {
    parse(cib(inside).as_bytes()).unwrap()
}

fn constraints(inside: &str) -> Configuration {
    read(&format!("<constraints>{inside}</constraints>"))
}

#[test]
fn both_forms_of_an_order_are_steps() {
    let steps = |inside: &str| {
        let order = constraints(inside).orders.remove(0);
        let steps: Vec<_> = order
            .steps
            .into_iter()
            .map(|step| (step.resources.join(" "), step.is_sequential, step.is_of_start))
            .collect();
        (order.is_mandatory, steps)
    };
    let two = |is_mandatory, starts: [bool; 2]| {
        (is_mandatory, vec![("a".to_owned(), true, starts[0]), ("b".to_owned(), true, starts[1])])
    };
    assert_eq!(steps(r#"<rsc_order id="o" first="a" then="b"/>"#), two(true, [true, true]));
    assert_eq!(steps(r#"<rsc_order id="o" first="a" then="b" kind="Serialize"/>"#), two(false, [true, true]));
    assert_eq!(steps(r#"<rsc_order id="o" first="a" then="b" score="0"/>"#), two(false, [true, true]));
    assert_eq!(
        steps(r#"<rsc_order id="o" first="a" then="b" first-action="promote" then-action="start"/>"#),
        two(true, [true, true])
    );
    assert_eq!(
        steps(r#"<rsc_order id="o" first="a" then="b" first-action="stop"/>"#),
        two(true, [false, false])
    );
    let sets = r#"<rsc_order id="o"><resource_set id="s" sequential="false"><resource_ref id="a"/><resource_ref id="b"/>
        </resource_set><resource_set id="t" action="demote"><resource_ref id="c"/></resource_set></rsc_order>"#;
    assert_eq!(steps(sets), (true, vec![("a b".to_owned(), false, true), ("c".to_owned(), true, false)]));
}

#[test]
fn a_colocation_names_the_promoted_instance_and_is_mandatory_at_infinity() {
    let of = |inside: &str| {
        constraints(inside).colocations.into_iter().next().map(|one| {
            let members: Vec<_> =
                one.members.into_iter().map(|one| (one.resource, one.is_promoted)).collect();
            (one.is_mandatory, members)
        })
    };
    let both = |is_mandatory, is_promoted| {
        Some((is_mandatory, vec![("a".to_owned(), false), ("b".to_owned(), is_promoted)]))
    };
    let role = r#"<rsc_colocation id="c" rsc="a" with-rsc="b" score="INFINITY" with-rsc-role="Master"/>"#;
    assert_eq!(of(role), both(true, true));
    assert_eq!(of(r#"<rsc_colocation id="c" rsc="a" with-rsc="b" score="500"/>"#), both(false, false));
    assert_eq!(of(r#"<rsc_colocation id="c" rsc="a" with-rsc="b" score="1000000"/>"#), both(true, false));
    let site = r#"<rsc_colocation id="c" rsc="a" with-rsc="b" score="INFINITY" node-attribute="site"/>"#;
    assert_eq!(of(site), both(false, false));
    let loose = r#"<rsc_colocation id="c" score="INFINITY"><resource_set id="s" sequential="false"><resource_ref id="a"/>
        </resource_set></rsc_colocation>"#;
    assert_eq!(of(loose), None);
}

#[test]
fn a_location_is_read_from_its_node_and_from_a_rule_on_a_nodes_name() {
    let of = |inside: &str| {
        let found = constraints(inside).locations.remove(0);
        (found.node, found.wanted)
    };
    let at = |name: &str, wanted| (Some(name.to_owned()), wanted);
    assert_eq!(of(r#"<rsc_location id="l" rsc="a" node="n" score="-INFINITY"/>"#), at("n", Wanted::Never));
    assert_eq!(of(r#"<rsc_location id="l" rsc="a" node="n" score="50"/>"#), at("n", Wanted::More));
    let rule = |expressions: &str| {
        format!(
            r#"<rsc_location id="l" rsc="a"><rule id="r" score="-INFINITY">{expressions}</rule></rsc_location>"#
        )
    };
    let named = r##"<expression id="e" attribute="#uname" operation="eq" value="n"/>"##;
    assert_eq!(of(&rule(named)), at("n", Wanted::Never));
    let further = format!("{named}<date_expression id=\"d\" operation=\"lt\"/>");
    assert_eq!(of(&rule(&further)), (None, Wanted::Less), "it counts at some times only");
}

#[test]
fn the_first_set_in_force_says_a_value_and_a_set_or_a_pair_may_stand_elsewhere() {
    let found = read(
        r#"<resources><primitive id="p" class="ocf" provider="x" type="y">
            <instance_attributes id="i1"><rule id="r"/><nvpair id="1" name="a" value="sometimes"/></instance_attributes>
            <instance_attributes id="i2"><nvpair id="2" name="a" value="low"/><nvpair id="3" name="b" value="own"/></instance_attributes>
            <instance_attributes id="i3" score="5"><nvpair id="4" name="a" value="high"/></instance_attributes>
            <instance_attributes id-ref="j1"/>
            <operations><op id="o1" name="start" interval="0" timeout="7"/>
            <op id="o2" name="stop" interval="0"><meta_attributes id="om"><nvpair id="5" name="timeout" value="8s"/></meta_attributes></op>
            <op id="o3" name="monitor" interval="5" enabled="false"/></operations></primitive>
            <primitive id="q" class="ocf" provider="x" type="y"><instance_attributes id="j1">
            <nvpair id-ref="3"/><nvpair id="6" name="c" value="referred"/></instance_attributes></primitive></resources>"#,
    );
    let Content::Primitive(first) = &found.entries[0].content else { panic!("{found:?}") };
    let given: Vec<_> =
        first.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(given, [("a", "high"), ("b", "own"), ("c", "referred")]);
    let times: Vec<_> = first.operations.iter().map(|one| (one.timeout.as_deref(), one.is_enabled)).collect();
    assert_eq!(times, [(Some("7"), true), (Some("8s"), true), (None, false)]);
    let Content::Primitive(second) = &found.entries[1].content else { panic!("{found:?}") };
    assert_eq!(second.parameters["b"], "own");
}

#[test]
fn nodes_properties_defaults_templates_and_tags_are_read() {
    let found = read(
        r#"<crm_config><cluster_property_set id="c"><nvpair id="n" name="stonith-enabled" value="true"/></cluster_property_set>
        </crm_config><nodes><node id="1" uname="a"/><node id="2" uname="r" type="remote"/><node id="3" type="member"/></nodes>
        <resources><template id="t" class="ocf" type="x"/><master id="m"><primitive id="p" template="t"/></master></resources>
        <rsc_defaults><meta_attributes id="d"><nvpair id="e" name="is-managed" value="false"/></meta_attributes></rsc_defaults>
        <op_defaults><meta_attributes id="f"><nvpair id="g" name="timeout" value="33"/></meta_attributes></op_defaults>
        <tags><tag id="both"><obj_ref id="p"/><obj_ref id="q"/></tag></tags>"#,
    );
    assert_eq!(found.nodes, ["a", "3"]);
    assert_eq!(found.properties["stonith-enabled"], "true");
    assert_eq!(
        (found.resource_defaults["is-managed"].as_str(), found.operation_defaults["timeout"].as_str()),
        ("false", "33")
    );
    assert_eq!((found.templates.len(), found.tags["both"].len()), (1, 2));
    assert!(
        matches!(&found.entries[0].content, Content::Clone { is_master: true, inner } if inner.len() == 1)
    );
}

#[test]
fn what_is_no_cib_is_refused_in_words() {
    let why = |bytes: &[u8]| parse(bytes).unwrap_err();
    assert!(why(b"").starts_with("it is no XML"));
    assert!(why(b"Could not connect").starts_with("it is no XML"));
    assert!(why(b"<cib><configuration>\xff</configuration></cib>").starts_with("it is no UTF-8"));
    assert!(why(b"<html/>").contains("expected the element cib"));
    assert!(why(b"<cib/>").contains("found none"));
    let whole = cib("<resources><primitive id='p' class='ocf'/></resources>");
    for cut in 0..whole.len() {
        assert!(parse(&whole.as_bytes()[..cut]).is_err(), "{}", &whole[..cut]);
    }
    let bomb =
        "<!DOCTYPE cib [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><cib>&b;</cib>";
    assert!(why(bomb.as_bytes()).contains("DTD"), "{}", why(bomb.as_bytes()));
    let many = cib(&"<a/>".repeat(limits::CIB_NODES_MAX as usize));
    assert!(why(many.as_bytes()).starts_with("it is no XML"));
    let groups = |depth: usize| {
        cib(&format!("<resources>{}{}</resources>", "<group id='g'>".repeat(depth), "</group>".repeat(depth)))
    };
    assert!(parse(groups(3).as_bytes()).is_ok());
    assert!(why(groups(100).as_bytes()).contains("nested deeper"));
    let deep = cib(&format!("{}{}", "<a>".repeat(200_000), "</a>".repeat(200_000)));
    assert!(parse(deep.as_bytes()).is_ok(), "what is not known is left alone, however deep it is");
}

const CIBS: [&str; 3] = [
    include_str!("../../guard/cluster/cibs/drbd-crmsh.xml"),
    include_str!("../../guard/cluster/cibs/constraints-crmsh.xml"),
    include_str!("../../guard/cluster/cibs/two-groups-pcs.xml"),
];

proptest! {
    /// Whatever is damaged in a CIB, it is read or refused, and what was read is judged.
    #[test]
    fn a_damaged_cib_is_read_or_refused(which in 0..CIBS.len(), cuts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,6}"), 1..6)) {
        let mut text: Vec<char> = CIBS[which].chars().collect();
        for (at, put) in cuts {
            let at = at.index(text.len());
            text.splice(at..(at + 3).min(text.len()), put.chars());
        }
        let text: String = text.into_iter().collect();
        let _ = parse(text.as_bytes());
    }
}
