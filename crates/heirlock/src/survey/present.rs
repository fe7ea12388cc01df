//! How services, their clients and the servers are, as far as the store tells it.

use heirlock_core::claim::Claim;
use heirlock_core::takeover::last_outcomes;
use heirlock_core::{Generation, Outcome, ServerName, ServiceName};
use heirlock_nsm::MonName;
use heirlock_nsm::record::parse_record;

use crate::control::report::{
    Ailment, ClientStatus, Heart, Problem, ProblemKind, ServerStatus, ServiceStatus, StatusReport,
};
use crate::limits::STATUS_CLIENTS_MAX;
use crate::store::{Account, Store, StoreError};

/// The services and servers in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// Each service that was claimed.
    pub(crate) services: Vec<ServiceStatus>,
    /// Each server but this one.
    pub(crate) servers: Vec<ServerStatus>,
    /// The entries that can't be read.
    pub(crate) problems: Vec<Problem>,
}

/// Looks through the store. A fault of one service concerns that service alone.
pub(crate) fn look(store: &dyn Store, us: &ServerName) -> Result<Present, StoreError> {
    let mut present = Present::default();
    for service in store.services()? {
        match status_of(store, &service) {
            Ok((status, problem)) => {
                present.services.extend(status);
                present.problems.extend(problem);
            }
            Err(error) if error.is_absent() => return Err(error),
            Err(error) => present
                .problems
                .push(Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(&error.to_string())),
        }
    }
    for (name, report) in store.servers()?.into_iter().filter(|(name, _)| name != us) {
        present.servers.push(ServerStatus {
            // How long ago that was is for an agent to say, which has watched it: clocks of two servers are not compared.
            heart: if report.paused { Heart::Paused } else { Heart::Unknown },
            last_beat_at_s: Some(report.written_at_s),
            ailments: Ailment::all_of_a_heartbeat(&report.ailments),
            ..ServerStatus::unknown(name.as_str())
        });
    }
    Ok(present)
}

/// Adds what the store holds to what an agent says, or to nothing. Of a service that the agent holds its own word counts:
/// it knows what is to be written yet.
pub(crate) fn add(report: &mut StatusReport, present: Present) {
    for stored in present.services {
        let known = report.services.iter_mut().find(|known| known.service == stored.service);
        match known {
            Some(known) if known.held => {
                if known.generation == stored.generation {
                    (known.unreachable, known.lost, known.missed) =
                        (stored.unreachable, stored.lost, stored.missed);
                }
            }
            Some(known) => {
                *known = ServiceStatus {
                    configured: known.configured,
                    home: known.home.take(),
                    automatic: known.automatic,
                    ..stored
                };
            }
            None => report.services.push(stored),
        }
    }
    for server in present.servers {
        if !report.servers.iter().any(|known| known.server == server.server) {
            report.servers.push(server);
        }
    }
    // A problem that the agent has named already is not named twice.
    let news = present.problems.into_iter().filter(|problem| !report.problems.contains(problem));
    let news: Vec<Problem> = news.collect();
    report.problems.extend(news);
}

fn status_of(
    store: &dyn Store,
    service: &ServiceName,
) -> Result<(Option<ServiceStatus>, Option<Problem>), StoreError> {
    let Some(claim) = store.newest_claim(service)? else { return Ok((None, None)) };
    let problem = unreadable_claim(service, &claim);
    let owner = claim.owner.to_string();
    let mut status = ServiceStatus {
        service: service.to_string(),
        owner: (!claim.released).then(|| owner.clone()),
        released_by: claim.released.then_some(owner),
        generation: Some(claim.generation.0),
        ..ServiceStatus::default()
    };
    // A generation that is claimed and not begun yet has the clients of the one before.
    if let Some(generation) = store.newest_generation(service, claim.generation)? {
        let account = store.account(service, generation)?;
        describe(&mut status, store, service, generation, &account);
    }
    Ok((Some(status), problem))
}

