//! Clients in trouble, steps to take, services and servers.

use heirlock_agent::control::report::{
    Ailment, ClientStatus, Heart, Level, LockManagerStatus, ServerStatus, ServiceStatus, StatusReport,
};
use heirlock_core::Outcome;

use super::Known;
use super::now::{Now, lasted};
use super::verdict::{clients as counted, is_ready};
use crate::html::Html;
use crate::limits::{CLIENTS_SHOWN_MAX, PROBLEMS_SHOWN_MAX, SERVERS_MAX, SERVICES_MAX};

/// A table whose rows stand below one another on a phone. Each column has its head; the class tells numbers from words.
pub(super) fn table(html: &mut Html, caption: &str, heads: &[(&str, &str)], rows: impl FnOnce(&mut Html)) {
    html.within("div", &[("class", "wide")], |html| {
        html.within("table", &[("class", "stack"), ("aria-label", caption)], |html| {
            html.within("thead", &[], |html| {
                html.within("tr", &[], |html| {
                    for (head, class) in heads {
                        html.element("th", &[("scope", "col"), ("class", class)], head);
                    }
                });
            });
            html.within("tbody", &[], rows);
        });
    });
}

/// A cell with its head, which a phone shows beside it.
pub(super) fn cell(html: &mut Html, head: &str, class: &str, text: &str) {
    html.element("td", &[("data-label", head), ("class", class)], text);
}

pub(super) fn clients(html: &mut Html, status: &StatusReport, known: &Known) {
    let missed = status
        .services
        .iter()
        .flat_map(|service| service.missed.iter().map(move |client| (Some(service), client)));
    let rows: Vec<(Option<&ServiceStatus>, &ClientStatus)> =
        status.at_risk.iter().map(|client| (None, client)).chain(missed).collect();
    let lost: usize = status.services.iter().map(|service| service.lost + service.unreachable).sum();
    let all = status.at_risk.len() + lost;
    html.within("section", &[("aria-labelledby", "clients")], |html| {
        html.element("h2", &[("id", "clients")], "Clients in trouble");
        if rows.is_empty() {
            html.element(
                "p",
                &[],
                match status.protected_since_s {
                    Some(_) => {
                        "None: no client is at risk, and the last adoptions missed none that is not back."
                    }
                    None => "None is known by name; see what to do next.",
                },
            );
            return;
        }
        let heads = [("Client", ""), ("How it is", ""), ("Since", ""), ("Why", "")];
        table(html, "Clients in trouble", &heads, |html| {
            for (service, client) in rows.iter().take(CLIENTS_SHOWN_MAX) {
                html.within("tr", &[], |html| client_row(html, *service, client, &known.now));
            }
        });
        if all > rows.len().min(CLIENTS_SHOWN_MAX) {
            let more = all - rows.len().min(CLIENTS_SHOWN_MAX);
            html.element(
                "p",
                &[],
                &format!("{more} more; 'heirlock report SERVICE --clients' names all of them."),
            );
        }
    });
}

fn client_row(html: &mut Html, service: Option<&ServiceStatus>, client: &ClientStatus, now: &Now) {
    let names = match client.names.is_empty() {
        true => client.client.clone(),
        false => format!("{} ({})", client.client, client.names.join(", ")),
    };
    html.element("th", &[("scope", "row")], &names);
    let of = service.map_or_else(String::new, |service| format!(" of {}", service.service));
    let (class, word) = match client.outcome {
        None => ("bad", "at risk: has locks that are not on record".to_owned()),
        Some(Outcome::Lost) => ("bad", format!("lost its locks{of}")),
        Some(Outcome::Unreachable) => ("warn", format!("unreachable in the last adoption{of}")),
        Some(_) => ("good", "was told".to_owned()),
    };
    cell(html, "How it is", class, &word);
    let since = client.since_s.map_or_else(String::new, |at| format!("{}, {}", now.time(at), now.ago(at)));
    cell(html, "Since", "", &since);
    cell(html, "Why", "", client.why.as_deref().unwrap_or_default());
}

