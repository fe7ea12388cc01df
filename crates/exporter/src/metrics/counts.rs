//! Counts and times of an agent since it began.

use heirlock_agent::config::Hook;
use heirlock_agent::control::report::observed::{Answers, Calls, Ends, Observed, Times};
use heirlock_core::takeover::Phase;

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
    let of = &observed.outcomes;
    for (outcome, count) in [
        ("re-registered", of.re_registered_total),
        ("acknowledged", of.acknowledged_total),
        ("unreachable", of.unreachable_total),
        ("lost", of.lost_total),
        ("unknown", of.unknown_total),
    ] {
        outcomes = outcomes.with(&[("outcome", outcome)], number(count));
    }
    let of = &observed.runs;
    for (cause, ends) in
        [("asked", &of.asked), ("owner-dead", &of.owner_dead), ("own-restart", &of.own_restart)]
    {
        let Ends { settled_total, failed_total, refused_total } = ends;
        for (result, count) in
            [("settled", settled_total), ("failed", failed_total), ("refused", refused_total)]
        {
            runs = runs.with(&[("cause", cause), ("result", result)], number(*count));
        }
    }
    let of = &observed.phases;
    for (phase, times) in [
        (Phase::Intent, &of.intent),
        (Phase::Fenced, &of.fenced),
        (Phase::Claimed, &of.claimed),
        (Phase::Conveyed, &of.conveyed),
        (Phase::Recognised, &of.recognised),
        (Phase::Proved, &of.proved),
        (Phase::Ready, &of.ready),
        (Phase::Notifying, &of.notifying),
        (Phase::Settling, &of.settling),
    ] {
        phases = histogram(phases, &[("phase", phase.as_str())], Some(times));
    }
    vec![outcomes, runs, phases]
}

fn of_hooks(observed: Option<&Observed>) -> Vec<Family> {
    let mut total =
        Family::counter("heirlock_hooks_total", "Hooks of the configuration that were run, by result.");
    let mut seconds =
        Family::histogram("heirlock_hook_duration_seconds", "How long hooks of the configuration took.");
    if let Some(observed) = observed {
        let of = &observed.hooks;
        for (hook, calls) in [
            (Hook::Fence, &of.fence),
            (Hook::VolumeUp, &of.volume_up),
            (Hook::AddressUp, &of.address_up),
            (Hook::AddressDown, &of.address_down),
            (Hook::VolumeDown, &of.volume_down),
        ] {
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
        let of = &observed.requests;
        for (verb, answers) in [
            ("adopt", &of.adopt),
            ("release", &of.release),
            ("failback", &of.failback),
            ("maintenance", &of.maintenance),
            ("forget", &of.forget),
            ("report", &of.report),
        ] {
            let Answers { asked_total, done_total, unchanged_total, refused_total, failed_total } = answers;
            asked = asked.with(&[("verb", verb)], number(*asked_total));
            for (result, count) in [
                ("done", done_total),
                ("unchanged", unchanged_total),
                ("refused", refused_total),
                ("failed", failed_total),
            ] {
                answered = answered.with(&[("verb", verb), ("result", result)], number(*count));
            }
        }
    }
    vec![asked, answered]
}

fn results(family: Family, labels: Labels, calls: Option<&Calls>) -> Family {
    let Some(calls) = calls else { return family };
    let with = |result| [labels, &[("result", result)]].concat();
    family.with(&with("done"), number(calls.done_total)).with(&with("failed"), number(calls.failed_total))
}

fn histogram(family: Family, labels: Labels, times: Option<&Times>) -> Family {
    let Some(times) = times else { return family };
    let buckets: Vec<(f64, u64)> =
        times.buckets.iter().map(|bucket| (bucket.le.0.as_secs_f64(), bucket.count)).collect();
    family.with_histogram(labels, &buckets, times.count, times.sum.0.as_secs_f64())
}
