//! Clients whose hosts are restarted. The new boot announces itself by SM_NOTIFY at the address of each service that it had mounted,
//! until it is answered, and the lock manager there frees the locks of the boot before. In mode `nsm` the product's machine takes
//! the announcement in; elsewhere rpc.statd does, whose callout tells the agent of it in mode `callout`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use heirlock_agent::News;
use heirlock_agent::status_monitor::Said;
use heirlock_core::monitor::{Action, Called, Event, Ticket};
use heirlock_nsm::{MonName, StateNumber};

use crate::Ms;
use crate::chance::Purpose;
use crate::client::{Ask, Client};
use crate::happening::Happening;
use crate::lock_manager::{FileAt, LockManagerAt, client_address, client_at};
use crate::schedule::Capture;
use crate::status_monitor::Request;
use crate::work::AgentAt;
use crate::world::World;

/// How often an announcement is sent, the time between two of them growing from two seconds on. Then its sender gives up, as
/// sm-notify does after a quarter of an hour.
const TRIES_MAX: u32 = 5;
/// How long a status monitor waits for the answer of its lock manager.
const DOWNCALL_MS: Ms = 1_000;
/// rpc.statd calls its lock manager so often, with so much time in between (utils/statd/statd.h).
const STATD_TRIES: u32 = 5;
const STATD_RETRY_MS: Ms = 5_000;
/// The numbers of each client, and those of strangers, are its own, so that a checker knows whose a number is.
const NUMBERS_EACH: u32 = 1_000;
const STRANGERS: u32 = 900;

/// How a boot of a client's announces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Manner {
    pub(crate) calls_itself: Calling,
    /// Its processes lock before it was heard.
    pub(crate) is_hasty: bool,
}

/// By which name, and from which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Calling {
    /// The name that the resolver has, whole and cut at its first dot.
    #[default]
    ByName,
    /// The same name as all others that were made from one image.
    LikeOthers,
    /// By its address.
    ByAddress,
    /// By its name, from another address than the one that it locks from.
    FromElsewhere,
}

/// An SM_NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) service: usize,
    pub(crate) name: String,
    pub(crate) source: IpAddr,
    pub(crate) state: StateNumber,
    /// The client and its boot that wait for the answer; nothing where a stranger sent it.
    sender: Option<(usize, u32)>,
}

impl Client {
    /// Its processes wait until its announcements are answered, or given up.
    pub(crate) fn waits_to_be_heard(&self) -> bool {
        !self.announcing.is_empty() && !self.manner.is_hasty
    }
}

/// The number of a client's boot. The first boot announces nothing.
fn number_of(client: usize, boot: u32) -> StateNumber {
    let client = u32::try_from(client).unwrap_or_default();
    StateNumber(2 * (NUMBERS_EACH * client + boot) + 1)
}

/// The addresses of a name that is announced. A name that many hosts call themselves by has none that leads to one of them.
fn resolved(name: &str) -> Vec<IpAddr> {
    let short = name.split('.').next().unwrap_or_default();
    match short.strip_prefix("client").and_then(|number| number.parse().ok()) {
        Some(client) => vec![client_address(client)],
        None if short == "stranger" => vec![stranger_address()],
        None => Vec::new(),
    }
}

/// The address of a host that no lock manager knows.
fn stranger_address() -> IpAddr {
    Ipv4Addr::new(10, 9, 0, 1).into()
}

impl World {
    /// What happens to announcements.
    pub(crate) fn happen_to_announcements(&mut self, happening: Happening) {
        match happening {
            Happening::Announces { client, service, boot, tries } => {
                self.announces(client, service, boot, tries);
            }
            Happening::Announced(announcement) => self.announced(*announcement),
            Happening::Acknowledged { client, service, boot } => {
                let it = &mut self.clients[client];
                if it.boots == boot && it.away_until <= self.now {
                    it.announcing.remove(&service);
                }
            }
            Happening::AnnouncedLookedUp { of, agent, ticket, name, state }
                if self.servers[of.server].agent == agent =>
            {
                let addresses = Some(resolved(&name));
                self.monitor_hears(of, Event::LookedUp { ticket, addresses, state });
            }
            Happening::Downcall { of, agent, client, state, until } => {
                self.downcall((of, agent), client, state, until);
            }
            Happening::StatdCalls { of, boot, client, state, tries } => {
                self.statd_calls(of, boot, client, state, tries);
            }
            _ => {}
        }
    }

