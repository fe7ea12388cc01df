//! The services that are to come home.

use heirlock_core::{Moment, ServiceName};

use super::running::Waiting;

/// Services that are to come home, until when, and the callers that wait for it.
#[derive(Debug, Default)]
pub(crate) struct HomeRequests(Vec<HomeRequest>);

impl HomeRequests {
    /// One more is.
    pub(super) fn add(&mut self, request: HomeRequest) {
        self.0.push(request);
    }

    /// Whether this service is.
    pub(crate) fn contains(&self, service: &ServiceName) -> bool {
        self.0.iter().any(|request| request.service == *service)
    }

    /// The request for a service whose owner was not asked yet.
    pub(super) fn unasked(&mut self, service: &ServiceName) -> Option<&mut HomeRequest> {
        self.0.iter_mut().find(|request| request.service == *service && request.asked_at.is_none())
    }

    /// Takes out all of them.
    pub(super) fn take(&mut self) -> Vec<HomeRequest> {
        std::mem::take(&mut self.0)
    }

    /// Takes out those for a service.
    pub(super) fn take_of(&mut self, service: &ServiceName) -> Vec<HomeRequest> {
        self.0.extract_if(.., |request| request.service == *service).collect()
    }

    /// No service is to come home.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct HomeRequest {
    pub(super) service: ServiceName,
    /// When its owner was asked; none while it is being looked for whether the service could be adopted here.
    pub(super) asked_at: Option<Moment>,
    pub(super) until: Moment,
    pub(super) waiting: Waiting,
    /// The sentences that the waiting callers are told besides.
    pub(super) told: Vec<String>,
}
