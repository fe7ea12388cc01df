//! Small clusters for tests.

use super::configuration::{Attributes, Configuration, Content, Entry, Operation, Primitive};

pub(super) fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A primitive: its name, its type as `class:provider:type` or `class:type`, its parameters.
pub(super) fn primitive(id: &str, agent: &str, parameters: &[(&str, &str)]) -> Entry {
    let words: Vec<&str> = agent.split(':').collect();
    let (class, provider, kind) = match words[..] {
        [class, provider, kind] => (class, provider, kind),
        [class, kind] => (class, "", kind),
        _ => panic!("{agent}"),
    };
    let content = Content::Primitive(Primitive {
        class: class.to_owned(),
        provider: provider.to_owned(),
        kind: kind.to_owned(),
        template: None,
        parameters: attributes(parameters),
        operations: Vec::new(),
    });
    Entry { id: id.to_owned(), meta: Attributes::new(), content }
}

pub(super) fn group(id: &str, members: Vec<Entry>) -> Entry {
    Entry { id: id.to_owned(), meta: Attributes::new(), content: Content::Group(members) }
}

pub(super) fn operation(name: &str, timeout: &str) -> Operation {
    Operation { name: name.to_owned(), timeout: Some(timeout.to_owned()), is_enabled: true }
}

pub(super) fn cluster_of(entries: Vec<Entry>) -> Configuration {
    Configuration { entries, ..Configuration::default() }
}
