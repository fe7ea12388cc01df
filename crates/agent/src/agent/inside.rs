//! The inside of an agent, for tests of the program: single steps of its first lock manager, and what that knows.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use heirlock_core::claim::{Authority, Claim};
use heirlock_core::ledger::Portion;
use heirlock_core::notify::Destination;
use heirlock_core::store::{Contents, Store, StoreError};
use heirlock_core::takeover::{End, Event, Journal, Part, Strategy};
use heirlock_core::{Generation, Moment, ServiceName};
use heirlock_nsm::{MonName, MyName, StateNumber};

use super::acquaintance::Acquaintance;
use super::attempts::{Attempts, Patience};
use super::beat::Pulse;
use super::common::Common;
use super::instance::Instance;
use super::look::Looked;
use super::outside::Outside;
use super::running::Commission;
use super::server::Server;
use super::waiting::{Adoption, Waiting};
use super::work::RunNumber;
use crate::config::{InstanceNumber, Settings};
use crate::control::Responder;
use crate::control::report::Problem;
use crate::status_monitor::Wanted;

/// Steps of the lock manager, each with what the lock managers have in common.
macro_rules! steps {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {
        impl<O: Outside> Server<O> {
            $(pub fn $name(&mut self, $($argument: $type),*) $(-> $answer)? {
                let (instance, common) = self.first_parts();
                instance.$name(common, $($argument),*)
            })*
        }
    };
}

steps! {
    looked(now: Moment, looked: Looked);
    take_look(now: Moment, looked: Looked);
    scan(now: Moment);
    record(now: Moment);
    compare(now: Moment, portion: Portion);
    tend_capture(now: Moment);
    resolved(now: Moment, name: &MonName, found: Result<Vec<IpAddr>, String>);
    refresh_holdings(now: Moment);
    hold(service: &ServiceName, claim: Claim, contents: Contents, journal: Journal);
    note_others(service: &ServiceName, claim: &Claim, has_address: bool) -> Result<(), StoreError>;
    wanted(now: Moment, wanted: Wanted);
    protect(now: Moment, mon_name: &MonName, my_name: &MyName) -> Result<(), String>;
    adopt(now: Moment, adoption: Adoption, waiting: Waiting);
    begin_run(now: Moment, commission: Commission);
    worked_for(run: RunNumber, event: Event);
    tick_asked(now: Moment);
    tick_run(now: Moment);
    over(end: End);
    share_a_portion(now: Moment);
    notify_once_shared(now: Moment);
    release(service: &ServiceName, responders: Vec<Responder>, asked: Option<u64>);
    asked_to_release(service: &ServiceName, responder: Responder);
    address_gone(now: Moment, service: &ServiceName, gone: Result<(), String>);
    answer_wishes(now: Moment);
    end_messages_put_off_too_long(now: Moment);
}

/// Questions to the lock manager, each with what the lock managers have in common.
macro_rules! questions {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl<O: Outside> Server<O> {
            $(pub fn $name(&self, $($argument: $type),*) -> $answer {
                self.first().$name(self.common(), $($argument),*)
            })*
        }
    };
}

questions! {
    addresses_of(service: &ServiceName, part: Part, client: &MonName) -> Result<Vec<Destination>, String>;
    means_the_same_here(client: &MonName, record: &[u8]) -> bool;
}

impl<O: Outside> Server<O> {
    pub(super) fn first(&self) -> &Instance<O> {
        &self.instances()[0]
    }

    pub(super) fn first_parts(&mut self) -> (&mut Instance<O>, &mut Common<O>) {
        self.parts(InstanceNumber::FIRST).unwrap()
    }

    pub fn lock_manager(&self) -> &O::Instance {
        self.first().outside()
    }

    pub fn lock_manager_mut(&mut self) -> &mut O::Instance {
        self.first_parts().0.outside_mut()
    }

