//! Whether another server is to be taken for dead, and whether its service may be adopted without a person.
//!
//! A server lives as long as the beat of its heart, a number in the store, changes. Only changes that were seen
//! count, by our own clock, and only while our own reads and writes of the store succeed: a server that can't
//! see the store can't tell a dead primary from its own blindness. Nor can one that stood still: where all servers did, the
//! first that goes on finds the hearts of the others as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::claim::{Claim, OwnerHeart};
use crate::limits::{INTERRUPTIONS_MIN, UNWATCHED_AFTER};
use crate::moment::Moment;
use crate::names::ServerName;

/// One server's heartbeat as a look into the store showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat<'a> {
    /// The run of its agent.
    pub agent: &'a str,
    /// Changes with every heartbeat of that run.
    pub count: u64,
    /// The server said that it stops in order, or that it is being maintained.
    pub paused: bool,
}

/// Follows the hearts of the other servers.
#[derive(Debug, Clone)]
pub struct Hearts {
    dead_after: Duration,
    /// When seeing began, or began again after the store could not be seen.
    seeing_since: Option<Moment>,
    /// When the last round was.
    round_at: Option<Moment>,
    /// The round after that one failed. Until the next one nothing is known, and time stands still.
    has_missed: bool,
    seen: BTreeMap<ServerName, Seen>,
    /// Their hearts could not be read in the last round, though the store could be.
    unseen: BTreeSet<ServerName>,
    /// What has kept this server from watching to the end since it last did.
    interruptions: Option<Interruptions>,
}

/// The watch was interrupted, and has not come to its end since.
#[derive(Debug, Clone, Copy)]
struct Interruptions {
    /// The last round before the first one.
    since: Moment,
    times: u32,
    /// How much time counts that servers were watched on end since the last one that had the watch begin anew.
    counted: Duration,
}

/// The other servers are not watched to the end: their deaths are not noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwatched {
    /// The last round before the first interruption.
    pub since: Moment,
    /// How often rounds failed since then that had succeeded before.
    pub times: u32,
    /// For how long on end servers must be watched.
    pub needed: Duration,
}

#[derive(Debug, Clone)]
struct Seen {
    agent: String,
    count: u64,
    paused: bool,
    changed_at: Moment,
    /// A change was seen since seeing began: it lived then.
    was_alive: bool,
}

impl Seen {
    fn first(beat: Beat<'_>, now: Moment) -> Self {
        let Beat { agent, count, paused } = beat;
        Self { agent: agent.to_owned(), count, paused, changed_at: now, was_alive: false }
    }
}

impl Hearts {
    /// No server was seen yet.
    #[must_use]
    pub fn new(dead_after: Duration) -> Self {
        Self {
            dead_after,
            seeing_since: None,
            round_at: None,
            has_missed: false,
            seen: BTreeMap::new(),
            unseen: BTreeSet::new(),
            interruptions: None,
        }
    }

    /// How long servers are watched on end before a silence is believed, after a start and after blindness.
    fn needed(&self) -> Duration {
        self.dead_after.saturating_mul(2)
    }

