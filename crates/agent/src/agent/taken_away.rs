//! The addresses that releases took away and that are to come back: what is noted of them, and the work that is on for each.

use std::collections::BTreeMap;

use heirlock_core::taken_away::{Next, Standing, TakenAway};
use heirlock_core::{Generation, Moment, ServiceName};

/// What is noted, as the file of this server has it, and what is done about it.
#[derive(Debug, Default)]
pub(crate) struct TakenAddresses {
    noted: TakenAway,
    returns: BTreeMap<ServiceName, Return>,
    /// Until when a hook that an earlier agent began may take away what is here: it may outlive its agent.
    may_go_until: Moment,
}

/// An address is to come back.
#[derive(Debug, Default)]
struct Return {
    /// Until when the work that brings it back has to report; none while there is none.
    report_until: Option<Moment>,
    /// That work has not reported by then. It may go on.
    hangs: bool,
    /// When it is begun once more.
    again: Option<Moment>,
    /// Why it is not here, for people. The log has it.
    why: Option<String>,
}

impl TakenAddresses {
    /// What earlier agents noted. Their hooks may run until that moment.
    pub(crate) fn of(noted: TakenAway, may_go_until: Moment) -> Self {
        Self { noted, returns: BTreeMap::new(), may_go_until }
    }

    /// Whether an address that is here may be taken away yet, by a hook of an earlier agent.
    pub(crate) fn may_go(&self, now: Moment) -> bool {
        now < self.may_go_until
    }

    /// Nothing is to be brought back for this service any more. Answers whether something was noted.
    pub(crate) fn forget(&mut self, service: &ServiceName) -> bool {
        if !self.is_on(service) {
            self.returns.remove(service);
        }
        self.noted.forget(service)
    }

    /// As it is to be noted.
    pub(crate) fn noted(&self) -> &TakenAway {
        &self.noted
    }

    /// The same, to change it.
    pub(crate) fn noted_mut(&mut self) -> &mut TakenAway {
        &mut self.noted
    }

    /// All that is noted, each service with the generation that was to be given up.
    pub(crate) fn all(&self) -> Vec<(ServiceName, Generation)> {
        self.noted.noted().map(|(service, generation)| (service.clone(), generation)).collect()
    }

    /// What follows for a service. Where its address is not to be brought back now, nothing is wrong with it any more.
    pub(crate) fn next(&mut self, service: &ServiceName, standing: Standing) -> Next {
        let next = self.noted.next(service, standing);
        if next != Next::BringBack && !self.is_on(service) {
            self.returns.remove(service);
        }
        next
    }

    /// Whether its address is being brought back, or the work for that hangs.
    pub(crate) fn is_on(&self, service: &ServiceName) -> bool {
        self.returns.get(service).is_some_and(|it| it.report_until.is_some() || it.hangs)
    }

    /// Whether work that brings it back may begin now.
    pub(crate) fn may_begin(&self, service: &ServiceName, now: Moment) -> bool {
        let waits = self.returns.get(service).and_then(|it| it.again).is_some_and(|again| now < again);
        !self.is_on(service) && !waits
    }

    /// It begins, and has to report by then.
    pub(crate) fn begins(&mut self, service: &ServiceName, report_until: Moment) {
        let it = self.returns.entry(service.clone()).or_default();
        (it.report_until, it.again) = (Some(report_until), None);
    }

    /// It has ended. It is begun once more at that moment, unless the address is here by then.
    pub(crate) fn ended(&mut self, service: &ServiceName, again: Moment) {
        if !self.is_noted(service) {
            self.returns.remove(service);
            return;
        }
        let it = self.returns.entry(service.clone()).or_default();
        (it.report_until, it.hangs, it.again) = (None, false, Some(again));
    }

    /// Those whose work should have reported by now, hang.
    pub(crate) fn begin_to_hang(&mut self, now: Moment) -> Vec<ServiceName> {
        let mut late = Vec::new();
        for (service, it) in &mut self.returns {
            if it.report_until.take_if(|until| now >= *until).is_some() {
                it.hangs = true;
                late.push(service.clone());
            }
        }
        late
    }

    /// When work has to have reported.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.returns.values().filter_map(|it| it.report_until).min()
    }

    /// Why an address is not here. Answers whether that is news.
    pub(crate) fn is_away_because(&mut self, service: &ServiceName, why: &str) -> bool {
        let it = self.returns.entry(service.clone()).or_default();
        let is_news = it.why.as_deref() != Some(why);
        it.why = Some(why.to_owned());
        is_news
    }

    /// The services whose address is away and has to come back, and why each is.
    pub(crate) fn away(&self) -> impl Iterator<Item = (&ServiceName, &str)> {
        let away = self.returns.iter().filter(|(service, _)| self.is_noted(service));
        away.filter_map(|(service, it)| Some((service, it.why.as_deref()?)))
    }

    fn is_noted(&self, service: &ServiceName) -> bool {
        self.noted.noted().any(|(noted, _)| noted == service)
    }
}
