//! A schedule: all that decides a history. It has the dimensions of a world, how often what is small goes wrong in it, which
//! incidents there are and when, and the number from which everything else is drawn ([`crate::chance`]).
//!
//! A seed is one schedule ([`Schedule::draw`]). A history that is to be kept is a schedule that was written down
//! (`text.rs`): it stays what it is when seeds come to tell other stories.

mod draw;
mod shrink;
mod text;

use heirlock_agent::InstanceNumber;

use crate::Ms;
use crate::lock_manager::LockManagerAt;

pub use shrink::shrink;

/// Incidents end before this moment. Then everything is repaired, and must settle.
pub(crate) const INCIDENTS_END: Ms = 110_000;
/// Servers of a world.
pub(crate) const SERVERS_MAX: usize = 3;
/// Services of a world that move.
pub(crate) const SERVICES_MAX: usize = 3;
/// Lock managers of a server.
pub(crate) const LOCK_MANAGERS_MAX: usize = 3;

/// All that decides a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The seed of all draws that the schedule does not say.
    pub(crate) streams: u64,
    pub(crate) servers: Vec<ServerPlan>,
    /// Services that move. Each server has its own besides; by index these come after.
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) clients: Vec<ClientPlan>,
    /// The cluster manager lets two servers adopt at the same moment.
    pub(crate) is_hasty: bool,
    /// Hostile texts lie in the status monitors' directories, and answers of clients are cut short.
    pub(crate) has_garbage: bool,
    pub(crate) levels: Levels,
    /// In their order.
    pub(crate) incidents: Vec<(Ms, Incident)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerPlan {
    /// See [`crate::lock_manager::LockManager::is_newer`].
    pub(crate) is_newer: bool,
    /// One at least.
    pub(crate) lock_managers: Vec<LockManagerPlan>,
}

impl ServerPlan {
    /// The lock managers of this server, which is at that place.
    pub(crate) fn lock_managers_at(&self, server: usize) -> impl Iterator<Item = LockManagerAt> + use<> {
        let places = 0..self.lock_managers.len();
        places.map(move |place| LockManagerAt { server, number: InstanceNumber::at(place) })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockManagerPlan {
    /// The NSM state number of its status monitor.
    pub(crate) state: u32,
    /// How its agent notices records.
    pub(crate) capture: Capture,
    /// In mode `nsm`: clients that can't be made durable are granted their locks, instead of being refused.
    pub(crate) grants_unprotected: bool,
}

/// How an agent notices the records of a lock manager: `capture.mode` in its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capture {
    /// It watches rpc.statd's directory.
    Watch,
    /// The same, and rpc.statd's callout asks it.
    Callout,
    /// It is the status monitor.
    Nsm,
}

impl Capture {
    /// All of them.
    pub const ALL: [Capture; 3] = [Capture::Watch, Capture::Callout, Capture::Nsm];

    /// As the configuration spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Capture::Watch => "watch",
            Capture::Callout => "callout",
            Capture::Nsm => "nsm",
        }
    }

    /// The one that is spelt so.
    ///
    /// # Errors
    /// The words that are expected.
    pub fn parse(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == word);
        found.ok_or_else(|| format!("expected watch, callout or nsm, found {word:?}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePlan {
    /// The server that claims it first.
    pub(crate) home: usize,
    /// Agents take it over by themselves.
    pub(crate) is_automatic: bool,
    /// The servers that may, in groups by preference; nothing where all may.
    pub(crate) candidates: Vec<Vec<usize>>,
    /// The lock manager that serves it, by server.
    pub(crate) served_by: Vec<InstanceNumber>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientPlan {
    /// Services that it mounts, by index.
    pub(crate) mounts: Vec<usize>,
    /// Datagrams to and from it that are lost, in percent.
    pub(crate) loss: u8,
}

/// The faults that happen now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// A call of the store fails; all, some or none of what was asked for is there. Per 1,000 calls.
    StoreFails,
    /// A call of the store succeeds, and its answer is lost. Per 1,000 calls.
    StoreAnswersLost,
    /// A call of the store is told to have failed, and is done later. Per 1,000 calls.
    StoreLate,
    /// How long a call of the store takes at the most, in milliseconds.
    StoreSlow,
    /// A fence does not confirm. Percent.
    FenceFails,
    /// Of datagrams, percent. How many are lost is each client's own.
    DatagramsDoubled,
    DatagramsLate,
    /// Hints of a status monitor's directory that are lost. Percent.
    HintsLost,
    /// Words of the cluster manager, and of an operator, that are said twice. Percent.
    WordsRepeated,
    /// Work of an agent that hangs. Per 1,000.
    WorkHangs,
    /// Looks of an agent that hang: at its status monitor's directory, and for the addresses of names. Per 1,000.
    LooksHang,
}

impl Level {
    const ALL: [Level; 11] = [
        Level::StoreFails,
        Level::StoreAnswersLost,
        Level::StoreLate,
        Level::StoreSlow,
        Level::FenceFails,
        Level::DatagramsDoubled,
        Level::DatagramsLate,
        Level::HintsLost,
        Level::WordsRepeated,
        Level::WorkHangs,
        Level::LooksHang,
    ];

    fn name(self) -> &'static str {
        match self {
            Level::StoreFails => "store-fails",
            Level::StoreAnswersLost => "store-answers-lost",
            Level::StoreLate => "store-late",
            Level::StoreSlow => "store-slow",
            Level::FenceFails => "fence-fails",
            Level::DatagramsDoubled => "datagrams-doubled",
            Level::DatagramsLate => "datagrams-late",
            Level::HintsLost => "hints-lost",
            Level::WordsRepeated => "words-repeated",
            Level::WorkHangs => "work-hangs",
            Level::LooksHang => "looks-hang",
        }
    }
}

