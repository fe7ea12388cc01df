//! All clients, and the few threads that live for them.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heirlock_nsm::nlm::{self, Lock4, LockArgs, Nlm4Result};
use heirlock_nsm::rpc::{Credential, Reply};
use heirlock_nsm::{StateNumber, sm};
use rustix::event::{Timespec, epoll};

use super::client::{Client, Endpoints, Lock, OWN_STATE};
use super::endpoint::{answer_rpcbind, bind, serve};
use crate::threads;

/// Threads; each lives for its share of the clients.
const WORKERS: usize = 2;

/// Lock requests of one thread that wait for their answer: more would only fill the lock manager's queue.
const FLYING_MAX: usize = 64;

/// After how long a lock request is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(400);

/// How long a thread sleeps at most before it looks what else is to be done.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Addresses of one /24 that are used.
const HOSTS_PER_NET: usize = 250;

/// All clients.
#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<Arc<Client>>,
    /// The clients of each thread that want to lock.
    queues: Vec<Arc<LockQueue>>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

/// Clients that want to lock, by their place among the thread's own.
#[derive(Debug, Default)]
struct LockQueue(Mutex<VecDeque<usize>>);

/// The clients' common mounts.
#[derive(Debug, Clone)]
pub(super) struct Mounts {
    /// The service's address.
    pub(super) service: Ipv4Addr,
    /// The names that it can be mounted by; the clients take turns.
    pub(super) names: Vec<String>,
    /// The primary's number, which the clients know.
    pub(super) primary_state: StateNumber,
}

/// The address of a client, by its number: 127.201.0.1 and up.
pub(super) fn address_of(number: usize) -> Ipv4Addr {
    let octet = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 201, octet(number / HOSTS_PER_NET), octet(number % HOSTS_PER_NET + 1))
}

impl Crowd {
    /// Binds all their endpoints. No client answers before [`Crowd::live`].
    ///
    /// # Errors
    /// Where the port is taken at one of their addresses, or the system gives no more sockets.
    pub(super) fn gather(count: usize, rpcbind_port: u16, mounts: &Mounts) -> io::Result<Vec<Client>> {
        (0..count)
            .map(|number| {
                let address = address_of(number);
                let (rpcbind, monitor) = (bind(address, rpcbind_port)?, bind(address, 0)?);
                let endpoints = Endpoints { rpcbind, monitor_port: monitor.local_addr()?.port(), monitor };
                let mounted_by = mounts.names[number % mounts.names.len()].clone();
                Ok(Client::new(address, mounted_by, mounts.service, mounts.primary_state, endpoints))
            })
            .collect()
    }

    /// From now on they answer.
    ///
    /// # Errors
    /// Where the system gives no means to wait for so many.
    pub(super) fn live(clients: Vec<Client>, lock_manager: SocketAddr) -> io::Result<Self> {
        let clients: Vec<Arc<Client>> = clients.into_iter().map(Arc::new).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (mut queues, mut workers) = (Vec::new(), Vec::new());
        for share in clients.chunks(clients.len().div_ceil(WORKERS).max(1)) {
            let queue = Arc::new(LockQueue::default());
            let worker = Worker::new(share.to_vec(), Arc::clone(&queue), lock_manager)?;
            let stop = Arc::clone(&stop);
            queues.push(queue);
            workers.push(threads::start("crowd", move || worker.run(&stop))?);
        }
        Ok(Self { clients, queues, stop, workers })
    }

    pub(super) fn clients(&self) -> &[Arc<Client>] {
        &self.clients
    }

    /// Each takes its lock.
    pub(super) fn take_locks(&self) {
        let shares = self.clients.chunks(self.clients.len().div_ceil(WORKERS).max(1));
        for (queue, share) in self.queues.iter().zip(shares) {
            queue.lock().extend(0..share.len());
        }
    }

    /// How many are so far.
    pub(super) fn count(&self, is_so: impl Fn(&Client) -> bool) -> usize {
        self.clients.iter().filter(|client| is_so(client)).count()
    }

