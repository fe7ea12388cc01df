//! From which addresses of a run's services clients can be told: each by itself, so that one that isn't served here holds up
//! nobody who can be told from another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use heirlock_core::takeover::{Event, Part};
use heirlock_core::{Moment, ServiceName};

use super::work::{Workshop, is_present};
use crate::config::ServiceSettings;
use crate::{arp, limits, probe};

/// What is known of each address. It is shared by the threads that look and those that tell.
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

    /// What is missing at each address that is not ready.
    pub(crate) fn missing(&self) -> Vec<(ServiceName, String)> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let unready = addresses
            .iter()
            .filter_map(|((service, _), ready)| Some((service.clone(), ready.as_ref().err()?.clone())));
        unready.collect()
    }

    /// What is missing at the addresses of one service.
    pub(crate) fn missing_of(&self, service: &ServiceName) -> Vec<String> {
        let of_it = self.missing().into_iter().filter(|(missing, _)| missing == service);
        of_it.map(|(_, why)| why).collect()
    }

    /// Nobody looks after it any more.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether that is news.
    fn note(&self, service: &ServiceName, address: IpAddr, ready: Result<(), String>) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), address);
        let is_news = addresses.get(&key) != Some(&ready);
        addresses.insert(key, ready);
        is_news
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Workshop {
    /// Brings up what the services need, or waits for whoever does. The run goes on as soon as clients can be told from one
    /// address; the others are waited for beside that.
    pub(crate) fn bring_up(
        &self,
        services: &[(ServiceName, Part)],
        last_call: Moment,
        readiness: &Arc<Readiness>,
    ) {
        let configured: Vec<ServiceSettings> =
            services.iter().filter_map(|(service, _)| self.settings.service(service)).cloned().collect();
        for service in &configured {
            for address in &service.addresses {
                let waiting = format!("{address}, an address of {}, was not looked at yet", service.name);
                readiness.note(&service.name, *address, Err(waiting));
            }
        }
        for service in &configured {
            let (shop, readiness, service) = (self.clone(), Arc::clone(readiness), service.clone());
            thread::spawn(move || shop.bring_up_one(&service, last_call, &readiness));
        }
        // What the server serves under its own name has its address. Its clients wait a little for a service's address, so
        // that the run is said to be ready when that is.
        let own_only = configured.is_empty();
        let has_own = configured.len() < services.len();
        let (shop, readiness) = (self.clone(), Arc::clone(readiness));
        thread::spawn(move || {
            let own_from = shop.clock.now() + limits::OWN_WAIT_FOR_ADDRESS_MAX;
            loop {
                let now = shop.clock.now();
                if own_only || (has_own && now >= own_from) {
                    shop.announce(&readiness);
                }
                if readiness.is_over() || readiness.announced.load(Ordering::Relaxed) {
                    return;
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
    }

    fn announce(&self, readiness: &Readiness) {
        if !readiness.announced.swap(true, Ordering::Relaxed) {
            self.report(Event::BroughtUp(Ok(())));
        }
    }

    fn bring_up_one(&self, service: &ServiceSettings, last_call: Moment, readiness: &Arc<Readiness>) {
        let mut hook_failed = None;
        if !service.addresses.iter().all(|address| is_present(*address))
            && let Some(Err(why)) =
                self.hook("address-up", self.settings.hooks.address_up.as_ref(), &service.name, None)
        {
            tracing::error!(service = %service.name, why, "the hook address-up failed");
            hook_failed = Some(format!("; the hook address-up failed: {why}"));
        }
        for address in service.addresses.iter().copied() {
            let (shop, service, readiness) = (self.clone(), service.name.clone(), Arc::clone(readiness));
            let hook_failed = hook_failed.clone().unwrap_or_default();
            // In a thread each: one at which nothing answers takes its time at every look.
            thread::spawn(move || shop.watch_address(&service, address, &hook_failed, last_call, &readiness));
        }
    }

    /// Looks until an address is ready; seldom, once it is too late to tell anybody from it.
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
            let there = is_present(address);
            if there && !announced {
                announced = true;
                if let Err(error) = arp::announce(address) {
                    tracing::warn!(%address, %error, "no gratuitous ARP: clients may answer to the dead server for a while");
                }
            }
            let ready = match there {
                true => probe::registered(address, self.settings.notify.rpcbind_port, limits::PROBE_TIME_MAX)
                    .map_err(|why| format!("{address}, an address of {service}, is not served here: {why}")),
                false => {
                    Err(format!("{address}, an address of {service}, is not on this server{hook_failed}"))
                }
            };
            let is_late = self.clock.now() >= last_call;
            let is_ready = ready.is_ok();
            match (readiness.note(service, address, ready.clone()), ready) {
                (true, Ok(())) => tracing::info!(%service, %address, "an address is ready"),
                (true, Err(why)) => tracing::warn!(%service, %address, why, "an address is not ready"),
                (false, _) => {}
            }
            if is_ready {
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
    use super::*;

    #[test]
    fn one_address_is_ready_and_the_other_is_named() {
        let readiness = Readiness::default();
        let service: ServiceName = "nfs".parse().unwrap();
        let [good, bad]: [IpAddr; 2] = ["192.0.2.10", "2001:db8::10"].map(|a| a.parse().unwrap());
        assert!(readiness.of(&service, good).is_err(), "nobody has looked");
        assert!(readiness.note(&service, good, Ok(())));
        assert!(!readiness.note(&service, good, Ok(())), "no news");
        assert!(readiness.note(&service, bad, Err("2001:db8::10 is not served here".into())));
        assert_eq!(readiness.ready(), [good]);
        assert_eq!(readiness.missing_of(&service), ["2001:db8::10 is not served here"]);
        assert!(readiness.missing_of(&"home".parse().unwrap()).is_empty());
    }
}
