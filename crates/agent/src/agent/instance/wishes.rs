//! Bringing a service here from an owner that lives, home or by a move: the server that wants it asks, by its heartbeat, and the owner
//! gives it up or says at once, by its own, why it can't.

use heirlock_core::claim::OwnerHeart;
use heirlock_core::store::{Decline, Waits};
use heirlock_core::takeover::Milestone;
use heirlock_core::{Moment, ServerName, ServiceName};

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::{InstanceOutside, Outside};
use crate::agent::running::unfit;
use crate::agent::status::millis;
use crate::agent::waiting::{Adoption, Waiting};
use crate::agent::wishes::{Why, Wish};
use crate::agent::work::{Fit, Work};
use crate::control::{Answer, AnswerWhen, Failure, Progress, Respond, Responder, Wait};
use crate::limits;

/// How far a request is.
enum Fate {
    /// No server holds the service, or this one does.
    Free,
    Waits(Wait),
    /// It can't be fulfilled.
    Vain(String),
}

impl<O: Outside> Instance<O> {
    /// Its home wants a service back.
    pub(crate) fn failback(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: ServiceName,
        waiting: Waiting,
    ) {
        if let Err(why) = self.may_come_home(server, &service) {
            return waiting.responder.failed(&why, true);
        }
        self.wish_for(server, now, service, Why::Home, waiting);
    }

    /// A service is to come here. Its owner is asked for it once it is known that it could be adopted here.
    pub(super) fn wish_for(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: ServiceName,
        why: Why,
        waiting: Waiting,
    ) {
        if self.wishes.contains(&service) {
            let is = match why {
                Why::Home => "being brought home already",
                Why::Move => "on its way to this server already",
            };
            let text = format!("{service} is {is}; 'heirlock status' says whose it is");
            return waiting.responder.failed(&text, true);
        }
        if self.is_adopted_already(&service) {
            let otherwise = match why {
                Why::Home => "is at home",
                Why::Move => "is this server's already",
            };
            return self.answer_of_adopted(server, &service, waiting.responder, otherwise);
        }
        // The owner isn't asked for a service that could not be adopted here then.
        if let Err(why) = self.knows_its_own(server, false) {
            return waiting.responder.failed(&why, true);
        }
        self.outside.begin(Work::CheckHome(service.clone()));
        self.wishes.add(Wish::new(service, why, now + limits::GIVE_UP_TIME_MAX, waiting));
    }

    fn may_come_home(&self, server: &Common<O>, service: &ServiceName) -> Result<(), String> {
        self.check_known(server, service)?;
        match server.settings().service(service).and_then(|s| s.home.clone()) {
            Some(home) if home == *server.server() => Ok(()),
            Some(home) => Err(format!("{service} is at home on {home}: say it there")),
            None => Err(format!("{service} is at home nowhere: set its home")),
        }
    }

    /// The needs of the adoption were looked for here; now its owner is asked.
    pub(crate) fn wish_looked_for(&mut self, server: &mut Common<O>, service: &ServiceName, looked: Fit) {
        let Fit { missing, said } = looked;
        let now = server.now();
        let Some(request) = self.wishes.unasked(service) else { return };
        if missing.is_empty() {
            tracing::info!(%service, "{service}: its owner is asked to give it up, for {}", request.why.in_words());
            (request.asked_at, request.until) = (Some(now), now + limits::GIVE_UP_TIME_MAX);
            request.told = said;
            if request.waiting.until == AnswerWhen::Accepted {
                let no_client = Responder::without_client();
                let responder = std::mem::replace(&mut request.waiting.responder, no_client);
                let text = format!(
                    "the owner of {service} is asked to give it up; 'heirlock status' says whose it is"
                );
                responder.done(Answer::changed(Some(service), text));
            }
            // Zero is said of nothing that was asked for.
            let asked = server.outside_mut().random().max(1);
            server.pulse_mut().want(service, Some(asked));
            server.beat_at(now);
            return;
        }
        let message = unfit(service.as_str(), &missing, true);
        for Wish { waiting, .. } in self.wishes.take_of(service) {
            let missing = missing.clone();
            waiting.responder.fail(Failure {
                message: message.clone(),
                refused: true,
                report: None,
                missing,
            });
        }
    }

