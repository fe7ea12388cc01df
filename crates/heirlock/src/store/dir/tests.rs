//! The troubles that only folders can have: other owners, volumes that are not mounted, and entries of other programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use heirlock_core::incarnation::Incarnation;
use heirlock_core::takeover::{Cause, Journal, Milestone, OutcomeLine, Part, Phase, Stamp, Trouble};
use heirlock_core::{Outcome, RecordKey, ServerName};
use heirlock_nsm::MonName;

use super::*;

const LINE: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";

fn service() -> ServiceName {
    ServiceName::parse("nfs-a").unwrap()
}

fn claim(generation: u64) -> Claim {
    let owner = ServerName::parse("a").unwrap();
    Claim::new(Generation(generation), &owner, "run-1", 7)
}

fn told(client: &str) -> OutcomeLine {
    OutcomeLine::new(RecordKey::parse(client).unwrap(), Outcome::Acknowledged, 7)
}

fn report() -> ServerReport {
    let server = ServerName::parse("a").unwrap();
    let json = format!(
        "{{\"server\": \"{server}\", \"agent\": \"r\", \"beat\": 1, \"paused\": false, \"written-at-s\": 1}}"
    );
    serde_json::from_str(&json).unwrap()
}

/// A temporary folder, and a store in it with one claim and one record.
fn begun() -> (tempfile::TempDir, PathBuf, DirStore) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = DirStore::create(&root).unwrap();
    store.claim(&service(), &claim(1)).unwrap();
    let records = [(MonName::parse("10.0.0.1").unwrap(), LINE)].into();
    let contents = Contents { records, outcomes: vec![told("one")], ..Contents::default() };
    store.begin_generation(&service(), Generation(1), &contents).unwrap();
    (folder, root, store)
}

/// Every call, and its error.
fn all_fail(store: &DirStore) -> Vec<String> {
    let (service, first) = (service(), Generation(1));
    let change = Change::put(MonName::parse("10.0.0.2").unwrap(), LINE);
    let answers = [
        store.probe().err(),
        store.services().err(),
        store.newest_claim(&service).err(),
        store.claim(&service, &claim(2)).err(),
        store.release(&service, first).err(),
        store.newest_generation(&service, first).err(),
        store.begin_generation(&service, first, &Contents::default()).err(),
        store.load(&service, first).err(),
        store.commit(&service, &claim(1), &[change]).err(),
        store.prune(&service, first).err(),
        store.put_server(&report()).err(),
        store.servers().err(),
    ];
    let error = |(i, error): (usize, Option<StoreError>)| {
        error.unwrap_or_else(|| panic!("call {i} should have failed")).to_string()
    };
    answers.into_iter().enumerate().map(error).collect()
}

fn paths_below(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry.clone());
            }
            paths.push(entry);
        }
    }
    paths
}

#[test]
fn nothing_is_written_below_a_mount_point_without_its_volume() {
    let (folder, volume, _) = begun();
    let mount_point = folder.path().join("mount-point");
    let store = DirStore::at(&mount_point);
    let expect = |what: &str, found: &str| {
        for error in all_fail(&store) {
            assert!(error.starts_with(&mount_point.display().to_string()), "{what}: {error}");
            for part in ["expected a folder that is a store", found, "mount the volume"] {
                assert!(error.contains(part), "{what}: {error}");
            }
        }
    };
    expect("not even a folder", "found nothing");
    fs::create_dir(&mount_point).unwrap();
    fs::set_permissions(&mount_point, Permissions::from_mode(0o700)).unwrap();
    expect("an empty mount point", "found a folder without the file heirlock-store");
    assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0);
    // Mounted, without a new start.
    fs::remove_dir(&mount_point).unwrap();
    fs::rename(&volume, &mount_point).unwrap();
    store.probe().unwrap();
    assert_eq!(store.newest_claim(&service()).unwrap(), Some(claim(1)));
    assert_eq!(store.claim(&service(), &claim(2)).unwrap(), ClaimAnswer::Won);
    // And gone again.
    fs::rename(&mount_point, &volume).unwrap();
    expect("a volume that is gone", "found nothing");
    assert!(!mount_point.exists());
}

#[test]
fn a_volume_that_goes_in_the_middle_of_a_call_does_not_look_empty() {
    let (_folder, root, store) = begun();
    fs::remove_file(root.join(MARKER)).unwrap();
    let nowhere = root.join("services/unknown/claims");
    assert!(store.numbers(&nowhere).is_err());
    assert!(store.read_if(&nowhere.join("1")).is_err());
    assert!(store.hidden(&nowhere).is_err());
}

