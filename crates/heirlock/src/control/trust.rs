//! The users that may speak at either end of the control socket: root, and the one that runs this program. As with the store, a
//! folder that another user may change is not believed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;

use crate::files::trusted;

/// Permissions that let others than the owner put a socket of their own there.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Makes a folder, and those above it, that no other user may look into. A folder that exists stays as it is.
///
/// # Errors
/// Where it can't be made.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    trusted::make_folders(folder, 0o700)
}

/// Whether the folder that holds the socket is root's or ours, and no other user's.
///
/// # Errors
/// `PermissionDenied`, with what was expected and found, where it is not.
pub(crate) fn check_folder(folder: &Path) -> io::Result<()> {
    let found = trusted::stat(folder)?;
    if !is_trusted(found.uid()) {
        return Err(denied(format!(
            "expected {} to belong to root or user {}, found user {}",
            folder.display(),
            us(),
            found.uid()
        )));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(denied(format!(
            "expected {} to be writable by its owner alone, found mode {:04o}; say 'chmod go-w {}'",
            folder.display(),
            found.mode() & 0o7777,
            folder.display()
        )));
    }
    Ok(())
}

/// Whether the other end of a connection is root's or ours, as the kernel says (SO_PEERCRED, unix(7)).
///
/// # Errors
/// `PermissionDenied`, with what was expected and found, where it is not. Else which process it is.
pub(crate) fn check_other_end(stream: &UnixStream) -> io::Result<Pid> {
    let found = socket_peercred(stream)?;
    let uid = found.uid.as_raw();
    if is_trusted(uid) {
        return Ok(found.pid);
    }
    Err(denied(format!("expected root or user {} at the other end, found user {uid}", us())))
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == us()
}

fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path()).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = check_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("found mode 0777; say 'chmod go-w "), "{error}");
    }

    #[test]
    fn our_own_end_of_a_connection_is_believed() {
        let (one, _other) = UnixStream::pair().unwrap();
        check_other_end(&one).unwrap();
    }

    /// Connects as another user. Linux keeps a user for each thread, and a socket keeps that of the thread that
    /// connected.
    fn connect_as(uid: u32, path: std::path::PathBuf) -> io::Result<UnixStream> {
        std::thread::spawn(move || {
            let user = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(user, user, user)?;
            UnixStream::connect(path)
        })
        .join()
        .unwrap()
    }

    #[test]
    fn another_users_end_of_a_connection_is_refused() {
        if us() != 0 {
            return; // only root can become another user
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let _theirs = connect_as(65_534, path).unwrap();
        let error = check_other_end(&listener.accept().unwrap().0).unwrap_err();
        assert!(error.to_string().ends_with("at the other end, found user 65534"), "{error}");
    }
}
