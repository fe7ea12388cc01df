//! The resources of a cluster one by one, with all that they inherit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::configuration::{Attributes, Configuration, Content, Entry, Operation, Primitive};
use super::relations::Relations;

/// How long an action may take of which nothing is said (Pacemaker Explained, "Resource Operations").
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// The number of a resource among [`Cluster::resources`].
pub(super) type Place = usize;

/// A configuration in which every resource is found by itself.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) resources: Vec<Resource>,
    /// The resources that a name stands for: of one, of a collection or of a tag.
    by_name: BTreeMap<&'a str, Vec<Place>>,
    pub(super) relations: Relations,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) id: String,
    pub(super) class: String,
    pub(super) provider: String,
    pub(super) kind: String,
    pub(super) parameters: Attributes,
    /// Its own, and those that it inherits.
    pub(super) meta: Attributes,
    operations: Vec<Operation>,
    timeout_default: Option<String>,
    /// Its group.
    pub(super) group: Option<String>,
    /// The clone that makes several of it.
    pub(super) clone: Option<CloneOf>,
}

/// A clone, or a bundle with several replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloneOf {
    pub(super) id: String,
    /// One of its instances has a role of its own.
    pub(super) is_promotable: bool,
}

impl<'a> Cluster<'a> {
    pub(super) fn of(configuration: &'a Configuration) -> Self {
        let mut reading = Reading { configuration, resources: Vec::new(), by_name: BTreeMap::new() };
        for entry in &configuration.entries {
            reading.take_in(entry, &Inherited::from(configuration));
        }
        let Reading { resources, mut by_name, .. } = reading;
        for (tag, names) in &configuration.tags {
            let places: Vec<Place> =
                names.iter().filter_map(|name| by_name.get(name.as_str())).flatten().copied().collect();
            by_name.entry(tag).or_default().extend(places);
        }
        let relations = Relations::of(configuration, &resources, &by_name);
        Self { configuration, resources, by_name, relations }
    }

    pub(super) fn get(&self, place: Place) -> &Resource {
        &self.resources[place]
    }

    /// The resources of which this holds.
    pub(super) fn places(&self, is_sought: impl Fn(&Resource) -> bool) -> Vec<Place> {
        (0..self.resources.len()).filter(|place| is_sought(&self.resources[*place])).collect()
    }

    /// The resources that a name stands for.
    pub(super) fn named(&self, name: &str) -> &[Place] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// A property that is a truth value; `None` where nothing is said, or where it is no such value.
    pub(super) fn property_is_on(&self, name: &str) -> Option<bool> {
        self.configuration.properties.get(name).and_then(|value| truth(value))
    }

    /// A name for a new resource that nothing has yet.
    pub(super) fn free_name(&self, wanted: &str) -> String {
        let is_free = |name: &String| !self.by_name.contains_key(name.as_str());
        let more = (2..).map(|number| format!("{wanted}-{number}"));
        std::iter::once(wanted.to_owned()).chain(more).find(is_free).unwrap_or_default()
    }
}

impl Resource {
    /// One of heirlock's resource agents, for this service.
    pub(super) fn is_of_heirlock(&self, kind: &str, service: &str) -> bool {
        self.is_ocf("heirlock", kind) && self.parameters.get("service").map(String::as_str) == Some(service)
    }

    pub(super) fn is_ocf(&self, provider: &str, kind: &str) -> bool {
        self.class == "ocf" && self.provider == provider && self.kind == kind
    }

    /// Whether it starts an NFS server.
    pub(super) fn is_nfs_server(&self) -> bool {
        let unit = self.kind.split('.').next().unwrap_or_default();
        self.is_ocf("heartbeat", "nfsserver")
            || (["systemd", "service", "lsb"].contains(&self.class.as_str())
                && ["nfs-server", "nfs-kernel-server", "nfsserver", "nfs"].contains(&unit))
    }

    pub(super) fn is_fence(&self) -> bool {
        self.class == "stonith"
    }

