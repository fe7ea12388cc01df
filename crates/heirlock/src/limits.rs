//! Every bound of the program, in one place; those of the agent are in its crate. Reaching one is reported.

use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) use heirlock_agent::limits::*;
use heirlock_core::limits::RECORDS_MAX;

/// Bytes of the largest file of the store that is read whole: a journal of ten thousand clients' run, outcomes of a
/// hundred thousand.
pub(crate) const STORE_FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a heartbeat, which every server reads at each of its own: what a server says of some ten thousand exports.
pub(crate) const HEARTBEAT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the longest answer of etcd that is read. etcd itself sends none above 4 MB, which is some more as text.
#[cfg(feature = "etcd")]
pub(crate) const ETCD_ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Steps of one transaction, as etcd takes by default (--max-txn-ops).
#[cfg(feature = "etcd")]
pub(crate) const ETCD_TXN_OPS_MAX: usize = 128;

/// Bytes of keys and values that one transaction writes: etcd takes 1.5 MB by default (--max-request-bytes), keys, conditions and
/// all.
#[cfg(feature = "etcd")]
pub(crate) const ETCD_TXN_BYTES_MAX: usize = 1024 * 1024;

/// Portions of a new generation that are on the way at once. Each is a connection, and its buffers of 256 KiB: more than etcd has
/// processors for bring nothing.
#[cfg(feature = "etcd")]
pub(crate) const ETCD_PORTIONS_AT_ONCE: usize = 3;

/// Bytes of one value, which a transaction has to hold: a journal or a heartbeat.
#[cfg(feature = "etcd")]
pub(crate) const ETCD_VALUE_BYTES_MAX: usize = 1000 * 1024;

/// Bytes of a file of certificates or of a key.
#[cfg(feature = "etcd")]
pub(crate) const ETCD_PEM_BYTES_MAX: usize = 1024 * 1024;

/// Endpoints of etcd: a cluster has seven members at most, and each may have an address of both families.
pub(crate) const ETCD_ENDPOINTS_MAX: usize = 16;

/// Letters of the beginning of all keys in etcd.
pub(crate) const ETCD_PREFIX_BYTES_MAX: usize = 128;

/// Bytes of the name of a user of etcd.
pub(crate) const ETCD_USER_BYTES_MAX: usize = 256;

/// How long a connection to an endpoint, or its answer, may take. Shorter than a disk's sync, and none comes in time; longer, and
/// a member that is gone costs more than a server that is taken for dead.
pub(crate) const ETCD_TIME: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);

/// Characters of the error for a file of the store that is not as it should be: text of that file may be in it.
pub(crate) const FOUND_CHARS_MAX: usize = 300;

/// Problems that a status names in words; all are counted, and its JSON names them.
pub(crate) const PROBLEMS_SHOWN_MAX: usize = 100;

/// Problems that the one line for a monitoring system names, and characters of each.
pub(crate) const PROBLEMS_CHECKED_MAX: usize = 5;
pub(crate) const PROBLEM_CHECKED_CHARS_MAX: usize = 300;

/// Bytes of log lines that wait for the reader of the log: more than a start or an adoption of many clients says at a time.
pub(crate) const LOG_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the end of the program waits for log lines, and for its last words, to be written.
pub(crate) const LOG_FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Names in one folder of the store: as many records as there may be, and what kills left behind of as many.
pub(crate) const STORE_FOLDER_NAMES_MAX: usize = 4 * RECORDS_MAX;

/// Folders of the store that one call keeps open: those of twenty services. Any other one is opened each time.
pub(crate) const STORE_FOLDERS_OPEN_MAX: usize = 64;

/// New files that are open at a time, until each of them is synced: a quarter of the descriptors that a process usually may have.
pub(crate) const UNSYNCED_FILES_MAX: usize = 256;

/// Threads that sync new files beside the one that wrote them. More of them gained nothing on any disk that was measured.
pub(crate) const SYNC_THREADS_MAX: usize = 7;