    /// A round in which our own write and all reads of the store succeeded.
    pub fn saw<'a>(&mut self, now: Moment, beats: impl IntoIterator<Item = (&'a ServerName, Beat<'a>)>) {
        let before = self.round_at.replace(now);
        // In so long a gap this server was to be taken for dead itself: it watched no other one.
        let gap = before.map_or(Duration::ZERO, |at| now.since(at));
        if gap >= self.dead_after {
            self.blind_since(before);
        }
        let has_missed = std::mem::take(&mut self.has_missed);
        if has_missed {
            self.leave_out(gap);
            self.interrupted(before);
        } else if self.seeing_since.is_some() {
            self.watched(gap);
        }
        self.seeing_since.get_or_insert(now);
        self.unseen.clear();
        for (server, beat) in beats {
            match self.seen.get_mut(server) {
                // Most hearts are known, and of those nothing is copied.
                Some(seen) if seen.agent == beat.agent => {
                    if seen.count != beat.count {
                        (seen.count, seen.changed_at, seen.was_alive) = (beat.count, now, true);
                    }
                    seen.paused = beat.paused;
                }
                Some(seen) => *seen = Seen { was_alive: true, ..Seen::first(beat, now) },
                None => drop(self.seen.insert(server.clone(), Seen::first(beat, now))),
            }
        }
    }

    /// In this round one server's heart could not be read. The time that it was watched proves nothing: neither that it
    /// lives nor that it is silent.
    pub fn unseen(&mut self, server: &ServerName) {
        self.seen.remove(server);
        self.unseen.insert(server.clone());
    }

    /// A round in which the store could not be written or read. One such round between two that succeed is what a busy disk makes now
    /// and then, and costs the time between these two. After a second one in a row the store was away: see [`Hearts::blind`].
    pub fn missed(&mut self) {
        if self.has_missed || self.seeing_since.is_none() {
            self.blind();
        } else {
            self.has_missed = true;
        }
    }

    /// So much of the time in which servers were watched counts for nothing: another server had as little of it to beat in.
    fn leave_out(&mut self, gap: Duration) {
        if let Some(since) = &mut self.seeing_since {
            *since = *since + gap;
        }
        for seen in self.seen.values_mut() {
            seen.changed_at = seen.changed_at + gap;
        }
    }

    /// The store was away: the time that servers were watched until now proves nothing.
    pub fn blind(&mut self) {
        self.blind_since(self.round_at);
    }

    fn blind_since(&mut self, last_round: Option<Moment>) {
        // One that does not see yet is not interrupted once more.
        if self.seeing_since.take().is_some() {
            self.interrupted(last_round);
            if let Some(interruptions) = &mut self.interruptions {
                interruptions.counted = Duration::ZERO;
            }
        }
        self.has_missed = false;
        for seen in self.seen.values_mut() {
            seen.was_alive = false;
        }
    }

    fn interrupted(&mut self, last_round: Option<Moment>) {
        let Some(since) = last_round else { return };
        let begun = Interruptions { since, times: 0, counted: Duration::ZERO };
        self.interruptions.get_or_insert(begun).times += 1;
    }

    /// Servers were watched for so much longer. Once that is enough to believe a silence, what interrupted it before is past.
    fn watched(&mut self, time: Duration) {
        let needed = self.needed();
        self.interruptions = self.interruptions.take().and_then(|interruptions| {
            let counted = interruptions.counted.saturating_add(time);
            (counted < needed).then_some(Interruptions { counted, ..interruptions })
        });
    }

    /// Whether the other servers are not watched to the end, since a store that is slower than its limits now and then, or fails now
    /// and then, interrupts the watch again and again: for [`UNWATCHED_AFTER`] times as long as a watch takes,
    /// [`INTERRUPTIONS_MIN`] times at least. Of a store that is away all the time its failures speak.
    #[must_use]
    pub fn unwatched(&self, now: Moment) -> Option<Unwatched> {
        let Interruptions { since, times, .. } = self.interruptions?;
        let needed = self.needed();
        let long = needed.saturating_mul(UNWATCHED_AFTER);
        let works_at_times = self.round_at.is_some_and(|at| now.since(at) < long);
        let watches_any = !self.seen.is_empty() || !self.unseen.is_empty();
        let is_so = watches_any && works_at_times && times >= INTERRUPTIONS_MIN && now.since(since) >= long;
        is_so.then_some(Unwatched { since, times, needed })
    }

    /// Whether this server was seen to live later than `since`. A server that stopped in order lives no more.
    #[must_use]
    pub fn lived_after(&self, server: &ServerName, since: Moment) -> bool {
        self.seen.get(server).is_some_and(|seen| seen.was_alive && !seen.paused && seen.changed_at > since)
    }

    /// Whether a server's heartbeat was seen to change less than `dead-after` ago, whatever it says: an agent lives there, in
    /// maintenance or not. An agent that has just stopped in order can't be told from that.
    #[must_use]
    pub fn beats(&self, server: &ServerName, now: Moment) -> bool {
        let now = self.seen_until(now);
        let is_recent = |seen: &Seen| seen.was_alive && now.since(seen.changed_at) < self.dead_after;
        self.seeing_since.is_some() && self.seen.get(server).is_some_and(is_recent)
    }

    /// Until when servers were watched. Between a round that failed and the next one no time passes for their hearts.
    fn seen_until(&self, now: Moment) -> Moment {
        self.round_at.filter(|_| self.has_missed).unwrap_or(now)
    }

    /// The state of one server's heart.
    #[must_use]
    pub fn heart_of(&self, server: &ServerName, now: Moment) -> OwnerHeart {
        let now = self.seen_until(now);
        let needed = self.needed();
        let watched = self.seeing_since.map_or(Duration::ZERO, |since| now.since(since));
        let unknown = OwnerHeart::Unknown { watched, needed };
        if self.unseen.contains(server) {
            return OwnerHeart::Unknown { watched: Duration::ZERO, needed };
        }
        let Some(seen) = self.seen.get(server) else {
            return if watched >= needed { OwnerHeart::NeverSeen } else { unknown };
        };
        if seen.paused {
            return OwnerHeart::Paused;
        }
        // After its start, or after blindness, a server watches twice as long before it believes a silence.
        let since_change = now.since(seen.changed_at.max(self.seeing_since.unwrap_or(now)));
        match seen.was_alive {
            true if since_change < self.dead_after => OwnerHeart::Beating { last_change: since_change },
            true if watched >= needed => OwnerHeart::Silent { for_time: since_change },
            // A server that came into sight later is watched as long as all others were.
            false if since_change >= needed => OwnerHeart::Silent { for_time: since_change },
            _ => OwnerHeart::Unknown { watched: watched.min(since_change), needed },
        }
    }
}

