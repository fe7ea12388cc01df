//! The members are cut off from each other, and a server is left beside one that is alone: what that one knows is out of date, and it
//! may take itself for the leader still.

use std::fs;

use super::cluster::{MEANWHILE, Pair, timed};
use super::harness::Server;
use super::keys;
use super::stage::{FAR, far};

/// Heartbeats of a living server, of which there are five a second: longer than twice `dead-after`.
const BEATS: u64 = 60;

/// The far member leads, and is alone with the server beside it from now on.
fn split(pair: &mut Pair) {
    pair.stage.etcd.make_leader(FAR);
    pair.stage.split(true);
}

/// Whether a server's own agent takes the other one for dead.
fn takes_for_dead(server: &Server) -> bool {
    let status = server.try_status().unwrap();
    status["servers"].as_array().is_some_and(|all| all.iter().any(|other| other["heart"] == "silent"))
}

#[test]
fn an_owner_beside_a_leader_that_is_alone_believes_it_nothing_and_another_server_adopts() {
    let test = "split::an_owner_beside_a_leader_that_is_alone_believes_it_nothing_and_another_server_adopts";
    let Some(mut pair) = Pair::with_far(test, 'a') else { return };
    let before = pair.stage.beats("nfs-a");
    split(&mut pair);
    pair.a.register(MEANWHILE);
    timed("alone: the owner says so after", || Pair::store_is(&pair.a, false));
    fs::write(pair.a.path("life"), "2\n").unwrap();
    timed("alone: the other one has adopted, and told all, after", || pair.is_adopted());
    assert!(pair.was_fenced());
    // The control: the member beside it would tell it that the service is its own, and that no client came.
    let stale = keys::known_to(&pair.stage.etcd, FAR, &far(), "claims/nfs/");
    assert_eq!(stale.len(), 1, "its claim alone");
    let record = format!("generations/nfs/{:020}/sm/{MEANWHILE}", 1);
    assert!(keys::known_to(&pair.stage.etcd, FAR, &far(), &record).is_empty());
    let status = pair.a.try_status().unwrap();
    assert_eq!(status["store"]["well"], false, "{status}");
    assert!(!takes_for_dead(&pair.a), "{}", pair.a.log());
    pair.stage.split(false);
    pair.stage.etcd.wait_for(FAR);
    pair.gives_way(before);
}

#[test]
fn a_standby_beside_a_leader_that_is_alone_takes_no_living_owner_for_dead() {
    let test = "split::a_standby_beside_a_leader_that_is_alone_takes_no_living_owner_for_dead";
    let Some(mut pair) = Pair::with_far(test, 'b') else { return };
    split(&mut pair);
    timed("alone: the standby says so after", || Pair::store_is(&pair.b, false));
    // The control: by the member beside it, the owner's heart stands still.
    let heart = || keys::known_to(&pair.stage.etcd, FAR, &far(), "servers/nfs-a").remove("").unwrap().writes;
    let (stale, before) = (heart(), pair.stage.beats("nfs-a"));
    pair.a.wait_for("an owner that beats on", |_| {
        assert!(!takes_for_dead(&pair.b), "{}", pair.b.log());
        (pair.stage.beats("nfs-a") > before + BEATS).then_some(())
    });
    assert_eq!(heart(), stale, "what the member that is alone knows");
    pair.assert_nothing_was_adopted();
    pair.stage.split(false);
    pair.stage.etcd.wait_for(FAR);
    Pair::store_is(&pair.b, true);
    pair.b.wait_until_it_hears_the_other();
    pair.assert_nothing_was_adopted();
    // An owner that dies is taken for dead by the same server.
    pair.a.kill();
    timed("an owner that dies: the claim of the other comes after", || {
        pair.b.wait_for("an adoption", |_| (pair.stage.claims() == ["1", "2"]).then_some(()));
    });
    assert!(pair.was_fenced());
}
