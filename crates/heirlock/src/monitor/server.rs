//! The thread that reads requests and sends answers. It never waits for a disk, the lock manager or a name server: a
//! client that is known is answered however slow those are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use heirlock_core::Moment;
use heirlock_core::monitor::{Action, Event, Ticket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::datagram::{Back, Datagrams};
use super::desk::Desk;
use super::downcall::Caller;
use super::look_up::LookUp;
use super::request::{self, Asked};
use super::sockets::Sockets;
use super::stream::{StreamId, Streams};
use super::{OwnState, Wanted};
use crate::agent::roles::Peers;

/// How long at most between two looks at silent connections.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Datagram { v6: bool, back: Back },
    Stream(StreamId),
}

/// What was found readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Bell,
    Udp { v6: bool },
    Tcp { v6: bool },
    Stream(StreamId),
}

struct Server<W> {
    udp4: Datagrams,
    udp6: Option<Datagrams>,
    tcp4: TcpListener,
    tcp6: Option<TcpListener>,
    streams: Streams,
    desk: Desk,
    state: OwnState,
    caller: Caller,
    look_up: LookUp,
    peers: Peers,
    wanted: W,
    open: HashMap<Ticket, (u32, Reply)>,
    tickets: u64,
    tidied: Moment,
}

/// Begins to serve.
pub(super) fn start(
    mut sockets: Sockets,
    desk: Desk,
    state: OwnState,
    caller: Caller,
    wanted: impl Fn(Wanted) + Send + 'static,
) -> io::Result<()> {
    // Before the first answer: who hangs right after it is known as one that answered.
    sockets.say_that_they_are_read();
    let Sockets { udp4, tcp4, udp6, tcp6, .. } = sockets;
    let mut server = Server {
        udp4: Datagrams::new(udp4)?,
        udp6: udp6.map(Datagrams::new).transpose()?,
        tcp4,
        tcp6,
        streams: Streams::default(),
        look_up: LookUp::new(desk.clone()),
        peers: Peers::of(Path::new("/proc")),
        desk,
        state,
        caller,
        wanted,
        open: HashMap::new(),
        tickets: 0,
        tidied: Moment::START,
    };
    thread::Builder::new().name("status-monitor".into()).spawn(move || server.serve())?;
    Ok(())
}

impl<W: Fn(Wanted)> Server<W> {
    fn serve(&mut self) {
        loop {
            for ready in self.wait() {
                self.read(ready);
            }
            let now = self.desk.now();
            if self.desk.next_timeout().is_some_and(|due| now >= due) {
                self.desk.step(Event::Tick);
            }
            for action in self.desk.take() {
                self.act(action);
            }
            if now.since(self.tidied) >= PATIENCE {
                self.tidied = now;
                self.streams.tidy(now);
            }
        }
    }

    fn wait(&self) -> Vec<Ready> {
        let due = self.desk.next_timeout().map_or(PATIENCE, |due| due.since(self.desk.now()).min(PATIENCE));
        // Rounded up: woken a moment too early, it would turn without pause until the time has come.
        let nanos = due.subsec_nanos().next_multiple_of(1_000_000).min(999_999_999);
        let timeout =
            Timespec { tv_sec: i64::try_from(due.as_secs()).unwrap_or(1), tv_nsec: i64::from(nanos) };
        let mut sources = vec![
            (Ready::Bell, self.desk.bell()),
            (Ready::Udp { v6: false }, self.udp4.as_fd()),
            (Ready::Tcp { v6: false }, self.tcp4.as_fd()),
        ];
        sources.extend(self.udp6.as_ref().map(|socket| (Ready::Udp { v6: true }, socket.as_fd())));
        sources.extend(self.tcp6.as_ref().map(|socket| (Ready::Tcp { v6: true }, socket.as_fd())));
        sources.extend(self.streams.all().map(|(id, fd)| (Ready::Stream(id), fd)));
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(_) => Vec::new(),
            Ok(_) => sources
                .iter()
                .zip(&fds)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|((ready, _), _)| *ready)
                .collect(),
        }
    }

    fn read(&mut self, ready: Ready) {
        let now = self.desk.now();
        let mut requests: Vec<(Vec<u8>, SocketAddr, Reply)> = Vec::new();
        match ready {
            Ready::Bell => self.desk.silence(),
            Ready::Udp { v6 } => {
                let socket = if v6 { self.udp6.as_mut() } else { Some(&mut self.udp4) };
                let mut take = |message: &[u8], back: Back| {
                    requests.push((message.to_vec(), back.to, Reply::Datagram { v6, back }));
                };
                if let Some(socket) = socket {
                    socket.read(&mut take);
                }
            }
            Ready::Tcp { v6 } => {
                let listener = if v6 { self.tcp6.as_ref() } else { Some(&self.tcp4) };
                if let Some(listener) = listener {
                    self.streams.accept(listener, now);
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
        match request::read(message, from, self.state.get()) {
            Asked::Nothing => {}
            Asked::Answered(answer) => self.answer(reply, &answer),
            Asked::Mon { xid, line } => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.open.insert(ticket, (xid, reply));
                // Only who isn't known needs to be looked at: a storm of reclaims looks at nothing.
                let peer = !self.desk.knows(&line.mon_name) && self.peers.contain(&line.mon_name);
                self.desk.step(Event::Mon { ticket, line, peer });
            }
            Asked::Unmon { mon_name, caller, answer } => {
                self.desk.step(Event::Unmon { mon_name, caller });
                self.answer(reply, &answer);
            }
            Asked::UnmonAll { caller, answer } => {
                self.desk.step(Event::UnmonAll(caller));
                self.answer(reply, &answer);
            }
            Asked::Notified { name, state, answer } => {
                tracing::info!(name = %name.escape_debug(), %from, %state, "a server or client says that it was restarted");
                self.desk.step(Event::Notified {
                    name,
                    source: unmapped(from.ip()),
                    state,
                    looked_up: false,
                });
                self.answer(reply, &answer);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer { ticket, granted } => {
                let Some((xid, reply)) = self.open.remove(&ticket) else { return };
                let answer = request::mon_answer(xid, granted, self.state.get());
                self.answer(reply, &answer);
            }
            Action::Commit { batch, arrivals } => (self.wanted)(Wanted::Commit { batch, arrivals }),
            Action::Probe => (self.wanted)(Wanted::Probe),
            Action::Changed(client) => (self.wanted)(Wanted::Changed(client)),
            Action::Call { line, state } => self.caller.call(line, state),
            Action::LookUp { name, state } => self.look_up.ask(name, state),
        }
    }

    fn answer(&mut self, reply: Reply, bytes: &[u8]) {
        match reply {
            Reply::Datagram { v6: false, back } => self.udp4.answer(bytes, back),
            Reply::Datagram { v6: true, back } => {
                if let Some(socket) = &self.udp6 {
                    socket.answer(bytes, back);
                }
            }
            Reply::Stream(id) => self.streams.answer(id, bytes),
        }
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
