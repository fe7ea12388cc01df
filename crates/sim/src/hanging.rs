//! Work and looks of an agent that hang, with a program, a disk or a thread. Work goes on at last, when its run may be over long
//! since: when everything is repaired at the latest. A hook that hangs is ended by its time limit. A look goes on as well, and may
//! show then what was true long ago. A name may never be answered for.

use heirlock_agent::{News, RunNumber, RunWork, Work};
use heirlock_core::takeover::Event;
use heirlock_core::{ServerName, ServiceName};

use crate::Ms;
use crate::chance::Purpose;
use crate::check::CAPTURED_MS_MAX;
use crate::happening::Happening;
use crate::lock_manager::LockManagerAt;
use crate::losses::Disturbance;
use crate::schedule::{INCIDENTS_END, Level};
use crate::settings::HOOK_TIME_MAX;
use crate::work::AgentAt;
use crate::world::{World, millis};

/// A look that hangs, for so long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HungLook {
    pub(crate) ms: Ms,
    /// With what it has read: what it shows is as old.
    pub(crate) has_read: bool,
}

impl World {
    /// How the next look of a lock manager's agent hangs, if it does.
    fn look_hangs(&mut self, of: LockManagerAt) -> Option<HungLook> {
        let level = self.levels.of(Level::LooksHang);
        if level == 0 {
            return None;
        }
        let rng = self.chance(Purpose::HungLook, of.stream());
        let (hangs, for_long, ms, has_read) =
            (rng.u16(0..1_000) < level, rng.u8(0..8) == 0, rng.u64(1_000..60_000), rng.bool());
        let until_repair = INCIDENTS_END.saturating_sub(self.now) + 100;
        hangs.then(|| HungLook { ms: if for_long { until_repair } else { ms.min(until_repair) }, has_read })
    }

    /// The same of a look at the status monitor's directory. It is no failure: all that rests upon no look goes on.
    pub(crate) fn directory_hangs_for(&mut self, of: LockManagerAt) -> Option<HungLook> {
        let hung = self.look_hangs(of)?;
        let until = self.now + hung.ms + CAPTURED_MS_MAX;
        let it = &mut self.servers[of];
        it.blind_until = it.blind_until.max(until);
        self.say(|| format!("{}: a look hangs for {hung:?}", self.servers[of].name));
        Some(hung)
    }

    /// For how long the next look for the addresses of a name hangs. `None`: for ever.
    pub(crate) fn name_is_answered_after(&mut self, of: LockManagerAt) -> Option<Ms> {
        let hung = self.look_hangs(of);
        match hung {
            Some(HungLook { has_read: true, .. }) => None,
            hung => Some(hung.map_or(0, |hung| hung.ms)),
        }
    }

    /// For how long the next work for a lock manager hangs, if it does.
    fn hangs_for(&mut self, of: LockManagerAt) -> Option<Ms> {
        let level = self.levels.of(Level::WorkHangs);
        if level == 0 {
            return None;
        }
        let rng = self.chance(Purpose::Hang, of.stream());
        let (hangs, for_long, ms) = (rng.u16(0..1_000) < level, rng.bool(), rng.u64(2_000..60_000));
        let until_repair = INCIDENTS_END.saturating_sub(self.now) + 100;
        hangs.then(|| if for_long { until_repair } else { ms.min(until_repair) })
    }

    /// Lets work of a run hang, or hands it back.
    pub(crate) fn hang_for(&mut self, at: AgentAt, run: RunNumber, work: RunWork) -> Option<RunWork> {
        let Some(ms) = self.hangs_for(at.0) else { return Some(work) };
        let (of, agent) = at;
        self.disturbed_at(of, Disturbance::Failure);
        let what = format!("{work:?}");
        let what = what.split([' ', '(']).next().unwrap_or_default().to_owned();
        self.say(|| format!("{}: {what} hangs for {ms} ms", self.servers[of].name));
        match work {
            RunWork::Fence(owners) => self.fence_hangs(at, run, owners),
            // It is told to stop when its run is over, and takes notice of that when it goes on.
            RunWork::Tell { .. } => {}
            RunWork::Place { .. } => {
                self.stop_conveyor(of, ms);
                return Some(work);
            }
            RunWork::BringUp { services, last_call, .. } => {
                // The hook is ended by its time limit, and only the look goes on.
                if self.chance(Purpose::Hang, of.stream()).bool() {
                    self.bring_addresses(of.server, &services);
                }
                self.after(ms, Happening::BringUp { of, agent, run, services, last_call });
            }
            _ => self.after(ms, Happening::GoesOnFor { of, agent, run, work: Box::new(work) }),
        }
        None
    }

    /// Work of a run that hung goes on.
    pub(crate) fn go_on_for(&mut self, at: AgentAt, run: RunNumber, work: RunWork) {
        if self.started(at).is_some() {
            self.disturbed_at(at.0, Disturbance::Failure);
            self.say(|| format!("{}: work that hung goes on", self.servers[at.0].name));
            self.do_for(at, run, work);
        }
    }

    /// The hook is ended by its time limit. It may have done all it had to.
    fn fence_hangs(&mut self, at: AgentAt, run: RunNumber, owners: Vec<(ServiceName, ServerName)>) {
        if self.chance(Purpose::Hang, at.0.stream()).bool() {
            self.power_off_all(owners);
        }
        let ended = Err("the fence has not ended in time".to_owned());
        self.tell_agent(at, millis(HOOK_TIME_MAX), News::Event(run, Event::Fenced(ended)));
    }

    /// Lets other work hang, or hands it back.
    pub(crate) fn hang(&mut self, at: AgentAt, work: Work) -> Option<Work> {
        // Nothing is told of these.
        if matches!(work, Work::Discard(_) | Work::LeaveAddress(_)) {
            return Some(work);
        }
        let Some(ms) = self.hangs_for(at.0) else { return Some(work) };
        let (of, agent) = at;
        self.disturbed_at(of, Disturbance::Failure);
        match work {
            Work::TakePlacedAway => {
                self.stop_conveyor(of, ms);
                return Some(work);
            }
            _ => self.after(ms, Happening::GoesOn { of, agent, work: Box::new(work) }),
        }
        None
    }

    /// Other work that hung goes on.
    pub(crate) fn go_on_with(&mut self, at: AgentAt, work: Work) {
        if self.started(at).is_some() {
            self.disturbed_at(at.0, Disturbance::Failure);
            self.do_work(at, work);
        }
    }

    /// The conveyor of a lock manager hangs with its disk, in the middle of what it does.
    fn stop_conveyor(&mut self, of: LockManagerAt, ms: Ms) {
        let until = self.now + ms;
        let it = &mut self.servers[of];
        it.conveyor_hangs_until = it.conveyor_hangs_until.max(until);
    }
}
