//! A program on another machine that wants a lock which a client holds. It asks again and again: as long as it is refused,
//! only the client writes to the file.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::threads;
use heirlock_nsm::StateNumber;
use heirlock_nsm::nlm::{self, Lock4, LockArgs, Nlm4Result, Nlm4Status};
use heirlock_nsm::rpc::{Credential, Reply};
use serde::Serialize;

/// Where it asks from. It is none of the clients, whose addresses begin with 127.201.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 202, 0, 1);

/// How long it waits for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(200);

/// How long it waits before it asks again.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// The answers to its requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Answers {
    /// How often it was refused.
    pub(crate) refused: usize,
    /// How often it got the lock.
    pub(crate) granted: usize,
}

/// The program.
#[derive(Debug)]
pub(super) struct Rival {
    socket: UdpSocket,
    lock_manager: SocketAddr,
    /// The file whose lock it wants, by its handle.
    file: Vec<u8>,
}

/// The program while it asks, in a thread of its own.
#[derive(Debug)]
pub(super) struct Asking {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Answers>>,
}

impl Rival {
    /// A program that wants to lock this file.
    ///
    /// # Errors
    /// Where its address can't be had.
    pub(super) fn new(lock_manager: SocketAddr, file: &[u8]) -> io::Result<Self> {
        let socket = UdpSocket::bind((ADDRESS, 0))?;
        socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(Self { socket, lock_manager, file: file.to_vec() })
    }

    /// Asks once. `None` where no answer comes in time.
    pub(super) fn ask(&self) -> Option<Nlm4Status> {
        let xid = fastrand::u32(..);
        let name = ADDRESS.to_string();
        let lock = Lock4 {
            caller_name: &name,
            fh: &self.file,
            oh: b"heirlock demo rival",
            svid: 2,
            offset: 0,
            length: 0,
        };
        let args = LockArgs {
            cookie: &xid.to_be_bytes(),
            block: false,
            exclusive: true,
            lock,
            reclaim: false,
            state: StateNumber(1).0,
        };
        let call = nlm::encode_lock_call(xid, &Credential::None, &args);
        self.socket.send_to(&call, self.lock_manager).ok()?;
        let (mut answer, end) = ([0; 1024], Instant::now() + ANSWER_TIME_MAX);
        while Instant::now() < end {
            let (count, from) = self.socket.recv_from(&mut answer).ok()?;
            // An answer to an earlier question is late, and says nothing of now.
            let reply = Reply::decode(&answer[..count]).ok().filter(|reply| reply.xid == xid);
            if from == self.lock_manager
                && let Some(result) = reply.and_then(|reply| reply.outcome.ok())
            {
                return Nlm4Result::decode(result).ok().map(|result| result.status);
            }
        }
        None
    }

    /// Asks until it is stopped.
    pub(super) fn keep_asking(self) -> io::Result<Asking> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = threads::start("rival", move || {
            let mut answers = Answers::default();
            while !stopped.load(Ordering::SeqCst) {
                match self.ask() {
                    Some(Nlm4Status::Granted) => answers.granted += 1,
                    Some(_) => answers.refused += 1,
                    None => {}
                }
                thread::sleep(ASK_INTERVAL);
            }
            answers
        })?;
        Ok(Asking { stop, thread: Some(thread) })
    }
}

impl Asking {
    /// Stops it, and says what came of it.
    pub(super) fn stop(mut self) -> Answers {
        self.end()
    }

    fn end(&mut self) -> Answers {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.end();
    }
}
