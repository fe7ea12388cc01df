//! The cluster manager: it moves addresses, keeps a dead server off while it is adopted, and says the verbs.

use std::collections::BTreeMap;
use std::fmt;

use heirlock_agent::Message;
use heirlock_agent::control::{Answer, AnswerWhen, Failure, Fenced, Progress, Request, Respond, Responder};
use heirlock_core::claim::Authority;
use heirlock_core::takeover::{Part, Phase};
use heirlock_core::{ServerName, ServiceName};

use crate::Ms;
use crate::chance::Purpose;
use crate::check::is_at_rest;
use crate::happening::Happening;
use crate::process::{Shared, entered};
use crate::schedule::{INCIDENTS_END, Incident, Level};
use crate::world::World;

/// A request to an agent.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Adopt {
        service: usize,
        prepare: bool,
        authority: Authority,
    },
    Finish(usize),
    Release(usize),
    /// To the home of a service.
    Failback(usize),
    /// To any server.
    Move {
        service: usize,
        to: usize,
    },
    Maintain(bool),
}

/// The answer of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Prepared,
    Settled,
    Failed,
    Refused,
    Released,
}

/// The work that goes on for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Idle,
    Adopting {
        on: usize,
        since: Ms,
        prepare: bool,
        fenced: Option<usize>,
    },
    Releasing {
        from: usize,
        to: usize,
        since: Ms,
    },
    /// `by`: the server whose agent was asked.
    Coming {
        to: usize,
        by: usize,
        since: Ms,
    },
}

/// The cluster manager.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    tasks: Vec<(ServiceName, TaskOf)>,
    pub(crate) words: Vec<(ServiceName, usize, Word)>,
    /// It lets two servers adopt at the same moment.
    pub(crate) is_hasty: bool,
    /// The authority that was given to the server that is to adopt a service, while that is not answered.
    said: BTreeMap<u64, (usize, ServiceName, Authority)>,
    asked: u64,
}

/// The caller that waits for an answer.
struct Caller {
    world: Shared,
    server: usize,
    service: ServiceName,
    /// Of its request.
    number: u64,
    is_release: bool,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the caller that asks server {} for {}", self.server, self.service)
    }
}

impl Respond for Caller {
    fn progress(&mut self, _: &Progress) -> bool {
        true
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let word = match &answer {
            Ok(_) if self.is_release => Word::Released,
            Ok(Answer::Adoption(report)) if report.phase == "prepared" => Word::Prepared,
            Ok(_) => Word::Settled,
            Err(failure) if failure.refused => Word::Refused,
            Err(_) => Word::Failed,
        };
        let mut world = entered(&self.world);
        if let Err(failure) = &answer {
            world.check_refusal(self.server, &self.service, &failure.message);
        }
        world.answered(self.server, &self.service, self.number, word);
    }
}

#[derive(Debug)]
struct TaskOf(Task);

impl Cluster {
    pub(crate) fn new(services: impl Iterator<Item = ServiceName>) -> Self {
        Self { tasks: services.map(|name| (name, TaskOf(Task::Idle))).collect(), ..Self::default() }
    }

    /// Whether a server that is to adopt a service was told that its owner is off, or to insist.
    pub(crate) fn answers_for(&self, server: usize, service: &ServiceName, owner: &ServerName) -> bool {
        let mut said = self.said.values().filter(|(to, of, _)| *to == server && of == service);
        said.any(|(.., said)| said.insisted || said.fenced.as_ref() == Some(owner))
    }

    /// The agent of a server is not there any more: it answers nothing.
    pub(crate) fn forget_authority_given_to(&mut self, server: usize) {
        self.said.retain(|_, (to, ..)| *to != server);
    }

    /// Whether anything is adopted from servers that must stay off meanwhile.
    pub(crate) fn holds_off(&self) -> bool {
        self.tasks.iter().any(|(_, task)| matches!(task.0, Task::Adopting { fenced: Some(_), .. }))
    }
}

impl World {
    /// Once a second.
    pub(crate) fn manage(&mut self) {
        for at in 0..self.cluster.tasks.len() {
            let (name, before) = (self.cluster.tasks[at].0.clone(), self.cluster.tasks[at].1.0);
            let Some(service) = self.service(&name) else { continue };
            let words: Vec<(usize, Word)> = self
                .cluster
                .words
                .iter()
                .filter(|word| word.0 == name)
                .map(|(_, server, word)| (*server, *word))
                .collect();
            self.cluster.words.retain(|word| word.0 != name);
            let after = self.go_on(service, &name, before, &words);
            if after != before {
                self.say(|| format!("cluster manager, {name}: {after:?}"));
            }
            self.cluster.tasks[at].1 = TaskOf(after);
        }
    }

