//! A server with a second lock manager, `two`, which serves the service `beta`.

use heirlock_core::ServerName;
use heirlock_core::takeover::{Journal, Phase};
use heirlock_nsm::MonName;

use super::*;
use crate::config::CaptureMode;
use crate::guard::testing::{in_mode, report, with_second_lock_manager};

/// The first one in this mode, and the second one in that.
fn in_modes(first: &str, second: CaptureMode) -> Settings {
    let mut settings = with_second_lock_manager(in_mode(first));
    settings.further[0].capture.mode = second;
    settings
}

const WATCH: CaptureMode = CaptureMode::ALL.watch;

/// The steps without what is said of the second lock manager, and without the folder that stands for `/`.
fn of_the_first(tree: &Tree, steps: &[Step]) -> Vec<Step> {
    let root = tree.host().root.display().to_string();
    let of_the_first = steps.iter().filter(|step| !step.what.starts_with("lock manager two: "));
    of_the_first.map(|step| Step { what: step.what.replace(&root, ""), ..step.clone() }).collect()
}

#[test]
fn a_second_lock_manager_that_is_watched_needs_nothing_more_and_is_named() {
    for mode in CaptureMode::ALL.all().map(CaptureMode::as_str) {
        let [alone, both] = [Tree::with_statd(), Tree::with_statd()];
        let before = both.listing();
        let plan = enable(&both.host(), &in_modes(mode, WATCH), true).unwrap();
        let by_one = enable(&alone.host(), &in_mode(mode), false).unwrap();
        let by_both = enable(&both.host(), &in_modes(mode, WATCH), false).unwrap();
        assert_eq!(of_the_first(&both, &by_both), of_the_first(&alone, &by_one), "{mode}");
        assert_eq!(alone.calls(), both.calls(), "{mode}");
        for steps in [&plan, &by_both] {
            let said = "lock manager two: capture.mode = \"watch\" needs nothing more of this host";
            assert_eq!(steps.iter().filter(|step| step.what == said).count(), 1, "{mode}: {steps:?}");
        }
        let by_one = disable(&alone.host(), &in_mode(mode), false).unwrap();
        let by_both = disable(&both.host(), &in_modes(mode, WATCH), false).unwrap();
        assert_eq!(of_the_first(&both, &by_both), of_the_first(&alone, &by_one), "{mode}");
        assert_eq!(both.listing(), before, "{mode}");
    }
}

#[test]
fn a_mode_that_a_second_lock_manager_cannot_have_is_refused_before_anything_is_changed() {
    let ForEach { callout, nsm, .. } = CaptureMode::ALL;
    for (second, why) in [(callout, "nfs.conf"), (nsm, "heirlock.socket")] {
        for first in CaptureMode::ALL.all().map(CaptureMode::as_str) {
            let tree = Tree::with_statd();
            let before = tree.listing();
            for plan in [true, false] {
                let refused = enable(&tree.host(), &in_modes(first, second), plan).unwrap_err();
                assert!(matches!(refused, GuardError::Refused { .. }), "{refused:?}");
                let said = refused.to_string();
                let begins = format!("lock manager two: capture.mode = {:?} can't be had", second.as_str());
                assert!(said.starts_with(&begins) && said.contains(why), "{first}: {said}");
                assert!(said.ends_with("set capture.mode = \"watch\" there, then repeat"), "{said}");
            }
            assert_eq!((tree.listing(), tree.calls()), (before, vec![]), "{first}");
        }
    }
}

#[test]
fn the_numbers_of_all_lock_managers_reach_the_status_monitor_of_each() {
    // The number of the second one is the highest in the one case, that of the first one in the other.
    for (state, further, highest) in [(101, 207, 207), (309, 207, 309)] {
        let tree = Tree::debian();
        let settings = in_modes("watch", WATCH);
        tree.folder("/var/lib/nfs-two/sm");
        tree.put("/var/lib/nfs-two/state", StateNumber(5).render_file());
        enable(&tree.host(), &settings, false).unwrap();
        let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
        let mut report = report("nfs-a", 1);
        (report.state, report.further_states) = (Some(state), vec![further]);
        store.put_server(&report).unwrap();
        disable(&tree.host(), &settings, false).unwrap();
        for path in ["/var/lib/nfs/state", "/var/lib/nfs-two/state"] {
            let found = fs::read(tree.host().at(path)).unwrap();
            assert_eq!(found, StateNumber(highest).render_file(), "{path}");
        }
    }
}

#[test]
fn a_service_whose_clients_would_lose_their_locks_is_refused_with_its_lock_manager() {
    for (phase, expected) in [
        (Phase::Settled, "lock manager two: beta is this server's, with 1 client(s)"),
        (Phase::Settling, "lock manager two: the clients of beta are being told (phase settling)"),
    ] {
        let tree = Tree::debian();
        let settings = in_modes("watch", WATCH);
        tree.folder("/var/lib/nfs-two/sm");
        enable(&tree.host(), &settings, false).unwrap();
        let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
        let (beta, owner): (ServiceName, ServerName) = ("beta".parse().unwrap(), "nfs-a".parse().unwrap());
        store.claim(&beta, &Claim::new(Generation::FIRST, &owner, "agent", 0)).unwrap();
        let line = format!("0100007f 000186b5 00000003 00000010 {} 192.0.2.7 nfs-a\n", "0".repeat(32));
        let contents = Contents {
            records: [(MonName::parse("192.0.2.7").unwrap(), line.into_bytes())].into_iter().collect(),
            journal: Some(Journal { phase, ..Journal::quiet("run", &owner, 0) }),
            ..Contents::default()
        };
        store.begin_generation(&beta, Generation::FIRST, &contents).unwrap();
        let (before, calls) = (tree.listing(), tree.calls());
        let refused = crate::guard::switch::disable(&tree.host(), &settings, false, true).unwrap_err();
        assert!(refused.to_string().starts_with(expected), "{refused}");
        assert_eq!((tree.listing(), tree.calls()), (before, calls));
        let steps = disable(&tree.host(), &settings, false).unwrap();
        let left = outcomes(&steps, StepOutcome::Left);
        assert!(left.iter().any(|what| what.starts_with("lock manager two: beta is still this")), "{left:?}");
    }
}
