//! The metrics of an agent, from the status that it tells. docs/metrics.md lists them.
//!
//! No client is a label, and no text from the network or from an error: labels are words of this program, and the names of
//! services and servers. All families are there in any case; those that nothing is known of are left out of the text.

mod counts;
mod family;
mod state;

use heirlock_agent::control::report::StatusReport;

use family::{Family, Kind, number};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counts of the exporter itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// How often a connection waited, since as many as may be were served.
    pub waited: u64,
}

/// The metrics in Prometheus' text format. `status`: nothing where no agent answers.
#[must_use]
pub fn text(status: Option<&StatusReport>, own: Own) -> String {
    family::text(&families(status, own))
}

/// The name of every metric there may be, each with its type, in order: histograms under each name that a query may use.
#[must_use]
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for Family { name, kind, .. } in families(None, Own::default()) {
        match kind {
            Kind::Gauge | Kind::Counter => names.push(name.to_owned()),
            Kind::Histogram => {
                names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
            }
        }
    }
    names
}

fn families(status: Option<&StatusReport>, own: Own) -> Vec<Family> {
    let mut families = of_exporter(status.is_some(), own);
    families.extend(state::families(status));
    families.extend(counts::families(status.and_then(|status| status.observed.as_deref())));
    families
}

fn of_exporter(is_up: bool, own: Own) -> Vec<Family> {
    vec![
        Family::gauge("heirlock_up", "Whether the agent of this server answers.").with(&[], truth(is_up)),
        Family::gauge("heirlock_exporter_build_info", "The version of the exporter.")
            .with(&[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        Family::counter(
            "heirlock_exporter_connections_delayed_total",
            "Connections that waited, since as many as may be were served.",
        )
        .with(&[], number(own.waited)),
    ]
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[cfg(test)]
mod tests;
