//! How a server, its store and the services are.

use heirlock_core::Outcome;

use super::drill::last_drill;
use super::history::seconds;
use super::table::Side;
use super::{Look, Table, counted, plain, wrapped};
use crate::control::report::{
    Ailment, AilmentKind, ClientStatus, Heart, Level, LockManagerStatus, NamedLockManager, Next, Problem,
    ProblemKind, ServerStatus, ServiceStatus, StatusReport,
};
use crate::limits::{PROBLEM_CHECKED_CHARS_MAX, PROBLEMS_CHECKED_MAX, PROBLEMS_SHOWN_MAX};

/// Clients in trouble that are shown one by one.
const CLIENTS_SHOWN_MAX: usize = 10;

/// The indentation of a line that belongs to the one above it.
const BELOW: &str = "  ";

/// The report in words.
pub(in crate::cli) fn status(report: &StatusReport, look: &Look) -> String {
    let mut text = head(report, look);
    text.push_str(&store(report, look));
    text.push_str(&protection(report, look));
    text.push_str(&lock_managers(report, look));
    if report.maintenance {
        text.push_str(&wrapped(
            "maintenance   ",
            "on: this server's silence is no reason to adopt its services",
        ));
    }
    text.push_str(&services(report, look));
    text.push_str(&servers(report, look));
    if !report.problems.is_empty() {
        text.push_str(&format!("\n{}\n", look.bad(&counted(report.problems.len(), "problem"))));
        // All of them in the order in which they were found, where there are not too many.
        let (worst, more) = worst_first(&report.problems, PROBLEMS_SHOWN_MAX);
        for problem in if more > 0 { worst } else { report.problems.iter().collect() } {
            let since = problem.since_s.map_or_else(String::new, |since_s| {
                format!("since {}, {}: ", look.local_time(since_s), look.age(since_s))
            });
            text.push_str(&wrapped("  ", &format!("{since}{}", in_words(problem))));
        }
        if more > 0 {
            text.push_str(&wrapped("  ", &format!("and {more} more, which 'heirlock status --json' names")));
        }
    }
    text
}

/// One line for a monitoring system, whose first word is how bad it is.
pub(in crate::cli) fn checked(report: &StatusReport, level: Level) -> String {
    let word = match level {
        Level::Well => "OK",
        Level::Attention => "WARNING",
        Level::Unprotected => "CRITICAL",
    };
    let is_ours =
        |service: &&ServiceStatus| service.configured && service.owner.as_ref() == Some(&report.server);
    let held: Vec<&ServiceStatus> = report.services.iter().filter(is_ours).collect();
    let count = |of: fn(&ServiceStatus) -> usize| held.iter().map(|service| of(service)).sum::<usize>();
    let clients = count(|service| service.records);
    let said = match report.problems.as_slice() {
        [] => {
            let names: Vec<String> = held.iter().map(|service| plain(&service.service)).collect();
            match names.is_empty() {
                true => "holds no service; its agent and its store work".to_owned(),
                false => format!("{} held, {} on record", names.join(", "), counted(clients, "client")),
            }
        }
        problems => {
            let (shown, more) = worst_first(problems, PROBLEMS_CHECKED_MAX);
            let cut = |text: String| match text.char_indices().nth(PROBLEM_CHECKED_CHARS_MAX) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            };
            let mut said: Vec<String> = shown.into_iter().map(|problem| cut(in_words(problem))).collect();
            said.extend((more > 0).then(|| format!("and {more} more")));
            said.join("; ")
        }
    };
    let (unreachable, lost) = (count(|service| service.unreachable), count(|service| service.lost));
    // Where the store could not be read there is no number: a graph would show that all clients left.
    let numbers = match report.agent.is_empty() && !report.store.well {
        true => String::new(),
        false => {
            // The list ends after a hundred of them; the problem counts them all.
            let problem = report.problems.iter().find(|problem| problem.kind == ProblemKind::ClientsAtRisk);
            let counted = problem.and_then(|problem| problem.clients).unwrap_or(0);
            let at_risk = counted.max(report.at_risk.len());
            format!(" | clients={clients} unreachable={unreachable} lost={lost} at_risk={at_risk}")
        }
    };
    format!("{word} - {}: {said}{numbers}\n", plain(&report.server))
}

/// As many problems as are named, the worst first, and how many more there are.
fn worst_first(problems: &[Problem], most: usize) -> (Vec<&Problem>, usize) {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| std::cmp::Reverse(problem.level()));
    sorted.truncate(most);
    let more = problems.len() - sorted.len();
    (sorted, more)
}

