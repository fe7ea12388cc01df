//! The thread that reads requests and sends answers. It never waits for a disk, the lock manager or a name server: a
//! client that is known is answered however slow those are.
//!
//! Each turn first takes the requests of this server's own lock manager, and answers them; then a bounded portion of
//! requests from elsewhere. That gets a part of the thread's time and no more: a thread that is always busy is given the
//! processor late when the lock manager asks.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::log_limit::{Source, cut};
use heirlock_core::monitor::{Action, Called, Event, Ticket};
use heirlock_core::share::OthersShare;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::datagram::{Back, Datagrams};
use super::downcall::{Call, Caller};
use super::look_up;
use super::request::{self, Asked, Trust};
use super::shared::SharedMonitor;
use super::sockets::Sockets;
use super::stream::{StreamId, Streams};
use super::{OwnState, Wanted};
use crate::from_elsewhere;
use crate::host::Peers;
use crate::threads;
use crate::watchdog::Turns;

/// How long at most between two looks at silent connections.
const TIDIED_AFTER: Duration = Duration::from_secs(1);

/// The thread's tools.
pub(super) struct Room {
    /// Which of the hosts that it is asked to monitor are no clients.
    pub(super) peers: Peers,
    pub(super) monitor: SharedMonitor,
    pub(super) state: OwnState,
    pub(super) caller: Caller,
    pub(super) trust: Trust,
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Datagram { door: usize, back: Back },
    Stream(StreamId),
}

/// A source that was found readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Woken,
    Datagrams(usize),
    Listener(usize),
    Stream(StreamId),
}

struct Server<W> {
    datagrams: Vec<Datagrams>,
    listeners: Vec<TcpListener>,
    streams: Streams,
    room: Room,
    turns: Turns,
    wanted: W,
    open: HashMap<Ticket, (u32, Reply)>,
    tickets: u64,
    tidied: Moment,
    others: OthersShare,
}

/// Begins to serve.
pub(super) fn start(
    mut sockets: Sockets,
    room: Room,
    turns: Turns,
    wanted: impl Fn(Wanted) + Send + 'static,
) -> io::Result<()> {
    // Before the first answer, so that an agent that hangs right after it is known as one that answered.
    sockets.say_that_they_are_read();
    let Sockets { udp4, tcp4, udp6, tcp6, .. } = sockets;
    let datagrams: io::Result<Vec<Datagrams>> =
        [Some(udp4), udp6].into_iter().flatten().map(Datagrams::new).collect();
    let mut server = Server {
        datagrams: datagrams?,
        listeners: [Some(tcp4), tcp6].into_iter().flatten().collect(),
        streams: Streams::new(room.trust),
        room,
        turns,
        wanted,
        open: HashMap::new(),
        tickets: 0,
        tidied: Moment::START,
        others: OthersShare::default(),
    };
    threads::start("status-monitor", move || server.serve())?;
    Ok(())
}

