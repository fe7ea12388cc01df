//! The store is in etcd: an owner that dies, the server that adopts from it as well, an owner that is cut off from etcd and serves
//! on, and one whose agent stands still meanwhile.

use anyhow::{Result, ensure};

use super::stage::{expect_both_locks, let_both_go, stand_by, two_locks};
use crate::capture::{MOSTLY_WATCH, WATCH_ALONE};
use crate::cluster::{
    CLIENT1, CLIENT2, Cluster, HOMES, NFS_A, NFS_B, NFS_C, Name, Records, SETUP, Setup, Switched,
    check_new_number,
};
use crate::limits::{ADOPTION_TIME_MAX, SILENCE_TIME_MAX};
use crate::scenario::{EVERYWHERE, Scenario};

/// Power loss.
pub const ETCD_CRASH: Scenario = Scenario {
    name: "etcd-crash",
    about: "records are in etcd; the primary loses power, a real power switch confirms it, and the other server adopts with both locks",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: crash,
};

/// Power loss of two servers, the second one in the middle of its adoption.
///
/// Its controls are two others. Without heirlock no lock survives one such death (`control`), so none survives two. That the last
/// server acts upon what the second one left, and not upon the owner's own records, is asserted here: by its generation, by a state
/// number that neither server announced, and by the client that the second server never told.
pub const ETCD_DOUBLE: Scenario = Scenario {
    name: "etcd-double",
    about: "records are in etcd; the primary loses power, and so does the server that adopts by itself, when one of two clients was told: a third one fences that one and finishes",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: double,
};

/// The network between server and store.
pub const SPLIT: Scenario = Scenario {
    name: "split",
    about: "the owner is cut off from etcd and serves on: nothing is adopted before the power switch has killed it",
    needs_heirlock: true,
    releases: EVERYWHERE,
    captures: MOSTLY_WATCH,
    run: split,
};

/// SIGSTOP.
pub const PAUSED_OWNER: Scenario = Scenario {
    name: "paused-owner",
    about: "the owner's agent stands still for longer than dead-after, and goes on after the adoption: it says whose the service is, and does nothing",
    needs_heirlock: true,
    releases: EVERYWHERE,
    // Elsewhere a supervisor ends an agent that stands still.
    captures: WATCH_ALONE,
    run: paused,
};

/// A switch that really kills has no patience with a guest that this machine lets wait: it is asked as late as with the product's
/// own figures. Between two beats there is more time: each one that is late has the other servers watched anew.
const BY_ITSELF: Setup = Setup { hooks: true, automatic: true, heartbeat: ["2s", "10s"], ..SETUP };

/// The same with three servers, of which nfs-b comes before nfs-c.
const IN_ORDER: Setup = Setup { candidates: &[NFS_A, NFS_B, NFS_C], ..BY_ITSELF };

/// The address of a third client.
const NEWCOMER: &str = "10.99.0.23";

/// Both servers and both clients are there, the store is in etcd, and each client has its lock on nfs-a. Gives the state number
/// there.
fn begin(lab: &mut Cluster) -> Result<u32> {
    begin_with(lab, &[NFS_B], &BY_ITSELF)
}

/// The same with these servers that wait.
fn begin_with(lab: &mut Cluster, heirs: &[Name], setup: &Setup) -> Result<u32> {
    lab.with_etcd()?;
    lab.switch_on(&[&[NFS_A, CLIENT1, CLIENT2], heirs].concat())?;
    two_locks(lab, setup)?;
    for heir in heirs {
        stand_by(lab, heir, setup)?;
    }
    ensure!(!lab.store().join("heirlock").exists(), "the store is in the shared folder");
    let number = lab.state_number(NFS_A)?;
    for heir in heirs {
        lab.wait_until_it_hears(heir, NFS_A)?;
    }
    Ok(number)
}

fn owner_and_generation(lab: &Cluster) -> Result<(Option<String>, u64)> {
    let (owner, generation) = lab.status(NFS_B)?.of(&HOMES)?.claim();
    Ok((owner, generation.unwrap_or(0)))
}

