//! Every bound of an agent, in one place. Reaching one is reported.

use std::time::Duration;

/// Things that another server says it ails from.
pub const AILMENTS_MAX: usize = 16;

/// Characters of each of them.
pub const AILMENT_CHARS_MAX: usize = 500;

/// Different reasons for which the store fails that are logged before it works again: a store of three members has a few for each
/// kind of call.
pub const STORE_REASONS_SAID_MAX: usize = 16;

/// Problems of a kind that a status names: entries of one folder, heartbeats. One more counts the others.
pub const PROBLEMS_OF_A_KIND_MAX: usize = 10_000;

/// Records that one commit carries: between two of them heartbeats and questions get their turn.
pub const COMMIT_RECORDS_MAX: usize = 512;

/// Clients of each service that are compared with the store at one turn of the loop: some milliseconds.
pub const COMPARED_AT_ONCE_MAX: usize = 4096;

/// Records of each service that are removed in one commit. To remove one took ext4 from 0.2 to 3 ms where it was measured, and
/// clients that register wait for their own commit meanwhile.
pub const REMOVED_AT_ONCE_MAX: usize = 32;

/// How many times as long as the last look took no look is made only because a deletion may be believed: of very many
/// clients some leave at any time.
pub const LOOK_PAUSE: u32 = 10;

/// How many times as long as the loop's own last look took it makes no look only because of a hint, and how long at most. An
/// adoption places a file for each record, and each file is a hint: the loop is to have most of its time for the run.
pub const HINTED_LOOK_PAUSE: u32 = 4;

/// See [`HINTED_LOOK_PAUSE`]. A client that registers meanwhile waits so long for the look that finds it.
pub const HINTED_LOOK_PAUSE_MAX: Duration = Duration::from_millis(250);

/// A look at the status monitor's directory that takes longer than this has not ended: new clients may be unprotected.
pub const LOOK_TIME_MAX: Duration = Duration::from_secs(60);

/// A look that took longer than this shows which clients have come, and not which have left: one that it lacks may have come
/// back since it was read. Longer than a look at 200,000 records takes on a disk that is well.
pub const LOOK_BELIEVED_MAX: Duration = Duration::from_secs(10);

/// Clients whose files the agent, as status monitor, writes between two turns of its loop.
pub const FOLLOWED_AT_ONCE_MAX: usize = 16;

/// How long the status monitor must not have been asked for anything before files follow.
pub const FOLLOWED_AFTER: Duration = Duration::from_millis(5);

/// How long files wait for that.
pub const FOLLOWED_AFTER_MAX: Duration = Duration::from_secs(1);

/// How often what other servers compare with their own is gathered.
pub const FACTS_INTERVAL: Duration = Duration::from_secs(60);

/// Between two words on how far a run is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How often the lock manager is asked whether grace is open, where it alone can tell whether clients have lost their locks.
pub const ASK_GRACE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a request waits for a store that takes its time.
pub const STORE_ANSWERS_TIME_MAX: Duration = Duration::from_secs(30);

/// How soon after a hint that the store has changed it is looked at. Changes of that time are seen by the same look.
pub const STORE_CHANGED_AFTER: Duration = Duration::from_millis(50);

/// How long the steps of one turn of the loop may take before messages are taken in again; with the longest step that begins
/// before then, that is a turn.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(800);

/// How long a look at the claims of all services holds good while the next one goes on, on a store that is slow.
pub const CLAIMS_AGE_MAX: Duration = Duration::from_secs(10);

/// How long after a store that failed it is tried again.
pub const STORE_RETRY: Duration = Duration::from_millis(500);

/// How long grace may take to open after the lock manager was made to recognise.
pub const PROVE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long an adoption's clients are made durable in this server's other services before the first is told: it is
/// taken from the grace period, in which all of them reclaim.
pub const SHARED_BEFORE_TOLD_MAX: Duration = Duration::from_secs(3);

/// How long the agent of the server that a service is to move to may take to say that it has seen the request, beyond `dead-after`.
pub const MOVE_ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the owner of a service may take to give it up after another server asked for it (failback, move).
pub const GIVE_UP_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a home waits for an owner that says why it takes its time, and how long at most.
pub const GIVE_UP_WAIT_MAX: Duration = Duration::from_secs(600);

/// How long a lock manager may take to let go of the locks of a service that is given up. It is a matter
/// of milliseconds, unless a disk or the lock manager itself hangs.
pub const LET_GO_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a released address may take to disappear.
pub const ADDRESS_GONE_TIME_MAX: Duration = Duration::from_secs(15);

/// How long an address may take to be here after the hook that brings it has ended: one of IPv6 is looked for on its link first.
pub const ADDRESS_BACK_TIME_MAX: Duration = Duration::from_secs(15);

/// How long after an address did not come back it is tried once more.
pub const ADDRESS_BACK_AGAIN: Duration = Duration::from_secs(30);

/// How long a name may take to be resolved; resolving never stands in the way of anything.
pub const RESOLVE_RETRY: Duration = Duration::from_secs(60);

/// How long what a name was resolved to counts before it is asked for again.
pub const RESOLVE_REFRESH: Duration = Duration::from_secs(600);

/// How long a name service may answer for none of the names that are resolved at once: then it hangs, and that is said.
pub const RESOLVE_TIME_MAX: Duration = Duration::from_secs(60);

/// Names that are resolved at once.
pub const RESOLVE_AT_ONCE_MAX: usize = 64;

/// Generations of a service that are kept besides the newest: to look at after the fact.
pub const GENERATIONS_KEPT: u64 = 3;

/// Bounds of the buckets in which times are counted that an agent observes, from a disk's sync to a grace period.
pub const OBSERVED_BUCKETS: [Duration; 15] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(100),
];

/// Clients in trouble that a status names one by one; all are counted.
pub const STATUS_CLIENTS_MAX: usize = 100;

/// How long it may take to look for the needs of an adoption: a disk or a program that hangs must not keep it waiting for
/// ever. Longer than all that is asked within it may take, save commands of the configuration, whose time is added.
pub const INTENT_TIME_MAX: Duration = Duration::from_secs(60);

/// How much longer than all its own limits work for a run may take: a busy machine is not one that hangs.
pub const WORK_SLACK: Duration = Duration::from_secs(30);

/// How long a command that was killed may take to end: one that waits for a disk that hangs can't be killed.
pub const KILLED_TIME_MAX: Duration = Duration::from_secs(2);

/// As status monitor: between two syncs of its directory.
pub const DIRECTORY_SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// How long systemd may take for one change of a unit.
pub const SYSTEMCTL_TIME_MAX: Duration = Duration::from_secs(60);

/// How long nfsd may take to serve again after it was restarted.
pub const SERVE_TIME_MAX: Duration = Duration::from_secs(30);

/// How long it may take to place records into the status monitor's directory, however few. To it comes
/// [`heirlock_core::limits::PLACED_TIME_EACH`].
pub const PLACED_TIME_MAX: Duration = Duration::from_secs(60);

/// How long it may take to take all conveyed records away: of 200,000 files, on a busy disk. The callers of
/// a run wait for that.
pub const TAKEN_AWAY_TIME_MAX: Duration = Duration::from_secs(60);

/// Seconds for which new clients must be unprotected before an alert says so: as long as an agent may need at its start until it is
/// sure.
pub const UNPROTECTED_ALERT_AFTER_S: u64 = 60;

/// Clients that an alert names; it counts all of them.
pub const ALERT_CLIENTS_MAX: usize = 20;
