//! Bugs that are planted on purpose, to show that the simulator's checkers fire (crates/sim/plants). Without the feature
//! `plants` there are none, and nothing of this is compiled in.

#[cfg(feature = "plants")]
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident, $name:literal, breaks $invariant:expr;)*) => {
        /// One bug: its name says what is done wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug),*];

            /// How it is called on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name,)* }
            }

            /// The invariant that is the first to be broken. `None` where only the bounds of what is excused show it.
            #[must_use]
            pub const fn breaks(self) -> Option<u8> {
                match self { $(Bug::$bug => $invariant,)* }
            }
        }
    };
}

bugs! {
    /// SM_MON is answered before its record is durable.
    AnswerFirst, "answer-first", breaks Some(1);
    /// A callout is answered before its client is durable. The agent has this bug.
    CalloutFirst, "callout-first", breaks Some(1);
    /// An SM_MON waits for the store, however long that takes.
    WaitForStore, "wait-for-store", breaks Some(1);
    /// A vanished record is believed to be gone at once.
    BelieveDeletions, "believe-deletions", breaks Some(2);
    /// A host that says that it was restarted is taken for every client: the locks of all are freed.
    FreeAll, "free-all", breaks Some(2);
    /// A generation begins without the last client of the one before.
    BeginWithoutOne, "begin-without-one", breaks Some(2);
    /// A client that could not be told is forgotten at once, registered or not. The agent has this bug.
    ForgetUntold, "forget-untold", breaks Some(2);
    /// A client that could not be told is forgotten after `forget-after`, although it came back.
    ForgetReturned, "forget-returned", breaks Some(2);
    /// Clients that registered again are retired with those that did not.
    RetireAll, "retire-all", breaks Some(2);
    /// A service is claimed although its owner's heart beats.
    ClaimOverLiving, "claim-over-living", breaks Some(3);
    /// A higher claim takes no service away.
    IgnoreOvertaken, "ignore-overtaken", breaks Some(3);
    /// The end of grace stops no notification.
    NotifyAfterGrace, "notify-after-grace", breaks Some(4);
    /// Notifications leave until grace ends, without a margin.
    IgnoreMargin, "ignore-margin", breaks Some(4);
    /// A server that takes a service over sends a number that was sent before.
    ReuseNumber, "reuse-number", breaks Some(5);
    /// A number is even.
    EvenNumber, "even-number", breaks Some(5);
    /// A client that is not in the TCP table is taken for no client.
    TrustHint, "trust-hint", breaks Some(6);
    /// Of a look only the first portion is compared.
    FirstPortion, "first-portion", breaks Some(6);
    /// A run that drops a server's own locks doesn't tell its own clients.
    ForgetOwn, "forget-own", breaks Some(7);
    /// Servers that this one mounts from are told as if they were clients.
    TellPeers, "tell-peers", breaks Some(7);
    /// Nothing is said of clients that did not answer.
    SilentOutcome, "silent-outcome", breaks Some(8);
    /// Nothing is said of clients that can't be told any more.
    SilentLoss, "silent-loss", breaks Some(8);
    /// A run that was interrupted before it recognised is not done anew.
    ForgetRedo, "forget-redo", breaks Some(9);
    /// A run that was interrupted after it recognised does not go on.
    ForgetResume, "forget-resume", breaks Some(9);
    /// A run waits for its last client, for ever.
    NeverSettle, "never-settle", breaks Some(9);
    /// Calls are repeated without a wait.
    Flood, "flood", breaks Some(10);
    /// The time that a move has left is news of it, and makes the next heartbeat due at once.
    BeatForTime, "beat-for-time", breaks Some(10);
    /// Any text is a name.
    TrustNames, "trust-names", breaks Some(11);
    /// Each lock manager serves the services of all. The agent has this bug, as those that follow.
    ServeAll, "serve-all", breaks Some(7);
    /// A request for a service of another lock manager goes to the first one.
    AskFirst, "ask-first", breaks Some(7);
    /// A look at the directory of one lock manager's status monitor is taken for a look at the next one's.
    DirectoryOfAnother, "directory-of-another", breaks Some(6);
    /// A look at one lock manager is taken for a look at the next one.
    LifeOfAnother, "life-of-another", breaks Some(4);
    /// A registration with one lock manager is made durable for the services of the next one.
    RegisteredWithAnother, "registered-with-another", breaks Some(7);
    /// That one lock manager was made to recognise is taken for the recognition of all.
    RecognisedByAll, "recognised-by-all", breaks Some(10);
    /// A service whose adoption has joined that of another one is taken over without its clients.
    ForgetJoined, "forget-joined", breaks Some(8);
    /// Adoptions that meet before the lock manager is restarted have it restarted once each.
    RestartForEach, "restart-for-each", breaks Some(10);
    /// Every loss is excused. The simulator itself has this bug.
    ExcuseAll, "excuse-all", breaks None;
}

#[cfg(feature = "plants")]
static PLANTED: AtomicU8 = AtomicU8::new(u8::MAX);

/// Plants a bug, for this whole process.
#[cfg(feature = "plants")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, Ordering::Relaxed);
}

/// Whether a bug is planted.
#[cfg(feature = "plants")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Whether a bug is planted: never.
#[cfg(not(feature = "plants"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}
