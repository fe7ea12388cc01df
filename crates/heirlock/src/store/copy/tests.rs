//! A store is moved between places of each kind, while agents write to it, and is killed at every step.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use heirlock_core::claim::Claim;
use heirlock_core::history::{Beginning, Gap, Tenure, Told};
use heirlock_core::store::in_memory::InMemory;
use heirlock_core::store::{Change, Commit, ServerReport, Store, StoreErrorKind};
use heirlock_core::store_standing::Standing;
use heirlock_core::takeover::{Journal, OutcomeLine, Phase};
use heirlock_core::{Outcome, RecordKey, ServerName};
use heirlock_nsm::{MonName, StateNumber};

use super::super::dir::DirStore;
use super::super::disk::Disk as _;
use super::super::disk::faulty::{Fault, FaultyDisk, Survives};
use super::overtaken::Overtaken;
use super::*;

/// A place: each call opens it anew, as another process would.
type Place = Box<dyn Fn() -> Box<dyn CopiedStore>>;

struct Places {
    name: &'static str,
    from: Place,
    to: Place,
}

fn in_force() -> Standing {
    Standing::InForce(StoreIdentity::of(7 << 124))
}

fn memory() -> Place {
    let store = InMemory::nowhere();
    Box::new(move || Box::new(store.clone()))
}

fn folder() -> Place {
    let disk = FaultyDisk::new();
    Box::new(move || Box::new(DirStore::on(Path::new("/store"), Box::new(disk.clone()))))
}

fn places() -> Vec<Places> {
    vec![
        Places { name: "memory to memory", from: memory(), to: memory() },
        Places { name: "folder to folder", from: folder(), to: folder() },
        Places { name: "folder to memory", from: folder(), to: memory() },
        Places { name: "memory to folder", from: memory(), to: folder() },
    ]
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn claim(generation: u64, owner: &str) -> Claim {
    Claim::new(Generation(generation), &server(owner), "run", 7)
}

fn record(client: &str) -> (RecordKey, Vec<u8>) {
    let text =
        format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} nfs-a\n");
    (MonName::parse(client).unwrap().into(), text.into_bytes())
}

fn tenure() -> Tenure {
    Tenure {
        generation: Generation(1),
        owner: server("a"),
        beginning: Beginning::First,
        from: None,
        began_at_s: 7,
        released_at_s: Some(8),
        phase: Phase::Settled,
        failure: None,
        state_number: Some(5),
        clients: Told::default(),
        gap: Gap::default(),
    }
}

/// A store in force, with the past of one service, another one that was given up, and two hearts.
fn filled(from: &Place) -> Box<dyn CopiedStore> {
    let store = from();
    store.make_as(&in_force()).unwrap();
    store.expect(Some(in_force().identity()));
    let (nfs, other) = (service("nfs"), service("other"));
    for (generation, owner) in [(2, "a"), (3, "b")] {
        store.claim(&nfs, &claim(generation, owner)).unwrap();
        let clients = (0..generation * 10).map(|client| record(&format!("10.0.{generation}.{client}")));
        let line = OutcomeLine::new(RecordKey::parse("10.0.2.1").unwrap(), Outcome::Acknowledged, 7);
        let contents = Contents {
            state: Some(StateNumber(u32::try_from(2 * generation + 1).unwrap())),
            records: clients.collect(),
            journal: Some(Journal::quiet("run", &server(owner), generation)),
            outcomes: vec![line.clone(), line],
            damaged: Vec::new(),
        };
        store.begin_generation(&nfs, Generation(generation), &contents).unwrap();
    }
    store.keep_tenure(&nfs, &tenure()).unwrap();
    store.claim(&other, &claim(1, "a")).unwrap();
    store.begin_generation(&other, Generation(1), &Contents::default()).unwrap();
    store.release(&other, Generation(1)).unwrap();
    for name in ["a", "b"] {
        store.put_server(&ServerReport::new(server(name), "run")).unwrap();
    }
    store
}

