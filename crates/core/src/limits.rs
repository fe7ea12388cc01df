//! Every bound of the decisions, in one place. Reaching one is reported, never silent.

use std::time::Duration;

/// Bytes of a server's name: HOST_NAME_MAX of Linux, for a server is called by its node name unless told otherwise.
pub const SERVER_NAME_BYTES_MAX: usize = 64;

/// Bytes of a lock manager's name, which is that of a folder.
pub const LOCK_MANAGER_NAME_BYTES_MAX: usize = 64;

/// The beginning of the name of every server's implicit service; the server's name follows.
pub const HOST_PREFIX: &str = "host.";

/// Bytes of a service's name: that of the server with the longest name has its implicit service.
pub const SERVICE_NAME_BYTES_MAX: usize = HOST_PREFIX.len() + SERVER_NAME_BYTES_MAX;

/// Bytes of one component of a path: NAME_MAX of Linux.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Clients that one lock manager serves without making any wait for what another does.
pub const CLIENTS_SERVED: usize = 200_000;

/// Records of one service: of as many clients, and of as many more that left and are not forgotten yet. A directory with more
/// files is damaged or hostile.
pub const RECORDS_MAX: usize = 2 * CLIENTS_SERVED;

/// Services that one server serves.
pub const SERVICES_MAX: usize = 256;

/// Bytes of one client's record: all the lines of all its files.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// For how many times as long as a watch of the other servers takes none has come to its end, before that is named.
pub const UNWATCHED_AFTER: u32 = 3;

/// How often it was interrupted by then: an outage, and a machine that stands still, is one interruption.
pub const INTERRUPTIONS_MIN: u32 = 3;

/// Addresses of one client that are tried in turn.
pub const CLIENT_ADDRESSES_MAX: usize = 8;

/// Names of one service that are announced to each client.
pub const ANNOUNCED_NAMES_MAX: usize = 8;

/// Calls of the notifier within [`NOTIFY_BURST`] that may be unanswered, whatever the socket holds: at worst their
/// answers all come at once.
pub const NOTIFY_IN_FLIGHT_MAX: usize = 8192;

/// As many may be unanswered before the first answer came; each answer makes room for one more.
pub const NOTIFY_IN_FLIGHT_AT_FIRST: usize = 1024;

/// Between two repeated calls: with a hundred thousand dead clients, the datagrams that are sent in vain stay below what a
/// network notices.
pub const NOTIFY_REPEAT_SPACING: Duration = Duration::from_micros(200);

/// Connections of one notifier: to those clients that are heard over TCP alone. Each costs a file descriptor. With
/// [`NOTIFY_CONNECTION_MS_MIN`] ten thousand clients that are switched off take 8 s of a grace period.
pub const NOTIFY_CONNECTIONS_MAX: usize = 512;

/// How long one connection may take, answer included.
pub const NOTIFY_CONNECTION_TIME_MAX: Duration = Duration::from_secs(2);

/// How long the first connection to a client's rpcbind may take, where it is silent over UDP; each further one twice as
/// long.
pub const NOTIFY_CONNECTION_MS_MIN: u64 = 400;

/// Ways to one client: from each of the service's addresses to each of its own.
pub const NOTIFY_ROUTES_MAX: usize = 32;

/// An answer that comes later than this no longer belongs to one burst with the datagrams that are sent now.
pub const NOTIFY_BURST: Duration = Duration::from_millis(50);

/// Entries of folders that one run names as not what they should be: they lie in each of its journals.
pub const TROUBLES_MAX: usize = 256;

/// The text that stands in the place of those beyond it.
pub const TROUBLES_MAX_TOLD: &str =
    "there are more entries like these, which are not named; mend these and look again";

/// How much longer it may take to place one more record into the status monitor's directory: several times the time that a
/// busy disk took.
pub const PLACED_TIME_EACH: Duration = Duration::from_millis(2);

/// The first wait for an answer of a client before its call is repeated.
pub const NOTIFY_RETRY_MS_MIN: u64 = 400;

/// The longest wait between two repetitions: grace is short, and a client that comes back in its last third
/// should still be reached.
pub const NOTIFY_RETRY_MS_MAX: u64 = 3_000;