/// All levels; 0 where nothing goes wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Levels([u16; Level::ALL.len()]);

impl Levels {
    pub(crate) fn of(&self, level: Level) -> u16 {
        self.0[level as usize]
    }

    pub(crate) fn set(&mut self, level: Level, to: u16) {
        self.0[level as usize] = to;
    }
}

/// Something that happens once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incident {
    /// The server fails, so many steps of its agent from now; at once where it has no agent.
    Crash { server: usize, steps: u32 },
    /// The agent dies, so many of its steps from now.
    KillAgent { server: usize, steps: u32 },
    /// The agent is stopped (SIGSTOP) and goes on later, with its old knowledge. Messages for it wait meanwhile.
    StopAgent { server: usize, ms: Ms },
    /// The NFS of a lock manager is stopped in order, and started again.
    RestartNfs { of: LockManagerAt, ms: Ms },
    /// lockd gets a SIGKILL: it drops its locks in place at the next request.
    KillLockd { of: LockManagerAt },
    /// The server can't reach the store.
    CutOff { server: usize, ms: Ms },
    /// Its wall clock is off by so much from now on.
    SetClock { server: usize, seconds: i64 },
    /// Something moves all files of a lock manager's status monitor to `sm.bak`.
    MoveToBak { of: LockManagerAt },
    /// No server can reach the store.
    StoreAway { ms: Ms },
    /// The client and the servers can't reach each other.
    ClientAway { client: usize, ms: Ms },
    /// An operator has a service adopted without need.
    Adopt { service: usize, server: usize },
    /// An operator has a service adopted although its owner lives, and insists.
    Insist { service: usize, server: usize },
    /// An operator has all services adopted to one server although their owners live, and insists: one after the other, with
    /// so much time in between.
    Meet { server: usize, gap: Ms },
    /// An operator moves a service.
    Move { service: usize, server: usize },
    /// An operator on one server has a service moved to another one (`heirlock move`).
    Transfer { service: usize, server: usize, by: usize },
    /// An operator asks the home of a service to bring it home.
    Failback { service: usize },
    /// An operator maintains a server for so long.
    Maintain { server: usize, ms: Ms },
    /// A client's host is restarted, and is off for so long.
    RestartClient { client: usize, ms: Ms },
    /// A host that is no client announces at a service's address that it was restarted.
    Stranger { service: usize },
}

impl Incident {
    /// The lock manager that it happens to, where it happens to one.
    pub(crate) fn lock_manager(&self) -> Option<LockManagerAt> {
        match self {
            Incident::RestartNfs { of, .. } | Incident::KillLockd { of } | Incident::MoveToBak { of } => {
                Some(*of)
            }
            _ => None,
        }
    }
}

impl Schedule {
    /// The same with all lock managers in one mode.
    #[must_use]
    pub fn in_mode(mut self, capture: Capture) -> Self {
        let servers = self.servers.iter_mut();
        servers.flat_map(|server| &mut server.lock_managers).for_each(|it| it.capture = capture);
        self
    }

    /// Whether any server has more than one lock manager.
    #[must_use]
    pub fn has_several_lock_managers(&self) -> bool {
        self.servers.iter().any(|server| server.lock_managers.len() > 1)
    }
}