/// How long placing files gives way, in all, to telling clients for the first time: a quarter of the shortest grace period in use.
pub(crate) const PLACING_GIVES_WAY_MAX: Duration = Duration::from_secs(5);

/// Entries of /proc: as many processes as Linux can number (PID_MAX_LIMIT), and what else lies there.
pub(crate) const PROCESSES_MAX: usize = 4 * 1024 * 1024 + 1024;

/// Files in /etc/exports.d.
pub(crate) const EXPORTS_FILES_MAX: usize = 10_000;

/// Bytes of a file `state`: four, or ten of text where illumos wrote it.
pub(crate) const STATE_FILE_BYTES_MAX: usize = 64;

/// Bytes of what the conveyor remembers: each record that may be conveyed, of a few lines with long names.
pub(crate) const CONVEYED_BOOK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Messages that the agent's loop takes in before it looks at what is due.
pub(crate) const MESSAGES_AT_ONCE_MAX: usize = 1024;

/// How often the lock manager is looked at.
pub(crate) const OBSERVE_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked at while nothing rests upon the next look, where its end would be seen at once. No grace period that a
/// kernel knows is shorter (nlm_timeout_min in fs/lockd/svc.c: 3 s), so none is missed that opens without such an end.
pub(crate) const OBSERVE_INTERVAL_AT_REST: Duration = Duration::from_millis(2_500);

/// How long the agent's loop waits for a call of the store; for one that carries a whole generation or many records, how long
/// it waits without any progress. Together with [`BEAT_WAIT_MAX`] that is a second: no more is waited for a store that hangs.
pub(crate) const STORE_WAIT_MAX: Duration = Duration::from_millis(800);

/// How long it waits for its heartbeat.
pub(crate) const BEAT_WAIT_MAX: Duration = Duration::from_millis(200);

/// How late a heartbeat may end for its answer to be of use at the next one.
pub(crate) const BEAT_LATE_MAX: Duration = Duration::from_secs(2);

/// How late a look at the claims may end for its answer to be of use at the next heartbeat: on a slow disk it takes its time for
/// each service.
pub(crate) const LOOK_LATE_MAX: Duration = Duration::from_secs(10);

/// For how long the heart beats on by itself while the loop waits for calls of the store that make progress: as long as a loop
/// may make no turn.
pub(crate) const BEATS_ALONE_MAX: Duration = heirlock_core::limits::LOOP_SILENCE_MAX;

/// How long one grace probe waits for its answer.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_millis(700);

/// The same while clients are told, whose reclaims stand before it in lockd's row. Both questions of a probe together take no longer than
/// all that may be on at once were begun in ([`heirlock_core::limits::GRACE_QUESTIONS_MAX`]).
pub(crate) const PROBE_AMONG_RECLAIMS_TIME_MAX: Duration = Duration::from_secs(2);

/// How long rpcbind may take to answer over UDP before it is asked over TCP as well.
pub(crate) const RPCBIND_TCP_AFTER: Duration = Duration::from_millis(50);

/// Between two grace probes while grace is awaited.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks for an address or an export that is awaited.
pub(crate) const BRING_UP_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks for an address that came too late for an adoption, and that `status` names until it is there.
pub(crate) const LATE_ADDRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How long clients of what a server serves under its own name wait for the first address of a service that is taken over.
pub(crate) const OWN_WAIT_FOR_ADDRESS_MAX: Duration = Duration::from_secs(2);

/// How often 'heirlock store copy' looks at a folder that it has closed, until the hearts in it stand still.
pub(crate) const COPY_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long 'heirlock status' waits for a store that doesn't answer.
pub(crate) const STORE_LOOK_TIME_MAX: Duration = Duration::from_secs(5);

/// How long another server's heart is watched for one beat, to prove that a store is shared.
pub(crate) const BEAT_SEEN_TIME_MAX: Duration = Duration::from_secs(3);

