//! The requests of a run that have not been carried out yet.

use std::collections::VecDeque;

use super::{Action, Persist};
use crate::Batch;
use crate::moment::Moment;
use crate::names::ServiceName;
use crate::records::Records;

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    /// All of it concerns one generation, and becomes durable together.
    Persist(Vec<Persist>),
    /// To be done when all that came before is durable.
    Act(Action),
}

/// In the order in which it was asked for.
#[derive(Debug, Default)]
pub struct Queue {
    left: VecDeque<One>,
    /// The store failed: nothing is taken out before it is tried again.
    again: Option<Moment>,
    /// The store's last error; it stays after the store worked again.
    failure: Option<String>,
}

#[derive(Debug)]
enum One {
    Persist(Box<Persist>),
    Act(Action),
}

impl Queue {
    /// A step of the machine asks for more.
    pub fn extend(&mut self, batch: Batch<Persist, Action>) {
        self.left.extend(batch.persist.into_iter().map(|one| One::Persist(Box::new(one))));
        self.left.extend(batch.then.into_iter().map(One::Act));
    }

    /// Takes out what is to be done next. A new generation is a portion of its own, and a journal comes in a later one than the
    /// outcomes that it follows from: a commit that is interrupted may have made any of its changes, and nothing would be owed
    /// any more to clients of which nothing is said (I8). Nothing is taken out while the store is to be tried again first
    /// ([`Queue::waits`]).
    pub fn take(&mut self) -> Option<Todo> {
        if self.waits() {
            return None;
        }
        let first = match self.left.pop_front()? {
            One::Act(action) => return Some(Todo::Act(action)),
            One::Persist(first) => *first,
        };
        let begins = |persist: &Persist| matches!(persist, Persist::Begin { .. });
        let tells = |persist: &Persist| matches!(persist, Persist::Outcomes { .. });
        let notes = |persist: &Persist| matches!(persist, Persist::Journal { .. });
        let mut portion = vec![first];
        while let Some(One::Persist(next)) = self.left.front()
            && !begins(next)
            && !begins(&portion[0])
            && !(notes(next) && portion.iter().any(tells))
            && next.generation() == portion[0].generation()
        {
            if let Some(One::Persist(next)) = self.left.pop_front() {
                portion.push(*next);
            }
        }
        Some(Todo::Persist(portion))
    }

    /// Whether the lock manager is to be made to recognise next.
    #[must_use]
    pub fn is_to_recognise(&self) -> bool {
        !self.waits() && matches!(self.left.front(), Some(One::Act(Action::Recognise(_))))
    }

    /// The store failed, with these words: this is to be done again, before anything else, and not before that moment.
    pub fn put_back(&mut self, portion: Vec<Persist>, again: Moment, why: String) {
        (self.again, self.failure) = (Some(again), Some(why));
        for one in portion.into_iter().rev() {
            self.left.push_front(One::Persist(Box::new(one)));
        }
    }