    /// So many lose power, spread over all.
    pub(super) fn kill_off(&self, dead: usize) {
        for number in 0..dead.min(self.clients.len()) {
            self.clients[number * self.clients.len() / dead].die();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl LockQueue {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread.
struct Worker {
    clients: Vec<Arc<Client>>,
    queue: Arc<LockQueue>,
    lock_manager: SocketAddr,
    epoll: OwnedFd,
    flying: Vec<Flying>,
}

/// A lock request that is out.
struct Flying {
    client: usize,
    xid: u32,
    reclaim: bool,
    sent_at: Instant,
}

impl Worker {
    fn new(clients: Vec<Arc<Client>>, queue: Arc<LockQueue>, lock_manager: SocketAddr) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, client) in (0_u64..).zip(&clients) {
            if let Some(endpoints) = &*client.endpoints() {
                let data = epoll::EventData::new_u64;
                epoll::add(&epoll, &endpoints.rpcbind, data(number * 2), epoll::EventFlags::IN)?;
                epoll::add(&epoll, &endpoints.monitor, data(number * 2 + 1), epoll::EventFlags::IN)?;
            }
        }
        Ok(Self { clients, queue, lock_manager, epoll, flying: Vec::new() })
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut events = [const { MaybeUninit::uninit() }; 256];
        while !stop.load(Ordering::SeqCst) {
            // An interruption is only an early look.
            let ready = match epoll::wait(&self.epoll, &mut events, Some(&LOOK_INTERVAL)) {
                Ok((ready, _)) => ready.iter().map(|event| { event.data }.u64()).collect(),
                Err(_) => Vec::new(),
            };
            for data in ready {
                let Ok(client) = usize::try_from(data / 2) else { continue };
                if data % 2 == 0 { self.rpcbind_called(client) } else { self.monitor_called(client) }
            }
            self.ask_for_locks();
        }
    }

    fn rpcbind_called(&self, client: usize) {
        if let Some(endpoints) = &*self.clients[client].endpoints() {
            let registered = [(sm::PROGRAM, sm::VERSION, endpoints.monitor_port)];
            serve(&endpoints.rpcbind, |call, _| answer_rpcbind(call, &registered));
        }
    }

    /// Its status monitor was called, or the lock manager answered: both come to the same socket.
    fn monitor_called(&mut self, number: usize) {
        let client = Arc::clone(&self.clients[number]);
        let Some(endpoints) = &*client.endpoints() else { return };
        serve(&endpoints.monitor, |datagram, from| {
            if let Some(xid) = Reply::xid_of(datagram) {
                self.lock_manager_answered(number, xid, datagram, from);
                return None;
            }
            let (reply, moved) = client.answer_monitor(datagram, from)?;
            if moved {
                self.queue.lock().push_back(number);
            }
            Some(reply)
        });
    }

    fn lock_manager_answered(&mut self, number: usize, xid: u32, datagram: &[u8], from: SocketAddr) {
        let asked = |flying: &Flying| flying.client == number && flying.xid == xid;
        let Some(place) = self.flying.iter().position(asked).filter(|_| from == self.lock_manager) else {
            return;
        };
        let result = Reply::decode(datagram).ok().and_then(|reply| reply.outcome.ok());
        let Some(result) = result.and_then(|bytes| Nlm4Result::decode(bytes).ok()) else { return };
        let again = self.clients[number].lock_answered(self.flying[place].reclaim, result.status);
        // A request that is to be asked again stays, and is repeated after its time.
        if !again {
            self.flying.swap_remove(place);
        }
    }

    fn ask_for_locks(&mut self) {
        while self.flying.len() < FLYING_MAX {
            let Some(client) = self.queue.lock().pop_front() else { break };
            let reclaim = self.clients[client].notes().lock == Lock::Reclaiming;
            let flying = Flying { client, xid: fastrand::u32(..), reclaim, sent_at: Instant::now() };
            self.ask(&flying);
            self.flying.push(flying);
        }
        let clients = &self.clients;
        self.flying.retain(|flying| !clients[flying.client].is_dead());
        for place in 0..self.flying.len() {
            if self.flying[place].sent_at.elapsed() >= REPEAT_AFTER {
                self.flying[place].sent_at = Instant::now();
                self.ask(&self.flying[place]);
            }
        }
    }

    fn ask(&self, flying: &Flying) {
        let client = &self.clients[flying.client];
        let name = client.address.to_string();
        let cookie = flying.xid.to_be_bytes();
        let lock = Lock4 {
            caller_name: &name,
            fh: name.as_bytes(),
            oh: b"heirlock demo",
            svid: 1,
            offset: 0,
            length: 0,
        };
        let args = LockArgs {
            cookie: &cookie,
            block: false,
            exclusive: true,
            lock,
            reclaim: flying.reclaim,
            state: OWN_STATE.0,
        };
        let call = nlm::encode_lock_call(flying.xid, &Credential::None, &args);
        if let Some(endpoints) = &*client.endpoints() {
            // A call that can't be sent now is repeated.
            let _ = endpoints.monitor.send_to(&call, self.lock_manager);
        }
    }
}

#[cfg(test)]
mod tests;
