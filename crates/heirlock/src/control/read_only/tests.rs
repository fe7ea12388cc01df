use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use rustix::process::{Gid, Uid};

use super::super::{Answer, Line, ask_at, ask_read_only};
use super::*;

/// Another user of this host, in no group of ours.
const NEIGHBOUR: u32 = 65_534;

/// The group that may read the status.
const GROUP: u32 = 4_242;

fn status(request: &Request, responder: Responder) {
    match request {
        Request::Past => responder.done(Answer::Past { adoptions: Vec::new() }),
        _ => responder.done(Answer::changed(None, "the status")),
    }
}

/// Does something as another user, which is in this group alone. Linux keeps users and groups for each thread.
fn as_neighbour<T: Send>(gid: u32, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let as_neighbour = || {
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (user, group) = (Uid::from_raw(NEIGHBOUR), Gid::from_raw(gid));
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            what()
        };
        scope.spawn(as_neighbour).join().unwrap()
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The group that the folder and the socket get here: without root only one's own.
fn group() -> u32 {
    if is_root() { GROUP } else { rustix::process::getegid().as_raw() }
}

fn say(path: &Path, words: &str) -> io::Result<Line> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(words.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[test]
fn the_read_only_socket_tells_the_status_and_refuses_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path().join("run");
    let _listener = listen(&runtime, group(), status).unwrap();
    assert_eq!(ask_read_only(&runtime).unwrap(), Answer::changed(None, "the status"));
    let path = folder(&runtime).join(SOCKET);
    assert_eq!(ask_at(&path, &Request::Past).unwrap(), Answer::Past { adoptions: Vec::new() });
    let verbs = [
        Request::Maintenance { on: true },
        Request::Release { service: "nfs".parse().unwrap() },
        Request::Report { service: "nfs".parse().unwrap() },
        Request::Forget { service: "nfs".parse().unwrap(), client: "10.0.0.1".into() },
    ];
    for verb in verbs.map(|verb| serde_json::to_string(&verb).unwrap()) {
        let Line::Failed(failure) = say(&path, &verb).unwrap() else { panic!("{verb}") };
        assert!(failure.refused && failure.message.contains("this socket is read-only"), "{failure:?}");
    }
    let Line::Failed(failure) = say(&path, "no request at all").unwrap() else { panic!() };
    assert!(failure.message.starts_with("expected a request, found none"), "{failure:?}");
}

#[test]
fn the_read_only_socket_lies_in_a_folder_of_its_own_that_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path().join("run");
    assert_eq!(folder(Path::new("/run/heirlock")), Path::new("/run/heirlock-status"));
    let listener = listen(&runtime, group(), status).unwrap();
    let (found, socket) = (fs::metadata(folder(&runtime)).unwrap(), folder(&runtime).join(SOCKET));
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o710, group()));
    let found = fs::metadata(&socket).unwrap();
    assert_eq!((found.mode() & 0o7777, found.gid()), (0o660, group()));
    assert!(!runtime.exists(), "the runtime directory is not touched");
    drop(listener);
    assert!(!folder(&runtime).exists());
    // An agent that was killed leaves both.
    fs::create_dir(folder(&runtime)).unwrap();
    fs::set_permissions(folder(&runtime), fs::Permissions::from_mode(0o710)).unwrap();
    fs::write(&socket, "").unwrap();
    let _listener = listen(&runtime, group(), status).unwrap();
    ask_read_only(&runtime).unwrap();
}

#[test]
fn a_folder_that_others_may_write_gets_no_read_only_socket() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path().join("run");
    fs::create_dir(folder(&runtime)).unwrap();
    fs::set_permissions(folder(&runtime), fs::Permissions::from_mode(0o777)).unwrap();
    let error = listen(&runtime, group(), status).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn a_member_of_the_group_reads_the_status_and_another_user_reaches_nothing() {
    if !is_root() {
        return; // only root can become another user
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let runtime = directory.path().join("run");
    fs::create_dir(&runtime).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(runtime.join("book"), "clients").unwrap();
    let _listener = listen(&runtime, GROUP, status).unwrap();
    let path = folder(&runtime).join(SOCKET);
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    as_neighbour(GROUP, || {
        assert_eq!(ask_read_only(&runtime).unwrap(), Answer::changed(None, "the status"));
        let verb = serde_json::to_string(&Request::Maintenance { on: true }).unwrap();
        let Line::Failed(failure) = say(&path, &verb).unwrap() else { panic!() };
        assert!(failure.refused, "{failure:?}");
        assert!(denied(fs::read_dir(folder(&runtime)).unwrap_err()), "the folder is not listed");
        assert!(denied(fs::write(folder(&runtime).join("x"), "").unwrap_err()));
        assert!(denied(fs::remove_file(&path).unwrap_err()));
        assert!(denied(fs::read(runtime.join("book")).unwrap_err()));
    });
    as_neighbour(NEIGHBOUR, || assert!(denied(UnixStream::connect(&path).unwrap_err())));
}