/// How long the clients of one address family may take to answer, when it is asked which of them can be reached.
pub(crate) const REACH_TIME_MAX: Duration = Duration::from_secs(2);

/// How long those that are silent over UDP are asked over TCP, and how long each connection may take.
pub(crate) const REACH_TCP_TIME_MAX: Duration = Duration::from_secs(5);
pub(crate) const REACH_CONNECTION_TIME_MAX: Duration = Duration::from_millis(500);

/// Clients that are asked whether they can be reached.
pub(crate) const REACH_CLIENTS_MAX: usize = 20_000;

/// How long a drill may take to read the store.
pub(crate) const DRILL_STORE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the clients of a service may take to answer a drill. Two hundred thousand that live take seconds; ten thousand that are
/// switched off take 8 s of connections.
pub(crate) const DRILL_ASK_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a drill goes on after the last answer, once every client was tried: those that are heard over TCP alone wait for a
/// connection.
pub(crate) const DRILL_LAST_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How much longer than the limits of its steps a drill may take before it is said to hang.
pub(crate) const DRILL_SLACK: Duration = Duration::from_secs(30);

/// Clients that the report of a drill names; all are counted.
pub(crate) const DRILL_CLIENTS_MAX: usize = 10_000;

/// Bytes of the results that a server keeps of its drills: those of a thousand services.
pub(crate) const DRILLS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often a caller that waits for a drill is told how far it is.
pub(crate) const DRILL_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How long an agent may say nothing before it is asked whether its loop turns, and how often it is asked again.
pub(crate) const SILENCE_LOOK: Duration = Duration::from_secs(5);

/// How long the loop of an agent may make no turn before a caller that asked it something stops waiting: a little longer than the
/// agent's own watchdog gives it.
pub(crate) const BUSY_TIME_MAX: Duration =
    heirlock_core::limits::LOOP_SILENCE_MAX.saturating_add(Duration::from_secs(20));

/// How long systemd may take to say what it knows of a unit.
pub(crate) const SYSTEMCTL_SHOW_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is looked for what a command that takes too long has begun: each look finds what was begun before all that
/// earlier looks found was stopped.
pub(crate) const DESCENDANTS_ROUNDS_MAX: usize = 16;

/// How long a command that was killed may take to end: one that waits for a disk that hangs can't be killed.
pub(crate) const KILLED_TIME_MAX: Duration = Duration::from_secs(2);

/// How long an agent may take to say how it is.
pub(crate) const STATUS_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a program of nfs-utils may take to say what is in force, or which version it is.
pub(crate) const NFS_UTILS_TIME_MAX: Duration = Duration::from_secs(5);

/// The size that is asked for the receive buffer of a notifier's socket; Linux grants twice that to root, and less to others.
pub(crate) const NOTIFY_RECEIVE_BYTES: usize = 8 * 1024 * 1024;

/// The share of one answer in it: network drivers hand on buffers of a whole frame, however little is in them.
pub(crate) const NOTIFY_ANSWER_BYTES: usize = 2304;

/// Answers that the notifier takes out of a socket before it sends again.
pub(crate) const NOTIFY_ANSWERS_AT_ONCE_MAX: usize = 256;

/// File descriptors that a process is to be allowed while it notifies: the connections of several services at a time.
pub(crate) const NOTIFY_DESCRIPTORS: u64 = 16_384;

/// Connections of one notifier where so many descriptors are not allowed.
pub(crate) const NOTIFY_CONNECTIONS_FEW: usize = 64;

/// Names that one notifier looks up at once.
pub(crate) const NOTIFY_LOOKUPS_AT_ONCE_MAX: usize = 16;

/// Names that all notifiers of the program look up at once, those of earlier runs among them, for which a name service that
/// hangs has not answered yet. Beyond that a notifier looks up one at a time.
pub(crate) const NOTIFY_LOOKUPS_MAX: usize = 128;