    /// Takes what was given up for us, and says of the rest what it waits for.
    pub(crate) fn fulfil_wishes(&mut self, server: &mut Common<O>, now: Moment) {
        for mut request in self.wishes.take() {
            match self.fate_of(server, now, &mut request) {
                Fate::Free => {
                    server.pulse_mut().want(&request.service, None);
                    let before = led_to(&request, now);
                    let Wish { service, mut waiting, had_it_at, giving_up_at, .. } = request;
                    if giving_up_at.or(had_it_at).is_some() {
                        let after = AfterGivingUp { service: service.clone(), inner: waiting.responder };
                        waiting.responder = Responder::new(after);
                    }
                    let adoption =
                        Adoption { service, prepare: false, fenced: None, insisted: false, before };
                    self.adopt(server, now, adoption, waiting);
                }
                Fate::Waits(wait) => {
                    // The caller may be gone; the service comes here all the same.
                    let told = request.told.clone();
                    request.waits_for = Some(wait.for_what.clone());
                    request.waiting.responder.progress(&Progress { told, ..Progress::waiting(wait) });
                    self.wishes.add(request);
                }
                Fate::Vain(why) => {
                    let service = &request.service;
                    tracing::error!(%service, why, "{service}: it does not come here from its owner: {why}");
                    server.pulse_mut().want(&request.service, None);
                    request.waiting.responder.failed(&why, true);
                }
            }
        }
    }

    fn fate_of(&self, server: &Common<O>, now: Moment, request: &mut Wish) -> Fate {
        let service = &request.service;
        if request.asked_at.is_none() {
            if now >= request.until {
                let seconds = limits::GIVE_UP_TIME_MAX.as_secs();
                return Fate::Vain(format!(
                    "the needs of its adoption here could not be looked at within {seconds} s, and its owner was not asked: a \
                     program, a disk or a thread hangs (look with 'heirlock doctor')"
                ));
            }
            let needs = "what the adoption needs here to be looked for";
            return Fate::Waits(Wait::new(needs, now, Some(request.until)));
        }
        let claim = match server.store().newest_claim(service) {
            Ok(Some(claim)) if !claim.released && claim.owner != *server.server() => claim,
            Ok(_) => return Fate::Free,
            Err(error) if error.may_pass() && now < request.until => {
                return Fate::Waits(Wait::new("the store to answer", now, Some(request.until)));
            }
            Err(error) => return Fate::Vain(error.to_string()),
        };
        let owner = &claim.owner;
        let asked_of = request.asked_of.get_or_insert_with(|| owner.clone());
        if asked_of != owner {
            // A cluster manager may place it there each time that it is given up: to ask that server too would have it go to and fro.
            return Fate::Vain(format!(
                "it was {asked_of}'s when it was asked for, and {owner} has adopted it meanwhile; where it is still to come here, say \
                 the same again"
            ));
        }
        if let OwnerHeart::Silent { .. } = server.pulse().heart_of(owner, now) {
            return Fate::Vain(format!(
                "{owner}, which has {service}, does not live, so it can't give it up; make sure that it is off, and say \
                 'heirlock adopt {service} --owner-fenced {owner}'"
            ));
        }
        let declined = server.pulse().declined_by(owner, service);
        let began = |ms: u64| now - std::time::Duration::from_millis(ms);
        match declined.and_then(|decline| decline.releasing_for_ms) {
            Some(ms) => request.giving_up_at = request.giving_up_at.or(Some(began(ms))),
            None => request.had_it_at = Some(now),
        }
        let because = match declined {
            Some(Decline { why, waits: None, .. }) => {
                return Fate::Vain(format!("{owner} can't give {service} up: {why}"));
            }
            Some(Decline { why, waits: Some(Waits { at_most_ms }), .. }) => {
                let told = at_most_ms.map(|ms| now + std::time::Duration::from_millis(ms));
                // It has said how long it takes; the caller waits a little longer.
                let most = request.asked_at.unwrap_or(now) + limits::GIVE_UP_WAIT_MAX;
                let until = told.map(|at| (at + limits::GIVE_UP_TIME_MAX).min(most));
                request.until = until.unwrap_or(request.until).max(request.until);
                format!(": {why}")
            }
            None => String::new(),
        };
        if now >= request.until {
            let waited = now.since(request.asked_at.unwrap_or(now)).as_secs();
            return Fate::Vain(format!(
                "{owner} did not give {service} up within {waited} s{because}; look at its log, or say 'heirlock release \
                 {service}' there"
            ));
        }
        Fate::Waits(Wait::new(format!("{owner} to give {service} up{because}"), now, Some(request.until)))
    }

    /// Gives up what another server asks for, or says why it can't.
    pub fn answer_wishes(&mut self, server: &mut Common<O>, now: Moment) {
        let homes: Vec<_> = self.services(server).map(|s| (s.name.clone(), s.home.clone())).collect();
        for (service, home) in homes {
            let is_held = self.held.contains_key(&service);
            let asked = is_held.then(|| asking(server, now, &service, home.as_ref())).flatten();
            let decline = asked.and_then(|asked| self.answer_wish(server, now, &service, asked));
            let known = server.pulse().declined(&service).map(|decline| &decline.why);
            if known != decline.as_ref().map(|decline| &decline.why) {
                server.beat_at(now); // at once, and not with the next beat
            }
            server.pulse_mut().decline(&service, decline);
        }
    }