    fn go_on(&mut self, service: usize, name: &ServiceName, task: Task, words: &[(usize, Word)]) -> Task {
        let said = |server: usize| words.iter().filter(move |w| w.0 == server).map(|w| w.1).next_back();
        match task {
            Task::Idle => match self.prepared_anew(name, words) {
                // A verb that was said twice came after the end of what it was said for, and has begun that once more.
                Some(on) => {
                    self.move_address(service, Some(on));
                    self.ask(on, Asked::Finish(service));
                    Task::Adopting { on, since: self.now, prepare: true, fenced: None }
                }
                None => self.idle(service, name),
            },
            Task::Adopting { on, since, .. } if !self.servers[on].on || self.now > since + 60_000 => {
                Task::Idle
            }
            Task::Adopting { on, since, prepare, fenced } => match said(on) {
                Some(Word::Settled | Word::Failed | Word::Refused) => Task::Idle,
                Some(Word::Prepared) => {
                    self.move_address(service, Some(on));
                    self.ask(on, Asked::Finish(service));
                    task
                }
                _ => {
                    // The verbs may be repeated; an agent that was restarted hears them again.
                    if (self.now - since) % 5_000 < 1_000 && self.now > since + 1_000 {
                        let authority = self.fenced(fenced);
                        self.ask(on, Asked::Adopt { service, prepare, authority });
                    }
                    task
                }
            },
            Task::Releasing { from, to, since } => match said(from) {
                Some(Word::Released) => self.adopt_on(service, to, None),
                Some(_) => Task::Idle,
                None if self.now > since + 20_000 || !self.servers[from].on => Task::Idle,
                None => task,
            },
            Task::Coming { to, by, since } => self.bring(service, name, (to, by, since), said(by)),
        }
    }

    /// The owner of a service that has prepared its adoption though no task is on for it.
    fn prepared_anew(&self, name: &ServiceName, words: &[(usize, Word)]) -> Option<usize> {
        let (on, _) = words.iter().rev().find(|(_, word)| *word == Word::Prepared)?;
        let claim = self.store.newest_claim(name).filter(|claim| !claim.released)?;
        (self.servers[*on].on && claim.owner == self.servers[*on].name).then_some(*on)
    }

    /// A server asks the owner for a service, and adopts it then. The address is brought where it is claimed.
    fn bring(
        &mut self,
        service: usize,
        name: &ServiceName,
        (to, by, since): (usize, usize, Ms),
        said: Option<Word>,
    ) -> Task {
        if said.is_some() || !self.servers[to].on || self.now > since + 30_000 {
            return Task::Idle;
        }
        let claim = self.store.newest_claim(name);
        let is_home = claim.is_some_and(|claim| !claim.released && claim.owner == self.servers[to].name);
        match is_home && !self.services[service].automatic && self.address_of(service) != Some(to) {
            true => self.adopt_on(service, to, None),
            false => Task::Coming { to, by, since },
        }
    }

    fn idle(&mut self, service: usize, name: &ServiceName) -> Task {
        let claim = self.store.newest_claim(name);
        let owner = claim.as_ref().and_then(|c| self.servers.iter().position(|s| s.name == c.owner));
        let released = claim.as_ref().is_none_or(|claim| claim.released);
        match owner {
            Some(owner) if !released && self.servers[owner].on => {
                if self.address_of(service) != Some(owner) {
                    // Before grace is open again an address is a free steal.
                    let journal = claim.and_then(|claim| self.store.journal(name, claim.generation));
                    let Some(journal) = journal else { return Task::Idle };
                    let is_own = journal.members.contains(&(name.clone(), Part::Own));
                    // A verb that failed is said again first: the clients may have their locks where the address is now.
                    let is_there = journal.phase == Phase::Settled || is_own;
                    if is_there || (journal.phase.is_over() && self.services[service].automatic) {
                        self.move_address(service, Some(owner));
                    } else if !self.services[service].automatic {
                        return self.adopt_on(service, owner, None);
                    }
                    return Task::Idle;
                }
                Task::Idle
            }
            None if claim.is_none() => Task::Idle, // its home claims it first
            // Where the agents decide, they see the silence themselves.
            Some(_) if !released && self.services[service].automatic => Task::Idle,
            _ => {
                let living: Vec<usize> = (0..self.servers.len()).filter(|at| self.is_living(*at)).collect();
                if living.is_empty() {
                    return Task::Idle;
                }
                let rng = self.chance(Purpose::Choice, service);
                let (waits, on) = (rng.u8(0..3) == 0, living[rng.usize(0..living.len())]);
                if waits {
                    return Task::Idle;
                }
                let fenced = owner.filter(|_| !released);
                if self.cluster.is_hasty && !released && living.len() > 1 {
                    let other = living.into_iter().find(|at| *at != on).unwrap_or(on);
                    let authority = self.fenced(fenced);
                    self.ask(other, Asked::Adopt { service, prepare: false, authority });
                }
                self.adopt_on(service, on, fenced)
            }
        }
    }

