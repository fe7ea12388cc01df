//! rpc.statd's callout (mode `callout`): the program that asks the agent for a client, and that rpc.statd waits for. Where no
//! agent answers in time, it leaves a note, and rpc.statd goes on.

use std::collections::BTreeSet;

use heirlock_agent::status_monitor::Said;
use heirlock_agent::{Message, News};
use heirlock_nsm::{MonName, MyName};

use crate::chance::Purpose;
use crate::happening::Happening;
use crate::lock_manager::{Life, LockManagerAt, client_address};
use crate::settings::CALLOUT_TIMEOUT;
use crate::world::{World, millis};

/// The callouts of a server.
#[derive(Debug, Default)]
pub(crate) struct Callouts {
    /// The one that rpc.statd waits for: rpc.statd has one thread.
    runs: Option<Runs>,
    count: u64,
    /// Beside the records: the notes of callouts that found no agent.
    notes: Vec<Said>,
    /// How many of them an agent has read, and not yet put away.
    read: usize,
    /// Clients that rpc.statd remembers, and whose record was said to be durable.
    acknowledged: BTreeSet<usize>,
}

#[derive(Debug)]
struct Runs {
    number: u64,
    client: usize,
    life: Life,
    /// The agent that was asked.
    agent: Option<u64>,
}

impl Callouts {
    /// Whether a client's record was said to be durable, since rpc.statd remembers it.
    pub(crate) fn has_acknowledged(&self, client: usize) -> bool {
        self.acknowledged.contains(&client)
    }

    /// rpc.statd does not remember a client any more.
    pub(crate) fn forget(&mut self, client: usize) {
        self.acknowledged.remove(&client);
    }

    /// The server is off. A note that was not synced may be lost.
    pub(crate) fn lose_power(&mut self, keeps_notes: bool) {
        self.runs = None;
        if !keeps_notes {
            self.notes.clear();
        }
        self.read = self.read.min(self.notes.len());
    }
}

impl World {
    /// rpc.statd has written a client's record, and runs the callout before it answers.
    pub(crate) fn call_out(&mut self, client: usize, life: Life) {
        let of = life.of;
        let callouts = &mut self.servers[of].callouts;
        callouts.count += 1;
        let number = callouts.count;
        callouts.runs = Some(Runs { number, client, life, agent: None });
        let after = self.chance(Purpose::Callout, of.stream()).u64(2..8);
        self.after(after, Happening::CallsOut { of, number });
        self.after(millis(CALLOUT_TIMEOUT), Happening::CalloutEnds { of, number });
    }

    /// The callout connects to the agent, where there is one.
    pub(crate) fn calls_out(&mut self, of: LockManagerAt, number: u64) {
        let Some(client) = self.callout(of, number).map(|runs| runs.client) else { return };
        let Some(it) = &self.agents[of.server] else { return self.callout_ends(of, number) };
        let (agent, world) = (it.id, it.agent.outside().shared());
        if let Some(runs) = &mut self.servers[of].callouts.runs {
            runs.agent = Some(agent);
        }
        let answered = Box::new(move |done: &Result<(), String>| {
            crate::process::entered(&world).callout_is_answered(of, agent, number, done.is_ok());
        });
        let said = self.said_of(of, client);
        self.hand_to_agent(of.server, agent, Message::Of(of.number, News::Callout(said, answered)));
    }

    /// The agent answers, in the middle of its turn: it leaves once the store has done what was asked for in that turn.
    fn callout_is_answered(&mut self, of: LockManagerAt, agent: u64, number: u64, is_durable: bool) {
        let waits = self.servers[of.server].agent == agent && self.callout(of, number).is_some();
        let Some(client) = self.callout(of, number).map(|runs| runs.client) else { return };
        if !waits || !self.lives(of.server) {
            return;
        }
        if let Some(service) = self.lacks_record(of, client).filter(|_| is_durable) {
            let what = format!(
                "{} answers the callout for client {client}, and its record is not in the store, as a client of {service}",
                self.servers[of].name
            );
            self.violated(1, what);
        }
        let after = 1 + self.delay_of(of.server);
        self.after(after, Happening::CalloutAnswered { of, number, is_durable });
    }

    /// The answer comes to the callout, where that waits still.
    pub(crate) fn callout_answered(&mut self, of: LockManagerAt, number: u64, is_durable: bool) {
        match is_durable {
            true => self.callout_is_over(of, number, true),
            false => self.callout_ends(of, number),
        }
    }

    /// No agent answers the callout, or not in time: it leaves a note.
    pub(crate) fn callout_ends(&mut self, of: LockManagerAt, number: u64) {
        let Some(client) = self.callout(of, number).map(|runs| runs.client) else { return };
        self.say(|| {
            format!("{}: no agent answers for client {client}, and it is noted", self.servers[of].name)
        });
        let said = self.said_of(of, client);
        self.servers[of].callouts.notes.push(said);
        self.callout_is_over(of, number, false);
    }

    fn callout_is_over(&mut self, of: LockManagerAt, number: u64, is_durable: bool) {
        let callouts = &mut self.servers[of].callouts;
        let Some(runs) = callouts.runs.take_if(|runs| runs.number == number) else { return };
        let Runs { client, life, .. } = runs;
        let is_acknowledged = is_durable && self.holds_a_service(of);
        let callouts = &mut self.servers[of].callouts;
        if is_acknowledged {
            callouts.acknowledged.insert(client);
        }
        self.after(1, Happening::Registered { life, client, granted: true, acknowledged: is_acknowledged });
    }

    /// The agent is gone, and with it the connection of a callout that waits.
    pub(crate) fn hang_up_on_callouts(&mut self, of: LockManagerAt) {
        let runs = self.servers[of].callouts.runs.as_ref();
        if let Some(number) = runs.filter(|runs| runs.agent.is_some()).map(|runs| runs.number) {
            self.after(1, Happening::CalloutEnds { of, number });
        }
    }

    fn callout(&self, of: LockManagerAt, number: u64) -> Option<&Runs> {
        self.servers[of].callouts.runs.as_ref().filter(|runs| runs.number == number)
    }

    fn said_of(&self, of: LockManagerAt, client: usize) -> Said {
        let my_name = MyName::parse(self.servers[of].node.as_str()).ok();
        Said::Add { mon_name: MonName::from_address(client_address(client)), my_name }
    }
}

/// The notes as the agent deals with them.
impl crate::outside::InstanceOf {
    pub(crate) fn read_notes(&mut self) -> Vec<Said> {
        let Some(mut world) = self.alive() else { return Vec::new() };
        let callouts = &mut world.servers[self.of].callouts;
        callouts.read = callouts.notes.len();
        callouts.notes.clone()
    }

    pub(crate) fn put_notes_away(&mut self) {
        if let Some(mut world) = self.step() {
            let callouts = &mut world.servers[self.of].callouts;
            let read = std::mem::take(&mut callouts.read);
            callouts.notes.drain(..read);
        }
    }
}
