//! The task of a new run, before anything is known of the server that carries it out.

use std::time::Duration;

use super::{Cause, Conveyance, Plan, Standing, Strategy, TimeLimits, Until};
use crate::claim::Authority;
use crate::moment::Moment;
use crate::names::{ServerName, ServiceName};

/// The task of a new run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Why.
    pub cause: Cause,
    /// Services to be taken over; none in a self-adoption.
    pub targets: Vec<ServiceName>,
    /// Where to stop.
    pub until: Until,
    /// The grounds on which a claim is permitted while the owner lives.
    pub authority: Authority,
    /// The owner's last sign of life that was seen.
    pub primary_lost: Option<Moment>,
}

/// A run that is begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redo {
    /// The run that was interrupted.
    pub run: String,
    /// The services that it was to take over; none where it was a self-adoption.
    pub targets: Vec<ServiceName>,
    /// Where it was to stop.
    pub until: Until,
}

/// The answer to a request to adopt a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The service is being adopted here, or a run tells its clients: the request waits for that run with the others.
    Joins,
    /// The service is adopted for good ([`crate::duty::is_adopted`]): there is nothing to do.
    Adopted,
    /// A run begins.
    Begins,
}

impl Admission {
    /// Of a request for a service. `is_target` says whether a run takes it over or is to; `is_told` whether a run that is on tells
    /// its clients for another reason: then an adoption would restart the lock manager for nothing. Runs for other services are no
    /// hindrance ([`super::Turn`]). Where the operator insists, a service that is adopted already is adopted once more.
    #[must_use]
    pub fn of(is_target: bool, is_told: bool, is_adopted: bool, insisted: bool) -> Self {
        match (is_target, insisted) {
            (true, _) => Self::Joins,
            (false, true) => Self::Begins,
            (false, false) if is_told => Self::Joins,
            (false, false) if is_adopted => Self::Adopted,
            (false, false) => Self::Begins,
        }
    }
}

/// How a server recognises, as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// How its lock manager is made to recognise.
    pub strategy: Strategy,
    /// How records are conveyed.
    pub convey: Conveyance,
    /// How much of grace must be left for a notification to leave.
    pub margin: Duration,
    /// How long what is done for a run may take.
    pub limits: TimeLimits,
}

impl Order {
    /// No verb asked for it: the lock manager was restarted.
    #[must_use]
    pub fn own_restart() -> Self {
        Self {
            cause: Cause::OwnRestart,
            targets: Vec::new(),
            until: Until::Settled,
            authority: Authority::default(),
            primary_lost: None,
        }
    }

    /// A run that was interrupted before the lock manager recognised is begun anew: with a generation and a number of
    /// its own, for nothing proves what of it was done (I9).
    #[must_use]
    pub fn redo(redo: Redo) -> Self {
        let cause = if redo.targets.is_empty() { Cause::OwnRestart } else { Cause::Asked };
        Self { cause, targets: redo.targets, until: redo.until, ..Self::own_restart() }
    }

    /// A person or a cluster manager asks for a service; `prepare` says that it stops when grace is proved.
    #[must_use]
    pub fn asked(
        service: ServiceName,
        prepare: bool,
        authority: Authority,
        primary_lost: Option<Moment>,
    ) -> Self {
        let until = if prepare { Until::Prepared } else { Until::Settled };
        Self { cause: Cause::Asked, targets: vec![service], until, authority, primary_lost }
    }

    /// The heart of the owner of these services has been silent since then. The silence that was seen permits the claims, and then
    /// the fence.
    #[must_use]
    pub fn owner_dead(services: Vec<ServiceName>, silent_since: Moment) -> Self {
        let authority = Authority { confirmed: true, ..Authority::default() };
        let primary_lost = Some(silent_since);
        Self { cause: Cause::OwnerDead, targets: services, authority, primary_lost, ..Self::own_restart() }
    }

    /// Whether it follows what has happened already. It holds nothing up and waits for no other run: it begins at once, and
    /// makes way for a run that is asked for.
    #[must_use]
    pub fn is_own_restart(&self) -> bool {
        self.cause == Cause::OwnRestart
    }

    /// The plan of a run of this name, on this server.
    #[must_use]
    pub fn plan(
        self,
        run: String,
        server: ServerName,
        standing: Standing,
        means: Means,
        started_at_s: u64,
    ) -> Plan {
        Plan {
            run,
            server,
            cause: self.cause,
            targets: self.targets,
            standing,
            strategy: means.strategy,
            convey: means.convey,
            until: self.until,
            fence: self.authority.confirmed,
            authority: self.authority,
            margin: means.margin,
            limits: means.limits,
            primary_lost: self.primary_lost,
            started_at_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    #[test]
    fn a_request_joins_the_run_for_its_service_and_begins_one_beside_a_run_for_another() {
        for (is_told, is_adopted, insisted) in
            [(false, false, false), (false, true, false), (true, true, true)]
        {
            assert_eq!(Admission::of(true, is_told, is_adopted, insisted), Admission::Joins);
        }
        let other = |is_told, is_adopted, insisted| Admission::of(false, is_told, is_adopted, insisted);
        assert_eq!(other(false, false, false), Admission::Begins);
        assert_eq!(
            (other(false, true, false), other(false, true, true)),
            (Admission::Adopted, Admission::Begins)
        );
        assert_eq!(
            (other(true, false, false), other(true, true, true)),
            (Admission::Joins, Admission::Begins)
        );
    }

    #[test]
    fn a_run_that_is_redone_is_asked_for_where_it_was_to_take_a_service_over() {
        let redo = |targets, until| Order::redo(Redo { run: "r".into(), targets, until });
        let own = redo(Vec::new(), Until::Settled);
        assert_eq!(own, Order::own_restart());
        let taken = redo(vec![nfs()], Until::Prepared);
        assert_eq!((taken.cause, taken.until, &taken.targets), (Cause::Asked, Until::Prepared, &vec![nfs()]));
        assert!(own.is_own_restart() && !taken.is_own_restart());
        assert_eq!(taken.authority, Authority::default(), "the claim is this server's own already");
    }

    #[test]
    fn a_fence_is_asked_where_it_permits_the_claim_and_nowhere_else() {
        let means = Means {
            strategy: Strategy::RestartNfs,
            convey: Conveyance::Copy,
            margin: Duration::from_secs(5),
            limits: TimeLimits::each(Duration::from_secs(60)),
        };
        let server = ServerName::parse("nfs-b").unwrap();
        let plan = |order: Order| order.plan("r".into(), server.clone(), Standing::default(), means, 7);
        let dead = plan(Order::owner_dead(vec![nfs()], Moment::START));
        assert!(dead.fence && dead.authority.confirmed && !dead.authority.insisted);
        assert_eq!((dead.cause, dead.until), (Cause::OwnerDead, Until::Settled));
        assert_eq!((dead.primary_lost, dead.targets), (Some(Moment::START), vec![nfs()]));
        let insisted = Authority { insisted: true, ..Authority::default() };
        let asked = plan(Order::asked(nfs(), true, insisted.clone(), None));
        assert!(!asked.fence && asked.authority == insisted && asked.until == Until::Prepared);
        assert_eq!(plan(Order::asked(nfs(), false, insisted, None)).until, Until::Settled);
        assert!(!plan(Order::own_restart()).fence);
    }
}
