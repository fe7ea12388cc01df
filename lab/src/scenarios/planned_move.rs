//! `heirlock move`: a service goes to another server that lives, and comes back, by one word each time. And what the same move
//! costs where no client is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::stage::{
    RECLAIM_TIME_MAX, expect_both_back, expect_both_believe, expect_both_locks, expect_lock_count,
    let_both_go, lock_without_heirlock, stand_by, two_locks,
};
use crate::capture::{MOSTLY_WATCH, WATCH_ALONE};
use crate::cluster::{
    AdoptionReport, CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, SETUP, Setup,
};
use crate::scenario::{EVERYWHERE, Scenario};

/// By heirlock's word.
pub const MOVE: Scenario = Scenario {
    name: "move",
    about: "a service is moved by one word on a third server, and back by one on its owner: a client that asks for the lock all the time never gets it",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: by_one_word,
};

/// By a person, with stock tools.
pub const MOVE_CONTROL: Scenario = Scenario {
    name: "move-control",
    about: "the same move in order without heirlock: no client is told, and two of them end up with the same exclusive lock",
    needs_heirlock: false,
    releases: EVERYWHERE,
    captures: WATCH_ALONE,
    run: control,
};

fn by_one_word(lab: &mut Cluster) -> Result<()> {
    let setup = Setup { hooks: true, ..SETUP };
    lab.switch_on(&[NFS_A, NFS_B, NFS_C, CLIENT1, CLIENT2])?;
    stand_by(lab, NFS_B, &setup)?;
    stand_by(lab, NFS_C, &setup)?;
    two_locks(lab, &setup)?;
    let number = lab.state_number(NFS_A)?;
    lab.keep_asking(CLIENT2, &HOMES, "f")?;

    let away = moved(lab, NFS_C, NFS_A, NFS_B, &[number])?;
    // The service is there already: the same word tells of the same adoption, and makes no other one.
    let again = lab.move_to(NFS_C, &HOMES, NFS_B)?;
    ensure!(
        (again.generation, again.state_number) == (away.generation, away.state_number),
        "expected word of {away:?}, found {again:?}"
    );
    ensure!(again.changed == Some(false), "the service was there already, found {again:?}");

    moved(lab, NFS_B, NFS_B, NFS_A, &[number, away.state_number])?;
    expect_both_locks(lab, NFS_A)?;
    lab.expect_always_denied(CLIENT2, &HOMES, "f")?;
    let_both_go(lab)
}

/// A word on `said_on` moves homes between two servers. `sent` are the state numbers that its clients know already.
fn moved(lab: &Cluster, said_on: Name, from: Name, to: Name, sent: &[u32]) -> Result<AdoptionReport> {
    let began = Instant::now();
    let report = lab.move_to(said_on, &HOMES, to)?;
    let took = began.elapsed();
    expect_both_back(&report, &HOMES, sent)?;
    ensure!(report.changed == Some(true), "expected that the service was moved, found {report:?}");
    lab.wait_for_locks(to, 2, RECLAIM_TIME_MAX)?;
    expect_given_up(lab, from)?;
    let homes = lab.status(to)?;
    let homes = homes.of(&HOMES)?;
    ensure!(homes.held && homes.claim() == (Some(to.to_owned()), Some(report.generation)), "{homes:?}");
    expect_time_in_history(lab, said_on, from, &report, took)?;
    Ok(report)
}

/// Neither address nor volume nor lock is there any more, and the agent says so.
fn expect_given_up(lab: &Cluster, server: Name) -> Result<()> {
    let gone = format!(
        "! ip addr show dev vec0 | grep -q ' {}/' && ! grep -q ' /srv/{} ' /proc/mounts",
        HOMES.address, HOMES.name
    );
    lab.ok(server, &gone)?;
    expect_lock_count(lab, server, 0)?;
    ensure!(!lab.status(server)?.of(&HOMES)?.held, "{server} has given the service up, and still holds it");
    Ok(())
}

/// The history, asked for where the word was said, tells of the move, and how long clients were without the service: some time
/// that lies within the one that the word took.
fn expect_time_in_history(
    lab: &Cluster,
    asked: Name,
    from: Name,
    report: &AdoptionReport,
    took: Duration,
) -> Result<()> {
    let history = lab.history(asked, &HOMES)?;
    let newest = history.generations.first().context("a service without a past")?;
    ensure!(
        newest.generation == report.generation
            && newest.cause == "moved"
            && newest.from.as_deref() == Some(from)
            && (newest.clients, newest.re_registered) == (2, 2),
        "expected the move from {from} as generation {}, found {newest:?}",
        report.generation
    );
    let [ready, last] = [newest.without_service_ms, newest.until_last_client_ms]
        .map(|time| time.map(Duration::from_millis).with_context(|| format!("no time is known: {newest:?}")));
    let (ready, last) = (ready?, last?);
    ensure!(
        !ready.is_zero() && ready <= last && last <= took,
        "expected times within the {took:?} that the verb took, found {newest:?}"
    );
    lab.say(format!(
        "{asked}: clients were without {} for {:.2} s, and the last one was back after {:.2} s",
        HOMES.name,
        ready.as_secs_f64(),
        last.as_secs_f64()
    ));
    Ok(())
}

/// As a person does it who knows of exports and addresses alone: all in order, and nothing is lost but the locks.
fn control(lab: &mut Cluster) -> Result<()> {
    lock_without_heirlock(lab)?;
    lab.address_down(NFS_A, &HOMES)?;
    lab.ok(NFS_A, "rpc.nfsd 0")?;
    lab.detach(NFS_A, &HOMES)?;
    expect_both_believe(lab)
}