/// All that an administrator may do, the worst first.
pub(super) fn steps(html: &mut Html, status: &StatusReport, known: &Known) {
    let mut problems: Vec<_> = status.problems.iter().collect();
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level()));
    let next = status
        .services
        .iter()
        .filter_map(|service| known.words.next(service.next?, service).map(|step| (service, step)));
    let next: Vec<_> = next.collect();
    let is_adopting = status.services.iter().any(|service| service.clients_to_tell.is_some());
    html.within("section", &[("aria-labelledby", "next")], |html| {
        html.element("h2", &[("id", "next")], "What to do next");
        let standbys = to_bring_back(status);
        if problems.is_empty() && next.is_empty() && standbys.is_empty() {
            html.element("p", &[], if is_adopting { "Nothing: the adoption goes on." } else { "Nothing." });
            return;
        }
        html.within("ul", &[], |html| {
            for (service, step) in next {
                html.within("li", &[], |html| {
                    html.element("b", &[], &format!("{}: ", service.service));
                    with_commands(html, &step);
                });
            }
            for server in standbys {
                html.within("li", &[], |html| {
                    html.element("b", &[], &format!("{}: ", server.server));
                    with_commands(html, "bring it and its agent back, so that a failover finds a server; there 'heirlock doctor' names all that is missing");
                });
            }
            for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
                let (class, word) = match problem.level() {
                    Level::Unprotected => ("bad", "Unprotected: "),
                    Level::Attention | Level::Well => ("warn", "Attention: "),
                };
                html.within("li", &[], |html| {
                    html.element("span", &[("class", class)], word);
                    let since = problem.since_s.map_or_else(String::new, |at| {
                        format!("since {}, {}: ", known.now.time(at), known.now.ago(at))
                    });
                    with_commands(html, &format!("{since}{}", known.words.problem(problem)));
                });
            }
        });
        if problems.len() > PROBLEMS_SHOWN_MAX {
            let more = problems.len() - PROBLEMS_SHOWN_MAX;
            html.element("p", &[], &format!("{more} more; 'heirlock status --json' names all of them."));
        }
    });
}

/// The servers that could not take over what is held here, where no other one could.
fn to_bring_back(status: &StatusReport) -> Vec<&ServerStatus> {
    let is_needed = status.services.iter().any(|service| service.held && service.configured);
    if !is_needed || status.servers.iter().any(is_ready) {
        return Vec::new();
    }
    status.servers.iter().take(SERVERS_MAX).collect()
}

/// A sentence whose commands, which it has in quotes, are shown as such.
fn with_commands(html: &mut Html, sentence: &str) {
    let mut rest = sentence;
    while let Some((before, command)) = rest.split_once("'heirlock ") {
        let Some((command, after)) = command.split_once('\'') else { break };
        html.text(before);
        html.element("code", &[], &format!("heirlock {command}"));
        rest = after;
    }
    html.text(rest);
}

pub(super) fn services(html: &mut Html, status: &StatusReport, known: &Known) {
    html.within("section", &[("aria-labelledby", "services")], |html| {
        html.element("h2", &[("id", "services")], "Services");
        let heads = [
            ("Service", ""),
            ("Owner", ""),
            ("Clients on record", "number"),
            ("Missed", "number"),
            ("Generation", "number"),
            ("Last adoption", ""),
        ];
        table(html, "Services", &heads, |html| {
            for service in status.services.iter().take(SERVICES_MAX) {
                html.within("tr", &[], |html| service_row(html, service, status, &known.now));
            }
        });
        if status.services.len() > SERVICES_MAX {
            html.element("p", &[], &format!("{} more.", status.services.len() - SERVICES_MAX));
        }
    });
}

fn service_row(html: &mut Html, service: &ServiceStatus, status: &StatusReport, now: &Now) {
    html.element("th", &[("scope", "row")], &service.service);
    let owner = match &service.owner {
        Some(owner) if *owner == status.server => format!("{owner} (here)"),
        Some(owner) => owner.clone(),
        None => match &service.released_by {
            Some(server) => format!("none, since {server} gave it up"),
            None => "none".to_owned(),
        },
    };
    cell(html, "Owner", "", &owner);
    // Of what other servers hold, this agent knows no more.
    let of_held = |count: usize| if service.held { count.to_string() } else { "see its owner".to_owned() };
    cell(html, "Clients on record", "number", &of_held(service.records));
    cell(html, "Missed", "number", &of_held(service.unreachable + service.lost));
    cell(
        html,
        "Generation",
        "number",
        &service.generation.map_or_else(|| "none".to_owned(), |number| number.to_string()),
    );
    html.within("td", &[("data-label", "Last adoption")], |html| adoption(html, service, now));
}