    /// The folder that it mounts.
    pub(super) fn mounts(&self) -> Option<&Path> {
        let directory = self.parameters.get("directory").filter(|_| self.kind == "Filesystem")?;
        Some(Path::new(directory))
    }

    /// The folders that it exports: `exportfs` takes several.
    pub(super) fn exports(&self) -> Vec<PathBuf> {
        let directories = self.parameters.get("directory").filter(|_| self.kind == "exportfs");
        directories.into_iter().flat_map(|text| text.split_whitespace()).map(PathBuf::from).collect()
    }

    /// Whether it brings this address up. An agent for addresses is known by its parameter: clouds have agents of their own.
    pub(super) fn brings(&self, address: IpAddr) -> bool {
        /// They name an address that another resource brings.
        const SPEAK_OF_ONE: [&str; 11] = [
            "portblock",
            "SendArp",
            "IPsrcaddr",
            "Route",
            "exportfs",
            "nfsserver",
            "nfsnotify",
            "ethmonitor",
            "ping",
            "pingd",
            "Filesystem",
        ];
        if self.is_fence() || SPEAK_OF_ONE.contains(&self.kind.as_str()) {
            return false;
        }
        let is_it = |word: &str| word.split('/').next().unwrap_or_default().parse() == Ok(address);
        self.parameters.values().flat_map(|value| value.split([' ', ','])).any(is_it)
    }

    /// Whether it is meant to run.
    pub(super) fn is_disabled(&self) -> bool {
        self.meta.get("target-role").is_some_and(|role| role.eq_ignore_ascii_case("stopped"))
    }

    /// Whether Pacemaker starts and stops it.
    pub(super) fn is_managed(&self) -> bool {
        let says = |name: &str| self.meta.get(name).and_then(|value| truth(value));
        says("is-managed") != Some(false) && says("maintenance") != Some(true)
    }

    /// How long this action of it may take. `None` where that can't be read.
    pub(super) fn timeout(&self, action: &str) -> Option<Duration> {
        let own = self.operations.iter().find(|one| one.name == action && one.is_enabled);
        let said = own.and_then(|one| one.timeout.as_ref()).or(self.timeout_default.as_ref());
        said.map_or(Some(TIMEOUT_DEFAULT), |text| duration(text))
    }

    /// Whether it has this operation.
    pub(super) fn has_operation(&self, name: &str) -> bool {
        self.operations.iter().any(|one| one.name == name && one.is_enabled)
    }
}

/// What the members of a collection have from it.
#[derive(Clone)]
struct Inherited {
    /// The nearest first.
    meta: Attributes,
    group: Option<String>,
    clone: Option<CloneOf>,
    /// The names that stand for what is in them.
    within: Vec<String>,
}

impl Inherited {
    fn from(configuration: &Configuration) -> Self {
        Self { meta: configuration.resource_defaults.clone(), group: None, clone: None, within: Vec::new() }
    }

    fn with_meta(&self, own: &Attributes) -> Attributes {
        let mut meta = self.meta.clone();
        meta.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        meta
    }
}

struct Reading<'a> {
    configuration: &'a Configuration,
    resources: Vec<Resource>,
    by_name: BTreeMap<&'a str, Vec<Place>>,
}

impl<'a> Reading<'a> {
    fn take_in(&mut self, entry: &'a Entry, inherited: &Inherited) {
        let first = self.resources.len();
        let mut inside = inherited.clone();
        inside.within.push(entry.id.clone());
        let inner = match &entry.content {
            Content::Primitive(primitive) => {
                // In a constraint a template stands for all that are made of it.
                if let Some(template) = &primitive.template {
                    self.by_name.entry(template).or_default().push(first);
                }
                self.resources.push(self.resource(entry, primitive, inherited));
                &[][..]
            }
            Content::Group(members) => {
                inside.group = Some(entry.id.clone());
                members
            }
            Content::Clone { is_master, inner } => {
                let promotable = entry.meta.get("promotable").and_then(|value| truth(value)) == Some(true);
                inside.clone =
                    Some(CloneOf { id: entry.id.clone(), is_promotable: *is_master || promotable });
                inner
            }
            Content::Bundle(inner) => {
                inside.clone = Some(CloneOf { id: entry.id.clone(), is_promotable: false });
                inner
            }
        };
        inside.meta = inherited.with_meta(&entry.meta);
        for member in inner {
            self.take_in(member, &inside);
        }
        self.by_name.entry(&entry.id).or_default().extend(first..self.resources.len());
    }

