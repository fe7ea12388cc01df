//! How an agent is.

use super::table::Side;
use super::{Look, Table, counted, plain, wrapped};
use crate::control::report::{ServiceStatus, StatusReport};

/// The report in words.
pub(in crate::cli) fn status(report: &StatusReport, look: &Look) -> String {
    let mut text = format!(
        "{}, agent {}, heirlock {}\n",
        look.strong(&plain(&report.server)),
        plain(&report.agent),
        plain(&report.version)
    );
    text.push_str(&store(report, look));
    text.push_str(&lock_manager(report, look));
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
        for problem in &report.problems {
            text.push_str(&wrapped("  ", &plain(problem)));
        }
    }
    text
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

fn lock_manager(report: &StatusReport, look: &Look) -> String {
    let manager = &report.lock_manager;
    let serving = if manager.serving { look.good("serving") } else { look.bad("not serving") };
    let mut text = format!("lock manager  {}, {serving}\n", plain(&manager.kind));
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
        (" ", Side::Left),
        ("SERVICE", Side::Left),
        ("OWNER", Side::Left),
        ("GEN", Side::Right),
        ("STATE", Side::Right),
        ("RECORDS", Side::Right),
        ("LEFT", Side::Right),
        ("PHASE", Side::Left),
    ]);
    for service in &report.services {
        table.row(service_row(service));
    }
    let lines = table.lines(look);
    let mut text = format!("\n{}\n", lines.first().map_or("", String::as_str));
    for (service, line) in report.services.iter().zip(lines.iter().skip(1)) {
        text.push_str(&format!("{line}\n"));
        if let Some(failure) = &service.failure {
            text.push_str(&wrapped("  failed: ", &plain(failure)));
        }
    }
    text.push_str("* held by this server; LEFT: records whose clients seem to have left\n");
    text
}

fn service_row(service: &ServiceStatus) -> Vec<String> {
    fn or_dash(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| plain(&value.to_string()))
    }
    vec![
        if service.held { "*".to_owned() } else { String::new() },
        plain(&service.service),
        service.owner.as_ref().map_or_else(|| "nobody".to_owned(), |owner| plain(owner)),
        or_dash(service.generation),
        or_dash(service.state_number),
        service.records.to_string(),
        service.tombstones.to_string(),
        or_dash(service.phase.as_ref()),
    ]
}

fn servers(report: &StatusReport, look: &Look) -> String {
    if report.servers.is_empty() {
        return "\nno other server has been seen in the store\n".to_owned();
    }
    let mut table = Table::new(&[("SERVER", Side::Left), ("HEART", Side::Left)]);
    for server in &report.servers {
        table.row(vec![plain(&server.server), plain(&server.heart)]);
    }
    let lines = table.lines(look);
    let mut text = format!("\n{}\n", lines.first().map_or("", String::as_str));
    for (server, line) in report.servers.iter().zip(lines.iter().skip(1)) {
        text.push_str(&format!("{line}\n"));
        for ailment in &server.ailments {
            text.push_str(&wrapped("  ails: ", &plain(ailment)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::WIDTH;
    use super::super::tests::look;
    use super::*;
    use crate::control::report::{LockManagerStatus, ServerStatus, StoreStatus};

    fn service(name: &str, owner: Option<&str>, held: bool) -> ServiceStatus {
        ServiceStatus {
            service: name.into(),
            owner: owner.map(str::to_owned),
            held,
            generation: owner.map(|_| 4),
            state_number: owner.map(|_| 11),
            records: 1_021,
            tombstones: 3,
            phase: owner.map(|_| "settled".into()),
            failure: None,
        }
    }

    fn report() -> StatusReport {
        StatusReport {
            server: "nfs-b".into(),
            agent: "5f3a91c2".into(),
            version: "0.1.0".into(),
            configuration: String::new(),
            loop_turned_ms_ago: Some(100),
            looked_ms_ago: Some(100),
            store: StoreStatus {
                place: "the folder /srv/heirlock".into(),
                well: true,
                error: None,
                unprotected_since_s: None,
            },
            lock_manager: LockManagerStatus {
                kind: "kernel".into(),
                incarnation: Some("boot 1b2c, lockd 812".into()),
                serving: true,
            },
            services: vec![service("nfs", Some("nfs-b"), true), service("home", None, false)],
            servers: vec![ServerStatus {
                server: "nfs-a".into(),
                heart: "silent for 12.3 s".into(),
                ailments: vec!["lockd does not run".into()],
            }],
            maintenance: false,
            problems: Vec::new(),
        }
    }

    #[test]
    fn a_server_that_is_well() {
        let expected = "\
nfs-b, agent 5f3a91c2, heirlock 0.1.0
store         the folder /srv/heirlock: well
lock manager  kernel, serving
              incarnation boot 1b2c, lockd 812

   SERVICE  OWNER   GEN  STATE  RECORDS  LEFT  PHASE
*  nfs      nfs-b     4     11     1021     3  settled
   home     nobody    -      -     1021     3  -
* held by this server; LEFT: records whose clients seem to have left

SERVER  HEART
nfs-a   silent for 12.3 s
  ails: lockd does not run
";
        assert_eq!(status(&report(), &look()), expected);
    }

    #[test]
    fn a_store_that_fails_and_everything_else_that_is_wrong_is_said() {
        let mut report = report();
        report.store.well = false;
        report.store.error = Some("the store can't write /srv/heirlock/x: No space left; make room".into());
        report.store.unprotected_since_s = Some(look().now_s - 200);
        report.maintenance = true;
        report.services[0].failure = Some("grace did not open within 10 s".into());
        report.problems = vec!["sm/\u{1b}]0;x: expected a name".into()];
        report.servers.clear();
        let text = status(&report, &look());
        for part in [
            "store         the folder /srv/heirlock: it fails\n",
            "              unprotected since 2026-11-25 10:26:40, 3 min\n",
            "              the store can't write /srv/heirlock/x: No space left; make room\n",
            "maintenance   on: this server's silence is no reason to adopt its services\n",
            "  settled\n  failed: grace did not open within 10 s\n   home ",
            "\nno other server has been seen in the store\n",
            "\n1 problem\n  sm/\\u{1b}]0;x: expected a name\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_longest_names_fit_into_80_columns() {
        let mut report = report();
        let mut longest = service(&"s".repeat(64), Some(&"o".repeat(64)), true);
        longest.state_number = Some(u32::MAX);
        longest.phase = Some("recognised".into());
        longest.records = 200_000;
        report.services.push(longest);
        let text = status(&report, &look());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
