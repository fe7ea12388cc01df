//! The random draws of a run: each purpose has a stream of its own for each owner, and each stream begins anew in each second.
//!
//! So a draw depends on the schedule's number, on what it is for, on the second, and on how many draws of the same kind
//! came before it in this second. A history that is kept survives that code elsewhere draws more or less, or that a step
//! takes a few milliseconds longer.

use fastrand::Rng;

use crate::Ms;

/// The purpose of a draw, and the owner of its stream. Histories that are kept draw by the number of a purpose: a new one comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// When a server comes back: a server.
    Boot,
    /// When an agent comes back: a server.
    AgentStart,
    /// The fate of a call of the store: a server.
    Store,
    /// Whether a fence confirms: a server.
    Fence,
    /// Whether a hint arrives, and when: a server.
    Hint,
    /// How long a lock manager's part of an answer takes: a server.
    LockManager,
    /// Where the numbers of a notifier's calls begin: a server.
    Notifier,
    /// The doings of a client's processes: a client.
    Process,
    /// How long a client's part of a call takes: a client.
    Call,
    /// The fate of datagrams to and from a client: a client.
    Datagram,
    /// The choices of the cluster manager: a service.
    Choice,
    /// When its words reach an agent: a server.
    Word,
    /// Which server fails when all is over: no owner.
    Last,
    /// When our own status monitor reads and acts, and which of its unsynced files are lost: a server.
    StatusMonitor,
    /// When a callout reaches its agent, and whether its notes are lost: a server.
    Callout,
    /// Numbers that are unlikely to come twice: a server.
    Number,
    /// How long a look beside an agent's loop takes: a server.
    Look,
    /// How long a conveyor takes: a server.
    Conveyor,
    /// Which words of the cluster manager are said twice: a server.
    Repeat,
    /// Which work hangs, and for how long: a server.
    Hang,
    /// How a client's new boot announces itself: a client.
    Restart,
    /// What a stranger announces: a service.
    Stranger,
    /// What a status monitor and its lock manager do with an announcement: a server.
    Announced,
    /// Which look hangs, and for how long: a server.
    HungLook,
}

/// All streams of a run.
#[derive(Debug)]
pub(crate) struct Chance {
    number: u64,
    /// By purpose and owner.
    open: Vec<Vec<Stream>>,
}

#[derive(Debug)]
struct Stream {
    /// The second that it is of; of none before its first draw.
    second: Option<u64>,
    rng: Rng,
}

impl Default for Stream {
    fn default() -> Self {
        Self { second: None, rng: Rng::with_seed(0) }
    }
}

impl Chance {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, open: Vec::new() }
    }

    /// The stream for a purpose.
    pub(crate) fn of(&mut self, purpose: Purpose, whose: usize, now: Ms) -> &mut Rng {
        let second = now / 1_000;
        let stream = place(place(&mut self.open, purpose as usize), whose);
        if stream.second != Some(second) {
            let whose = u64::try_from(whose).unwrap_or(u64::MAX);
            let rng = Rng::with_seed(mixed([self.number, purpose as u64, whose, second]));
            *stream = Stream { second: Some(second), rng };
        }
        &mut stream.rng
    }
}

/// The place of this number, which is made where there are fewer.
fn place<T: Default>(places: &mut Vec<T>, number: usize) -> &mut T {
    if places.len() <= number {
        places.resize_with(number + 1, T::default);
    }
    &mut places[number]
}

/// A stream that is drawn from before a run begins, by its name.
pub(crate) fn named(number: u64, name: &str, whose: usize) -> Rng {
    let name = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Rng::with_seed(mixed([number, name, u64::try_from(whose).unwrap_or(u64::MAX), 0]))
}

/// One number of several, which differs in half of its bits where one of them differs in one (the finaliser of `SplitMix64`).
fn mixed(parts: [u64; 4]) -> u64 {
    parts.into_iter().fold(0, |hash: u64, part| {
        let mut z = (hash ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(chance: &mut Chance, purpose: Purpose, whose: usize, now: Ms) -> Vec<u64> {
        (0..4).map(|_| chance.of(purpose, whose, now).u64(..)).collect()
    }

    #[test]
    fn a_draw_does_not_depend_on_other_draws_or_on_the_seconds_before() {
        let expected = drawn(&mut Chance::new(7), Purpose::Store, 1, 12_345);
        let mut other = Chance::new(7);
        drawn(&mut other, Purpose::Store, 1, 11_999);
        drawn(&mut other, Purpose::Store, 0, 12_000);
        drawn(&mut other, Purpose::Datagram, 1, 12_000);
        assert_eq!(drawn(&mut other, Purpose::Store, 1, 12_000), expected);
        assert_ne!(drawn(&mut other, Purpose::Store, 1, 12_000), expected, "it goes on within the second");
    }

    #[test]
    fn streams_differ_by_number_purpose_owner_and_second() {
        let all = [
            drawn(&mut Chance::new(7), Purpose::Store, 1, 12_000),
            drawn(&mut Chance::new(8), Purpose::Store, 1, 12_000),
            drawn(&mut Chance::new(7), Purpose::Fence, 1, 12_000),
            drawn(&mut Chance::new(7), Purpose::Store, 2, 12_000),
            drawn(&mut Chance::new(7), Purpose::Store, 1, 13_000),
        ];
        let different: std::collections::BTreeSet<&Vec<u64>> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
