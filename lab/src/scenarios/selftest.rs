//! The cure, by hand and with stock tools alone. It proves that the lab can see a lock that survives, and
//! tells the kernels' facts that the other scenarios build on.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::capture::WATCH_ALONE;
use crate::cluster::{CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B};
use crate::grace::Grace;
use crate::release::Release;
use crate::scenario::{EVERYWHERE, Scenario};

/// Records conveyed by hand and stock sm-notify recover the lock.
pub const SELFTEST: Scenario = Scenario {
    name: "selftest",
    about: "records placed by hand and stock sm-notify recover the lock: the lab sees a lock that survives",
    needs_heirlock: false,
    releases: EVERYWHERE,
    captures: WATCH_ALONE,
    run,
};

fn run(lab: &mut Cluster) -> Result<()> {
    lab.switch_on(&[NFS_A, NFS_B, CLIENT1, CLIENT2])?;
    lab.serve(NFS_A, &HOMES)?;
    ensure!(lab.grace(&HOMES)? == Grace::Open, "a server that has just been started must be in grace");
    lab.end_grace(NFS_A)?;
    ensure!(lab.grace(&HOMES)? == Grace::Over, "grace was ended by hand and is still open");
    lab.mount(CLIENT1, &HOMES)?;
    lab.mount(CLIENT2, &HOMES)?;
    lab.hold(CLIENT1, &HOMES, "f")?;
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.hold(CLIENT2, &HOMES, "g")?;
    check_that_lockd_ignores_sigkill_as_expected(lab)?;

    let records = lab.records(NFS_A)?;
    ensure!(
        records.contains_key(CLIENT1) && records.contains_key(CLIENT2),
        "expected two records, found {records:?}"
    );
    lab.power_loss(NFS_A)?;
    lab.place_records(NFS_B, &records)?;
    lab.serve(NFS_B, &HOMES)?;
    let neighbour = format!("ip neigh show {} | grep -iq 02:00:00:00:00:02", HOMES.address);
    lab.wait_until_within(CLIENT1, &neighbour, Duration::from_secs(3))?; // the announcement was heard
    lab.ok(NFS_B, &format!("sm-notify -f -v {}", HOMES.address))?;
    lab.wait_for_locks(NFS_B, 2, Duration::from_secs(10))?;
    lab.wait_until_grace_is_over(&HOMES)?;

    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    lab.expect_denied(CLIENT1, &HOMES, "g")?;
    lab.let_go(CLIENT1, &HOMES, "f")?;
    lab.expect_locked(CLIENT2, &HOMES, "f")?;
    lab.say("both locks survived, and are let go of in order");
    Ok(())
}

/// `restart-lock-manager` rests on this: kernel 6.1's lockd heeds SIGKILL (it drops its locks and opens
/// grace), 6.12's ignores it. The mask of ignored signals in /proc/<pid>/status tells which; signal 9 is bit
/// 0x100.
fn check_that_lockd_ignores_sigkill_as_expected(lab: &Cluster) -> Result<()> {
    let masks = lab.ok(
        NFS_A,
        "for status in /proc/[0-9]*/status; do grep -qsx 'Name:.lockd' $status && grep -E '^Sig(Ign|Blk|Cgt)' $status; done; true",
    )?;
    lab.say(format!("lockd: {}", masks.split_whitespace().collect::<Vec<_>>().join(" ")));
    let ignored = masks
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok())
        .map(|mask| mask & 0x100 != 0);
    let expected = lab.release() == Release::Trixie;
    ensure!(
        ignored == Some(expected),
        "expected lockd to ignore SIGKILL: {expected}, found {ignored:?} in {masks}"
    );
    Ok(())
}