#[test]
fn a_store_that_others_may_change_is_refused() {
    let (_folder, root, store) = begun();
    for (mode, found) in [(0o770, "mode 0770"), (0o702, "mode 0702"), (0o1777, "mode 1777")] {
        fs::set_permissions(&root, Permissions::from_mode(mode)).unwrap();
        assert!(DirStore::open(&root).is_err());
        for error in all_fail(&store) {
            let whole = error.contains(&root.display().to_string())
                && error.contains("expected a folder that only its owner writes")
                && error.contains(found)
                && error.contains("chmod 0700");
            assert!(whole, "{error}");
        }
    }
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    store.probe().unwrap();
}

#[test]
fn a_store_of_another_user_is_refused() {
    let us = rustix::process::geteuid().as_raw();
    let theirs = Owner { is_folder: true, uid: us + 1, mode: 0o700 };
    let error = check_owner(Path::new("/srv/store"), theirs).unwrap_err().to_string();
    let expected = format!(
        "/srv/store: expected a folder of user {us}, found one of user {}; give it to the user the agent runs as",
        us + 1
    );
    assert_eq!(error, expected);
    check_owner(Path::new("/srv/store"), Owner { uid: us, ..theirs }).unwrap();
    let (_folder, root, store) = begun();
    if std::os::unix::fs::chown(&root, Some(us + 1), None).is_err() {
        return crate::left_out::leave_out("root, which alone can give a folder away, for its last part");
    }
    for error in all_fail(&store) {
        assert!(error.contains(&format!("found one of user {}", us + 1)), "{error}");
    }
    assert!(DirStore::create(&root).is_err());
}

#[test]
fn a_folder_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let refused = |expected: &str| {
        let opened = DirStore::open(&root).err().map(|error| error.to_string()).unwrap_or_default();
        let created = DirStore::create(&root).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(opened.contains(expected) || created.contains(expected), "{opened} / {created}");
    };
    fs::write(&root, "").unwrap();
    refused("found something else; name the folder of the store");
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("letters"), "").unwrap();
    refused("expected an empty folder, found \"letters\" in it; choose a folder of its own");
    assert_eq!(paths_below(&root), [root.join("letters")]);
    fs::remove_file(root.join("letters")).unwrap();
    fs::write(root.join(MARKER), "heirlock store, format 9\n").unwrap();
    refused("found \"heirlock store, format 9\"; use the version that made this store");
}

#[test]
fn create_makes_all_folders_and_leaves_a_store_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("var/lib/store");
    DirStore::create(&root).unwrap().claim(&service(), &claim(1)).unwrap();
    let again = DirStore::create(&root).unwrap();
    assert_eq!(again.newest_claim(&service()).unwrap(), Some(claim(1)));
    for path in paths_below(&root) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
}

#[test]
fn a_generation_is_a_status_monitor_s_directory() {
    let (_folder, root, store) = begun();
    let contents = Contents { state: Some(StateNumber(7)), ..store.load(&service(), Generation(1)).unwrap() };
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    let generation = root.join("services/nfs-a/2");
    assert_eq!(fs::read(generation.join("sm/10.0.0.1")).unwrap(), LINE.as_bytes());
    assert_eq!(fs::read(generation.join("state")).unwrap(), StateNumber(7).render_file());
    assert!(generation.join("sm.bak").is_dir());
    assert_eq!(fs::read_dir(generation.join("sm")).unwrap().count(), 1);
}

/// One file, so that it is written and synced once.
#[test]
fn a_client_of_two_services_is_kept_in_one_file() {
    let (_folder, root, store) = begun();
    let other = ServiceName::parse("nfs-b").unwrap();
    store.claim(&other, &claim(1)).unwrap();
    store.begin_generation(&other, Generation(1), &Contents::default()).unwrap();
    let put = || vec![Change::put(MonName::parse("10.0.0.2").unwrap(), LINE)];
    let commit = |service: &ServiceName| Commit { service: service.clone(), by: claim(1), changes: put() };
    store.commit_each(&[commit(&service()), commit(&other)]).unwrap();
    let kept = |service: &str| fs::metadata(root.join(format!("services/{service}/1/sm/10.0.0.2"))).unwrap();
    assert_eq!(kept("nfs-a").ino(), kept("nfs-b").ino());
    assert_eq!(kept("nfs-a").nlink(), 2, "and nothing else is left of it");
}