/// The same where nothing could be found out.
pub(in crate::cli) fn unknown(why: &str) -> String {
    format!("UNKNOWN - {}\n", plain(why))
}

fn head(report: &StatusReport, look: &Look) -> String {
    let server = look.strong(&plain(&report.server));
    if report.agent.is_empty() {
        let hangs = report.problems.iter().any(|problem| problem.kind == ProblemKind::AgentSilent);
        let how = match hangs {
            true => "it does not answer: it is stopped, or hangs".to_owned(),
            false => format!("no agent answers; {}", crate::control::how_to_start()),
        };
        let how = match report.store.well {
            true => format!("{how}. This is read from the store:"),
            false => format!("{how}. The store can't be read either:"),
        };
        return format!("{server}, heirlock {}\n", plain(&report.version)) + &wrapped("agent         ", &how);
    }
    format!("{server}, agent {}, heirlock {}\n", plain(&report.agent), plain(&report.version))
}

fn store(report: &StatusReport, look: &Look) -> String {
    let store = &report.store;
    let state = if store.well { look.good("well") } else { look.bad("it fails") };
    let mut text = format!("store         {}: {state}\n", plain(&store.place));
    if let Some(since) = store.unprotected_since_s {
        let what = format!("unprotected since {}, {}", look.local_time(since), look.age(since));
        text.push_str(&format!("              {}\n", look.bad(&what)));
    }
    if let Some(error) = &store.error {
        text.push_str(&wrapped("              ", &plain(error)));
    }
    text
}

fn protection(report: &StatusReport, look: &Look) -> String {
    match report.protected_since_s {
        Some(since) => format!(
            "protected     since {}, {}: new clients are on record\n",
            look.local_time(since),
            look.age(since)
        ),
        None if report.agent.is_empty() => {
            format!("protected     {}\n", look.bad("no: clients that register here are not noticed"))
        }
        None => format!("protected     {}\n", look.bad("no: some clients may not be on record, see below")),
    }
}

fn lock_managers(report: &StatusReport, look: &Look) -> String {
    if report.agent.is_empty() {
        return format!("lock manager  {}: not known\n", plain(&report.lock_manager.kind));
    }
    if report.lock_managers.is_empty() {
        return lock_manager("", &report.lock_manager, look);
    }
    let one = |named: &NamedLockManager| {
        let mut text = lock_manager(&format!("{}: ", plain(&named.name)), &named.status, look);
        let services = named.services.iter().map(|service| plain(service)).collect::<Vec<_>>().join(", ");
        if !services.is_empty() {
            text.push_str(&wrapped("              ", &format!("of {services}")));
        }
        let on_record = match named.captures_all {
            true => "its new clients are on record".to_owned(),
            false => look.bad("some of its clients may not be on record"),
        };
        text + &wrapped("              ", &on_record)
    };
    report.lock_managers.iter().map(one).collect()
}

fn lock_manager(name: &str, manager: &LockManagerStatus, look: &Look) -> String {
    let serving = match manager.serving {
        true => look.good("serving"),
        false if manager.needed => look.bad("not serving"),
        false => "not serving; nothing here needs it".to_owned(),
    };
    let mut text = format!("lock manager  {name}{}, {serving}\n", plain(&manager.kind));
    if let Some(life) = &manager.incarnation {
        text.push_str(&wrapped("              ", &format!("incarnation {}", plain(life))));
    }
    text
}

fn services(report: &StatusReport, look: &Look) -> String {
    if report.services.is_empty() {
        return "\nno service is known; add one to the configuration\n".to_owned();
    }
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("OWNER", Side::Left),
        ("CLIENTS", Side::Right),
        ("MISSED", Side::Right),
        ("GENERATION", Side::Right),
        ("LAST ADOPTION", Side::Right),
    ]);
    for service in &report.services {
        table.row(match is_unknown(report, service) {
            true => {
                ["unknown", "-", "-", "-", "-"].iter().fold(vec![plain(&service.service)], |mut row, cell| {
                    row.push((*cell).to_owned());
                    row
                })
            }
            false => service_row(service, report, look),
        });
    }
    let lines = table.lines(look);
    let mut text = format!("\n{}\n", lines.first().map_or("", String::as_str));
    for (service, line) in report.services.iter().zip(lines.iter().skip(1)) {
        text.push_str(&format!("{line}\n"));
        text.push_str(&below(service, look));
        let drills = report.drills.iter().filter(|drill| drill.service == service.service);
        text.push_str(&drills.map(|drill| wrapped(BELOW, &last_drill(drill, look))).collect::<String>());
    }
    for client in report.at_risk.iter().take(CLIENTS_SHOWN_MAX) {
        text.push_str(&wrapped("at risk: ", &client_in_words(client, look)));
    }
    text.push_str("CLIENTS: on record in the store. MISSED: not told in the last adoption, and not\n");
    text.push_str("back since. GENERATION: its number rises whenever the service is taken over.\n");
    text
}

