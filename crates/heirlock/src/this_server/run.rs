//! The agent of this server: its sockets and watches are begun, and a loop hands it messages, one at a time.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use heirlock_agent::Outside;
use heirlock_agent::{Agent, InstanceNumber, Message, join_alike};
use heirlock_core::limits as core_limits;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::drills::Drills;
use super::in_short::in_short;
use super::past::Past;
use super::{Clock, Inbox, Snapshot, ThisLockManager, ThisServer};
use crate::config::{ForEach, Settings};
use crate::control::{Answer, Listener, Outbox, Request, Responder, read_only, trust};
use crate::detector::Hints;
use crate::host::{Host, groups};
use crate::store::Store;
use crate::store::timed::Timed;
use crate::threads::{self, Lasting};
use crate::watchdog::{Turns, Watchdog};
use crate::{alerts, callout, guard, limits, store};

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where something it can't do without is missing, or another agent lives under its name.
pub(crate) fn run(host: Host, settings: Settings) -> Result<()> {
    let settings = Arc::new(settings);
    let watchdog = Watchdog::start().context("can't begin to look whether the agent hangs")?;
    let turns = watchdog.follow("agent", core_limits::LOOP_SILENCE_MAX)?;
    turns.turn();
    prepare(&host, &settings)?;
    let (inbox, messages) = channel();
    let (clock, snapshot) = (Clock::start(), Arc::new(Snapshot::new(&host, &settings)));
    let outbox = Outbox::default();
    let shown = Arc::clone(&snapshot);
    watchdog.tell_systemd_also(move || in_short(&shown.report(clock.now())));
    let reads = Reads { clock, snapshot: Arc::clone(&snapshot), past: Past::new(&host, &settings) };
    let drills = Drills::new(&host, &settings, clock, Arc::clone(&snapshot));
    let mut listener = listen(&settings, &inbox, reads.clone(), drills, &outbox)?;
    watchdog.keep(listener.take_thread());
    let mut read_only = listen_for_group(&host, &settings, reads);
    watchdog.keep(read_only.as_mut().and_then(Listener::take_thread));
    watchdog.keep(Some(stop_on_signal(inbox.clone())?));
    if let Some(command) = settings.hooks.alert.clone() {
        let shown = Arc::clone(&snapshot);
        watchdog.keep(Some(alerts::start(command, move || shown.report(clock.now()))?));
    }
    let answers = inbox.clone();
    let ended = move || drop(answers.send(Message::StoreAnswers));
    let store = Timed::new(store::open(&host, &settings), ended).context("can't begin to ask the store")?;
    let store = store.beating_every(settings.heartbeat.interval);
    let changed = inbox.clone();
    store.on_change(Box::new(move || drop(changed.send(Message::StoreChanged))));
    let inbox = Inbox::new(InstanceNumber::FIRST, inbox);
    let lock_manager = ThisLockManager::open(host.clone(), &settings, clock, inbox)?;
    let outside = ThisServer::new(host, &settings, clock, snapshot);
    let mut agent = Agent::new(Arc::clone(&settings), Box::new(store), outside, vec![lock_manager])?;
    // A status monitor that resumes answers from now on, while the store is read.
    let _callouts = begin_capture(&settings, &mut agent, &watchdog)?;
    agent.take_up();
    if settings.capture.mode.properties().is_status_monitor {
        // The status monitor answers known clients also where this loop hangs, as it may where a store does.
        turns.only_say();
    }
    let mut hints = first_of(&mut agent)?.watch_directory()?;
    watchdog.keep(hints.as_mut().and_then(Hints::take_thread));
    watchdog.keep(Some(first_of(&mut agent)?.watch_lock_manager()?));
    let served = serve(&mut agent, &messages, &turns, &outbox);
    outbox.send();
    served
}

/// Checks that must pass before anything is begun, and lines for an administrator at the start.
fn prepare(host: &Host, settings: &Settings) -> Result<()> {
    for directory in [&settings.local_directory, &settings.runtime_directory] {
        trust::make_folder(directory).with_context(|| format!("can't create {}", directory.display()))?;
    }
    match guard::renew(host, settings) {
        Ok(true) => tracing::info!("stock sm-notify is kept out again after a boot"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(%error, "stock sm-notify may not be kept out; look with 'heirlock doctor': {error}");
        }
    }
    if !settings.state_directory_is_set {
        tracing::info!(directory = %settings.state_directory.display(), "state-directory is not set, and the status monitor is followed to {}", settings.state_directory.display());
    }
    for finding in guard::commands(host, settings) {
        tracing::error!(remedy = finding.remedy, "{}", finding.found);
    }
    Ok(())
}

