//! How long an adoption would take, by what was measured: the last adoptions of the service, as their timelines tell, and the parts
//! that a drill itself has measured.
//!
//! A restart takes as long as it took; nothing but another one measures it. So without an adoption in the store there is no estimate
//! of it, and what was measured now is told by itself. Of several adoptions the slowest counts: clients wait for the real one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::takeover::{Milestone, Stamp, Strategy};

/// One adoption that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastAdoption {
    /// This server carried it out. Another one's restart takes another time.
    pub is_ours: bool,
    /// How the lock manager was made to recognise.
    pub strategy: Strategy,
    /// How many clients it had.
    pub clients: usize,
    /// Its timeline, in milliseconds since its run began.
    pub timeline: Vec<Stamp>,
}

/// The parts that the drill has measured, and what is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many clients are on record.
    pub records: usize,
    /// How long the store took to tell them.
    pub store_read: Duration,
    /// How long after the first call the last client that answered did; nothing where none did. A drill calls each twice: its
    /// rpcbind, then its status monitor.
    pub last_answer: Option<Duration>,
    /// Under how many names each client is told.
    pub names: usize,
    /// How long the grace period lasts, where that is known.
    pub grace: Option<Duration>,
    /// How the lock manager would be made to recognise.
    pub strategy: Option<Strategy>,
}

/// How long an adoption would take, in milliseconds since it begins; nothing where no part of it was ever measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Until the service is served again.
    pub until_served_ms: Option<u64>,
    /// Until the last client that can be reached is told.
    pub until_told_ms: Option<u64>,
    /// Until the grace period is over, at the latest: then each client's outcome is known.
    pub until_settled_ms: Option<u64>,
    /// How long the telling takes of that, by the answers of this drill.
    pub telling_ms: Option<u64>,
    /// How many adoptions it is drawn from.
    pub adoptions: usize,
    /// They were carried out by other servers: this one was not seen to adopt yet.
    pub is_of_others: bool,
}

/// Draws an estimate from the last adoptions, the newest first, and from the parts that were measured now. Only adoptions by the
/// same strategy count, and those of this server before those of others.
#[must_use]
pub fn estimate(past: &[PastAdoption], now: &Measured) -> Estimate {
    let telling_ms = now.last_answer.map(|took| telling(millis(took), now.names));
    let is_alike =
        |adoption: &&PastAdoption| now.strategy.is_none_or(|strategy| strategy == adoption.strategy);
    let parts = |ours: bool| -> Vec<Parts> {
        let of = past.iter().filter(is_alike).filter(|adoption| adoption.is_ours == ours);
        of.filter_map(|adoption| Parts::of(adoption, now.records)).collect()
    };
    let (ours, others) = (parts(true), parts(false));
    let is_of_others = ours.is_empty() && !others.is_empty();
    let counted = if ours.is_empty() { others } else { ours };
    let most = |of: fn(&Parts) -> u64| counted.iter().map(of).max();
    // A store that has become slower since then is waited for as well.
    let least_ms = millis(now.store_read);
    let until_served_ms = most(|parts| parts.served_ms).map(|ms| ms.max(least_ms));
    let until_told_ms = until_served_ms.map(|ms| ms.saturating_add(telling_ms.unwrap_or(0)));
    let graced_ms = most(|parts| parts.graced_ms).zip(now.grace);
    let until_settled_ms =
        graced_ms.map(|(opened, grace)| opened.saturating_add(millis(grace)).max(until_told_ms.unwrap_or(0)));
    Estimate {
        until_served_ms,
        until_told_ms,
        until_settled_ms,
        telling_ms,
        adoptions: counted.len(),
        is_of_others,
    }
}

/// Two calls were made of each client, and an adoption makes one to its rpcbind and one for each name.
fn telling(two_calls_ms: u64, names: usize) -> u64 {
    let calls = u64::try_from(names.max(1)).unwrap_or(u64::MAX).saturating_add(1);
    (two_calls_ms / 2).saturating_mul(calls).max(two_calls_ms)
}