/// Between two announcements of an address from which a client was called that is silent. One is repeated by the kernel for as
/// long (three requests, a second apart: `mcast_solicit` and `retrans_time_ms` of its neighbour table).
pub const NOTIFY_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(3);

/// Calls that came to nothing after which a client has had its first round of tries; one to whom there are more routes than
/// this has had as many calls as routes.
pub const NOTIFY_ROUND_CALLS: u32 = 3;

/// How long a client without a route, whose name is being looked up or whose family's address isn't ready, is waited for by
/// the caller that waits for all to be tried.
pub const NOTIFY_ROUTE_TIME_MAX: Duration = Duration::from_secs(3);

/// How old the last proof of an open grace period may be when a batch of notifications leaves.
pub const GRACE_PROOF_AGE_MAX: Duration = Duration::from_millis(1_000);

/// Between the beginnings of two questions for such a proof: half as long as it is believed.
pub const GRACE_QUESTION_INTERVAL: Duration = Duration::from_millis(500);

/// So many questions of one notification may be without an answer at once. Answers that come within so many intervals leave no gap, and
/// a lock manager that answers none has no more to do than this.
pub const GRACE_QUESTIONS_MAX: usize = 8;

/// How long an adoption that may restart the lock manager waits for others that were asked for and whose needs are still being
/// looked for, so that one restart serves all: longer than that takes on a server that is well. Its clients wait that long.
pub const JOINING_TIME_MAX: Duration = Duration::from_secs(5);

/// How long after a run was refused one that was interrupted is not begun anew: it would be refused again.
pub const REDO_INTERVAL: Duration = Duration::from_secs(2);

/// For how long after a look the life that it showed is taken to go on, where a deletion depends on it. Much less than the
/// shortest tombstone delay that makes sense, and more than the longest pause between two looks of an agent that is well.
pub const LOOK_AGE_MAX: Duration = Duration::from_secs(10);

/// How long after grace the end of an adoption waits for a look at the lock manager.
pub const LAST_LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is noted for the agent's next start that grace is closed: that much of a grace period which opens while no agent
/// runs may count as over.
pub const GRACE_NOTED_INTERVAL: Duration = Duration::from_secs(2);

/// How long after grace work that ends with grace may take to report: its thread has to be scheduled, and its message to be read.
pub const LATE_REPORT_TIME_MAX: Duration = Duration::from_secs(5);

/// The shortest `dead-after`: three beats of a heart that beats each second.
pub const DEAD_AFTER_MIN: Duration = Duration::from_secs(3);

/// The servers that one service names as its candidates: more than share one store in practice.
pub const CANDIDATES_MAX: usize = 32;

/// Registrations of one client: one for each name of the server, program version and procedure. One or two are normal.
pub const MON_LINES_MAX: usize = 16;

/// SM_MONs that wait for the store at the same time. lockd asks one at a time, Ganesha some dozens.
pub const MON_WAITING_MAX: usize = 4096;

/// SM_MONs that share a commit.
pub const MON_COMMIT_MAX: usize = 512;

/// How long a commit waits for the clients that shared the last one and are about to ask again: a fraction of the two syncs
/// that they would else wait for one after the other.
pub const MON_GATHER_TIME: Duration = Duration::from_millis(1);

/// How long a request waits, after the status monitor was started anew, until the agent has said which clients are durable: the time
/// in which it reads a store that answers.
pub const MON_CONFIRMED_TIME_MAX: Duration = Duration::from_millis(500);

/// Between two looks whether a store that failed works again.
pub const MON_PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// Clients whose lock manager is to be told of a restart, one call each. A SM_NOTIFY that finds no room is not answered, so
/// its sender repeats it.
pub const DOWNCALLS_OWED_MAX: usize = 16_384;

/// Calls that are handed to the thread that makes them: the lock manager takes one at a time in any case.
pub const DOWNCALLS_AT_ONCE_MAX: usize = 16;

/// Between two calls for one client, however often it says that it was restarted.
pub const DOWNCALL_SPACING: Duration = Duration::from_secs(1);

/// How often a call is tried in quick succession, as rpc.statd does (utils/statd/statd.h).
pub const DOWNCALL_TRIES: u32 = 5;

/// Between two tries in quick succession.
pub const DOWNCALL_RETRY: Duration = Duration::from_secs(5);

