//! What is inherited, and what follows from constraints. The checks as a whole are tried on clusters that Pacemaker's own tools
//! made, in `crates/heirlock/src/guard/cluster`.

use super::configuration::{Colocation, ColocationMember, Configuration, Content, Entry, Order, Step};
use super::resources::{Cluster, Place};
use super::testing::{attributes, cluster_of, group, operation, primitive};

fn dummies(ids: &[&str]) -> Vec<Entry> {
    ids.iter().map(|id| primitive(id, "ocf:pacemaker:Dummy", &[])).collect()
}

fn clone(id: &str, inner: Entry, promotable: &str) -> Entry {
    let meta = attributes(&[("promotable", promotable)]);
    Entry { id: id.to_owned(), meta, content: Content::Clone { is_master: false, inner: vec![inner] } }
}

fn step(resources: &[&str]) -> Step {
    Step {
        resources: resources.iter().map(|name| (*name).to_owned()).collect(),
        is_sequential: true,
        waits_for_all: true,
        is_of_start: true,
    }
}

fn order(steps: Vec<Step>) -> Order {
    Order { is_mandatory: true, steps }
}

fn together(members: &[(&str, bool)]) -> Colocation {
    let member = |(name, is_promoted): &(&str, bool)| ColocationMember {
        resource: (*name).to_owned(),
        is_promoted: *is_promoted,
    };
    Colocation { is_mandatory: true, members: members.iter().map(member).collect() }
}

fn place(cluster: &Cluster, id: &str) -> Place {
    cluster.places(|one| one.id == id)[0]
}

fn before(cluster: &Cluster, first: &str, then: &str) -> bool {
    cluster.relations.comes_before(place(cluster, first), place(cluster, then))
}

fn beside(cluster: &Cluster, one: &str, other: &str) -> bool {
    cluster.relations.are_together(place(cluster, one), place(cluster, other))
}

#[test]
fn members_of_a_group_come_one_after_the_other_on_one_node_unless_that_is_switched_off() {
    let mut configuration = cluster_of(vec![group("g", dummies(&["a", "b", "c"]))]);
    let cluster = Cluster::of(&configuration);
    assert!(before(&cluster, "a", "c") && !before(&cluster, "c", "a") && beside(&cluster, "a", "c"));
    configuration.entries[0].meta = attributes(&[("ordered", "false"), ("collocated", "false")]);
    let cluster = Cluster::of(&configuration);
    assert!(!before(&cluster, "a", "c") && !beside(&cluster, "a", "c"));
}

#[test]
fn a_constraint_orders_all_that_its_names_stand_for_and_a_chain_is_followed() {
    let mut configuration =
        cluster_of([vec![group("g", dummies(&["a", "b"]))], dummies(&["c", "d", "e"])].concat());
    configuration.tags.insert("both".into(), vec!["c".into(), "d".into()]);
    configuration.orders =
        vec![order(vec![step(&["g"]), step(&["both"])]), order(vec![step(&["d"]), step(&["e"])])];
    let cluster = Cluster::of(&configuration);
    assert!(before(&cluster, "a", "c") && before(&cluster, "b", "d") && before(&cluster, "a", "e"));
    assert!(!before(&cluster, "c", "d") && !before(&cluster, "c", "e") && !beside(&cluster, "a", "c"));
}

#[test]
fn what_promises_nothing_orders_nothing() {
    let with = |change: fn(&mut Order)| {
        let mut order = order(vec![step(&["a", "b"]), step(&["c"])]);
        change(&mut order);
        let configuration = Configuration { orders: vec![order], ..cluster_of(dummies(&["a", "b", "c"])) };
        let cluster = Cluster::of(&configuration);
        [before(&cluster, "a", "b"), before(&cluster, "a", "c"), before(&cluster, "b", "c")]
    };
    assert_eq!(with(|_| ()), [true, true, true]);
    assert_eq!(with(|order| order.is_mandatory = false), [false; 3], "optional");
    assert_eq!(with(|order| order.steps[0].is_sequential = false), [false, true, true]);
    assert_eq!(
        with(|order| order.steps[0].waits_for_all = false),
        [true, false, false],
        "one of them is enough"
    );
    assert_eq!(with(|order| order.steps[0].is_of_start = false), [false; 3], "it orders their stop");
    assert_eq!(with(|order| order.steps[1].is_of_start = false), [true, false, false]);
}

