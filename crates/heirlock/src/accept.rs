//! Takes in the connections that come to a Unix socket. Where there is no room for one for a while, it waits; where the socket
//! itself fails, it ends and says why.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use heirlock_core::log_limit::Source;
use rustix::io::Errno;

use crate::from_elsewhere;

/// How long no connection is taken in after there was no room for one. Without a pause the thread would spend all its time on
/// the same failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands every connection on, until the socket fails. Answers why it did.
pub(crate) fn accept_all(
    listener: &UnixListener,
    what: &str,
    mut taken: impl FnMut(UnixStream),
) -> io::Error {
    loop {
        match listener.accept() {
            Ok((stream, _)) => taken(stream),
            Err(error) => match Errno::from_io_error(&error) {
                // The caller gave up meanwhile.
                Some(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::PERM) => {
                    if from_elsewhere::may_say("no connection taken in", Source::Unknown) {
                        tracing::error!(%error, "no connection can be taken in at the socket {what} for now: {error}");
                    }
                    thread::sleep(PAUSE);
                }
                _ => return error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{Shutdown, shutdown};

    use super::*;

    #[test]
    fn a_socket_that_fails_is_an_end_with_a_reason_and_no_loop_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let mut taken = 0;
        let why = accept_all(&listener, "test", |_| {
            taken += 1;
            shutdown(&listener, Shutdown::Both).unwrap();
        });
        assert_eq!((taken, why.raw_os_error()), (1, Some(Errno::INVAL.raw_os_error())));
        drop(client);
    }
}