/// Whether a service whose owner's heart is `heart` may be adopted now without a person asking. The fence comes next;
/// without its confirmation nothing follows.
#[must_use]
pub fn may_adopt_unasked(heart: OwnerHeart) -> bool {
    // A pause never triggers, and a server that was never seen was never alive.
    matches!(heart, OwnerHeart::Silent { .. })
}

/// How long the owner of this claim has been silent, where `who` may adopt its service for that without a person asking.
#[must_use]
pub fn silence_to_act_on(claim: &Claim, who: &ServerName, heart: OwnerHeart) -> Option<Duration> {
    match heart {
        OwnerHeart::Silent { for_time } if may_adopt_unasked(heart) => {
            (!claim.released && claim.owner != *who).then_some(for_time)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn a() -> ServerName {
        ServerName::parse("nfs-a").unwrap()
    }

    /// A round of watching: the heartbeat of one server as it was found.
    fn saw(hearts: &mut Hearts, second: u64, server: &ServerName, count: u64, paused: bool) {
        hearts.saw(at(second), [(server, Beat { agent: "run", count, paused })]);
    }

    /// Sees a living server from second 0 to 20.
    fn living() -> Hearts {
        let mut hearts = Hearts::new(DEAD_AFTER);
        for second in 0..=20 {
            saw(&mut hearts, second, &a(), second, false);
        }
        hearts
    }

    #[test]
    fn a_silence_is_acted_on_where_the_service_is_another_servers_still() {
        let us = ServerName::parse("nfs-b").unwrap();
        let for_time = Duration::from_secs(9);
        let silent = OwnerHeart::Silent { for_time };
        let claim = Claim::new(crate::Generation(4), &a(), "agent", 0);
        assert_eq!(silence_to_act_on(&claim, &us, silent), Some(for_time));
        assert_eq!(silence_to_act_on(&claim, &a(), silent), None, "its own");
        let released = Claim { released: true, ..claim.clone() };
        assert_eq!(silence_to_act_on(&released, &us, silent), None, "it was given up in order");
        for heart in [OwnerHeart::NeverSeen, OwnerHeart::Paused] {
            assert_eq!(silence_to_act_on(&claim, &us, heart), None, "{heart:?}");
        }
    }

    #[test]
    fn the_silence_of_a_server_is_believed_after_dead_after() {
        let mut hearts = living();
        saw(&mut hearts, 24, &a(), 20, false);
        assert_eq!(
            hearts.heart_of(&a(), at(24)),
            OwnerHeart::Beating { last_change: Duration::from_secs(4) }
        );
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(25))));
    }

    #[test]
    fn right_after_its_start_an_agent_believes_no_silence() {
        let mut hearts = Hearts::new(DEAD_AFTER);
        for second in 0..=9 {
            saw(&mut hearts, second, &a(), 7, false);
            assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(second))));
        }
        saw(&mut hearts, 10, &a(), 7, false);
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(10))));
    }

    #[test]
    fn blindness_is_not_taken_for_a_dead_primary() {
        let mut hearts = living();
        hearts.blind();
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(60))));
        saw(&mut hearts, 60, &a(), 20, false);
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(69))), "watches twice dead-after again");
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(70))));
    }

    #[test]
    fn a_round_that_fails_between_two_others_costs_the_time_between_them_and_no_more() {
        let mut hearts = living();
        // Every third round fails. Seen are the seconds from 22 to 23, from 25 to 26 and so on: one of three.
        for second in 21..=35 {
            match second % 3 {
                0 => hearts.missed(),
                _ => saw(&mut hearts, second, &a(), 20, false),
            }
            let seen = (21..=second).filter(|second| second % 3 == 2).count();
            let is_silent = may_adopt_unasked(hearts.heart_of(&a(), at(second)));
            assert_eq!(is_silent, seen >= 5, "{second}: {:?}", hearts.heart_of(&a(), at(second)));
        }
        // A server that lives is seen to, however many rounds fail one by one.
        let mut hearts = living();
        for second in 21..=60 {
            match second % 2 {
                0 => hearts.missed(),
                _ => saw(&mut hearts, second, &a(), second, false),
            }
            assert!(matches!(hearts.heart_of(&a(), at(second)), OwnerHeart::Beating { .. }), "{second}");
        }
    }

    #[test]
    fn no_time_passes_for_a_heart_after_a_round_that_failed_and_a_second_one_in_a_row_is_blindness() {
        let mut hearts = living();
        saw(&mut hearts, 24, &a(), 20, false);
        hearts.missed();
        let before = OwnerHeart::Beating { last_change: Duration::from_secs(4) };
        assert_eq!(hearts.heart_of(&a(), at(60)), before);
        hearts.missed();
        saw(&mut hearts, 26, &a(), 20, false);
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(35))), "watches twice dead-after again");
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(36))));
        // A gap as long as dead-after is blindness, however few rounds failed in it.
        let mut hearts = living();
        hearts.missed();
        saw(&mut hearts, 25, &a(), 20, false);
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(34))));
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(35))));
    }

    /// In one of `each` rounds, each a second long, the store is too slow. Gives when it was said first, and what.
    fn slow_in_one_of(each: u64, rounds: u64, mut hearts: Hearts) -> Option<(u64, Unwatched)> {
        (21..21 + rounds).find_map(|second| {
            match second % each {
                0 => hearts.missed(),
                _ => saw(&mut hearts, second, &a(), 20, false),
            }
            Some((second, hearts.unwatched(at(second))?))
        })
    }

    #[test]
    fn a_store_that_is_slow_in_every_second_round_has_no_death_noticed_and_is_named() {
        let mut hearts = living();
        for second in 21..=200 {
            match second % 2 {
                0 => hearts.missed(),
                _ => saw(&mut hearts, second, &a(), 20, false),
            }
            assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(second))), "it is dead, and nobody knows");
        }
        let needed = DEAD_AFTER * 2;
        let told = Unwatched { since: at(21), times: 90, needed };
        assert_eq!(hearts.unwatched(at(500)), None, "the store is away for good");
        assert_eq!(Hearts::new(DEAD_AFTER).unwatched(at(201)), None);
        saw(&mut hearts, 201, &a(), 20, false);
        assert_eq!(hearts.unwatched(at(201)), Some(told));
        let first = slow_in_one_of(2, 200, living()).map(|(second, unwatched)| (second, unwatched.since));
        assert_eq!(first, Some((51, at(21))), "three times as long as a watch takes");
        assert_eq!(slow_in_one_of(10, 2_000, living()), None, "a busy disk makes one wait now and then");
    }

    #[test]
    fn a_watch_that_starts_over_again_and_again_is_named_until_it_comes_to_its_end() {
        let mut hearts = living();
        // Away for two rounds of eight: a silence that lasts as long as `dead-after` is never seen twice as long.
        for second in 21..=100 {
            match second % 8 {
                0 | 1 => hearts.missed(),
                _ => saw(&mut hearts, second, &a(), second, false),
            }
            let is_said = hearts.unwatched(at(second)).is_some();
            assert_eq!(is_said, second >= 23 + 30, "{second}");
        }
        for second in 101..=120 {
            saw(&mut hearts, second, &a(), second, false);
            // Its watch goes on from 98 on.
            let is_said = hearts.unwatched(at(second)).is_some();
            assert_eq!(is_said, second < 98 + 10, "{second}");
        }
    }

    #[test]
    fn an_outage_and_a_machine_that_stood_still_are_one_interruption_each() {
        let mut hearts = living();
        (21..=1_000).for_each(|_| hearts.missed());
        for second in 1_001..=1_030 {
            assert_eq!(hearts.unwatched(at(second)), None, "{second}");
            saw(&mut hearts, second, &a(), 20, false);
        }
        saw(&mut hearts, 5_000, &a(), 21, false);
        assert_eq!(hearts.unwatched(at(5_000)), None);
        // A server without any other one watches none.
        let mut alone = Hearts::new(DEAD_AFTER);
        for second in 0..=200 {
            match second % 2 {
                0 => alone.missed(),
                _ => alone.saw(at(second), []),
            }
            assert_eq!(alone.unwatched(at(second)), None, "{second}");
        }
    }

    /// All servers stood still, as virtual machines do whose host does, and this one goes on first.
    #[test]
    fn the_silence_of_a_server_during_a_gap_in_the_watching_is_not_believed() {
        let mut hearts = living();
        saw(&mut hearts, 50, &a(), 20, false);
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(50))));
        saw(&mut hearts, 51, &a(), 21, false);
        let beats_again = OwnerHeart::Beating { last_change: Duration::ZERO };
        assert_eq!(hearts.heart_of(&a(), at(51)), beats_again, "it goes on as well");

        let mut hearts = living();
        for second in 50..=59 {
            saw(&mut hearts, second, &a(), 20, false);
            assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(second))), "{second}");
        }
        saw(&mut hearts, 60, &a(), 20, false);
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(60))), "one that is dead is found to be");
    }

    #[test]
    fn a_heart_that_can_not_be_read_is_neither_alive_nor_silent_and_says_nothing_of_the_others() {
        let mut hearts = living();
        let b = ServerName::parse("nfs-b").unwrap();
        for second in 21..=60 {
            saw(&mut hearts, second, &b, 20, false);
            hearts.unseen(&a());
            assert!(matches!(hearts.heart_of(&a(), at(second)), OwnerHeart::Unknown { .. }), "{second}");
        }
        assert!(may_adopt_unasked(hearts.heart_of(&b, at(60))));
        // It is watched again as one that was never seen: the next beat may come in a moment.
        for second in 61..=70 {
            saw(&mut hearts, second, &a(), 20, false);
            assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(second))));
        }
        saw(&mut hearts, 71, &a(), 20, false);
        assert!(may_adopt_unasked(hearts.heart_of(&a(), at(71))));
    }

    #[test]
    fn a_paused_heart_is_never_taken_for_dead() {
        let mut hearts = living();
        saw(&mut hearts, 21, &a(), 21, true);
        assert!(!may_adopt_unasked(hearts.heart_of(&a(), at(500))));
    }

    #[test]
    fn an_agent_in_maintenance_beats_and_an_earlier_heartbeat_is_no_beat() {
        let mut hearts = living();
        saw(&mut hearts, 21, &a(), 21, true);
        assert!(hearts.beats(&a(), at(25)) && !hearts.beats(&a(), at(26)));
        hearts.blind();
        assert!(!hearts.beats(&a(), at(22)), "it may have died meanwhile");
        let mut new = Hearts::new(DEAD_AFTER);
        saw(&mut new, 1, &a(), 5, false);
        assert!(!new.beats(&a(), at(1)));
        saw(&mut new, 2, &a(), 6, false);
        assert!(new.beats(&a(), at(2)));
    }

    #[test]
    fn a_server_lived_after_a_moment_where_its_heartbeat_changed_later() {
        let mut hearts = living();
        assert!(hearts.lived_after(&a(), at(19)) && !hearts.lived_after(&a(), at(20)));
        saw(&mut hearts, 21, &a(), 20, false);
        assert!(!hearts.lived_after(&a(), at(20)), "it did not change");
        saw(&mut hearts, 22, &a(), 21, true);
        assert!(!hearts.lived_after(&a(), at(20)), "the last beat of an orderly stop");
        let mut new = Hearts::new(DEAD_AFTER);
        saw(&mut new, 1, &a(), 5, false);
        assert!(!new.lived_after(&a(), at(0)), "an earlier heartbeat is no sign of life");
    }

    #[test]
    fn a_server_that_was_never_seen_triggers_nothing() {
        let mut hearts = Hearts::new(DEAD_AFTER);
        for second in 0..=100 {
            hearts.saw(at(second), []);
        }
        assert_eq!(hearts.heart_of(&a(), at(100)), OwnerHeart::NeverSeen);
        assert!(!may_adopt_unasked(OwnerHeart::NeverSeen));
    }
}
