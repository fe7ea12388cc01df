use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

struct Place {
    _directory: tempfile::TempDir,
    state: PathBuf,
    local: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let (state, local) = (directory.path().join("nfs"), directory.path().join("local"));
    fs::create_dir_all(state.join("sm")).unwrap();
    fs::create_dir(&local).unwrap();
    Place { _directory: directory, state, local }
}

const LINE: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 10.0.0.1 nfs-a\n";
const OWN: &str = "0100007f 000186b5 00000003 00000010 000102030405060708090a0b0c0d0e0f 10.0.0.1 nfs-b\n";

fn records(bytes: &str) -> Records {
    Records::from([(client(), bytes)])
}

/// The lines of a client's file, as they are remembered.
fn placed(bytes: &str) -> BTreeMap<MonName, Vec<u8>> {
    BTreeMap::from([(client(), bytes.into())])
}

fn client() -> MonName {
    MonName::parse("10.0.0.1").unwrap()
}

fn name() -> MyName {
    MyName::parse("nfs-service").unwrap()
}

fn sm(place: &Place) -> Option<String> {
    fs::read_to_string(place.state.join("sm/10.0.0.1")).ok()
}

#[test]
fn a_copy_is_the_record_to_the_byte() {
    let place = place();
    let torn_end = LINE.trim_end();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    assert_eq!(conveyor.place(&records(torn_end), Conveyance::Copy, &name()).unwrap(), []);
    assert_eq!(sm(&place).as_deref(), Some(torn_end));
    assert_eq!(fs::metadata(place.state.join("sm/10.0.0.1")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_generated_line_names_the_service() {
    let place = place();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    conveyor.place(&records(LINE), Conveyance::Generate, &name()).unwrap();
    let placed = sm(&place).unwrap();
    assert!(placed.ends_with(" 10.0.0.1 nfs-service\n") && placed.contains(" 000186b5 "), "{placed}");
}

#[test]
fn placed_lines_are_known_after_a_restart_and_taken_away_again() {
    let place = place();
    Conveyor::open(&place.state, &place.local)
        .unwrap()
        .place(&records(LINE), Conveyance::Copy, &name())
        .unwrap();
    let again = Conveyor::open(&place.state, &place.local).unwrap();
    assert_eq!(*again.placed(), placed(LINE));
    again.clean_up().unwrap();
    assert_eq!(sm(&place), None);
    assert!(Conveyor::open(&place.state, &place.local).unwrap().placed().is_empty());
}

#[test]
fn a_book_that_cannot_be_read_is_put_aside_and_keeps_no_agent_from_beginning() {
    for torn in ["{\"10.0.0.1\": ", "", "[]"] {
        let place = place();
        fs::write(place.local.join(BOOK), torn).unwrap();
        let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        assert!(conveyor.placed().is_empty());
        assert_eq!(fs::read_to_string(place.local.join(BOOK_ASIDE)).unwrap(), torn);
        conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
        assert_eq!(*Conveyor::open(&place.state, &place.local).unwrap().placed(), placed(LINE));
    }
}

#[test]
fn a_copy_that_is_the_servers_own_registration_is_neither_placed_nor_taken_away() {
    let place = place();
    fs::write(place.state.join("sm/10.0.0.1"), LINE).unwrap();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
    assert!(conveyor.placed().is_empty(), "it would seem to be gone");
    conveyor.clean_up().unwrap();
    assert_eq!(sm(&place).as_deref(), Some(LINE));
}

#[test]
fn a_line_of_the_servers_own_status_monitor_stays() {
    let place = place();
    fs::write(place.state.join("sm/10.0.0.1"), OWN).unwrap();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
    conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
    assert_eq!(sm(&place), Some(format!("{OWN}{LINE}")), "placed once");
    conveyor.clean_up().unwrap();
    assert_eq!(sm(&place).as_deref(), Some(OWN));
}

#[test]
fn many_records_are_placed_together_beside_those_that_are_there_and_leave_nothing_behind() {
    let place = place();
    fs::write(place.state.join("sm/10.0.0.1"), OWN).unwrap();
    let many: Records = (1..=u8::try_from(24_usize).unwrap())
        .map(|i| MonName::from_address([10, 0, 0, i].into()))
        .map(|client| (client.clone(), LINE.replace("10.0.0.1", client.as_str()).into_bytes()))
        .collect();
    let names = || {
        let entries = fs::read_dir(place.state.join("sm")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    assert_eq!(conveyor.place(&many, Conveyance::Copy, &name()).unwrap(), []);
    assert_eq!(sm(&place), Some(format!("{OWN}{LINE}")));
    for (client, record) in many.conveyed().skip(1) {
        let path = place.state.join("sm").join(client.as_str());
        assert_eq!(*record, fs::read(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(names().len(), many.len(), "no temporary one stays");
    conveyor.clean_up().unwrap();
    assert_eq!((names(), sm(&place)), (vec!["10.0.0.1".to_owned()], Some(OWN.to_owned())));
}

#[test]
fn a_link_that_was_planted_in_the_directory_leads_nowhere() {
    let place = place();
    let (folder, secret) = (place.state.join("sm"), place.local.join("secret"));
    fs::write(&secret, "only for root").unwrap();
    // The first is what earlier versions wrote through; the second is copied from if it is followed.
    symlink(&secret, folder.join(".10.0.0.1.heirlock")).unwrap();
    symlink(&secret, folder.join("10.0.0.2")).unwrap();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    let unplaced = conveyor.place(&two_records(), Conveyance::Copy, &name()).unwrap();
    assert_eq!(unplaced.len(), 1);
    assert!(unplaced[0].0.as_str() == "10.0.0.2" && unplaced[0].1.contains("symbolic link"), "{unplaced:?}");
    assert_eq!(sm(&place).as_deref(), Some(LINE));
    assert_eq!(conveyor.clean_up().unwrap(), []);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "only for root");
    assert!(fs::read_link(folder.join("10.0.0.2")).is_ok(), "it is left for an administrator");
}

#[test]
fn an_entry_that_is_no_file_keeps_its_own_client_alone_from_being_placed() {
    let hostile: [fn(&Path); 4] = [
        |path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
        |path| fs::File::create(path).unwrap().set_len(8 << 30).unwrap(),
    ];
    for plant in hostile {
        let place = place();
        plant(&place.state.join("sm/10.0.0.2"));
        let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
        let unplaced = conveyor.place(&two_records(), Conveyance::Generate, &name()).unwrap();
        let [(client, why)] = unplaced.as_slice() else { panic!("one could not be: {unplaced:?}") };
        assert!(client.as_str() == "10.0.0.2" && why.contains("expected a file"), "{why}");
        assert!(sm(&place).is_some());
        conveyor.clean_up().unwrap();
        assert_eq!(sm(&place), None);
    }
}

#[test]
fn a_folder_that_took_the_place_of_a_file_meanwhile_is_remembered_until_it_is_gone() {
    let place = place();
    let path = place.state.join("sm/10.0.0.1");
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    conveyor.place(&two_records(), Conveyance::Copy, &name()).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(conveyor.clean_up().unwrap().len(), 1);
    assert_eq!(conveyor.placed().len(), 1);
    fs::remove_dir(&path).unwrap();
    assert_eq!(conveyor.clean_up().unwrap(), []);
    assert!(conveyor.placed().is_empty());
}

#[test]
fn the_longest_name_is_placed_and_taken_away_again() {
    let place = place();
    let longest = MonName::parse(&"x".repeat(heirlock_nsm::limits::FILE_NAME_BYTES_MAX)).unwrap();
    let record = render_record(&[MonitorLine::generated(longest.clone(), name())]);
    let records = Records::from([(longest.clone(), record.clone()), (client(), LINE.into())]);
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    assert_eq!(conveyor.place(&records, Conveyance::Copy, &name()).unwrap(), []);
    assert_eq!(fs::read(place.state.join("sm").join(longest.as_str())).unwrap(), record);
    assert_eq!(conveyor.clean_up().unwrap(), []);
    assert_eq!(fs::read_dir(place.state.join("sm")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_became_a_link_is_not_followed() {
    let place = place();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    fs::rename(place.state.join("sm"), place.local.join("elsewhere")).unwrap();
    symlink(place.local.join("elsewhere"), place.state.join("sm")).unwrap();
    let error = conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(fs::read_dir(place.local.join("elsewhere")).unwrap().count(), 0);
}

fn two_records() -> Records {
    let other = MonName::parse("10.0.0.2").unwrap();
    Records::from([(client(), LINE), (other, &LINE.replace("10.0.0.1", "10.0.0.2"))])
}

/// The content of a client's file after rpc.statd has done this to it between the plan of a change and the change.
fn met(before: Option<&str>, meanwhile: fn(&Path), how: How) -> Option<String> {
    let place = place();
    let (path, file) = (place.state.join("sm/10.0.0.1"), client());
    if let Some(before) = before {
        fs::write(&path, before).unwrap();
    }
    let sm = Folder::open(&place.state).unwrap().folder("sm").unwrap();
    let change = FileChange::plan(&sm, &file, LINE.as_bytes(), how).unwrap();
    let temporary = change.prepare(&sm).unwrap();
    meanwhile(&path);
    change.carry_out(&sm, temporary).unwrap();
    let names = fs::read_dir(place.state.join("sm")).unwrap();
    assert!(names.map(|entry| entry.unwrap().file_name()).all(|name| name == "10.0.0.1"), "no temporary one");
    sm_of(&path)
}

fn sm_of(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[test]
fn a_registration_that_comes_while_a_record_is_placed_stays() {
    let registers = |path: &Path| fs::write(path, OWN).unwrap();
    let both = Some(format!("{OWN}{LINE}"));
    assert_eq!(met(None, registers, with_added), both, "there was no file");
    let other = OWN.replace("nfs-b", "nfs-b.example.net");
    assert_eq!(met(Some(&other), registers, with_added), both, "there was another one");
    let leaves = |path: &Path| fs::remove_file(path).unwrap();
    assert_eq!(met(Some(OWN), leaves, with_added).as_deref(), Some(LINE), "the client has gone");
}

#[test]
fn a_registration_that_comes_while_a_record_is_taken_away_stays() {
    let registers = |path: &Path| fs::write(path, format!("{LINE}{OWN}")).unwrap();
    assert_eq!(met(Some(LINE), registers, without).as_deref(), Some(OWN));
    let other = format!("{LINE}{}", OWN.replace("nfs-b", "nfs-b.example.net"));
    assert_eq!(met(Some(&other), registers, without).as_deref(), Some(OWN));
}

#[test]
fn placed_records_are_remembered_and_nothing_is_placed_that_cannot_be_remembered() {
    let place = place();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap();
    let before = conveyor.placed();
    conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
    assert!(before.is_empty() && !Arc::ptr_eq(&before, &conveyor.placed()));
    // Where it can't be remembered, nothing is placed, and it is known as nothing.
    let other = self::place();
    let conveyor = Conveyor::open(&other.state, &other.local).unwrap();
    fs::remove_dir(&other.local).unwrap();
    let error = conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap_err().to_string();
    assert!(error.contains("can't be written"), "{error}");
    assert!(conveyor.placed().is_empty() && sm(&other).is_none());
}

#[test]
fn files_give_way_to_clients_that_are_told_for_the_first_time() {
    let place = place();
    let notifiers = FirstRounds::default();
    let conveyor = Conveyor::open(&place.state, &place.local).unwrap().giving_way_to(notifiers.clone());
    let round = notifiers.begin();
    let (said, heard) = std::sync::mpsc::channel();
    let placing = std::thread::spawn(move || {
        conveyor.place(&records(LINE), Conveyance::Copy, &name()).unwrap();
        said.send(()).unwrap();
    });
    heard.recv_timeout(Duration::from_millis(100)).unwrap_err();
    assert_eq!(fs::read_dir(place.state.join("sm")).unwrap().count(), 0);
    drop(round);
    placing.join().unwrap();
    assert_eq!(sm(&place).as_deref(), Some(LINE));
}