/// Nothing was read of it, so its owner is not known.
fn is_unknown(report: &StatusReport, service: &ServiceStatus) -> bool {
    (!report.store.well || report.cannot_read(&service.service))
        && !service.held
        && service.generation.is_none()
}

fn service_row(service: &ServiceStatus, report: &StatusReport, look: &Look) -> Vec<String> {
    let owner = match &service.owner {
        Some(owner) if *owner == report.server => format!("{} (here)", plain(owner)),
        Some(owner) => plain(owner),
        None => "none".to_owned(),
    };
    let adoption = match service.phase.as_deref() {
        Some("failed") => "failed".to_owned(),
        _ if service.awaits_finish => "prepared".to_owned(),
        _ if service.clients_to_tell.is_some() => "under way".to_owned(),
        Some(phase) if service.adopted_at_s.is_some() && phase != "settled" => "not over".to_owned(),
        _ => service.adopted_at_s.map_or_else(|| "none".to_owned(), |at_s| look.local_minute(at_s)),
    };
    // Of what others hold the agent knows the owner, and the store alone the rest.
    let of_store = |cell: String| if report.store.well || service.held { cell } else { "-".to_owned() };
    vec![
        plain(&service.service),
        owner,
        of_store(service.records.to_string()),
        of_store((service.unreachable + service.lost).to_string()),
        service.generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
        of_store(adoption),
    ]
}

/// The lines below a service's row.
fn below(service: &ServiceStatus, look: &Look) -> String {
    let mut text = String::new();
    let mut say = |first: &str, what: &str| text.push_str(&wrapped(&format!("{BELOW}{first}"), what));
    if let (None, Some(server)) = (&service.owner, &service.released_by) {
        say("released: ", &format!("by {}, and no server has adopted it", plain(server)));
    }
    if let Some(clients) = service.clients_to_tell {
        let told = service.clients_told.unwrap_or(0);
        let waits_for = match &service.waits_for {
            Some(in_line) => format!("it waits in line for {}", plain(in_line)),
            None => waits_for(service).to_owned(),
        };
        say("under way: ", &format!("{waits_for}; {told} of {} told", counted(clients, "client")));
    } else if let Some(waits_for) = &service.waits_for {
        say("moving: ", &format!("it waits for {}", plain(waits_for)));
    }
    if let Some(left_ms) = service.grace_left_ms {
        say("grace: ", &format!("{} left", seconds(left_ms)));
    }
    if let Some(failure) = &service.failure {
        say("failed: ", &plain(failure));
    }
    if service.tombstones > 0 {
        let gone = counted(service.tombstones, "client");
        say("leaving: ", &format!("{gone} on record seem to have left; that is believed after a while"));
    }
    let missed = service.unreachable + service.lost;
    for client in service.missed.iter().take(CLIENTS_SHOWN_MAX) {
        say("missed: ", &client_in_words(client, look));
    }
    let shown = service.missed.len().min(CLIENTS_SHOWN_MAX);
    if missed > shown && shown > 0 {
        say("missed: ", &format!("{} more; --json names more of them", missed - shown));
    }
    if let Some(next) = service.next.and_then(|next| next_in_words(next, service)) {
        say("next: ", &next);
    }
    text
}

/// The work that an adoption waits for.
fn waits_for(service: &ServiceStatus) -> &'static str {
    match service.phase.as_deref() {
        _ if service.awaits_finish => "it waits for its address and for --finish",
        // Told beside what is taken over, whose address it waits for.
        Some("proved") if !service.configured => "it waits with the adoption that dropped its locks",
        Some("intent") => "it makes sure that the owner is off",
        Some("fenced") => "it claims the service",
        Some("claimed") => "it conveys the records",
        Some("conveyed") => "it makes the lock manager recognise them",
        Some("recognised") => "it waits for the grace period",
        Some("proved") => "it waits for address and exports",
        Some("ready" | "notifying") => "it tells the clients",
        Some("settling") => "it waits for clients to come back, until grace ends",
        _ => "it goes on",
    }
}

