//! Counts and times of an agent since it began.

use heirlock_agent::config::Hook;
use heirlock_agent::control::report::observed::{CallEnd, Calls, Observed, RunEnd, Times, Verb, VerbEnd};
use heirlock_core::Outcome;
use heirlock_core::takeover::{Cause, Phase};

use super::family::{Family, Labels, number};

/// Calls of one kind: how many ended how, and how long they took.
struct OfCalls {
    total: (&'static str, &'static str),
    seconds: (&'static str, &'static str),
    of: fn(&Observed) -> &Calls,
}

const CALLS: [OfCalls; 3] = [
    OfCalls {
        total: ("heirlock_commits_total", "Commits of records, journals and outcomes, by result."),
        seconds: ("heirlock_commit_duration_seconds", "How long the store took for a commit."),
        of: |observed| &observed.commits,
    },
    OfCalls {
        total: ("heirlock_heartbeats_total", "Heartbeats of this server, by result."),
        seconds: (
            "heirlock_heartbeat_duration_seconds",
            "How long it took to write a heartbeat and to read all others.",
        ),
        of: |observed| &observed.heartbeats,
    },
    OfCalls {
        total: ("heirlock_looks_total", "Looks at the directory of the status monitor, by result."),
        seconds: (
            "heirlock_look_duration_seconds",
            "How long a look at the directory of the status monitor took.",
        ),
        of: |observed| &observed.looks,
    },
];

pub(super) fn families(observed: Option<&Observed>) -> Vec<Family> {
    let mut families = vec![
        Family::gauge("heirlock_agent_start_time_seconds", "When the agent began, in seconds since 1970.")
            .with_some(&[], observed.map(|observed| number(observed.began_at_s))),
        Family::counter(
            "heirlock_log_lines_suppressed_total",
            "Log lines that others caused, and that were not written since there were too many.",
        )
        .with_some(&[], observed.map(|observed| number(observed.log_lines.suppressed_total))),
    ];
    families.extend(of_clients(observed));
    for OfCalls { total, seconds, of } in CALLS {
        let calls = observed.map(of);
        families.push(results(Family::counter(total.0, total.1), &[], calls));
        families.push(histogram(
            Family::histogram(seconds.0, seconds.1),
            &[],
            calls.map(|calls| &calls.seconds),
        ));
    }
    families.extend(of_monitor(observed));
    families.extend(of_runs(observed));
    families.extend(of_hooks(observed));
    families.extend(of_requests(observed));
    families
}

fn of_clients(observed: Option<&Observed>) -> Vec<Family> {
    let count = |of: fn(&Observed) -> u64| observed.map(|observed| number(of(observed)));
    let registrations = Family::counter(
        "heirlock_registrations_total",
        "Clients that waited until they were on record, by result (modes nsm and callout).",
    )
    .with_some(&[("result", "durable")], count(|observed| observed.registrations.durable_total))
    .with_some(&[("result", "failed")], count(|observed| observed.registrations.failed_total));
    let seconds = Family::histogram(
        "heirlock_registration_duration_seconds",
        "How long clients waited until they were on record (modes nsm and callout).",
    );
    vec![
        Family::counter("heirlock_records_written_total", "Records of clients that were made durable.")
            .with_some(&[], count(|observed| observed.records.written_total)),
        Family::counter("heirlock_records_removed_total", "Records of clients that were removed.")
            .with_some(&[], count(|observed| observed.records.removed_total)),
        Family::counter("heirlock_record_failures_total", "Changes of records that the store did not take.")
            .with_some(&[], count(|observed| observed.records.failed_total)),
        registrations,
        histogram(seconds, &[], observed.map(|observed| &observed.registrations.seconds)),
        Family::counter("heirlock_notices_total", "Clients that were to be told of a restart.")
            .with_some(&[], count(|observed| observed.notices.begun_total)),
        Family::counter(
            "heirlock_notices_answered_total",
            "Clients that were told of a restart, and answered.",
        )
        .with_some(&[], count(|observed| observed.notices.answered_total)),
    ]
}

