//! An entry that is none of the store's concerns itself alone, of any kind and in any place.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use heirlock_core::takeover::{Journal, OutcomeLine};
use heirlock_core::{Outcome, RecordKey, ServerName};
use heirlock_nsm::MonName;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::store::DamagedPart;

const LINE: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";

type Plant = fn(&Path);

/// Entries that are no file, by their kind.
const NO_FILES: [(&str, Plant); 6] = [
    ("pipe", |path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()),
    ("socket", |path| drop(UnixListener::bind(path).unwrap())),
    ("folder", |path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("inside"), "text").unwrap();
    }),
    ("link to a device", |path| symlink("/dev/zero", path).unwrap()),
    ("link to a file", |path| symlink("/etc/hostname", path).unwrap()),
    ("link to nothing", |path| symlink("nowhere", path).unwrap()),
];

/// A file, but none that can be read: 8 GiB that take up no room, and an empty one.
const BAD_FILES: [(&str, Plant); 2] = [
    ("endless", |path| fs::File::create(path).unwrap().set_len(8 << 30).unwrap()),
    ("empty", |path| drop(fs::File::create(path).unwrap())),
];

fn all() -> impl Iterator<Item = (&'static str, Plant)> {
    NO_FILES.into_iter().chain(BAD_FILES)
}

fn service() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn client(last: u8) -> MonName {
    MonName::from_address([10, 0, 0, last].into())
}

fn claim(generation: u64) -> Claim {
    Claim::new(Generation(generation), &"nfs-a".parse().unwrap(), "run", 7)
}

fn journal() -> Journal {
    Journal::quiet("run", &"nfs-a".parse().unwrap(), 7)
}

fn told(client: &str) -> OutcomeLine {
    OutcomeLine::new(RecordKey::parse(client).unwrap(), Outcome::Acknowledged, 7)
}

fn report(server: &str, beat: u64) -> ServerReport {
    ServerReport { beat, ..ServerReport::new(server.parse().unwrap(), "run") }
}

/// A store with one claim and one record, and where its service lies.
fn begun() -> (tempfile::TempDir, PathBuf, DirStore) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = DirStore::create(&root).unwrap();
    store.claim(&service(), &claim(1)).unwrap();
    let records = [(client(1), LINE)].into();
    let contents = Contents { records, ..Contents::default() };
    store.begin_generation(&service(), Generation(1), &contents).unwrap();
    let at = root.join("services/nfs");
    (folder, at, store)
}

#[test]
fn a_record_that_is_no_file_is_named_with_its_client_and_all_others_are_loaded() {
    for (what, plant) in all() {
        let (_folder, at, store) = begun();
        plant(&at.join("1/sm/10.0.0.2"));
        let found = store.load(&service(), Generation(1)).unwrap();
        assert_eq!(found.records.len(), 1, "{what}");
        let [damaged] = found.damaged.as_slice() else { panic!("{what}: {:?}", found.damaged) };
        assert_eq!(damaged.part, DamagedPart::Record(Some(client(2).into())), "{what}");
        // It is written and removed as any other.
        let mend = [Change::put(client(2), LINE), Change::put(client(3), LINE)];
        store.commit(&service(), &claim(1), &mend).unwrap();
        let found = store.load(&service(), Generation(1)).unwrap();
        assert_eq!((found.records.len(), found.damaged), (3, vec![]), "{what}");
    }
    for (what, plant) in all() {
        let (_folder, at, store) = begun();
        plant(&at.join("1/sm/10.0.0.2"));
        let remove = [Change::remove(client(2)), Change::put(client(3), LINE)];
        store.commit(&service(), &claim(1), &remove).unwrap();
        let found = store.load(&service(), Generation(1)).unwrap();
        assert_eq!((found.records.len(), found.damaged), (2, vec![]), "{what}");
    }
}