/// The times of one adoption, as one of so many records as there are now would have them.
struct Parts {
    /// Until the service was served.
    served_ms: u64,
    /// Until grace opened.
    graced_ms: u64,
}

impl Parts {
    /// Nothing where it did not come so far.
    fn of(adoption: &PastAdoption, records: usize) -> Option<Self> {
        let at = |event: Milestone| first(&adoption.timeline, event);
        // What its owner took to give it up is no part of an adoption whose owner is off.
        let begins = at(Milestone::GivenUp).unwrap_or(0).max(0);
        let since = |at_ms: i64| u64::try_from(at_ms.saturating_sub(begins)).unwrap_or(0);
        let served = since(at(Milestone::Ready)?);
        let graced = since(at(Milestone::Recognised)?).min(served);
        // Where a program reads the placed files, it waits until each is there: twice as many take twice as long.
        let placing = at(Milestone::Conveyed).zip(at(Milestone::Claimed));
        let placing = placing.filter(|_| adoption.strategy.reads_placed());
        let placing = placing.map_or(0, |(conveyed, claimed)| since(conveyed).saturating_sub(since(claimed)));
        let more = grown(placing, adoption.clients, records).saturating_sub(placing);
        Some(Self { served_ms: served.saturating_add(more), graced_ms: graced.saturating_add(more) })
    }
}

/// A time that was measured with `then` clients, with `now` of them; never less.
fn grown(took_ms: u64, then: usize, now: usize) -> u64 {
    let wide = |count: usize| u128::try_from(count.max(1)).unwrap_or(u128::MAX);
    let grown = u128::from(took_ms).saturating_mul(wide(now)) / wide(then);
    u64::try_from(grown).unwrap_or(u64::MAX).max(took_ms)
}

