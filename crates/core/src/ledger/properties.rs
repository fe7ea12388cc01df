//! Properties of every sequence of scans.

use heirlock_nsm::MonitorLine;
use heirlock_nsm::record::{parse_record, render_record};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const DELAY: Duration = Duration::from_secs(120);
const CLIENTS: u8 = 4;

fn client(number: u8) -> MonName {
    MonName::parse(&format!("10.0.0.{number}")).unwrap()
}

fn line(number: u8, cookie: u8) -> MonitorLine {
    let my_name = heirlock_nsm::MyName::parse("nfs-a").unwrap();
    MonitorLine { cookie: [cookie; 16], ..MonitorLine::generated(client(number), my_name) }
}

/// One look at the directory, with the state of the lock manager then.
#[derive(Debug, Clone)]
struct Look {
    seconds_later: u64,
    life: Option<u8>,
    present: u8,
    doubtful: u8,
    incomplete: bool,
    /// Whether the store took what it was given.
    committed: bool,
    /// Where it did not say so, whether it took it all the same.
    lands: bool,
}

fn look() -> impl Strategy<Value = Look> {
    let life = prop_oneof![1 => Just(None), 6 => Just(Some(1)), 2 => Just(Some(2))];
    let rarely = || prop_oneof![4 => Just(0), 1 => 0_u8..1 << CLIENTS];
    let (incomplete, committed) = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    (0_u64..200, life, 0_u8..1 << CLIENTS, rarely(), incomplete, committed, any::<bool>()).prop_map(
        |(seconds_later, life, present, doubtful, incomplete, committed, lands)| Look {
            seconds_later,
            life,
            present,
            doubtful,
            incomplete,
            committed,
            lands,
        },
    )
}

impl Look {
    fn shows(&self, number: u8) -> bool {
        self.present >> number & 1 == 1
    }

    /// Its record can't be there.
    fn lacks(&self, number: u8) -> bool {
        !self.shows(number) && !self.incomplete && self.doubtful >> number & 1 == 0
    }

    fn population(&self) -> Population {
        let all = |bits: u8| (0..CLIENTS).filter(move |number| bits >> number & 1 == 1);
        Population {
            clients: all(self.present).map(|n| (client(n), render_record(&[line(n, 1)]))).collect(),
            doubtful: all(self.doubtful).map(client).collect(),
            incomplete: self.incomplete,
            ..Population::default()
        }
    }

    fn life(&self) -> Option<Incarnation> {
        self.life.map(|n| Incarnation { boot: "b".into(), start: n.to_string(), reopened: 0 })
    }
}

