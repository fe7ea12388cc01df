//! An agent whose loop the test is.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use heirlock_agent::agent::running::Commission;
use heirlock_agent::agent::server::Server;
use heirlock_agent::{InstanceNumber, Message, News, Outside, RunNumber};
use heirlock_core::claim::{Authority, Claim};
use heirlock_core::store::{ClaimAnswer, Contents};
use heirlock_core::takeover::{End, Event, Order, Phase};
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;
use tempfile::TempDir;

use crate::config::{self, Settings};
use crate::control::report::StatusReport;
use crate::host::Host;
use crate::store::dir::DirStore;
use crate::this_server::ThisServer;
use crate::watchdog::Turns;

const PATIENCE: Duration = Duration::from_secs(120);

/// An agent whose loop the test is.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) agent: Server<ThisServer>,
    pub(crate) messages: Receiver<Message>,
}

/// A service of this name.
pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// A server with a lock manager that is known by commands, and with no host to ask about grace.
pub(crate) fn place() -> Place {
    configured("", "watch")
}

/// The same; its first service has these keys besides.
pub(crate) fn place_with(keys: &str) -> Place {
    configured(keys, "watch")
}

/// The same, in another capture mode.
pub(crate) fn place_in_mode(mode: &str) -> Place {
    configured("", mode)
}

/// The same, with services that are not on the loopback interface.
pub(crate) fn place_on_a_network() -> Place {
    configured_at("", "watch", ["192.0.2.10", "192.0.2.11"])
}

fn configured(keys: &str, mode: &str) -> Place {
    configured_at(keys, mode, ["127.0.0.1", "127.0.0.2"])
}

fn configured_at(keys: &str, mode: &str, addresses: [&str; 2]) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let (agent, messages) = taken_up(settings_at(&directory, keys, mode, addresses));
    Place { directory, agent, messages }
}

/// Folders and a store in this directory, and the settings of a server that has them.
pub(crate) fn settings_in(directory: &TempDir) -> Arc<Settings> {
    settings_at(directory, "", "watch", ["127.0.0.1", "127.0.0.2"])
}

fn settings_at(directory: &TempDir, keys: &str, mode: &str, [first, second]: [&str; 2]) -> Arc<Settings> {
    let here = directory.path();
    for folder in ["nfs", "nfs/sm", "nfs/sm.bak", "run", "local"] {
        fs::create_dir(here.join(folder)).unwrap();
    }
    fs::write(here.join("nfs/state"), StateNumber(5).render_file()).unwrap();
    fs::write(here.join("life"), "1\n").unwrap();
    DirStore::create(&here.join("store")).unwrap();
    let at = here.display();
    let text = format!(
        "server = \"nfs-b\"\nstate-directory = \"{at}/nfs\"\nruntime-directory = \"{at}/run\"\n\
         local-directory = \"{at}/local\"\n[store]\npath = \"{at}/store\"\n\
         [capture]\nmode = \"{mode}\"\n\
         [lock-manager]\ntype = \"command\"\nstrategy = \"command\"\nrecognise = [\"true\"]\n\
         incarnation = [\"cat\", \"{at}/life\"]\ngrace-period = \"20s\"\n[notify]\nrpcbind-port = 9\n\
         [[service]]\nname = \"nfs\"\n{keys}addresses = [\"{first}\"]\n\
         [[service]]\nname = \"new\"\naddresses = [\"{second}\"]\n"
    );
    Arc::new(config::parse(Path::new("test.toml"), &text).unwrap())
}

/// An agent that has taken up what an earlier one left.
fn taken_up(settings: Arc<Settings>) -> (Server<ThisServer>, Receiver<Message>) {
    let (mut agent, messages) = begun(settings);
    agent.take_up();
    (agent, messages)
}

/// An agent that has read nothing yet of what an earlier one left.
pub(crate) fn begun(settings: Arc<Settings>) -> (Server<ThisServer>, Receiver<Message>) {
    let (inbox, messages) = channel();
    let (outside, lock_manager) = ThisServer::begun(Host::here(), &settings, inbox);
    let store = crate::store::open(&Host::here(), &settings);
    (Server::new(settings, store, outside, vec![lock_manager]).unwrap(), messages)
}

/// heirlock is the status monitor of this server, and its agent serves it.
pub(crate) fn begin_monitoring(agent: &mut Server<ThisServer>) {
    let differing = agent.lock_manager_mut().begin_monitoring(Turns::unwatched()).unwrap();
    agent.monitors(InstanceNumber::FIRST, differing);
}