/// All of a store that an agent can see.
fn seen(store: &dyn CopiedStore) -> BTreeMap<ServiceName, (Past, BTreeMap<Generation, Contents>)> {
    let all = pasts(store).unwrap().into_iter();
    let all = all.map(|(service, past)| {
        let of = past.generations.iter().map(|number| (*number, store.load(&service, *number).unwrap()));
        let of = of.collect();
        (service, (past, of))
    });
    all.collect()
}

/// What a test does beside a move.
struct Watching<F> {
    asked: usize,
    rests: u64,
    goes_on: F,
}

impl<F: FnMut(usize, Next<'_>) -> bool> Watching<F> {
    fn new(goes_on: F) -> Self {
        Self { asked: 0, rests: 0, goes_on }
    }
}

impl<F: FnMut(usize, Next<'_>) -> bool> Beside for Watching<F> {
    fn now(&self) -> Moment {
        Moment::at(Duration::from_secs(self.rests))
    }

    fn rest(&mut self) {
        self.rests += 1;
    }

    fn goes_on(&mut self, next: Next<'_>) -> bool {
        self.asked += 1;
        (self.goes_on)(self.asked, next)
    }
}

fn names() -> impl Fn() -> CopyName {
    || CopyName::of(fastrand::u64(..))
}

fn moved(from: &dyn CopiedStore, to: &dyn CopiedStore) -> Moved {
    move_store(from, to, names(), &mut Watching::new(|_, _| true)).unwrap()
}

fn is_in_force(store: &dyn CopiedStore) -> bool {
    matches!(store.standing().unwrap(), Some(Standing::InForce(_)))
}

/// As an agent that remembers the store finds it.
fn as_agent(place: &Place) -> Box<dyn CopiedStore> {
    let store = place();
    store.expect(Some(in_force().identity()));
    store
}

/// The store that is left refuses everything, and says where the other one is. The copy holds all of it.
fn has_moved(places: &Places, before: &BTreeMap<ServiceName, (Past, BTreeMap<Generation, Contents>)>) {
    let (left, new) = (as_agent(&places.from), as_agent(&places.to));
    let nfs = service("nfs");
    let put = Change::put(record("10.9.9.9").0, record("10.9.9.9").1);
    let refused = [
        left.found().map(drop),
        left.probe(),
        left.commit(&nfs, &claim(3, "b"), std::slice::from_ref(&put)),
        left.claim(&nfs, &claim(4, "a")).map(drop),
        left.load(&nfs, Generation(3)).map(drop),
        left.put_server(&ServerReport::new(server("a"), "run")),
        (places.from)().found().map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(*error.kind(), StoreErrorKind::NotInForce, "{}: {error}", places.name);
        assert!(error.to_string().contains(&new.describe()), "{}: {error}", places.name);
    }
    assert_eq!(new.found().unwrap().identity.as_ref(), Some(in_force().identity()), "{}", places.name);
    assert_eq!(&seen(new.as_ref()), before, "{}", places.name);
    let hearts = new.hearts().unwrap().reports;
    assert!(hearts.values().all(|heart| heart.paused), "{}: {hearts:?}", places.name);
    new.commit(&nfs, &claim(3, "b"), &[put]).unwrap();
}

fn whole_and_its_place_is_left_behind(places: &Places) {
    let before = seen(filled(&places.from).as_ref());
    let moved = moved((places.from)().as_ref(), (places.to)().as_ref());
    let holds = moved.holds.unwrap();
    assert_eq!((holds.services, holds.generations, holds.records), (2, 3, 50), "{}", places.name);
    assert_eq!(as_agent(&places.to).hearts().unwrap().reports.len(), 2, "{}", places.name);
    has_moved(places, &before);
    let again = move_store(
        (places.from)().as_ref(),
        (places.to)().as_ref(),
        names(),
        &mut Watching::new(|_, _| true),
    );
    assert_eq!(again.unwrap().holds, None, "{}: it had ended", places.name);
}

