//! The readiness of a run's services: from which of their addresses clients can be told. Each counts by itself, so that an
//! address which isn't served here delays no client that can be told from another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use heirlock_core::takeover::{Event, Part};
use heirlock_core::{Moment, ServiceName};

use super::work::Workshop;
use crate::config::{Hook, ServiceSettings};
use crate::threads;
use crate::{arp, limits};

/// The state of each address, shared by the threads that look and those that tell.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    addresses: Mutex<BTreeMap<(ServiceName, IpAddr), Result<(), String>>>,
    /// Something is ready, and the run knows.
    announced: AtomicBool,
    /// Another run looks after the addresses now.
    over: AtomicBool,
}

impl Readiness {
    /// Whether clients can be told from this address now, or else what is missing.
    pub(crate) fn of(&self, service: &ServiceName, address: IpAddr) -> Result<(), String> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let known = addresses.get(&(service.clone(), address));
        known.cloned().unwrap_or_else(|| Err(format!("{address} was not looked at yet")))
    }

    /// The addresses that are ready, of all services.
    pub(crate) fn ready(&self) -> Vec<IpAddr> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().filter(|(_, ready)| ready.is_ok()).map(|((_, address), _)| *address).collect()
    }

    /// The thing that is missing at each address that is not ready.
    pub(crate) fn missing(&self) -> Vec<(ServiceName, String)> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let unready = addresses
            .iter()
            .filter_map(|((service, _), ready)| Some((service.clone(), ready.as_ref().err()?.clone())));
        unready.collect()
    }

    /// No thread looks after it any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether that is news.
    fn note(&self, service: &ServiceName, address: IpAddr, ready: &Result<(), String>) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let before = addresses.insert((service.clone(), address), ready.clone());
        before.as_ref() != Some(ready)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Workshop {
    /// Brings up the needs of the services, or waits until they are there. The run goes on as soon as clients can be told from
    /// one address; the others are waited for beside that. `held_up`: the store's error where it held the run up before this.
    pub(super) fn bring_up(
        &self,
        services: &[(ServiceName, Part)],
        last_call: Moment,
        held_up: Option<&str>,
        readiness: &Arc<Readiness>,
    ) {
        // Then the addresses are not what keeps clients from being told: no thread could look at them in time.
        let came_late = (self.clock.now() >= last_call).then(|| match held_up {
            Some(why) => format!("the store did not work before grace was too short: {why}"),
            None => "grace was too short before the addresses could be looked at".to_owned(),
        });
        let configured: Vec<ServiceSettings> =
            services.iter().filter_map(|(service, _)| self.settings.service(service)).cloned().collect();
        for service in &configured {
            for address in &service.addresses {
                let waiting = format!("{address}, an address of {}, was not looked at yet", service.name);
                readiness.note(&service.name, *address, &Err(waiting));
            }
        }
        for service in &configured {
            let (shop, shared, of) = (self.clone(), Arc::clone(readiness), service.clone());
            let begun = self.host.start("bring-up", move || shop.bring_up_one(&of, last_call, &shared));
            if let Err(error) = begun {
                for address in &service.addresses {
                    readiness.note(&service.name, *address, &Err(error.to_string()));
                }
            }
        }
        // The server's implicit service has its address. Its clients wait a little for a service's address, so
        // that the run is said to be ready when that is.
        let own_only = configured.is_empty();
        let has_own = configured.len() < services.len();
        let (shop, readiness) = (self.clone(), Arc::clone(readiness));
        let begun = self.host.start("readiness", move || {
            let own_from = shop.clock.now() + limits::OWN_WAIT_FOR_ADDRESS_MAX;
            loop {
                let now = shop.clock.now();
                if own_only || (has_own && now >= own_from) {
                    shop.announce(&readiness);
                }
                if readiness.is_over() || readiness.announced.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(why) = came_late {
                    return shop.report(Event::BroughtUp(Err(why)));
                }
                if now >= last_call {
                    let missing: Vec<String> = readiness.missing().into_iter().map(|(_, why)| why).collect();
                    let missing = if missing.is_empty() {
                        "no address was ready in time".into()
                    } else {
                        missing.join("; ")
                    };
                    let why = format!("{missing}; grace is too short now");
                    return shop.report(Event::BroughtUp(Err(why)));
                }
                thread::sleep(limits::BRING_UP_INTERVAL);
            }
        });
        if let Err(error) = begun {
            self.report(Event::BroughtUp(Err(error.to_string())));
        }
    }

    fn announce(&self, readiness: &Readiness) {
        if !readiness.announced.swap(true, Ordering::Relaxed) {
            self.report(Event::BroughtUp(Ok(())));
        }
    }

    fn bring_up_one(&self, service: &ServiceSettings, last_call: Moment, readiness: &Arc<Readiness>) {
        let mut hook_failed = None;
        if !service.addresses.iter().all(|address| self.host.is_present(*address))
            && let Some(Err(why)) = self.hook(Hook::AddressUp, &service.name, None)
        {
            tracing::error!(service = %service.name, why, "{}: the hook address-up failed: {why}", service.name);
            hook_failed = Some(format!("; the hook address-up failed: {why}"));
        }
        for address in service.addresses.iter().copied() {
            let (shop, of, shared) = (self.clone(), service.name.clone(), Arc::clone(readiness));
            let hook_failed = hook_failed.clone().unwrap_or_default();
            // In a thread each: one at which nothing answers takes its time at every look.
            let begun = threads::start("address", move || {
                shop.watch_address(&of, address, &hook_failed, last_call, &shared);
            });
            if let Err(error) = begun {
                readiness.note(&service.name, address, &Err(error.to_string()));
            }
        }
    }

    fn announce_address(&self, address: IpAddr) {
        if let Err(error) = arp::announce(address) {
            tracing::warn!(%address, %error, "no gratuitous ARP could be sent for {address}, so clients may answer to the dead server for a while: {error}");
        }
        if let Some(setting) = self.host.announces_another().filter(|_| address.is_ipv4()) {
            tracing::warn!(%address, setting, "{address}: {setting} is 2, so the kernel announces another address; unless the hook address-up or a cluster manager announces this one, clients answer to the dead server");
        }
    }

    /// Looks until an address is ready; seldom, once it is too late to tell clients from it.
    fn watch_address(
        &self,
        service: &ServiceName,
        address: IpAddr,
        hook_failed: &str,
        last_call: Moment,
        readiness: &Readiness,
    ) {
        let mut announced = false;
        while !readiness.is_over() {
            let there = self.host.is_present(address);
            if there && !announced {
                announced = true;
                self.announce_address(address);
            }
            let ready = match there {
                true => self
                    .lock_manager
                    .serves_at(address)
                    .map_err(|why| format!("{address}, an address of {service}, is not served here: {why}")),
                false => {
                    Err(format!("{address}, an address of {service}, is not on this server{hook_failed}"))
                }
            };
            let is_late = self.clock.now() >= last_call;
            let is_ready = ready.is_ok();
            match (readiness.note(service, address, &ready), ready) {
                (true, Ok(())) => {
                    tracing::info!(%service, %address, "{service}: its address {address} is ready");
                }
                (true, Err(why)) => {
                    tracing::warn!(%service, %address, why, "{service}: its address {address} is not ready: {why}");
                }
                (false, _) => {}
            }
            if is_ready {
                self.report(Event::Served(service.clone()));
                if !is_late {
                    self.announce(readiness);
                }
                return;
            }
            thread::sleep(if is_late { limits::LATE_ADDRESS_INTERVAL } else { limits::BRING_UP_INTERVAL });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::testing::{Place, place, service};
    use crate::config::Settings;
    use crate::fake_programs::rpcbind_and_programs;
    use crate::lock_manager;
    use heirlock_agent::{Message, News};

    /// The things that are missing at the addresses of one service.
    fn missing_of(readiness: &Readiness, service: &str) -> Vec<String> {
        let of_it = readiness.missing().into_iter().filter(|(missing, _)| missing.as_str() == service);
        of_it.map(|(_, why)| why).collect()
    }

    /// Brings up a service that has these addresses, and says what the run is told.
    fn bring_up(
        place: &Place,
        addresses: &[&str],
        port: u16,
        within: Duration,
    ) -> (Result<(), String>, Arc<Readiness>) {
        let mut shop = place.agent.lock_manager().workshop.clone();
        let mut settings = Settings::clone(&shop.settings);
        settings.services[0].addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        settings.notify.rpcbind_port = port;
        shop.lock_manager = lock_manager::open_on(&settings, &shop.host);
        shop.settings = Arc::new(settings);
        let readiness = Arc::default();
        let last_call = shop.clock.now() + within;
        shop.bring_up(&[(service("nfs"), Part::Target)], last_call, Some("no volume"), &readiness);
        let result = loop {
            if let Message::Of(_, News::Event(_, Event::BroughtUp(result))) = place.next() {
                break result;
            }
        };
        (result, readiness)
    }

    #[test]
    fn the_run_goes_on_with_the_address_that_is_ready_and_the_others_are_named() {
        let (place, port) = (place(), rpcbind_and_programs("127.9.7.1"));
        // 192.0.2.77 is not here, and at 127.9.7.2 no program answers.
        let addresses = ["192.0.2.77", "127.9.7.1", "127.9.7.2"];
        let (result, readiness) = bring_up(&place, &addresses, port, Duration::from_secs(600));
        assert_eq!(result, Ok(()), "long before the last call");
        assert_eq!(readiness.ready(), ["127.9.7.1".parse::<IpAddr>().unwrap()]);
        let missing = loop {
            let missing = missing_of(&readiness, "nfs");
            if missing.iter().all(|why| !why.contains("looked at yet")) {
                break missing.join("\n");
            }
            thread::sleep(limits::BRING_UP_INTERVAL);
        };
        readiness.end();
        assert!(missing.contains("192.0.2.77, an address of nfs, is not on this server"), "{missing}");
        assert!(
            missing.contains("127.9.7.2, an address of nfs, is not served here: no answer from"),
            "{missing}"
        );
    }

    #[test]
    fn where_no_address_is_ready_at_the_last_call_the_run_is_told_which() {
        let (result, readiness) = bring_up(&place(), &["192.0.2.77"], 9, Duration::from_millis(200));
        readiness.end();
        let why = "192.0.2.77, an address of nfs, is not on this server; grace is too short now";
        assert_eq!(result, Err(why.to_owned()));
    }

    #[test]
    fn where_the_store_held_it_up_for_too_long_no_address_is_blamed() {
        let (result, readiness) = bring_up(&place(), &["192.0.2.77"], 9, Duration::ZERO);
        readiness.end();
        assert_eq!(result, Err("the store did not work before grace was too short: no volume".to_owned()));
    }

    #[test]
    fn one_address_is_ready_and_the_other_is_named() {
        let readiness = Readiness::default();
        let service: ServiceName = "nfs".parse().unwrap();
        let [good, bad]: [IpAddr; 2] = ["192.0.2.10", "2001:db8::10"].map(|a| a.parse().unwrap());
        assert!(readiness.of(&service, good).is_err(), "no thread has looked");
        assert!(readiness.note(&service, good, &Ok(())));
        assert!(!readiness.note(&service, good, &Ok(())), "no news");
        assert!(readiness.note(&service, bad, &Err("2001:db8::10 is not served here".into())));
        assert_eq!(readiness.ready(), [good]);
        assert_eq!(missing_of(&readiness, "nfs"), ["2001:db8::10 is not served here"]);
        assert!(missing_of(&readiness, "home").is_empty());
    }
}
