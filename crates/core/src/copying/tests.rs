use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::claim::Claim;
use crate::names::{Generation, ServiceName};
use crate::store::{Change, Contents, Fill, Past};

fn identity(n: u128) -> StoreIdentity {
    StoreIdentity::of(n << 124)
}

fn names() -> [CopyName; 2] {
    [CopyName::of(1), CopyName::of(2)]
}

fn filling(of: u128, pair: u64) -> Standing {
    Standing::Filling { identity: identity(of), pair: CopyName::of(pair), run: CopyName::of(9) }
}

fn moved(of: u128, pair: u64) -> Standing {
    Standing::moved(&identity(of), [CopyName::of(pair), CopyName::of(9)], "the new place")
}

fn begin(source: Option<&Standing>, destination: Option<&Standing>) -> Result<Begin, Refusal> {
    Copying::begin(source, destination, names(), "the new place", true)
}

fn begun(source: &Standing, destination: Option<&Standing>) -> Copying {
    match begin(Some(source), destination).unwrap() {
        Begin::Copy(copying) => *copying,
        Begin::Ended(_) => panic!("it has ended"),
    }
}

fn passed(steps: usize, second: u64, beat: u64) -> Done {
    let beats = Beats::from([(ServerName::parse("a").unwrap(), ("run".to_owned(), beat))]);
    Done::Passed { steps, beats, now: Moment::at(Duration::from_secs(second)) }
}

#[test]
fn only_an_empty_place_or_a_copy_of_the_same_store_is_filled() {
    let source = Standing::InForce(identity(7));
    assert_eq!(begin(None, None).unwrap_err(), Refusal::NoSource);
    assert_eq!(begin(Some(&filling(7, 1)), None).unwrap_err(), Refusal::SourceIsACopy(identity(7)));
    let refused = |found: &Standing| begin(Some(&source), Some(found)).unwrap_err();
    let (source_store, found) = (identity(7), identity(8));
    assert_eq!(refused(&source), Refusal::Same(identity(7)));
    let in_use = Refusal::InUse { source_store: source_store.clone(), found: found.clone() };
    assert_eq!(refused(&Standing::InForce(identity(8))), in_use);
    assert_eq!(refused(&filling(8, 1)), Refusal::OtherCopy { source_store, found: found.clone() });
    assert_eq!(refused(&moved(8, 1)), Refusal::LeftBehind { found, to: "the new place".into() });
    assert!(matches!(refused(&moved(7, 1)), Refusal::LeftBehind { .. }), "also where it was the same store");
}

#[test]
fn a_closed_source_goes_on_to_the_place_that_it_was_closed_for_and_to_no_other() {
    let source = moved(7, 5);
    for other in [None, Some(filling(7, 6)), Some(filling(8, 5)), Some(Standing::InForce(identity(8)))] {
        let refused = begin(Some(&source), other.as_ref()).unwrap_err();
        assert!(matches!(refused, Refusal::ClosedForAnother { .. }), "{other:?}: {refused:?}");
    }
    let mut copying = begun(&source, Some(&filling(7, 5)));
    assert_eq!(copying.source(), &source);
    assert!(matches!(copying.next(), Step::Retake { .. }));
    copying.made(Done::Made).unwrap();
    assert_eq!((copying.next(), copying.source()), (Step::Pass, &source));
    let ended = begin(Some(&source), Some(&Standing::InForce(identity(7)))).unwrap();
    assert!(matches!(ended, Begin::Ended(store) if store == identity(7)));
}

#[test]
fn the_destination_is_opened_after_a_pass_of_the_closed_source_that_found_nothing_to_do() {
    let source = Standing::InForce(identity(7));
    let mut copying = begun(&source, None);
    assert_eq!(copying.next(), Step::Make(copying.filling().clone()));
    copying.made(Done::Made).unwrap();
    for steps in [100_000, 500] {
        assert_eq!((copying.next(), copying.source()), (Step::Pass, &source));
        copying.made(passed(steps, 0, 1)).unwrap();
    }
    copying.made(passed(3, 0, 2)).unwrap();
    let Step::Close { from, to } = copying.next() else { panic!("{:?}", copying.next()) };
    assert_eq!((&from, copying.source()), (&source, &source));
    copying.made(Done::Made).unwrap();
    assert_eq!(copying.source(), &to);
    copying.made(passed(2, 1, 3)).unwrap();
    assert_eq!(copying.next(), Step::Pass, "that one found something");
    copying.made(passed(0, 1, 3)).unwrap();
    sealed(&mut copying);
    copying.made(passed(1, 1, 3)).unwrap();
    assert_eq!(copying.next(), Step::Pass, "a step of an earlier name had come about late");
    copying.made(passed(0, 1, 3)).unwrap();
    sealed(&mut copying);
    copying.made(passed(0, 1, 3)).unwrap();
    assert_eq!(copying.next(), Step::Hearts);
    copying.made(Done::Made).unwrap();
    let open = Step::Open { from: copying.filling().clone(), to: source.clone() };
    assert_eq!(copying.next(), open);
    copying.made(Done::Made).unwrap();
    assert_eq!(copying.next(), Step::Ended);
}