/// nfs-b has adopted by itself, under a new number, with both clients.
fn expect_adopted(lab: &Cluster, before: u64, number: u32) -> Result<()> {
    expect_adopted_by(lab, NFS_B, NFS_A, before, &[number])
}

/// A server has adopted from that owner by itself, with both clients, under a number that is none of those that were sent.
fn expect_adopted_by(lab: &Cluster, heir: Name, owner: Name, before: u64, sent: &[u32]) -> Result<()> {
    lab.wait_until_it_fences(heir, owner)?;
    lab.wait_until_settled(heir, HOMES.name, before)?;
    let status = lab.status(heir)?;
    let homes = status.of(&HOMES)?;
    ensure!(homes.failure.is_none() && homes.records == 2, "{homes:?}");
    check_new_number(homes.state_number.unwrap_or(0), sent)
}

/// These guests were switched off by the switch, and no others. An adoption that a late beat has begun again fences again.
fn expect_confirmed_off(lab: &Cluster, guests: &[Name]) -> Result<()> {
    let fences: Vec<Switched> = lab.switched().into_iter().filter(Switched::is_fence).collect();
    let mut found: Vec<&str> = fences.iter().map(|fence| fence.guest.as_str()).collect();
    found.dedup();
    ensure!(
        found == guests && fences.iter().all(|fence| fence.is_off),
        "expected that {guests:?} were confirmed off, in this order and no others; found {fences:?}"
    );
    Ok(())
}

fn crash(lab: &mut Cluster) -> Result<()> {
    lab.with_power_switch()?;
    let number = begin(lab)?;
    let (_, before) = owner_and_generation(lab)?;
    lab.expect_no_fence()?;
    lab.power_loss(NFS_A)?;
    expect_adopted(lab, before, number)?;
    expect_confirmed_off(lab, &[NFS_A])?;
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}

fn double(lab: &mut Cluster) -> Result<()> {
    lab.with_power_switch()?;
    let number = begin_with(lab, &[NFS_B, NFS_C], &IN_ORDER)?;
    lab.wait_until_it_hears(NFS_C, NFS_B)?;
    lab.expect_no_fence()?;
    // A client that nobody can find a port of is not told, and holds nfs-b's adoption up for as long as this takes. A cable that is
    // drawn for so long would have its kernel give the network up.
    lab.ok(CLIENT2, "kill -STOP $(pidof rpcbind)")?;
    lab.power_loss(NFS_A)?;
    lab.wait_until_it_fences(NFS_B, NFS_A)?;
    lab.wait_for_locks(NFS_B, 1, SILENCE_TIME_MAX)?;
    let midway = lab.report(NFS_B, HOMES.name)?;
    ensure!(
        midway.phase == "notifying" && midway.acknowledged == 1,
        "expected one of two told, found {midway:?}"
    );
    check_new_number(midway.state_number, &[number])?;
    lab.wait_for(&format!("{NFS_C} to know whose it is"), ADOPTION_TIME_MAX, || {
        let (owner, generation) = lab.status(NFS_C)?.of(&HOMES)?.claim();
        Ok(((owner.as_deref(), generation) == (Some(NFS_B), Some(midway.generation))).then_some(()))
    })?;
    lab.ok(NFS_B, "sync")?;
    lab.power_loss(NFS_B)?;
    lab.ok(CLIENT2, "kill -CONT $(pidof rpcbind)")?;

    expect_adopted_by(lab, NFS_C, NFS_B, midway.generation, &[number, midway.state_number])?;
    expect_confirmed_off(lab, &[NFS_A, NFS_B])?;
    expect_both_locks(lab, NFS_C)?;
    let_both_go(lab)
}