fn first(timeline: &[Stamp], event: Milestone) -> Option<i64> {
    timeline.iter().filter(|stamp| stamp.event == event).map(|stamp| stamp.at_ms).min()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::strategy::Strategy as Draws;

    use super::*;

    fn stamp(event: Milestone, at_ms: i64) -> Stamp {
        Stamp { event, at_ms }
    }

    fn adoption(is_ours: bool, strategy: Strategy, stamps: &[(Milestone, i64)]) -> PastAdoption {
        let timeline = stamps.iter().map(|(event, at_ms)| stamp(*event, *at_ms)).collect();
        PastAdoption { is_ours, strategy, clients: 100, timeline }
    }

    /// A crash, as a restart of NFS has it.
    fn crash(is_ours: bool, ready_ms: i64) -> PastAdoption {
        let stamps = [
            (Milestone::PrimaryLost, -10_000),
            (Milestone::Claimed, 40),
            (Milestone::Conveyed, 900),
            (Milestone::Recognised, ready_ms - 300),
            (Milestone::Ready, ready_ms),
            (Milestone::Ready, ready_ms + 5_000),
        ];
        adoption(is_ours, Strategy::RestartNfs, &stamps)
    }

    fn measured() -> Measured {
        Measured {
            records: 100,
            store_read: Duration::from_millis(20),
            last_answer: Some(Duration::from_millis(60)),
            names: 3,
            grace: Some(Duration::from_secs(90)),
            strategy: Some(Strategy::RestartNfs),
        }
    }

    #[test]
    fn the_slowest_of_this_servers_own_adoptions_counts_and_the_telling_as_it_was_measured_now() {
        let past = [crash(true, 1_800), crash(true, 2_400), crash(false, 9_000)];
        let expected = Estimate {
            until_served_ms: Some(2_400),
            // One call to rpcbind and one for each of three names, 30 ms each.
            until_told_ms: Some(2_400 + 120),
            until_settled_ms: Some(2_100 + 90_000),
            telling_ms: Some(120),
            adoptions: 2,
            is_of_others: false,
        };
        assert_eq!(estimate(&past, &measured()), expected);
    }

    #[test]
    fn where_this_server_never_adopted_those_of_others_are_told_and_said_to_be_theirs() {
        let told = estimate(&[crash(false, 9_000)], &measured());
        assert_eq!((told.until_served_ms, told.adoptions, told.is_of_others), (Some(9_000), 1, true));
    }

    #[test]
    fn without_an_adoption_of_the_same_kind_there_is_no_estimate_but_of_the_telling() {
        let none = Estimate { telling_ms: Some(120), ..Estimate::default() };
        assert_eq!(estimate(&[], &measured()), none);
        let other = adoption(true, Strategy::Command, &[(Milestone::Recognised, 5), (Milestone::Ready, 6)]);
        let failed = adoption(true, Strategy::RestartNfs, &[(Milestone::Claimed, 5)]);
        assert_eq!(estimate(&[other, failed], &measured()), none);
    }

    #[test]
    fn an_owner_that_took_its_time_to_give_the_service_up_is_no_part_of_it() {
        let mut moved = crash(true, 8_400);
        moved.timeline.push(stamp(Milestone::GivenUp, 6_000));
        assert_eq!(estimate(&[moved], &measured()).until_served_ms, Some(2_400));
    }

    #[test]
    fn files_that_a_program_waits_for_take_longer_where_there_are_more() {
        let stamps = [
            (Milestone::Claimed, 100),
            (Milestone::Conveyed, 1_100),
            (Milestone::Recognised, 2_000),
            (Milestone::Ready, 2_500),
        ];
        let past = [adoption(true, Strategy::Command, &stamps)];
        let now = |records| Measured { records, strategy: Some(Strategy::Command), ..measured() };
        let served = |records| estimate(&past, &now(records)).until_served_ms;
        assert_eq!([served(100), served(300), served(1)], [Some(2_500), Some(4_500), Some(2_500)]);
    }

    fn milestones() -> impl Draws<Value = Milestone> {
        prop_oneof![
            Just(Milestone::GivenUp),
            Just(Milestone::Claimed),
            Just(Milestone::Conveyed),
            Just(Milestone::Recognised),
            Just(Milestone::Ready),
            Just(Milestone::Settled),
        ]
    }

    fn pasts() -> impl Draws<Value = Vec<PastAdoption>> {
        let times = prop_oneof![-5_000_i64..500_000, any::<i64>()];
        let timeline = ::proptest::collection::vec((milestones(), times), 0..8);
        let strategy = prop_oneof![Just(Strategy::RestartNfs), Just(Strategy::Command)];
        let one = (any::<bool>(), strategy, any::<usize>(), timeline);
        ::proptest::collection::vec(one, 0..4).prop_map(|all| {
            let made =
                |(is_ours, strategy, clients, stamps): (bool, Strategy, usize, Vec<(Milestone, i64)>)| {
                    PastAdoption { clients, ..adoption(is_ours, strategy, &stamps) }
                };
            all.into_iter().map(made).collect()
        })
    }

    proptest! {
        /// Whatever lies in the store: an estimate is never below its parts, and its moments follow one another.
        #[test]
        fn an_estimate_is_never_shorter_than_a_part_of_it(
            past in pasts(),
            records in any::<usize>(),
            store_ms in any::<u32>(),
            answer_ms in ::proptest::option::of(any::<u32>()),
            names in any::<usize>(),
        ) {
            let now = Measured {
                records,
                store_read: Duration::from_millis(store_ms.into()),
                last_answer: answer_ms.map(|ms| Duration::from_millis(ms.into())),
                names,
                grace: Some(Duration::from_secs(90)),
                strategy: None,
            };
            let told = estimate(&past, &now);
            prop_assert_eq!(told.telling_ms.is_some(), answer_ms.is_some());
            prop_assert!(told.telling_ms.unwrap_or(u64::MAX) >= answer_ms.unwrap_or(0).into());
            prop_assert_eq!(told.until_served_ms.is_some(), told.adoptions > 0);
            if let (Some(served), Some(all), Some(settled)) =
                (told.until_served_ms, told.until_told_ms, told.until_settled_ms)
            {
                prop_assert!(u64::from(store_ms) <= served && served <= all && all <= settled);
            }
            // More clients never make it shorter.
            let fewer = estimate(&past, &Measured { records: records / 2, ..now });
            prop_assert!(fewer.until_served_ms <= told.until_served_ms);
        }
    }
}
