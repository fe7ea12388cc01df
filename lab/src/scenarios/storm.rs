//! Three hundred clients lock, and all reclaim at once after an adoption. lockd asks its status monitor about each of them
//! in its only thread before it answers: a slow one eats up the grace period.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use heirlock_nsm::nlm::Nlm4Status;

use super::stage::{expect_lock_count, stand_by};
use crate::capture::{Capture, Captures};
use crate::cluster::{Cluster, HOMES, NFS_A, NFS_B, SETUP, Setup};
use crate::crowd::{Answer, Crowd};
use crate::limits::ADOPTION_TIME_MAX;
use crate::scenario::{EVERYWHERE, Scenario};

/// heirlock as status monitor. rpc.statd is too slow for such a crowd, in every other capture mode.
pub const STORM: Scenario = Scenario {
    name: "storm",
    about: "300 clients reclaim at once after an adoption, inside grace (watch, callout: rpc.statd's figures, for comparison)",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: Captures {
        usual: &[Capture::Nsm],
        possible: &[Capture::Nsm, Capture::Watch, Capture::Callout],
    },
    run,
};

/// How many.
const CLIENTS: usize = 300;

/// The lab's grace is short, for it is waited for; this one is nearer to what servers have (lockd's own default is 50 s). In
/// whole nlm_timeouts of 10 s.
const GRACE: Duration = Duration::from_secs(50);

/// How long all first locks may take together; requests that rpc.statd has not answered by then are not waited for.
const FIRST_LOCKS_TIME_MAX: Duration = Duration::from_secs(90);

fn run(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { hooks: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B])?;
    for server in [NFS_A, NFS_B] {
        lab.start_nfs(server)?;
        lab.ok(server, &format!("sysctl -qw fs.nfs.nlm_grace_period={}", GRACE.as_secs()))?;
    }
    stand_by(lab, NFS_B, &setup)?;
    lab.serve(NFS_A, &HOMES)?;
    lab.end_grace(NFS_A)?;
    lab.protect(NFS_A, &setup)?;
    let mut crowd = Crowd::gather(CLIENTS, HOMES.address, "/srv/homes", "f")?;
    let began = Instant::now();
    let refused = crowd.lock_all(FIRST_LOCKS_TIME_MAX)?;
    say(lab, &format!("first locks, {refused} refusals"), began, &crowd.answers());
    let all = granted(&crowd.answers(), false);
    if lab.capture() == Capture::Nsm {
        ensure!(all == CLIENTS, "expected {CLIENTS} first locks, found {all}");
        lab.wait_until_protected(NFS_A, &HOMES, CLIENTS)?;
    }

    lab.power_loss(NFS_A)?;
    let began = Instant::now();
    lab.heirlock_in_background(NFS_B, "adopt homes --owner-fenced")?;
    crowd.reclaim_until(|| Ok(began.elapsed() > ADOPTION_TIME_MAX))?;
    let answers = crowd.answers();
    let told = crowd.told();
    if let (Some((first, _)), Some((last, _))) = (told.iter().min(), told.iter().max()) {
        lab.say(format!(
            "{} clients were told, the first {:.2} s after the word to adopt, the last {:.2} s later",
            told.len(),
            first.duration_since(began).as_secs_f64(),
            last.duration_since(*first).as_secs_f64()
        ));
        say(lab, "reclaims", *first, &answers);
    }
    let kept = granted(&answers, true);
    lab.wait_until_settled(NFS_B, HOMES.name, 1)?;
    lab.wait_until_grace_is_over(&HOMES)?;
    lab.say(format!("{kept} of {CLIENTS} clients have their locks back"));
    if lab.capture() != Capture::Nsm {
        return Ok(());
    }
    ensure!(kept == CLIENTS, "expected all {CLIENTS} to reclaim inside grace, found {kept}");
    expect_lock_count(lab, NFS_B, CLIENTS)?;
    lab.report(NFS_B, HOMES.name)?.expect_all_back(CLIENTS)
}

fn granted(answers: &[Answer], reclaim: bool) -> usize {
    let granted = |answer: &&Answer| answer.status == Nlm4Status::Granted && answer.reclaim == reclaim;
    answers.iter().filter(granted).count()
}

/// When the last one was answered, and how long a client waited.
fn say(lab: &Cluster, what: &str, since: Instant, answers: &[Answer]) {
    let mut waited: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    waited.sort_unstable();
    let last = answers.iter().map(|answer| answer.at.duration_since(since)).max().unwrap_or_default();
    let at = |part: usize| waited.get(waited.len() * part / 100).copied().unwrap_or_default().as_secs_f64();
    lab.say(format!(
        "{what}: {} in {:.2} s; a client waited {:.3} s in the middle, {:.3} s at the 99th percentile",
        answers.len(),
        last.as_secs_f64(),
        at(50),
        at(99)
    ));
}