    // The client.

    /// The host of a client is restarted: its locks are gone with its processes, and the servers have yet to learn of that.
    pub(crate) fn restart_client(&mut self, client: usize, ms: Ms) {
        let rng = self.chance(Purpose::Restart, client);
        let calls_itself = match rng.u8(0..5) {
            0 => Calling::LikeOthers,
            1 => Calling::ByAddress,
            2 => Calling::FromElsewhere,
            _ => Calling::ByName,
        };
        let manner = Manner { calls_itself, is_hasty: rng.u8(0..4) == 0 };
        let now = self.now;
        let it = &mut self.clients[client];
        it.restarts(now, manner);
        it.away_until = it.away_until.max(now + ms);
        it.note_kept_off(now);
        let (boot, services) = (it.boots, it.announcing.clone());
        self.say(|| format!("client {client} is restarted, and announces itself {manner:?}"));
        for service in services {
            self.after(ms, Happening::Announces { client, service, boot, tries: 0 });
        }
    }

    fn announces(&mut self, client: usize, service: usize, boot: u32, tries: u32) {
        let it = &mut self.clients[client];
        if it.boots != boot || !it.announcing.contains(&service) {
            return;
        }
        if tries >= TRIES_MAX {
            it.announcing.remove(&service);
            return self.say(|| format!("client {client} gives up to announce itself at service {service}"));
        }
        let calling = it.manner.calls_itself;
        let names = match calling {
            Calling::ByName | Calling::FromElsewhere => {
                vec![format!("client{client}.example"), format!("client{client}")]
            }
            Calling::LikeOthers => vec!["localhost.localdomain".to_owned(), "localhost".to_owned()],
            Calling::ByAddress => vec![client_address(client).to_string()],
        };
        let source = match calling {
            Calling::FromElsewhere => {
                Ipv4Addr::new(10, 5, 0, u8::try_from(client + 1).unwrap_or_default()).into()
            }
            _ => client_address(client),
        };
        let state = number_of(client, boot);
        for name in names {
            for after in self.deliveries(client) {
                let (name, sender) = (name.clone(), Some((client, boot)));
                let announcement = Announcement { service, name, source, state, sender };
                self.after(after, Happening::Announced(Box::new(announcement)));
            }
        }
        self.after(2_000 << tries, Happening::Announces { client, service, boot, tries: tries + 1 });
    }

    /// A host that no lock manager knows announces something at the address of a service.
    pub(crate) fn stranger_announces(&mut self, service: usize) {
        let rng = self.chance(Purpose::Stranger, service);
        let names = ["stranger.example", "localhost", "10.9.0.1", "../../etc/passwd", "a b", ""];
        let (name, number, after) = (names[rng.usize(0..names.len())], rng.u32(0..5), rng.u64(1..30));
        let state = StateNumber(2 * NUMBERS_EACH * STRANGERS + number);
        let (name, source) = (name.to_owned(), stranger_address());
        let announcement = Announcement { service, name, source, state, sender: None };
        self.after(after, Happening::Announced(Box::new(announcement)));
    }

    // Status monitors.

    /// An announcement comes to the address of a service, and so to the status monitor of the lock manager that serves it.
    fn announced(&mut self, announcement: Announcement) {
        let Some(of) = self.serving(announcement.service) else { return };
        match self.servers[of].capture {
            Capture::Nsm => self.ask_status_monitor(of, Request::Notified(announcement)),
            Capture::Watch | Capture::Callout => self.statd_is_told(of, &announcement),
        }
    }

    fn acknowledge(&mut self, of: LockManagerAt, announcement: &Announcement, wait: Ms) {
        let Some((client, boot)) = announcement.sender else { return };
        let service = announcement.service;
        if self.serving(service) != Some(of) {
            return;
        }
        for after in self.deliveries(client) {
            self.after(wait + after, Happening::Acknowledged { client, service, boot });
        }
    }