fn of_monitor(observed: Option<&Observed>) -> Vec<Family> {
    let monitor = observed.map(|observed| &observed.monitor);
    let mut refusals = Family::counter(
        "heirlock_monitor_refusals_total",
        "Registrations that were refused to the lock manager, by reason (mode nsm).",
    );
    if let Some(monitor) = monitor {
        for (reason, count) in [
            ("no-room", monitor.refused_no_room_total),
            ("store-fails", monitor.refused_store_fails_total),
            ("late", monitor.refused_late_total),
            ("busy", monitor.refused_busy_total),
            ("no-service", monitor.refused_no_service_total),
        ] {
            refusals = refusals.with(&[("reason", reason)], number(count));
        }
    }
    vec![
        refusals,
        Family::counter(
            "heirlock_monitor_granted_at_risk_total",
            "Registrations that were granted to clients that the store did not know (mode nsm).",
        )
        .with_some(&[], monitor.map(|monitor| number(monitor.granted_at_risk_total))),
        Family::counter(
            "heirlock_monitor_unanswered_total",
            "Announced restarts of clients that were left unanswered for want of room (mode nsm).",
        )
        .with_some(&[], monitor.map(|monitor| number(monitor.left_unanswered_total))),
    ]
}

fn of_runs(observed: Option<&Observed>) -> Vec<Family> {
    let mut outcomes =
        Family::counter("heirlock_client_outcomes_total", "Clients at the end of adoptions, by outcome.");
    let mut runs = Family::counter("heirlock_adoptions_total", "Adoptions that ended, by cause and result.");
    let mut phases =
        Family::histogram("heirlock_phase_duration_seconds", "How long adoptions were in each phase.");
    let Some(observed) = observed else { return vec![outcomes, runs, phases] };
    for outcome in Outcome::ALL.into_iter().map(Some).chain([None]) {
        let word = outcome.map_or("unknown", Outcome::as_str);
        outcomes = outcomes.with(&[("outcome", word)], number(*observed.outcomes.of(outcome)));
    }
    for cause in Cause::ALL {
        for result in RunEnd::ALL {
            let count = *observed.runs.of(cause).of(*result);
            runs = runs.with(&[("cause", cause.as_str()), ("result", result.as_str())], number(count));
        }
    }
    for phase in Phase::ALL {
        if let Some(times) = observed.phases.of(phase) {
            phases = histogram(phases, &[("phase", phase.as_str())], Some(times));
        }
    }
    vec![outcomes, runs, phases]
}

fn of_hooks(observed: Option<&Observed>) -> Vec<Family> {
    let mut total =
        Family::counter("heirlock_hooks_total", "Hooks of the configuration that were run, by result.");
    let mut seconds =
        Family::histogram("heirlock_hook_duration_seconds", "How long hooks of the configuration took.");
    if let Some(observed) = observed {
        for hook in Hook::ALL {
            let calls = observed.hooks.of(hook);
            total = results(total, &[("hook", hook.as_str())], Some(calls));
            seconds = histogram(seconds, &[("hook", hook.as_str())], Some(&calls.seconds));
        }
    }
    vec![total, seconds]
}

fn of_requests(observed: Option<&Observed>) -> Vec<Family> {
    let mut asked =
        Family::counter("heirlock_requests_total", "Verbs that administrators and cluster managers said.");
    let mut answered =
        Family::counter("heirlock_request_results_total", "Verbs that were answered, by result.");
    if let Some(observed) = observed {
        for verb in Verb::ALL {
            let answers = observed.requests.of(*verb);
            asked = asked.with(&[("verb", verb.as_str())], number(answers.asked_total));
            for result in VerbEnd::ALL {
                let labels = [("verb", verb.as_str()), ("result", result.as_str())];
                answered = answered.with(&labels, number(*answers.of(*result)));
            }
        }
    }
    vec![asked, answered]
}

fn results(family: Family, labels: Labels, calls: Option<&Calls>) -> Family {
    let Some(calls) = calls else { return family };
    CallEnd::ALL.iter().fold(family, |family, result| {
        let labels = [labels, &[("result", result.as_str())]].concat();
        family.with(&labels, number(*calls.of(*result)))
    })
}

fn histogram(family: Family, labels: Labels, times: Option<&Times>) -> Family {
    let Some(times) = times else { return family };
    let buckets: Vec<(f64, u64)> =
        times.buckets.iter().map(|bucket| (bucket.le.0.as_secs_f64(), bucket.count)).collect();
    family.with_histogram(labels, &buckets, times.count, times.sum.0.as_secs_f64())
}
