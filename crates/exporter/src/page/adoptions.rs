//! The last adoptions, each as a picture: how long each phase took, and when each client came back.

use heirlock_agent::control::report::{AdoptionReport, TenureReport};
use heirlock_core::Outcome;
use heirlock_core::history::Beginning;
use heirlock_core::takeover::Milestone;

use super::Known;
use super::now::{Now, lasted};
use super::verdict::clients;
use crate::html::Html;
use crate::limits::ADOPTIONS_SHOWN_MAX;

/// The picture's width, in its own units: a phone shows it nearly as large as it is.
const WIDTH: i64 = 420;

/// From one stretch to the next.
const ROW: i64 = 32;

/// How high the clients that came back at one moment may stand.
const CROWD: i64 = 44;

/// The longest time that is drawn, before and after an adoption began: a month.
const TIME_MAX_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Columns in which clients are counted.
const COLUMNS: i64 = 84;

pub(super) fn section(html: &mut Html, known: &Known) {
    html.within("section", &[("aria-labelledby", "adoptions")], |html| {
        html.element("h2", &[("id", "adoptions")], "Last adoptions");
        match known.past {
            Err(why) => html.element("p", &[], &format!("Not known: {why}")),
            Ok([]) => html.element("p", &[], "None yet."),
            Ok(adoptions) => {
                for (number, adoption) in adoptions.iter().take(ADOPTIONS_SHOWN_MAX).enumerate() {
                    html.within("article", &[], |html| article(html, number, adoption, &known.now));
                }
                html.within("p", &[], |html| {
                    html.element("code", &[], "heirlock history");
                    html.text(" tells all of them, ");
                    html.element("code", &[], "heirlock report SERVICE --clients");
                    html.text(" names each client.");
                });
            }
        }
    });
}

fn article(html: &mut Html, number: usize, adoption: &AdoptionReport, now: &Now) {
    let tenure = adoption.tenure.as_deref();
    let to = tenure.map_or_else(String::new, |tenure| format!(" by {}", tenure.to));
    let title = format!("{}, generation {}{to}", adoption.service, adoption.generation);
    html.element("h3", &[], &title);
    let at = adoption.started_at_s;
    html.element("p", &[("class", "soft")], &format!("{}, {}{}", now.time(at), now.ago(at), cause(tenure)));
    html.within("p", &[], |html| outcome(html, adoption));
    if let Some(gap) = tenure.and_then(|tenure| tenure.without_service_ms) {
        let gap = lasted(i64::try_from(gap).unwrap_or(i64::MAX));
        html.element("p", &[], &format!("Clients were without the service for {gap}."));
    }
    let stretches = stretches(adoption);
    if !stretches.is_empty() {
        html.within("figure", &[], |html| {
            picture(html, number, adoption, &stretches);
            html.element("figcaption", &[], &told(&stretches));
        });
    }
}

fn cause(tenure: Option<&TenureReport>) -> String {
    let Some(tenure) = tenure else { return String::new() };
    let from = tenure.from.as_deref().unwrap_or("its owner");
    let why = match tenure.cause {
        Beginning::Asked => format!("an administrator or a cluster manager asked; {from} had it before"),
        Beginning::Moved => format!("{from} had given it up in order"),
        Beginning::OwnerDead => format!("{from} had fallen silent"),
        Beginning::OwnRestart => "the lock manager was restarted".to_owned(),
        Beginning::Alongside => "beside the adoption of another service".to_owned(),
        Beginning::First | Beginning::Unknown => return String::new(),
    };
    format!("; {why}")
}

