//! The incidents of the schedule: how each happens to the world.

use crate::Ms;
use crate::happening::Happening;
use crate::lock_manager::LockManagerAt;
use crate::losses::Disturbance;
use crate::process::Turn;
use crate::schedule::{INCIDENTS_END, Incident, Levels};
use crate::server::Death;
use crate::service::server_name;
use crate::world::World;

impl World {
    /// An incident of the schedule. An incident that can't happen now (a server that is off can't crash) doesn't happen at all.
    pub(crate) fn befall(&mut self, incident: &Incident) {
        self.say(|| format!("incident: {incident}"));
        match *incident {
            Incident::Crash { server, steps } => self.harm(server, steps, Death::Server),
            Incident::KillAgent { server, steps } => self.harm(server, steps, Death::Agent),
            Incident::StopAgent { server, ms } => self.stop_agent(server, ms),
            Incident::RestartNfs { of, ms } => {
                if self.is_untouched(of) && self.servers[of].lockd.is_some() {
                    self.disturbed_at(of, Disturbance::Failure);
                    self.stop_nfs(of);
                    self.after(ms, Happening::StartNfs(of));
                }
            }
            Incident::KillLockd { of } => {
                if self.is_untouched(of) {
                    self.disturbed_at(of, Disturbance::Failure);
                    self.kill_lockd(of);
                }
            }
            Incident::CutOff { server, ms } => {
                let it = &mut self.servers[server];
                it.cut_off_until = it.cut_off_until.max(self.now + ms);
                self.disturbed(Disturbance::Store);
                self.after(ms, Happening::Disturbed(Disturbance::Store));
            }
            Incident::SetClock { server, seconds } => self.servers[server].wall_off_s = seconds,
            Incident::MoveToBak { of } => {
                if self.is_untouched(of) {
                    // There each line counts as a registration, also one that was placed.
                    let moved = self.servers[of].move_to_bak();
                    self.checks.asked_for.extend(moved.into_iter().map(|client| (of, client)));
                }
            }
            Incident::StoreAway { ms } => {
                self.store_away_until = self.store_away_until.max(self.now + ms);
                self.disturbed(Disturbance::Store);
                self.after(ms, Happening::Disturbed(Disturbance::Store));
            }
            Incident::ClientAway { client, ms } => {
                let it = &mut self.clients[client];
                it.away_until = it.away_until.max(self.now + ms);
                it.note_kept_off(self.now);
            }
            Incident::Adopt { service, server } => self.operator_adopts(service, server),
            Incident::Insist { service, server } => self.operator_insists(service, server),
            Incident::Meet { server, gap } => self.operator_gathers(server, gap),
            Incident::Move { service, server } => self.operator_moves(service, server),
            Incident::Transfer { service, server, by } => self.operator_transfers(service, server, by),
            Incident::Failback { service } => self.operator_brings_home(service),
            Incident::Maintain { server, ms } => self.operator_maintains(server, ms),
            Incident::RestartClient { client, ms } => self.restart_client(client, ms),
            Incident::Stranger { service } => self.stranger_announces(service),
        }
    }

    /// Its server is on, and no work on this lock manager is going on.
    fn is_untouched(&self, of: LockManagerAt) -> bool {
        self.servers[of.server].on && !self.servers[of].is_worked_on
    }

    fn harm(&mut self, server: usize, steps: u32, death: Death) {
        if !self.servers[server].on {
            return;
        }
        match self.agents[server] {
            Some(_) => self.servers[server].fatal_step = Some((steps, death)),
            None if death == Death::Server => self.power_off(server),
            None => {}
        }
    }

    /// SIGSTOP. Threads and loop stand still; hearts fall silent; messages for the agent wait in its queue and its sockets.
    fn stop_agent(&mut self, server: usize, ms: Ms) {
        let Some(agent) = self.agents[server].as_ref().map(|agent| agent.id) else { return };
        // The work of its threads waits until then, and so can't go on sooner.
        let until = (self.now + ms).min(INCIDENTS_END);
        self.disturbed_until(Disturbance::Failure, until);
        let it = &mut self.servers[server];
        it.stopped_until = it.stopped_until.max(until);
        self.after(until - self.now, Happening::Resume { server, agent });
    }

    /// SIGCONT. It takes in what came, and goes on with what it knew.
    pub(crate) fn resume(&mut self, server: usize, agent: u64) {
        let is_there = self.agents[server].as_ref().is_some_and(|it| it.id == agent);
        if !is_there || self.is_stopped(server) {
            return;
        }
        self.say(|| format!("the agent of {} goes on", server_name(server)));
        self.servers[server].resumed_at = self.now;
        self.turns.push_back(Turn::GoOn { server, agent });
    }

    /// Whether its agent stands still.
    pub(crate) fn is_stopped(&self, server: usize) -> bool {
        self.now < self.servers[server].stopped_until
    }

    /// One failover without any fault: locks that were lost in silence before show now.
    pub(crate) fn fail_over_once_more(&mut self) {
        self.is_busy = false;
        let owners: Vec<usize> = (0..self.servers.len())
            .filter(|server| (0..self.services.len()).any(|at| self.address_of(at) == Some(*server)))
            .collect();
        let server = owners[self.chance(crate::chance::Purpose::Last, 0).usize(0..owners.len())];
        self.say(|| format!("once more: {} fails", server_name(server)));
        self.power_off(server);
    }

    /// Everything is repaired.
    pub(crate) fn repair(&mut self) {
        self.say(|| "everything is repaired".into());
        self.disturbed(Disturbance::Repair);
        self.levels = Levels::default();
        self.has_garbage = false;
        self.cluster.is_hasty = false;
        self.store_away_until = self.store_away_until.min(self.now);
        for server in 0..self.servers.len() {
            let it = &mut self.servers[server];
            it.cut_off_until = it.cut_off_until.min(self.now);
            it.fatal_step = None;
            self.servers.lock_managers_of(server).for_each(|of| self.wake_lockd(of));
        }
        for client in &mut self.clients {
            client.loss = 0;
            client.away_until = client.away_until.min(self.now);
        }
    }

    /// Whether no server can reach the store.
    pub(crate) fn store_is_away(&self) -> bool {
        self.now < self.store_away_until
    }

    pub(crate) fn is_cut_off(&self, server: usize) -> bool {
        self.now < self.servers[server].cut_off_until
    }

    /// The wall clock of a server. They differ, and jump; nothing may be decided by them.
    pub(crate) fn wall_s(&self, server: usize) -> u64 {
        const SINCE_1970: u64 = 1_700_000_000;
        (SINCE_1970 + self.now / 1_000).saturating_add_signed(self.servers[server].wall_off_s)
    }

    /// One step of an agent further: how it dies, if this was its last one.
    pub(crate) fn one_step(&mut self, server: usize) -> Option<Death> {
        let (left, death) = self.servers[server].fatal_step.as_mut()?;
        match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                None
            }
            None => Some(*death),
        }
    }
}
