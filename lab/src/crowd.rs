//! Many clients without kernels: each has an address of its own, from which it takes a lock with an NLM call, and where
//! it is its own rpcbind and status monitor. To the server's lockd each is a client like any other, as it knows clients by
//! their addresses.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use heirlock_nsm::nlm::{self, Lock4, LockArgs, Nlm4Result, Nlm4Status};
use heirlock_nsm::rpc::{Call, Credential, Reply, encode_call, encode_success};
use heirlock_nsm::{rpcbind, sm};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::network::CROWD_ADDRESS;
use crate::rpc::{call, opaque, port_of, privileged_socket, word};

/// After how long without an answer a client asks again. lockd drops datagrams that come all at once.
const RETRANSMIT: Duration = Duration::from_secs(1);

/// As many as any scenario needs.
const CLIENTS_MAX: usize = 300;

/// Locks that are asked for and not answered at a time: as many as lockd's socket takes in without dropping any.
const AT_ONCE_MAX: usize = 64;

/// The credential that mountd and nfsd answer.
fn credential() -> Credential<'static> {
    Credential::Sys { stamp: 0, machine: "crowd", uid: 0, gid: 0, gids: Vec::new() }
}

/// Names for all addresses that there may be, as /etc/hosts has them: rpc.statd looks each of its clients up.
pub fn hosts() -> impl Iterator<Item = String> {
    (0..CLIENTS_MAX).filter_map(|index| Some(format!("{} crowd{index}\n", address_of(index).ok()?)))
}

/// All of them.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Client>,
    file: Vec<u8>,
    /// The service's address, and the port of its server's rpcbind.
    rpcbind: SocketAddrV4,
}

/// The restart that a client was told of, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: u32,
    at: Instant,
}

/// An answer that is waited for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    xid: u32,
    of: Addressee,
    reclaim: bool,
    began: Instant,
    sent: Instant,
}

/// The program that a client has asked on its way to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressee {
    /// The server's rpcbind, for the lock manager's port: after a restart it is another one.
    Rpcbind,
    /// The lock manager, for the lock.
    LockManager,
}

/// What a message has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing is to be asked.
    Nothing,
    /// The server was restarted, as it says for the first time under that number.
    Restart,
    /// The lock manager's port.
    Port(u16),
}

#[derive(Debug)]
struct Client {
    address: Ipv4Addr,
    /// At rpcbind's port, which is privileged as well.
    socket: UdpSocket,
    /// The lock manager's port, as this client knows it.
    lock_manager: u16,
    asked: Option<Asked>,
    answer: Option<Answer>,
    told: Option<Told>,
}

/// The answer to a request for a lock.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The lock manager's status.
    pub status: Nlm4Status,
    /// Was it a reclaim?
    pub reclaim: bool,
    /// When.
    pub at: Instant,
    /// How long after it was first asked for.
    pub took: Duration,
}

impl Crowd {
    /// So many clients that have never been seen, and a file of the service that they lock a byte each of.
    ///
    /// # Errors
    /// When no server serves it.
    pub fn gather(count: usize, service: Ipv4Addr, export: &str, file: &str) -> Result<Self> {
        let lock_manager = port_of(&privileged_socket()?, service, nlm::PROGRAM, nlm::VERSION_4)?;
        let clients = (0..count)
            .map(|index| {
                let address = address_of(index)?;
                let socket = UdpSocket::bind((address, rpcbind::PORT))
                    .with_context(|| format!("{address} is no address of the lab"))?;
                Client::new(address, socket, lock_manager)
            })
            .collect::<Result<Vec<_>>>()?;
        let file = file_handle(service, export, file)?;
        Ok(Self { clients, file, rpcbind: SocketAddrV4::new(service, rpcbind::PORT) })
    }

    /// A client's address, as a status monitor names it.
    #[must_use]
    pub fn address(&self, client: usize) -> String {
        self.clients[client].address.to_string()
    }

