//! Which faults a seed has, and when. Every seed draws its own mixture: some have none but the crashes, so that what a
//! mixture excuses is still tested; see the crate's documentation for the model.

use fastrand::Rng;

use crate::Ms;
use crate::world::Death;

/// Faults go on until this moment; then everything is repaired, and must settle.
pub(crate) const FAULTS_END: Ms = 110_000;

/// What may go wrong in this seed.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    /// Per second and server, in thousandths.
    pub(crate) crashes: u16,
    pub(crate) agent_deaths: u16,
    pub(crate) nfs_restarts: u16,
    pub(crate) lockd_kills: u16,
    pub(crate) partitions: u16,
    pub(crate) outages: u16,
    /// Per second and client.
    pub(crate) absences: u16,
    pub(crate) to_bak: u16,
    /// Per call of the store, in thousandths.
    store_failures: u16,
    store_slowness: Ms,
    pub(crate) store_is_away: bool,
    fence_failures: u8,
    /// Of datagrams, in percent.
    pub(crate) loss: u8,
    pub(crate) doubled: u8,
    pub(crate) late: u8,
    /// Hints that are lost, in percent.
    pub(crate) hints_lost: u8,
    /// Steps until an agent or its server dies, by server.
    fatal_steps: Vec<Option<(u32, Death)>>,
    wall_jumps_s: Vec<i64>,
    pub(crate) clock_jumps: u16,
    pub(crate) garbage: bool,
}

impl Faults {
    pub(crate) fn draw(rng: &mut Rng, servers: usize) -> Self {
        let mut sometimes = |one_in: u8, most: u16| match rng.u8(0..one_in) {
            0 => rng.u16(1..=most),
            _ => 0,
        };
        Self {
            crashes: 3 + sometimes(2, 12),
            agent_deaths: sometimes(2, 30),
            nfs_restarts: sometimes(2, 15),
            lockd_kills: sometimes(3, 10),
            partitions: sometimes(3, 10),
            outages: sometimes(4, 10),
            absences: sometimes(3, 15),
            to_bak: sometimes(4, 10),
            store_failures: sometimes(3, 60),
            store_slowness: Ms::from(sometimes(4, 400)),
            store_is_away: false,
            fence_failures: u8::try_from(sometimes(4, 50)).unwrap_or_default(),
            loss: u8::try_from(sometimes(3, 15)).unwrap_or_default(),
            doubled: u8::try_from(sometimes(3, 20)).unwrap_or_default(),
            late: u8::try_from(sometimes(3, 10)).unwrap_or_default(),
            hints_lost: u8::try_from(sometimes(2, 100)).unwrap_or_default(),
            fatal_steps: vec![None; servers],
            wall_jumps_s: vec![0; servers],
            clock_jumps: sometimes(3, 20),
            garbage: sometimes(4, 1) == 1,
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn end(&mut self) {
        let (servers, wall_jumps_s) = (self.fatal_steps.len(), self.wall_jumps_s.clone());
        *self = Self { wall_jumps_s, ..Self::none(servers) };
    }

    pub(crate) fn none(servers: usize) -> Self {
        Self {
            crashes: 0,
            agent_deaths: 0,
            nfs_restarts: 0,
            lockd_kills: 0,
            partitions: 0,
            outages: 0,
            absences: 0,
            to_bak: 0,
            store_failures: 0,
            store_slowness: 0,
            store_is_away: false,
            fence_failures: 0,
            loss: 0,
            doubled: 0,
            late: 0,
            hints_lost: 0,
            fatal_steps: vec![None; servers],
            wall_jumps_s: vec![0; servers],
            clock_jumps: 0,
            garbage: false,
        }
    }

    /// The agent of this server dies so many steps from now, alone or with its server.
    pub(crate) fn let_die(&mut self, server: usize, steps: u32, death: Death) {
        self.fatal_steps[server] = Some((steps, death));
    }

    pub(crate) fn spare(&mut self, server: usize) {
        self.fatal_steps[server] = None;
    }

    pub(crate) fn one_step(&mut self, server: usize) -> Option<Death> {
        let (left, death) = self.fatal_steps[server].as_mut()?;
        match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                None
            }
            None => Some(*death),
        }
    }

    pub(crate) fn store_fails(&self, rng: &mut Rng) -> bool {
        self.store_failures > 0 && rng.u16(0..1000) < self.store_failures
    }

    pub(crate) fn store_delay(&self, rng: &mut Rng) -> Ms {
        if self.store_slowness > 0 { rng.u64(0..self.store_slowness) } else { 0 }
    }

    pub(crate) fn fence_fails(&self, rng: &mut Rng) -> bool {
        rng.u8(0..100) < self.fence_failures
    }

    /// Wall clocks differ, and jump. Nothing may be decided by them.
    pub(crate) fn wall_s(&self, server: usize, now: Ms) -> u64 {
        (1_700_000_000 + now / 1000).saturating_add_signed(self.wall_jumps_s[server])
    }

    pub(crate) fn jump(&mut self, server: usize, rng: &mut Rng) {
        self.wall_jumps_s[server] = rng.i64(-40 * 86_400..40 * 86_400);
    }
}
