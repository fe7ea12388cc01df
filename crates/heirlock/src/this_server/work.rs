//! Work that takes its time: each piece runs in a thread of its own and reports to the agent's loop.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use heirlock_agent::News;
use heirlock_agent::{Fit, RunNumber, Telling};
use heirlock_core::grace::{Grace, Leave, Probe};
use heirlock_core::incarnation::Incarnation;
use heirlock_core::lives::{Recognised, Recognising, asks_first};
use heirlock_core::notify::{Destination, Words};
use heirlock_core::takeover::{Event, Strategy};
use heirlock_core::{Moment, Outcome, ServerName, ServiceName};
use heirlock_nsm::MonName;

use super::inbox::Inbox;
use super::look_up::resolve;
use super::proofs::Proofs;
use super::readiness::Readiness;
use super::volumes;
use crate::clock::Clock;
use crate::config::{Hook, Settings};
use crate::control::Missing;
use crate::first_round::{FirstRound, FirstRounds};
use crate::guard;
use crate::host::Host;
use crate::lock_manager::{self, LockManager};
use crate::notifier::{self, LookUp};
use crate::threads;
use crate::{arp, hooks, limits};

/// All that work needs.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) host: Host,
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Clock,
    pub(crate) lock_manager: Arc<dyn LockManager>,
    /// Held while the lock manager is looked at or worked on: no look may come after the work that was done since.
    pub(crate) turn: Arc<Mutex<()>>,
    /// How long that is kept for a lock manager that is to let go of locks: [`limits::LET_GO_TIME_MAX`], and less in tests.
    pub(crate) let_go_time_max: Duration,
    pub(crate) inbox: Inbox,
    /// The run that is worked for.
    pub(crate) run: RunNumber,
    /// The notifiers that have not tried all their clients yet.
    pub(crate) first_rounds: FirstRounds,
}

/// The clients of one service are being told, inside grace.
struct Notification<'a> {
    shop: &'a Workshop,
    service: &'a ServiceName,
    names: LookUp,
    readiness: &'a Readiness,
    proofs: Proofs,
    stop: &'a AtomicBool,
    /// Until it has tried all clients once.
    first_round: Option<FirstRound>,
}

impl notifier::Principal for Notification<'_> {
    fn now(&self) -> Moment {
        self.shop.clock.now()
    }

    fn may_leave(&mut self, _now: Moment) -> Leave {
        if self.stop.load(Ordering::Relaxed) {
            return Leave::TooLate;
        }
        self.proofs.leave(|| self.readiness.ready())
    }

    fn acknowledged(&mut self, clients: Vec<MonName>) {
        self.shop.report(Event::Acknowledged { service: self.service.clone(), clients });
    }

    fn tried_all(&mut self) {
        self.first_round = None;
        self.shop.report(Event::TriedAll { service: self.service.clone() });
    }

    fn resolved(&mut self) -> Vec<(MonName, Vec<Destination>)> {
        self.names.found()
    }

    fn announce(&mut self, address: IpAddr) {
        arp::announce_again(address);
    }

    fn is_ready(&mut self, address: IpAddr) -> Result<(), String> {
        match self.shop.settings.service(self.service) {
            Some(_) => self.readiness.of(self.service, address),
            // The server's implicit service has its address.
            None => Ok(()),
        }
    }
}

/// The report of a thread to the loop, made once. A thread that ends without it, as by a panic, reports that.
pub(super) struct Report<T, M: FnOnce(Result<T, String>) -> News> {
    inbox: Inbox,
    message: Option<M>,
    of: PhantomData<T>,
}

impl<T, M: FnOnce(Result<T, String>) -> News> Report<T, M> {
    pub(super) fn new(inbox: Inbox, message: M) -> Self {
        Self { inbox, message: Some(message), of: PhantomData }
    }

