//! The judgement of each lock that was lost and not reclaimed: the evidence, and whether it excuses the loss.

use heirlock_core::ServiceName;
use heirlock_nsm::MonName;

use crate::Ms;
use crate::client::{Ask, Loss};
use crate::excuse::Evidence;
use crate::lock_manager::{FileAt, GRACE_MS, Life, LockManagerAt};
use crate::world::World;

/// Something went wrong on the side of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// An agent, a lock manager or a server failed, or stood still.
    Failure,
    /// Everything was repaired, which ends what was going on.
    Repair,
    /// The store was not there, or too slow for a run.
    Store,
    /// A run failed because an address was not there in time: no notification could leave from it, and all clients of that run
    /// had to wait for it.
    Address,
}

/// When something went wrong on the side of the servers.
#[derive(Debug)]
pub(crate) struct Disturbed {
    pub(crate) at: Ms,
    /// When it is over; the same where it takes no time.
    pub(crate) until: Ms,
    pub(crate) how: Disturbance,
    /// The lock manager that it happened to, where it happened to one alone.
    pub(crate) to: Option<LockManagerAt>,
}

/// An outcome that was stored, of one client of one service.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) service: ServiceName,
    pub(crate) client: MonName,
    pub(crate) is_good: bool,
    pub(crate) at: Ms,
}

/// A lock whose holder believes to have it, or believed so until another client got it.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) client: usize,
    pub(crate) file: FileAt,
    pub(crate) loss: Loss,
    /// Its holder's kernel would still reclaim it.
    pub(crate) listed: bool,
}

/// How long before a loss, or before the claim that led to it, a failure still counts.
const LINGERS_MS: Ms = 3_000;

impl World {
    /// Something went wrong on the side of the servers.
    pub(crate) fn disturbed(&mut self, how: Disturbance) {
        self.disturbed_until(how, self.now);
    }

    /// The same where that lasts.
    pub(crate) fn disturbed_until(&mut self, how: Disturbance, until: Ms) {
        let at = self.now;
        self.checks.disturbances.push(Disturbed { at, until, how, to: None });
    }

    /// The same where it concerns this lock manager alone: it excuses nothing at another one.
    pub(crate) fn disturbed_at(&mut self, to: LockManagerAt, how: Disturbance) {
        let at = self.now;
        self.checks.disturbances.push(Disturbed { at, until: at, how, to: Some(to) });
    }

    /// Whether something went wrong that may be felt by a service: not at a lock manager that is another one's on its server.
    fn concerns(&self, service: usize, disturbed: &Disturbed) -> bool {
        disturbed.to.is_none_or(|of| self.services[service].lock_manager_on(of.server) == of)
    }

    pub(crate) fn was_disturbed_since(&self, since: Ms, service: usize) -> bool {
        let mut latest = self.checks.disturbances.iter().rev().take_while(|disturbed| disturbed.at > since);
        latest.any(|disturbed| self.concerns(service, disturbed))
    }

    /// An agent looks at its lock manager. If it stood still during a whole life of it, grace included, nothing tells that the
    /// locks which died before that life were given to others in it.
    pub(crate) fn notice_ends(&mut self, of: LockManagerAt) {
        let runs = self.servers[of].lockd;
        self.end_noticed_late(of, |ended| runs != Some(ended.start + 1));
    }

    /// A server dies. If its agent stood still since a life of a lock manager ended, no server learns that those locks died, and that
    /// others may have got them since: the server that adopts the services tells their clients of the death alone.
    pub(crate) fn ends_stay_unnoticed(&mut self, of: LockManagerAt) {
        self.end_noticed_late(of, |_| true);
    }

    /// `is_unseen`: nothing shows that this life is over, once its grace is.
    fn end_noticed_late(&mut self, of: LockManagerAt, is_unseen: impl Fn(&Life) -> bool) {
        let (now, life) = (self.now, self.servers[of].life());
        let held = self.clients.iter_mut().flat_map(|client| client.locks.values_mut());
        let losses = held.filter_map(|held| held.loss.as_mut());
        for loss in losses.chain(self.checks.thefts.iter_mut().map(|lost| &mut lost.loss)) {
            let is_over =
                |ended: &mut Life| (ended.of, ended.boot) == (of, life.boot) && life.start > ended.start;
            if let Some(ended) = loss.ended.take_if(is_over) {
                loss.unseen |= is_unseen(&ended) && now > loss.at + GRACE_MS;
            }
        }
    }

