//! Bugs that are planted on purpose, to show that the simulator's checkers fire (crates/sim/plants). Without the feature
//! `plants` there are none, and nothing of this is compiled in.

#[cfg(feature = "plants")]
use std::sync::atomic::{AtomicU8, Ordering};

/// One bug: its name says what is done wrong, and the first line of its documentation which invariant that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// I1: SM_MON is answered before its record is durable.
    AnswerFirst = 12,
    /// I2: a vanished record is believed to be gone at once.
    BelieveDeletions = 1,
    /// I3: a service is claimed although its owner's heart beats.
    ClaimOverLiving,
    /// I10: calls are repeated without a wait.
    Flood,
    /// I7: a run that drops a server's own locks doesn't tell its own clients.
    ForgetOwn,
    /// I9: a run that was interrupted before it recognised is not done anew.
    ForgetRedo,
    /// I4: the end of grace stops no notification.
    NotifyAfterGrace,
    /// I5: a number that was sent before is sent again.
    ReuseNumber,
    /// I8: nothing is said of clients that did not answer.
    SilentOutcome,
    /// I7: servers that this one mounts from are told as if they were clients.
    TellPeers,
    /// I6: a host that is not in the TCP table is no client.
    TrustHint,
    /// I11: any text is a name.
    TrustNames,
}

#[cfg(feature = "plants")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug, for this whole process.
#[cfg(feature = "plants")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, Ordering::Relaxed);
}

/// Whether a bug is planted.
#[cfg(feature = "plants")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Whether a bug is planted: never.
#[cfg(not(feature = "plants"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