    /// Whether a server can be asked to adopt.
    fn is_living(&self, server: usize) -> bool {
        self.servers[server].on && self.agents[server].is_some() && !self.is_cut_off(server)
    }

    /// The owner of a service that serves it in peace, and for which the cluster manager has no task.
    fn owner_in_peace(&self, service: usize) -> Option<usize> {
        let name = &self.services[service].name;
        let is_idle = |(of, task): &&(ServiceName, TaskOf)| of == name && task.0 == Task::Idle;
        self.cluster.tasks.iter().find(is_idle)?;
        let claim = self.store.newest_claim(name).filter(|claim| !claim.released)?;
        let owner = self.servers.iter().position(|server| server.name == claim.owner)?;
        (self.servers[owner].on && self.address_of(service) == Some(owner)).then_some(owner)
    }

    /// An operator asks for a service while its owner lives: to be refused.
    pub(crate) fn operator_adopts(&mut self, service: usize, on: usize) {
        if self.owner_in_peace(service).is_some() && self.is_living(on) {
            let authority = Authority::default();
            self.ask(on, Asked::Adopt { service, prepare: false, authority });
        }
    }

    /// An operator has a service adopted from an owner that lives, and insists. Not while that one is telling its clients: it
    /// may draw the same number as the adopter, for each of them has yet to see the other's generation.
    pub(crate) fn operator_insists(&mut self, service: usize, on: usize) {
        let is_at_rest = |owner: usize| self.agents[owner].as_ref().is_some_and(|it| is_at_rest(&it.agent));
        let may_be = self.owner_in_peace(service).is_some_and(|owner| owner != on && is_at_rest(owner));
        if may_be && self.is_living(on) {
            let authority = Authority { insisted: true, ..Authority::default() };
            self.ask(on, Asked::Adopt { service, prepare: true, authority });
            self.set_task(service, Task::Adopting { on, since: self.now, prepare: true, fenced: None });
        }
    }

    /// An operator gathers all services on one server, as a cluster manager does with the groups of one that failed.
    pub(crate) fn operator_gathers(&mut self, server: usize, gap: Ms) {
        let floating = (0..self.services.len()).filter(|at| self.services[*at].host_of.is_none());
        for (service, after) in floating.collect::<Vec<_>>().into_iter().zip((0..).map(|place| place * gap)) {
            self.after(after, Happening::Incident(Incident::Insist { service, server }));
        }
    }

    /// An operator moves a service for the sake of it.
    pub(crate) fn operator_moves(&mut self, service: usize, to: usize) {
        let Some(owner) = self.owner_in_peace(service).filter(|owner| *owner != to) else { return };
        if self.is_living(to) {
            self.ask(owner, Asked::Release(service));
            self.set_task(service, Task::Releasing { from: owner, to, since: self.now });
        }
    }

    /// An operator brings a service home.
    pub(crate) fn operator_brings_home(&mut self, service: usize) {
        let home = self.services[service].home;
        if self.owner_in_peace(service).is_some() && self.is_living(home) {
            self.ask(home, Asked::Failback(service));
            self.set_task(service, Task::Coming { to: home, by: home, since: self.now });
        }
    }

    /// An operator on one server has a service moved to another one.
    pub(crate) fn operator_transfers(&mut self, service: usize, to: usize, by: usize) {
        let owner = self.owner_in_peace(service).filter(|owner| *owner != to);
        if owner.is_some() && self.is_living(to) && self.is_living(by) {
            self.ask(by, Asked::Move { service, to });
            self.set_task(service, Task::Coming { to, by, since: self.now });
        }
    }

    /// An operator maintains a server for a while.
    pub(crate) fn operator_maintains(&mut self, server: usize, ms: Ms) {
        if self.is_living(server) {
            self.ask(server, Asked::Maintain(true));
            self.after(ms, Happening::EndMaintenance(server));
        }
    }

