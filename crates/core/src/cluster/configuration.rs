//! A cluster's configuration as it is written down: resources in their order, groups, clones, templates, constraints. What is
//! inherited, and what follows from it, is found out by [`Cluster`](super::resources::Cluster).
//!
//! The words are those of Pacemaker Explained (chapters "Cluster Resources", "Resource Constraints", "Collective Resources").

use std::collections::BTreeMap;

/// Names and values: parameters, meta attributes, properties. Where one name is given several times, the first in force.
pub type Attributes = BTreeMap<String, String>;

/// All of it that a service may rest upon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// The names of the nodes that run the whole cluster software, in their order.
    pub nodes: Vec<String>,
    /// The cluster's properties: `stonith-enabled`, `maintenance-mode`, …
    pub properties: Attributes,
    /// Meta attributes of every resource that has none of its own (`rsc_defaults`).
    pub resource_defaults: Attributes,
    /// What every operation has that says nothing of its own (`op_defaults`).
    pub operation_defaults: Attributes,
    /// Templates, which primitives refer to.
    pub templates: Vec<Entry>,
    /// The outermost resources, in their order.
    pub entries: Vec<Entry>,
    /// Names that stand for several resources in constraints.
    pub tags: BTreeMap<String, Vec<String>>,
    /// What starts before what.
    pub orders: Vec<Order>,
    /// What runs on the node of what.
    pub colocations: Vec<Colocation>,
    /// What runs on which node.
    pub locations: Vec<Location>,
}

/// One resource, or a collection of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: String,
    /// Its own meta attributes.
    pub meta: Attributes,
    /// What it is.
    pub content: Content,
}

/// See [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One resource.
    Primitive(Primitive),
    /// Its members are started one after the other, on one node.
    Group(Vec<Entry>),
    /// It runs on several nodes.
    Clone {
        /// It is a `<master>`, as clones with roles were written before Pacemaker 2.
        is_master: bool,
        /// What runs there.
        inner: Vec<Entry>,
    },
    /// A container on one or more nodes, with a resource in it.
    Bundle(Vec<Entry>),
}

/// One resource, or a template for some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Primitive {
    /// `ocf`, `systemd`, `stonith`, …; empty where a template says it.
    pub class: String,
    /// `heartbeat`, `heirlock`, …; empty where the class has none.
    pub provider: String,
    /// `IPaddr2`, `exportfs`, …
    pub kind: String,
    /// Its template.
    pub template: Option<String>,
    /// Its parameters (`instance_attributes`).
    pub parameters: Attributes,
    /// Its operations.
    pub operations: Vec<Operation>,
}

/// How an action of a resource is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `start`, `stop`, `monitor`, …
    pub name: String,
    /// How long it may take, as it is written.
    pub timeout: Option<String>,
    /// Whether it counts.
    pub is_enabled: bool,
}

/// What starts before what. A constraint of two resources has two steps; one of resource sets has a step for each set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whether what comes later is kept from starting before. A constraint that is only optional, or that only keeps two actions
    /// from being done at the same time, promises that not.
    pub is_mandatory: bool,
    /// In their order.
    pub steps: Vec<Step>,
}

/// Some of the resources of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Names of resources, collections or tags.
    pub resources: Vec<String>,
    /// Whether they start one after the other.
    pub is_sequential: bool,
    /// Whether the next step waits for all of them.
    pub waits_for_all: bool,
    /// Whether it is their start, or promotion, that is ordered, and not their end.
    pub is_of_start: bool,
}

/// What runs on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Colocation {
    /// Whether it must be so (`INFINITY`), and is not only preferred.
    pub is_mandatory: bool,
    /// All that it puts together.
    pub members: Vec<ColocationMember>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColocationMember {
    /// The name of a resource, a collection or a tag.
    pub resource: String,
    /// Whether it is the promoted instance that is meant.
    pub is_promoted: bool,
}

/// What runs on which node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The constraint's own name.
    pub id: String,
    /// The name of a resource, a collection or a tag.
    pub resource: String,
    /// The node; `None` where a rule says it in another way than by one node's name.
    pub node: Option<String>,
    /// How much it is wanted there.
    pub wanted: Wanted,
}

/// See [`Location`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It never runs there (`-INFINITY`).
    Never,
    /// It had rather run elsewhere, or nothing is said.
    Less,
    /// It may run there (above zero).
    More,
}
