//! One server: its agent, its own disk, and its lock managers.

use std::ops::{Deref, DerefMut, Index, IndexMut};

use heirlock_agent::InstanceNumber;
use heirlock_agent::store_memory::StoreMemory;
use heirlock_core::ServerName;

use crate::Ms;
use crate::lock_manager::{LockManager, LockManagerAt};
use crate::schedule::ServerPlan;

/// How an agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Alone.
    Agent,
    /// With its whole server.
    Server,
}

/// One server.
pub(crate) struct Server {
    pub(crate) index: usize,
    pub(crate) name: ServerName,
    pub(crate) on: bool,
    pub(crate) boot: u32,
    /// The text by which `/proc` shows the boot.
    pub(crate) boot_id: String,
    /// When it booted.
    pub(crate) booted_at: Ms,
    /// It can't reach the store until then.
    pub(crate) cut_off_until: Ms,
    /// Its wall clock is off by so much.
    pub(crate) wall_off_s: i64,
    /// Steps until its agent dies, alone or with it.
    pub(crate) fatal_step: Option<(u32, Death)>,
    /// Its agent stands still until then, and went on last at that moment.
    pub(crate) stopped_until: Ms,
    pub(crate) resumed_at: Ms,
    /// A fence holds it off.
    pub(crate) fenced_until: Ms,
    /// The run of the agent.
    pub(crate) agent: u64,
    /// Its memory of the store, on its own disk.
    pub(crate) memory: StoreMemory,
    /// It is being maintained; noted on its own disk.
    pub(crate) is_maintained: bool,
    /// One at least, in the order of its configuration.
    pub(crate) lock_managers: Vec<LockManager>,
}

impl Server {
    pub(crate) fn new(index: usize, name: ServerName, plan: &ServerPlan) -> Self {
        let lock_managers = plan.lock_managers.iter().enumerate().map(|(place, of)| {
            let at = LockManagerAt { server: index, number: InstanceNumber::at(place) };
            LockManager::new(at, name.clone(), plan.is_newer, of)
        });
        Self {
            index,
            lock_managers: lock_managers.collect(),
            name,
            on: false,
            boot: 0,
            boot_id: "boot0".to_owned(),
            booted_at: 0,
            cut_off_until: 0,
            wall_off_s: 0,
            fatal_step: None,
            stopped_until: 0,
            resumed_at: 0,
            fenced_until: 0,
            agent: 0,
            memory: StoreMemory::default(),
            is_maintained: false,
        }
    }

    /// It boots, and its lock managers with it.
    pub(crate) fn boots(&mut self, now: Ms) {
        (self.on, self.boot, self.booted_at) = (true, self.boot + 1, now);
        self.boot_id = format!("boot{}", self.boot);
        for it in &mut self.lock_managers {
            it.boots(self.boot, &self.boot_id, now);
        }
    }

    /// All plans for its agent are dropped: another one begins.
    pub(crate) fn forget_agent(&mut self) {
        (self.fatal_step, self.stopped_until) = (None, 0);
        self.lock_managers.iter_mut().for_each(LockManager::forget_agent);
    }
}

/// All servers of a world, and by [`LockManagerAt`] all lock managers.
pub(crate) struct Servers(Vec<Server>);

impl Servers {
    pub(crate) fn new(servers: Vec<Server>) -> Self {
        Self(servers)
    }

    /// The lock managers of a server.
    pub(crate) fn lock_managers_of(&self, server: usize) -> impl Iterator<Item = LockManagerAt> + use<> {
        let count = self.0[server].lock_managers.len();
        (0..count).map(move |place| LockManagerAt { server, number: InstanceNumber::at(place) })
    }

    /// All of them.
    pub(crate) fn lock_managers(&self) -> Vec<LockManagerAt> {
        (0..self.0.len()).flat_map(|server| self.lock_managers_of(server)).collect()
    }
}

impl Deref for Servers {
    type Target = [Server];

    fn deref(&self) -> &[Server] {
        &self.0
    }
}

impl DerefMut for Servers {
    fn deref_mut(&mut self) -> &mut [Server] {
        &mut self.0
    }
}

impl Index<usize> for Servers {
    type Output = Server;

    fn index(&self, server: usize) -> &Server {
        &self.0[server]
    }
}

impl IndexMut<usize> for Servers {
    fn index_mut(&mut self, server: usize) -> &mut Server {
        &mut self.0[server]
    }
}

impl Index<LockManagerAt> for Servers {
    type Output = LockManager;

    fn index(&self, at: LockManagerAt) -> &LockManager {
        &self.0[at.server].lock_managers[at.number.place()]
    }
}

impl IndexMut<LockManagerAt> for Servers {
    fn index_mut(&mut self, at: LockManagerAt) -> &mut LockManager {
        &mut self.0[at.server].lock_managers[at.number.place()]
    }
}
