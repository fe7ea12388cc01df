//! When what happened in a failover under Pacemaker: the cluster manager's own steps, and heirlock's share.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{AdoptionReport, Cluster, Name, Service};
use crate::busy;

/// The lines of Pacemaker's log that tell of a resource's action on its own node.
const ACTIONS: &str = "(do_lrm_rsc_op)\\|(log_executor_event)";

/// An action of a resource, as Pacemaker has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// `start`, `stop`, `monitor` …
    pub name: String,
    /// The resource.
    pub resource: String,
    /// When Pacemaker asked for it, by the clock of its node.
    pub asked: f64,
    /// When it was over.
    pub done: f64,
    /// `ok`, or how it ended.
    pub result: String,
}

impl Action {
    fn took(&self) -> f64 {
        self.done - self.asked
    }
}

/// The moment of a loss, by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    at: Instant,
    /// By the clock of the node that takes over: guests have their own.
    there: f64,
    load: f64,
}

impl Cluster {
    /// Remembers now as the moment of a loss; `node` is the one whose log tells of the rest.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn loss(&self, node: Name) -> Result<Loss> {
        let asked = Instant::now();
        let there: f64 = self.ok(node, "date +%s.%N")?.trim().parse()?;
        // The question took as long as its answer.
        let half = asked.elapsed() / 2;
        let at = Instant::now();
        Ok(Loss { at, there: there + half.as_secs_f64(), load: busy::load() })
    }

    /// The actions of resources on a node, in their order.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn actions(&self, node: Name) -> Result<Vec<Action>> {
        let log = self.ok(node, &format!("grep -h '{ACTIONS}' /var/log/pacemaker/pacemaker.log || true"))?;
        let year = year_of(SystemTime::now());
        Ok(actions(&log, year))
    }

    /// Tells the story of a failover in its steps, and how much of it was heirlock's.
    ///
    /// # Errors
    /// When a step is missing.
    pub fn tell_timeline(
        &self,
        node: Name,
        service: &Service,
        loss: Loss,
        back: Instant,
    ) -> Result<Timeline> {
        let fence = self.switched().into_iter().find(|one| one.is_fence() && one.is_off && one.at >= loss.at);
        let fence = fence.context("no fence came after the loss")?.at - loss.at;
        let starts: Vec<Action> = self
            .actions(node)?
            .into_iter()
            .filter(|action| action.name == "start" && action.asked > loss.there)
            .filter(|action| action.resource.starts_with(service.name))
            .collect();
        let timeline = Timeline {
            fence,
            starts,
            lost_at: loss.there,
            report: self.report(node, service.name)?,
            back: back - loss.at,
            load: loss.load,
        };
        for line in timeline.lines()? {
            self.say(line);
        }
        Ok(timeline)
    }
}

/// A failover in its steps.
#[derive(Debug)]
pub struct Timeline {
    fence: Duration,
    starts: Vec<Action>,
    lost_at: f64,
    report: AdoptionReport,
    back: Duration,
    load: f64,
}

impl Timeline {
    /// The load of this machine when the service was lost, as [`busy::load`] has it.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.load
    }

    /// From the beginning of the adoption to the proof of the grace period, and from `--finish` to the last client told.
    ///
    /// # Errors
    /// When the report does not tell.
    pub fn own_share(&self) -> Result<(Duration, Duration)> {
        let (ready, told) = (self.report.at("ready")?, self.report.at("last-notified")?);
        Ok((self.report.at("proved")?, told.saturating_sub(ready)))
    }

    fn lines(&self) -> Result<Vec<String>> {
        let mut lines = vec![
            "after the loss, in seconds:".to_owned(),
            format!("  {:6.2}  the other node is confirmed off (theirs)", self.fence.as_secs_f64()),
        ];
        for action in &self.starts {
            let Action { resource, done, result, .. } = action;
            let whose = if resource.ends_with("-service") || resource.ends_with("-notify") {
                "ours"
            } else {
                "theirs"
            };
            lines.push(format!(
                "  {:6.2}  {resource} started: {result}, which took {:.2} ({whose})",
                done - self.lost_at,
                action.took()
            ));
        }
        lines.push(format!("  {:6.2}  the lock is back", self.back.as_secs_f64()));
        let (prepare, finish) = self.own_share()?;
        lines.push(format!(
            "of these {:.2} s heirlock took {:.2} with {} client(s): {:.2} to prepare, {:.2} from --finish to the last client told; \
             the machine's load was {:.2}",
            self.back.as_secs_f64(),
            (prepare + finish).as_secs_f64(),
            self.report.clients,
            prepare.as_secs_f64(),
            finish.as_secs_f64(),
            self.load
        ));
        Ok(lines)
    }
}

