//! The programs behind the service's address: rpcbind, NFS and the lock manager of the server that serves it now. The
//! kernel's part is played, since it needs root; the messages over the network are real.
//!
//! The primary serves until it is lost. Then no server does until the adoptive server's lock manager lives a new life: its
//! address comes up only then. Without heirlock the address comes up at once, and no grace period is open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use heirlock_nsm::MyName;
use heirlock_nsm::nlm::{self, CancelArgs, LockArgs, Nlm4Result, Nlm4Status, Procedure, UnlockArgs};
use heirlock_nsm::rpc::{Call, ReplyError, encode_error, encode_success};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::endpoint::{Registered, answer_rpcbind, bind, serve};
use super::monitor;
use crate::threads;

/// NFS version 3. Only its NULL procedure is played.
const NFS: (u32, u32) = (100_003, 3);

/// How long the thread sleeps at most before it looks whether it is to end.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// One server as its lock manager knows it.
#[derive(Debug)]
pub(super) struct Server {
    name: MyName,
    sm: PathBuf,
    incarnation: PathBuf,
    /// The life that it lived when the demo began: no grace period belongs to it.
    first_life: String,
}

/// The two servers' kernels, as far as the network sees them.
#[derive(Debug)]
pub(super) struct Servers {
    shared: Arc<Shared>,
    nlm_at: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    primary: Server,
    adoptive: Server,
    grace: Duration,
    primary_lost: AtomicBool,
    /// The service's address came up on the adoptive server, whose lock manager was not made to recognise anything.
    address_moved: AtomicBool,
    stop: AtomicBool,
}

impl Server {
    /// A server of this name whose status monitor keeps its records in `sm`.
    pub(super) fn new(name: MyName, sm: PathBuf, incarnation: &Path) -> io::Result<Self> {
        let first_life = fs::read_to_string(incarnation)?;
        Ok(Self { name, sm, incarnation: incarnation.to_owned(), first_life })
    }

    fn was_reborn(&self) -> bool {
        fs::read_to_string(&self.incarnation).is_ok_and(|life| !life.is_empty() && life != self.first_life)
    }

    fn is_in_grace(&self, length: Duration) -> bool {
        let age = fs::metadata(&self.incarnation)
            .and_then(|file| file.modified())
            .map(|born| born.elapsed().unwrap_or_default());
        self.was_reborn() && age.is_ok_and(|age| age < length)
    }
}