/// The step in words, with its command; nothing where none is to be taken.
pub(in crate::cli) fn next_in_words(next: Next, service: &ServiceStatus) -> Option<String> {
    let name = plain(&service.service);
    Some(match next {
        Next::Wait => return None,
        Next::Finish => format!("bring its address up, then 'heirlock adopt {name} --finish'"),
        Next::Adopt => format!("'heirlock adopt {name}' serves it here"),
        Next::AdoptFenced => {
            let owner = service.owner.as_deref().map_or_else(String::new, plain);
            format!("make sure that {owner} is off, then 'heirlock adopt {name} --owner-fenced={owner}'")
        }
        Next::StartAgent => {
            let how = crate::control::how_to_start();
            format!("its adoption was interrupted; its agent goes on with it: {how}")
        }
        Next::LookAtClients => format!("'heirlock report {name}' names them and the remedy for each"),
    })
}

fn client_in_words(client: &ClientStatus, look: &Look) -> String {
    let mut text = plain(&client.client);
    if !client.names.is_empty() {
        text.push_str(&format!(" ({})", plain(&client.names.join(", "))));
    }
    text.push_str(match client.outcome {
        Some(Outcome::Lost) => " is lost",
        Some(Outcome::Unreachable) => " is unreachable",
        Some(_) => " was told",
        None => " has locks that are not on record",
    });
    if let Some(since_s) = client.since_s {
        text.push_str(&format!(" since {}, {}", look.local_time(since_s), look.age(since_s)));
    }
    if let Some(why) = &client.why {
        text.push_str(&format!(": {}", plain(why)));
    }
    text
}

fn servers(report: &StatusReport, look: &Look) -> String {
    if report.servers.is_empty() && !report.store.well {
        return "\nother servers are not known, since the store does not show them\n".to_owned();
    }
    if report.servers.is_empty() {
        return "\nno other server has been seen in the store\n".to_owned();
    }
    let mut table = Table::new(&[("SERVER", Side::Left), ("ITS AGENT'S HEART", Side::Left)]);
    for server in &report.servers {
        table.row(vec![plain(&server.server), heart(server, look)]);
    }
    let lines = table.lines(look);
    let mut text = format!("\n{}\n", lines.first().map_or("", String::as_str));
    for (server, line) in report.servers.iter().zip(lines.iter().skip(1)) {
        text.push_str(&format!("{line}\n"));
        let last = server.last_beat_at_s.filter(|at_s| *at_s > 0 && server.heart == Heart::Paused);
        if let Some(at_s) = last {
            text.push_str(&wrapped("  last beat: ", &format!("at {} by its clock", look.local_time(at_s))));
        }
        for ailment in &server.ailments {
            text.push_str(&wrapped("  ails: ", &ailment_in_words(ailment)));
        }
    }
    text
}

fn heart(server: &ServerStatus, look: &Look) -> String {
    let age = server.last_beat_age_ms.map(seconds);
    let ago = age.as_deref().map_or_else(String::new, |age| format!(", last {age} ago"));
    let written = server.last_beat_at_s.filter(|at_s| *at_s > 0);
    let wrote =
        written.map_or_else(String::new, |at_s| format!(", last at {} by its clock", look.local_time(at_s)));
    match server.heart {
        Heart::Beating => format!("beating{ago}"),
        Heart::Late => format!("late{ago}"),
        Heart::Silent => format!("silent for {}", age.unwrap_or_default()),
        Heart::Paused => "stopped in order, or in maintenance".to_owned(),
        Heart::NeverSeen => "never seen".to_owned(),
        Heart::Unknown => match (server.watched_ms, server.to_watch_ms) {
            (Some(watched), Some(needed)) => {
                format!("not known yet: watched for {} of {}", seconds(watched), seconds(needed))
            }
            _ => format!("not known{wrote}"),
        },
    }
}

fn ailment_in_words(ailment: &Ailment) -> String {
    let error = ailment.error.as_deref().map(plain).unwrap_or_default();
    match ailment.kind {
        AilmentKind::MonitorDirectoryUnreadable => {
            format!("the status monitor's directory can't be read: {error}")
        }
        AilmentKind::StoreFails => format!("the store fails: {error}"),
        AilmentKind::NoLockManager if error.is_empty() => "no lock manager runs".to_owned(),
        // The name of it, where there are several.
        AilmentKind::NoLockManager => format!("{error} does not run"),
        AilmentKind::Other => error,
    }
}

/// One thing that is wrong, in a sentence.
pub(in crate::cli) fn in_words(problem: &Problem) -> String {
    let Some(name) = problem.lock_manager.as_deref().map(plain) else { return sentence(problem) };
    match problem.kind {
        ProblemKind::NoLockManager => {
            format!("lock manager {name} does not run, though a service that is held here needs it")
        }
        _ => format!("lock manager {name}: {}", sentence(problem)),
    }
}

