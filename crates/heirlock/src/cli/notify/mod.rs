//! `heirlock notify`: tells the clients of a status monitor's directory of a restart, wherever sm-notify does it today.
//!
//! It keeps the promises of sm-notify: records move from `sm` to `sm.bak` first, the number in `state` is counted up and
//! durable before the first datagram, and a client that has answered is taken off `sm.bak`. It needs no configuration, no
//! agent and no name server, and never asks for the end of a grace period.

mod directory;
mod notification;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use heirlock_core::limits::ANNOUNCED_NAMES_MAX;
use heirlock_core::notify::Words;
use heirlock_nsm::{MonName, MyName, StateNumber, rpcbind};
use serde::Serialize;

use crate::config::NotifySettings;
use crate::host::Host;
use crate::log_queue;
use crate::notifier::{self, Task};

use super::exit::{Exit, Failed};
use super::logging;
use super::output::Output;
use crate::guard::status_monitor_directory;
use directory::{Client, Counting, Directory};
use notification::Notification;

/// Tell the clients of a status monitor's directory of a restart, as sm-notify does
#[derive(Debug, Args)]
pub(crate) struct Notify {
    /// The directory with sm, sm.bak and state; without it, that of rpc.statd, or else of nfs.conf
    #[arg(long, short = 'P', value_name = "DIRECTORY")]
    state_directory: Option<PathBuf>,
    /// The address that clients mounted; one of each family can be given
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<IpAddr>,
    /// A name that clients may have mounted; repeat it for more. Without it, those that the records bear
    #[arg(long, value_name = "NAME")]
    name: Vec<MyName>,
    /// When those that have not answered are given up: minutes, or a time such as 90s; 0 is never
    #[arg(long, short = 'm', value_name = "TIME", default_value = "15", value_parser = parse_retry_time)]
    retry_time: RetryTime,
    /// Don't count the number in state up
    #[arg(long, short = 'n')]
    keep_state: bool,
    /// Go on where a run was interrupted: the same number, and those alone that have not answered
    #[arg(long, conflicts_with = "keep_state")]
    resume: bool,
    /// The port of the clients' rpcbind
    #[arg(long, value_name = "PORT", default_value_t = rpcbind::PORT)]
    rpcbind_port: u16,
}

/// Until when clients are called; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RetryTime(Option<Duration>);

/// The result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    /// The number that was sent; none where there was no client to tell.
    state_number: Option<u32>,
    names: Vec<String>,
    clients: usize,
    acknowledged: usize,
    /// Milliseconds from the start to the first datagram, and to the end.
    prepared_ms: u64,
    ended_ms: u64,
    /// The clients that have not answered or could not be called, and why; the path of a file that may be a client's
    /// record and can't be read as one is among them.
    left: Vec<Left>,
    /// Records of which no server's name could be read, and those that could not be taken off the list.
    problems: Vec<String>,
}

/// A client that has not answered.
#[derive(Debug, Serialize)]
struct Left {
    client: String,
    why: String,
}

/// Does it.
pub(super) fn run(host: &Host, options: &Notify, output: &Output) -> Result<Exit, Failed> {
    let began = Instant::now();
    logging::start("error")?;
    check_addresses(host, &options.address)?;
    let named = options.state_directory.clone();
    let mut directory = Directory::open(&named.unwrap_or_else(|| status_monitor_directory(host)))?;
    let found = directory.take_over(!options.resume, options.name.is_empty())?;
    let mut problems = found.problems;
    let passed_over = found.passed_over.into_iter().map(|(client, why)| Left { client, why });
    if found.clients.is_empty() {
        let left: Vec<Left> = passed_over.collect();
        let exit = if left.is_empty() { Exit::Done } else { Exit::Failed };
        let report = Report {
            state_number: None,
            names: Vec::new(),
            clients: 0,
            acknowledged: 0,
            prepared_ms: millis(began),
            ended_ms: millis(began),
            left,
            problems,
        };
        output.print(&report, |report, _| in_words(report))?;
        return Ok(exit);
    }
    let names = announced(&options.name, &found.my_names, &options.address, &mut problems)?;
    let keep = options.keep_state || options.resume;
    let state = directory.count_state(if keep { Counting::Keep } else { Counting::Up })?;
    let clients = found.clients.len();
    let task = task(options, &names, state, &found.clients);
    let prepared_ms = millis(began);
    let notification = Notification::begin(directory, &found.clients, options.retry_time.0);
    let mut notification = notification.map_err(|error| Failed::new(Exit::Failed, error))?;
    let mut left = notifier::run(task, &mut notification);
    crate::from_elsewhere::say_all_that_was_suppressed();
    left.sort_by(|a, b| a.0.cmp(&b.0));
    let ended_ms = millis(began);
    problems.extend(notification.end());
    // Errors on the way are said before the report.
    log_queue::flush();
    let report = Report {
        state_number: Some(state.0),
        names: names.iter().map(ToString::to_string).collect(),
        clients,
        acknowledged: clients - left.len(),
        prepared_ms,
        ended_ms,
        left: left
            .into_iter()
            .map(|(client, _, why)| Left { client: client.to_string(), why })
            .chain(passed_over)
            .collect(),
        problems,
    };
    output.print(&report, |report, _| in_words(report))?;
    Ok(if report.left.is_empty() { Exit::Done } else { Exit::Failed })
}