    pub(super) fn send(&mut self, done: Result<T, String>) {
        if let Some(message) = self.message.take() {
            // The loop is gone only when the whole agent stops.
            let _ = self.inbox.send(message(done));
        }
    }
}

impl<T, M: FnOnce(Result<T, String>) -> News> Drop for Report<T, M> {
    fn drop(&mut self) {
        self.send(Err("its thread ended without a report".to_owned()));
    }
}

/// The answer to the question whether grace is open.
enum Proof {
    InGrace,
    /// It is not, for this reason, and nothing is exported.
    ExportsNothing(String),
}

fn lacks(one: Missing) -> Fit {
    Fit { missing: vec![one], said: Vec::new() }
}

/// Nothing could be looked at.
fn no_thread(why: String) -> Fit {
    lacks(Missing::new("thread", why, "then ask again"))
}

impl Workshop {
    /// The same, whose reports are this run's.
    pub(super) fn of_run(&self, run: RunNumber) -> Self {
        Self { run, ..self.clone() }
    }

    pub(super) fn report(&self, event: Event) {
        // The loop is gone only when the whole agent stops.
        let _ = self.inbox.send(News::Event(self.run, event));
    }

    /// The message of a run's event.
    fn event<T>(&self, event: fn(T) -> Event) -> impl FnOnce(T) -> News + Clone + Send + use<T> {
        let run = self.run;
        move |of| News::Event(run, event(of))
    }

    /// Does something in a thread of this name. The loop is told what came of it, or why there is no thread for it.
    pub(super) fn in_thread<T>(
        &self,
        name: &'static str,
        message: impl FnOnce(Result<T, String>) -> News + Clone + Send + 'static,
        work: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) {
        let (shop, told) = (self.clone(), message.clone());
        let begun = self.host.start(name, move || {
            let mut report = Report::new(shop.inbox.clone(), told);
            let done = work(&shop);
            report.send(done);
        });
        if let Err(error) = begun {
            let _ = self.inbox.send(message(Err(error.to_string())));
        }
    }

    /// Waits until the lock manager is neither looked at nor worked on: for a thread that may wait.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`RunWork::CheckFit`](heirlock_agent::RunWork::CheckFit).
    pub(super) fn check_fit(&self, targets: Vec<ServiceName>, insists: bool, brings: bool) {
        let run = self.run;
        let message = move |fit: Result<Fit, String>| News::Fit(run, fit.unwrap_or_else(no_thread));
        self.in_thread("check-fit", message, move |shop| Ok(shop.look_in_time(targets, insists, brings)));
    }

    /// The same for a service that is to come home, before its owner is asked for it.
    pub(super) fn check_home(&self, service: &ServiceName) {
        let (of, targets) = (service.clone(), vec![service.clone()]);
        let message = |fit: Result<Fit, String>| News::HomeLookedFor(of, fit.unwrap_or_else(no_thread));
        self.in_thread("check-home", message, move |shop| Ok(shop.look_in_time(targets, false, true)));
    }

    /// A disk or a program that hangs is a reason to refuse; the thread that waits for it is left behind.
    fn look_in_time(&self, targets: Vec<ServiceName>, insists: bool, brings: bool) -> Fit {
        let shop = self.clone();
        let incarnation = self.settings.lock_manager.incarnation.as_ref().map(|command| command.time_limit);
        let limit = limits::INTENT_TIME_MAX + incarnation.unwrap_or_default();
        let looked = threads::within("intent", limit, move || shop.look(&targets, insists, brings));
        looked.unwrap_or_else(|why| {
            let remedy = "find the disk or the program that hangs: 'heirlock doctor' looks at the same";
            lacks(Missing::new(
                "intent",
                format!("what the adoption needs could not be looked at: {why}"),
                remedy,
            ))
        })
    }

