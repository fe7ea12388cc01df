//! Work that an agent begins on its server, since it takes its time. A message tells its result.

use std::net::IpAddr;
use std::time::Duration;

use heirlock_core::grace::Grace;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::ledger::Population;
use heirlock_core::notify::Destination;
use heirlock_core::takeover::{Notice, Part, Strategy, TimeLimits};
use heirlock_core::{Moment, ServerName, ServiceName};
use heirlock_nsm::{MonName, MyName};

use crate::config::{Command, Settings};
use crate::control::Missing;
use crate::limits;

/// Which run of this process a piece of work is done for. The work may outlive the run: what comes of it counts for no other
/// one, that the fence has confirmed, say, or that grace is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunNumber(u64);

impl RunNumber {
    /// That of the run after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Work for a run. [`Message::Event`](super::Message::Event) tells its result, if nothing else is said.
#[derive(Debug)]
pub(crate) enum RunWork {
    /// What an adoption of these services needs and isn't there, before anything is claimed, is looked for. An operator who
    /// insists does without all of it, save what the strategy can't work without. `brings` tells whether the run waits for the
    /// addresses. Told by [`Message::Fit`](super::Message::Fit).
    CheckFit { targets: Vec<ServiceName>, insists: bool, brings: bool },
    /// Owners are confirmed off.
    Fence(Vec<(ServiceName, ServerName)>),
    /// The lock manager is made to recognise; volumes of the targets are brought up first. `owes` says whether clients are
    /// still to be told in the life that ends by it. Told by [`Message::Recognised`](super::Message::Recognised).
    Recognise { strategy: Strategy, targets: Vec<ServiceName>, grace_seen: Option<Moment>, owes: bool },
    /// The lock manager is asked until grace is open.
    Prove(Grace),
    /// What the services need is brought up, or waited for. The run goes on as soon as clients can be told from one address;
    /// the others are waited for beside that. `held_up`: what the store said where it held the run up before this.
    BringUp { services: Vec<(ServiceName, Part)>, last_call: Moment, held_up: Option<String> },
    /// The clients of each service are told, inside grace.
    Tell { tellings: Vec<Telling>, grace: Grace },
}

/// Work for no run.
#[derive(Debug)]
pub(crate) enum Work {
    /// What this server needs to adopt a service that is to come home is looked for, before its owner is asked for it. Told by
    /// [`Message::HomeLookedFor`](super::Message::HomeLookedFor).
    CheckHome(ServiceName),
    /// What other servers compare with their own is gathered. Told by [`Message::Facts`](super::Message::Facts).
    GatherFacts,
    /// The lock manager of this life is asked once whether grace is open. Told by
    /// [`Message::GraceAsked`](super::Message::GraceAsked).
    AskGrace(Incarnation),
    /// A client's name is looked up. Told by [`Message::Resolved`](super::Message::Resolved).
    LookUp(MonName),
    /// The address of a service that is being released is taken away, or the cluster manager that takes it away is waited for.
    /// Told by [`Message::AddressGone`](super::Message::AddressGone).
    TakeAddressAway(ServiceName),
    /// The address of a service that is another server's is taken away, where there is a hook for that. Nothing is told.
    LeaveAddress(ServiceName),
    /// The lock manager lets go of the locks of a service that was released, which would keep its volume busy, and the volume
    /// is taken away. Told by [`Message::VolumeGone`](super::Message::VolumeGone).
    TakeVolumeAway(ServiceName),
    /// What was written into the status monitor's directory is made durable. Told by
    /// [`Message::NotSynced`](super::Message::NotSynced) where it could not be begun.
    SyncDirectory,
    /// What an earlier look found is taken down: with hundreds of thousands of records that takes long enough to be felt.
    /// Nothing is told.
    Discard(Population),
}

/// What was found of what an adoption needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    /// What isn't there: it is refused for that.
    pub(crate) missing: Vec<Missing>,
    /// What a person is to know before the run begins.
    pub(crate) said: Vec<String>,
}

/// One service whose clients are told.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    pub(crate) notice: Notice,
    pub(crate) clients: Vec<(MonName, Vec<Destination>)>,
    /// Those that can't be called from here, and why.
    pub(crate) untold: Vec<(MonName, String)>,
    pub(crate) from: Vec<IpAddr>,
    pub(crate) names: Vec<MyName>,
}

/// How long work for a run may take: longer than the limits that it keeps to itself one after the other, so that what is late
/// hangs, however busy the machine is.
pub(crate) fn time_limits(settings: &Settings) -> TimeLimits {
    let services = u32::try_from(settings.services.len()).unwrap_or(u32::MAX);
    let hook = |command: Option<&Command>| {
        command.map_or(Duration::ZERO, |command| command.time_limit + limits::KILLED_TIME_MAX) * services
    };
    let manager = &settings.lock_manager;
    let looked =
        limits::INTENT_TIME_MAX + manager.incarnation.as_ref().map_or(Duration::ZERO, |c| c.time_limit);
    let volumes = hook(settings.hooks.volume_up.as_ref());
    TimeLimits {
        fit: looked + limits::WORK_SLACK,
        fence: hook(settings.hooks.fence.as_ref()) + limits::WORK_SLACK,
        recognition: volumes + manager.recognition_time_max() + limits::WORK_SLACK,
        proof: limits::PROVE_TIME_MAX + limits::WORK_SLACK,
    }
}