    /// Whether the store has failed, and was not tried again.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.again.is_some()
    }

    /// The store's error, while it is to be tried again: nothing else is waited for until then.
    #[must_use]
    pub fn waits_for_store(&self) -> Option<&str> {
        self.failure.as_deref().filter(|_| self.waits())
    }

    /// The store's last error, also where it works again: it is the reason for all that came late.
    #[must_use]
    pub fn was_held_up(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// When the store is to be tried again.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.again
    }

    /// Time has passed. Answers whether the store is to be tried again now.
    pub fn tries_again(&mut self, now: Moment) -> bool {
        self.again.take_if(|at| now >= *at).is_some()
    }

    /// A client that is registered now is not retired, however long the store kept that waiting.
    pub fn spare(&mut self, present: &Records) {
        for one in &mut self.left {
            if let One::Persist(persist) = one
                && let Persist::Retire { clients, .. } = persist.as_mut()
            {
                clients.retain(|client| !present.contains_key(client));
            }
        }
    }

    /// Whether a generation of this service is claimed and waits to be begun. It begins with the records that the one
    /// before held at the claim: records that are captured until then wait for it.
    #[must_use]
    pub fn begins(&self, service: &ServiceName) -> bool {
        let begins = |one: &One| match one {
            One::Persist(persist) => {
                matches!(persist.as_ref(), Persist::Begin { service: of, .. } if of == service)
            }
            One::Act(_) => false,
        };
        self.left.iter().any(begins)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::names::Generation;
    use crate::records::RecordKey;

    fn retire(service: &str, client: &str) -> Persist {
        Persist::Retire {
            service: ServiceName::parse(service).unwrap(),
            generation: Generation(2),
            clients: vec![RecordKey::parse(client).unwrap()],
        }
    }

    #[test]
    fn the_changes_of_one_generation_are_one_portion_and_go_back_in_their_order() {
        let mut queue = Queue::default();
        let (a, b, other) =
            (retire("nfs", "10.0.0.1"), retire("nfs", "10.0.0.2"), retire("home", "10.0.0.1"));
        queue.extend(Batch {
            persist: vec![a.clone(), b.clone(), other.clone()],
            then: vec![Action::CleanUp],
        });
        let portion = queue.take();
        assert_eq!(portion, Some(Todo::Persist(vec![a.clone(), b.clone()])));
        let again = Moment::at(Duration::from_secs(2));
        assert_eq!((queue.waits_for_store(), queue.was_held_up()), (None, None));
        queue.put_back(vec![a, b], again, "no volume".into());
        assert_eq!((queue.waits(), queue.due(), queue.take()), (true, Some(again), None));
        assert_eq!((queue.waits_for_store(), queue.was_held_up()), (Some("no volume"), Some("no volume")));
        assert!(!queue.tries_again(Moment::START) && queue.take().is_none(), "the store gets its time");
        assert!(queue.tries_again(again) && !queue.waits());
        assert_eq!((queue.waits_for_store(), queue.was_held_up()), (None, Some("no volume")));
        assert!(!queue.tries_again(again), "once");
        assert_eq!(queue.take(), portion);
        assert_eq!(queue.take(), Some(Todo::Persist(vec![other])));
        assert_eq!(queue.take(), Some(Todo::Act(Action::CleanUp)));
        assert_eq!(queue.take(), None);
    }

    /// A journal that says "settled" while the outcomes of that run are not there would leave its clients without any.
    #[test]
    fn outcomes_are_durable_before_the_journal_that_follows_from_them() {
        let (service, generation) = (ServiceName::parse("nfs").unwrap(), Generation(2));
        let outcomes = Persist::Outcomes { service: service.clone(), generation, lines: Vec::new() };
        let server = crate::ServerName::parse("nfs-a").unwrap();
        let journal = super::super::Journal::quiet("r", &server, 0);
        let journal = Persist::Journal { service, generation, journal };
        let retired = retire("nfs", "10.0.0.1");
        let mut queue = Queue::default();
        let persist =
            vec![outcomes.clone(), outcomes.clone(), journal.clone(), retired.clone(), journal.clone()];
        queue.extend(Batch { persist, then: Vec::new() });
        assert_eq!(queue.take(), Some(Todo::Persist(vec![outcomes.clone(), outcomes])));
        assert_eq!(queue.take(), Some(Todo::Persist(vec![journal.clone(), retired, journal])));
    }

    #[test]
    fn a_client_that_came_while_the_store_kept_its_retirement_waiting_is_spared() {
        let mut queue = Queue::default();
        queue.extend(Batch { persist: vec![retire("nfs", "10.0.0.1")], then: Vec::new() });
        queue.spare(&Records::from([(RecordKey::parse("10.0.0.1").unwrap(), Vec::new())]));
        let Some(Todo::Persist(portion)) = queue.take() else { panic!() };
        assert!(matches!(portion.as_slice(), [Persist::Retire { clients, .. }] if clients.is_empty()));
    }
}