#[test]
fn an_entry_beside_the_records_that_is_no_file_leaves_them_readable() {
    for (what, plant) in all() {
        for name in ["state", "journal.json", "outcomes"] {
            let (_folder, at, store) = begun();
            let _ = fs::remove_file(at.join("1").join(name));
            plant(&at.join("1").join(name));
            let found = store.load(&service(), Generation(1)).unwrap();
            assert_eq!(found.records.len(), 1, "{what}, {name}");
            if what != "empty" {
                assert_eq!(found.left_alone().count(), 1, "{what}, {name}: {:?}", found.damaged);
            }
            let (journal, told) = (journal(), told("10.0.0.1"));
            let go_on = [Change::PutJournal(Box::new(journal.clone())), Change::AppendOutcome(told.clone())];
            store.commit(&service(), &claim(1), &go_on).unwrap();
            let found = store.load(&service(), Generation(1)).unwrap();
            assert_eq!((found.journal, found.outcomes), (Some(journal), vec![told]));
        }
    }
}

#[test]
fn a_journal_without_sense_is_none_and_outcomes_without_sense_are_left_out() {
    let (_folder, at, store) = begun();
    let lines = ["10.0.0.1", "10.0.0.2"].map(|client| serde_json::to_string(&told(client)).unwrap());
    let [first, second] = &lines;
    fs::write(at.join("1/outcomes"), format!("torn\n{first}\n\n{{}}\n{second}\n{first}")).unwrap();
    let long = format!("{{\"run\": \"r\", \"server\": \"a\", \"phase\": \"{}\"}}", "x".repeat(9_000));
    for text in [&b""[..], b"torn", b"{}", b"[]", b"{\"run\": \"r\xe4", long.as_bytes()] {
        fs::write(at.join("1/journal.json"), text).unwrap();
        let found = store.load(&service(), Generation(1)).unwrap();
        let why = found.senseless_journal().unwrap().to_owned();
        assert!(!why.is_empty() && why.chars().count() <= FOUND_CHARS_MAX + 1, "{why}");
        assert_eq!((found.journal, found.records.len()), (None, 1), "{}", text.escape_ascii());
        assert_eq!((found.damaged.len(), found.damaged[0].is_named()), (1, false), "{}", text.escape_ascii());
        assert_eq!(found.outcomes, [told("10.0.0.1"), told("10.0.0.2")], "{}", text.escape_ascii());
        let account = store.account(&service(), Generation(1)).unwrap();
        assert_eq!((account.journal, account.outcomes), (None, found.outcomes), "{}", text.escape_ascii());
    }
    store.commit(&service(), &claim(1), &[Change::PutJournal(Box::new(journal()))]).unwrap();
    let found = store.load(&service(), Generation(1)).unwrap();
    assert_eq!((found.journal, found.damaged), (Some(journal()), vec![]));
}

#[test]
fn an_entry_among_the_claims_that_is_no_file_is_no_claim() {
    for (what, plant) in NO_FILES {
        let (_folder, at, store) = begun();
        plant(&at.join("claims/2"));
        plant(&at.join("claims/7"));
        plant(&at.join("claims/1.released"));
        let newest = store.newest_claim(&service()).unwrap().unwrap();
        assert_eq!((newest.generation, newest.released), (Generation(1), false), "{what}");
        assert_eq!(store.claim(&service(), &claim(2)).unwrap(), ClaimAnswer::Won, "{what}");
        assert_eq!(store.claim(&service(), &claim(2)).unwrap(), ClaimAnswer::Won, "{what}: repeated");
        assert_eq!(store.newest_claim(&service()).unwrap(), Some(claim(2)), "{what}");
        assert_eq!(store.services().unwrap(), [service()]);
    }
}

#[test]
fn an_entry_among_the_generations_that_is_no_folder_is_no_generation() {
    for (what, plant) in all().filter(|(what, _)| *what != "folder") {
        let (_folder, at, store) = begun();
        plant(&at.join("2"));
        plant(&at.join("9"));
        let newest = store.newest_generation(&service(), Generation(9)).unwrap();
        assert_eq!(newest, Some(Generation(1)), "{what}");
        let contents = store.load(&service(), Generation(1)).unwrap();
        store.begin_generation(&service(), Generation(2), &contents).unwrap();
        assert_eq!(store.load(&service(), Generation(2)).unwrap(), contents, "{what}");
        store.prune(&service(), Generation(2)).unwrap();
    }
}