    /// All answers that there are.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        self.clients.iter().filter_map(|client| client.answer).collect()
    }

    /// When the clients were told of a restart, and under which state number.
    #[must_use]
    pub fn told(&self) -> Vec<(Instant, u32)> {
        self.clients.iter().filter_map(|client| client.told.map(|told| (told.at, told.state))).collect()
    }

    /// One client asks for its byte and waits for the answer.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn lock(&mut self, client: usize, limit: Duration) -> Result<Answer> {
        self.begin(client)?;
        self.answer(client, limit)
    }

    /// One client asks for its byte.
    ///
    /// # Errors
    /// When it can't be sent.
    pub fn begin(&mut self, client: usize) -> Result<()> {
        self.clients[client].answer = None;
        self.ask(client, Addressee::LockManager, false)
    }

    /// Waits for the answer to what a client asked.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn answer(&mut self, client: usize, limit: Duration) -> Result<Answer> {
        let deadline = Instant::now() + limit;
        while self.clients[client].answer.is_none() {
            ensure!(Instant::now() < deadline, "no answer to {} in {limit:?}", self.address(client));
            self.turn()?;
        }
        self.clients[client].answer.context("an answer")
    }

    /// All ask for their bytes, [`AT_ONCE_MAX`] at a time, and again as long as they are refused for want of protection;
    /// until all have them, or `limit` is over. Gives how many refusals there were.
    ///
    /// # Errors
    /// When a message can't be sent.
    pub fn lock_all(&mut self, limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        let (mut next, mut refused) = (0, 0);
        self.clients.iter_mut().for_each(|client| client.answer = None);
        while self.answers().len() < self.clients.len() && Instant::now() < deadline {
            let open = self.clients.iter().filter(|client| client.asked.is_some()).count();
            let end = self.clients.len().min(next + AT_ONCE_MAX.saturating_sub(open));
            (next..end).try_for_each(|client| self.ask(client, Addressee::LockManager, false))?;
            next = end;
            self.turn()?;
            for client in 0..next {
                let answer = self.clients[client].answer.map(|answer| answer.status);
                if answer == Some(Nlm4Status::DeniedNoLocks) {
                    refused += 1;
                    self.begin(client)?;
                }
            }
        }
        Ok(refused)
    }

    /// Until all are told and have an answer to their reclaim, or `done` says that it is enough.
    ///
    /// # Errors
    /// When a message can't be sent.
    pub fn reclaim_until(&mut self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        for client in &mut self.clients {
            (client.answer, client.told) = (None, None);
        }
        let mut looked = Instant::now();
        while self.answers().len() < self.clients.len() {
            self.turn()?;
            if looked.elapsed() > Duration::from_millis(500) {
                looked = Instant::now();
                if done()? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads what has come, for a moment, and asks again what was asked long ago.
    ///
    /// # Errors
    /// When a message can't be sent.
    pub fn turn(&mut self) -> Result<()> {
        let readable: Vec<usize> = {
            let mut fds: Vec<PollFd<'_>> =
                self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)).collect();
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
            (0..fds.len()).filter(|index| !fds[*index].revents().is_empty()).collect()
        };
        let mut buffer = [0; 4096];
        for index in readable {
            while let Ok((length, from)) = self.clients[index].socket.recv_from(&mut buffer) {
                let now = Instant::now();
                match self.clients[index].heard(&buffer[..length], from, now)? {
                    Heard::Nothing => {}
                    // Each client for itself, as kernels do, and none waits for what another one asks.
                    Heard::Restart => self.ask(index, Addressee::Rpcbind, true)?,
                    Heard::Port(port) => {
                        self.clients[index].lock_manager = port;
                        self.ask(index, Addressee::LockManager, true)?;
                    }
                }
            }
        }
        for index in 0..self.clients.len() {
            if let Some(asked) = self.clients[index].asked
                && asked.sent.elapsed() > RETRANSMIT
            {
                self.send(index, &asked)?;
                self.clients[index].asked = Some(Asked { sent: Instant::now(), ..asked });
            }
        }
        Ok(())
    }

    fn ask(&mut self, client: usize, of: Addressee, reclaim: bool) -> Result<()> {
        let now = Instant::now();
        let asked = Asked { xid: fastrand::u32(..), of, reclaim, began: now, sent: now };
        self.clients[client].asked = Some(asked);
        self.send(client, &asked)
    }

    fn send(&self, client: usize, asked: &Asked) -> Result<()> {
        let Client { address, socket, lock_manager, .. } = &self.clients[client];
        let Asked { xid, of, reclaim, .. } = *asked;
        if of == Addressee::Rpcbind {
            let message =
                rpcbind::encode_getport_call(xid, nlm::PROGRAM, nlm::VERSION_4, rpcbind::Transport::Udp);
            socket.send_to(&message, self.rpcbind)?;
            return Ok(());
        }
        let name = address.to_string();
        let lock = Lock4 {
            caller_name: &name,
            fh: &self.file,
            oh: name.as_bytes(),
            svid: 1,
            offset: client as u64,
            length: 1,
        };
        let arguments = LockArgs { cookie: b"crwd", block: false, exclusive: true, lock, reclaim, state: 1 };
        let message = nlm::encode_lock_call(xid, &credential(), &arguments);
        socket.send_to(&message, (*self.rpcbind.ip(), *lock_manager))?;
        Ok(())
    }
}