/// Between any two steps an agent makes a commit. Each one that did not fail is in the copy, and no other is asked for.
fn no_commit_is_lost(places: &Places) {
    let before = filled(&places.from);
    let agent = as_agent(&places.from);
    let taken = RefCell::new(Vec::new());
    let (nfs, by) = (service("nfs"), claim(3, "b"));
    let mut watching = Watching::new(|asked, _: Next<'_>| {
        let (key, bytes) = record(&format!("10.8.{}.{}", asked / 200, asked % 200));
        let line = OutcomeLine::new(key.clone(), Outcome::Lost, 9);
        let removed = RecordKey::parse(&format!("10.0.3.{asked}")).unwrap();
        let changes = [Change::put(key.clone(), bytes), Change::AppendOutcome(line), Change::remove(removed)];
        match agent.commit(&nfs, &by, &changes) {
            Ok(()) => taken.borrow_mut().push(key),
            Err(error) => assert_eq!(*error.kind(), StoreErrorKind::NotInForce, "{error}"),
        }
        true
    });
    move_store((places.from)().as_ref(), (places.to)().as_ref(), names(), &mut watching).unwrap();
    let new = as_agent(&places.to).load(&nfs, Generation(3)).unwrap();
    let taken = taken.into_inner();
    assert!(taken.len() > 5, "{}: {}", places.name, taken.len());
    for key in &taken {
        assert!(new.records.contains_key(key), "{}: {key}", places.name);
        assert!(new.outcomes.iter().any(|line| line.client == *key), "{}: {key}", places.name);
    }
    assert_eq!(new.records.iter().filter(|(key, _)| key.as_str().starts_with("10.8.")).count(), taken.len());
    drop(before);
}

/// Killed before any step, and gone on with by another process; or taken back.
fn killed_at_each_step(places: impl Fn() -> Places, then: impl Fn(&Places, bool)) {
    for step in 1.. {
        let places = places();
        let before = seen(filled(&places.from).as_ref());
        let mut killed = Killed { left: step, was_closed: false };
        if killed.run((places.from)().as_ref(), (places.to)().as_ref()) {
            assert!(step > 10, "{}: {step}", places.name);
            has_moved(&places, &before);
            return;
        }
        let (from, to) = ((places.from)(), (places.to)());
        assert!(
            !(is_in_force(from.as_ref())
                && to.standing().unwrap().is_some_and(|to| matches!(to, Standing::InForce(_)))),
            "{}: both are in force after step {step}",
            places.name
        );
        then(&places, killed.was_closed);
        match is_in_force(from.as_ref()) {
            true => assert_eq!(seen(as_agent(&places.from).as_ref()), before, "{}: {step}", places.name),
            false => has_moved(&places, &before),
        }
    }
}

/// A move that ends before a step as by SIGKILL: it takes nothing back.
struct Killed {
    left: usize,
    was_closed: bool,
}