impl<W: Fn(Wanted)> Server<W> {
    fn serve(&mut self) {
        loop {
            self.turns.rest();
            let found = self.wait();
            self.turns.turn();
            let (own, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_own)| *is_own);
            // In two rounds also where the first has nothing to read: requests that the store or time has decided are
            // answered first.
            self.round(own);
            if !others.is_empty() {
                let began = self.room.monitor.now();
                self.round(others);
                self.others.worked(began, self.room.monitor.now());
            }
            let now = self.room.monitor.now();
            if now.since(self.tidied) >= TIDIED_AFTER {
                self.tidied = now;
                self.streams.tidy(now);
            }
        }
    }

    fn round(&mut self, found: Vec<(Ready, bool)>) {
        for (ready, _) in found {
            self.read(ready);
        }
        self.follow();
    }

    /// Carries out the actions that follow from the requests that were read, or from time.
    fn follow(&mut self) {
        if self.room.monitor.next_timeout().is_some_and(|due| self.room.monitor.now() >= due) {
            self.room.monitor.step(Event::Tick);
        }
        for action in self.room.monitor.take() {
            self.act(action);
        }
    }

    /// The readable sources, and whether each is the lock manager's or may be. Other senders' requests wait while they rest.
    fn wait(&self) -> Vec<(Ready, bool)> {
        let (monitor, now) = (&self.room.monitor, self.room.monitor.now());
        let rest = self.others.rests_until(now).map(|until| until.since(now));
        let has_turn = |is_own: bool| is_own || rest.is_none();
        let left = self.streams.with_more().map(|(id, is_own)| (Ready::Stream(id), is_own));
        let mut found: Vec<(Ready, bool)> = left.filter(|(_, is_own)| has_turn(*is_own)).collect();
        let goes_on = (!found.is_empty()).then_some(Duration::ZERO);
        let full = self.streams.full_for(now);
        let due = monitor.next_timeout().map(|due| due.since(now));
        let tidies = (!self.streams.is_empty()).then_some(TIDIED_AFTER);
        let due = [rest, goes_on, full, due, tidies].into_iter().flatten().min();
        // Rounded up: woken a moment too early, it would turn without pause until the time has come.
        let timeout = due.map(|due| Timespec {
            tv_sec: i64::try_from(due.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(due.subsec_nanos().next_multiple_of(1_000_000).min(999_999_999)),
        });
        let mut sources = vec![(Ready::Woken, true, monitor.waker())];
        let datagrams = self.datagrams.iter().enumerate();
        sources.extend(datagrams.map(|(at, socket)| (Ready::Datagrams(at), false, socket.as_fd())));
        // The lock manager may be among the hosts that connect.
        let listeners = self.listeners.iter().enumerate().filter(|_| full.is_none());
        sources.extend(listeners.map(|(at, socket)| (Ready::Listener(at), true, socket.as_fd())));
        let streams = self.streams.all().map(|(id, is_own, fd)| (Ready::Stream(id), is_own, fd));
        sources.extend(streams.filter(|(ready, is_own, _)| !found.contains(&(*ready, *is_own))));
        sources.retain(|(_, is_own, _)| has_turn(*is_own));
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, _, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        if let Ok(1..) = poll(&mut fds, timeout.as_ref()) {
            let readable = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
            found.extend(readable.map(|((ready, is_own, _), _)| (*ready, *is_own)));
        }
        found
    }

    fn read(&mut self, ready: Ready) {
        let now = self.room.monitor.now();
        let mut requests: Vec<(Vec<u8>, SocketAddr, Reply)> = Vec::new();
        match ready {
            Ready::Woken => self.room.monitor.clear_waker(),
            Ready::Datagrams(door) => {
                let mut take = |message: &[u8], back: Back| {
                    requests.push((message.to_vec(), back.to, Reply::Datagram { door, back }));
                };
                self.datagrams[door].read(&mut take);
            }
            Ready::Listener(at) => {
                for id in self.streams.accept(&self.listeners[at], now) {
                    self.read(Ready::Stream(id));
                }
            }
            Ready::Stream(id) => self.streams.read(id, now, |message, from| {
                requests.push((message.to_vec(), from, Reply::Stream(id)));
            }),
        }
        for (message, from, reply) in requests {
            self.asked(&message, from, reply);
        }
    }

    fn asked(&mut self, message: &[u8], from: SocketAddr, reply: Reply) {
        match request::read(message, from, self.room.state.get(), self.room.trust) {
            // A host that speaks something else over a connection is not waited for any longer.
            Asked::Nothing => {
                if let Reply::Stream(id) = reply {
                    self.streams.close(id);
                }
            }
            Asked::Answered(answer) => self.answer(reply, &answer),
            Asked::Mon { xid, line } => {
                let ticket = self.ticket(xid, reply);
                // Only an unknown client needs to be looked at: a storm of reclaims looks at nothing.
                let peer =
                    !self.room.monitor.knows(&line.mon_name) && self.room.peers.contain(&line.mon_name);
                self.room.monitor.step(Event::Mon { ticket, line, peer });
            }
            Asked::Unmon { mon_name, caller, answer } => {
                self.room.monitor.step(Event::Unmon { mon_name, caller });
                self.answer(reply, &answer);
            }
            Asked::UnmonAll { caller, answer } => {
                self.room.monitor.step(Event::UnmonAll(caller));
                self.answer(reply, &answer);
            }
            Asked::Notified { xid, name, state } => {
                if from_elsewhere::may_say("notified", from.ip()) {
                    tracing::info!(name = cut(&name), %from, %state, "{} says from {from} that it was restarted, with state number {state}", cut(&name));
                }
                let (ticket, source) = (self.ticket(xid, reply), unmapped(from.ip()));
                self.room.monitor.step(Event::Notified { ticket, name, source, state });
            }
        }
    }

    /// Numbers a request that waits from now on.
    fn ticket(&mut self, xid: u32, reply: Reply) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open.insert(ticket, (xid, reply));
        ticket
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer { ticket, granted } => {
                let Some((xid, reply)) = self.open.remove(&ticket) else { return };
                let answer = request::mon_answer(xid, granted, self.room.state.get());
                self.answer(reply, &answer);
            }
            Action::Acknowledge(ticket) => {
                let Some((xid, reply)) = self.open.remove(&ticket) else { return };
                self.answer(reply, &request::notify_answer(xid));
            }
            Action::LeaveUnanswered(ticket) => {
                self.open.remove(&ticket);
                if from_elsewhere::may_say("left unanswered", Source::Unknown) {
                    tracing::warn!(
                        "a notification was not answered, for there is no room for its call to the lock manager: its sender repeats it"
                    );
                }
            }
            Action::Commit { batch, arrivals } => (self.wanted)(Wanted::Commit { batch, arrivals }),
            Action::Probe => (self.wanted)(Wanted::Probe),
            Action::Changed(client) => (self.wanted)(Wanted::Changed(client)),
            Action::Call { client, lines, state, tries } => {
                let call = Call { client: client.clone(), lines, state, tries };
                if !self.room.caller.call(call) {
                    self.room.monitor.called(client, Called::Untaken);
                }
            }
            Action::LookUp { ticket, name, state } => look_up::ask(&self.room.monitor, ticket, name, state),
        }
    }

    fn answer(&mut self, reply: Reply, bytes: &[u8]) {
        match reply {
            Reply::Datagram { door, back } => self.datagrams[door].answer(bytes, back),
            Reply::Stream(id) => self.streams.answer(id, bytes),
        }
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