/// Between two tries after them: a lock manager that is there and takes no call keeps locks that no client holds.
pub const DOWNCALL_RETRY_LATER: Duration = Duration::from_secs(60);

/// Names that are looked up at the same time because a notification announced them.
pub const LOOK_UPS_AT_ONCE_MAX: usize = 4;

/// Between two such look-ups: no host on the network can make this server ask its name server more often.
pub const LOOK_UP_SPACING: Duration = Duration::from_millis(50);

/// Addresses of one name that are looked at.
pub const LOOK_UP_ADDRESSES_MAX: usize = 16;

/// How long log lines are counted that a packet or another user's program causes.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Lines of one kind in that time.
pub const LOG_LINES_MAX: u32 = 60;

/// Lines of one kind that one source causes in that time.
pub const LOG_LINES_OF_SOURCE_MAX: u32 = 6;

/// Sources of one kind of line that are told apart.
pub const LOG_SOURCES_MAX: usize = 256;

/// Characters of a name or text from elsewhere in a log line.
pub const LOG_TEXT_CHARS_MAX: usize = 64;

/// The part of its time that the status monitor's thread spends at most on requests from elsewhere: one in so many.
pub const OTHERS_SHARE: u32 = 16;

/// How much of it the senders elsewhere may save up while they send nothing: a server that says that it was restarted, and a
/// few more, need not wait.
pub const OTHERS_BURST: Duration = Duration::from_millis(32);

/// How much of one turn counts at most: on a machine that does much else a turn takes long without being much work.
pub const OTHERS_TURN_MAX: Duration = Duration::from_millis(5);

/// How long the status monitor's thread may make no headway, as [`crate::hang`] counts: lockd waits for it in its only
/// thread.
pub const MONITOR_SILENCE_MAX: Duration = Duration::from_secs(2);

/// The same for the agent's own loop, which waits for the store and for the lock manager's commands.
pub const LOOP_SILENCE_MAX: Duration = Duration::from_secs(180);

/// Accounts of removed generations that are kept: the oldest beyond this many go. A kilobyte each.
pub const TENURES_KEPT: usize = 200;

/// Characters of a copy's name: 64 random bits.
pub const COPY_NAME_CHARS: usize = 16;

/// Characters of the place that a store was moved to, as the store that is left says it.
pub const STANDING_PLACE_CHARS_MAX: usize = 1000;

/// Bytes of the line in which a store says which one it is and whether it is in force.
pub const STANDING_BYTES_MAX: usize = 128 + 4 * STANDING_PLACE_CHARS_MAX;

/// Passes of a copy before its source is closed: where servers change more in a pass than one can copy, another pass wins nothing.
pub const COPY_PASSES_OPEN_MAX: usize = 8;

/// Steps of a pass so few that the next pass is made with the source closed: they take no second.
pub const COPY_STEPS_TO_CLOSE_MAX: usize = 20;

/// Passes of a copy after its source was closed. No server can change it any more, so the second one finds nothing.
pub const COPY_PASSES_CLOSED_MAX: usize = 200;

/// How long no heart may have beaten in a closed source before the copy of it is opened, where the source does not refuse a change
/// in the step that makes it: a call that had begun before has ended by then.
pub const COPY_HEARTS_STILL: Duration = Duration::from_secs(3);

const _: () = assert!(NOTIFY_RETRY_MS_MIN < NOTIFY_RETRY_MS_MAX);
const _: () = assert!(
    MON_LINES_MAX * heirlock_nsm::limits::LINE_BYTES_MAX <= RECORD_BYTES_MAX,
    "a client's record is stored"
);
const _: () = assert!(
    RECORD_BYTES_MAX <= heirlock_nsm::limits::RECORD_FILE_BYTES_MAX,
    "every stored record is conveyed"
);
const _: () = assert!(SERVICE_NAME_BYTES_MAX <= FILE_NAME_BYTES_MAX, "a service is a folder of the store");
const _: () = assert!(SERVER_NAME_BYTES_MAX <= FILE_NAME_BYTES_MAX, "a server is a file of the store");
const _: () = assert!(heirlock_nsm::limits::FILE_NAME_BYTES_MAX <= FILE_NAME_BYTES_MAX, "a client is a file");