/// I2, said of the whole past: one life served from a look that shows the record until now, and every look of the last
/// `DELAY` lacks it.
fn may_be_forgotten(past: &[(Moment, Look)], number: u8) -> bool {
    let Some((now, last)) = past.last() else { return false };
    let serves = |look: &Look| look.life.is_some() && look.life == last.life;
    let stretch: Vec<_> = past.iter().rev().take_while(|(_, look)| serves(look)).collect();
    let without = stretch.iter().take_while(|(_, look)| look.lacks(number)).count();
    let (without, before) = stretch.split_at(without);
    without.last().is_some_and(|(first, _)| now.since(*first) >= DELAY)
        && before.iter().any(|(_, look)| look.shows(number))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_client_is_forgotten_whose_record_vanished_too_lately_or_in_another_life(
        stored in 0_u8..1 << CLIENTS, looks in vec(look(), 1..30),
    ) {
        let known = Look { present: stored, ..looks[0].clone() }.population().clients;
        let (mut ledger, mut store) = (Ledger::new(known.clone(), false, DELAY), known);
        let (mut now, mut past, mut in_doubt) = (Moment::START, Vec::new(), BTreeSet::new());
        for look in looks {
            now = now + Duration::from_secs(look.seconds_later);
            let found = look.population();
            past.push((now, look.clone()));
            let before = ledger.stored().clone();
            let entries = ledger.compare(now, &found, &Roles::default(), look.life().as_ref());
            for entry in &entries {
                match entry {
                    RecordChange::Put(key, record) => {
                        prop_assert_eq!(found.clients.get(key), Some(record));
                        let is_known = before.get(key) == Some(record) && !in_doubt.contains(key);
                        prop_assert!(!is_known, "written though it is known");
                    }
                    RecordChange::Remove(key) => {
                        let number = (0..CLIENTS).find(|n| *key == client(*n)).unwrap();
                        prop_assert!(may_be_forgotten(&past, number), "{key} is forgotten after {past:#?}");
                    }
                }
            }
            if look.committed || look.lands {
                for entry in &entries {
                    match entry {
                        RecordChange::Put(key, record) => drop(store.insert(key, record.clone())),
                        RecordChange::Remove(key) => drop(store.remove(key)),
                    }
                }
            }
            if look.committed {
                ledger.committed(&entries);
                let is_there = |(key, record): (&RecordKey, &Record)| {
                    ledger.stored().get(key) == Some(record) && store.get(key) == Some(record)
                };
                prop_assert!(found.clients.iter().all(is_there), "{store:?} after {past:#?}");
                in_doubt.retain(|key| !entries.iter().any(|entry| entry.key() == key));
            } else {
                ledger.uncommitted(&entries);
                prop_assert_eq!(ledger.stored(), &before);
                in_doubt.extend(entries.iter().map(|entry| entry.key().clone()));
            }
        }
    }

    /// Compared in portions that are committed one by one, a look leads to the same store, and to the same deletions that
    /// wait to be believed.
    #[test]
    fn portions_of_any_size_come_to_what_the_whole_comes_to(
        stored in 0_u8..1 << CLIENTS, looks in vec(look(), 1..30), clients in 1_usize..4, puts_max in 1_usize..3, removals_max in 1_usize..3,
    ) {
        let known = Look { present: stored, ..looks[0].clone() }.population().clients;
        let (mut whole, mut now) = (Ledger::new(known, false, DELAY), Moment::START);
        let mut in_portions = whole.clone();
        for look in looks {
            now = now + Duration::from_secs(look.seconds_later);
            let (found, life) = (look.population(), look.life());
            let entries = whole.compare(now, &found, &Roles::default(), life.as_ref());
            whole.committed(&entries);
            let (mut comparison, mut portions) = (in_portions.begin_comparison(), 0);
            while comparison != Comparison::Over {
                let portion = Portion::of(clients, puts_max, removals_max);
                let entries = in_portions.compare_some(
                    &mut comparison, now, &found, &Roles::default(), life.as_ref(), portion,
                );
                let puts = entries.iter().filter(|entry| entry.written().is_some()).count();
                prop_assert!(puts <= puts_max && entries.len() - puts <= removals_max);
                in_portions.committed(&entries);
                portions += 1;
                prop_assert!(portions <= 4 * usize::from(CLIENTS) + 2, "it comes to no end: {comparison:?}");
            }
            prop_assert_eq!(in_portions.stored(), whole.stored());
            prop_assert_eq!(&in_portions.tombstones, &whole.tombstones);
            prop_assert_eq!(&in_portions.seen, &whole.seen);
        }
    }

    /// The contrary: a record that is deleted while one life serves on is forgotten in the end.
    #[test]
    fn a_deletion_in_a_life_that_goes_on_is_believed_in_the_end(
        before in vec(look(), 0..10), stays in 0_u8..1 << CLIENTS, pause in 1_u64..50,
    ) {
        let mut ledger = Ledger::new(Records::new(), false, DELAY);
        let everybody = Look {
            seconds_later: pause, life: Some(3), present: (1 << CLIENTS) - 1, doubtful: 0, incomplete: false, committed: true,
            lands: true,
        };
        let some = Look { present: stays, ..everybody.clone() };
        let quiet = std::iter::repeat_n(some.clone(), usize::try_from(120 / pause + 2).unwrap());
        let mut now = Moment::START;
        for look in before.into_iter().chain([everybody]).chain(quiet) {
            now = now + Duration::from_secs(look.seconds_later);
            let entries = ledger.compare(now, &look.population(), &Roles::default(), look.life().as_ref());
            ledger.committed(&entries);
        }
        prop_assert_eq!(ledger.stored(), &some.population().clients);
        prop_assert_eq!((ledger.tombstones(), ledger.next_tombstone_due()), (0, None));
    }

    /// However registrations lie in files, and in whatever order these are found, each client has all of its lines.
    #[test]
    fn a_population_is_every_line_under_its_client(
        placed in vec((0..CLIENTS, 0_u8..6, any::<bool>(), 0_u8..4), 0..24), turn in any::<prop::sample::Index>(),
    ) {
        let mut files: BTreeMap<(Folder, MonName), Vec<MonitorLine>> = BTreeMap::new();
        let mut expected: BTreeMap<MonName, BTreeSet<[u8; 16]>> = BTreeMap::new();
        for (number, file, backed_up, cookie) in placed {
            let folder = if backed_up { Folder::SmBak } else { Folder::Sm };
            let name = MonName::parse(&format!("file{file}.example.test")).unwrap();
            files.entry((folder, name)).or_default().push(line(number, cookie));
            expected.entry(client(number)).or_default().insert([cookie; 16]);
        }
        let mut files: Vec<ScannedFile> = files
            .into_iter()
            .map(|((folder, name), lines)| ScannedFile { folder, name, bytes: render_record(&lines).into() })
            .collect();
        let found = population(&Scan { files: files.clone(), problems: Vec::new() }, &BTreeMap::new(), &Addresses::new());
        let kept: BTreeMap<MonName, BTreeSet<[u8; 16]>> = found
            .clients
            .iter()
            .map(|(key, record)| (key.client().clone(), parse_record(record).unwrap().lines.iter().map(|l| l.cookie).collect()))
            .collect();
        prop_assert_eq!(kept, expected);
        prop_assert!(found.doubtful.is_empty() && found.unresolved.is_empty() && !found.incomplete);
        if !files.is_empty() {
            let at = turn.index(files.len());
            files.rotate_left(at);
        }
        let again = population(&Scan { files, problems: Vec::new() }, &BTreeMap::new(), &Addresses::new());
        prop_assert_eq!(again, found);
    }
}