fn task(options: &Notify, names: &[MyName], state: StateNumber, clients: &[Client]) -> Task {
    Task {
        words: Words::Restart { names: names.to_vec(), state },
        clients: clients.iter().map(|client| (client.key.clone(), client.addresses.clone())).collect(),
        from: options.address.clone(),
        settings: NotifySettings { rpcbind_port: options.rpcbind_port, privileged_port: false },
    }
}

/// Before anything is moved or counted: an address that isn't here could not be sent from.
fn check_addresses(host: &Host, addresses: &[IpAddr]) -> Result<(), Failed> {
    for address in addresses {
        host.check_address(*address).map_err(|error| {
            let what = format!(
                "--address {address}: expected an address of this server, found that none can send from it: {error}; bring it up first"
            );
            Failed::new(Exit::Refused, what)
        })?;
    }
    Ok(())
}

/// Under which names clients are told: those that were given or else those in the records, each in its full form and then
/// in its short one; where there are none, the address.
fn announced(
    given: &[MyName],
    found: &BTreeSet<MyName>,
    addresses: &[IpAddr],
    problems: &mut Vec<String>,
) -> Result<Vec<MyName>, Failed> {
    let mut names: Vec<MyName> = Vec::new();
    let mut add = |name: MyName| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    let base: Vec<MyName> = if given.is_empty() { found.iter().cloned().collect() } else { given.to_vec() };
    for name in base {
        // The first part of an address is no name.
        let short =
            if name.as_str().parse::<IpAddr>().is_ok() { None } else { name.as_str().split('.').next() };
        let short = short.and_then(|short| MyName::parse(short).ok());
        add(name);
        short.into_iter().for_each(&mut add);
    }
    if names.is_empty() {
        names.extend(addresses.iter().filter_map(|address| MyName::parse(&address.to_string()).ok()));
    }
    if names.is_empty() {
        let what = "no record bears a name to announce; give --name or --address";
        return Err(Failed::new(Exit::Refused, what));
    }
    if names.len() > ANNOUNCED_NAMES_MAX {
        let left_out = names.split_off(ANNOUNCED_NAMES_MAX);
        let left_out: Vec<&str> = left_out.iter().map(MyName::as_str).collect();
        problems.push(format!(
            "at most {ANNOUNCED_NAMES_MAX} names are announced; left out: {}",
            left_out.join(", ")
        ));
    }
    Ok(names)
}

fn parse_retry_time(text: &str) -> Result<RetryTime, String> {
    let expected = || format!("expected minutes or a time such as 90s, found {text:?}");
    let time = match text.parse::<u32>() {
        Ok(minutes) => Duration::from_secs(u64::from(minutes) * 60),
        Err(_) => {
            let time: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
            Duration::try_from(time).map_err(|_| expected())?
        }
    };
    Ok(RetryTime((!time.is_zero()).then_some(time)))
}

fn in_words(report: &Report) -> String {
    let mut text = match report.state_number {
        None if !report.left.is_empty() => "no client was told\n".to_owned(),
        None => "no client is on record, so none was told\n".to_owned(),
        Some(number) => format!(
            "{} of {} clients told under number {number}, as {}, in {:.3} s\n",
            report.acknowledged,
            report.clients,
            report.names.join(", "),
            Duration::from_millis(report.ended_ms).as_secs_f64()
        ),
    };
    for left in &report.left {
        text += &format!("not told: {}: {}\n", left.client, left.why);
    }
    for problem in &report.problems {
        text += &format!("{problem}\n");
    }
    text
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Clients' names that have to be looked up. An address on a link is none.
fn to_look_up(clients: &[Client]) -> Vec<MonName> {
    clients.iter().map(|client| &client.key).filter(|key| key.is_host_name()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(given: &[&str], found: &[&str], addresses: &[&str]) -> Vec<String> {
        let parse = |list: &[&str]| list.iter().map(|n| MyName::parse(n).unwrap()).collect::<Vec<_>>();
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let found = parse(found).into_iter().collect();
        let names = announced(&parse(given), &found, &addresses, &mut Vec::new()).unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_announced_in_full_and_short_and_an_address_only_where_there_is_no_name() {
        assert_eq!(
            names(&["nfs.example.test"], &["b.example.test"], &["192.0.2.1"]),
            ["nfs.example.test", "nfs"]
        );
        assert_eq!(names(&[], &["b.example.test", "b"], &["192.0.2.1"]), ["b", "b.example.test"]);
        assert_eq!(names(&[], &[], &["192.0.2.1"]), ["192.0.2.1"]);
        assert_eq!(names(&["192.0.2.1"], &[], &[]), ["192.0.2.1"]);
        let refused = announced(&[], &BTreeSet::new(), &[], &mut Vec::new()).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
    }

    #[test]
    fn a_bare_number_is_minutes_as_with_sm_notify() {
        assert_eq!(parse_retry_time("15"), Ok(RetryTime(Some(Duration::from_secs(900)))));
        assert_eq!(parse_retry_time("90s"), Ok(RetryTime(Some(Duration::from_secs(90)))));
        assert_eq!(parse_retry_time("0"), Ok(RetryTime(None)));
        assert!(parse_retry_time("-1s").is_err() && parse_retry_time("soon").is_err());
    }
}