    /// What our own status monitor does about announcements.
    pub(crate) fn monitor_acts_on_announcements(&mut self, (of, agent): AgentAt, action: Action, wait: Ms) {
        match action {
            Action::Acknowledge(ticket) => {
                if let Some(announcement) = self.servers[of].status_monitor.takes_announcement(ticket) {
                    self.acknowledge(of, &announcement, wait);
                }
            }
            Action::LeaveUnanswered(ticket) => {
                drop(self.servers[of].status_monitor.takes_announcement(ticket));
            }
            Action::LookUp { ticket, name, state } => {
                self.look_announced_up((of, agent), ticket, name, state, wait);
            }
            Action::Call { client, state, .. } => {
                let (after, until) = (wait + 1, self.now + wait + DOWNCALL_MS);
                self.after(after, Happening::Downcall { of, agent, client, state, until });
            }
            _ => {}
        }
    }

    fn look_announced_up(
        &mut self,
        (of, agent): AgentAt,
        ticket: Ticket,
        name: String,
        state: StateNumber,
        wait: Ms,
    ) {
        let Some(hangs) = self.name_is_answered_after(of) else { return };
        let after = wait + hangs + self.chance(Purpose::Announced, of.stream()).u64(1..30);
        self.after(after, Happening::AnnouncedLookedUp { of, agent, ticket, name, state });
    }

    /// Our own status monitor calls its lock manager, which may be waiting for it in its only thread. It may die before it notes
    /// that the call was taken.
    fn downcall(&mut self, (of, agent): AgentAt, client: MonName, state: StateNumber, until: Ms) {
        let it = &self.servers[of];
        if self.servers[of.server].agent != agent || !it.status_monitor.runs() {
            return;
        }
        let how = match it.serves() {
            false => Called::Unregistered,
            true if !it.asking.is_on() => {
                self.wake_lockd(of);
                self.lockd_is_told(of, client.address().and_then(client_at), state);
                Called::Taken
            }
            true if self.now < until => {
                return self.after(20, Happening::Downcall { of, agent, client, state, until });
            }
            true => Called::Untaken,
        };
        if !self.monitor_dies(of) {
            self.monitor_hears(of, Event::Called { client, how });
        }
    }

    /// rpc.statd runs its callout, and calls its lock manager for each client that the name or the address is one of
    /// (utils/statd/callback.c). It answers whether that comes about or not.
    fn statd_is_told(&mut self, of: LockManagerAt, announcement: &Announcement) {
        let Announcement { name, source, state, .. } = announcement;
        let after = self.chance(Purpose::Announced, of.stream()).u64(2..8);
        if self.servers[of].capture == Capture::Callout {
            let said = Said::Notified(vec![name.clone(), source.to_string(), state.0.to_string()]);
            let agent = self.servers[of.server].agent;
            self.tell_agent((of, agent), after, News::Callout(said, Box::new(|_| {})));
        }
        let addresses = resolved(name).into_iter().chain(name.parse()).chain([*source]);
        let meant: BTreeSet<usize> = addresses.filter_map(client_at).collect();
        let it = &mut self.servers[of];
        let is_news = |client: &usize| it.remembered.contains(client) && it.heard.get(client) != Some(state);
        let told: Vec<usize> = meant.into_iter().filter(is_news).collect();
        it.heard.extend(told.iter().map(|client| (*client, *state)));
        let boot = it.boot;
        for client in told {
            self.after(after, Happening::StatdCalls { of, boot, client, state: *state, tries: 0 });
        }
        self.acknowledge(of, announcement, after);
    }

    fn statd_calls(&mut self, of: LockManagerAt, boot: u32, client: usize, state: StateNumber, tries: u32) {
        let it = &self.servers[of];
        if !self.servers[of.server].on || it.boot != boot || tries >= STATD_TRIES {
            return;
        }
        match it.serves() && !it.asking.is_on() {
            true => {
                self.wake_lockd(of);
                self.lockd_is_told(of, Some(client), state);
            }
            false => {
                let tries = tries + 1;
                self.after(STATD_RETRY_MS, Happening::StatdCalls { of, boot, client, state, tries });
            }
        }
    }

    // Lock managers.