fn sentence(problem: &Problem) -> String {
    let part = |part: &Option<String>| part.as_deref().map(plain).unwrap_or_default();
    let (service, server, path, error) =
        (part(&problem.service), part(&problem.server), part(&problem.path), part(&problem.error));
    let count = problem.clients.unwrap_or(0);
    let clients = counted(count, "client");
    let (their, were) = if count == 1 { ("its", "was") } else { ("their", "were") };
    match problem.kind {
        ProblemKind::NoAgent => format!("no agent answers: {}", crate::control::how_to_start()),
        ProblemKind::AgentSilent => format!("the agent does not answer: it is stopped, or hangs ({error})"),
        ProblemKind::NotCaptured => {
            format!(
                "{service}: belongs to this server, and clients that register are not noticed ({clients} on record)"
            )
        }
        ProblemKind::StoreSilent => format!("the store {path} does not answer: is its volume there?"),
        ProblemKind::StoreFails => format!("the store fails: {error}"),
        ProblemKind::MonitorDirectoryUnreadable => {
            format!("the status monitor's directory can't be read, so new clients are unprotected: {error}")
        }
        ProblemKind::NoLockManager => {
            "no lock manager runs, though a service that is held here needs one".to_owned()
        }
        ProblemKind::ClientsAtRisk => format!("{clients} got locks that the store does not know of"),
        ProblemKind::ClientsRefused => clients_refused(count, &error),
        ProblemKind::NoRoom => format!("{service}: {clients} found no room in the store and are unprotected"),
        ProblemKind::NotReady | ProblemKind::AddressLeftBehind | ProblemKind::AddressTakenAway => error,
        ProblemKind::RestartsNotTaken => {
            format!(
                "the lock manager takes no call that {clients} {were} restarted: it may keep locks that no client holds"
            )
        }
        ProblemKind::ClientFilesBehind => {
            format!("the status monitor's files of {clients} could not be written ({error})")
        }
        ProblemKind::GraceUnknown => format!(
            "{service}: its clients were there before this agent, and may have lost their locks; the lock manager \
             doesn't say whether it is in grace: {error}"
        ),
        ProblemKind::NoRecord => format!("{path}: {error}"),
        ProblemKind::HeartsUnwatched => hearts_unwatched(&error),
        ProblemKind::Unreadable => format!("{service}: can't be read: {error}"),
        ProblemKind::AdoptionFailed => format!("{service}: the last adoption failed: {error}"),
        ProblemKind::ClientsLost => {
            format!(
                "{service}: {clients} lost {their} locks in the last adoption ('heirlock report {service}')"
            )
        }
        ProblemKind::ClientsUnreachable => {
            format!("{service}: {clients} did not answer in the last adoption ('heirlock report {service}')")
        }
        ProblemKind::AwaitsFinish => {
            format!("{service}: its adoption is prepared and waits for 'heirlock adopt {service} --finish'")
        }
        ProblemKind::OwnerSilent => owner_silent(&service, &server, &error),
        ProblemKind::Unserved => {
            format!("{service}: {server} has released it, and no server has adopted it")
        }
        ProblemKind::NeverClaimed if server.is_empty() => format!(
            "{service}: no server has claimed it yet, so none of its clients would be told of an adoption"
        ),
        ProblemKind::NeverClaimed => format!(
            "{service}: no server has claimed it yet; the agent of its home {server} does when it starts"
        ),
        ProblemKind::DrillFails => drill_fails(&service, &error),
        ProblemKind::Other => error,
    }
}

fn clients_refused(requests: usize, error: &str) -> String {
    let requests = counted(requests, "request");
    match error {
        "" => format!("the store does not take new clients in: {requests} refused so far"),
        error => format!("new clients get no locks: {error}; {requests} refused so far"),
    }
}

fn hearts_unwatched(how: &str) -> String {
    format!(
        "the watch of the other servers is {how}; until it comes to its end none of them is taken for dead, no service is adopted \
         without being asked, and 'adopt' asks for --owner-fenced; 'heirlock doctor' looks at the store, which is slower than its \
         time limits"
    )
}

fn owner_silent(service: &str, owner: &str, left_to: &str) -> String {
    let left_to = if left_to.is_empty() { String::new() } else { format!(": {left_to}") };
    format!("{service}: its owner {owner} is silent, and no server serves it{left_to}")
}

fn drill_fails(service: &str, why: &str) -> String {
    format!(
        "{service}: the last drill says that an adoption by this server would not work: {why}; when that is mended, 'heirlock drill \
         {service}' says whether it would"
    )
}

#[cfg(test)]
mod tests;
