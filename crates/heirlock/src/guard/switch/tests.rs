use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use heirlock_core::claim::Claim;
use heirlock_core::store_identity::Word;
use heirlock_core::{Generation, ServiceName};
use heirlock_nsm::StateNumber;

use super::nfs_conf_file::DROP_IN as NFS_CONF_FILE;
use super::*;
use crate::guard::testing::{SERVICE, Tree, settings};
use crate::host::nfs_conf::NfsConf;
use crate::store::dir::DirStore;
use crate::store::{Contents, Store};

mod drills;
mod further;
mod idle;
mod modes;
mod read_only;

fn enable(host: &Host, settings: &Settings, plan: bool) -> Result<Vec<Step>, GuardError> {
    super::enable(host, settings, plan, Word::None)
}

fn disable(host: &Host, settings: &Settings, plan: bool) -> Result<Vec<Step>, GuardError> {
    super::disable(host, settings, plan, false)
}

/// The same where the store is spoken of.
fn enable_and_say(tree: &Tree, word: Word) -> Result<Vec<Step>, GuardError> {
    super::enable(&tree.host(), &settings(SERVICE), false, word)
}

fn on(tree: &Tree) -> Vec<Step> {
    enable(&tree.host(), &settings(SERVICE), false).unwrap()
}

fn off(tree: &Tree) -> Vec<Step> {
    disable(&tree.host(), &settings(SERVICE), false).unwrap()
}

fn outcomes(steps: &[Step], outcome: StepOutcome) -> Vec<&str> {
    steps.iter().filter(|step| step.outcome == outcome).map(|step| step.what.as_str()).collect()
}

/// Makes the named verb fail, before it does its work or after.
fn break_systemctl(tree: &Tree, verb: &str, after: bool) {
    let path = tree.host().systemctl.unwrap();
    let script = fs::read_to_string(&path).unwrap();
    let fail = format!("[ $1 = {verb} ] && exit 1\n");
    let broken = if after {
        format!("{script}{fail}exit 0\n")
    } else {
        script.replacen("#!/bin/sh\n", &format!("#!/bin/sh\n{fail}"), 1)
    };
    fs::write(&path, broken).unwrap();
}

#[test]
fn a_host_under_guard_has_no_hazard_and_comes_back_to_the_byte() {
    let tree = Tree::debian();
    let before = tree.listing();
    on(&tree);
    assert_eq!(rivals::hazards(&tree.host(), &settings(SERVICE)), []);
    assert!(
        tree.exists("/srv/heirlock/heirlock-store") && tree.exists("/etc/systemd/system/heirlock.service")
    );
    off(&tree);
    assert_eq!(tree.listing(), before);
    let enabled = ["mask rpc-statd-notify.service", "daemon-reload", "enable --now heirlock.service"];
    let disabled = ["disable --now heirlock.service", "unmask rpc-statd-notify.service", "daemon-reload"];
    assert_eq!(tree.calls(), [enabled, disabled].concat());
}

