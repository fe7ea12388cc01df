//! Asks each client on record whether it can be reached, as the notifier would tell it: its rpcbind for the port of its status
//! monitor, then its status monitor, by every route and over both transports. The words are left out ([`Words::Nothing`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use heirlock_core::calling::{Floating, Standpoint, Surroundings};
use heirlock_core::drill::Unreached;
use heirlock_core::grace::Leave;
use heirlock_core::notify::{Destination, Words};
use heirlock_core::takeover::Part;
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::MonName;

use super::on_record::OnRecord;
use crate::clock::Clock;
use crate::config::Settings;
use crate::host::Host;
use crate::limits::{DRILL_ASK_TIME_MAX, DRILL_LAST_ANSWER_MAX};
use crate::notifier::{self, LookUp, Principal, Task};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// How many answered.
    pub(super) answered: usize,
    /// How long after the first call the last of them did.
    pub(super) last_answer: Option<Duration>,
    /// All others.
    pub(super) unreached: Vec<Unreached>,
    /// The addresses that the calls left from; none where the routes chose.
    pub(super) from: Vec<IpAddr>,
}

/// From where the clients are asked.
pub(super) struct Vantage<'a> {
    pub(super) host: &'a Host,
    pub(super) settings: &'a Settings,
    pub(super) on_record: &'a OnRecord<'a>,
    /// This server holds the service: its clients registered here.
    pub(super) is_held: bool,
    /// Whether this server holds a service.
    pub(super) held: &'a dyn Fn(&ServiceName) -> bool,
}

impl Surroundings for Vantage<'_> {
    fn node(&self) -> String {
        self.host.node().unwrap_or_default()
    }

    fn is_present(&self, address: IpAddr) -> bool {
        self.host.is_present(address)
    }

    fn destination_of(&self, name: &MonName) -> Option<Destination> {
        notifier::destination_of(name)
    }

    /// Names are looked up while others are asked.
    fn resolved(&self, _: &MonName) -> Vec<IpAddr> {
        Vec::new()
    }
}

impl Vantage<'_> {
    /// Asks all of them at once, until each has answered or was tried, or time is up. `stop`: nothing may be sent any more.
    pub(super) fn ask(&self, service: &ServiceName, stop: &dyn Fn() -> bool) -> Asked {
        let (clients, untold) = self.clients(service);
        let all = clients.len();
        let from = self.from(service);
        let names: Vec<MonName> = clients
            .iter()
            .filter(|(client, known)| known.is_empty() && client.is_host_name())
            .map(|(client, _)| client.clone())
            .collect();
        let task = Task {
            words: Words::Nothing,
            clients,
            from: from.clone(),
            settings: self.settings.notify.clone(),
        };
        let began = Instant::now();
        let mut asking = Asking {
            clock: Clock::start(),
            began,
            names: LookUp::begin(names),
            answered: BTreeSet::new(),
            last_answer: None,
            tried_all: None,
            stop,
            looked: None,
        };
        let left = notifier::run(task, &mut asking);
        let left = left.into_iter().map(|(client, _, why)| (client, why)).chain(untold);
        let unreached: Vec<Unreached> = left.map(|(client, why)| self.unreached(&client, why)).collect();
        Asked { answered: asking.answered.len().min(all), last_answer: asking.last_answer, unreached, from }
    }

    /// Where each client is called, and those that are not, with the reason.
    #[expect(clippy::type_complexity, reason = "two lists, as the notifier takes them")]
    fn clients(&self, service: &ServiceName) -> (Vec<(MonName, Vec<Destination>)>, Vec<(MonName, String)>) {
        let number = self.settings.instance_of(service);
        let services = self.settings.services.iter().map(|service| Floating {
            addresses: &service.addresses,
            is_held: (self.held)(&service.name),
            is_served_here: service.instance == number,
        });
        let standpoint = Standpoint {
            server: &self.settings.server,
            services: services.collect(),
            own: &self.settings.host.addresses,
            servers: &self.on_record.servers,
        };
        let part = if self.is_held { Part::Own } else { Part::Target };
        let (mut clients, mut untold) = (Vec::new(), Vec::new());
        for (client, lines) in &self.on_record.clients {
            match standpoint.addresses_of(client, lines, part, self) {
                Ok(addresses) => clients.push((client.clone(), addresses)),
                Err(why) => untold.push((client.clone(), why)),
            }
        }
        (clients, untold)
    }

    /// The addresses of the service, as far as they are here; on a standby the routes choose.
    fn from(&self, service: &ServiceName) -> Vec<IpAddr> {
        let all = self.settings.service(service).map_or(&[][..], |service| &service.addresses);
        all.iter().copied().filter(|address| self.host.is_present(*address)).collect()
    }

    fn unreached(&self, client: &MonName, why: String) -> Unreached {
        let lines = self.on_record.clients.get(client).map(Vec::as_slice).unwrap_or_default();
        let names: BTreeSet<String> = lines
            .iter()
            .filter(|line| line.mon_name != *client)
            .map(|line| line.mon_name.to_string())
            .collect();
        Unreached { client: client.to_string(), names: names.into_iter().collect(), why }
    }
}

/// How often it is asked whether an adoption has begun.
const STOP_LOOK: Duration = Duration::from_millis(100);

/// The clients are being asked.
struct Asking<'a> {
    clock: Clock,
    began: Instant,
    names: LookUp,
    answered: BTreeSet<MonName>,
    last_answer: Option<Duration>,
    /// When each of them had been tried.
    tried_all: Option<Instant>,
    stop: &'a dyn Fn() -> bool,
    /// When that was asked last.
    looked: Option<Instant>,
}

impl Principal for Asking<'_> {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn may_leave(&mut self, _: Moment) -> Leave {
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= STOP_LOOK);
        if is_due {
            self.looked = Some(Instant::now());
        }
        let last = self.last_answer.map(|after| self.began + after);
        let is_quiet = self
            .tried_all
            .is_some_and(|tried| tried.max(last.unwrap_or(tried)).elapsed() >= DRILL_LAST_ANSWER_MAX);
        let is_over = is_quiet || self.began.elapsed() >= DRILL_ASK_TIME_MAX;
        if is_over || (is_due && (self.stop)()) { Leave::TooLate } else { Leave::Granted }
    }

    fn acknowledged(&mut self, clients: Vec<MonName>) {
        self.last_answer = Some(self.began.elapsed());
        self.answered.extend(clients);
    }

    fn tried_all(&mut self) {
        self.tried_all = Some(Instant::now());
    }

    fn resolved(&mut self) -> Vec<(MonName, Vec<Destination>)> {
        self.names.found()
    }
}