    /// lockd is told that a client was restarted, and frees its locks. It finds the client by the cookie of a registration of this
    /// life, and takes notice of a number once (fs/lockd/mon.c, host.c).
    fn lockd_is_told(&mut self, of: LockManagerAt, client: Option<usize>, state: StateNumber) {
        let it = &mut self.servers[of];
        let Some(client) = client.filter(|client| it.registered.contains(client)) else { return };
        if it.told.insert(client, state) == Some(state) {
            return;
        }
        let theirs = it.locks.iter().filter(|(_, holder)| **holder == client);
        let freed: Vec<(FileAt, usize)> = theirs.map(|(file, holder)| (*file, *holder)).collect();
        it.locks.retain(|_, holder| *holder != client);
        let (us, life) = (it.name.clone(), it.life());
        self.say(|| format!("{us}: lockd frees {freed:?} of client {client}, for number {state}"));
        if !(1..=self.clients[client].boots).any(|boot| number_of(client, boot) == state) {
            let what = format!(
                "{us} has the locks of client {client} freed for number {state}, which no boot of that client announced"
            );
            self.violated(2, what);
        }
        self.lose(of, freed.clone(), false, None);
        for (file, client) in freed {
            self.repeat_call(client, file);
            let held = self.clients[client].locks.get_mut(&file);
            // What the present boot got as well: see `Excuse::Restarted`.
            if let Some(loss) = held.and_then(|held| held.loss.as_mut()).filter(|loss| loss.at == self.now) {
                loss.freed = true;
            }
        }
        let after = self.chance(Purpose::Announced, of.stream()).u64(8_000..30_000);
        self.after(after, Happening::Expire { life, client });
    }

    /// A lock is gone whose grant is still on its way: that answer is lost, and the call is repeated.
    fn repeat_call(&mut self, client: usize, file: FileAt) {
        let it = &mut self.clients[client];
        let Some(ask) = it.calls.get(&file).map(|call| call.ask).filter(|ask| *ask != Ask::Unlock) else {
            return;
        };
        let number = it.call(file, ask);
        self.after(1_000, Happening::Call { client, file, number });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::{Incident, Levels, Schedule};
    use crate::{Trace, run};

    /// What lock managers were made to free in a world in which nothing else goes wrong.
    fn freed(streams: u64, capture: Capture, incidents: Vec<(Ms, Incident)>) -> (Vec<String>, Vec<String>) {
        let levels = Levels::default();
        let schedule = Schedule { streams, levels, incidents, ..Schedule::draw(1) }.in_mode(capture);
        let story = run(&schedule, Trace::Kept);
        assert_eq!(story.violation, None);
        let freed = story.told.iter().filter(|line| line.contains("lockd frees")).cloned().collect();
        (freed, story.told)
    }

    #[test]
    fn a_client_that_is_restarted_is_known_by_each_of_its_names_and_no_other_one_loses_a_lock() {
        for capture in Capture::ALL {
            let mut manners = BTreeMap::<&str, usize>::new();
            // Where our own machine takes announcements in, each manner takes a way of its own.
            let count = if capture == Capture::Nsm { 24 } else { 4 };
            for streams in 0..count {
                let restart = Incident::RestartClient { client: 0, ms: 1_000 };
                let (freed, told) = freed(streams, capture, vec![(60_000, restart)]);
                assert!(freed.iter().all(|line| line.contains("of client 0,")), "{freed:?}");
                let manner = told.iter().find(|line| line.contains("is restarted")).unwrap();
                let all = ["ByName", "LikeOthers", "ByAddress", "FromElsewhere"];
                let manner = all.into_iter().find(|name| manner.contains(name)).unwrap();
                *manners.entry(manner).or_default() += freed.len();
            }
            let each = manners.len() == 4 && manners.values().all(|count| *count > 0);
            let some = manners.values().any(|count| *count > 0);
            assert!(if capture == Capture::Nsm { each } else { some }, "{capture:?}: {manners:?}");
        }
    }

    #[test]
    fn what_a_stranger_announces_frees_no_lock() {
        for capture in Capture::ALL {
            let strangers = (10..100).map(|second| (second * 1_000, Incident::Stranger { service: 0 }));
            let (freed, told) = freed(7, capture, strangers.collect());
            assert_eq!(freed, [] as [&str; 0]);
            assert!(told.iter().filter(|line| line.contains("has (")).count() > 3, "locks are taken");
        }
    }
}