    fn resource(&self, entry: &Entry, primitive: &Primitive, inherited: &Inherited) -> Resource {
        let template =
            self.configuration.templates.iter().find(|one| Some(&one.id) == primitive.template.as_ref());
        let of_template = template.and_then(|one| match &one.content {
            Content::Primitive(primitive) => Some(primitive),
            _ => None,
        });
        let default = Primitive::default();
        let base = of_template.unwrap_or(&default);
        // What a resource says itself goes before what its template says, and that before its collection's.
        let mut meta = inherited.with_meta(&template.map(|one| one.meta.clone()).unwrap_or_default());
        meta.extend(entry.meta.clone());
        let mut parameters = base.parameters.clone();
        parameters.extend(primitive.parameters.clone());
        let own: BTreeSet<&str> = primitive.operations.iter().map(|one| one.name.as_str()).collect();
        let more = base.operations.iter().filter(|one| !own.contains(one.name.as_str()));
        let operations = primitive.operations.iter().chain(more).cloned().collect();
        let either = |own: &String, base: &String| if own.is_empty() { base.clone() } else { own.clone() };
        Resource {
            id: entry.id.clone(),
            class: either(&primitive.class, &base.class),
            provider: either(&primitive.provider, &base.provider),
            kind: either(&primitive.kind, &base.kind),
            parameters,
            meta,
            operations,
            timeout_default: self.configuration.operation_defaults.get("timeout").cloned(),
            group: inherited.group.clone(),
            clone: inherited.clone.clone(),
        }
    }
}

/// As Pacemaker reads a truth value (crm_str_to_boolean, lib/common/strings.c).
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "y" | "1" => Some(true),
        "false" | "off" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// As Pacemaker reads a time: a number with a unit, seconds where it has none (crm_get_msec, lib/common/utils.c), or a duration of
/// ISO 8601 (`PT1M30S`).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(iso) = text.strip_prefix('P') {
        return iso_duration(iso);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim() {
        "" | "s" | "sec" => number.checked_mul(1000)?,
        "ms" | "msec" => number,
        "us" | "usec" => number / 1000,
        "m" | "min" => number.checked_mul(60_000)?,
        "h" | "hr" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

fn iso_duration(text: &str) -> Option<Duration> {
    let (days, time) = text.split_once('T').unwrap_or((text, ""));
    let mut seconds = parts(days, &[('W', 604_800), ('D', 86_400)])?;
    seconds = seconds.checked_add(parts(time, &[('H', 3_600), ('M', 60), ('S', 1)])?)?;
    Some(Duration::from_secs(seconds))
}

fn parts(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let (mut total, mut rest) = (0_u64, text);
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()) {
        let unit = rest[end..].chars().next()?;
        let (_, seconds) = units.iter().find(|(letter, _)| *letter == unit)?;
        total = total.checked_add(rest[..end].parse::<u64>().ok()?.checked_mul(*seconds)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    rest.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_pacemaker_reads_it() {
        let seconds = |text| duration(text).map(|time| time.as_secs_f32());
        for (text, expected) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1500ms", 1.5),
            ("2min", 120.0),
            ("1h", 3_600.0),
            ("PT1M30S", 90.0),
            ("P1DT1S", 86_401.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "s", "soon", "1x", "PTX", "99999999999999999999", "PT9999999999999999999M", "-1"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