/// So that ten thousand clients don't wait for as many files to be written.
#[test]
fn a_generation_shares_equal_records_with_the_one_before() {
    let (_folder, root, store) = begun();
    let [same, other, new] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|name| MonName::parse(name).unwrap());
    let another = LINE.replace("10.0.0.1", "10.0.0.2");
    store.commit(&service(), &claim(1), &[Change::put(other.clone(), LINE)]).unwrap();
    let mut records = heirlock_core::Records::from([(same.clone(), LINE)]);
    records.extend([other.clone(), new.clone()].map(|name| (name, another.as_str())));
    store
        .begin_generation(
            &service(),
            Generation(2),
            &Contents { records: records.clone(), ..Contents::default() },
        )
        .unwrap();
    let at = |generation: u32, name: &MonName| root.join(format!("services/nfs-a/{generation}/sm/{name}"));
    let inode = |generation, name| fs::metadata(at(generation, name)).unwrap().ino();
    assert_eq!(inode(1, &same), inode(2, &same));
    assert_ne!(inode(1, &other), inode(2, &other));
    assert_eq!(store.load(&service(), Generation(2)).unwrap().records, records);
    // A change of one leaves the other as it is.
    store.commit(&service(), &claim(2), &[Change::put(same.clone(), another.as_str())]).unwrap();
    assert_eq!(fs::read(at(1, &same)).unwrap(), LINE.as_bytes());
    assert_eq!(fs::read(at(1, &other)).unwrap(), LINE.as_bytes());
}

#[test]
fn a_torn_outcome_is_left_out_and_never_completed() {
    let (_folder, root, store) = begun();
    let path = root.join("services/nfs-a/1/outcomes");
    let text = |client: &str| serde_json::to_string(&told(client)).unwrap();
    fs::write(&path, format!("{}\n{}\n{}", text("one"), text("two"), text("three"))).unwrap();
    let outcomes = |store: &DirStore| store.load(&service(), Generation(1)).unwrap().outcomes;
    assert_eq!(outcomes(&store), ["one", "two"].map(told));
    store.commit(&service(), &claim(1), &[Change::AppendOutcome(told("four"))]).unwrap();
    assert_eq!(outcomes(&store), ["one", "two", "four"].map(told));
    let lines = format!("{}\n{}\n{}\n", text("one"), text("two"), text("four"));
    assert_eq!(fs::read_to_string(&path).unwrap(), lines);
}

#[test]
fn a_foreign_entry_of_a_generation_is_named_and_stays() {
    use std::os::unix::ffi::OsStrExt;
    let (_folder, root, store) = begun();
    let sm = root.join("services/nfs-a/1/sm");
    fs::write(sm.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), LINE).unwrap();
    fs::write(sm.join("10.0.0.2"), "").unwrap();
    fs::write(sm.join("10.0.0.3.new"), LINE).unwrap();
    fs::create_dir(sm.join("10.0.0.4")).unwrap();
    fs::write(root.join("services/nfs-a/1/state"), "7         ").unwrap();
    let found = store.load(&service(), Generation(1)).unwrap();
    let names: Vec<&str> = found.damaged.iter().map(|damaged| damaged.path.as_str()).collect();
    assert_eq!(names, ["sm/10.0.0.2", "sm/10.0.0.3.new", "sm/10.0.0.4", "sm/caf\\xe9", "state"]);
    assert!(found.damaged.iter().all(|damaged| !damaged.why.is_empty()), "{:?}", found.damaged);
    assert_eq!((found.records.len(), found.state), (1, None));
    store.commit(&service(), &claim(1), &[Change::AppendOutcome(told("x"))]).unwrap();
    assert_eq!(store.load(&service(), Generation(1)).unwrap().damaged, found.damaged);
}

#[test]
fn unfinished_entries_of_a_crash_are_swept_by_the_next_run() {
    let (_folder, root, store) = begun();
    store.claim(&service(), &claim(2)).unwrap();
    store.begin_generation(&service(), Generation(2), &Contents::default()).unwrap();
    let services = root.join("services/nfs-a");
    fs::create_dir_all(services.join(".1.9.00000000.0/sm")).unwrap();
    // Another server may be building this one just now.
    fs::create_dir_all(services.join(".3.9.00000000.0/sm")).unwrap();
    for left in ["2/sm/.9.00000000.1", "2/.9.00000000.2"] {
        fs::write(services.join(left), LINE).unwrap();
    }
    store.commit(&service(), &claim(2), &[Change::AppendOutcome(told("x"))]).unwrap();
    store.prune(&service(), Generation(2)).unwrap();
    let hidden: Vec<PathBuf> = paths_below(&services)
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    assert_eq!(hidden, [services.join(".3.9.00000000.0")]);
}

#[test]
fn a_damaged_claim_is_told_and_never_taken_for_none() {
    let (_folder, root, store) = begun();
    let path = root.join("services/nfs-a/claims/1");
    fs::write(&path, "{\"generation\": 1").unwrap();
    for error in [store.newest_claim(&service()).err(), store.claim(&service(), &claim(1)).err()] {
        let error = error.unwrap().to_string();
        assert!(
            error.contains(&path.display().to_string()) && error.contains("put the file back"),
            "{error}"
        );
    }
    fs::write(root.join("services/nfs-a/claims/+7"), "").unwrap();
    fs::write(root.join("services/nfs-a/claims/007"), "").unwrap();
    assert_eq!(store.numbers(&root.join("services/nfs-a/claims")).unwrap(), [Generation(1)]);
}

