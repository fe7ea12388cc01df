//! Everything that happens in a world, each at its time.

use std::net::SocketAddr;
use std::sync::Arc;

use heirlock_agent::{Basis, Message, RunNumber, RunWork, Work};
use heirlock_core::grace::Grace;
use heirlock_core::ledger::Addresses;
use heirlock_core::monitor::Ticket;
use heirlock_core::takeover::Part;
use heirlock_core::{Moment, ServiceName};
use heirlock_nsm::{MonName, StateNumber};

use crate::Ms;
use crate::announcing::Announcement;
use crate::client::Verdict;
use crate::cluster::Asked;
use crate::lock_manager::{FileAt, Life, LockManagerAt};
use crate::losses::Disturbance;
use crate::schedule::Incident;
use crate::work::Recognising;

/// A happening.
pub(crate) enum Happening {
    Second,
    Incident(Incident),
    /// A disturbance lasted until now.
    Disturbed(Disturbance),
    /// A late call is carried out.
    Lands(usize),
    Resume {
        server: usize,
        agent: u64,
    },
    Boot(usize),
    StartAgent {
        server: usize,
        boot: u32,
    },
    Look {
        server: usize,
        agent: u64,
    },
    /// What such a look showed comes to the agent.
    Observed {
        server: usize,
        agent: u64,
        seen: Vec<Message>,
    },
    /// A look at the status monitor's directory, which was begun before. It hangs for so long with what it has read.
    LookAtDirectory {
        of: LockManagerAt,
        agent: u64,
        basis: Box<Basis>,
        addresses: Arc<Addresses>,
        hangs: Ms,
    },
    /// Something has changed in that directory.
    Hint {
        of: LockManagerAt,
        agent: u64,
    },
    ToAgent {
        server: usize,
        agent: u64,
        message: Box<Message>,
    },
    /// A request comes to an agent.
    Asks {
        server: usize,
        agent: u64,
        asked: Asked,
    },
    StoreAnswers {
        server: usize,
        agent: u64,
    },
    Wake {
        server: usize,
        agent: u64,
    },
    Tell {
        of: LockManagerAt,
        agent: u64,
        number: u64,
    },
    StopNfs(LockManagerAt),
    StartNfs(LockManagerAt),
    KillLockd(LockManagerAt),
    WakeLockd(LockManagerAt),
    Recognised {
        of: LockManagerAt,
        agent: u64,
        run: RunNumber,
        work: Recognising,
    },
    /// The conveyor of an agent goes on.
    Convey {
        of: LockManagerAt,
        agent: u64,
    },
    Prove {
        of: LockManagerAt,
        agent: u64,
        run: RunNumber,
        grace: Grace,
        until: Ms,
    },
    BringUp {
        of: LockManagerAt,
        agent: u64,
        run: RunNumber,
        services: Vec<(ServiceName, Part)>,
        last_call: Moment,
    },
    /// Addresses of a run are waited for, while clients are told from others.
    AwaitAddresses {
        of: LockManagerAt,
        agent: u64,
        run: RunNumber,
        services: Vec<ServiceName>,
        last_call: Moment,
    },
    Recorded {
        life: Life,
        client: usize,
    },
    /// rpc.statd runs its callout, which ends by itself where no agent answers.
    CallsOut {
        of: LockManagerAt,
        number: u64,
    },
    CalloutAnswered {
        of: LockManagerAt,
        number: u64,
        is_durable: bool,
    },
    CalloutEnds {
        of: LockManagerAt,
        number: u64,
    },
    /// Our own status monitor reads its sockets.
    MonitorReads {
        of: LockManagerAt,
        agent: u64,
    },
    MonitorTicks {
        of: LockManagerAt,
        agent: u64,
    },
    /// Its directory was read, beside the agent's loop.
    DirectoryRead {
        of: LockManagerAt,
        agent: u64,
    },
    /// Its directory is synced.
    DirectorySynced {
        of: LockManagerAt,
        agent: u64,
    },
    /// An operator ends the maintenance of a server.
    EndMaintenance(usize),
    /// Work of a run that hung goes on.
    GoesOnFor {
        of: LockManagerAt,
        agent: u64,
        run: RunNumber,
        work: Box<RunWork>,
    },
    /// Other work that hung goes on.
    GoesOn {
        of: LockManagerAt,
        agent: u64,
        work: Box<Work>,
    },
    /// The lock manager registers the filer that its server mounts from.
    RegisterPeer {
        life: Life,
    },
    /// The status monitor answers the lock manager.
    Registered {
        life: Life,
        client: usize,
        granted: bool,
        acknowledged: bool,
    },
    Expire {
        life: Life,
        client: usize,
    },
    ToClient {
        client: usize,
        service: usize,
        life: Life,
        port: u16,
        payload: Vec<u8>,
    },
    ToServer {
        service: usize,
        from: SocketAddr,
        payload: Vec<u8>,
    },
    /// A client's new boot announces itself at the address of a service, once more.
    Announces {
        client: usize,
        service: usize,
        boot: u32,
        tries: u32,
    },
    /// An announcement comes to a service's address.
    Announced(Box<Announcement>),
    /// Its answer comes to the client.
    Acknowledged {
        client: usize,
        service: usize,
        boot: u32,
    },
    /// Our own status monitor has looked the name up that was announced.
    AnnouncedLookedUp {
        of: LockManagerAt,
        agent: u64,
        ticket: Ticket,
        name: String,
        state: StateNumber,
    },
    /// Our own status monitor tells the lock manager that a client was restarted, and waits for its answer until then.
    Downcall {
        of: LockManagerAt,
        agent: u64,
        client: MonName,
        state: StateNumber,
        until: Ms,
    },
    /// rpc.statd does.
    StatdCalls {
        of: LockManagerAt,
        boot: u32,
        client: usize,
        state: StateNumber,
        tries: u32,
    },
    Act(usize),
    Call {
        client: usize,
        file: FileAt,
        number: u64,
    },
    /// A call that the lock manager has let wait.
    Arrives {
        client: usize,
        file: FileAt,
        number: u64,
    },
    Answer {
        client: usize,
        file: FileAt,
        number: u64,
        verdict: Verdict,
        life: Life,
    },
}
