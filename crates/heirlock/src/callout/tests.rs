use std::fs;
use std::sync::mpsc::channel;
use std::thread;

use super::*;

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("sm")).unwrap();
    directory
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(300)
}

/// A caller that is answered does not wait for it, on however busy a machine.
fn late() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

#[test]
fn the_program_is_a_callout_by_its_name_or_its_first_argument() {
    let asked = |text: &str| arguments(text.split(' ').map(OsString::from));
    let expected = Some(vec![OsString::from("add-client"), OsString::from("10.0.0.1")]);
    assert_eq!(asked("/usr/lib/heirlock/heirlock-callout add-client 10.0.0.1"), expected);
    assert_eq!(asked("/usr/bin/heirlock callout add-client 10.0.0.1"), expected);
    assert_eq!(asked("heirlock status"), None);
    assert_eq!(asked("heirlock"), None);
}

#[test]
fn statds_arguments_and_ctdbs_are_understood_and_hostile_names_are_not() {
    let (mon_name, my_name) = (MonName::parse("10.0.0.1").unwrap(), MyName::parse("nfs-a").unwrap());
    let add = |my_name| Said::Add { mon_name: mon_name.clone(), my_name };
    assert_eq!(parse(&words("add-client 10.0.0.1 nfs-a")), Ok(add(Some(my_name))));
    assert_eq!(parse(&words("add-client 10.0.0.1")), Ok(add(None)));
    assert_eq!(parse(&words("del-client 10.0.0.1 nfs-a")), Ok(Said::Del { mon_name: mon_name.clone() }));
    assert!(matches!(parse(&words("sm-notify nfs-b 10.0.0.2 5")), Ok(Said::Notified(_))));
    for bad in ["add-client ../x nfs-a", "add-client", "takeip eth0", ""] {
        assert!(parse(&words(bad)).is_err(), "{bad}");
    }
    assert!(parse(&[b"add-client".to_vec(), b"\xff\x00\n".to_vec()]).is_err());
}

#[test]
fn a_client_that_the_agent_made_durable_is_acknowledged_and_a_failure_is_reported() {
    let directory = directory();
    let _listener = Listener::start(directory.path(), directory.path().join("sm"), |said, waiting| {
        let well = matches!(&said, Said::Add { mon_name, .. } if mon_name.as_str() == "10.0.0.1");
        waiting.answer(&if well { Ok(()) } else { Err("the store fails".into()) });
    })
    .unwrap();
    assert_eq!(tell(directory.path(), &words("add-client 10.0.0.1 nfs-a"), late()), Ok(()));
    let failed = tell(directory.path(), &words("add-client 10.0.0.2 nfs-a"), late());
    assert_eq!(failed, Err("the store fails".into()));
}

#[test]
fn an_agent_that_hangs_or_is_gone_does_not_hold_a_callout_up() {
    let directory = directory();
    let (began, deadline) = (Instant::now(), late());
    let why = tell(directory.path(), &words("add-client 10.0.0.1 nfs-a"), deadline).unwrap_err();
    assert!(why.contains("no agent answers") && began.elapsed() < Duration::from_secs(60), "{why}");
    let (sender, held) = channel();
    let _listener = Listener::start(directory.path(), directory.path().join("sm"), move |_, waiting| {
        sender.send(waiting).unwrap();
    })
    .unwrap();
    let why = tell(directory.path(), &words("add-client 10.0.0.1 nfs-a"), soon()).unwrap_err();
    assert!(why.contains("in time"), "{why}");
    drop(held);
}

#[test]
fn a_silent_connection_holds_no_other_callout_up_for_long() {
    let directory = directory();
    let _listener = Listener::start(directory.path(), directory.path().join("sm"), |_, waiting| {
        waiting.answer(&Ok(()));
    })
    .unwrap();
    let _silent = UnixStream::connect(directory.path().join(SOCKET)).unwrap();
    assert_eq!(tell(directory.path(), &words("add-client 10.0.0.1 nfs-a"), late()), Ok(()));
}

#[test]
fn the_spool_is_read_until_it_is_done_and_messages_that_come_meanwhile_stay() {
    let directory = directory();
    let spool = Spool::in_state_directory(directory.path());
    assert_eq!(spool.take().unwrap(), []);
    thread::scope(|scope| {
        for i in 0..8 {
            let spool = spool.clone();
            scope.spawn(move || spool.append(&words(&format!("add-client 10.0.0.{i} nfs-a"))).unwrap());
        }
    });
    assert_eq!(spool.take().unwrap().len(), 8);
    spool.append(&words("add-client 10.0.1.1 nfs-a")).unwrap();
    assert_eq!(spool.take().unwrap().len(), 8, "not done yet");
    spool.done().unwrap();
    assert_eq!(spool.take().unwrap().len(), 1);
}

#[test]
fn a_spool_that_is_a_link_or_a_pipe_is_not_followed() {
    let directory = directory();
    let target = directory.path().join("target");
    fs::write(&target, "add-client\u{0}10.0.0.1\n").unwrap();
    std::os::unix::fs::symlink(&target, directory.path().join("sm/.heirlock-callouts")).unwrap();
    let spool = Spool::in_state_directory(directory.path());
    assert!(spool.append(&words("add-client 10.0.0.9 x")).is_err());
    assert!(spool.take().is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "add-client\u{0}10.0.0.1\n");
    // It is said once, and keeps nothing from being noted and read afterwards.
    assert_eq!(spool.take().unwrap(), []);
    spool.append(&words("add-client 10.0.0.9 x")).unwrap();
    assert_eq!(spool.take().unwrap().len(), 1);
    spool.done().unwrap();
    fs::write(directory.path().join("sm/.heirlock-callouts"), "").unwrap();
    fs::hard_link(directory.path().join("sm/.heirlock-callouts"), directory.path().join("second")).unwrap();
    assert!(
        spool.append(&words("add-client 10.0.0.9 x")).is_err(),
        "it would be written into another's file"
    );
}

#[test]
fn only_root_and_the_status_monitors_user_can_connect() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let directory = directory();
    let is_root = rustix::process::geteuid().is_root();
    let sm = directory.path().join("sm");
    if is_root {
        chown(&sm, Some(4_711), None).unwrap();
    }
    let owner = fs::metadata(&sm).unwrap().uid();
    let _listener = Listener::start(directory.path(), sm, |_, waiting| waiting.answer(&Ok(()))).unwrap();
    let socket = fs::metadata(directory.path().join(SOCKET)).unwrap();
    assert_eq!((socket.uid(), socket.permissions().mode() & 0o777), (owner, 0o600));
    assert_eq!(
        tell(directory.path(), &words("add-client 10.0.0.1 nfs-a"), soon()),
        Ok(()),
        "root may always"
    );
}

#[test]
fn the_longest_names_are_noted_and_read_again() {
    let directory = directory();
    let spool = Spool::in_state_directory(directory.path());
    let client = "x".repeat(heirlock_nsm::limits::FILE_NAME_BYTES_MAX);
    let server = "s".repeat(heirlock_nsm::limits::STRING_BYTES_MAX);
    spool.append(&words(&format!("add-client {client} {server}"))).unwrap();
    let [Said::Add { mon_name, my_name: Some(my_name) }] = &spool.take().unwrap()[..] else { panic!() };
    assert_eq!((mon_name.as_str(), my_name.as_str()), (client.as_str(), server.as_str()));
}