fn outcome(html: &mut Html, adoption: &AdoptionReport) {
    let AdoptionReport { clients: all, acknowledged, re_registered, unreachable, lost, .. } = adoption;
    let (class, word) = match (adoption.phase.as_str(), &adoption.failure) {
        ("failed", _) | (_, Some(_)) => ("bad", "Failed"),
        ("settled", None) if *lost > 0 => ("bad", "Settled, with losses"),
        ("settled", None) if *unreachable > 0 => ("warn", "Settled"),
        ("settled", None) => ("good", "Settled"),
        _ => ("warn", "Not over"),
    };
    html.element("span", &[("class", class)], word);
    html.text(&format!(
        ": {acknowledged} of {} told, {re_registered} of them registered again",
        clients(*all)
    ));
    html.text(&format!("; {unreachable} unreachable, {lost} lost."));
    if let Some(why) = &adoption.failure {
        html.text(&format!(" {why}."));
    }
}

/// One stretch of time, in milliseconds since the adoption began.
struct Stretch {
    what: &'static str,
    class: &'static str,
    from_ms: i64,
    until_ms: i64,
}

/// The phases that the timeline tells, in order.
fn stretches(adoption: &AdoptionReport) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    let mut from_ms = adoption.timeline.first().map_or(0, |entry| bounded(entry.at_ms).min(0));
    for entry in &adoption.timeline {
        let at_ms = bounded(entry.at_ms);
        let (what, class) = match entry.event {
            Milestone::PrimaryLost | Milestone::Asked => {
                from_ms = at_ms;
                continue;
            }
            Milestone::GivingUp => ("its owner is waited for", "wait"),
            Milestone::GivenUp => ("its owner gives it up", "wait"),
            Milestone::Fenced => ("the owner is confirmed off", "wait"),
            Milestone::Claimed => ("it is claimed", "bar"),
            Milestone::Conveyed => ("records are conveyed", "bar"),
            Milestone::Recognised => ("the lock manager recognises them", "bar"),
            Milestone::Proved => ("grace is proved to be open", "bar"),
            Milestone::Ready => ("address and exports come up", "bar"),
            Milestone::FirstNotified => ("the first client is told", "bar"),
            Milestone::LastNotified => ("all others are told", "bar"),
            Milestone::Settled => ("clients come back, until all is known", "wait"),
            Milestone::Failed => ("it failed", "wait"),
        };
        // Work that is done beside other work may end before it.
        let begins = from_ms.min(at_ms);
        found.push(Stretch { what, class, from_ms: begins, until_ms: at_ms });
        from_ms = at_ms;
    }
    found
}

fn bounded(at_ms: i64) -> i64 {
    at_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)
}

/// The same in words.
fn told(stretches: &[Stretch]) -> String {
    let words: Vec<String> = stretches
        .iter()
        .map(|one| format!("{} ({})", one.what, lasted(one.until_ms - one.from_ms)))
        .collect();
    format!("From left to right: {}.", words.join(", "))
}

/// A place on the axis of time.
struct Scale {
    from_ms: i64,
    span_ms: i64,
}

impl Scale {
    fn x(&self, at_ms: i64) -> i64 {
        ((at_ms - self.from_ms).clamp(0, self.span_ms)) * WIDTH / self.span_ms
    }
}

/// When each client came back: their outcomes that are good.
fn came_back(adoption: &AdoptionReport) -> Vec<i64> {
    let is_good = |outcome: Option<Outcome>| outcome.is_some_and(Outcome::is_good);
    adoption
        .each_client
        .iter()
        .filter(|client| is_good(client.outcome))
        .map(|client| bounded(client.at_ms))
        .collect()
}

