//! Reads a cluster's configuration from the XML of its CIB, as `cibadmin --query` prints it.
//!
//! It is taken for hostile: whoever may write the CIB may write anything. What is read is bounded in bytes, elements and depth,
//! and an element that is not known is left alone.

use std::collections::{BTreeMap, HashMap};

use heirlock_core::cluster::{
    Attributes, Colocation, ColocationMember, Configuration, Content, Entry, Location, Operation, Order,
    Primitive, Step, Wanted,
};
use roxmltree::{Document, Node, ParsingOptions};

use crate::limits;

/// A score from which on a constraint must be kept (`INFINITY`, Pacemaker Explained, "Scores").
const INFINITY: i64 = 1_000_000;

/// The configuration in the text of a CIB.
///
/// # Errors
/// Where it is no XML of a CIB, or is too large; in words.
pub(crate) fn parse(bytes: &[u8]) -> Result<Configuration, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is no UTF-8: {error}"))?;
    let options = ParsingOptions { nodes_limit: limits::CIB_NODES_MAX, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| format!("it is no XML: {error}"))?;
    let root = document.root_element();
    if root.tag_name().name() != "cib" {
        let found: String = root.tag_name().name().chars().take(40).collect();
        return Err(format!("expected the element cib, found {found:?}"));
    }
    let configuration = child(root, "configuration")
        .ok_or_else(|| "expected a configuration in it, found none".to_owned())?;
    Reader::of(root).configuration(configuration)
}

/// Elements may refer to others by their ids.
struct Reader<'a, 'input> {
    by_id: HashMap<&'a str, Node<'a, 'input>>,
}

impl<'a, 'input> Reader<'a, 'input> {
    fn of(root: Node<'a, 'input>) -> Self {
        let with_id = root.descendants().filter_map(|node| Some((node.attribute("id")?, node)));
        Self { by_id: with_id.collect() }
    }

    fn configuration(&self, node: Node<'a, 'input>) -> Result<Configuration, String> {
        let inside = |name: &'static str| children(node, name).flat_map(|part| part.children());
        let elements = |name| inside(name).filter(Node::is_element);
        let mut templates = Vec::new();
        let mut entries = Vec::new();
        for resource in elements("resources") {
            match resource.tag_name().name() {
                "template" => templates.extend(self.entry(resource, 0)?),
                _ => entries.extend(self.entry(resource, 0)?),
            }
        }
        let defaults = |name| {
            children(node, name)
                .next()
                .map(|part| self.attributes(part, &["meta_attributes"], false))
                .unwrap_or_default()
        };
        let properties = child(node, "crm_config")
            .map(|part| self.attributes(part, &["cluster_property_set"], true))
            .unwrap_or_default();
        let mut read = Configuration {
            nodes: elements("nodes").filter_map(member_node).collect(),
            properties,
            resource_defaults: defaults("rsc_defaults"),
            operation_defaults: defaults("op_defaults"),
            templates,
            entries,
            tags: elements("tags").filter_map(tag).collect(),
            ..Configuration::default()
        };
        for constraint in elements("constraints") {
            match constraint.tag_name().name() {
                "rsc_order" => read.orders.push(order(constraint)),
                "rsc_colocation" => read.colocations.extend(colocation(constraint)),
                "rsc_location" => read.locations.extend(locations(constraint)),
                _ => {}
            }
        }
        Ok(read)
    }