#[test]
fn resources_beside_the_promoted_instance_of_a_clone_are_on_one_node_and_beside_any_instance_are_not() {
    let of = |promotable, is_promoted| {
        let entries = [vec![clone("disks", dummies(&["disk"]).remove(0), promotable)], dummies(&["a", "b"])];
        let mut configuration = cluster_of(entries.concat());
        configuration.colocations =
            ["a", "b"].map(|one| together(&[(one, false), ("disks", is_promoted)])).to_vec();
        let cluster = Cluster::of(&configuration);
        beside(&cluster, "a", "b")
    };
    assert_eq!((of("true", true), of("true", false), of("false", true)), (true, false, false));
}

#[test]
fn a_colocation_that_is_only_preferred_keeps_nothing_together() {
    let mut configuration = cluster_of(dummies(&["a", "b"]));
    configuration.colocations =
        vec![Colocation { is_mandatory: false, ..together(&[("a", false), ("b", false)]) }];
    assert!(!beside(&Cluster::of(&configuration), "a", "b"));
}

#[test]
fn what_a_resource_says_goes_before_its_template_its_collection_and_the_defaults() {
    let mut made = primitive("a", "ocf:pacemaker:Dummy", &[("own", "1")]);
    if let Content::Primitive(primitive) = &mut made.content {
        (primitive.class, primitive.provider, primitive.kind) = Default::default();
        primitive.template = Some("t".into());
        primitive.operations = vec![operation("start", "1min")];
    }
    let mut template = primitive("t", "ocf:heirlock:service", &[("own", "2"), ("service", "homes")]);
    template.meta = attributes(&[("is-managed", "false")]);
    if let Content::Primitive(primitive) = &mut template.content {
        primitive.operations = vec![operation("start", "5"), operation("stop", "7")];
    }
    let mut around = group("g", vec![made]);
    around.meta = attributes(&[("is-managed", "true"), ("target-role", "stopped")]);
    let mut configuration = Configuration { templates: vec![template], ..cluster_of(vec![around]) };
    configuration.resource_defaults = attributes(&[("target-role", "Started"), ("more", "x")]);
    configuration.operation_defaults = attributes(&[("timeout", "33")]);
    let cluster = Cluster::of(&configuration);
    let found = cluster.get(0);
    assert!(found.is_of_heirlock("service", "homes") && found.parameters["own"] == "1");
    assert!(!found.is_managed() && found.is_disabled() && found.meta["more"] == "x");
    let seconds = |action| found.timeout(action).map(|time| time.as_secs());
    assert_eq!((seconds("start"), seconds("stop"), seconds("monitor")), (Some(60), Some(7), Some(33)));
    assert_eq!(cluster.named("t"), cluster.named("g"));
}

#[test]
fn an_address_is_brought_by_the_agent_that_has_it_as_a_parameter_and_not_by_one_that_speaks_of_it() {
    let address = "192.0.2.10".parse().unwrap();
    let brings = |agent: &str, name: &str, value: &str| {
        let configuration = cluster_of(vec![primitive("a", agent, &[(name, value)])]);
        Cluster::of(&configuration).get(0).brings(address)
    };
    assert!(brings("ocf:heartbeat:IPaddr2", "ip", "192.0.2.10"));
    assert!(brings("ocf:heartbeat:gcp-vpc-move-vip", "alias_ip", "192.0.2.10/32"));
    assert!(!brings("ocf:heartbeat:IPaddr2", "ip", "192.0.2.100"));
    assert!(!brings("ocf:heartbeat:portblock", "ip", "192.0.2.10"));
    assert!(!brings("ocf:pacemaker:ping", "host_list", "192.0.2.1 192.0.2.10"));
    assert!(!brings("stonith:fence_ipmilan", "ip", "192.0.2.10"));
}

#[test]
fn sets_of_a_thousand_resources_are_related_in_no_time() {
    let ids: Vec<String> = (0..4000).map(|number| format!("r{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut sets = vec![step(&ids[..2000]), step(&ids[2000..])];
    for set in &mut sets {
        set.is_sequential = false;
    }
    let configuration = Configuration { orders: vec![order(sets)], ..cluster_of(dummies(&ids)) };
    let cluster = Cluster::of(&configuration);
    assert!(before(&cluster, "r0", "r3999") && before(&cluster, "r1999", "r2000"));
    assert!(!before(&cluster, "r0", "r1") && !before(&cluster, "r2000", "r0"));
}
