//! The events and the actions of the adoption's state machine.

use std::collections::BTreeSet;
use std::time::Duration;

use heirlock_nsm::{MonName, StateNumber};

use super::journal::{Journal, OutcomeLine, Part, Trouble};
use super::member::Summary;
use super::{Authorities, Conveyance, Strategy, Work};
use crate::incarnation::Incarnation;
use crate::moment::Moment;
use crate::names::{Generation, ServiceName};
use crate::outcome::Outcome;
use crate::records::{RecordChange, RecordKey, Records};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The run may begin.
    Start,
    /// The work of an action begins now ([`Action::work`]): from this moment on it is waited for.
    Begun(Work),
    /// The result of [`Action::CheckFit`].
    Fit(Result<(), String>),
    /// The fence's answer; `Ok` is *confirmed off*.
    Fenced(Result<(), String>),
    /// The result of [`Action::Claim`]. An empty list means that nothing was claimed.
    Claimed {
        /// those that are ours now
        won: Vec<Claimed>,
        /// those that are not, and why
        refused: Vec<(ServiceName, String)>,
        /// those of the refused that are ours all the same: after the claim it could not be read what it brings
        unread: Vec<ServiceName>,
    },
    /// The result of [`Action::Convey`]: the records that could not be placed. Their clients are told all the same. Where the run
    /// went on meanwhile it comes in any phase.
    Conveyed(Result<Vec<Trouble>, String>),
    /// The result of [`Action::Recognise`].
    Recognised(Result<Recognition, String>),
    /// The result of [`Action::Prove`].
    Proved(Result<(), String>),
    /// The operator said `--finish`.
    Finish,
    /// The result of [`Action::BringUp`]: clients can be told, those of this server's own name at least.
    BroughtUp(Result<(), String>),
    /// An address of a service of the run is served here.
    Served(ServiceName),
    /// Clients answered every form of their notification. Clients that answered together are told of together: their
    /// outcomes become durable in one go.
    Acknowledged {
        /// of which service
        service: ServiceName,
        /// the clients
        clients: Vec<MonName>,
    },
    /// Every client of a service has answered, or had its first round of tries; a client that has not answered is called
    /// again.
    TriedAll {
        /// which
        service: ServiceName,
    },
    /// The notifier of a service is through: every client answered, or it is too late.
    NotifyEnded {
        /// which
        service: ServiceName,
        /// the clients that did not answer, and why
        left: Vec<(MonName, Outcome, String)>,
    },
    /// These clients registered with this lock manager since it recognised.
    Registered(BTreeSet<RecordKey>),
    /// Time passed; these clients are registered with the lock manager now.
    Tick {
        /// keys of all records in the status monitor's directory, conveyed ones left out
        present: BTreeSet<RecordKey>,
        /// when the lock manager was last looked at, and was in the same life
        looked_at: Option<Moment>,
    },
    /// The lock manager was restarted, and not by this run: its locks are gone once more. To be told where the run
    /// [heeds](super::Takeover::heeds_lives) that.
    LifeChanged,
    /// This server gave a service away in order: its clients are told by the server that takes it next.
    GivenUp(ServiceName),
    /// Another server claimed a higher generation: this server is not the adopter any more (I3).
    Overtaken(ServiceName),
}

/// One service that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The service.
    pub service: ServiceName,
    /// Its new generation.
    pub generation: Generation,
    /// All records of the generation before.
    pub records: Records,
    /// Every state number that may have been sent for it.
    pub sent: Vec<StateNumber>,
    /// Clients that an earlier run of this server told in the life that runs: their locks live in it.
    pub told: BTreeSet<RecordKey>,
    /// The entries of the generation before that can't be read.
    pub troubles: Vec<Trouble>,
}

/// The results of a recognition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognition {
    /// The life that began.
    pub life: Incarnation,
    /// When its grace period opened, at the latest.
    pub grace_opened: Moment,
    /// How long it lasts, at the least.
    pub grace_length: Duration,
    /// The life before was served outside grace when it ended ([`crate::grace::had_ended`]): a client that was still to be
    /// told in it can have lost its locks to others.
    pub too_late_for_the_lost: bool,
}