    pub fn facts(&mut self, now: Moment) -> BTreeMap<String, String> {
        let (instance, common) = self.first_parts();
        instance.facts(common, now)
    }

    pub fn facts_are_awaited(&mut self) -> &mut bool {
        self.facts_known_mut().awaited_mut()
    }

    pub fn settings(&self) -> &Arc<Settings> {
        self.common().settings()
    }

    pub fn outside(&self) -> &O {
        self.common().outside()
    }

    pub fn outside_mut(&mut self) -> &mut O {
        self.common_mut().outside_mut()
    }

    pub fn store(&self) -> &dyn Store {
        self.common().store()
    }

    pub fn pulse(&self) -> &Pulse {
        self.common().pulse()
    }

    pub fn pulse_mut(&mut self) -> &mut Pulse {
        self.common_mut().pulse_mut()
    }

    pub fn acquaintance(&self) -> &Acquaintance {
        self.common().acquaintance()
    }

    pub fn saw_generation(
        &mut self,
        service: &ServiceName,
        claimed: Generation,
        begun: Option<Generation>,
        number: Option<StateNumber>,
    ) {
        self.common_mut().saw_generation(service, claimed, begun, number);
    }

    pub fn replace_store(&mut self, store: Box<dyn Store>) {
        self.common_mut().replace_store(store);
    }

    pub fn fails(&mut self, now: Moment, error: &str) {
        self.common_mut().fails(now, &error);
    }

    pub fn beat_due(&self) -> Moment {
        self.common().beat_due()
    }

    pub fn beat_at(&mut self, at: Moment) {
        self.common_mut().beat_at(at);
    }

    pub fn try_to_claim(
        &mut self,
        services: &[(ServiceName, Part)],
        authority: &Authority,
        attempts: &mut Attempts,
    ) -> Result<Event, StoreError> {
        let (instance, common) = self.first_parts();
        let authority = authority.clone().into();
        instance.try_to_claim(common, services, false, &authority, attempts, Patience::Over)
    }

    pub fn store_error(&self) -> Option<&str> {
        self.common().store_error()
    }

    pub fn holdings_known(&self) -> bool {
        self.first().knows_its_holdings()
    }

    /// The run that was asked for first and has not claimed.
    fn first_asked(&self) -> Option<RunNumber> {
        Some(self.asked().first()?.number)
    }

    /// It is refused.
    pub fn refused(&mut self, end: &End) {
        if let Some(run) = self.first_asked() {
            let (instance, common) = self.first_parts();
            instance.refused(common, run, end);
        }
    }

    pub fn is_releasing(&self, service: &ServiceName) -> bool {
        self.first().is_releasing(service)
    }

    pub fn releases_are_on(&self) -> bool {
        self.first().releases_are_on()
    }

    pub fn may_forget(&self, client: &MonName) -> bool {
        self.first().may_forget(client)
    }

    pub fn monitor_problems(&self) -> Vec<Problem> {
        self.first().monitor_problems()
    }

    pub fn tell_durable(&mut self) {
        let (instance, common) = self.first_parts();
        instance.tell_durable(common);
    }

    pub fn awaits_directory(&self) -> bool {
        self.first().awaits_directory()
    }

    pub fn left_behind_problems(&self) -> Vec<String> {
        self.first().left_behind_problems()
    }

    pub fn earlier_lock_problems(&self) -> Vec<Problem> {
        self.first().earlier_lock_problems()
    }

    pub fn would_drop_locks_at(
        &self,
        strategy: Strategy,
        has_address: impl Fn(&ServiceName) -> bool,
    ) -> Option<String> {
        let run = self.first_asked()?;
        self.first().would_drop_locks_at(run, strategy, has_address)
    }

    pub fn volume_gone(&mut self, service: &ServiceName, gone: &Result<(), String>) {
        self.first_parts().0.volume_gone(service, gone);
    }

    pub fn say_messages_put_off(&mut self, now: Moment) {
        self.first_parts().0.say_messages_put_off(now);
    }
}
