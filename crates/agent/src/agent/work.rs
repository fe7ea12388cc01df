//! Work that an agent begins on its server, since it takes its time. A message tells its result.

use std::net::IpAddr;
use std::time::Duration;

use heirlock_core::grace::Grace;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::Population;
use heirlock_core::notify::Destination;
use heirlock_core::takeover::{Conveyance, Notice, Part, Strategy, TimeLimits};
use heirlock_core::{Moment, Records, ServerName, ServiceName};
use heirlock_nsm::{MonName, MyName};

use crate::config::{Command, LockManagerSettings, Settings};
use crate::control::Missing;
use crate::limits;

/// Which run of this process a piece of work is done for. The work may outlive the run: its result counts for no other run, as
/// that the fence has confirmed, or that grace is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunNumber(u64);

impl RunNumber {
    /// That of the run after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How many runs there were until this one, itself included.
    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

/// Work for a run. [`News::Event`](super::News::Event) tells its result, if nothing else is said.
#[derive(Debug)]
pub enum RunWork {
    /// The unmet needs of an adoption are looked for, before anything is claimed. Told by
    /// [`News::Fit`](super::News::Fit).
    CheckFit {
        /// Of these services.
        targets: Vec<ServiceName>,
        /// The operator does without all of it, save what the strategy can't work without.
        insists: bool,
        /// The run waits for the addresses.
        brings: bool,
    },
    /// Records are placed into the status monitor's directory, durably. Earlier work of this kind, or of
    /// [`Work::TakePlacedAway`], is done first. Told by [`News::Placed`](super::News::Placed).
    Place {
        /// Service by service.
        services: Vec<Placing>,
        /// A copy of each record, or a file made from it.
        how: Conveyance,
    },
    /// Owners are confirmed off. Each is named once, with one of its services.
    Fence(Vec<(ServiceName, ServerName)>),
    /// The lock manager is made to recognise. Told by [`News::Recognised`](super::News::Recognised).
    Recognise {
        /// In this way.
        strategy: Strategy,
        /// Volumes of these services are brought up first.
        targets: Vec<ServiceName>,
        /// When the grace that is open was seen to open.
        grace_seen: Option<Moment>,
        /// Clients are still to be told in the life that ends by it.
        owes: bool,
    },
    /// The lock manager is asked until grace is open. Where it is not, and nothing is exported,
    /// [`News::ServesNobody`](super::News::ServesNobody) tells that.
    Prove(Grace),
    /// The addresses and other needs of the services are brought up, or waited for. The run goes on as soon as clients can be
    /// told from one address; the others are waited for beside that.
    BringUp {
        /// Which services, and the part of each in the run.
        services: Vec<(ServiceName, Part)>,
        /// Until when an address is waited for.
        last_call: Moment,
        /// The store's own error where it held the run up before this.
        held_up: Option<String>,
    },
    /// The clients of each service are told.
    Tell {
        /// Each service.
        tellings: Vec<Telling>,
        /// Inside this grace.
        grace: Grace,
    },
}

/// Work for no run.
#[derive(Debug)]
pub enum Work {
    /// The unmet needs of an adoption are looked for, for a service that is to come here (home, or by a move), before its owner is asked
    /// for it. Told by [`News::HomeLookedFor`](super::News::HomeLookedFor).
    CheckHome(ServiceName),
    /// The facts are gathered that other servers compare with their own. Told by [`News::Facts`](super::News::Facts).
    GatherFacts,
    /// The lock manager of this life is asked once whether grace is open. Told by
    /// [`News::GraceAsked`](super::News::GraceAsked).
    AskGrace(Incarnation),
    /// A client's name is looked up. Told by [`News::Resolved`](super::News::Resolved).
    LookUp(MonName),
    /// The address of a service that is being released is taken away, or the cluster manager that takes it away is waited for.
    /// Told by [`News::AddressGone`](super::News::AddressGone).
    TakeAddressAway(ServiceName),
    /// The address of a service that is held still, and which a release had taken away, is brought back by the hook that brings it at
    /// an adoption, and waited for. Told by [`News::AddressBack`](super::News::AddressBack).
    BringAddressBack(ServiceName),
    /// The address of a service that is another server's is taken away, where there is a hook for that. Nothing is told.
    LeaveAddress(ServiceName),
    /// The lock manager lets go of the locks of a service that was released, which would keep its volume busy, and the volume
    /// is taken away. Told by [`News::VolumeGone`](super::News::VolumeGone).
    TakeVolumeAway(ServiceName),
    /// All placed records are taken away from the status monitor's directory. Earlier work of this kind, or of
    /// [`RunWork::Place`], is done first. A record that can't be taken away is remembered still. Told by
    /// [`News::PlacedTakenAway`](super::News::PlacedTakenAway).
    TakePlacedAway,
    /// The changes of the status monitor's directory are made durable. Told by
    /// [`News::DirectorySynced`](super::News::DirectorySynced).
    SyncDirectory,
    /// The memory of an earlier look's result is freed: with hundreds of thousands of records that takes long enough to be felt.
    /// Nothing is told.
    Discard(Population),
}

/// The records of one service that are placed.
#[derive(Debug, Clone)]
pub struct Placing {
    /// Which service.
    pub service: ServiceName,
    /// Its records.
    pub records: Records,
    /// The name of this server in a file that is made from a record.
    pub my_name: MyName,
}

/// Clients whose file is not as it should be, and why. It concerns no other client.
pub type Unplaced = Vec<(MonName, String)>;

/// A service, and which of its clients have no file as it should be; or why none of them has one.
pub type PlacedOf = (ServiceName, Result<Unplaced, String>);

/// The result of a search for an adoption's needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The unmet needs, for which it is refused.
    pub missing: Vec<Missing>,
    /// The sentences for a person, before the run begins.
    pub said: Vec<String>,
}

/// One service whose clients are told.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The notice to them.
    pub notice: Notice,
    /// They, and where each of them may be.
    pub clients: Vec<(MonName, Vec<Destination>)>,
    /// Clients that can't be called from here, and why.
    pub untold: Vec<(MonName, String)>,
    /// From which addresses they are told.
    pub from: Vec<IpAddr>,
    /// Under which names they are told.
    pub names: Vec<MyName>,
}

/// How long work for a run may take: longer than the limits that it keeps to itself one after the other, so that late work hangs,
/// however busy the machine is.
pub fn time_limits(settings: &Settings, manager: &LockManagerSettings) -> TimeLimits {
    let services = u32::try_from(settings.services.len()).unwrap_or(u32::MAX);
    let hook = |command: Option<&Command>| {
        command.map_or(Duration::ZERO, |command| command.time_limit + limits::KILLED_TIME_MAX) * services
    };
    let looked =
        limits::INTENT_TIME_MAX + manager.incarnation.as_ref().map_or(Duration::ZERO, |c| c.time_limit);
    let volumes = hook(settings.hooks.volume_up.as_ref());
    TimeLimits {
        fit: looked + limits::WORK_SLACK,
        fence: hook(settings.hooks.fence.as_ref()) + limits::WORK_SLACK,
        conveying: limits::PLACED_TIME_MAX,
        recognition: volumes + manager.recognition_time_max() + limits::WORK_SLACK,
        proof: limits::PROVE_TIME_MAX + limits::WORK_SLACK,
    }
}