/// The run takes another name before the last pass.
fn sealed(copying: &mut Copying) {
    let Step::Retake { from, to } = copying.next() else { panic!("{:?}", copying.next()) };
    assert_eq!(&from, copying.filling());
    assert_ne!(from, to);
    copying.made(Done::Made).unwrap();
    assert_eq!((copying.next(), copying.filling()), (Step::Pass, &to));
}

#[test]
fn a_source_that_changes_all_the_time_is_closed_after_some_passes() {
    let mut copying = begun(&Standing::InForce(identity(7)), None);
    copying.made(Done::Made).unwrap();
    for _ in 0..COPY_PASSES_OPEN_MAX {
        assert_eq!(copying.next(), Step::Pass);
        copying.made(passed(1_000_000, 0, 1)).unwrap();
    }
    assert!(matches!(copying.next(), Step::Close { .. }));
}

#[test]
fn a_source_that_refuses_by_a_look_alone_is_left_when_its_hearts_have_stood_still() {
    let source = Standing::InForce(identity(7));
    let begun = Copying::begin(Some(&source), None, names(), "x", false).unwrap();
    let Begin::Copy(mut copying) = begun else { panic!("it has ended") };
    for done in [Done::Made, passed(0, 0, 1), Done::Made] {
        copying.made(done).unwrap();
    }
    for (second, beat) in [(1, 1), (2, 2), (4, 3), (6, 3)] {
        copying.made(passed(0, second, beat)).unwrap();
        assert_eq!(copying.next(), Step::Pass, "in second {second}");
    }
    copying.made(passed(0, 7, 3)).unwrap();
    sealed(&mut copying);
    copying.made(passed(0, 7, 4)).unwrap();
    assert_eq!(copying.next(), Step::Pass, "a heart has beaten once more");
}

#[test]
fn a_source_that_changes_although_it_is_closed_is_never_left() {
    let mut copying = begun(&moved(7, 5), Some(&filling(7, 5)));
    copying.made(Done::Made).unwrap();
    let failed = (0..COPY_PASSES_CLOSED_MAX).find_map(|_| copying.made(passed(1, 0, 1)).err());
    assert_eq!(failed, Some(Failure::StillChanges));
}

#[test]
fn a_move_is_taken_back_after_every_run_of_it_was_shut_out_and_never_after_it_has_ended() {
    let run = || CopyName::of(77);
    let source = moved(7, 5);
    let in_force = Standing::InForce(identity(7));
    let back = give_up(Some(&source), Some(&filling(7, 5)), run()).unwrap();
    let (from, to) = back.destination.unwrap();
    assert_eq!(from, filling(7, 5));
    assert!(matches!(to, Standing::Filling { run: now, .. } if now == run()));
    assert_eq!(back.source, Some((source.clone(), in_force.clone())));
    assert_eq!(give_up(Some(&source), Some(&in_force), run()), Err(Refusal::Moved(identity(7))));
    for other in [filling(7, 6), filling(8, 5), Standing::InForce(identity(8)), moved(7, 5)] {
        let refused = give_up(Some(&source), Some(&other), run()).unwrap_err();
        assert!(matches!(refused, Refusal::ClosedForAnother { .. }), "{other:?}: {refused:?}");
    }
    assert_eq!(give_up(Some(&in_force), Some(&filling(7, 5)), run()), Ok(GivenUp::default()));
    let without = give_up(Some(&source), None, run()).unwrap();
    assert_eq!((without.destination, without.source.unwrap().1), (None, in_force));
}

#[test]
fn a_copied_heart_is_no_reason_to_adopt() {
    let report = ServerReport::new(ServerName::parse("a").unwrap(), "run");
    let copied = copied_heart(&ServerReport { wants: vec![ServiceName::parse("nfs").unwrap()], ..report });
    assert!(copied.paused && copied.wants.is_empty());
    assert_eq!(copied.ailments, [NOT_YET_HERE]);
}