    /// Makes the guard file anew that keeps stock sm-notify out. A cluster's resource agent that starts NFS removes it.
    fn keep_sm_notify_out(&self) {
        match guard::renew(&self.host, &self.settings) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(
                    "the guard file that keeps stock sm-notify out was removed, as the nfsserver resource agent does; it is there again"
                );
            }
            Err(error) => {
                tracing::error!(%error, "stock sm-notify may not be kept out; look with 'heirlock doctor': {error}");
            }
        }
    }

    /// The unmet needs of an adoption, as the guard sees this host.
    fn look(&self, targets: &[ServiceName], insists: bool, brings: bool) -> Fit {
        self.keep_sm_notify_out();
        let (host, settings, lock_manager) = (&self.host, &self.settings, self.lock_manager.as_ref());
        // A run that does not go on to the addresses is prepared for another program.
        let prepares = !brings;
        let missing = guard::refusals(host, settings, lock_manager, targets, insists, prepares)
            .into_iter()
            .map(|refusal| {
                let remedy = refusal.remedy.unwrap_or_else(|| "mend it".into());
                Missing::new(refusal.check, refusal.found, remedy)
            });
        let said = match brings {
            true => guard::awaited(host, settings, lock_manager, targets),
            false => Vec::new(),
        };
        Fit { missing: missing.collect(), said }
    }

    /// Has owners confirmed off.
    pub(super) fn fence(&self, owners: Vec<(ServiceName, ServerName)>) {
        self.in_thread("fence", self.event(Event::Fenced), move |shop| {
            owners.iter().try_for_each(|(service, owner)| {
                let asked = shop.hook(Hook::Fence, service, Some(owner));
                let asked = asked.ok_or_else(|| {
                    format!("no fence is configured that would confirm that {owner} is off; set hooks.fence")
                })?;
                asked.map_err(|why| format!("the fence did not confirm that {owner} is off: {why}"))
            })
        });
    }

    /// See [`RunWork::Recognise`](heirlock_agent::RunWork::Recognise).
    pub(super) fn recognise(
        &self,
        strategy: Strategy,
        targets: Vec<ServiceName>,
        grace_seen: Option<Moment>,
        owes: bool,
    ) {
        let run = self.run;
        let message = move |done| News::Recognised(run, Box::new(done));
        self.in_thread("recognise", message, move |shop| {
            shop.try_recognise(strategy, &targets, grace_seen, owes)
        });
    }

    fn try_recognise(
        &self,
        strategy: Strategy,
        targets: &[ServiceName],
        grace_seen: Option<Moment>,
        owes: bool,
    ) -> Result<Recognised, String> {
        for service in targets {
            if let Some(Err(why)) = self.hook(Hook::VolumeUp, service, None) {
                return Err(format!("the volume of {service} did not come up: {why}"));
            }
        }
        let answer = asks_first(strategy, owes).then(|| self.probe().0);
        // A start of NFS, or of the status monitor, starts sm-notify.
        self.keep_sm_notify_out();
        let (lock_manager, _turn) = (&self.lock_manager, self.turn());
        let work = Recognising { strategy, before: self.clock.now(), grace_seen, answer };
        let seen = lock_manager.recognise(strategy).map_err(|error| error.to_string())?;
        let grace_length = lock_manager.grace_length().map_err(|error| error.to_string())?;
        let age = lock_manager.grace_age().map_err(|error| error.to_string())?;
        work.done(self.clock.now(), seen.observation, seen.in_place, age, grace_length)
    }

    /// Asks until grace is open.
    pub(super) fn prove(&self, grace: Grace) {
        let run = self.run;
        let message = move |done: Result<Proof, String>| match done {
            Ok(Proof::InGrace) => News::Event(run, Event::Proved(Ok(()))),
            Ok(Proof::ExportsNothing(why)) => News::ServesNobody(run, why),
            Err(why) => News::Event(run, Event::Proved(Err(why))),
        };
        self.in_thread("prove", message, move |shop| {
            shop.keep_sm_notify_out();
            let until = shop.clock.now() + limits::PROVE_TIME_MAX;
            loop {
                let (answer, why) = shop.probe();
                if answer == Probe::InGrace {
                    return Ok(Proof::InGrace);
                }
                if grace.is_over(shop.clock.now()) {
                    return Err("grace is over".to_owned());
                }
                if shop.clock.now() >= until {
                    let why = format!("grace is not open: {why}");
                    return if shop.lock_manager.exports_nothing() {
                        Ok(Proof::ExportsNothing(why))
                    } else {
                        Err(why)
                    };
                }
                thread::sleep(limits::PROBE_INTERVAL);
            }
        });
    }

    /// Gathers what other servers compare with their own.
    pub(super) fn gather_facts(&self) {
        self.in_thread("facts", News::Facts, |shop| {
            Ok(guard::facts(&shop.settings, shop.lock_manager.as_ref()))
        });
    }

    /// Looks a client's name up.
    pub(super) fn look_up(&self, name: MonName) {
        let of = name.clone();
        self.in_thread(
            "resolve",
            |found| News::Resolved(of, found),
            move |shop| Ok(resolve(&shop.host, &name)),
        );
    }

    /// Asks the lock manager of this life once whether grace is open.
    pub(super) fn ask_grace(&self, life: Incarnation) {
        let message = |answer: Result<(Probe, String), String>| {
            News::GraceAsked(life, answer.unwrap_or_else(|why| (Probe::NoAnswer, why)))
        };
        self.in_thread("ask-grace", message, |shop| Ok(shop.probe()));
    }

    /// Takes the address of a service that is being released away, or waits for the cluster manager that does.
    pub(super) fn take_address_away(&self, service: &ServiceName) {
        let (of, service) = (service.clone(), service.clone());
        self.in_thread(
            "address-down",
            |gone| News::AddressGone(of, gone),
            move |shop| shop.try_take_address_away(&service),
        );
    }

    fn try_take_address_away(&self, service: &ServiceName) -> Result<(), String> {
        if let Some(Err(why)) = self.hook(Hook::AddressDown, service, None) {
            return Err(format!("its address did not go: {why}"));
        }
        let until = self.clock.now() + limits::ADDRESS_GONE_TIME_MAX;
        loop {
            let Some(address) =
                self.addresses(service).iter().copied().find(|address| self.host.is_present(*address))
            else {
                return Ok(());
            };
            if self.clock.now() >= until {
                return Err(format!(
                    "{address} is still on this server; take it away first, or set hooks.address-down"
                ));
            }
            thread::sleep(limits::BRING_UP_INTERVAL);
        }
    }

    /// Brings the address of a service that is held still back, which a release had taken away. That it is here counts, and not the
    /// word of the hook: a person may have brought it meanwhile.
    pub(super) fn bring_address_back(&self, service: &ServiceName) {
        let (of, service) = (service.clone(), service.clone());
        self.in_thread(
            "address-up",
            |back| News::AddressBack(of, back),
            move |shop| shop.try_bring_address_back(&service),
        );
    }

    fn try_bring_address_back(&self, service: &ServiceName) -> Result<(), String> {
        let missing =
            || self.addresses(service).iter().copied().find(|address| !self.host.is_present(*address));
        if missing().is_none() {
            return Ok(());
        }
        let ran = self.hook(Hook::AddressUp, service, None).unwrap_or(Ok(()));
        let until = self.clock.now() + limits::ADDRESS_BACK_TIME_MAX;
        while let Some(address) = missing() {
            if let Err(why) = &ran {
                return Err(format!("the hook address-up failed: {why}"));
            }
            if self.clock.now() >= until {
                return Err(format!("the hook address-up has run, and {address} is not on this server"));
            }
            thread::sleep(limits::BRING_UP_INTERVAL);
        }
        for address in self.addresses(service) {
            if let Err(error) = arp::announce(*address) {
                tracing::warn!(%address, %error, "no gratuitous ARP could be sent for {address}, so clients may not find it for a while: {error}");
            }
        }
        Ok(())
    }

    /// Takes the address of a service that is another server's away, where there is a hook for that.
    pub(super) fn leave_address(&self, service: &ServiceName) {
        let (shop, of) = (self.clone(), service.clone());
        let begun = self.host.start("address-down", move || {
            let service = of;
            match shop.hook(Hook::AddressDown, &service, None) {
                Some(Ok(())) => {
                    tracing::info!(%service, "{service}: its address was taken away, for it is another server's");
                }
                Some(Err(why)) => tracing::error!(%service, why, "{service}: its address did not go: {why}"),
                None => {}
            }
        });
        if let Err(error) = begun {
            tracing::error!(%service, %error, "{service}: its address did not go: {error}");
        }
    }

    /// Has the lock manager drop what was locked through the service's addresses: the server that serves it next grants anew.
    fn let_go_of_locks(&self, service: &ServiceName) -> Result<(), String> {
        // Before the turn: a volume that hangs must not delay a thread that looks at it meanwhile.
        let leaving = self
            .lock_manager
            .exported()
            .map(|exported| volumes::leaving(&self.settings.services, service, &exported));
        let (lock_manager, addresses) = (Arc::clone(&self.lock_manager), self.addresses(service).to_vec());
        let let_go = move || {
            for address in addresses {
                lock_manager.let_go(address).map_err(|error| error.to_string())?;
            }
            // Kernel 6.1 takes an address and lets go of nothing [L]. Without this its locks would hold the volume up.
            // Where other exports are unknown, the file system may be theirs as well: their locks stay.
            for export in leaving.map_err(|error| error.to_string())? {
                lock_manager.let_go_of_file_system(&export).map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        self.in_turn_while_it_lasts(service, let_go)
    }

    /// Does this in the lock manager's turn. Where it hangs, the turn goes to the looks at the lock manager and to recognitions
    /// for other services. Its end is waited for all the same: it may drop locks until then, so the service must not be served
    /// here before.
    fn in_turn_while_it_lasts(
        &self,
        service: &ServiceName,
        let_go: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let (answer, answered) = channel();
        let turn = self.turn();
        threads::start("let-go", move || answer.send(let_go())).map_err(|error| error.to_string())?;
        let ended = match answered.recv_timeout(self.let_go_time_max) {
            Err(RecvTimeoutError::Timeout) => {
                drop(turn);
                tracing::error!(%service, "{service}: the lock manager has not let go of its locks within {} s; its volume stays until it has", self.let_go_time_max.as_secs());
                answered.recv().ok()
            }
            ended => ended.ok(),
        };
        ended.unwrap_or_else(|| Err("the thread that lets go of locks ended without a report".to_owned()))
    }

    /// Lets go of the locks of a service that was released, which would keep its volume busy, and takes the volume away.
    pub(super) fn take_volume_away(&self, service: &ServiceName) {
        let (of, service) = (service.clone(), service.clone());
        self.in_thread("volume-down", |gone| News::VolumeGone(of, gone), move |shop| {
            if let Err(why) = shop.let_go_of_locks(&service) {
                tracing::error!(%service, why, "{service}: released, but its locks are still held here and may keep its volume busy: {why}");
            }
            let gone = shop.hook(Hook::VolumeDown, &service, None);
            gone.unwrap_or(Ok(()))
        });
    }

    fn addresses(&self, service: &ServiceName) -> &[IpAddr] {
        let configured = self.settings.service(service);
        configured.map_or(&[], |service| &service.addresses)
    }

    /// Tells the clients of each service, each service in a thread of its own.
    pub(super) fn notify(
        &self,
        tellings: Vec<Telling>,
        grace: Grace,
        stop: &Arc<AtomicBool>,
        readiness: &Arc<Readiness>,
    ) {
        for telling in tellings {
            let (shop, stop, readiness) = (self.clone(), Arc::clone(stop), Arc::clone(readiness));
            let service = telling.notice.service.clone();
            let clients: Vec<MonName> = telling
                .clients
                .iter()
                .map(|(client, _)| client)
                .chain(telling.untold.iter().map(|(client, _)| client))
                .cloned()
                .collect();
            let round = self.first_rounds.begin();
            let begun =
                self.host.start("notify", move || shop.tell(telling, grace, &stop, &readiness, round));
            if let Err(error) = begun {
                let lost = |client| (client, Outcome::Lost, error.to_string());
                let left = clients.into_iter().map(lost).collect();
                self.report(Event::NotifyEnded { service, left });
            }
        }
    }

    fn tell(
        &self,
        telling: Telling,
        grace: Grace,
        stop: &AtomicBool,
        readiness: &Readiness,
        round: FirstRound,
    ) {
        let service = telling.notice.service.clone();
        let task = notifier::Task {
            words: Words::Restart { names: telling.names, state: telling.notice.state },
            clients: telling.clients,
            from: telling.from,
            settings: self.settings.notify.clone(),
        };
        let without = task.clients.iter().filter(|(client, list)| list.is_empty() && client.is_host_name());
        let names = LookUp::begin(without.map(|(client, _)| client.clone()).collect());
        let (asker, limit, first_round) = (self.clone(), limits::PROBE_AMONG_RECLAIMS_TIME_MAX, Some(round));
        let ask = move |first: &[IpAddr]| asker.probe_through(first, limit).0;
        let proofs = Proofs::of(grace, &self.host, self.clock, ask);
        let mut notification =
            Notification { shop: self, service: &service, names, readiness, proofs, stop, first_round };
        let mut left = notifier::run(task, &mut notification);
        left.extend(telling.untold.into_iter().map(|(client, why)| (client, Outcome::Lost, why)));
        if !stop.load(Ordering::Relaxed) {
            self.report(Event::NotifyEnded { service, left });
        }
    }

    /// Asks the lock manager through whichever of this server's addresses answers.
    fn probe(&self) -> (Probe, String) {
        self.probe_through(&[], limits::PROBE_TIME_MAX)
    }

    /// The same, first through these. Each question waits so long for its answer.
    fn probe_through(&self, first: &[IpAddr], limit: Duration) -> (Probe, String) {
        lock_manager::grace(self.lock_manager.as_ref(), &self.host, &self.settings, first, limit)
    }

    /// Runs a hook for a service; `None` where none is configured. `owner` is the server that a fence is to confirm off.
    pub(super) fn hook(
        &self,
        hook: Hook,
        service: &ServiceName,
        owner: Option<&ServerName>,
    ) -> Option<Result<(), String>> {
        let (command, name) = (self.settings.hooks.command(hook)?, hook.as_str());
        let environment = hooks::environment(&self.settings, name, service, owner);
        tracing::info!(hook = name, %service, "{service}: running the hook {name}");
        let began = self.clock.now();
        let ran = hooks::run(command, &environment).map(|_| ()).map_err(|error| error.to_string());
        let took = self.clock.now().since(began);
        // The loop is gone only when the whole agent stops.
        let _ = self.inbox.send(News::HookRan(hook, took, ran.is_ok()));
        Some(ran)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::testing::{place, service};
    use crate::config::Command;
    use crate::host::testing::Tree;

    #[test]
    fn a_hook_that_ran_is_told_by_its_name_with_the_time_it_took_and_whether_it_failed() {
        let place = place();
        let mut shop = place.agent.lock_manager().workshop.clone();
        let mut settings = (*shop.settings).clone();
        for hook in Hook::ALL {
            assert_eq!(settings.hooks.command(hook), None, "{}", hook.as_str());
        }
        let command = |program: &str| {
            Some(Command { argv: vec![program.to_owned()], time_limit: Duration::from_secs(60) })
        };
        (settings.hooks.volume_up, settings.hooks.address_down) = (command("true"), command("false"));
        shop.settings = Arc::new(settings);
        let nfs = service("nfs");
        assert_eq!(shop.hook(Hook::VolumeUp, &nfs, None), Some(Ok(())));
        assert!(shop.hook(Hook::AddressDown, &nfs, None).unwrap().is_err());
        assert_eq!(shop.hook(Hook::Fence, &nfs, None), None, "none is configured");
        for expected in [(Hook::VolumeUp, true), (Hook::AddressDown, false)] {
            let ran = place.next_that(|message| match message {
                News::HookRan(hook, _, is_done) => Some((hook, is_done)),
                _ => None,
            });
            assert_eq!(ran, expected);
        }
    }

    /// As the nfsserver resource agent leaves a host that is under guard.
    #[test]
    fn sm_notify_is_kept_out_again_before_each_step_that_needs_it_and_not_refused_for() {
        let tree = Tree::debian();
        let settings = guard::testing::settings(guard::testing::SERVICE);
        guard::enable(&tree.host(), &settings, false, heirlock_core::store_identity::Word::None).unwrap();
        let guard_file = "/run/sm-notify.pid";
        assert!(tree.exists(guard_file));
        let mut shop = place().agent.lock_manager().workshop.clone();
        (shop.host, shop.settings) = (tree.host(), Arc::new(settings));
        let of_sm_notify = |fit: Fit| fit.missing.into_iter().any(|missing| missing.check == "sm-notify-pid");
        tree.remove(guard_file);
        assert!(!of_sm_notify(shop.look(&[service("nfs")], false, true)) && tree.exists(guard_file));
        tree.remove(guard_file);
        shop.try_recognise(Strategy::Command, &[], None, false).unwrap();
        assert!(tree.exists(guard_file));
    }

    #[test]
    fn a_host_that_was_never_put_under_guard_is_left_as_it_is() {
        let tree = Tree::debian();
        let mut shop = place().agent.lock_manager().workshop.clone();
        let settings = guard::testing::settings(guard::testing::SERVICE);
        (shop.host, shop.settings) = (tree.host(), Arc::new(settings));
        let fit = shop.look(&[service("nfs")], false, true);
        assert!(fit.missing.iter().any(|missing| missing.check == "sm-notify-pid"), "{fit:?}");
        assert!(!tree.exists("/run/sm-notify.pid"));
    }

    #[test]
    fn a_fence_is_told_the_owner_that_it_is_to_confirm_off() {
        let mut shop = place().agent.lock_manager().workshop.clone();
        let mut settings = (*shop.settings).clone();
        let script = r#"test "$HEIRLOCK_OWNER" = nfs-a && test "$HEIRLOCK_PEER" = nfs-a"#;
        let argv = ["sh", "-c", script].map(str::to_owned).into();
        settings.hooks.fence = Some(Command { argv, time_limit: Duration::from_secs(60) });
        shop.settings = Arc::new(settings);
        for (owner, is_confirmed) in [("nfs-a", true), ("nfs-c", false)] {
            let confirmed = shop.hook(Hook::Fence, &service("nfs"), Some(&owner.parse().unwrap()));
            assert_eq!(confirmed.map(|ran| ran.is_ok()), Some(is_confirmed), "{owner}");
        }
    }

    #[test]
    fn work_whose_thread_ends_without_a_report_is_reported_as_failed() {
        let place = place();
        let message = |done: Result<(), String>| News::AddressGone(service("nfs"), done);
        place.agent.lock_manager().workshop.in_thread("address-down", message, |_| panic!("a fault"));
        let why = place.next_that(|message| match message {
            News::AddressGone(_, Err(why)) => Some(why),
            _ => None,
        });
        assert_eq!(why, "its thread ended without a report");
    }
}