#[test]
fn an_entry_among_the_heartbeats_that_is_no_file_stops_no_heart() {
    for (what, plant) in all() {
        let (_folder, at, store) = begun();
        let servers = at.join("../../servers");
        plant(&servers.join("nfs-a"));
        plant(&servers.join("nfs-b"));
        store.put_server(&report("nfs-c", 1)).unwrap();
        let hearts = store.hearts().unwrap();
        assert_eq!(hearts.reports.len(), 1, "{what}");
        let named: Vec<&str> = hearts.unreadable.keys().map(String::as_str).collect();
        assert_eq!(named, ["nfs-a", "nfs-b"], "{what}");
        store.put_server(&report("nfs-a", 2)).unwrap();
        let hearts = store.hearts().unwrap();
        assert_eq!((hearts.reports.len(), hearts.unreadable.len()), (2, 1), "{what}");
    }
}

#[test]
fn an_entry_that_is_no_service_leaves_the_services_readable() {
    for (what, plant) in all() {
        let (_folder, at, store) = begun();
        plant(&at.join("../other"));
        fs::create_dir(at.join("../third")).unwrap();
        plant(&at.join("../third/claims"));
        assert_eq!(store.services().unwrap(), [service()], "{what}");
    }
}

#[test]
fn of_a_heartbeat_no_more_is_read_and_repeated_than_a_bound() {
    let (folder, _at, store) = begun();
    let servers = folder.path().join("store/servers");
    store.put_server(&report("nfs-a", 1)).unwrap();
    let padded = format!("{{\"server\": \"nfs-b\"{}}}", " ".repeat(HEARTBEAT_BYTES_MAX));
    fs::write(servers.join("nfs-b"), padded).unwrap();
    let talkative = format!("{{\"server\": \"nfs-c\", \"beat\": \"{}\"}}", "x".repeat(1_000_000));
    fs::write(servers.join("nfs-c"), talkative).unwrap();
    let found = store.hearts().unwrap();
    assert_eq!(found.reports.len(), 1);
    let why = |entry: &str| found.unreadable[entry].clone();
    assert!(why("nfs-b").contains(&format!("at most {HEARTBEAT_BYTES_MAX} bytes")), "{}", why("nfs-b"));
    assert!(why("nfs-c").contains("expected JSON") && why("nfs-c").len() < 2_000, "{}", why("nfs-c").len());
}

#[test]
fn a_link_in_the_store_leads_nowhere() {
    let (folder, at, store) = begun();
    let outside = folder.path().join("outside");
    fs::create_dir_all(outside.join("sm")).unwrap();
    fs::write(outside.join("secret"), "only for root").unwrap();
    symlink(&outside, at.join("2")).unwrap();
    assert_eq!(store.newest_generation(&service(), Generation(2)).unwrap(), Some(Generation(1)));
    store.load(&service(), Generation(2)).unwrap_err();
    store.commit(&service(), &claim(2), &[Change::put(client(1), LINE)]).unwrap_err();
    symlink(outside.join("secret"), at.join("1/sm/10.0.0.2")).unwrap();
    fs::remove_file(at.join("1/outcomes")).unwrap_or_default();
    symlink(outside.join("secret"), at.join("1/outcomes")).unwrap();
    let changes = [Change::put(client(2), LINE), Change::AppendOutcome(told("10.0.0.1"))];
    store.commit(&service(), &claim(1), &changes).unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "only for root");
    assert_eq!(fs::read_dir(outside.join("sm")).unwrap().count(), 0);
}

#[test]
fn the_longest_names_are_kept_and_removed() {
    let (_folder, _at, store) = begun();
    let longest = MonName::parse(&"x".repeat(heirlock_nsm::limits::FILE_NAME_BYTES_MAX)).unwrap();
    let server = ServerName::parse(&"s".repeat(heirlock_core::limits::SERVER_NAME_BYTES_MAX)).unwrap();
    let host = ServiceName::host(&server);
    store.put_server(&ServerReport::new(server.clone(), "run")).unwrap();
    assert!(store.servers().unwrap().contains_key(&server));
    assert_eq!(store.claim(&host, &claim(1)).unwrap(), ClaimAnswer::Won);
    assert_eq!(store.services().unwrap(), [host.clone(), service()]);
    let records = [(longest.clone(), LINE)].into();
    let contents = Contents { records, ..Contents::default() };
    store.begin_generation(&host, Generation(1), &contents).unwrap();
    store.commit(&host, &claim(1), &[Change::put(longest.clone(), LINE)]).unwrap();
    assert_eq!(store.load(&host, Generation(1)).unwrap(), contents);
    store.commit(&host, &claim(1), &[Change::remove(longest)]).unwrap();
    assert_eq!(store.load(&host, Generation(1)).unwrap().records.len(), 0);
    store.release(&host, Generation(1)).unwrap();
}