    /// Every lock that was lost must have been beyond help, or its loss must have been told.
    pub(crate) fn check_losses(&mut self) {
        for lost in self.all_lost() {
            let (evidence, told) = self.evidence_of(&lost);
            if let Some(excuse) = evidence.excuse() {
                self.say(|| {
                    let Lost { client, file, loss, .. } = &lost;
                    format!("client {client} lost {file:?} at {} ms, which is excused: {excuse}", loss.at)
                });
                self.checks.losses.excuse(lost.loss.by, excuse);
                continue;
            }
            let Lost { client, file, loss, listed } = lost;
            let what = format!(
                "client {client} lost {file:?} of {} at {} ms: on record, reachable, {}, {}",
                self.services[file.0].name,
                loss.at,
                if listed { "never reclaimed" } else { "its reclaim was refused" },
                match (told.is_empty(), evidence.is_told) {
                    (true, _) => "no report told of it",
                    (_, true) => "though nothing stood in the way",
                    _ => "and its outcome says that it was told in time",
                }
            );
            self.violated(2, what);
        }
    }

    fn all_lost(&mut self) -> Vec<Lost> {
        let mut lost = std::mem::take(&mut self.checks.thefts);
        for (client, it) in self.clients.iter().enumerate() {
            let is_leaving = |file: &FileAt| it.calls.get(file).is_some_and(|call| call.ask == Ask::Unlock);
            for (file, held) in it.locks.iter().filter(|(file, _)| !is_leaving(file)) {
                let loss = held.loss.clone();
                lost.extend(loss.map(|loss| Lost { client, file: *file, loss, listed: held.listed }));
            }
        }
        lost
    }

    /// When a service was last claimed before a loss.
    fn claimed_before(&self, name: &ServiceName, lost_at: Ms) -> Ms {
        let claims = self.claimed_at.iter().filter(|((service, _), at)| service == name && **at <= lost_at);
        claims.map(|(_, at)| *at).max().unwrap_or(lost_at)
    }

    /// The outcomes of a client that tell of a loss. An adopter that came too late has said so: that the address follows later, and
    /// with it the loss, is no news.
    pub(crate) fn told_of_loss(
        &self,
        name: &ServiceName,
        client: &MonName,
        lost_at: Ms,
    ) -> impl Iterator<Item = &Stored> {
        // A run that another one follows at once says so before the claim of that one.
        let claimed_at = self.claimed_before(name, lost_at).saturating_sub(LINGERS_MS);
        let of_it = move |stored: &&Stored| stored.service == *name && stored.client == *client;
        let counts =
            move |stored: &&Stored| stored.at > lost_at || (!stored.is_good && stored.at > claimed_at);
        self.checks.outcomes.iter().filter(of_it).filter(counts)
    }

    /// The evidence of a loss, and when its outcomes were stored.
    fn evidence_of(&self, lost: &Lost) -> (Evidence, Vec<Ms>) {
        let (name, loss) = (&self.services[lost.file.0].name, &lost.loss);
        let key = &self.clients[lost.client].key;
        let told: Vec<&Stored> = self.told_of_loss(name, key, loss.at).collect();
        let claimed_at = self.claimed_before(name, loss.at);
        let until = told.first().map_or(Ms::MAX, |stored| stored.at);
        let disturbances = self.checks.disturbances.iter();
        // An agent that stood still when the lock was lost, and until grace had ended, found what could not be made good any more.
        let is_between = |disturbed: &&Disturbed| {
            (loss.at + 1..until).contains(&disturbed.at)
                || (disturbed.at <= loss.at && disturbed.until > loss.at + GRACE_MS)
        };
        let disturbances = disturbances.filter(is_between);
        let disturbances = disturbances.filter(|disturbed| self.concerns(lost.file.0, disturbed));
        let between: Vec<Disturbance> = disturbances.map(|disturbed| disturbed.how).collect();
        // A client that is away has its outcome as well, and can reclaim until grace has ended for it.
        let may_reclaim_until = told.first().map_or(0, |stored| stored.at + GRACE_MS);
        // A client that was told may be refused when it reclaims, where the store fails just then.
        let refused = self.checks.disturbances.iter().filter(|disturbed| {
            !lost.listed
                && disturbed.how == Disturbance::Store
                && (loss.at + 1..may_reclaim_until).contains(&disturbed.at)
        });
        let store_failed = between.contains(&Disturbance::Store) || refused.count() > 0;
        let away = loss.at.saturating_sub(LINGERS_MS)..may_reclaim_until;
        let evidence = Evidence {
            was_freed: loss.freed,
            was_blind: loss.blind,
            was_on_record: loss.captured,
            has_shown: !loss.unseen,
            was_away: self.clients[lost.client].kept_off.iter().any(|at| away.contains(at)),
            is_told: told.iter().any(|stored| !stored.is_good),
            was_disturbed: self.was_disturbed_since(claimed_at.saturating_sub(LINGERS_MS), lost.file.0),
            store_failed,
            failures: between.iter().filter(|how| **how == Disturbance::Failure).count(),
        };
        (evidence, told.iter().map(|stored| stored.at).collect())
    }
}