fn describe(
    status: &mut ServiceStatus,
    store: &dyn Store,
    service: &ServiceName,
    generation: Generation,
    account: &Account,
) {
    status.records = account.clients.len();
    status.state_number = account.state.map(|state| state.0);
    let Some(journal) = &account.journal else { return };
    status.phase = Some(journal.phase.to_string());
    status.failure.clone_from(&journal.failure);
    status.adopted_at_s = (!journal.timeline.is_empty()).then_some(journal.started_at_s);
    for line in last_outcomes(&account.outcomes).into_values().filter(|line| !line.outcome.is_good()) {
        let Some(client) = line.key().filter(|client| account.clients.contains(client)) else { continue };
        let since_s = journal.started_at_s.saturating_add_signed(line.at_ms / 1_000);
        // A record that was written later is that of a client that registered again.
        if store.written_at_s(service, generation, &client).is_some_and(|at_s| at_s > since_s) {
            continue;
        }
        match line.outcome {
            Outcome::Lost => status.lost += 1,
            _ => status.unreachable += 1,
        }
        if status.missed.len() < STATUS_CLIENTS_MAX {
            status.missed.push(ClientStatus {
                names: store
                    .record(service, generation, &client)
                    .map_or_else(Vec::new, |r| names(&client, &r)),
                client: client.to_string(),
                outcome: Some(line.outcome),
                since_s: Some(since_s),
                why: line.why.clone(),
            });
        }
    }
}