/// How long after a name was not found a notifier looks it up again: a grace period is short.
pub(crate) const NOTIFY_LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// How long lockd may be kept waiting for an answer to SM_MON: it waits in its only thread. Shorter than the sync of a slow
/// disk, and every new client would come too late.
pub(crate) const MON_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(500);

/// How long rpc.statd may be kept waiting by its callout; lockd's own call to it ends after some seconds.
pub(crate) const CALLOUT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(5);

/// Between two looks at all records: one look at a hundred thousand takes some hundred milliseconds, and what a lost hint was
/// for is unprotected until the next.
pub(crate) const SCAN_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

/// How long a deletion waits: the lock manager must be looked at before it and after. Until it is believed, its client is
/// told of every adoption.
pub(crate) const TOMBSTONE_DELAY: RangeInclusive<Duration> = OBSERVE_INTERVAL..=Duration::from_secs(86_400);

/// The longest grace period of the kernel (nlm_grace_period_max in fs/lockd/svc.c).
const KERNEL_GRACE_MAX: Duration = Duration::from_secs(240);

/// How long an unreachable client is remembered: past the grace period in which it was cut off.
pub(crate) const FORGET_AFTER: RangeInclusive<Duration> =
    KERNEL_GRACE_MAX..=Duration::from_secs(3650 * 86_400);

/// How much of grace is kept free: no finer than it is looked at, and a part of it.
pub(crate) const SETTLE_MARGIN: RangeInclusive<Duration> = PROBE_INTERVAL..=KERNEL_GRACE_MAX;

/// How much time an adoption that is prepared leaves until `--finish` can be said.
pub(crate) const PREPARED_TIME: RangeInclusive<Duration> = PROBE_INTERVAL..=KERNEL_GRACE_MAX;

/// How long the grace period of a lock manager of commands lasts.
pub(crate) const GRACE_PERIOD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Between two heartbeats, which are each written to the store: a silence counts after at least three.
pub(crate) const HEARTBEAT_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(60);

/// After how long a silence a server counts as dead, at most: until then its clients are not served.
pub(crate) const DEAD_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How long a candidate of a service has for itself, at most: where it can't adopt the service, clients wait so long for the next one.
pub(crate) const CANDIDATE_TIME_MAX: Duration = Duration::from_secs(2 * 3600);

/// How long a command of the configuration may take.
pub(crate) const COMMAND_TIME: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// Bytes of the name of a group (useradd(8) takes no more).
pub(crate) const GROUP_NAME_BYTES_MAX: usize = 32;

/// How often metrics are written into a file: as often as Prometheus asks by its default.
pub(crate) const TEXTFILE_INTERVAL: Duration = Duration::from_secs(15);

/// Past adoptions that are told at once, of all services and of each. Their clients are told up to a number: the status page draws
/// them.
pub(crate) const PAST_ADOPTIONS_MAX: usize = 12;

/// See [`PAST_ADOPTIONS_MAX`].
pub(crate) const PAST_ADOPTIONS_OF_SERVICE_MAX: usize = 3;

/// See [`PAST_ADOPTIONS_MAX`].
pub(crate) const PAST_CLIENTS_MAX: usize = 2_000;

/// For how long past adoptions are told as they were read: members of a group may ask for them as often as they like.
pub(crate) const PAST_AGE_MAX: Duration = Duration::from_secs(5);

/// How often 'heirlock status --watch' asks anew.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Characters of the line that 'systemctl status' shows.
pub(crate) const SYSTEMD_STATUS_CHARS_MAX: usize = 400;

/// A cluster's configuration that is read: a cluster of hundreds of resources has some hundred KiB.
pub(crate) const CIB_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Elements, texts and comments in it.
pub(crate) const CIB_NODES_MAX: u32 = 1_000_000;

/// How deep resources may be nested in it: a primitive in a group in a clone is twice.
pub(crate) const CIB_DEPTH_MAX: usize = 4;