/// A store whose one generation has a journal.
fn begun_with_journal() -> (tempfile::TempDir, PathBuf, DirStore) {
    let (folder, at, store) = begun();
    store.commit(&service(), &claim(1), &[Change::PutJournal(Box::new(journal()))]).unwrap();
    (folder, at, store)
}

#[test]
fn the_text_of_an_unreadable_claim_is_told_by_the_generation_that_it_began() {
    let gone: (&str, Plant) = ("nothing", |_| {});
    let of_another: (&str, Plant) = ("the claim of another generation", |path| {
        fs::write(path, serde_json::to_string(&claim(9)).unwrap()).unwrap();
    });
    for (what, plant) in all().chain([gone, of_another]) {
        let (_folder, at, store) = begun_with_journal();
        fs::remove_file(at.join("claims/1")).unwrap();
        plant(&at.join("claims/1"));
        let told = store.newest_claim(&service()).unwrap().unwrap();
        assert_eq!((told.generation, told.owner.as_str()), (Generation(1), "nfs-a"), "{what}");
        assert!(told.unreadable.is_some() && !told.released, "{what}: {told:?}");
        assert_eq!(store.services().unwrap(), [service()], "{what}");
        // Its number stays used.
        let Ok(ClaimAnswer::Taken(_)) = store.claim(&service(), &claim(1)) else { panic!("{what}") };
        store.release(&service(), Generation(1)).unwrap();
        assert!(store.newest_claim(&service()).unwrap().unwrap().released, "{what}");
        store.restore_claim(&service(), &claim(1)).unwrap();
        let whole = store.newest_claim(&service()).unwrap();
        assert_eq!(whole, Some(Claim { released: true, ..claim(1) }), "{what}");
        // A claim that can be read is never changed.
        store.restore_claim(&service(), &Claim { claimed_at_s: 8, ..claim(1) }).unwrap();
        assert_eq!(store.newest_claim(&service()).unwrap(), whole, "{what}");
        assert_eq!(store.claim(&service(), &claim(2)).unwrap(), ClaimAnswer::Won, "{what}");
    }
}

#[test]
fn the_owner_of_a_claim_that_cannot_be_read_and_began_nothing_is_not_guessed_and_the_next_number_is_free() {
    for (what, plant) in BAD_FILES {
        let (_folder, at, store) = begun_with_journal();
        plant(&at.join("claims/3"));
        let error = store.newest_claim(&service()).unwrap_err();
        assert!(error.is_of_one_entry(), "{what}: {error}");
        let said = error.to_string();
        assert!(said.contains("claims/3") && said.contains("'heirlock adopt nfs --force'"), "{what}: {said}");
        assert_eq!(store.claim(&service(), &claim(4)).unwrap(), ClaimAnswer::Won, "{what}");
        assert_eq!(store.newest_claim(&service()).unwrap(), Some(claim(4)), "{what}");
        assert_eq!(store.past(&service()).unwrap().unreadable.len(), 1, "{what}");
    }
    // Nor does a generation tell whose journal can't be read either.
    let (_folder, at, store) = begun_with_journal();
    fs::write(at.join("claims/1"), "torn").unwrap();
    fs::write(at.join("1/journal.json"), "torn").unwrap();
    let said = store.newest_claim(&service()).unwrap_err().to_string();
    assert!(said.contains("claims/1") && said.contains("--force"), "{said}");
    assert_eq!(store.claim(&service(), &claim(2)).unwrap(), ClaimAnswer::Won);
}
