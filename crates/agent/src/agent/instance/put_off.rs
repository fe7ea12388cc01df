//! Messages that wait for a slow store: they go on as soon as the store answers again, and before anything else is
//! asked of the store.

use heirlock_core::Moment;

use super::Instance;
use crate::agent::common::Common;
use crate::agent::outside::Outside;
use crate::agent::put_off::{Later, Tries};
use crate::control::{Progress, Request, Responder, Wait};

impl<O: Outside> Instance<O> {
    /// This is done once the store answers again.
    pub(crate) fn put_off(&mut self, later: Later) {
        self.put_off.add(later);
    }

    /// A request comes. A request that needs the store is answered as soon as the store answers.
    pub(crate) fn requested(
        &mut self,
        server: &mut Common<O>,
        now: Moment,
        request: Box<Request>,
        responder: Responder,
    ) {
        let is_of_memory = matches!(*request, Request::Report { .. });
        if is_of_memory || !server.store().is_busy() {
            let until = server.patience_with_the_store();
            return self.answer(server, now, *request, responder, until);
        }
        let tries = Tries::until(server.patience_with_the_store());
        self.put_off(Later::Request(request, responder, tries));
    }

    /// Does what was put off and is of this kind, as long as the store answers.
    pub(crate) fn go_on(&mut self, server: &mut Common<O>, now: Moment, of_kind: impl Fn(&Later) -> bool) {
        for later in self.put_off.take() {
            if server.store().is_busy() || !of_kind(&later) {
                self.put_off(later);
                continue;
            }
            match later {
                Later::Claim { run, .. } => self.go_on_claiming(server, run),
                Later::GiveUp(service, _) => self.address_gone(server, now, &service, Ok(())),
                Later::Commit(heard, batch, arrivals) => {
                    self.commit_arrivals(server, now, heard, batch, arrivals);
                }
                Later::Callout(heard, said, answered) => self.called_out(server, now, heard, said, answered),
                Later::Request(request, responder, tries) => {
                    self.answer(server, now, *request, responder, tries.until);
                }
                Later::Adoption(adoption, waiting, tries) => {
                    self.adopt_again(server, now, *adoption, *waiting, tries);
                }
                Later::Fence(run, services, _) => self.fence(server, run, services),
            }
        }
    }

    /// What failed with a call of the store is tried again. While a call goes on still, its end is waited for.
    pub(crate) fn try_again(&mut self, server: &mut Common<O>, now: Moment) {
        if server.store().is_busy() {
            self.put_off.await_answer();
        } else if self.put_off.due().is_some_and(|due| now >= due) {
            self.go_on(server, now, |later| later.is_tried_again(now));
        }
    }

    /// A message that has waited for the store for long enough is answered with the store's own error.
    pub fn end_messages_put_off_too_long(&mut self, server: &mut Common<O>, now: Moment) {
        if self.put_off.due().is_none_or(|due| now < due) {
            return;
        }
        let error = server.store().found().err();
        let why =
            error.map_or_else(|| "the store did not answer in time".to_owned(), |error| error.to_string());
        for later in self.put_off.take() {
            match later {
                Later::GiveUp(service, tries) if now >= tries.until => {
                    self.address_gone(server, now, &service, Err(tries.why.unwrap_or_else(|| why.clone())));
                }
                Later::Request(_, responder, tries) if now >= tries.until => {
                    responder.failed(&tries.why.unwrap_or_else(|| why.clone()), false);
                }
                Later::Adoption(_, waiting, tries) if now >= tries.until => {
                    waiting.responder.failed(&tries.why.unwrap_or_else(|| why.clone()), true);
                }
                later => self.put_off(later),
            }
        }
    }

    /// Tells those whose requests were put off what they wait for. One whose caller is gone is not begun any more.
    pub fn say_messages_put_off(&mut self, now: Moment) {
        self.put_off.retain(|later| match later {
            Later::Request(_, responder, tries) => responder.progress(&waits_for_the_store(now, tries)),
            Later::Adoption(adoption, waiting, tries) => {
                let listens = waiting.responder.progress(&waits_for_the_store(now, tries));
                // A service that another server has given up comes here all the same.
                listens || !adoption.before.is_empty()
            }
            _ => true,
        });
    }
}

fn waits_for_the_store(now: Moment, tries: &Tries) -> Progress {
    let for_what = match &tries.why {
        Some(why) => format!("the store to work: {why}"),
        None => "the store to answer".to_owned(),
    };
    Progress::waiting(Wait::new(for_what, now, Some(tries.until)))
}
