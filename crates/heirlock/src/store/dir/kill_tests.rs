//! A process that works on a store is killed at random moments. The test runs itself as that process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heirlock_core::takeover::OutcomeLine;
use heirlock_core::{Outcome, RecordKey, ServerName};
use heirlock_nsm::MonName;

use super::*;

/// Names the store to the process that is to be killed.
const STORE: &str = "HEIRLOCK_TEST_KILLED_STORE";

const KILLS: u64 = 40;
const CLIENTS: u64 = 24;

fn service() -> ServiceName {
    ServiceName::parse("nfs-a").unwrap()
}

fn client(i: u64) -> MonName {
    MonName::parse(&format!("10.0.0.{i}")).unwrap()
}

/// A record that says which round wrote it.
fn record(i: u64, round: u64) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.{i} round-{round}\n")
        .into_bytes()
}

fn round_of(bytes: &[u8]) -> u64 {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.trim_end().rsplit_once("round-").unwrap().1.parse().unwrap()
}

fn outcome_of(round: u64) -> OutcomeLine {
    let client = format!("outcome-of-round-{round}");
    OutcomeLine::new(RecordKey::parse(&client).unwrap(), Outcome::Acknowledged, 7)
}

fn say(line: &str) {
    // Past the test's own capture, and in one write: a printed line was acknowledged.
    io::stdout().write_all(format!("\nacknowledged {line}\n").as_bytes()).unwrap();
    io::stdout().flush().unwrap();
}

/// Works until it is killed: each life claims a generation and commits rounds to it.
fn work(root: &Path) {
    let store = DirStore::open(root).unwrap();
    let newest = store.newest_claim(&service()).unwrap().map_or(Generation(0), |claim| claim.generation);
    let generation = Generation(newest.0 + 1);
    let claim = Claim::new(generation, &ServerName::parse("a").unwrap(), &format!("run-{generation}"), 7);
    assert_eq!(store.claim(&service(), &claim).unwrap(), ClaimAnswer::Won);
    say(&format!("claim {generation}"));
    let base = store.newest_generation(&service(), newest).unwrap();
    let contents = base.map_or_else(Contents::default, |base| store.load(&service(), base).unwrap());
    let first = contents.records.iter().map(|(_, record)| round_of(record)).max().unwrap_or(0) + 1;
    let contents = Contents { outcomes: Vec::new(), ..contents };
    store.begin_generation(&service(), generation, &contents).unwrap();
    say(&format!("begin {generation}"));
    store.prune(&service(), Generation(generation.0.saturating_sub(3))).unwrap();
    for round in first.. {
        // Turn by turn with a sync for each file and with one for all.
        let count = if round % 2 == 0 { 3 } else { CLIENTS };
        let mut changes: Vec<Change> = (0..count).map(|i| Change::put(client(i), record(i, round))).collect();
        changes.push(Change::AppendOutcome(outcome_of(round)));
        store.commit(&service(), &claim, &changes).unwrap();
        say(&format!("round {generation} {round} {count}"));
    }
}

fn start(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "store::dir::kill_tests::a_killed_process_loses_nothing_it_acknowledged",
        ])
        .env(STORE, root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The acknowledged changes, over all lives.
#[derive(Default)]
struct Acknowledged {
    claim: u64,
    begun: u64,
    /// The last round of each client.
    rounds: BTreeMap<MonName, u64>,
    /// The last outcome, and in which generation.
    outcome: Option<(u64, u64)>,
}

impl Acknowledged {
    fn take(&mut self, line: &str) -> bool {
        let Some(line) = line.strip_prefix("acknowledged ") else { return false };
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "claim" => self.claim = number(1),
            "begin" => self.begun = number(1),
            _ => {
                self.rounds.extend((0..number(3)).map(|i| (client(i), number(2))));
                self.outcome = Some((number(1), number(2)));
            }
        }
        true
    }

    /// Contents that were found are from then on as good as acknowledged: they were seen.
    fn check(&mut self, store: &DirStore, place: &str) {
        let claim = store.newest_claim(&service()).unwrap();
        let claimed = claim.map_or(0, |claim| claim.generation.0);
        assert!(claimed == self.claim || claimed == self.claim + 1, "{place}: {claimed}, not {}", self.claim);
        let Some(newest) = store.newest_generation(&service(), Generation(u64::MAX)).unwrap() else {
            assert_eq!(self.begun, 0, "{place}");
            return;
        };
        assert!(newest.0 >= self.begun && newest.0 <= claimed, "{place}: {newest}, not {}", self.begun);
        let found = store.load(&service(), newest).unwrap();
        assert_eq!(found.damaged, [], "{place}");
        let latest = self.rounds.values().max().copied().unwrap_or(0);
        for (name, bytes) in &found.records {
            let (found, known) = (round_of(bytes), self.rounds.get(name.client()).copied().unwrap_or(0));
            assert!(found == known || found == latest + 1, "{place}: {name} is of {found}, not {known}");
        }
        assert!(self.rounds.keys().all(|name| found.records.contains_key(name)), "{place}: a record is gone");
        let text =
            fs::read_to_string(store.generation(&service(), newest).join("outcomes")).unwrap_or_default();
        let whole = text.lines().count() - usize::from(!text.is_empty() && !text.ends_with('\n'));
        assert_eq!(found.outcomes.len(), whole, "{place}: torn: {text}");
        if let Some((_, round)) = self.outcome.filter(|(generation, _)| *generation == newest.0) {
            let line = outcome_of(round);
            assert!(found.outcomes.contains(&line), "{place}: {line:?} is not in {:?}", found.outcomes);
        }
        (self.claim, self.begun) = (claimed, newest.0);
        self.rounds =
            found.records.iter().map(|(key, record)| (key.client().clone(), round_of(record))).collect();
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    if let Some(root) = std::env::var_os(STORE) {
        return work(Path::new(&root));
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    DirStore::create(&root).unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut random = fastrand::Rng::with_seed(7);
    for kill in 0..KILLS {
        let mut child = start(&root);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some are killed before they get anywhere, some in the midst of their rounds.
        let mut left = random.u32(0..6);
        while left > 0 {
            let line = lines.next().expect("the process goes on until it is killed").unwrap();
            left -= u32::from(acknowledged.take(&line));
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..12_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged.take(&line);
        }
        acknowledged.check(&DirStore::open(&root).unwrap(), &format!("kill {kill}"));
    }
    assert!(acknowledged.rounds.len() as u64 == CLIENTS, "the lives were too short to show anything");
    // The unfinished entries of the killed processes are bounded: each life swept those that it found.
    let newest = root.join(format!("services/nfs-a/{}/sm", acknowledged.begun));
    assert!(fs::read_dir(newest).unwrap().count() as u64 <= 2 * CLIENTS);
}
