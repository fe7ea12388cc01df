//! What starts before what, and what runs on the node of what, as far as groups and constraints promise it.

use std::collections::BTreeMap;

use super::configuration::{Configuration, Content, Entry, Order};
use super::resources::{CloneOf, Place, Resource, truth};

/// See the module.
#[derive(Debug)]
pub(super) struct Relations {
    /// For each point: the points that come later. A resource is the point of its place; the other points stand between two
    /// steps of a constraint, so that two sets of a thousand resources don't make a million pairs.
    later: Vec<Vec<Place>>,
    /// For each resource: the first one of all that run on its node.
    node: Vec<Place>,
}

impl Relations {
    pub(super) fn of(
        configuration: &Configuration,
        resources: &[Resource],
        by_name: &BTreeMap<&str, Vec<Place>>,
    ) -> Self {
        let mut relations =
            Self { later: vec![Vec::new(); resources.len()], node: (0..resources.len()).collect() };
        let named = |name: &str| by_name.get(name).map_or(&[][..], Vec::as_slice);
        for entry in &configuration.entries {
            relations.groups(entry, &named);
        }
        for order in configuration.orders.iter().filter(|order| order.is_mandatory) {
            relations.order(order, &named);
        }
        // The promoted instance of a clone is one, and so it has one node.
        let mut promoted: BTreeMap<&str, Place> = BTreeMap::new();
        for colocation in configuration.colocations.iter().filter(|one| one.is_mandatory) {
            let mut together = Vec::new();
            for member in &colocation.members {
                for place in named(&member.resource) {
                    match &resources[*place].clone {
                        None => together.push(*place),
                        Some(CloneOf { id, is_promotable: true }) if member.is_promoted => {
                            together.push(*promoted.entry(id).or_insert(*place));
                        }
                        Some(_) => {}
                    }
                }
            }
            relations.put_together(&together);
        }
        relations
    }

    /// Whether `first` has started when `then` starts, wherever and whenever that is.
    pub(super) fn comes_before(&self, first: Place, then: Place) -> bool {
        let mut seen = vec![false; self.later.len()];
        let mut open = vec![first];
        while let Some(point) = open.pop() {
            for next in &self.later[point] {
                if *next == then {
                    return true;
                }
                if !std::mem::replace(&mut seen[*next], true) {
                    open.push(*next);
                }
            }
        }
        false
    }

    /// Whether they run on one node, wherever that is.
    pub(super) fn are_together(&self, one: Place, other: Place) -> bool {
        self.node_of(one) == self.node_of(other)
    }

    fn node_of(&self, mut place: Place) -> Place {
        while self.node[place] != place {
            place = self.node[place];
        }
        place
    }

    fn put_together(&mut self, places: &[Place]) {
        let roots: Vec<Place> = places.iter().map(|place| self.node_of(*place)).collect();
        let Some(first) = roots.iter().min().copied() else { return };
        for root in roots {
            self.node[root] = first;
        }
    }

    fn groups<'a>(&mut self, entry: &Entry, named: &impl Fn(&str) -> &'a [Place]) {
        match &entry.content {
            Content::Primitive(_) => {}
            Content::Clone { inner, .. } | Content::Bundle(inner) => {
                for inside in inner {
                    self.groups(inside, named);
                }
            }
            Content::Group(_) => {
                // Both are so unless they are switched off, which old configurations do.
                let is_on = |name| entry.meta.get(name).and_then(|value| truth(value)) != Some(false);
                let members = named(&entry.id);
                if is_on("ordered") {
                    for pair in members.windows(2) {
                        self.later[pair[0]].push(pair[1]);
                    }
                }
                if is_on("collocated") {
                    self.put_together(members);
                }
            }
        }
    }

    fn order<'a>(&mut self, order: &Order, named: &impl Fn(&str) -> &'a [Place]) {
        // What the next step waits for.
        let mut gate = None;
        for step in &order.steps {
            if !step.is_of_start {
                gate = None;
                continue;
            }
            let places: Vec<Vec<Place>> = step.resources.iter().map(|name| named(name).to_vec()).collect();
            if let Some(gate) = gate {
                self.later_at(gate, places.iter().flatten());
            }
            if step.is_sequential {
                for pair in places.windows(2) {
                    let between = self.point();
                    for place in &pair[0] {
                        self.later[*place].push(between);
                    }
                    self.later_at(between, pair[1].iter());
                }
            }
            gate = step.waits_for_all.then(|| {
                let next = self.point();
                for place in places.iter().flatten() {
                    self.later[*place].push(next);
                }
                next
            });
        }
    }

    fn later_at<'a>(&mut self, point: Place, places: impl Iterator<Item = &'a Place>) {
        self.later[point].extend(places.copied());
    }

    fn point(&mut self) -> Place {
        self.later.push(Vec::new());
        self.later.len() - 1
    }
}