    /// An operator ends it, and repeats that until it is over.
    pub(crate) fn operator_ends_maintenance(&mut self, server: usize) {
        if self.agents[server].is_some() {
            self.ask(server, Asked::Maintain(false));
        }
        if self.servers[server].is_maintained || self.is_stopped(server) {
            self.after(2_500, Happening::EndMaintenance(server));
        }
    }

    fn set_task(&mut self, service: usize, task: Task) {
        let name = &self.services[service].name;
        self.cluster.tasks.iter_mut().filter(|(of, _)| of == name).for_each(|(_, it)| it.0 = task);
    }

    /// The authority that it may give over a server that it keeps off.
    fn fenced(&self, server: Option<usize>) -> Authority {
        Authority { fenced: server.map(|server| self.servers[server].name.clone()), ..Authority::default() }
    }

    fn adopt_on(&mut self, service: usize, on: usize, fenced: Option<usize>) -> Task {
        // With a plain adopt the agent's hooks would move the address; a cluster manager prepares and finishes.
        let prepare = true;
        let authority = self.fenced(fenced);
        self.ask(on, Asked::Adopt { service, prepare, authority });
        Task::Adopting { on, since: self.now, prepare, fenced }
    }

    fn ask(&mut self, server: usize, asked: Asked) {
        let agent = self.servers[server].agent;
        let after = self.chance(Purpose::Word, server).u64(1..30);
        let repeats = self.levels.of(Level::WordsRepeated);
        let rng = self.chance(Purpose::Repeat, server);
        let (is_repeated, later) = (rng.u16(0..100) < repeats, rng.u64(1..6_000));
        let insists = matches!(&asked, Asked::Adopt { authority, .. } if authority.insisted);
        // A person who insists has looked, and says it once. Maintenance is switched on and off in order.
        if is_repeated && !insists && !matches!(asked, Asked::Maintain(_)) {
            // All faults are over with the repair: an adoption that is prepared by such a word is finished by no other one.
            let until_repair = INCIDENTS_END.saturating_sub(self.now);
            self.after(
                (after + later).min(until_repair),
                Happening::Asks { server, agent, asked: asked.clone() },
            );
        }
        self.after(after, Happening::Asks { server, agent, asked });
    }

    /// A request comes to an agent.
    pub(crate) fn asks(&mut self, server: usize, agent: u64, asked: Asked) {
        let Some(world) = self.agents[server].as_ref().map(|it| it.agent.outside().shared()) else { return };
        self.cluster.asked += 1;
        let number = self.cluster.asked;
        let service = match asked {
            Asked::Adopt { service, .. }
            | Asked::Finish(service)
            | Asked::Release(service)
            | Asked::Failback(service)
            | Asked::Move { service, .. } => self.services[service].name.clone(),
            Asked::Maintain(_) => ServiceName::host(&self.servers[server].name),
        };
        let is_release = matches!(asked, Asked::Release(_));
        let adopt = |prepare, finish, authority: Authority| Request::Adopt {
            service: service.clone(),
            prepare,
            finish,
            fenced: authority.fenced.map(Fenced::Server),
            force: authority.insisted,
            answer_when: AnswerWhen::Settled,
        };
        let request = match asked {
            Asked::Adopt { prepare, authority, .. } => {
                self.cluster.said.insert(number, (server, service.clone(), authority.clone()));
                self.checks.meetings.asked(self.now, server, &service);
                adopt(prepare, false, authority)
            }
            Asked::Finish(_) => adopt(false, true, Authority::default()),
            Asked::Release(_) => Request::Release { service: service.clone() },
            Asked::Failback(_) => {
                Request::Failback { service: service.clone(), answer_when: AnswerWhen::Settled }
            }
            Asked::Move { to, .. } => Request::Move {
                service: service.clone(),
                to: self.servers[to].name.clone(),
                answer_when: AnswerWhen::Settled,
            },
            Asked::Maintain(on) => Request::Maintenance { on },
        };
        let responder = Responder::new(Caller { world, server, service, number, is_release });
        self.hand_to_agent(server, agent, Message::Request(Box::new(request), responder));
    }

    /// An agent answers; one that has died in the middle of its turn says nothing.
    fn answered(&mut self, server: usize, service: &ServiceName, number: u64, word: Word) {
        if !self.lives(server) {
            return;
        }
        let name = self.servers[server].name.clone();
        self.say(|| format!("{name}: answers for {service}: {word:?}"));
        if word != Word::Prepared {
            self.cluster.said.remove(&number);
        }
        self.checks.meetings.answered(server, service);
        if !service.is_host() {
            self.cluster.words.push((service.clone(), server, word));
        }
    }
}
