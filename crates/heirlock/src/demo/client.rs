//! One client, and its reactions to notifications: as Linux does (nfs-utils utils/statd/monitor.c and callback.c, the
//! kernel's fs/lockd/clntlock.c).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use heirlock_nsm::StateNumber;
use heirlock_nsm::nlm::Nlm4Status;
use heirlock_nsm::rpc::{Call, ReplyError, encode_error, encode_success};
use heirlock_nsm::sm::{self, Procedure, StatResult};

/// Notifications that one client remembers.
const REMEMBERED_MAX: usize = 64;

/// The client's own number; it never restarts.
pub(super) const OWN_STATE: StateNumber = StateNumber(1);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: Ipv4Addr,
    /// The name or the address by which it mounts the service.
    pub(super) mounted_by: String,
    service: Ipv4Addr,
    /// Gone where the client is dead.
    endpoints: Mutex<Option<Endpoints>>,
    notes: Mutex<Notes>,
}

/// Its sockets: those of rpcbind and of the status monitor.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) rpcbind: UdpSocket,
    pub(super) monitor: UdpSocket,
    pub(super) monitor_port: u16,
}

/// The client's observations.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    pub(super) notifications: Vec<Notification>,
    /// How often it was moved to reclaim.
    pub(super) reactions: usize,
    pub(super) lock: Lock,
    last_seen: StateNumber,
}

/// A notification that reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notification {
    /// The name that was announced.
    pub(super) name: String,
    /// The number.
    pub(super) state: StateNumber,
    /// Where it came from.
    pub(super) from: SocketAddr,
    /// When.
    pub(super) at: Instant,
}

/// Its one lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Not taken yet.
    None,
    /// Granted by the primary.
    Held,
    /// It was told, and asks for it again.
    Reclaiming,
    /// Granted again.
    HeldAgain(Instant),
    /// Refused: it is lost.
    Lost(Nlm4Status),
}

impl Client {
    pub(super) fn new(
        address: Ipv4Addr,
        mounted_by: String,
        service: Ipv4Addr,
        last_seen: StateNumber,
        endpoints: Endpoints,
    ) -> Self {
        let notes = Notes { notifications: Vec::new(), reactions: 0, lock: Lock::None, last_seen };
        Self {
            address,
            mounted_by,
            service,
            endpoints: Mutex::new(Some(endpoints)),
            notes: Mutex::new(notes),
        }
    }

    /// Its endpoints, while it lives.
    pub(super) fn endpoints(&self) -> MutexGuard<'_, Option<Endpoints>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It loses power: messages to it are lost.
    pub(super) fn die(&self) {
        self.endpoints().take();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.endpoints().is_none()
    }

    /// Its status monitor's answer. Beside it, whether it is moved to reclaim.
    pub(super) fn answer_monitor(&self, datagram: &[u8], from: SocketAddr) -> Option<(Vec<u8>, bool)> {
        let call = Call::decode(datagram).ok()?;
        let refused = |error| Some((encode_error(call.xid, &error), false));
        if call.prog != sm::PROGRAM {
            return refused(ReplyError::ProgUnavailable);
        }
        if call.vers != sm::VERSION {
            return refused(ReplyError::ProgMismatch { low: sm::VERSION, high: sm::VERSION });
        }
        match Procedure::of(call.proc_) {
            Some(Procedure::Null) => Some((encode_success(call.xid, &[]), false)),
            Some(Procedure::Stat) => {
                let result = StatResult { ok: true, state: OWN_STATE };
                Some((encode_success(call.xid, &result.encode()), false))
            }
            Some(Procedure::Notify) => match sm::Notify::decode(call.args) {
                // Acknowledged whether or not the sender is known: the answer has no room for more.
                Ok(notify) => Some((encode_success(call.xid, &[]), self.notified(&notify, from))),
                Err(_) => refused(ReplyError::GarbageArgs),
            },
            // Only lockd may ask for the rest, and it asks over a socket of its own.
            _ => refused(ReplyError::ProcUnavailable),
        }
    }

