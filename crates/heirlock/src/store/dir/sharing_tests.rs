//! How a generation comes to share its files with the one before.

use heirlock_core::Records;
use heirlock_nsm::MonName;

use super::super::disk::faulty::{Fault, FaultyDisk, Survives};
use super::*;

const ROOT: &str = "/store";

const CLIENTS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

fn service() -> ServiceName {
    ServiceName::parse("nfs").unwrap()
}

fn claim(generation: u64) -> Claim {
    Claim::new(Generation(generation), &"nfs-a".parse().unwrap(), "run", 0)
}

fn line(client: &str, of: &str) -> Vec<u8> {
    format!("0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 {client} {of}\n")
        .into_bytes()
}

fn records() -> Records {
    CLIENTS.map(|client| (MonName::parse(client).unwrap(), line(client, "nfs-a"))).into()
}

fn path(generation: u64, client: &str) -> PathBuf {
    Path::new(ROOT).join(format!("services/nfs/{generation}/sm/{client}"))
}

fn files(disk: &FaultyDisk, generation: u64) -> Vec<Vec<u8>> {
    CLIENTS.map(|client| disk.read(&path(generation, client), 1_000).unwrap()).into()
}

/// How many names each record of a generation has.
fn names(disk: &FaultyDisk, generation: u64) -> [u64; 3] {
    CLIENTS.map(|client| disk.links(&path(generation, client)).unwrap())
}

/// How often records were read.
fn reads(disk: &FaultyDisk) -> u64 {
    CLIENTS.map(|client| disk.reads(client)).iter().sum()
}

/// A store whose first generation was begun by another server, and loaded by this one, which has claimed the second.
fn loaded() -> (FaultyDisk, DirStore, Contents) {
    let disk = FaultyDisk::new();
    let store = DirStore::create_on(Path::new(ROOT), Box::new(disk.clone())).unwrap();
    store.claim(&service(), &claim(1)).unwrap();
    let contents = Contents { records: records(), ..Contents::default() };
    store.begin_generation(&service(), Generation(1), &contents).unwrap();
    let store = DirStore::on(Path::new(ROOT), Box::new(disk.clone()));
    let contents = store.load(&service(), Generation(1)).unwrap();
    assert_eq!(contents.records, records());
    store.claim(&service(), &claim(2)).unwrap();
    (disk, store, contents)
}

fn beat(store: &DirStore) {
    store.put_server(&ServerReport::new("nfs-a".parse().unwrap(), "run")).unwrap();
}

#[test]
fn records_that_were_read_a_moment_ago_are_shared_and_not_read_again() {
    let (disk, store, contents) = loaded();
    beat(&store);
    let before = reads(&disk);
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    assert_eq!(reads(&disk), before, "a heartbeat in between takes nothing away");
    assert_eq!((names(&disk, 2), files(&disk, 2)), ([2; 3], files(&disk, 1)));
}

#[test]
fn records_that_were_read_long_ago_are_read_before_they_are_shared() {
    let (disk, store, contents) = loaded();
    beat(&store);
    beat(&store);
    let before = reads(&disk);
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    assert_eq!(reads(&disk), before + 3);
    assert_eq!((names(&disk, 2), files(&disk, 2)), ([2; 3], files(&disk, 1)));
}

#[test]
fn a_record_that_differs_from_the_one_before_is_a_file_of_its_own() {
    let (disk, store, mut contents) = loaded();
    let changed = line(CLIENTS[1], "nfs-b");
    contents.records.insert(MonName::parse(CLIENTS[1]).unwrap(), changed.clone());
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    assert_eq!(names(&disk, 2), [2, 1, 2]);
    assert_eq!(files(&disk, 2)[1], changed);
    assert_eq!(files(&disk, 1)[1], line(CLIENTS[1], "nfs-a"));
}

/// The owner of the generation before may put another file in a record's place at any moment.
#[test]
fn a_record_that_another_server_replaces_in_the_very_moment_is_kept_as_it_was_read() {
    let (disk, store, contents) = loaded();
    disk.meanwhile(|disk| {
        let (temporary, place) = (path(1, ".new"), path(1, CLIENTS[0]));
        // As long as the one before.
        disk.write(&temporary, &line(CLIENTS[0], "nfs-x"), true).unwrap();
        disk.rename(&temporary, &place).unwrap();
    });
    store.begin_generation(&service(), Generation(2), &contents).unwrap();
    assert_eq!(files(&disk, 1)[0], line(CLIENTS[0], "nfs-x"));
    assert_eq!(files(&disk, 2)[0], line(CLIENTS[0], "nfs-a"));
    assert_eq!(names(&disk, 2), [1, 2, 2]);
    assert_eq!(store.load(&service(), Generation(2)).unwrap().records, records());
}

#[test]
fn shared_records_are_all_there_after_a_crash_or_the_generation_is_not() {
    let begun = {
        let (disk, store, contents) = loaded();
        let before = disk.steps();
        store.begin_generation(&service(), Generation(2), &contents).unwrap();
        before..disk.steps()
    };
    assert!(begun.clone().count() > 8, "{begun:?}");
    for step in begun.clone().chain([begun.end]) {
        for survives in [Survives::Nothing, Survives::Everything, Survives::Some(step), Survives::Some(!step)]
        {
            let (disk, store, contents) = loaded();
            disk.set(Fault::CrashBefore(step));
            let done = store.begin_generation(&service(), Generation(2), &contents);
            assert_eq!(done.is_ok(), step == begun.end, "{step}");
            let disk = disk.after_crash(survives);
            let found = DirStore::on(Path::new(ROOT), Box::new(disk));
            let newest = found.newest_generation(&service(), Generation(9)).unwrap().unwrap();
            assert!(done.is_err() || newest == Generation(2), "{step} {survives:?}");
            assert_eq!(found.load(&service(), newest).unwrap().records, records(), "{step} {survives:?}");
            // The next attempt finishes it.
            found.begin_generation(&service(), Generation(2), &contents).unwrap();
            assert_eq!(
                found.load(&service(), Generation(2)).unwrap().records,
                records(),
                "{step} {survives:?}"
            );
        }
    }
}

/// A reading of many records takes long, and one of a disk that hangs does not end.
#[test]
fn a_heart_beats_while_records_are_being_read() {
    let (_, store, _) = loaded();
    let reading = store.read_before();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            beat(&store);
            said.send(()).unwrap();
        });
        let beaten = heard.recv_timeout(std::time::Duration::from_secs(60));
        drop(reading);
        beaten.unwrap();
    });
}