impl Servers {
    /// Binds the service's endpoints and serves them until it is dropped.
    ///
    /// # Errors
    /// Where the port is taken, or the address isn't there.
    pub(super) fn start(
        service: Ipv4Addr,
        rpcbind_port: u16,
        grace: Duration,
        [primary, adoptive]: [Server; 2],
    ) -> io::Result<Self> {
        let (rpcbind, programs) = (bind(service, rpcbind_port)?, bind(service, 0)?);
        let nlm_at = programs.local_addr()?;
        let shared = Arc::new(Shared {
            primary,
            adoptive,
            grace,
            primary_lost: AtomicBool::new(false),
            address_moved: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let kernel = Kernel {
            shared: Arc::clone(&shared),
            rpcbind,
            programs,
            port: nlm_at.port(),
            table: Table::default(),
        };
        Ok(Self { shared, nlm_at, thread: Some(threads::start("kernel", move || kernel.run())?) })
    }

    /// Where the lock manager is.
    pub(super) fn nlm_at(&self) -> SocketAddr {
        self.nlm_at
    }

    /// The primary is dead, and its lock manager with it.
    pub(super) fn lose_primary(&self) {
        self.shared.primary_lost.store(true, Ordering::SeqCst);
    }

    /// The adoptive server serves, as it does where nothing but the address moves.
    pub(super) fn move_the_address_alone(&self) {
        self.shared.address_moved.store(true, Ordering::SeqCst);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serving(&self) -> Option<&Server> {
        if !self.primary_lost.load(Ordering::SeqCst) {
            return Some(&self.primary);
        }
        let moved = self.address_moved.load(Ordering::SeqCst);
        Some(&self.adoptive).filter(|server| moved || server.was_reborn())
    }
}

/// The thread that serves.
struct Kernel {
    shared: Arc<Shared>,
    rpcbind: UdpSocket,
    programs: UdpSocket,
    port: u16,
    table: Table,
}

/// The memory of the lock managers, each for itself.
#[derive(Debug, Default)]
struct Table {
    /// Clients that the status monitors were told to watch: one is registered once a life, however often it locks.
    watched: BTreeSet<(MyName, Ipv4Addr)>,
    /// The client that has locked each file, by the file's handle.
    holders: BTreeMap<(MyName, Vec<u8>), Ipv4Addr>,
}

impl Kernel {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::SeqCst) {
            let mut ready =
                [PollFd::new(&self.rpcbind, PollFlags::IN), PollFd::new(&self.programs, PollFlags::IN)];
            // An interruption is only an early look.
            let _ = poll(&mut ready, Some(&LOOK_INTERVAL));
            let registered: [Registered; 2] =
                [(nlm::PROGRAM, nlm::VERSION_4, self.port), (NFS.0, NFS.1, self.port)];
            // An address that is nowhere takes in nothing and answers nothing.
            serve(&self.rpcbind, |call, _| shared.serving().and_then(|_| answer_rpcbind(call, &registered)));
            let table = &mut self.table;
            serve(&self.programs, |call, from| shared.answer(shared.serving()?, call, from, table));
        }
    }
}

impl Shared {
    fn answer(
        &self,
        server: &Server,
        datagram: &[u8],
        from: SocketAddr,
        table: &mut Table,
    ) -> Option<Vec<u8>> {
        let call = Call::decode(datagram).ok()?;
        let refuse = |error| Some(encode_error(call.xid, &error));
        match (call.prog, call.vers) {
            NFS if call.proc_ == 0 => return Some(encode_success(call.xid, &[])),
            (nlm::PROGRAM, nlm::VERSION_4) => {}
            NFS => return refuse(ReplyError::ProcUnavailable),
            _ => return refuse(ReplyError::ProgUnavailable),
        }
        let in_grace = server.is_in_grace(self.grace);
        // lockd checks grace before it looks for the file, and no file has the handle that a probe makes up.
        let unknown_file = if in_grace { Nlm4Status::DeniedGracePeriod } else { Nlm4Status::Failed };
        let (cookie, status) = match Procedure::of(call.proc_) {
            Some(Procedure::Null) => return Some(encode_success(call.xid, &[])),
            Some(Procedure::Unlock) => match UnlockArgs::decode(call.args) {
                Ok(args) => (args.cookie, unknown_file),
                Err(_) => return refuse(ReplyError::GarbageArgs),
            },
            Some(Procedure::Cancel) => match CancelArgs::decode(call.args) {
                Ok(args) => (args.cookie, unknown_file),
                Err(_) => return refuse(ReplyError::GarbageArgs),
            },
            Some(Procedure::Lock) => match LockArgs::decode(call.args) {
                Ok(args) => (args.cookie, table.lock(server, &args, from, in_grace)),
                Err(_) => return refuse(ReplyError::GarbageArgs),
            },
            None => return refuse(ReplyError::ProcUnavailable),
        };
        Some(encode_success(call.xid, &Nlm4Result { cookie, status }.encode()))
    }
}

impl Table {
    /// A lock request: in grace only reclaims are granted, outside of it only new ones, and those only while no other client
    /// has the file. The record is there before the lock is granted.
    fn lock(&mut self, server: &Server, args: &LockArgs<'_>, from: SocketAddr, in_grace: bool) -> Nlm4Status {
        let IpAddr::V4(client) = from.ip() else { return Nlm4Status::Failed };
        if args.reclaim != in_grace {
            return Nlm4Status::DeniedGracePeriod;
        }
        let file = (server.name.clone(), args.lock.fh.to_vec());
        if self.holders.get(&file).is_some_and(|holder| *holder != client) {
            return Nlm4Status::Denied;
        }
        let key = (server.name.clone(), client);
        if !self.watched.contains(&key) {
            if monitor::register(&server.sm, client, &server.name).is_err() {
                return Nlm4Status::DeniedNoLocks;
            }
            self.watched.insert(key);
        }
        self.holders.insert(file, client);
        Nlm4Status::Granted
    }
}

#[cfg(test)]
mod tests {
    use heirlock_core::grace::Probe;
    use heirlock_nsm::nlm::{Lock4, encode_lock_call};
    use heirlock_nsm::rpc::Credential;
    use heirlock_nsm::rpcbind::Transport;

    use super::*;
    use crate::{probe, rpc_client};