/// A change that must be durable before the actions of the same batch begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persist {
    /// A new generation, whole.
    Begin {
        /// of which service
        service: ServiceName,
        /// which
        generation: Generation,
        /// the number that its notifications will carry
        state: StateNumber,
        /// all its records
        records: Records,
        /// how far it is
        journal: Journal,
    },
    /// How far a generation is.
    Journal {
        /// of which service
        service: ServiceName,
        /// which
        generation: Generation,
        /// how far it is
        journal: Journal,
    },
    /// The outcomes of some clients.
    Outcomes {
        /// of which service
        service: ServiceName,
        /// in which generation
        generation: Generation,
        /// a line each
        lines: Vec<OutcomeLine>,
    },
    /// Clients that hold no locks any more: told in time, and grace is over without a registration.
    Retire {
        /// of which service
        service: ServiceName,
        /// in which generation
        generation: Generation,
        /// the clients
        clients: Vec<RecordKey>,
    },
}

impl Persist {
    /// The generation that it concerns.
    #[must_use]
    pub fn generation(&self) -> (&ServiceName, Generation) {
        match self {
            Persist::Begin { service, generation, .. }
            | Persist::Journal { service, generation, .. }
            | Persist::Outcomes { service, generation, .. }
            | Persist::Retire { service, generation, .. } => (service, *generation),
        }
    }

    /// The records that it removes.
    #[must_use]
    pub fn removals(&self) -> Vec<RecordChange> {
        match self {
            Persist::Retire { clients, .. } => clients.iter().map(RecordChange::remove).collect(),
            Persist::Begin { .. } | Persist::Journal { .. } | Persist::Outcomes { .. } => Vec::new(),
        }
    }
}

/// An action. Except for [`Action::Notify`] and [`Action::Over`] each is answered by exactly one event. Of work that
/// is done beside the run ([`Action::work`]) the run is told first that it began ([`Event::Begun`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Find out whether the strategy can work on this server, before anything is claimed.
    CheckFit(Strategy),
    /// Have the owners of these services confirmed off.
    Fence(Vec<ServiceName>),
    /// Claim the next generation of each.
    Claim {
        /// targets first
        services: Vec<(ServiceName, Part)>,
        /// what permits it while an owner lives
        authority: Authorities,
    },
    /// Place the targets' records into the status monitor's directory.
    Convey {
        /// service by service
        services: Vec<(ServiceName, Records)>,
        /// how
        how: Conveyance,
    },
    /// Make the lock manager recognise.
    Recognise(Strategy),
    /// Ask the lock manager whether it is in grace until it says so.
    Prove,
    /// Bring up what the targets need: address, exports, registration; or see that it is there.
    BringUp(Vec<(ServiceName, Part)>),
    /// Tell these clients, in grace alone.
    Notify(Vec<Notice>),
    /// Stop telling.
    StopNotifying,
    /// Remove what was conveyed.
    CleanUp,
    /// The run waits for `--finish`.
    AwaitFinish,
    /// The run is over.
    Over(End),
}

/// The clients that are to be told for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The service.
    pub service: ServiceName,
    /// Under which number.
    pub state: StateNumber,
    /// Clients that have not answered under this number.
    pub clients: Vec<MonName>,
    /// Until when at the latest.
    pub last_call: Moment,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing was changed.
    Refused(String),
    /// It was refused after these services were claimed: they are this server's from now on, and nothing was begun for them.
    Unbegun {
        /// why
        why: String,
        /// which
        claimed: Vec<ServiceName>,
    },
    /// It could not go on; the phase that it reached is kept.
    Failed {
        /// what it could not get past
        hindrance: Hindrance,
        /// why, in words for a person
        why: String,
        /// what is known of each service
        summaries: Vec<Summary>,
    },
    /// Every client's outcome is known.
    Settled(Vec<Summary>),
}

/// The obstacle that a run could not get past. It is said in words beside it ([`End::Failed`]); a decision that depends on it
/// looks here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// The records could not be placed in the status monitor's directory.
    Conveying,
    /// The lock manager was not made to recognise.
    Recognition,
    /// Grace is not open, or was not proved to be.
    Proof,
    /// `--finish` was not said while a notification could still leave.
    Finish,
    /// An address, an export or a registration that the services need was not there in time.
    BringUp,
    /// Not one client of a service that was taken over could be called while grace was open: none of its addresses was here.
    NoClientCalled,
    /// The lock manager began another life meanwhile.
    AnotherLife,
    /// Another server claimed what was to be taken over.
    Overtaken,
    /// What was to be taken over was released.
    Released,
}
