//! The candidates of services: who they are, and whether each could take its turn.

use std::collections::BTreeMap;

use heirlock_core::ServerName;
use heirlock_core::candidates::Candidates;

use super::Finding;
use super::records;
use crate::config::{ServiceSettings, Settings};
use crate::store::{ServerReport, Store};

const CHECK: &str = "candidates";

/// Of each service that names some.
pub(super) fn check(store: &dyn Store, settings: &Settings) -> Vec<Finding> {
    let named: Vec<(&ServiceSettings, &Candidates)> = settings
        .services
        .iter()
        .filter_map(|service| Some((service, service.candidates.as_ref()?)))
        .collect();
    if named.is_empty() {
        return Vec::new();
    }
    let others = match records::others(store, settings) {
        Ok(others) => others,
        Err(error) => return vec![Finding::warning(CHECK, error.to_string(), "mend the store")],
    };
    let mut findings: Vec<Finding> = hurried(settings).into_iter().collect();
    for (service, candidates) in named {
        findings.extend(of_service(settings, service, candidates, &others));
    }
    findings
}

/// A candidate whose fence takes longer than its time is followed by the next one, which fences as well.
fn hurried(settings: &Settings) -> Option<Finding> {
    let (fence, each) = (settings.hooks.fence.as_ref()?.time_limit, settings.heartbeat.candidate_time);
    (each <= fence).then(|| {
        Finding::warning(
            CHECK,
            format!(
                "heartbeat.candidate-time is {} s, and hooks.fence may take {} s: the next candidate would fence the same server \
                 meanwhile",
                each.as_secs_f32(),
                fence.as_secs_f32()
            ),
            "make candidate-time longer, or leave it out",
        )
    })
}

fn of_service(
    settings: &Settings,
    service: &ServiceSettings,
    candidates: &Candidates,
    others: &BTreeMap<ServerName, ServerReport>,
) -> Vec<Finding> {
    let name = &service.name;
    let is_known = |server: &&ServerName| **server == settings.server || others.contains_key(*server);
    let mut findings: Vec<Finding> = candidates
        .servers()
        .filter(|server| !is_known(server))
        .map(|server| {
            Finding::warning(
                CHECK,
                format!("{name}: its candidate {server} is unknown: no server of that name has written to the store"),
                "start the agent there, or correct its name",
            )
        })
        .collect();
    let mut found = format!("{name} is adopted without being asked by {candidates}");
    if candidates.servers().nth(1).is_some() {
        found += " (\">\" is the order, \"=\" shares)";
    }
    if !candidates.contains(&settings.server) {
        found += &format!(", and never by this server, {}", settings.server);
    }
    findings.push(match candidates.servers().filter(|server| is_known(server)).count() {
        // Nobody is left to adopt it when that one dies with it.
        1 => Finding::note(CHECK, format!("{found}: when that server has it and dies, no server adopts it")),
        _ => Finding::ok(CHECK, found),
    });
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Command;
    use crate::guard::Severity;
    use crate::guard::testing::{SERVICE, Tree, report, settings};
    use crate::store::dir::DirStore;

    fn said(groups: &[&[&str]], known: &[&str], candidate_time_s: u64) -> Vec<(Severity, String)> {
        let tree = Tree::debian();
        let store = DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
        for server in known {
            store.put_server(&report(server, 1)).unwrap();
        }
        let mut settings = settings(SERVICE);
        let group = |names: &&[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        settings.services[0].candidates = Some(Candidates::new(groups.iter().map(group).collect()).unwrap());
        settings.hooks.fence =
            Some(Command { argv: vec!["true".into()], time_limit: Duration::from_secs(30) });
        settings.heartbeat.candidate_time = Duration::from_secs(candidate_time_s);
        check(&store, &settings).into_iter().map(|finding| (finding.severity, finding.found)).collect()
    }

    #[test]
    fn the_order_is_told_in_words_and_a_server_that_never_wrote_is_named() {
        let well = said(&[&["nfs-b", "nfs-c"], &["nfs-a"]], &["nfs-b", "nfs-c"], 60);
        assert_eq!(well.len(), 1, "{well:?}");
        assert_eq!(well[0].0, Severity::Ok);
        assert!(well[0].1.contains("by nfs-b = nfs-c > nfs-a"), "{well:?}");
        let unknown = said(&[&["nfs-b", "nsf-c"], &["nfs-a"]], &["nfs-b"], 60);
        assert_eq!(unknown[0].0, Severity::Warning);
        assert!(unknown[0].1.contains("candidate nsf-c is unknown"), "{unknown:?}");
    }

    #[test]
    fn a_service_that_one_server_alone_may_adopt_is_said_and_so_is_a_server_that_is_no_candidate() {
        let alone = said(&[&["nfs-b"]], &["nfs-b"], 60);
        assert_eq!(alone[0].0, Severity::Note);
        assert!(alone[0].1.contains("never by this server, nfs-a"), "{alone:?}");
    }

    #[test]
    fn a_time_that_is_too_short_for_the_fence_is_said() {
        let hurried = said(&[&["nfs-b"], &["nfs-a"]], &["nfs-b"], 30);
        assert_eq!(hurried[0].0, Severity::Warning);
        assert!(hurried[0].1.contains("would fence the same server"), "{hurried:?}");
    }
}