type Side = BTreeMap<ServiceName, (BTreeMap<u64, Claim>, BTreeMap<u64, Contents>)>;

fn past(side: &Side) -> BTreeMap<ServiceName, Past> {
    let past = |(claims, generations): &(BTreeMap<u64, Claim>, BTreeMap<u64, Contents>)| Past {
        claims: claims.values().rev().cloned().collect(),
        generations: generations.keys().rev().copied().map(Generation).collect(),
        ..Past::default()
    };
    side.iter().map(|(service, of)| (service.clone(), past(of))).collect()
}

fn apply(side: &mut Side, service: &ServiceName, fill: Fill) {
    let (claims, generations) = side.entry(service.clone()).or_default();
    match fill {
        Fill::Claim(claim) => drop(claims.insert(claim.generation.0, claim)),
        Fill::RemoveClaim(number) => assert!(claims.remove(&number.0).is_some()),
        Fill::Begin(number, contents) => assert_eq!(generations.insert(number.0, *contents), None),
        Fill::Change(number, changes) => {
            let contents = generations.get_mut(&number.0).unwrap();
            changes.into_iter().for_each(|change| contents.apply(change));
        }
        Fill::RemoveGeneration(number) => assert!(generations.remove(&number.0).is_some()),
        Fill::Tenure(_) | Fill::RemoveTenure(_) => panic!("there is none"),
    }
}

fn side() -> impl Strategy<Value = Side> {
    let claim = |number: u64, (owner, released): (bool, bool)| {
        let owner = ServerName::parse(if owner { "a" } else { "b" }).unwrap();
        Claim { released, ..Claim::new(Generation(number), &owner, "run", 7) }
    };
    let outcome = |client: u8| {
        let client = crate::RecordKey::parse(&format!("10.0.0.{client}")).unwrap();
        crate::takeover::OutcomeLine::new(client, crate::Outcome::Lost, 7)
    };
    let contents = (
        proptest::collection::btree_map(0_u8..6, 0_u8..3, 0..5),
        proptest::option::of(0_u32..3),
        proptest::option::of(0_u64..3),
        proptest::collection::vec(0_u8..3, 0..4),
    );
    let contents = contents.prop_map(move |(records, state, round, outcomes)| {
        let mut contents = Contents {
            state: state.map(heirlock_nsm::StateNumber),
            journal: round
                .map(|round| crate::takeover::Journal::quiet("run", &ServerName::parse("a").unwrap(), round)),
            outcomes: outcomes.into_iter().map(outcome).collect(),
            ..Contents::default()
        };
        for (client, text) in records {
            let key = crate::RecordKey::parse(&format!("10.0.0.{client}")).unwrap();
            contents.apply(Change::put(key, vec![text]));
        }
        contents
    });
    let claims = proptest::collection::btree_map(1_u64..5, any::<(bool, bool)>(), 0..4)
        .prop_map(move |all| all.into_iter().map(|(number, of)| (number, claim(number, of))).collect());
    let service = (claims, proptest::collection::btree_map(1_u64..5, contents, 0..3));
    let name = prop_oneof![Just("nfs"), Just("nfs-b"), Just("nfs-c")];
    proptest::collection::btree_map(name.prop_map(|name| ServiceName::parse(name).unwrap()), service, 0..3)
}

proptest! {
    #[test]
    fn a_pass_makes_any_store_alike_to_any_other_and_finds_nothing_to_do_after_that(source in side(), mut there in side()) {
        for pass in 0..2 {
            for task in tasks(&past(&source), &past(&there)) {
                let (service, fills) = match task {
                    Task::Fill(service, fill) => (service, vec![fill]),
                    Task::Begin(service, number) => {
                        let contents = source[&service].1[&number.0].clone();
                        (service, vec![Fill::Begin(number, Box::new(contents))])
                    }
                    Task::Compare(service, number) => {
                        let (here, there) = (&source[&service].1[&number.0], &there[&service].1[&number.0]);
                        let fills = difference(number, here, there);
                        (service, fills)
                    }
                };
                prop_assert!(pass == 0 || fills.is_empty(), "{fills:?}");
                fills.into_iter().for_each(|fill| apply(&mut there, &service, fill));
            }
        }
        let not_empty = |side: Side| -> Side {
            side.into_iter().filter(|(_, (claims, generations))| !claims.is_empty() || !generations.is_empty()).collect()
        };
        prop_assert_eq!(not_empty(source), not_empty(there));
    }
}