    /// A resource or a collection; `None` where it is none of those that are known.
    fn entry(&self, node: Node<'a, 'input>, depth: usize) -> Result<Option<Entry>, String> {
        let Some(id) = node.attribute("id") else { return Ok(None) };
        // A group in a clone is as deep as it goes.
        if depth > limits::CIB_DEPTH_MAX {
            return Err(format!("resources are nested deeper than {} times", limits::CIB_DEPTH_MAX));
        }
        let inside = || -> Result<Vec<Entry>, String> {
            let members =
                node.children().filter(Node::is_element).map(|member| self.entry(member, depth + 1));
            Ok(members.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let content = match node.tag_name().name() {
            "primitive" | "template" => Content::Primitive(self.primitive(node)),
            "group" => Content::Group(inside()?),
            "clone" => Content::Clone { is_master: false, inner: inside()? },
            "master" => Content::Clone { is_master: true, inner: inside()? },
            "bundle" => Content::Bundle(inside()?),
            _ => return Ok(None),
        };
        Ok(Some(Entry {
            id: id.to_owned(),
            meta: self.attributes(node, &["meta_attributes"], true),
            content,
        }))
    }

    fn primitive(&self, node: Node<'a, 'input>) -> Primitive {
        let own = |name| node.attribute(name).unwrap_or_default().to_owned();
        let operations = children(node, "operations").map(|part| self.referred(part));
        let operations = operations.flat_map(|part| children(part, "op").collect::<Vec<_>>());
        Primitive {
            class: own("class"),
            provider: own("provider"),
            kind: own("type"),
            template: node.attribute("template").map(str::to_owned),
            parameters: self.attributes(node, &["instance_attributes"], true),
            operations: operations.filter_map(|op| self.operation(op)).collect(),
        }
    }

    fn operation(&self, node: Node<'a, 'input>) -> Option<Operation> {
        let more = self.attributes(node, &["meta_attributes", "instance_attributes"], false);
        let get = |name: &str| node.attribute(name).map(str::to_owned).or_else(|| more.get(name).cloned());
        let is_off =
            get("enabled").is_some_and(|value| ["false", "off", "no", "0"].contains(&value.as_str()));
        Some(Operation { name: get("name")?, timeout: get("timeout"), is_enabled: !is_off })
    }

    /// The names and values of an element's sets. The set with the highest score counts first; one that counts under a condition
    /// comes last, or not at all.
    fn attributes(&self, of: Node<'a, 'input>, sets: &[&str], with_conditional: bool) -> Attributes {
        let mut found: Vec<(bool, i64, Node<'a, 'input>)> = of
            .children()
            .filter(|child| sets.contains(&child.tag_name().name()))
            .map(|set| self.referred(set))
            .map(|set| (child(set, "rule").is_some(), -score(set.attribute("score"), 0), set))
            .filter(|(is_conditional, ..)| with_conditional || !is_conditional)
            .collect();
        found.sort_by_key(|(is_conditional, score, _)| (*is_conditional, *score));
        let mut attributes = Attributes::new();
        for pair in found.iter().flat_map(|(_, _, set)| children(*set, "nvpair")) {
            let referred = self.referred(pair);
            let name = pair.attribute("name").or(referred.attribute("name"));
            if let (Some(name), Some(value)) = (name, referred.attribute("value")) {
                attributes.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        attributes
    }

    /// The element that another one stands for by its `id-ref`.
    fn referred(&self, node: Node<'a, 'input>) -> Node<'a, 'input> {
        node.attribute("id-ref").and_then(|id| self.by_id.get(id)).copied().unwrap_or(node)
    }
}

fn children<'a, 'input>(of: Node<'a, 'input>, name: &'static str) -> impl Iterator<Item = Node<'a, 'input>> {
    of.children().filter(move |child| child.tag_name().name() == name)
}

fn child<'a, 'input>(of: Node<'a, 'input>, name: &'static str) -> Option<Node<'a, 'input>> {
    children(of, name).next()
}

/// A node that runs the whole cluster software; a remote one has no store of its own to look at.
fn member_node(node: Node) -> Option<String> {
    let is_member = matches!(node.attribute("type"), None | Some("member" | "normal"));
    let name = node.attribute("uname").or(node.attribute("id")).filter(|_| is_member)?;
    Some(name.to_owned())
}

fn tag(node: Node) -> Option<(String, Vec<String>)> {
    let members = children(node, "obj_ref").filter_map(|one| one.attribute("id")).map(str::to_owned);
    Some((node.attribute("id")?.to_owned(), members.collect()))
}

fn score(text: Option<&str>, default: i64) -> i64 {
    match text {
        None => default,
        Some("INFINITY" | "+INFINITY") => INFINITY,
        Some("-INFINITY") => -INFINITY,
        Some(number) => number.parse().unwrap_or(0).clamp(-INFINITY, INFINITY),
    }
}

fn is_on(text: Option<&str>, default: bool) -> bool {
    text.map_or(default, |text| {
        !["false", "off", "no", "n", "0"].contains(&text.to_ascii_lowercase().as_str())
    })
}

fn set_members(set: Node) -> Vec<String> {
    children(set, "resource_ref").filter_map(|one| one.attribute("id")).map(str::to_owned).collect()
}

/// Without a kind an order is mandatory; old configurations say it by a score.
fn order(node: Node) -> Order {
    let is_mandatory = match (node.attribute("kind"), node.attribute("score")) {
        (Some(kind), _) => kind.eq_ignore_ascii_case("mandatory"),
        (None, score_text) => score(score_text, INFINITY) > 0,
    };
    let is_of_start = |action: &str| ["start", "promote"].contains(&action);
    let mut steps: Vec<Step> = children(node, "resource_set")
        .map(|set| Step {
            resources: set_members(set),
            is_sequential: is_on(set.attribute("sequential"), true),
            waits_for_all: is_on(set.attribute("require-all"), true),
            is_of_start: is_of_start(set.attribute("action").unwrap_or("start")),
        })
        .collect();
    let first_action = node.attribute("first-action").unwrap_or("start");
    let actions = [first_action, node.attribute("then-action").unwrap_or(first_action)];
    for (resource, action) in ["first", "then"].into_iter().zip(actions) {
        steps.extend(node.attribute(resource).map(|name| Step {
            resources: vec![name.to_owned()],
            is_sequential: true,
            waits_for_all: is_on(node.attribute("require-all"), true),
            is_of_start: is_of_start(action),
        }));
    }
    Order { is_mandatory, steps }
}

/// Where sets are given, all that they name comes together, but for a single set without an order in it, which says nothing. A
/// constraint on another attribute of nodes than their name puts nothing on one node.
fn colocation(node: Node) -> Option<Colocation> {
    let is_promoted = |role: Option<&str>| matches!(role, Some("Promoted" | "Master"));
    let member = |resource: &str, role| ColocationMember {
        resource: resource.to_owned(),
        is_promoted: is_promoted(role),
    };
    let sets: Vec<Node> = children(node, "resource_set").collect();
    if let [set] = sets.as_slice()
        && !is_on(set.attribute("sequential"), true)
    {
        return None;
    }
    let of_sets = sets.iter().flat_map(|set| {
        let role = set.attribute("role");
        set_members(*set).into_iter().map(move |name| member(&name, role)).collect::<Vec<_>>()
    });
    let of_two = [("rsc", "rsc-role"), ("with-rsc", "with-rsc-role")];
    let of_two = of_two
        .into_iter()
        .filter_map(|(name, role)| Some(member(node.attribute(name)?, node.attribute(role))));
    let attribute = node.attribute("node-attribute").unwrap_or("#uname");
    let is_mandatory = score(node.attribute("score"), INFINITY) >= INFINITY && attribute == "#uname";
    Some(Colocation { is_mandatory, members: of_sets.chain(of_two).collect() })
}

/// By a node's name, also where a rule gives it. A rule of another kind says nothing of one node.
fn locations(node: Node) -> Vec<Location> {
    let id = node.attribute("id").unwrap_or_default();
    let mut resources: Vec<String> = node.attribute("rsc").map(str::to_owned).into_iter().collect();
    resources.extend(children(node, "resource_set").flat_map(set_members));
    let mut wanted: Vec<(&str, i64)> = Vec::new();
    wanted.extend(node.attribute("node").map(|name| (name, score(node.attribute("score"), 0))));
    for rule in children(node, "rule") {
        let expressions: Vec<Node> = rule.children().filter(Node::is_element).collect();
        let names = expressions.iter().filter(|one| {
            one.attribute("attribute") == Some("#uname") && one.attribute("operation") == Some("eq")
        });
        // One that has a further condition does not always count.
        let names: Vec<&str> = names.filter_map(|one| one.attribute("value")).collect();
        if names.len() == expressions.len() && names.len() == 1 {
            wanted.extend(names.iter().map(|name| (*name, score(rule.attribute("score"), 0))));
        } else if id.starts_with("cli-") {
            wanted.extend(names.iter().map(|name| (*name, 0)));
        }
    }
    let mut places: BTreeMap<Option<&str>, Wanted> = wanted
        .into_iter()
        .map(|(name, score)| match score {
            _ if score <= -INFINITY => (Some(name), Wanted::Never),
            1.. => (Some(name), Wanted::More),
            _ => (Some(name), Wanted::Less),
        })
        .collect();
    if places.is_empty() {
        places.insert(None, Wanted::Less);
    }
    let mut found = Vec::new();
    for resource in resources {
        found.extend(places.iter().map(|(node, wanted)| Location {
            id: id.to_owned(),
            resource: resource.clone(),
            node: node.map(str::to_owned),
            wanted: *wanted,
        }));
    }
    found
}

#[cfg(test)]
mod tests;