/// The names in a client's record other than the key it is kept under.
pub(crate) fn names(client: &MonName, record: &[u8]) -> Vec<String> {
    let lines = parse_record(record).map(|parsed| parsed.lines).unwrap_or_default();
    let mut names: Vec<String> =
        lines.iter().filter(|line| line.mon_name != *client).map(|line| line.mon_name.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// The problem of a claim that can't be read, where its generation tells its content.
pub(crate) fn unreadable_claim(service: &ServiceName, claim: &Claim) -> Option<Problem> {
    let why = claim.unreadable.as_ref()?;
    let (owner, generation) = (&claim.owner, claim.generation);
    let remedy = match claim.released {
        true => "the next adoption makes another one".to_owned(),
        false => format!("the agent of {owner} writes it anew: see that it runs"),
    };
    let said = format!(
        "claim {generation} can't be read, and the generation that it began says that it was made by {owner}; {remedy} ({why})"
    );
    Some(Problem::new(ProblemKind::Unreadable).of(service.as_str()).saying(&said))
}

#[cfg(test)]
mod tests {
    use heirlock_core::claim::Claim;
    use heirlock_core::takeover::{Journal, Milestone, OutcomeLine, Stamp};
    use heirlock_nsm::StateNumber;

    use super::*;
    use crate::store::dir::DirStore;
    use crate::store::{Change, Contents, ServerReport};

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    fn key(client: &str) -> MonName {
        MonName::parse(client).unwrap()
    }

    fn record(name: &str) -> Vec<u8> {
        format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {name} nfs\n")
            .into_bytes()
    }

    /// nfs-a has adopted nfs, and missed two of its three clients; the adoption ended in the future, as it seems to a
    /// record that was written before.
    fn store(folder: &std::path::Path, started_at_s: u64) -> (DirStore, ServiceName) {
        let (store, service) =
            (DirStore::create(&folder.join("store")).unwrap(), ServiceName::parse("nfs").unwrap());
        store.claim(&service, &Claim::new(Generation(4), &server("nfs-a"), "agent", 7)).unwrap();
        let journal = Journal {
            timeline: vec![Stamp { event: Milestone::Settled, at_ms: 90_000 }],
            ..Journal::quiet("run", &server("nfs-a"), started_at_s)
        };
        let outcome = |client: &str, outcome: Outcome| OutcomeLine {
            why: Some("no answer".into()),
            ..OutcomeLine::new(client, outcome, 90_000)
        };
        let contents = Contents {
            state: Some(StateNumber(11)),
            records: [("192.0.2.1", "one"), ("192.0.2.2", "two.example"), ("192.0.2.3", "three")]
                .map(|(client, name)| (key(client), record(name)))
                .into(),
            journal: Some(journal),
            outcomes: vec![
                outcome("192.0.2.1", Outcome::Acknowledged),
                outcome("192.0.2.2", Outcome::Unreachable),
                outcome("192.0.2.3", Outcome::Lost),
            ],
            damaged: Vec::new(),
        };
        store.begin_generation(&service, Generation(4), &contents).unwrap();
        (store, service)
    }

    const FUTURE_S: u64 = 4_000_000_000;

    #[test]
    fn a_standby_sees_every_services_clients_and_whom_the_last_adoption_missed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = store(folder.path(), FUTURE_S);
        store.put_server(&ServerReport::new(server("nfs-a"), "agent")).unwrap();
        let present = look(&store, &server("nfs-b")).unwrap();
        let nfs = &present.services[0];
        assert_eq!((nfs.owner.as_deref(), nfs.held, nfs.records), (Some("nfs-a"), false, 3));
        assert_eq!((nfs.unreachable, nfs.lost, nfs.adopted_at_s), (1, 1, Some(FUTURE_S)));
        let missed: Vec<_> = nfs.missed.iter().map(|c| (c.client.as_str(), c.names.join(" "))).collect();
        assert_eq!(missed, [("192.0.2.2", "two.example".into()), ("192.0.2.3", "three".into())]);
        assert_eq!(nfs.missed[0].since_s, Some(FUTURE_S + 90));
        assert_eq!((present.servers[0].heart, present.problems.len()), (Heart::Unknown, 0));
    }

    #[test]
    fn a_client_that_registered_again_or_is_forgotten_is_missed_no_more() {
        let folder = tempfile::tempdir().unwrap();
        // Long ago: a report that is written now is news.
        let (store, service) = store(folder.path(), 1_000);
        assert_eq!(look(&store, &server("nfs-b")).unwrap().services[0].missed, []);
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = self::store(folder.path(), FUTURE_S);
        store.commit(&service, Generation(4), &[Change::remove(key("192.0.2.2"))]).unwrap();
        let present = look(&store, &server("nfs-a")).unwrap();
        assert_eq!((present.services[0].unreachable, present.services[0].lost), (0, 1));
    }

    #[test]
    fn a_service_that_cannot_be_read_takes_no_other_with_it_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = store(folder.path(), FUTURE_S);
        let other = ServiceName::parse("home").unwrap();
        store.claim(&other, &Claim::new(Generation(1), &server("nfs-a"), "agent", 7)).unwrap();
        std::fs::write(folder.path().join("store/services/home/claims/1"), "torn").unwrap();
        let present = look(&store, &server("nfs-b")).unwrap();
        assert_eq!(present.services.len(), 1);
        assert_eq!(present.problems[0].kind, ProblemKind::Unreadable);
        assert_eq!(present.problems[0].service.as_deref(), Some("home"));
    }

    #[test]
    fn the_agents_word_counts_for_what_it_holds_and_the_stores_for_the_rest() {
        let mut report = StatusReport::without_agent("nfs-a", "the folder /x");
        report.agent = "5f3a".into();
        let of = |service: &str, held, generation, records| ServiceStatus {
            service: service.into(),
            held,
            configured: true,
            generation: Some(generation),
            records,
            ..ServiceStatus::default()
        };
        report.services = vec![of("nfs", true, 4, 7), of("home", false, 1, 0)];
        let owned =
            |status| ServiceStatus { owner: Some("nfs-b".into()), configured: false, lost: 1, ..status };
        let services = vec![
            owned(of("nfs", false, 4, 5)),
            owned(of("home", false, 2, 9)),
            owned(of("host.nfs-b", false, 1, 1)),
        ];
        add(&mut report, Present { services, ..Present::default() });
        let seen: Vec<_> = report
            .services
            .iter()
            .map(|s| (s.service.as_str(), s.held, s.configured, s.generation.unwrap(), s.records, s.lost))
            .collect();
        let expected = [
            ("nfs", true, true, 4, 7, 1),
            ("home", false, true, 2, 9, 1),
            ("host.nfs-b", false, false, 1, 1, 1),
        ];
        assert_eq!(seen, expected);
        assert_eq!(report.services[1].owner.as_deref(), Some("nfs-b"));
    }
}
