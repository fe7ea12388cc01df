//! When what happened in a failover under Pacemaker: the cluster manager's own steps, and heirlock's share.
//!
//! | moment | clock |
//! |---|---|
//! | the loss, the fence, a client told, a lock back | the lab's: it kills, it is the power switch, and all calls cross its bridge |
//! | begin and end of a resource's action | the node's, as Pacemaker logs it, set against the lab's at the loss |
//! | how long the restart of NFS took | the node's, from the script that restarts it |

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::configuration::NFS_RESTARTS;
use super::{AdoptionReport, Cluster, Name, Service};
use crate::busy;
use crate::witness::Witness;

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
    /// How often NFS had been restarted there by then.
    restarts: usize,
    load: f64,
}

impl Cluster {
    /// Remembers now as the moment of a loss; `node` is the one whose log tells of the rest.
    ///
    /// # Errors
    /// When the node does not answer.
    pub fn loss(&self, node: Name) -> Result<Loss> {
        let restarts = self.nfs_restarts(node)?.len();
        let asked = Instant::now();
        let there: f64 = self.ok(node, "date +%s.%N")?.trim().parse()?;
        // The question took as long as its answer.
        let half = asked.elapsed() / 2;
        let at = Instant::now();
        Ok(Loss { at, there: there + half.as_secs_f64(), restarts, load: busy::load() })
    }