impl Client {
    fn new(address: Ipv4Addr, socket: UdpSocket, lock_manager: u16) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { address, socket, lock_manager, asked: None, answer: None, told: None })
    }

    /// Takes in a message, and answers it where it is a call.
    fn heard(&mut self, message: &[u8], from: SocketAddr, now: Instant) -> Result<Heard> {
        if let Ok(reply) = Reply::decode(message) {
            return self.answered(&reply, now);
        }
        let Ok(asked) = Call::decode(message) else { return Ok(Heard::Nothing) };
        let mut heard = Heard::Nothing;
        let result = match (asked.prog, asked.proc_) {
            // Every program that is asked for is here.
            (rpcbind::PROGRAM, rpcbind::GETPORT) => rpcbind::encode_getport_result(Some(rpcbind::PORT)),
            (sm::PROGRAM, 6) => {
                let state = sm::Notify::decode(asked.args)?.state.0;
                if self.told.is_none_or(|told| told.state != state) {
                    heard = Heard::Restart;
                }
                self.told = Some(Told { state, at: now });
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.socket.send_to(&encode_success(asked.xid, &result), from)?;
        Ok(heard)
    }

    fn answered(&mut self, reply: &Reply<'_>, now: Instant) -> Result<Heard> {
        let Some(asked) = self.asked.filter(|asked| asked.xid == reply.xid) else {
            return Ok(Heard::Nothing);
        };
        let result = reply.outcome.with_context(|| format!("{:?} did not carry out a call", asked.of))?;
        if asked.of == Addressee::Rpcbind {
            // One that is not registered yet is asked for again.
            return Ok(rpcbind::decode_getport_result(result)?.map_or(Heard::Nothing, Heard::Port));
        }
        let status = Nlm4Result::decode(result)?.status;
        self.asked = None;
        let took = now.duration_since(asked.began);
        self.answer = Some(Answer { status, reclaim: asked.reclaim, at: now, took });
        Ok(Heard::Nothing)
    }
}

/// The addresses of the crowd: a network of their own, which the lab answers for as a whole.
fn address_of(index: usize) -> Result<Ipv4Addr> {
    let [a, b, c, _] = CROWD_ADDRESS.octets();
    let (high, low) = (u8::try_from(index / 250)?, u8::try_from(index % 250)?);
    Ok(Ipv4Addr::new(a, b, c + high, low + 1))
}

/// MOUNTPROC3_MNT and NFSPROC3_LOOKUP (RFC 1813, 5.2.1 and 3.3.3).
fn file_handle(service: Ipv4Addr, export: &str, file: &str) -> Result<Vec<u8>> {
    let socket = privileged_socket()?;
    let mountd = port_of(&socket, service, 100_005, 3)?;
    let reply = call(&socket, service, mountd, [100_005, 3, 1], &opaque(export.as_bytes()))?;
    let (status, folder) = (word(&reply, 24), counted(&reply, 28));
    let folder = folder.filter(|_| status == Some(0)).with_context(|| format!("mountd says {status:?}"))?;
    let arguments = [opaque(folder), opaque(file.as_bytes())].concat();
    let message = encode_call(fastrand::u32(..), 100_003, 3, 3, &credential(), &arguments);
    let reply = over_tcp(SocketAddrV4::new(service, 2049), &message)?;
    let (status, handle) = (word(&reply, 24), counted(&reply, 28));
    let handle = handle.filter(|_| status == Some(0)).with_context(|| format!("nfsd says {status:?}"))?;
    Ok(handle.to_vec())
}

/// Bytes with their count before them.
fn counted(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let length = usize::try_from(word(bytes, offset)?).ok()?;
    bytes.get(offset + 4..offset + 4 + length)
}

/// nfsd serves TCP alone.
fn over_tcp(address: SocketAddrV4, message: &[u8]) -> Result<Vec<u8>> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&heirlock_nsm::rpc::frame(message))?;
    let mut deframer = heirlock_nsm::rpc::Deframer::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            bail!("{address} closed the connection");
        }
        deframer.push(&buffer[..count]);
        if let Some(record) = deframer.next_record()? {
            return Ok(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::StateNumber;

    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    #[test]
    fn a_client_that_waits_for_the_servers_rpcbind_keeps_no_other_one_from_answering() {
        let silent_rpcbind = UdpSocket::bind((HERE, 0)).unwrap();
        let clients = (0..3).map(|_| Client::new(HERE, UdpSocket::bind((HERE, 0)).unwrap(), 0).unwrap());
        let rpcbind = SocketAddrV4::new(HERE, port(&silent_rpcbind));
        let mut crowd = Crowd { clients: clients.collect(), file: Vec::new(), rpcbind };
        let notifier = UdpSocket::bind((HERE, 0)).unwrap();
        notifier.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for (index, client) in crowd.clients.iter().enumerate() {
            let xid = u32::try_from(index).unwrap();
            let message = sm::encode_notify_call(xid, "homes", StateNumber(7));
            notifier.send_to(&message, (HERE, port(&client.socket))).unwrap();
        }

        crowd.turn().unwrap();

        assert_eq!(crowd.told().len(), 3, "each is told in one turn, and rpcbind has said nothing");
        let mut answer = [0; 4096];
        let answered = (0..3).filter(|_| notifier.recv(&mut answer).is_ok()).count();
        assert_eq!(answered, 3);
        let asked = (0..3).map(|_| silent_rpcbind.recv_from(&mut answer).unwrap().1.port());
        let asked: std::collections::BTreeSet<u16> = asked.collect();
        assert_eq!(asked, crowd.clients.iter().map(|client| port(&client.socket)).collect());
    }
}