/// How the adoption is that is on, or that was the last one.
fn adoption(html: &mut Html, service: &ServiceStatus, now: &Now) {
    let phase = service.phase.as_deref().unwrap_or_default();
    if let Some(all) = service.clients_to_tell {
        let told = service.clients_told.unwrap_or(0);
        let word = if service.awaits_finish { "prepared, waits for --finish" } else { phase };
        html.element("span", &[("class", "warn")], &format!("on: {word}"));
        html.text(&format!("; {told} of {} told", counted(all)));
        let (max, value, label) = (all.max(1).to_string(), told.to_string(), format!("{told} of {all} told"));
        html.element("progress", &[("max", &max), ("value", &value), ("aria-label", "clients told")], &label);
        if let Some(left) = service.grace_left_ms {
            html.text(&format!(
                "{} of the grace period left",
                lasted(i64::try_from(left).unwrap_or(i64::MAX))
            ));
        }
        return;
    }
    match (phase, service.adopted_at_s) {
        ("failed", _) => {
            html.element("span", &[("class", "bad")], "failed");
            html.text(&service.failure.as_ref().map_or_else(String::new, |why| format!(": {why}")));
        }
        (_, Some(at)) => html.text(&format!("{}, {}", now.time(at), now.ago(at))),
        (_, None) => html.text(if service.held { "never" } else { "see its owner" }),
    }
}

pub(super) fn servers(html: &mut Html, status: &StatusReport) {
    html.within("section", &[("aria-labelledby", "servers")], |html| {
        html.element("h2", &[("id", "servers")], "Servers");
        let heads = [("Server", ""), ("How it is", ""), ("What it ails from", "")];
        table(html, "Servers", &heads, |html| {
            html.within("tr", &[], |html| this_server(html, status));
            for server in status.servers.iter().take(SERVERS_MAX) {
                html.within("tr", &[], |html| other_server(html, server));
            }
        });
        if status.servers.len() > SERVERS_MAX {
            html.element("p", &[], &format!("{} more.", status.servers.len() - SERVERS_MAX));
        }
    });
}

fn this_server(html: &mut Html, status: &StatusReport) {
    html.element("th", &[("scope", "row")], &format!("{} (here)", status.server));
    let (class, word) = match (status.maintenance, status.loop_turned_ms_ago) {
        (true, _) => ("warn", "in maintenance".to_owned()),
        (false, Some(ms)) if ms > 10_000 => {
            ("bad", format!("its agent has not turned for {}", lasted(i64::try_from(ms).unwrap_or(i64::MAX))))
        }
        (false, Some(_)) => ("good", "its agent answers".to_owned()),
        (false, None) => ("warn", "its agent starts".to_owned()),
    };
    cell(html, "How it is", class, &word);
    let store = status.store.error.as_ref().map(|why| format!("the store fails: {why}"));
    let ails: Vec<String> = store.into_iter().chain(without_lock_manager(status)).collect();
    match ails.is_empty() {
        true => cell(html, "What it ails from", "", "nothing"),
        false => cell(html, "What it ails from", "bad", &ails.join("; ")),
    }
}

/// Which lock manager of this server does not serve though it is needed, in words.
fn without_lock_manager(status: &StatusReport) -> Vec<String> {
    let is_missing = |manager: &LockManagerStatus| manager.needed && !manager.serving;
    if status.lock_managers.is_empty() {
        return is_missing(&status.lock_manager)
            .then(|| "no lock manager serves".to_owned())
            .into_iter()
            .collect();
    }
    let missing = status.lock_managers.iter().filter(|named| is_missing(&named.status));
    missing.map(|named| format!("the lock manager {} does not serve", named.name)).collect()
}

fn other_server(html: &mut Html, server: &ServerStatus) {
    html.element("th", &[("scope", "row")], &server.server);
    let ago = server.last_beat_age_ms.map(|ms| lasted(i64::try_from(ms).unwrap_or(i64::MAX)));
    let last = ago.as_deref().map_or_else(String::new, |ago| format!(", last {ago} ago"));
    let (class, word) = match server.heart {
        Heart::Beating => ("good", format!("its heart beats{last}")),
        Heart::Late => ("warn", format!("its heart beats late{last}")),
        Heart::Silent => ("bad", format!("silent for {}", ago.unwrap_or_default())),
        Heart::Paused => ("warn", "stopped in order, or in maintenance".to_owned()),
        Heart::NeverSeen => ("warn", "never seen".to_owned()),
        Heart::Unknown => ("warn", "not watched for long enough to say".to_owned()),
    };
    cell(html, "How it is", class, &word);
    let ails: Vec<String> = server.ailments.iter().map(Ailment::in_a_heartbeat).collect();
    match ails.is_empty() {
        true => cell(html, "What it ails from", "", "nothing that it tells"),
        false => cell(html, "What it ails from", "bad", &ails.join("; ")),
    }
}