    /// Takes in a notification. It moves where it comes from the server that was mounted, by name or by address, under a
    /// number that was not seen before.
    fn notified(&self, notify: &sm::Notify<'_>, from: SocketAddr) -> bool {
        let mut notes = self.notes();
        if notes.notifications.len() < REMEMBERED_MAX {
            notes.notifications.push(Notification {
                name: notify.mon_name.to_owned(),
                state: notify.state,
                from,
                at: Instant::now(),
            });
        }
        let is_the_server = notify.mon_name == self.mounted_by || from.ip() == self.service;
        if !is_the_server || notify.state == notes.last_seen {
            return false;
        }
        notes.last_seen = notify.state;
        notes.reactions += 1;
        if notes.lock == Lock::Held {
            notes.lock = Lock::Reclaiming;
        }
        notes.lock == Lock::Reclaiming
    }

    /// Takes in the lock manager's answer to its request; `true` where it is to be asked again.
    pub(super) fn lock_answered(&self, reclaim: bool, status: Nlm4Status) -> bool {
        let mut notes = self.notes();
        match (reclaim, status) {
            (false, Nlm4Status::Granted) if notes.lock == Lock::None => notes.lock = Lock::Held,
            (true, Nlm4Status::Granted) if notes.lock == Lock::Reclaiming => {
                notes.lock = Lock::HeldAgain(Instant::now());
            }
            // A new lock waits for the end of grace; a reclaim that is refused is never tried again.
            (false, Nlm4Status::DeniedGracePeriod) => return true,
            (_, status) if status != Nlm4Status::Granted => notes.lock = Lock::Lost(status),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::bind;
    use super::*;

    const SERVICE: Ipv4Addr = Ipv4Addr::new(127, 200, 2, 10);

    fn client() -> Client {
        let address = Ipv4Addr::new(127, 201, 2, 1);
        let (rpcbind, monitor) = (bind(address, 0).unwrap(), bind(address, 0).unwrap());
        let endpoints = Endpoints { rpcbind, monitor_port: monitor.local_addr().unwrap().port(), monitor };
        let client = Client::new(address, "homes.demo.test".into(), SERVICE, StateNumber(17), endpoints);
        client.lock_answered(false, Nlm4Status::Granted);
        client
    }

    fn told(client: &Client, name: &str, state: u32, from: Ipv4Addr) -> bool {
        let call = sm::encode_notify_call(9, name, StateNumber(state));
        let (answer, moved) = client.answer_monitor(&call, SocketAddr::new(from.into(), 900)).unwrap();
        assert_eq!(heirlock_nsm::rpc::Reply::decode(&answer).unwrap().outcome, Ok(&[][..]), "acknowledged");
        moved
    }

    #[test]
    fn a_client_moves_once_for_a_new_number_of_the_server_it_mounts() {
        let client = client();
        let unknown = Ipv4Addr::new(127, 200, 2, 99);
        assert!(!told(&client, "homes", 19, unknown), "neither name nor address is known");
        assert!(!told(&client, "homes", 17, SERVICE), "the number was seen before");
        assert!(told(&client, "homes", 19, SERVICE), "by its source address");
        assert!(!told(&client, "homes.demo.test", 19, SERVICE), "the same number again");
        let notes = client.notes().clone();
        assert_eq!((notes.reactions, notes.notifications.len()), (1, 4));
        let by_name = self::client();
        assert!(told(&by_name, "homes.demo.test", 19, unknown), "by its name");
    }

    #[test]
    fn a_reclaim_that_is_refused_loses_the_lock_for_good() {
        let client = client();
        assert!(told(&client, "homes", 19, SERVICE));
        assert!(!client.lock_answered(true, Nlm4Status::DeniedGracePeriod));
        assert_eq!(client.notes().lock, Lock::Lost(Nlm4Status::DeniedGracePeriod));
        assert!(!told(&client, "homes", 21, SERVICE), "at the next failover it reclaims nothing");
    }

    #[test]
    fn a_message_that_is_no_call_gets_no_answer_and_an_unserved_call_is_refused() {
        let client = client();
        let from = SocketAddr::new(SERVICE.into(), 900);
        assert_eq!(client.answer_monitor(b"garbage", from), None);
        let none = heirlock_nsm::rpc::Credential::None;
        for (prog, proc_, error) in
            [(sm::PROGRAM, 2, ReplyError::ProcUnavailable), (100_005, 0, ReplyError::ProgUnavailable)]
        {
            let call = heirlock_nsm::rpc::encode_call(1, prog, 1, proc_, &none, &[]);
            assert_eq!(client.answer_monitor(&call, from), Some((encode_error(1, &error), false)));
        }
    }
}