#[test]
fn heartbeats_that_make_no_sense_are_left_out() {
    let (_folder, root, store) = begun();
    store.put_server(&report()).unwrap();
    // Under another's name, and with another beat: it must not pass for the newest of its server.
    let stray = serde_json::to_vec(&ServerReport { beat: 9, ..report() }).unwrap();
    fs::write(root.join("servers/b"), stray).unwrap();
    fs::write(root.join("servers/c"), "").unwrap();
    let hearts = store.hearts().unwrap();
    assert_eq!(hearts.unreadable.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(hearts.reports.into_values().collect::<Vec<_>>(), [Arc::new(report())]);
}

/// A journal that earlier and later versions read, to the byte.
const JOURNAL: &str = r#"{
  "run": "run-1",
  "server": "nfs-b",
  "phase": "settling",
  "until": "settled",
  "cause": "owner-dead",
  "strategy": "notify",
  "convey": "generate",
  "members": [
    [
      "nfs-a",
      "target"
    ]
  ],
  "life": {
    "boot": "b",
    "start": "90@5",
    "reopened": 0
  },
  "life-before": {
    "boot": "b",
    "start": "80@4",
    "reopened": 0
  },
  "started-at-s": 7,
  "timeline": [
    {
      "event": "ready",
      "at-ms": -7
    }
  ],
  "failure": "two\nlines",
  "troubles": [
    {
      "service": "nfs-a",
      "entry": "sm/x",
      "why": "torn",
      "fate-unknown": true
    }
  ],
  "released-at-s": 9
}"#;

const OUTCOMES: &str = r#"{"client":"10.0.0.1","outcome":"re-registered","at-ms":12}
{"client":"h","outcome":"unreachable","at-ms":12,"why":"no \"answer\",\nnot one","is-final":true}
"#;

fn written_journal() -> Journal {
    let (us, nfs) = (ServerName::parse("nfs-b").unwrap(), service());
    let life = |start: &str| Incarnation { boot: "b".into(), start: start.into(), reopened: 0 };
    Journal {
        phase: Phase::Settling,
        cause: Cause::OwnerDead,
        members: vec![(nfs.clone(), Part::Target)],
        life: Some(life("90@5")),
        life_before: Some(life("80@4")),
        timeline: vec![Stamp { event: Milestone::Ready, at_ms: -7 }],
        failure: Some("two\nlines".into()),
        troubles: vec![Trouble {
            service: nfs,
            entry: "sm/x".into(),
            why: "torn".into(),
            fate_unknown: true,
        }],
        released_at_s: Some(9),
        ..Journal::quiet("run-1", &us, 7)
    }
}

fn written_outcomes() -> [OutcomeLine; 2] {
    let line = |client: &str, outcome| OutcomeLine::new(RecordKey::parse(client).unwrap(), outcome, 12);
    let why = Some("no \"answer\",\nnot one".to_owned());
    [
        line("10.0.0.1", Outcome::ReRegistered),
        OutcomeLine { why, is_final: true, ..line("h", Outcome::Unreachable) },
    ]
}

#[test]
fn a_journal_and_outcomes_are_written_as_every_version_reads_them() {
    let (_folder, root, store) = begun();
    let [first, second] = written_outcomes();
    let changes = [
        Change::PutJournal(Box::new(written_journal())),
        Change::AppendOutcome(first.clone()),
        Change::AppendOutcome(second.clone()),
    ];
    store.commit(&service(), &claim(1), &changes).unwrap();
    store.claim(&service(), &claim(2)).unwrap();
    let contents =
        Contents { journal: Some(written_journal()), outcomes: vec![first, second], ..Contents::default() };
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    let read = |name: &str| fs::read_to_string(root.join("services/nfs-a").join(name)).unwrap();
    assert_eq!(read("1/journal.json"), JOURNAL);
    assert_eq!(read("2/journal.json"), JOURNAL);
    assert!(read("1/outcomes").ends_with(&format!("\n{OUTCOMES}")), "{}", read("1/outcomes"));
    assert_eq!(read("2/outcomes"), OUTCOMES);
}

#[test]
fn a_place_of_the_store_is_shown_as_the_path_where_it_lies() {
    let (_folder, root, store) = begun();
    let (service, first) = (service(), Generation(1));
    let shown = [
        Place::Store,
        Place::Claim(&service, first),
        Place::Generation(&service, first),
        Place::Records(&service, first),
    ];
    let lies = ["", "services/nfs-a/claims/1", "services/nfs-a/1", "services/nfs-a/1/sm"];
    for (of, path) in shown.into_iter().zip(lies) {
        let path = if path.is_empty() { root.clone() } else { root.join(path) };
        assert_eq!((store.place(of), path.exists()), (path.display().to_string(), true));
    }
}