/// From lines such as `Nov 29 15:05:03.945 nfs-b pacemaker-controld [1049] (do_lrm_rsc_op) notice: Requesting local execution of
/// start operation for homes-volume on nfs-b | …` and `… notice: Result of start operation for homes-volume on nfs-b: ok | …`.
fn actions(log: &str, year: i64) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    for line in log.lines() {
        let Some(at) = time_of(line, year) else { continue };
        let said = line.split_once("notice: ").map_or("", |(_, said)| said);
        let said = said.split(" | ").next().unwrap_or_default();
        let about = |text: &str| {
            let (name, rest) = text.split_once(" operation for ")?;
            let (resource, rest) = rest.split_once(" on ")?;
            Some((name.to_owned(), resource.to_owned(), rest.to_owned()))
        };
        if let Some((name, resource, _)) = said.strip_prefix("Requesting local execution of ").and_then(about)
        {
            actions.push(Action { name, resource, asked: at, done: f64::NAN, result: String::new() });
        } else if let Some((name, resource, rest)) = said.strip_prefix("Result of ").and_then(about) {
            let begun = actions
                .iter_mut()
                .rev()
                .find(|action| action.name == name && action.resource == resource && action.done.is_nan());
            if let Some(action) = begun {
                action.done = at;
                action.result = rest.split_once(": ").map_or(rest.clone(), |(_, result)| result.to_owned());
            }
        }
    }
    actions.retain(|action| !action.done.is_nan());
    actions
}

/// Seconds since 1970 of `Nov 29 15:05:03.945`; guests have no time zone.
fn time_of(line: &str, year: i64) -> Option<f64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = line.split_whitespace();
    let month = words.next()?;
    let month = 1 + i64::try_from(MONTHS.iter().position(|one| *one == month)?).ok()?;
    let day: i64 = words.next()?.parse().ok()?;
    let mut parts = words.next()?.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    let days = i32::try_from(days_from_civil(year, month, day)).ok()?;
    Some(f64::from(days) * 86_400.0 + hours * 3_600.0 + minutes * 60.0 + seconds)
}

/// Days since 1970-01-01 of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year of a moment: the log does not tell it.
fn year_of(now: SystemTime) -> i64 {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let days = i64::try_from(days).unwrap_or(0);
    (1970..).find(|year| days_from_civil(year + 1, 1, 1) > days).unwrap_or(1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
Nov 29 15:05:03.945 nfs-b pacemaker-controld  [1049] (do_lrm_rsc_op) \tnotice: Requesting local execution of start operation for homes-volume on nfs-b | transition_key=15:0 op_key=homes-volume_start_0
Nov 29 15:05:04.025 nfs-b pacemaker-controld  [1049] (log_executor_event) \tnotice: Result of start operation for homes-volume on nfs-b: ok | CIB update 13, rc=0
Nov 29 15:05:04.100 nfs-b pacemaker-controld  [1049] (do_lrm_rsc_op) \tnotice: Requesting local execution of monitor operation for homes-volume on nfs-b | x
Nov 29 15:05:04.445 nfs-b pacemaker-controld  [1049] (log_executor_event) \tnotice: Result of start operation for homes-x on nfs-b: ok | y
";

    #[test]
    fn an_action_lasts_from_its_request_to_its_result() {
        let found = actions(LOG, 2026);
        assert_eq!(found.len(), 1, "the others are not whole: {found:?}");
        let Action { name, resource, asked, result, .. } = &found[0];
        assert_eq!((name.as_str(), resource.as_str(), result.as_str()), ("start", "homes-volume", "ok"));
        assert!((asked - 1_795_964_703.945).abs() < 1e-3, "{asked}");
        assert!((found[0].took() - 0.08).abs() < 1e-3);
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!((days_from_civil(1970, 1, 1), days_from_civil(2000, 3, 1)), (0, 11_017));
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!((year_of(at(0)), year_of(at(365)), year_of(at(11_017))), (1970, 1971, 2000));
    }
}