    const LIMIT: Duration = Duration::from_secs(2);

    struct Place {
        directory: tempfile::TempDir,
        servers: Servers,
        service: Ipv4Addr,
        port: u16,
    }

    fn place(grace: Duration) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let server = |name: &str| {
            let sm = directory.path().join(name);
            fs::create_dir(&sm).unwrap();
            let life = directory.path().join(format!("{name}.life"));
            fs::write(&life, "first").unwrap();
            Server::new(MyName::parse(name).unwrap(), sm, &life).unwrap()
        };
        let service = Ipv4Addr::new(127, 200, 1, 10);
        let port = bind(service, 0).unwrap().local_addr().unwrap().port();
        let both = [server("nfs-a"), server("nfs-b")];
        let servers = Servers::start(service, port, grace, both).unwrap();
        Place { directory, servers, service, port }
    }

    impl Place {
        fn probe(&self) -> Probe {
            probe::grace(self.service.into(), self.port, LIMIT).0
        }

        fn reborn(&self) {
            fs::write(self.directory.path().join("nfs-b.life"), "second").unwrap();
        }

        fn lock(&self, reclaim: bool) -> Nlm4Status {
            let lock = Lock4 { caller_name: "c", fh: b"f", oh: b"o", svid: 1, offset: 0, length: 0 };
            let args = LockArgs { cookie: b"1", block: false, exclusive: true, lock, reclaim, state: 1 };
            let call = encode_lock_call(7, &Credential::None, &args);
            let answer = rpc_client::call(self.servers.nlm_at(), Transport::Udp, &call, LIMIT).unwrap();
            Nlm4Result::decode(&answer).unwrap().status
        }

        fn records(&self, server: &str) -> usize {
            fs::read_dir(self.directory.path().join(server)).unwrap().count()
        }
    }

    #[test]
    fn the_agents_probe_sees_grace_open_with_a_new_life_and_end_by_itself() {
        let place = place(Duration::from_millis(400));
        assert_eq!(place.probe(), Probe::NotInGrace);
        probe::registered(place.service.into(), place.port, LIMIT).unwrap();
        place.servers.lose_primary();
        place.reborn();
        assert_eq!(place.probe(), Probe::InGrace);
        let until = std::time::Instant::now() + LIMIT;
        while place.probe() == Probe::InGrace {
            assert!(std::time::Instant::now() < until, "grace doesn't end");
        }
        assert_eq!(place.probe(), Probe::NotInGrace);
    }

    #[test]
    fn between_the_loss_and_the_new_life_no_server_answers() {
        let place = place(LIMIT);
        place.servers.lose_primary();
        let short = Duration::from_millis(300);
        assert_eq!(probe::grace(place.service.into(), place.port, short).0, Probe::NoAnswer);
        assert!(probe::registered(place.service.into(), place.port, short).is_err());
    }

    #[test]
    fn a_lock_leaves_its_record_with_the_server_that_granted_it_and_grace_is_for_reclaims() {
        let place = place(Duration::from_secs(60));
        assert_eq!(place.lock(true), Nlm4Status::DeniedGracePeriod, "nothing to reclaim outside of grace");
        assert_eq!(place.records("nfs-a"), 0);
        assert_eq!(place.lock(false), Nlm4Status::Granted);
        assert_eq!((place.records("nfs-a"), place.records("nfs-b")), (1, 0));
        place.servers.lose_primary();
        place.reborn();
        assert_eq!(place.lock(false), Nlm4Status::DeniedGracePeriod, "no lock is stolen in grace");
        assert_eq!(place.lock(true), Nlm4Status::Granted);
        assert_eq!((place.records("nfs-a"), place.records("nfs-b")), (1, 1));
    }

    #[test]
    fn another_client_gets_a_held_lock_only_from_a_server_that_knows_nothing_of_it() {
        let place = place(Duration::from_secs(60));
        let rival = super::super::rival::Rival::new(place.servers.nlm_at(), b"f").unwrap();
        assert_eq!(place.lock(false), Nlm4Status::Granted);
        assert_eq!(rival.ask(), Some(Nlm4Status::Denied));
        assert_eq!(place.records("nfs-a"), 1, "it was refused");
        place.servers.lose_primary();
        place.servers.move_the_address_alone();
        assert_eq!(rival.ask(), Some(Nlm4Status::Granted), "two programs have it now");
    }
}
