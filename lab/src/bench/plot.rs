//! A plot on two logarithmic axes, as SVG, without anything else.

use std::fmt::Write;

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub colour: &'static str,
    /// Its points; `false` where something is missing: drawn hollow.
    pub points: Vec<(f64, f64, bool)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

/// Draws the series.
#[must_use]
pub fn log_log(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|s| &s.points);
    let x_axis = Axis::around(points().map(|p| p.0), LEFT, WIDTH - RIGHT);
    let y_axis = Axis::around(points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut add = |text: String| svg.push_str(&(text + "\n"));
    add(format!("<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>"));
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for value in x_axis.decades() {
        let x = x_axis.place(value);
        add(format!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"));
        add(format!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            short(value)
        ));
    }
    for value in y_axis.decades() {
        let y = y_axis.place(value);
        add(format!("<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"));
        add(format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            short(value)
        ));
    }
    add(format!(
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{x_label}</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 14.0
    ));
    add(format!(
        "<text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>",
        f64::midpoint(TOP, bottom)
    ));
    for one in series {
        add(draw(one, &x_axis, &y_axis));
    }
    let ends = series.iter().filter_map(|one| {
        let (x, y, _) = one.points.last()?;
        Some((x_axis.place(*x), y_axis.place(*y), one))
    });
    for (x, y, one) in apart(ends.collect()) {
        add(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
            x + 10.0,
            y + 4.0,
            one.colour,
            one.name
        ));
    }
    svg + "</svg>\n"
}

fn draw(series: &Series, x_axis: &Axis, y_axis: &Axis) -> String {
    let colour = series.colour;
    let placed: Vec<(f64, f64, bool)> =
        series.points.iter().map(|(x, y, whole)| (x_axis.place(*x), y_axis.place(*y), *whole)).collect();
    let path: Vec<String> = placed.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
    let mut text = format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, y, whole) in &placed {
        let fill = if *whole { colour } else { "white" };
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }
    text
}

/// Where names stand beside the ends of their lines: none upon another.
fn apart(mut ends: Vec<(f64, f64, &Series)>) -> Vec<(f64, f64, &Series)> {
    const LINE: f64 = 14.0;
    const NAME: f64 = 130.0;
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    for at in 1..ends.len() {
        let (above, y) = (ends[at - 1], ends[at].1);
        if y - above.1 < LINE && (ends[at].0 - above.0).abs() < NAME {
            ends[at].1 = above.1 + LINE;
            let right = ends[at].0.max(above.0);
            (ends[at - 1].0, ends[at].0) = (right, right);
        }
    }
    ends
}

/// Whole decades, from one end of the paper to the other.
struct Axis {
    first: f64,
    last: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs: Vec<f64> = values.filter(|v| *v > 0.0).map(f64::log10).collect();
        let first = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let last = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        if logs.is_empty() {
            Self { first: 0.0, last: 1.0, from, to }
        } else {
            Self { first, last: last.max(first + 1.0), from, to }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - self.first) / (self.last - self.first);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        let (mut exponent, last) = (self.first, self.last);
        std::iter::from_fn(move || {
            (exponent <= last).then(|| {
                exponent += 1.0;
                10_f64.powf(exponent - 1.0)
            })
        })
    }
}

fn short(value: f64) -> String {
    if value >= 1_000.0 { format!("{:.0}k", value / 1_000.0) } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_is_as_wide_as_the_next_and_what_is_missing_is_hollow() {
        let points = vec![(100.0, 1.0, true), (1_000.0, 10.0, true), (10_000.0, 100.0, false)];
        let svg = log_log("t", "x", "y", &[Series { name: "a".into(), colour: "#000", points }]);
        assert!(svg.contains("points=\"80.0,420.0 345.0,235.0 610.0,50.0\""), "{svg}");
        assert_eq!((svg.matches("fill=\"white\"").count(), svg.matches("<circle").count()), (2, 3));
    }

    #[test]
    fn names_stand_apart_where_lines_end_together() {
        let one = |name: &str, last: (f64, f64)| Series {
            name: name.into(),
            colour: "#000",
            points: vec![(100.0, 1.0, true), (last.0, last.1, true)],
        };
        let svg = log_log("t", "x", "y", &[one("a", (9_000.0, 100.0)), one("b", (10_000.0, 99.0))]);
        assert!(svg.contains(">a</text>") && svg.contains(">b</text>"), "{svg}");
        let stands = |name: &str| {
            let line = svg.lines().find(|line| line.ends_with(&format!(">{name}</text>"))).unwrap();
            line.split('"').nth(3).unwrap().parse::<f64>().unwrap()
        };
        assert!((stands("a") - stands("b")).abs() >= 13.9, "{svg}");
    }
}
