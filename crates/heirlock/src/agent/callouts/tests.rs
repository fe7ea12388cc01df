use std::collections::BTreeMap;
use std::fs;

use heirlock_core::claim::Claim;
use heirlock_core::takeover::Journal;
use heirlock_core::{Generation, ServerName};
use heirlock_nsm::{MonName, StateNumber};

use crate::agent::holdings::claim_first;
use crate::agent::testing::{place_in_mode, service};
use crate::config::CaptureMode;
use crate::store::dir::DirStore;

/// The mode was changed before the store had taken in what a callout noted, and the client's record went meanwhile.
#[test]
fn what_a_callout_noted_is_taken_in_whatever_the_capture_mode_is_by_then() {
    for mode in CaptureMode::ALL.all().map(CaptureMode::as_str) {
        let mut place = place_in_mode(mode);
        let here = place.directory.path();
        let store = DirStore::open(&here.join("store")).unwrap();
        let owner = ServerName::parse("nfs-b").unwrap();
        let (claim, journal) =
            (Claim::new(Generation::FIRST, &owner, "agent", 0), Journal::quiet("run", &owner, 0));
        claim_first(&store, &service("nfs"), &claim, StateNumber(1), &journal).unwrap().unwrap();
        let spool = here.join("nfs/sm/.heirlock-callouts");
        fs::write(&spool, "add-client\u{0}10.0.0.1\u{0}nfs-b\n").unwrap();
        place.agent.do_what_is_due();
        let stored: BTreeMap<_, _> = place.agent.held[&service("nfs")].ledger.stored().clone();
        assert_eq!(stored.into_keys().collect::<Vec<_>>(), [MonName::parse("10.0.0.1").unwrap()], "{mode}");
        let left = fs::read_dir(spool.parent().unwrap()).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [""; 0], "{mode}");
    }
}
