//! The machine, shared by all threads that have an event for it. A step takes microseconds, so one lock is enough.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use heirlock_core::Moment;
use heirlock_core::monitor::{Action, Called, Event, Monitor, Rules, Standing};
use heirlock_nsm::{MonName, MonitorLine};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::book::Book;
use super::directory::Found;
use crate::host::Host;

/// The machine with its book, and the event descriptor that wakes the thread that serves.
#[derive(Clone)]
pub(crate) struct SharedMonitor(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    waker: OwnedFd,
    began: Instant,
    /// When the book was last written that an earlier run of this boot left; `None` where there was none.
    resumes: Option<SystemTime>,
}

struct Inner {
    machine: Monitor,
    book: Book,
    outbox: Vec<Action>,
}

impl SharedMonitor {
    /// Begins with what an earlier run in this boot kept.
    pub(super) fn open(host: &Host, runtime_directory: &Path, rules: Rules) -> io::Result<Self> {
        let (book, found) = Book::open(host, runtime_directory)?;
        let resumes = found.as_ref().map(|(_, written)| *written);
        let said = found.map(|(said, _)| said).unwrap_or_default();
        let machine = Monitor::resumed(rules, said.lines, said.owed);
        let inner = Inner { machine, book, outbox: Vec::new() };
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared { inner: Mutex::new(inner), waker, began: Instant::now(), resumes })))
    }

    /// Whether an earlier run of this boot has left what it was told, so that clients can be answered before anything else
    /// is read.
    pub(crate) fn resumes(&self) -> bool {
        self.0.resumes.is_some()
    }

    /// These lie in the status monitor's directory: where that is younger than what an earlier run of ours was told, another
    /// status monitor knew better.
    pub(crate) fn found(&self, found: Vec<Found>) {
        let since = self.0.resumes.unwrap_or(SystemTime::UNIX_EPOCH);
        let younger = found.into_iter().filter(|(_, at)| *at >= since).map(|(line, _)| line);
        self.tell(Event::Found(younger.collect()));
    }

    /// The lock manager took a call, or didn't.
    pub(super) fn called(&self, client: MonName, how: Called) {
        self.tell(Event::Called { client, how });
    }

    /// See [`Monitor::may_forget`].
    pub(crate) fn may_forget(&self, client: &MonName) -> bool {
        self.lock().machine.may_forget(client)
    }

    /// See [`Monitor::knows`].
    pub(crate) fn knows(&self, client: &MonName) -> bool {
        self.lock().machine.knows(client)
    }

    /// The registrations of a client.
    pub(crate) fn lines(&self, client: &MonName) -> Vec<MonitorLine> {
        self.lock().machine.lines(client).to_vec()
    }

    /// All registrations.
    pub(crate) fn all_lines(&self) -> Vec<MonitorLine> {
        self.lock().machine.all_lines().cloned().collect()
    }

    /// All clients that are registered.
    pub(crate) fn clients(&self) -> BTreeSet<MonName> {
        let inner = self.lock();
        inner.machine.all_lines().map(|line| heirlock_core::monitor::key(&line.mon_name)).collect()
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        self.lock().machine.standing()
    }

    /// Takes in an event and wakes the thread that serves, so that it carries out the actions.
    pub(crate) fn tell(&self, event: Event) {
        self.step(event);
        // Where the thread is being woken already, that is as good.
        let _ = rustix::io::write(&self.0.waker, &1_u64.to_le_bytes());
    }

    /// Takes in an event. Changes that must survive a kill are written before anything else is done; a change that could not
    /// be written is not acknowledged to a host that would ask again.
    pub(super) fn step(&self, event: Event) {
        let now = self.now();
        let mut guard = self.lock();
        let Inner { machine, book, outbox } = &mut *guard;
        let step = machine.step(now, event);
        let is_whole = book.write(&step.persist, machine);
        outbox.extend(step.then.into_iter().map(|action| match action {
            Action::Acknowledge(ticket) if !is_whole => Action::LeaveUnanswered(ticket),
            other => other,
        }));
    }

    /// The actions that are due.
    pub(super) fn take(&self) -> Vec<Action> {
        std::mem::take(&mut self.lock().outbox)
    }

    /// When time alone is an event.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.lock().machine.next_timeout()
    }

    pub(super) fn now(&self) -> Moment {
        Moment::at(self.0.began.elapsed())
    }

    pub(super) fn waker(&self) -> BorrowedFd<'_> {
        self.0.waker.as_fd()
    }

    pub(super) fn clear_waker(&self) {
        let _ = rustix::io::read(&self.0.waker, &mut [0_u8; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