/// Answers the requests that only read, also while the loop waits for a store that hangs.
#[derive(Clone)]
struct Reads {
    clock: Clock,
    snapshot: Arc<Snapshot>,
    past: Past,
}

impl Reads {
    fn answer(&self, request: &Request, responder: Responder) {
        match request {
            Request::Past => match self.past.adoptions() {
                Ok(adoptions) => responder.done(Answer::Past { adoptions }),
                Err(why) => responder.failed(&why, true),
            },
            _ => responder.done(Answer::Status(Box::new(self.snapshot.report(self.clock.now())))),
        }
    }
}

/// Answers what needs no decision at once, and hands on the rest.
fn listen(
    settings: &Settings,
    inbox: &Sender<Message>,
    reads: Reads,
    drills: Drills,
    outbox: &Outbox,
) -> Result<Listener> {
    let (inbox, outbox) = (Mutex::new(inbox.clone()), outbox.clone());
    let requested = move |request: Request, responder: Responder| {
        if request.only_reads() {
            return reads.answer(&request, responder);
        }
        if let Request::Drill { service } = &request {
            return drills.answer(service, responder);
        }
        let inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = inbox.send(Message::Request(Box::new(request), outbox.hold(responder)));
    };
    Listener::start(&settings.runtime_directory, requested)
        .with_context(|| format!("can't listen for requests in {}", settings.runtime_directory.display()))
}

/// Lets a group read the status, where one is configured. Where that can't be, the agent says so and goes on: it protects clients
/// all the same.
fn listen_for_group(host: &Host, settings: &Settings, reads: Reads) -> Option<Listener> {
    let group = settings.control.read_group.as_deref()?;
    let answer = move |request: &Request, responder: Responder| reads.answer(request, responder);
    let listening = groups::number_of(host, group).and_then(|gid| {
        read_only::listen(&settings.runtime_directory, gid, answer).map_err(|error| error.to_string())
    });
    listening
        .inspect_err(|why| tracing::error!(group, why, "the group {group} can't read the status: {why}"))
        .ok()
}

fn stop_on_signal(inbox: Sender<Message>) -> Result<Lasting> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("can't wait for signals")?;
    let thread = threads::lasting("signals", move || {
        for _ in signals.forever() {
            if inbox.send(Message::Stop).is_err() {
                return Ok(());
            }
        }
        Err(io::Error::other("no signal can be heard any more"))
    })?;
    Ok(thread)
}

/// Begins to learn of records in the way that is configured, besides looking at the directory.
fn begin_capture(
    settings: &Settings,
    agent: &mut Agent<ThisServer>,
    watchdog: &Watchdog,
) -> Result<Option<callout::Listener>> {
    type Begin = fn(&mut Agent<ThisServer>, &Watchdog) -> Result<Option<callout::Listener>>;
    let each = ForEach::<Begin> {
        watch: |_, _| Ok(None),
        callout: |agent, watchdog| {
            let mut listener = first_of(agent)?.listen_to_callouts()?;
            watchdog.keep(listener.take_thread());
            agent.take_in_spool();
            Ok(Some(listener))
        },
        nsm: |agent, watchdog| {
            let turns = watchdog.follow("status monitor", core_limits::MONITOR_SILENCE_MAX)?;
            begin_monitoring(agent, turns).map(|()| None)
        },
    };
    settings.capture.mode.choose(each)(agent, watchdog)
}

/// The lock manager of this network namespace.
fn first_of(agent: &mut Agent<ThisServer>) -> Result<&mut ThisLockManager> {
    agent.lock_manager_mut(InstanceNumber::FIRST).context("the agent has no lock manager")
}

/// This server's status monitor begins, and its agent serves it.
fn begin_monitoring(agent: &mut Agent<ThisServer>, turns: Turns) -> Result<()> {
    let differing = first_of(agent)?.begin_monitoring(turns)?;
    agent.monitors(InstanceNumber::FIRST, differing);
    Ok(())
}

fn serve(
    agent: &mut Agent<ThisServer>,
    messages: &Receiver<Message>,
    turns: &Turns,
    outbox: &Outbox,
) -> Result<()> {
    loop {
        let patience = agent.next_due().since(agent.outside().now());
        turns.rest();
        let first = match messages.recv_timeout(patience) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => bail!("no thread can send the agent a message any more"),
        };
        turns.turn();
        // Messages that have come together are looked at together: a burst of hints causes one scan, a burst of answers one sync.
        let more = messages.try_iter().take(limits::MESSAGES_AT_ONCE_MAX);
        for message in join_alike(first.into_iter().chain(more)) {
            if matches!(message, Message::Stop) {
                return agent.stop();
            }
            agent.handle(message);
        }
        agent.do_what_is_due();
        outbox.send();
        if let Some(why) = agent.must_end() {
            bail!(why);
        }
    }
}