fn picture(html: &mut Html, number: usize, adoption: &AdoptionReport, stretches: &[Stretch]) {
    let back = came_back(adoption);
    let from_ms = stretches.iter().map(|one| one.from_ms).min().unwrap_or(0);
    let until_ms = stretches.iter().map(|one| one.until_ms).chain(back.iter().copied()).max().unwrap_or(0);
    let scale = Scale { from_ms, span_ms: (until_ms - from_ms).max(1) };
    let rows = i64::try_from(stretches.len()).unwrap_or(0);
    let crowd = if back.is_empty() { 0 } else { CROWD + 24 };
    let height = rows * ROW + crowd + 18;
    let (view, id) = (format!("0 0 {WIDTH} {height}"), format!("picture-{number}"));
    let title = format!("Phases of the adoption of {}, and when its clients came back", adoption.service);
    let attributes = [("viewBox", view.as_str()), ("role", "img"), ("aria-labelledby", id.as_str())];
    html.within("svg", &attributes, |html| {
        html.element("title", &[("id", &id)], &title);
        axis(html, &scale, height);
        for (row, stretch) in (0..).zip(stretches) {
            let lasted = lasted(stretch.until_ms - stretch.from_ms);
            let (y, bar_y) = ((row * ROW + 13).to_string(), (row * ROW + 18).to_string());
            html.element("text", &[("x", "0"), ("y", &y)], stretch.what);
            html.element("text", &[("class", "end"), ("x", &WIDTH.to_string()), ("y", &y)], &lasted);
            // However short, it is there.
            let x = scale.x(stretch.from_ms).min(WIDTH - 2);
            let width = (scale.x(stretch.until_ms) - x).max(2);
            rectangle(html, stretch.class, x, &bar_y, width, 8);
        }
        if !back.is_empty() {
            returns(html, &scale, &back, rows * ROW);
        }
    });
}

fn rectangle(html: &mut Html, class: &str, x: i64, y: &str, width: i64, height: i64) {
    let (x, width, height) = (x.to_string(), width.to_string(), height.to_string());
    html.element(
        "rect",
        &[("class", class), ("x", &x), ("y", y), ("width", &width), ("height", &height)],
        "",
    );
}

/// The clients that came back, counted in columns.
fn returns(html: &mut Html, scale: &Scale, back: &[i64], top: i64) {
    let mut columns = vec![0_i64; usize::try_from(COLUMNS).unwrap_or(1)];
    for at_ms in back {
        let column = scale.x(*at_ms) * COLUMNS / WIDTH;
        if let Some(count) =
            usize::try_from(column.min(COLUMNS - 1)).ok().and_then(|column| columns.get_mut(column))
        {
            *count += 1;
        }
    }
    let most = columns.iter().max().copied().unwrap_or(1).max(1);
    let words = format!("{} came back", clients(back.len()));
    html.element("text", &[("x", "0"), ("y", &(top + 13).to_string())], &words);
    for (column, count) in (0..).zip(columns).filter(|(_, count)| *count > 0) {
        let height = (count * CROWD / most).max(3);
        let y = (top + 20 + CROWD - height).to_string();
        rectangle(html, "back", column * WIDTH / COLUMNS, &y, WIDTH / COLUMNS - 1, height);
    }
}

/// Seconds, as lines behind the bars, with their numbers below.
fn axis(html: &mut Html, scale: &Scale, height: i64) {
    let steps =
        [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000, 3_600_000];
    let step = steps.into_iter().find(|step| scale.span_ms / step <= 8).unwrap_or(scale.span_ms);
    for number in 0..=8 {
        let at_ms = number * step;
        if at_ms > scale.span_ms {
            break;
        }
        let x = (at_ms * WIDTH / scale.span_ms).clamp(1, WIDTH - 1).to_string();
        let bottom = (height - 14).to_string();
        html.element("line", &[("class", "grid"), ("x1", &x), ("x2", &x), ("y1", "0"), ("y2", &bottom)], "");
        let words = match step {
            ..1_000 => format!("{}.{} s", at_ms / 1_000, at_ms % 1_000 / 100),
            1_000..60_000 => format!("{} s", at_ms / 1_000),
            _ => format!("{} min", at_ms / 60_000),
        };
        let class = if at_ms * WIDTH / scale.span_ms > WIDTH - 30 { "axis end" } else { "axis" };
        html.element("text", &[("class", class), ("x", &x), ("y", &(height - 3).to_string())], &words);
    }
}
