//! Every bound of the lab. Nothing here waits without one of these.

use std::time::Duration;

/// Memory of one guest's kernel, in MiB. rpcbind, rpc.statd and nfsd need about 80.
pub const GUEST_MEMORY_MIB: u32 = 256;

/// The same of a node of Pacemaker, in MiB. corosync locks 170 of them; with Pacemaker, nfsd and heirlock about 230 are in use.
pub const NODE_MEMORY_MIB: u32 = 384;

/// Size of one shared disk image, in MiB. The file is sparse.
pub const DISK_MIB: u64 = 64;

/// Grace period of lockd and of nfsd on every server, in seconds. Long enough to notify in, short enough to
/// wait for. lockd rounds it up to a multiple of nlm_timeout, 10 s (fs/lockd/svc.c,
/// `get_lockd_grace_period`): it lasts 20 s.
pub const GRACE_SECONDS: u64 = 15;

/// The same where Pacemaker brings the address, or a client is cut off for a while: the kernel's own. In a guest the resource agent
/// of the address takes 3 s, and 20 s and more where this machine does much else.
pub const NODE_GRACE_SECONDS: u64 = 90;

/// How long corosync waits for a node that is silent, where this machine does little else. Guests that wait for a busy machine
/// are silent for seconds, and a node that is taken for dead is fenced.
pub const TOKEN_TIME: Duration = Duration::from_millis(2500);

/// The same at most.
pub const TOKEN_TIME_MAX: Duration = Duration::from_secs(15);

/// How long Pacemaker may take to bring a group of resources to a node: a dozen actions, each of some dozen processes.
pub const GROUP_TIME_MAX: Duration = Duration::from_secs(300);

/// How long a guest may take until its agent answers.
pub const BOOT_TIME_MAX: Duration = Duration::from_secs(300);

/// How long a command in a guest may take unless the scenario says otherwise.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(180);

/// How long the lab waits for an answer beyond the time limit that the guest itself enforces.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(30);

/// How long a connection to a guest's agent may take.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a lock request may take. In grace a client's request waits for the end of it.
pub const LOCK_TIME_MAX: Duration = Duration::from_secs(60);

/// How long until every process of a killed guest must be gone.
pub const KILL_TIME_MAX: Duration = Duration::from_secs(60);

/// How long one scenario may take as a whole.
pub const SCENARIO_TIME_MAX: Duration = Duration::from_secs(900);

/// How long to wait for each remaining fact (locks, records, the kernel's log) of a failed scenario.
pub const POST_MORTEM_TIME_MAX: Duration = Duration::from_secs(5);

/// How long an adoption may take: to the end of a grace period, with all phases before it.
pub const ADOPTION_TIME_MAX: Duration = Duration::from_secs(90);

/// How long a server may take until it holds another one's heart for silent and has that one fenced. A beat of its own that is late on
/// a busy machine has it watch the others anew, for twice `dead-after`.
pub const SILENCE_TIME_MAX: Duration = Duration::from_secs(400);

/// Between two looks at something that is waited for.
pub const POLL: Duration = Duration::from_millis(100);

/// Bytes of output of one command that are kept.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Bytes of one request to a guest's agent.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Lines of a guest's console that a failure prints.
pub const CONSOLE_TAIL_LINES: usize = 30;