    /// How long each restart of NFS took on a node, in their order.
    fn nfs_restarts(&self, node: Name) -> Result<Vec<Duration>> {
        restarts(&self.ok(node, &format!("cat {NFS_RESTARTS} 2>/dev/null || true"))?)
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

    /// Tells the story of a failover in its steps, and how much of it was heirlock's. The witness has listened since before the loss.
    ///
    /// # Errors
    /// When a step is missing.
    pub fn tell_timeline(
        &self,
        node: Name,
        service: &Service,
        loss: Loss,
        witness: &Witness,
    ) -> Result<Timeline> {
        let fence = self.switched().into_iter().find(|one| one.is_fence() && one.is_off && one.at >= loss.at);
        let fence = fence.context("no fence came after the loss")?.at - loss.at;
        let starts: Vec<Action> = self
            .actions(node)?
            .into_iter()
            .filter(|action| action.name == "start" && action.asked > loss.there)
            .filter(|action| action.resource.starts_with(service.name))
            .collect();
        let after_loss = |seen: BTreeMap<Ipv4Addr, Instant>| {
            let mut after: Vec<Duration> =
                seen.into_values().map(|at| at.saturating_duration_since(loss.at)).collect();
            after.sort_unstable();
            after
        };
        let timeline = Timeline {
            fence,
            starts,
            lost_at: loss.there,
            report: self.report(node, service.name)?,
            restarts: self.nfs_restarts(node)?.into_iter().skip(loss.restarts).sum(),
            told: after_loss(witness.told()),
            back: after_loss(witness.reclaimed()),
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
    /// How long NFS was being restarted.
    restarts: Duration,
    /// When each client was told, after the loss; the first one first.
    told: Vec<Duration>,
    /// When each client had its lock back, in the same way.
    back: Vec<Duration>,
    load: f64,
}

/// heirlock's part of a failover, with the processes of its resource agents.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The start of the resource `service`, without the restart of NFS.
    pub prepare: Duration,
    /// How long NFS was being restarted meanwhile, as it would be without heirlock.
    pub restarts: Duration,
    /// From the cluster manager's request to start the resource `notify` until the answer of the last client passed.
    pub finish: Duration,
}

impl Share {
    /// All that is heirlock's own.
    #[must_use]
    pub fn own(&self) -> Duration {
        self.prepare + self.finish
    }
}

impl Timeline {
    /// The load of this machine when the service was lost, as [`busy::load`] has it.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.load
    }

    /// When the last lock was back, after the loss.
    ///
    /// # Errors
    /// When none was.
    pub fn last_back(&self) -> Result<Duration> {
        self.back.last().copied().context("no reclaim was granted")
    }

    /// heirlock's own part of it.
    ///
    /// # Errors
    /// When a step is missing, or not every client was seen being told.
    pub fn share(&self) -> Result<Share> {
        let (told, clients) = (self.told.len(), self.report.clients);
        ensure!(told == clients, "expected {clients} clients to be told, and the witness saw {told}");
        let of =
            |kind: &'static str| self.starts.iter().filter(move |action| action.resource.ends_with(kind));
        let started: f64 = of("-service").map(Action::took).sum();
        let asked = of("-notify").map(|action| action.asked - self.lost_at).reduce(f64::min);
        let asked = asked.context("nothing was asked to tell the clients")?;
        let told = self.told.last().context("no client was told")?.as_secs_f64();
        let restarts = self.restarts;
        let prepare = Duration::try_from_secs_f64(started - restarts.as_secs_f64())
            .with_context(|| format!("{started} s to prepare, and of these {restarts:?} to restart NFS"))?;
        let finish = Duration::try_from_secs_f64(told - asked)
            .with_context(|| format!("told {told} s after the loss, and asked for at {asked}"))?;
        Ok(Share { prepare, restarts, finish })
    }

    fn lines(&self) -> Result<Vec<String>> {
        let mut steps =
            vec![(self.fence.as_secs_f64(), "the other node is confirmed off (theirs)".to_owned())];
        for action in &self.starts {
            let Action { resource, done, result, .. } = action;
            let whose = if resource.ends_with("-service") || resource.ends_with("-notify") {
                "ours"
            } else {
                "theirs"
            };
            let took = action.took();
            steps.push((
                done - self.lost_at,
                format!("{resource} started: {result}, which took {took:.2} ({whose})"),
            ));
        }
        for (moments, what) in [(&self.told, "told"), (&self.back, "with its lock back")] {
            for (at, which) in [(moments.first(), "first"), (moments.last(), "last")] {
                let at = at.with_context(|| format!("no client was seen {what}"))?.as_secs_f64();
                steps.push((at, format!("the {which} of {} client(s) {what}", moments.len())));
            }
        }
        steps.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut lines = vec!["after the loss, in seconds:".to_owned()];
        lines.extend(steps.into_iter().map(|(at, what)| format!("  {at:6.2}  {what}")));
        let phases = self.report.timeline.iter().map(|entry| format!("{} {}", entry.event, entry.at_ms));
        lines.push(format!(
            "the adoption by its own report, in milliseconds: {}",
            phases.collect::<Vec<_>>().join(", ")
        ));
        let Share { prepare, restarts, finish } = self.share()?;
        let own = (prepare + finish).as_secs_f64();
        let (prepare, restarts, finish) =
            (prepare.as_secs_f64(), restarts.as_secs_f64(), finish.as_secs_f64());
        lines.push(format!(
            "of the {:.2} s until the last lock was back, {own:.2} are heirlock's own with {} client(s): {prepare:.2} to prepare, \
             without the {restarts:.2} in which NFS itself was restarted, and {finish:.2} from the request for the resource notify to \
             the last client told; the machine's load was {:.2}",
            self.last_back()?.as_secs_f64(),
            self.report.clients,
            self.load
        ));
        Ok(lines)
    }
}

/// From lines such as `35.21 35.88`: when a restart began and ended.
fn restarts(log: &str) -> Result<Vec<Duration>> {
    let took = |line: &str| {
        let (began, ended) = line.trim().split_once(' ')?;
        Duration::try_from_secs_f64(ended.parse::<f64>().ok()? - began.parse::<f64>().ok()?).ok()
    };
    log.lines()
        .map(|line| took(line).with_context(|| format!("expected two times, found {line:?}")))
        .collect()
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

    fn timeline(clients: usize) -> Timeline {
        let action = |resource: &str, asked, done| Action {
            name: "start".to_owned(),
            resource: resource.to_owned(),
            asked,
            done,
            result: "ok".to_owned(),
        };
        let report = serde_json::json!({
            "service": "homes", "generation": 2, "state_number": 7, "strategy": "restart-nfs", "phase": "settled",
            "clients": clients, "re_registered": clients, "acknowledged": clients, "unreachable": 0, "lost": 0,
            "failed": [], "others": [], "timeline": [{ "event": "proved", "at_ms": 900 }],
        });
        let seconds = |all: &[f64]| all.iter().copied().map(Duration::from_secs_f64).collect();
        Timeline {
            fence: Duration::from_secs(3),
            starts: vec![
                action("homes-service", 1_005.0, 1_007.0),
                action("homes-address", 1_007.0, 1_010.0),
                action("homes-notify", 1_010.0, 1_011.5),
            ],
            lost_at: 1_000.0,
            report: serde_json::from_value(report).unwrap(),
            restarts: Duration::from_millis(750),
            told: seconds(&[10.25, 12.0]),
            back: seconds(&[10.5, 12.25]),
            load: 1.0,
        }
    }

    #[test]
    fn our_share_is_all_that_our_resources_took_and_all_until_the_last_client_is_told() {
        let share = timeline(2).share().unwrap();
        assert_eq!(share.prepare, Duration::from_millis(1_250));
        assert_eq!(share.restarts, Duration::from_millis(750));
        assert_eq!(share.finish, Duration::from_secs(2), "longer than the resource took to start");
        assert_eq!(share.own(), Duration::from_millis(3_250));
        let unseen = timeline(3).share().unwrap_err().to_string();
        assert!(unseen.contains("expected 3 clients to be told, and the witness saw 2"), "{unseen}");
    }

    #[test]
    fn a_timeline_is_told_in_the_order_of_its_steps() {
        let lines = timeline(2).lines().unwrap();
        let order = [
            "    3.00  the other node is confirmed off (theirs)",
            "    7.00  homes-service started: ok, which took 2.00 (ours)",
            "   10.00  homes-address started: ok, which took 3.00 (theirs)",
            "   10.25  the first of 2 client(s) told",
            "   10.50  the first of 2 client(s) with its lock back",
            "   11.50  homes-notify started: ok, which took 1.50 (ours)",
            "   12.00  the last of 2 client(s) told",
            "   12.25  the last of 2 client(s) with its lock back",
        ];
        assert_eq!(lines[1..9], order);
        assert!(
            lines[10].contains("of the 12.25 s until the last lock was back, 3.25 are heirlock's own"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_restart_lasts_from_its_begin_to_its_end() {
        let found = restarts("35.21 35.88\n40.00 40.05\n").unwrap();
        assert_eq!(found, [Duration::from_millis(670), Duration::from_millis(50)]);
        assert!(restarts("").unwrap().is_empty());
        for bad in ["35.21\n", "2 1\n", "a b\n"] {
            assert!(restarts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        assert_eq!((days_from_civil(1970, 1, 1), days_from_civil(2000, 3, 1)), (0, 11_017));
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!((year_of(at(0)), year_of(at(365)), year_of(at(11_017))), (1970, 1971, 2000));
    }
}
