use heirlock_core::drill::Finding as Meaning;

use super::*;
use crate::guard::testing::{SERVICE, Tree, fit, lock_manager, settings};

/// Where no rpcbind answers, so that no program of this machine is asked.
fn configured(more: &str) -> Settings {
    settings(&format!("[notify]\nrpcbind-port = 9\n{more}{SERVICE}"))
}

fn drilled(tree: &Tree, settings: &Settings) -> Vec<Check> {
    let lock_manager = lock_manager(tree, settings);
    check(&tree.host(), settings, lock_manager.as_ref(), &"nfs".parse().unwrap())
}

/// The findings of this kind, by their checks.
fn of(checks: &[Check], meaning: Meaning) -> Vec<&str> {
    checks.iter().filter(|check| check.finding == meaning).map(|check| check.check.as_str()).collect()
}

#[test]
fn what_adopt_refuses_for_fails_and_what_may_be_brought_before_it_is_not_checked() {
    let tree = fit();
    let well = drilled(&tree, &configured(""));
    assert_eq!((of(&well, Meaning::Unmet), of(&well, Meaning::Unchecked)), (vec![], vec![]), "{well:?}");
    tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
    tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n");
    let unmounted = drilled(&tree, &configured(""));
    assert_eq!(of(&unmounted, Meaning::Unmet), Vec::<&str>::new(), "{unmounted:?}");
    let volume = unmounted.iter().find(|check| check.check == "volume").unwrap();
    assert_eq!(volume.finding, Meaning::Unchecked);
    assert!(volume.remedy.as_ref().unwrap().ends_with(BROUGHT), "{volume:?}");
    // A hook brings it, and only an adoption runs that.
    let hook = drilled(&tree, &configured("[hooks]\nvolume-up = [\"true\"]\n"));
    assert_eq!(of(&hook, Meaning::Unchecked), Vec::<&str>::new(), "{hook:?}");
    let untried = hook.iter().find(|check| check.check == "untried").unwrap();
    assert!(untried.found.starts_with("the claim, 'restart-nfs', hooks.volume-up: "), "{untried:?}");
    tree.put("/proc/self/mounts", "f:/x /mnt/x nfs rw,vers=3 0 0\n/dev/drbd0 /srv ext4 rw 0 0\n");
    assert_eq!(of(&drilled(&tree, &configured("")), Meaning::Unmet), ["strategy"]);
}

#[test]
fn a_need_of_another_service_is_none_of_this_one() {
    // rpcbind answers here over IPv4 alone, so that an IPv6 address could not be served.
    let port = crate::fake_programs::rpcbind("127.0.0.1", 0, None);
    let configured = |address: &str| {
        let other =
            format!("[[service]]\nname = \"other\"\naddresses = [\"{address}\"]\nexports = [\"/nowhere\"]\n");
        settings(&format!("[notify]\nrpcbind-port = {port}\n{SERVICE}{other}"))
    };
    let settings = configured("2001:db8::99");
    let checks = drilled(&fit(), &settings);
    assert_eq!(
        (of(&checks, Meaning::Unmet), of(&checks, Meaning::Unchecked)),
        (vec![], vec![]),
        "{checks:?}"
    );
    assert!(checks.iter().all(|check| !check.found.contains("2001:db8::99")), "{checks:?}");
    let lock_manager = lock_manager(&fit(), &settings);
    let of_other = check(&fit().host(), &settings, lock_manager.as_ref(), &"other".parse().unwrap());
    assert!(of(&of_other, Meaning::Unmet).contains(&"addresses"), "{of_other:?}");
}

#[test]
fn the_guard_file_that_an_adoption_makes_anew_is_left_missing_and_no_reason_to_fail() {
    let tree = Tree::debian();
    let settings = configured("");
    crate::guard::enable(&tree.host(), &settings, false, heirlock_core::store_identity::Word::None).unwrap();
    tree.remove("/run/sm-notify.pid");
    tree.put("/etc/exports", "/srv/nfs *(rw,fsid=77)\n");
    tree.folder("/srv/nfs");
    let checks = drilled(&tree, &settings);
    let guard_file = checks.iter().find(|check| check.check == rivals::GUARD_FILE_CHECK).unwrap();
    assert_eq!(guard_file.finding, Meaning::Noted);
    assert!(guard_file.found.ends_with("an adoption makes it anew"), "{guard_file:?}");
    assert!(!tree.exists("/run/sm-notify.pid"), "a drill makes nothing");
}