impl Killed {
    /// Whether it came to its end.
    fn run(&mut self, from: &dyn CopiedStore, to: &dyn CopiedStore) -> bool {
        let mut watching = Watching::new(|asked, _: Next<'_>| asked < self.left);
        let mut moving =
            Moving { source: from, destination: to, beside: &mut watching, holds: Holds::default() };
        let ended = moving.go([names()(), names()()]).is_ok();
        self.was_closed = !is_in_force(from);
        ended
    }
}

#[test]
fn a_store_is_moved_whole_and_its_place_is_left_behind() {
    places().iter().for_each(whole_and_its_place_is_left_behind);
}

#[test]
fn no_commit_that_was_taken_is_lost_wherever_it_comes_between() {
    places().iter().for_each(no_commit_is_lost);
}

#[test]
fn a_move_that_is_killed_before_any_step_is_gone_on_with() {
    for at in 0..places().len() {
        killed_at_each_step(
            || places().remove(at),
            |places, _| drop(moved((places.from)().as_ref(), (places.to)().as_ref())),
        );
    }
}

#[test]
fn a_move_that_is_killed_before_any_step_is_taken_back_unless_it_has_ended() {
    let back = |places: &Places, _| {
        let (from, to) = ((places.from)(), (places.to)());
        match take_back(from.as_ref(), to.as_ref(), names()()) {
            Ok(_) => assert!(is_in_force(from.as_ref()), "{}", places.name),
            Err(CopyError::Refused(Refusal::Moved(_))) => {
                assert!(is_in_force(to.as_ref()), "{}", places.name);
            }
            Err(error) => panic!("{}: {error}", places.name),
        }
    };
    for at in 0..places().len() {
        killed_at_each_step(|| places().remove(at), back);
    }
}

#[test]
fn a_move_that_is_interrupted_leaves_the_source_in_force() {
    for places in places() {
        let before = seen(filled(&places.from).as_ref());
        let mut watching = Watching::new(|_, next: Next<'_>| !matches!(next, Next::Step(Step::Open { .. })));
        let (from, to) = ((places.from)(), (places.to)());
        let failed = move_store(from.as_ref(), to.as_ref(), names(), &mut watching).unwrap_err();
        assert_eq!(
            *failed,
            NotMoved { why: CopyError::Interrupted, source: Source::InForce },
            "{}",
            places.name
        );
        assert_eq!(seen(as_agent(&places.from).as_ref()), before, "{}", places.name);
        assert_eq!(*as_agent(&places.to).found().unwrap_err().kind(), StoreErrorKind::NotInForce);
    }
}

#[test]
fn a_run_of_the_copy_that_another_one_has_taken_over_changes_nothing_more() {
    for places in places() {
        filled(&places.from);
        let other_from = (places.from)();
        let other_to = (places.to)();
        let mut other_ran = false;
        let mut watching = Watching::new(|_, next: Next<'_>| {
            if let Next::Step(Step::Close { .. }) = next
                && !std::mem::replace(&mut other_ran, true)
            {
                moved(other_from.as_ref(), other_to.as_ref());
            }
            true
        });
        let ended = move_store((places.from)().as_ref(), (places.to)().as_ref(), names(), &mut watching);
        // It has found that the other one has ended.
        assert!(ended.is_ok(), "{}: {ended:?}", places.name);
        assert!(!is_in_force((places.from)().as_ref()) && is_in_force((places.to)().as_ref()));
    }
}

#[test]
fn nothing_is_moved_where_something_cant_be_read_and_that_is_named() {
    let disk = FaultyDisk::new();
    let inner = disk.clone();
    let from: Place = Box::new(move || Box::new(DirStore::on(Path::new("/store"), Box::new(inner.clone()))));
    filled(&from);
    let path = Path::new("/store/services/nfs/3/sm/10.0.3.1");
    disk.remove(path).unwrap();
    disk.write(path, b"torn", true).unwrap();
    let to = memory();
    let mut watching = Watching::new(|_, _: Next<'_>| true);
    let failed = move_store(from().as_ref(), to().as_ref(), names(), &mut watching).unwrap_err();
    assert!(failed.why.to_string().contains("sm/10.0.3.1"), "{failed:?}");
    assert_eq!(failed.source, Source::InForce);
    assert!(is_in_force(from().as_ref()));
}

fn on(disk: &FaultyDisk) -> Place {
    let disk = disk.clone();
    Box::new(move || Box::new(DirStore::on(Path::new("/store"), Box::new(disk.clone()))))
}

/// The power fails before one operation of the source's disk or of the destination's, and the same command is said once more.
#[test]
fn a_move_whose_disk_loses_power_before_any_operation_is_gone_on_with() {
    for (is_source, survives) in
        [(true, Survives::Some(3)), (false, Survives::Nothing), (false, Survives::Some(5))]
    {
        for operation in 0.. {
            let disks = [FaultyDisk::new(), FaultyDisk::new()];
            let before = seen(filled(&on(&disks[0])).as_ref());
            let failing = &disks[usize::from(!is_source)];
            failing.set(Fault::CrashBefore(failing.steps() + operation));
            let (from, to) = (on(&disks[0])(), on(&disks[1])());
            let first = move_store(from.as_ref(), to.as_ref(), names(), &mut Watching::new(|_, _| true));
            if first.is_ok() && failing.list(Path::new("/")).is_ok() {
                assert!(operation > if is_source { 2 } else { 30 }, "{is_source}: {operation}");
                break;
            }
            let found = failing.after_crash(survives);
            let (from, to) =
                if is_source { (on(&found), on(&disks[1])) } else { (on(&disks[0]), on(&found)) };
            let places = Places { name: "after a crash", from, to };
            let (left, new) = ((places.from)(), (places.to)());
            let is_new = matches!(new.standing().unwrap(), Some(Standing::InForce(_)));
            assert!(!(is_new && is_in_force(left.as_ref())), "{is_source}, {survives:?}, {operation}");
            moved(left.as_ref(), new.as_ref());
            has_moved(&places, &before);
        }
    }
}

/// A call of an agent, and whether a store shows that it was made.
type Overtakable = (&'static str, fn(&dyn Store) -> Result<(), StoreError>, fn(&dyn Store) -> bool);

const OVERTAKABLE: [Overtakable; 6] = [
    (
        "commit",
        |store| store.commit(&service("nfs"), &claim(3, "b"), &[put_new()]),
        |copy| has_new(copy, Generation(3)),
    ),
    (
        "commit_each",
        |store| {
            let commit = |name, by| Commit { service: service(name), by, changes: vec![put_new()] };
            store.commit_each(&[commit("nfs", claim(3, "b")), commit("other", claim(1, "a"))])
        },
        |copy| has_new(copy, Generation(3)),
    ),
    (
        "claim",
        |store| store.claim(&service("nfs"), &claim(4, "a")).map(drop),
        |copy| copy.newest_claim(&service("nfs")).unwrap() == Some(claim(4, "a")),
    ),
    (
        "begin_generation",
        |store| {
            let contents =
                Contents { records: [record("10.7.7.7")].into_iter().collect(), ..Contents::default() };
            store.begin_generation(&service("nfs"), Generation(4), &contents)
        },
        |copy| has_new(copy, Generation(4)),
    ),
    (
        "release",
        |store| store.release(&service("nfs"), Generation(3)),
        |copy| copy.newest_claim(&service("nfs")).unwrap().is_some_and(|newest| newest.released),
    ),
    (
        "keep_tenure",
        |store| store.keep_tenure(&service("nfs"), &Tenure { generation: Generation(2), ..tenure() }),
        |copy| copy.past(&service("nfs")).unwrap().tenures.len() == 2,
    ),
];

fn put_new() -> Change {
    let (key, bytes) = record("10.7.7.7");
    Change::put(key, bytes)
}

fn has_new(store: &dyn Store, generation: Generation) -> bool {
    store
        .load(&service("nfs"), generation)
        .is_ok_and(|contents| contents.records.contains_key(&record("10.7.7.7").0))
}

/// At any operation of its disk a call is overtaken by a whole move.
#[test]
fn a_change_of_a_folder_that_is_overtaken_by_a_move_fails_or_is_in_the_copy() {
    for (name, call, is_made) in OVERTAKABLE {
        let (mut in_the_copy, mut all) = (0, 0);
        for operation in 0.. {
            let disk = FaultyDisk::new();
            let from = on(&disk);
            filled(&from);
            let to = memory();
            let (source, copy) = (from(), to());
            let disk = Overtaken::new(disk, operation, move || drop(moved(source.as_ref(), copy.as_ref())));
            let agent = DirStore::on(Path::new("/store"), Box::new(disk.clone()));
            agent.expect(Some(in_force().identity()));
            let made = call(&agent);
            if !disk.has_happened() {
                break;
            }
            let is_there = is_made(as_agent(&to).as_ref());
            match made {
                Ok(()) => assert!(is_there, "{name}: it was made before operation {operation}, and is lost"),
                Err(error) => assert_eq!(*error.kind(), StoreErrorKind::NotInForce, "{name}: {error}"),
            }
            in_the_copy += usize::from(is_there);
            all += 1;
        }
        assert!(in_the_copy > 0 && all > in_the_copy, "{name}: {in_the_copy} of {all}");
    }
}

#[cfg(feature = "etcd")]
mod on_etcd {
    use super::super::super::etcd::testing::{Etcd, Fate, Proxy};
    use super::*;
    use crate::store::etcd::EtcdStore;

    /// Places in one etcd, each below another prefix.
    fn prefix(etcd: &Etcd, through: Option<&Proxy>) -> Place {
        let mut settings = etcd.settings(&format!("/heirlock/{:x}/", fastrand::u64(..)));
        settings.endpoints = through.map_or(settings.endpoints, |proxy| vec![proxy.url()]);
        Box::new(move || Box::new(EtcdStore::at(&settings)))
    }

    fn places(etcd: &Etcd) -> [Places; 3] {
        [
            Places { name: "folder to etcd", from: folder(), to: prefix(etcd, None) },
            Places { name: "etcd to folder", from: prefix(etcd, None), to: folder() },
            Places { name: "etcd to etcd", from: prefix(etcd, None), to: prefix(etcd, None) },
        ]
    }

    #[test]
    fn a_store_is_moved_to_etcd_and_back_and_no_commit_is_lost() {
        let Some(etcd) = Etcd::start(1) else { return };
        places(&etcd).iter().for_each(whole_and_its_place_is_left_behind);
        places(&etcd).iter().for_each(no_commit_is_lost);
    }

    #[test]
    fn a_move_to_or_from_etcd_that_is_killed_is_gone_on_with_or_taken_back() {
        let Some(etcd) = Etcd::start(1) else { return };
        for at in 0..2 {
            let here = || {
                let [to, from, _] = places(&etcd);
                if at == 0 { to } else { from }
            };
            killed_at_each_step(here, |places, _| {
                drop(moved((places.from)().as_ref(), (places.to)().as_ref()));
            });
            killed_at_each_step(here, |places, _| {
                let _ = take_back((places.from)().as_ref(), (places.to)().as_ref(), names()());
            });
        }
    }

    #[test]
    fn a_move_bears_that_each_answer_is_lost_once_and_that_questions_are_carried_out_late() {
        let Some(etcd) = Etcd::start(1) else { return };
        for fate in [Fate::Swallowed, Fate::Late] {
            let proxy = Proxy::before(etcd.address(0));
            let places = Places { name: "folder to etcd", from: folder(), to: prefix(&etcd, Some(&proxy)) };
            let before = seen(filled(&places.from).as_ref());
            proxy.plan(move |asked| if asked.is_repeated { Fate::Passes } else { fate });
            moved((places.from)().as_ref(), (places.to)().as_ref());
            has_moved(&places, &before);
        }
    }
}

/// Commits by chance, between any steps.
mod by_chance {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_agents_do_between_the_steps_the_copy_is_what_the_source_was_when_it_was_closed(
            doings in proptest::collection::vec((1_usize..30, 0_u8..6, 0_u8..40), 0..60),
        ) {
            let from = memory();
            filled(&from);
            let to = memory();
            let agent = as_agent(&from);
            let last = Rc::new(RefCell::new(seen(agent.as_ref())));
            let (nfs, by) = (service("nfs"), claim(3, "b"));
            let mut watching = Watching::new(|asked, _: Next<'_>| {
                for (_, what, client) in doings.iter().filter(|(at, ..)| *at == asked) {
                    let (key, bytes) = record(&format!("10.0.3.{client}"));
                    // Where it is closed each of them fails.
                    let _ = match what {
                        0 | 1 => agent.commit(&nfs, &by, &[Change::put(key, bytes)]),
                        2 => agent.commit(&nfs, &by, &[Change::remove(key)]),
                        3 => agent.commit(&nfs, &by, &[Change::AppendOutcome(OutcomeLine::new(key, Outcome::Lost, 1))]),
                        4 => agent.claim(&nfs, &claim(4, "a")).and_then(|_| {
                            agent.begin_generation(&nfs, Generation(4), &Contents::default())
                        }),
                        _ => agent.prune(&nfs, Generation(3)),
                    };
                }
                if agent.found().is_ok() {
                    *last.borrow_mut() = seen(agent.as_ref());
                }
                true
            });
            move_store(from().as_ref(), to().as_ref(), names(), &mut watching).unwrap();
            prop_assert_eq!(&seen(as_agent(&to).as_ref()), &*last.borrow());
        }
    }
}
