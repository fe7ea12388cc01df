use std::time::Duration;

use heirlock_agent::agent::beat::*;
use heirlock_core::Moment;
use heirlock_core::claim::OwnerHeart;
use heirlock_core::liveness::Hearts;

use crate::store::dir::DirStore;
use crate::store::{ServerReport, Store};

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

#[test]
fn a_server_that_came_back_since_the_last_beat_is_seen_to_live_before_anything_is_claimed() {
    let place = tempfile::tempdir().unwrap();
    let store = DirStore::create(&place.path().join("store")).unwrap();
    let report = |server: &str| ServerReport::new(server.parse().unwrap(), "run-1");
    let other = "nfs-b".parse().unwrap();
    let mut pulse = Pulse::new(report("nfs-a"), Hearts::new(Duration::from_secs(5)));
    for second in 0..=20 {
        let beat = 3.min(second + 1);
        store.put_server(&ServerReport { beat, ..report("nfs-b") }).unwrap();
        pulse.beat(at(second), &store, Condition::default()).unwrap();
    }
    assert!(matches!(pulse.heart_of(&other, at(20)), OwnerHeart::Silent { .. }));
    store.put_server(&ServerReport { beat: 4, ..report("nfs-b") }).unwrap();
    pulse.look(at(20), &store).unwrap();
    assert!(matches!(pulse.heart_of(&other, at(20)), OwnerHeart::Beating { .. }));
}