    fn answer_wish(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        service: &ServiceName,
        asked: u64,
    ) -> Option<Decline> {
        let known = server.pulse().declined(service).filter(|decline| decline.asked == asked);
        if let Some(decline) = known.filter(|decline| decline.waits.is_none()) {
            return Some(decline.clone()); // a person has to mend it, and asks again then
        }
        if !self.is_releasing(service) {
            if let Err(why) = self.may_go_home(server, service) {
                let left_ms = |at: Moment| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
                let waits = why.passes.map(|until| Waits { at_most_ms: until.map(left_ms) });
                return Some(Decline { asked, why: why.text, waits, releasing_for_ms: None });
            }
            tracing::info!(%service, "{service}: released, for the server that it is to come to asks for it");
            self.release(server, service, Vec::new(), Some(asked));
            self.capture.look_at(now);
            if !self.is_releasing(service) {
                let why = "its release can't begin there; the log of its agent says why".to_owned();
                return Some(Decline { asked, why, waits: None, releasing_for_ms: None });
            }
        }
        let (why, at_most_ms) = self.release_waits_for(now, service);
        let releasing_for_ms = self.releases.began_at(service).map(|at| millis(now.since(at)));
        Some(Decline { asked, why, waits: Some(Waits { at_most_ms }), releasing_for_ms })
    }
}

/// The request that is answered of those that other servers make for a service: the one that is being answered, or else its home's, or
/// else that of the first server by name.
fn asking<O: Outside>(
    server: &Common<O>,
    now: Moment,
    service: &ServiceName,
    home: Option<&ServerName>,
) -> Option<u64> {
    let answered = server.pulse().declined(service).map(|decline| decline.asked);
    let asking: Vec<(&ServerName, u64)> = server.pulse().asked_by(service, now).collect();
    let of = |is_it: &dyn Fn(&(&ServerName, u64)) -> bool| asking.iter().find(|one| is_it(one));
    let found = of(&|(_, asked)| Some(*asked) == answered).or_else(|| of(&|(other, _)| Some(*other) == home));
    found.or(asking.first()).map(|(_, asked)| *asked)
}

/// The events that led to an adoption: the owner was asked, began to give the service up, and has given it up.
fn led_to(wish: &Wish, now: Moment) -> Vec<(Milestone, Moment)> {
    let asked = wish.asked_at.map(|at| (Milestone::Asked, at));
    // A release that was over before the owner could say that it is on began after the last look that showed none.
    let giving_up = wish.giving_up_at.or(wish.had_it_at).filter(|_| asked.is_some());
    let giving_up = giving_up.map(|at| (Milestone::GivingUp, at));
    asked.into_iter().chain(giving_up).chain([(Milestone::GivenUp, now)]).collect()
}

/// A caller of a service whose owner has given it up for this server. A refusal of the adoption is no "nothing was changed" any more.
#[derive(Debug)]
struct AfterGivingUp {
    service: ServiceName,
    inner: Responder,
}

impl Respond for AfterGivingUp {
    fn progress(&mut self, progress: &Progress) -> bool {
        self.inner.progress(progress)
    }

    fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
        let Self { service, inner } = *self;
        inner.end(&answer.map_err(|failure| match failure.refused {
            true => Failure {
                message: format!(
                    "{}\nits owner has released {service} for this server, and no server has it now: mend that and say the same again",
                    failure.message
                ),
                refused: false,
                ..failure
            },
            false => failure,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;

    #[derive(Debug)]
    struct Heard(Arc<OnceLock<Failure>>);

    impl Respond for Heard {
        fn progress(&mut self, _: &Progress) -> bool {
            true
        }

        fn end(self: Box<Self>, answer: Result<Answer, Failure>) {
            self.0.set(answer.unwrap_err()).unwrap();
        }
    }

    #[test]
    fn a_refusal_after_the_owner_has_released_a_service_does_not_say_that_nothing_was_changed() {
        for refused in [true, false] {
            let heard = Arc::default();
            let service = ServiceName::parse("nfs").unwrap();
            let inner = Responder::new(Heard(Arc::clone(&heard)));
            Responder::new(AfterGivingUp { service, inner }).failed("its volume is not here", refused);
            let said = heard.get().unwrap();
            assert!(!said.refused && said.message.starts_with("its volume is not here"), "{said:?}");
            assert_eq!(said.message.contains("no server has it now"), refused, "{said:?}");
        }
    }
}