impl Place {
    /// The agent ends, and another one begins on what it left.
    pub(crate) fn start_again(&mut self) {
        (self.agent, self.messages) = taken_up(Arc::clone(self.agent.settings()));
    }

    /// Another server had this service, without a client: to adopt it is no first start.
    pub(crate) fn had_elsewhere(&self, name: &str) {
        let (service, store) = (service(name), self.agent.store());
        let claim = Claim::new(Generation::FIRST, &"nfs-a".parse().unwrap(), "run-a", 0);
        let contents = Contents { state: Some(StateNumber(7)), ..Contents::default() };
        assert_eq!(store.claim(&service, &claim).unwrap(), ClaimAnswer::Won);
        store.begin_generation(&service, claim.generation, &contents).unwrap();
    }

    pub(crate) fn begin(&mut self, target: &str) {
        self.ask_for(target, true);
    }

    pub(crate) fn begin_uninsisted(&mut self, target: &str) {
        self.ask_for(target, false);
    }

    fn ask_for(&mut self, target: &str, insisted: bool) {
        let authority = Authority { insisted, ..Authority::default() };
        let order = Order::asked(service(target), false, authority, None);
        self.agent.begin_run(self.agent.outside().now(), Commission::unasked(order));
    }

    /// The run that is on ends; its threads go on.
    pub(crate) fn supersede(&mut self) {
        let end = End::Refused("something else is wanted".into());
        match !self.agent.asked().is_empty() {
            true => self.agent.refused(&end),
            false => self.agent.over(end),
        }
    }

    /// Something happened in the status monitor's directory.
    pub(crate) fn hint(&mut self) {
        self.agent.lock_manager().hinted.store(true, Ordering::SeqCst);
        self.hear(News::Changed);
    }

    /// Does the work that is due, and waits for a look that this begins.
    pub(crate) fn turn(&mut self) {
        self.agent.do_what_is_due();
        while self.agent.capture().is_busy() {
            if self.agent.next_due() > self.agent.outside().now() {
                let message = self.next();
                self.agent.handle(message);
            }
            self.agent.do_what_is_due();
        }
    }

    /// The status that the agent makes known now.
    pub(crate) fn status(&self) -> StatusReport {
        self.agent.publish();
        self.agent.outside().snapshot.report(self.agent.outside().now())
    }

    /// Something is new of the lock manager.
    pub(crate) fn hear(&mut self, news: News) {
        self.agent.handle(Message::Of(InstanceNumber::FIRST, news));
    }

    /// The next message, of any kind: threads report in any order.
    pub(crate) fn next(&self) -> Message {
        self.messages.recv_timeout(PATIENCE).unwrap()
    }

    /// The news that have come until now.
    pub(crate) fn news(&self) -> impl Iterator<Item = News> {
        self.messages.try_iter().filter_map(|message| match message {
            Message::Of(_, news) => Some(news),
            _ => None,
        })
    }

    /// The contents of the next news that is wanted; messages that come before it are never handled.
    pub(crate) fn next_that<T>(&self, wanted: impl Fn(News) -> Option<T>) -> T {
        loop {
            if let Message::Of(_, news) = self.next()
                && let Some(said) = wanted(news)
            {
                return said;
            }
        }
    }

    /// Tells the run of this event, for which it waits.
    pub(crate) fn event(&mut self, event: Event) {
        let number = self.number();
        self.agent.worked_for(number, event);
    }

    /// Of the run that was asked for, or else of the one that is on.
    pub(crate) fn number(&self) -> RunNumber {
        self.agent.asked().first().or(self.agent.run().as_ref()).unwrap().number
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        let running = self.agent.asked().first().or(self.agent.run().as_ref());
        running.map(|running| running.machine.phase())
    }

    /// Lets the run go on until it has come so far.
    pub(crate) fn drive(&mut self, phase: Phase) {
        while self.phase() != Some(phase) {
            let message = self.next();
            self.agent.handle(message);
        }
    }

    /// Lets the run that was asked for go on until its claim was put off.
    pub(crate) fn drive_until_put_off(&mut self) {
        while !self.agent.put_off().may_have_come_about() {
            let message = self.next();
            self.agent.handle(message);
        }
    }

    pub(crate) fn claims(&self, of: &str) -> usize {
        let claims = self.directory.path().join("store/services").join(of).join("claims");
        fs::read_dir(claims).map_or(0, Iterator::count)
    }
}