fn split(lab: &mut Cluster) -> Result<()> {
    lab.with_power_switch()?;
    let number = begin(lab)?;
    let (_, before) = owner_and_generation(lab)?;
    lab.break_power_switch(true);
    lab.cut_off_from_etcd(NFS_A)?;
    lab.wait_for("a fence that fails", SILENCE_TIME_MAX, || {
        Ok(lab.switched().iter().any(|one| one.is_fence() && !one.is_off).then_some(()))
    })?;
    // It is alive, and its clients know of nothing.
    lab.expect_denied(CLIENT2, &HOMES, "f")?;
    ensure!(lab.locks(NFS_A)? == 2, "an owner that is cut off from etcd alone keeps its locks");
    let claim = owner_and_generation(lab)?;
    ensure!(
        claim == (Some(NFS_A.to_owned()), before),
        "claimed although no switch had confirmed that {NFS_A} is off: {claim:?}"
    );
    lab.break_power_switch(false);
    expect_adopted(lab, before, number)?;
    ensure!(!lab.is_running(NFS_A)?, "{NFS_A} runs, and {NFS_B} has adopted its service");
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}

/// The fence is a person here, who takes address, NFS and volume from the server, and not its power.
fn paused(lab: &mut Cluster) -> Result<()> {
    let number = begin(lab)?;
    let (_, before) = owner_and_generation(lab)?;
    let agent = lab.agent_pid(NFS_A)?;
    lab.ok(NFS_A, &format!("kill -STOP {agent}"))?;
    lab.say(format!("{NFS_A}'s agent stands still"));
    lab.wait_until_it_misses(NFS_B, NFS_A)?;
    let claim = owner_and_generation(lab)?;
    ensure!(claim == (Some(NFS_A.to_owned()), before), "claimed before the fence's word: {claim:?}");

    lab.address_down(NFS_A, &HOMES)?;
    lab.ok(NFS_A, "rpc.nfsd 0")?;
    lab.detach(NFS_A, &HOMES)?;
    lab.power_switch(NFS_A, true)?;
    expect_adopted(lab, before, number)?;
    expect_both_locks(lab, NFS_B)?;
    let adopted = lab.status(NFS_B)?.of(&HOMES)?.clone();

    // A client that the former owner finds when it goes on, and must not write into what is not its own any more.
    let record =
        format!("0100007f 000186b5 00000003 00000010 000102030405060708090a0b0c0d0e0f {NEWCOMER} {NFS_A}\n");
    lab.place_records(NFS_A, &Records::from([("client3".to_owned(), record)]))?;
    lab.ok(NFS_A, &format!("kill -CONT {agent}"))?;
    lab.say(format!("{NFS_A}'s agent goes on"));
    let said = format!("grep -q '{NFS_B} has claimed .*not this server.s any more' /run/heirlock.log");
    lab.wait_until_within(NFS_A, &said, ADOPTION_TIME_MAX)?;
    // It has looked at its own clients since: the one that came is on record with them, and with no others.
    lab.wait_for("the former owner's own client on record", ADOPTION_TIME_MAX, || {
        Ok(lab.is_on_record(NFS_A, "host.nfs-a", NEWCOMER)?.then_some(()))
    })?;
    ensure!(!lab.is_on_record(NFS_B, HOMES.name, NEWCOMER)?, "the former owner has written into {NFS_B}'s");
    let status = lab.status(NFS_A)?;
    let former = status.of(&HOMES)?;
    ensure!(
        !former.held && former.claim() == adopted.claim(),
        "expected that {NFS_A} knows whose it is, found {former:?}"
    );
    let now = lab.status(NFS_B)?.of(&HOMES)?.clone();
    ensure!(
        (now.claim(), now.records, now.state_number)
            == (adopted.claim(), adopted.records, adopted.state_number),
        "the former owner has changed something: before {adopted:?}, now {now:?}"
    );
    let here = format!("! ip addr show dev vec0 | grep -q ' {}/'", HOMES.address);
    lab.ok(NFS_A, &here)?;
    expect_both_locks(lab, NFS_B)?;
    let_both_go(lab)
}