#[test]
fn a_file_that_was_in_the_place_of_ours_comes_back_too() {
    let tree = Tree::debian();
    tree.put(NFS_CONF_FILE, [b"# mine, \xff\n[nfsd]\nthreads=64\n".as_slice()].concat());
    fs::set_permissions(tree.host().at(NFS_CONF_FILE), fs::Permissions::from_mode(0o640)).unwrap();
    tree.put(rivals::GUARD_FILE, "123\n");
    fs::create_dir_all(tree.host().at("/srv/heirlock")).unwrap();
    fs::set_permissions(tree.host().at("/srv/heirlock"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = tree.listing();
    on(&tree);
    assert_ne!(tree.listing(), before);
    off(&tree);
    assert_eq!(tree.listing(), before);
}

#[test]
fn enable_said_twice_changes_what_it_changes_once() {
    let tree = Tree::debian();
    on(&tree);
    let (listing, calls) = (tree.listing(), tree.calls());
    let again = on(&tree);
    assert!(again.iter().all(|step| step.outcome == StepOutcome::AlreadySo), "{again:?}");
    assert_eq!((tree.listing(), tree.calls()), (listing, calls));
    off(&tree);
    assert_eq!(outcomes(&off(&tree), StepOutcome::AlreadySo).len(), 1, "nothing is left to give back");
}

#[test]
fn a_host_that_was_never_under_guard_is_left_alone() {
    let tree = Tree::debian();
    let before = tree.listing();
    let steps = off(&tree);
    assert!(steps[0].what.contains("not under heirlock's guard"), "{steps:?}");
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
}

#[test]
fn a_plan_says_what_would_be_done_and_does_nothing() {
    let tree = Tree::debian();
    let (host, settings) = (tree.host(), settings(SERVICE));
    let before = tree.listing();
    let planned = enable(&host, &settings, true).unwrap();
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
    let done = on(&tree);
    assert_eq!(outcomes(&planned, StepOutcome::Planned), outcomes(&done, StepOutcome::Done));
    let (before, calls) = (tree.listing(), tree.calls());
    let planned = disable(&host, &settings, true).unwrap();
    assert!(outcomes(&planned, StepOutcome::Planned).contains(&"unmask rpc-statd-notify.service"));
    assert_eq!((tree.listing(), tree.calls()), (before, calls));
}

#[test]
fn a_file_that_was_changed_since_is_named_and_nothing_is_touched() {
    let tree = Tree::debian();
    on(&tree);
    tree.put(NFS_CONF_FILE, "[sm-notify]\nlift-grace=y\n");
    tree.put(TMPFILES_FILE, "# edited\n");
    let (before, calls) = (tree.listing(), tree.calls());
    for run in [enable, disable] {
        let refused = run(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("{NFS_CONF_FILE}, {TMPFILES_FILE}: changed since")),
            "{refused}"
        );
    }
    assert_eq!((tree.listing(), tree.calls()), (before, calls));
    tree.remove(NFS_CONF_FILE);
    tree.remove(TMPFILES_FILE);
    off(&tree);
    assert!(!tree.exists("/var/lib/heirlock"));
}

#[test]
fn a_link_in_the_place_of_a_file_is_refused_before_anything_is_done() {
    let tree = Tree::debian();
    symlink("/etc/passwd", tree.host().at(TMPFILES_FILE)).unwrap();
    let before = tree.listing();
    let refused = enable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
    assert!(refused.contains(TMPFILES_FILE) && refused.contains("found a link"), "{refused}");
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_unit_that_was_masked_before_enable_stays_masked() {
    let tree = Tree::debian();
    symlink("/dev/null", tree.host().at("/etc/systemd/system/rpc-statd-notify.service")).unwrap();
    let before = tree.listing();
    on(&tree);
    off(&tree);
    assert_eq!(tree.listing(), before);
    assert!(!tree.calls().iter().any(|call| call.contains("mask")), "{:?}", tree.calls());
}

#[test]
fn a_run_that_failed_half_way_is_taken_back() {
    let verbs = ["mask", "daemon-reload", "enable"];
    for (verb, after) in verbs.iter().flat_map(|verb| [(*verb, false), (*verb, true)]) {
        let tree = Tree::debian();
        let before = tree.listing();
        let whole = fs::read_to_string(tree.host().systemctl.unwrap()).unwrap();
        break_systemctl(&tree, verb, after);
        let failed = enable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
        assert!(failed.contains(verb) && failed.contains("exit status 1"), "{failed}");
        assert!(
            failed.contains("\ndone before that: create the folder /var/lib/heirlock; create the folder")
                && failed.ends_with("'heirlock disable' takes all of it back"),
            "{failed}"
        );
        fs::write(tree.host().systemctl.unwrap(), whole).unwrap();
        off(&tree);
        assert_eq!(tree.listing(), before, "after a failed {verb}");
    }
}

#[test]
fn a_disable_that_failed_half_way_is_finished_by_the_next_one() {
    let tree = Tree::debian();
    let before = tree.listing();
    on(&tree);
    let whole = fs::read_to_string(tree.host().systemctl.unwrap()).unwrap();
    break_systemctl(&tree, "unmask", false);
    let failed = disable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
    assert!(failed.contains("\ndone before that: stop and disable heirlock.service; "), "{failed}");
    assert!(!tree.exists(UNIT_FILE) && tree.exists("/var/lib/heirlock/enabled.json"));
    fs::write(tree.host().systemctl.unwrap(), whole).unwrap();
    off(&tree);
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_run_that_failed_half_way_is_finished_by_the_next() {
    let tree = Tree::debian();
    let whole = fs::read_to_string(tree.host().systemctl.unwrap()).unwrap();
    break_systemctl(&tree, "enable", false);
    enable(&tree.host(), &settings(SERVICE), false).unwrap_err();
    fs::write(tree.host().systemctl.unwrap(), whole).unwrap();
    assert_eq!(outcomes(&on(&tree), StepOutcome::Done), ["enable and start heirlock.service"]);
}

#[test]
fn without_systemd_the_rest_is_done_all_the_same() {
    let tree = Tree::debian();
    let mut host = tree.host();
    host.systemctl = None;
    let before = tree.listing();
    let steps = enable(&host, &settings(SERVICE), false).unwrap();
    assert_eq!(rivals::hazards(&host, &settings(SERVICE)), []);
    assert!(outcomes(&steps, StepOutcome::Left)[0].contains("have your init start 'heirlock agent' at boot"));
    assert!(!tree.exists(UNIT_FILE));
    disable(&host, &settings(SERVICE), false).unwrap();
    assert_eq!((tree.listing(), tree.calls()), (before, vec![]));
}

#[test]
fn after_a_boot_the_guard_file_stays_as_sm_notifys_own_would() {
    let tree = Tree::debian();
    on(&tree);
    tree.put("/proc/sys/kernel/random/boot_id", "boot-2\n");
    let steps = off(&tree);
    assert!(tree.exists(rivals::GUARD_FILE));
    assert!(outcomes(&steps, StepOutcome::Left)[0].contains("stays until the next boot"), "{steps:?}");
}

#[test]
fn a_guard_file_that_a_boot_wiped_is_renewed_on_a_host_under_guard_alone() {
    let tree = Tree::debian();
    assert!(!renew(&tree.host(), &settings(SERVICE)).unwrap());
    assert!(!tree.exists(rivals::GUARD_FILE));
    on(&tree);
    assert!(!renew(&tree.host(), &settings(SERVICE)).unwrap(), "it is there");
    tree.remove(rivals::GUARD_FILE);
    assert!(renew(&tree.host(), &settings(SERVICE)).unwrap());
    assert!(tree.exists(rivals::GUARD_FILE));
}

#[test]
fn a_setting_that_overrides_ours_is_said_at_once() {
    let tree = Tree::debian();
    tree.put("/etc/nfs.conf.d/zzz.conf", "[sm-notify]\nlift-grace=y\n");
    let left = on(&tree);
    assert!(outcomes(&left, StepOutcome::Left)[0].contains("zzz.conf says lift-grace=y"), "{left:?}");
}

#[test]
fn records_outlive_the_guard_and_their_number_reaches_the_status_monitor() {
    let tree = Tree::debian();
    on(&tree);
    let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
    let service: ServiceName = "nfs".parse().unwrap();
    let owner = "nfs-a".parse().unwrap();
    let generation = Generation::FIRST;
    let claim = Claim::new(generation, &owner, "agent", 0);
    store.claim(&service, &claim).unwrap();
    let contents = Contents { state: Some(StateNumber(0x0102_0305)), ..Contents::default() };
    store.begin_generation(&service, generation, &contents).unwrap();
    let state = tree.host().at("/var/lib/nfs/state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o604)).unwrap();
    let steps = off(&tree);
    assert!(outcomes(&steps, StepOutcome::Left)[0].contains("stays with all its records"), "{steps:?}");
    assert!(outcomes(&steps, StepOutcome::Left)[1].starts_with("nfs is still this server's"), "{steps:?}");
    assert_eq!(store.newest_claim(&service).unwrap(), Some(claim));
    assert_eq!(fs::read(&state).unwrap(), StateNumber(0x0102_0305).render_file());
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o604);
    let after = StateNumber::after_restart(StateNumber::parse_file(&fs::read(&state).unwrap()).ok());
    assert!(after.0 > 0x0102_0305, "sm-notify never repeats it");
}

#[test]
fn a_higher_number_stays_and_one_of_a_foreign_format_is_left_alone() {
    for (bytes, said) in [
        (&StateNumber(0x7000_0001).render_file()[..], StepOutcome::AlreadySo),
        (b"101       ".as_slice(), StepOutcome::Left),
    ] {
        let tree = Tree::debian();
        on(&tree);
        let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
        let mut report = crate::guard::testing::report("nfs-a", 1);
        report.state = Some(101);
        store.put_server(&report).unwrap();
        tree.put("/var/lib/nfs/state", bytes);
        let steps = off(&tree);
        let about: Vec<_> = steps.iter().filter(|step| step.what.contains("/var/lib/nfs/state")).collect();
        assert_eq!(about[0].outcome, said, "{steps:?}");
        assert_eq!(fs::read(tree.host().at("/var/lib/nfs/state")).unwrap(), bytes);
    }
}

#[test]
fn a_store_that_is_away_is_said_to_hide_the_number() {
    let tree = Tree::debian();
    on(&tree);
    fs::rename(tree.host().at("/srv/heirlock"), tree.host().at("/srv/away")).unwrap();
    let steps = off(&tree);
    assert!(outcomes(&steps, StepOutcome::Left)[0].contains("the highest number that was sent is unknown"));
}

#[test]
fn no_store_is_made_in_the_place_of_a_volume_that_is_not_mounted() {
    for (named_by, text) in [
        ("/etc/fstab", "# volumes\n/dev/sda1 / ext4 defaults 0 1\n/dev/drbd0 /srv ext4 noauto 0 2\n"),
        ("/usr/lib/systemd/system/srv.mount", "[Mount]\nWhat=/dev/drbd0\nWhere=/srv\n"),
    ] {
        let tree = Tree::debian();
        tree.put(named_by, text);
        let before = tree.listing();
        let refused = enable_and_say(&tree, Word::None).unwrap_err();
        assert!(matches!(refused, GuardError::Refused { .. }));
        let said = refused.to_string();
        for part in ["/srv/heirlock: expected a store on /srv, which is not mounted: mount it", "--new-store"]
        {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!((tree.listing(), tree.calls()), (before, vec![]), "nothing was touched");
        tree.put("/proc/self/mounts", "/dev/sda1 / ext4 rw 0 0\n/dev/drbd0 /srv ext4 rw 0 0\n");
        let done = on(&tree);
        assert!(outcomes(&done, StepOutcome::Done).contains(&"make /srv/heirlock a new store"), "{done:?}");
        assert!(tree.exists("/srv/heirlock/heirlock-store"));
    }
}

#[test]
fn a_server_that_gets_the_volume_later_is_put_under_guard_without_a_store() {
    let tree = Tree::debian();
    let before = tree.listing();
    tree.put("/etc/fstab", "/dev/drbd0 /srv ext4 noauto 0 2\n");
    let steps = enable_and_say(&tree, Word::WithoutStore).unwrap();
    assert!(outcomes(&steps, StepOutcome::Left)[0].contains("no store in /srv/heirlock now"), "{steps:?}");
    assert!(!tree.exists("/srv/heirlock"));
    assert_eq!(rivals::hazards(&tree.host(), &settings(SERVICE)), []);
    off(&tree);
    tree.remove("/etc/fstab");
    assert_eq!(tree.listing(), before);
}

/// The whole folder goes elsewhere, as with a volume that is unmounted.
fn unmount(tree: &Tree) {
    fs::rename(tree.host().at("/srv/heirlock"), tree.host().at("/srv/elsewhere")).unwrap();
}

#[test]
fn a_server_that_had_a_store_makes_no_other_one_in_its_place() {
    let tree = Tree::debian();
    on(&tree);
    unmount(&tree);
    for what in ["nothing at all", "an empty folder"] {
        let (before, calls) = (tree.listing(), tree.calls());
        let refused = enable_and_say(&tree, Word::None).unwrap_err().to_string();
        assert!(refused.starts_with("/srv/heirlock: expected store "), "{what}: {refused}");
        assert!(refused.contains("…, found none: is its volume mounted?"), "{what}: {refused}");
        assert_eq!((tree.listing(), tree.calls()), (before, calls), "{what}");
        tree.folder("/srv/heirlock");
    }
    // And one that is there already is no better.
    fs::remove_dir(tree.host().at("/srv/heirlock")).unwrap();
    DirStore::create(&tree.host().at("/srv/heirlock")).unwrap();
    let refused = enable_and_say(&tree, Word::None).unwrap_err();
    assert!(matches!(refused, GuardError::Refused { .. }));
    assert!(refused.to_string().contains("…, found a new one: is its volume mounted?"), "{refused}");
    // Mounted again, all is as it was.
    fs::remove_dir_all(tree.host().at("/srv/heirlock")).unwrap();
    fs::rename(tree.host().at("/srv/elsewhere"), tree.host().at("/srv/heirlock")).unwrap();
    assert!(on(&tree).iter().all(|step| step.outcome == StepOutcome::AlreadySo));
}

#[test]
fn another_store_is_made_or_accepted_where_the_operator_says_so() {
    let tree = Tree::debian();
    on(&tree);
    unmount(&tree);
    let steps = enable_and_say(&tree, Word::NewStore).unwrap();
    assert_eq!(outcomes(&steps, StepOutcome::Done), ["make /srv/heirlock a new store"]);
    assert!(on(&tree).iter().all(|step| step.outcome == StepOutcome::AlreadySo), "it is remembered");
    // The first one is another one now.
    fs::rename(tree.host().at("/srv/heirlock"), tree.host().at("/srv/new")).unwrap();
    fs::rename(tree.host().at("/srv/elsewhere"), tree.host().at("/srv/heirlock")).unwrap();
    enable_and_say(&tree, Word::None).unwrap_err();
    let steps = enable_and_say(&tree, Word::NewStore).unwrap();
    assert!(outcomes(&steps, StepOutcome::Done)[0].starts_with("use the store that lies in"), "{steps:?}");
    assert!(on(&tree).iter().all(|step| step.outcome == StepOutcome::AlreadySo));
}

/// An earlier version remembered no store, and made stores without an identity.
#[test]
fn a_host_of_an_earlier_version_had_a_store_too() {
    let tree = Tree::debian();
    on(&tree);
    tree.remove("/var/lib/heirlock/store.json");
    tree.remove("/srv/heirlock/identity");
    let refused = enable_and_say(&tree, Word::None).unwrap_err().to_string();
    assert!(refused.contains("found a new one"), "nothing was ever claimed in it: {refused}");
    let store = DirStore::open(&tree.host().at("/srv/heirlock")).unwrap();
    let claim = Claim::new(Generation::FIRST, &"nfs-a".parse().unwrap(), "agent", 0);
    store.claim(&"nfs".parse().unwrap(), &claim).unwrap();
    let done = on(&tree);
    let expected = "give the store in /srv/heirlock, of an earlier version, an identity";
    assert_eq!(outcomes(&done, StepOutcome::Done), [expected]);
    tree.remove("/var/lib/heirlock/store.json");
    unmount(&tree);
    let refused = enable_and_say(&tree, Word::None).unwrap_err().to_string();
    assert!(refused.contains("expected the store that this server had before, found none"), "{refused}");
}

#[test]
fn a_text_of_an_earlier_version_is_ours_too() {
    let tree = Tree::debian();
    let before = tree.listing();
    on(&tree);
    let path = Run::memory_path(&tree.host(), &settings(SERVICE));
    let memory =
        fs::read_to_string(&path).unwrap().replace("ExecStart=", "# of an earlier version\\nExecStart=");
    fs::write(&path, memory).unwrap();
    let unit = fs::read_to_string(tree.host().at(UNIT_FILE)).unwrap();
    tree.put(UNIT_FILE, unit.replace("ExecStart=", "# of an earlier version\nExecStart="));
    let done = on(&tree);
    assert_eq!(
        outcomes(&done, StepOutcome::Done),
        ["replace /etc/systemd/system/heirlock.service", "enable and start heirlock.service"]
    );
    assert_eq!(fs::read_to_string(tree.host().at(UNIT_FILE)).unwrap(), unit);
    off(&tree);
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_shipped_unit_does_what_it_says() {
    let tree = Tree::new();
    let ours = nfs_conf_file::ours(&tree.host(), &settings(SERVICE));
    assert_eq!(ours.path, Path::new(NFS_CONF_FILE));
    tree.put(NFS_CONF_FILE, ours.text);
    assert_eq!(NfsConf::read(&tree.host()).get_bool("sm-notify", "lift-grace"), Some(false));
    assert!(TMPFILES_TEXT.lines().any(|line| line.starts_with(&format!("f {} ", rivals::GUARD_FILE))));
    assert!(UNIT_TEXT.contains(&format!("ExecStart={PROGRAM} agent\n")));
    let before = UNIT_TEXT.lines().find_map(|line| line.strip_prefix("Before=")).unwrap();
    assert!(before.contains("nfs-server.service") && before.contains("rpc-statd.service"));
}

#[test]
fn a_package_brings_its_own_unit() {
    let tree = Tree::debian();
    tree.put("/lib/systemd/system/heirlock.service", UNIT_TEXT);
    on(&tree);
    assert!(!tree.exists(UNIT_FILE));
    assert!(tree.calls().contains(&"enable --now heirlock.service".to_owned()));
}

/// SUSE's, shortened: nfs-utils before 2.5.3, which read no folder beside it.
const WITHOUT_FOLDER: &str =
    "[environment]\ninclude = /etc/sysconfig/nfs\ninclude = /etc/nfs.conf.local\n[statd]\nport=$STATD_PORT\n";

#[test]
fn where_no_folder_is_read_our_lines_go_where_they_count_and_come_out_again() {
    for (main, local, written) in [
        (WITHOUT_FOLDER, None, "/etc/nfs.conf.local"),
        (WITHOUT_FOLDER, Some("[nfsd]\nthreads=8\n"), "/etc/nfs.conf.local"),
        (&format!("{WITHOUT_FOLDER}[sm-notify]\nlift-grace=y\n"), Some("# none\n"), "/etc/nfs.conf"),
        ("[nfsd]\nthreads=8\n# no newline", None, "/etc/nfs.conf"),
    ] {
        let tree = Tree::debian();
        tree.nfsconf(false);
        tree.put("/etc/nfs.conf", main);
        if let Some(local) = local {
            tree.put("/etc/nfs.conf.local", local);
        }
        fs::set_permissions(tree.host().at("/etc/nfs.conf"), fs::Permissions::from_mode(0o640)).unwrap();
        let before = tree.listing();
        let planned = enable(&tree.host(), &settings(SERVICE), true).unwrap();
        assert_eq!(tree.listing(), before);
        let done = on(&tree);
        assert_eq!(outcomes(&planned, StepOutcome::Planned), outcomes(&done, StepOutcome::Done));
        assert!(done.iter().any(|step| step.what.ends_with("nfsconf confirms lift-grace=n")), "{done:?}");
        assert!(done.iter().any(|step| step.what.ends_with(written)), "{done:?}");
        assert!(!tree.exists(NFS_CONF_FILE));
        assert_eq!(rivals::hazards(&tree.host(), &settings(SERVICE)), []);
        assert!(on(&tree).iter().all(|step| step.outcome == StepOutcome::AlreadySo));
        off(&tree);
        assert_eq!(tree.listing(), before, "{main:?} {local:?}");
    }
}

#[test]
fn lines_that_others_write_beside_ours_stay_theirs() {
    let tree = Tree::debian();
    tree.nfsconf(false);
    tree.put("/etc/nfs.conf", "[nfsd]\nthreads=8\n");
    on(&tree);
    let text = fs::read_to_string(tree.host().at("/etc/nfs.conf")).unwrap();
    tree.put("/etc/nfs.conf", format!("{}[mountd]\nport=1\n", text.replace("threads=8", "threads=16")));
    assert!(
        on(&tree).iter().all(|step| step.outcome == StepOutcome::AlreadySo || step.what.contains("nfs.conf"))
    );
    off(&tree);
    let text = fs::read_to_string(tree.host().at("/etc/nfs.conf")).unwrap();
    assert_eq!(text, "[nfsd]\nthreads=16\n[mountd]\nport=1\n");

    on(&tree);
    let text = fs::read_to_string(tree.host().at("/etc/nfs.conf")).unwrap();
    tree.put("/etc/nfs.conf", text.replace("lift-grace=n", "lift-grace=y"));
    let refused = disable(&tree.host(), &settings(SERVICE), false).unwrap_err().to_string();
    assert!(refused.starts_with("/etc/nfs.conf: changed since"), "{refused}");
}

#[test]
fn where_the_folder_is_read_since_an_update_our_lines_move_there() {
    let tree = Tree::debian();
    tree.nfsconf(false);
    let callout = crate::guard::testing::in_mode("callout");
    fs::set_permissions(tree.host().at("/usr/bin/heirlock"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = tree.listing();
    enable(&tree.host(), &callout, false).unwrap();
    assert!(tree.host().text("/etc/nfs.conf").unwrap().contains("ha-callout="));
    tree.nfsconf(true);
    on(&tree);
    assert!(tree.exists(NFS_CONF_FILE) && !tree.host().text("/etc/nfs.conf").unwrap().contains("heirlock"));
    off(&tree);
    assert_eq!(tree.listing(), before);
}

#[test]
fn a_unit_of_the_administrators_own_is_left_and_said() {
    let tree = Tree::debian();
    tree.put("/etc/systemd/system/rpc-statd-notify.service", "[Service]\nExecStart=/usr/sbin/sm-notify\n");
    let before = tree.listing();
    let steps = on(&tree);
    let left = outcomes(&steps, StepOutcome::Left);
    assert!(left[0].contains("can't be masked") && left[1].contains("is not masked"), "{left:?}");
    off(&tree);
    assert_eq!(tree.listing(), before);
}

/// With a mount namespace of its own the unit would keep to itself what a hook mounts (systemd.exec(5)).
#[test]
fn the_unit_is_hardened_and_its_hooks_can_still_mount_signal_and_set_addresses() {
    let keys: Vec<(&str, &str)> = UNIT_TEXT.lines().filter_map(|line| line.split_once('=')).collect();
    for key in [
        "NoNewPrivileges",
        "LockPersonality",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
        "RestrictAddressFamilies",
        "SystemCallArchitectures",
        "SystemCallFilter",
        "CapabilityBoundingSet",
    ] {
        assert!(keys.iter().any(|(known, _)| *known == key), "{key}");
    }
    for (key, value) in &keys {
        let narrows = [
            "Protect",
            "Private",
            "ReadOnly",
            "ReadWrite",
            "Inaccessible",
            "NoExec",
            "Exec",
            "Bind",
            "TemporaryFile",
            "Mount",
            "Root",
            "Device",
        ];
        let starts = ["ExecStart"].contains(key);
        assert!(starts || !narrows.iter().any(|word| key.starts_with(word)), "{key}={value}");
        for needed in [
            "SYS_ADMIN",
            "NET_ADMIN",
            "NET_RAW",
            "NET_BIND",
            "CAP_KILL",
            "SYS_PTRACE",
            "SYS_MODULE",
            "MKNOD",
            "CHOWN",
            "DAC_",
            "SYS_RAWIO",
            "SETUID",
            "SETGID",
            "SYS_RESOURCE",
            "SYS_NICE",
            "IPC_LOCK",
        ] {
            assert!(*key != "CapabilityBoundingSet" || !value.contains(needed), "{value}");
        }
        for needed in ["@mount", "@signal", "@network-io", "@module", "@reboot", "@privileged", "@resources"]
        {
            assert!(*key != "SystemCallFilter" || !value.contains(needed), "{value}");
        }
    }
}
