//! Prometheus' text format, version 0.0.4: families of samples, each with its help and its type.
//!
//! The crates that others have written for it speak OpenMetrics, which spells counters otherwise: `promtool check metrics`
//! and node_exporter's textfile collector read the older format alone.

use std::fmt::Write;

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// All samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    help: &'static str,
    pub(crate) kind: Kind,
    samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

/// The labels of a sample. Each value is a word of this program, or a name that was checked when it was read.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Family {
    pub(crate) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// Its name ends in `_total`.
    pub(crate) fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    pub(crate) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram, samples: Vec::new() }
    }

    /// With one sample more.
    pub(crate) fn with(mut self, labels: Labels, value: f64) -> Self {
        self.add("", labels, value);
        self
    }

    /// With one sample more, where there is a value.
    pub(crate) fn with_some(self, labels: Labels, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(labels, value),
            None => self,
        }
    }

    /// With a histogram more, whose buckets count all that is no longer than their bounds.
    pub(crate) fn with_histogram(
        mut self,
        labels: Labels,
        buckets: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) -> Self {
        let bounds = buckets.iter().map(|(bound, count)| (bound.to_string(), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), count)]) {
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.add("_bucket", &labels, number(count));
        }
        self.add("_sum", labels, sum);
        self.add("_count", labels, number(count));
        self
    }

    fn add(&mut self, suffix: &'static str, labels: Labels, value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
    }
}

/// A count as a sample has it. Beyond 2^53 the last digits are lost.
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// The families that have a sample, one after another.
pub(crate) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, help, kind, samples } in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        // Writing into a string never fails.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", help.replace('\\', "\\\\"));
        for Sample { suffix, labels, value } in samples {
            let _ = write!(text, "{name}{suffix}");
            for (at, (label, value)) in labels.iter().enumerate() {
                let before = if at == 0 { '{' } else { ',' };
                let _ = write!(text, "{before}{label}=\"{}\"", escaped(value));
            }
            let after = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{after} {value}");
        }
    }
    text
}

/// The three characters that would end a label's value, or its line.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_ends_neither_its_quotes_nor_its_line() {
        let family = Family::gauge("a", "A \\ here.").with(&[("b", "x\"} 1\nc 2\\")], 0.5);
        assert_eq!(
            text(&[family]),
            "# HELP a A \\\\ here.\n# TYPE a gauge\na{b=\"x\\\"} 1\\nc 2\\\\\"} 0.5\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_all_of_them() {
        let family =
            Family::histogram("a", "A.").with_histogram(&[("b", "c")], &[(0.001, 1), (2.5, 2)], 3, 7.25);
        let lines = text(&[family]);
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        let expected = [
            r#"a_bucket{b="c",le="0.001"} 1"#,
            r#"a_bucket{b="c",le="2.5"} 2"#,
            r#"a_bucket{b="c",le="+Inf"} 3"#,
            r#"a_sum{b="c"} 7.25"#,
            r#"a_count{b="c"} 3"#,
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_family_without_a_sample_is_left_out() {
        assert_eq!(text(&[Family::counter("a_total", "A.")]), "");
    }
}
