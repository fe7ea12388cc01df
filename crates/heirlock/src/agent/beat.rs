//! Heartbeats: our own, and what those of the others mean.

use std::collections::BTreeMap;

use heirlock_core::claim::OwnerHeart;
use heirlock_core::incarnation::Incarnation;
use heirlock_core::liveness::{Beat, Hearts};
use heirlock_core::{Moment, ServerName, ServiceName};

use crate::store::{ServerReport, Store, StoreError};

/// How many of our own first beats tell whether somebody else lives under our name.
const NEWCOMER_BEATS: u64 = 5;

/// This server's heart, and its view of the others'.
#[derive(Debug)]
pub(crate) struct Pulse {
    report: ServerReport,
    hearts: Hearts,
    servers: BTreeMap<ServerName, ServerReport>,
    /// The beat that another agent left under our name, until it is seen to move.
    namesake: Option<String>,
}

/// Another agent lives under this server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namesake {
    /// It was here before us: we must stop.
    WasFirst,
    /// It came after us: it will stop.
    IsNew,
}

/// What a beat tells of ourselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) state: Option<u32>,
    pub(crate) ailments: Vec<String>,
    pub(crate) facts: BTreeMap<String, String>,
}

impl Pulse {
    /// A heart that has not beaten yet.
    pub(crate) fn new(report: ServerReport, hearts: Hearts) -> Self {
        Self { report, hearts, servers: BTreeMap::new(), namesake: None }
    }

    /// Writes the next beat and reads all others.
    pub(crate) fn beat(
        &mut self,
        now: Moment,
        store: &dyn Store,
        condition: Condition,
    ) -> Result<Option<Namesake>, StoreError> {
        let seen = self.try_beat(store, condition);
        match seen {
            Ok((namesake, servers)) => {
                let beats =
                    servers.iter().filter(|(name, _)| **name != self.report.server).map(as_beat).collect();
                self.hearts.saw(now, &beats);
                self.servers = servers;
                Ok(namesake)
            }
            Err(error) => {
                self.hearts.blind();
                Err(error)
            }
        }
    }

    /// What is known of the owner of a service.
    pub(crate) fn heart_of(&self, server: &ServerName, now: Moment) -> OwnerHeart {
        self.hearts.heart_of(server, now)
    }

    /// What the servers said of themselves.
    pub(crate) fn servers(&self) -> &BTreeMap<ServerName, ServerReport> {
        &self.servers
    }

    /// From now on our silence is no reason to adopt, or is one again.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.report.paused = paused;
    }

    /// Whether we are paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.report.paused
    }

    /// Asks the owner of a service to give it up, for it is at home here.
    pub(crate) fn want(&mut self, service: &ServiceName, wanted: bool) {
        self.report.wants.retain(|other| other != service);
        if wanted {
            self.report.wants.push(service.clone());
        }
    }

    /// Who asks for a service.
    pub(crate) fn wanted_by(&self, service: &ServiceName) -> Option<&ServerName> {
        self.servers.values().find(|report| report.wants.contains(service)).map(|report| &report.server)
    }

    fn try_beat(
        &mut self,
        store: &dyn Store,
        condition: Condition,
    ) -> Result<(Option<Namesake>, BTreeMap<ServerName, ServerReport>), StoreError> {
        let servers = store.servers()?;
        let namesake = self.look_for_namesake(servers.get(&self.report.server));
        self.report.beat += 1;
        self.report.written_at_s = super::clock::wall_s();
        self.report.incarnation = condition.incarnation;
        self.report.state = condition.state;
        self.report.ailments = condition.ailments;
        self.report.facts = condition.facts;
        store.put_server(&self.report)?;
        Ok((namesake, servers))
    }

    /// A beat under our name that isn't ours and moves is another agent's. One that stands still is what an earlier
    /// run of ours left.
    fn look_for_namesake(&mut self, ours: Option<&ServerReport>) -> Option<Namesake> {
        let other = ours.filter(|report| report.agent != self.report.agent)?;
        let beat = beat_of(other);
        let moved = self.namesake.as_ref().is_some_and(|before| *before != beat);
        let appeared = self.namesake.is_none() && self.report.beat > 0;
        self.namesake = Some(beat);
        if !(moved || appeared) {
            return None;
        }
        Some(if self.report.beat <= NEWCOMER_BEATS { Namesake::WasFirst } else { Namesake::IsNew })
    }
}

fn as_beat((server, report): (&ServerName, &ServerReport)) -> (ServerName, Beat) {
    (server.clone(), Beat { beat: beat_of(report), paused: report.paused })
}

fn beat_of(report: &ServerReport) -> String {
    format!("{}/{}", report.agent, report.beat)
}
