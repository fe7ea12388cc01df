//! The read-only socket: members of one group read the status and the past there, and can ask for nothing else.
//!
//! It lies in a folder of its own beside the runtime directory, which stays closed: a member passes through that folder alone,
//! finds nothing in it but the socket, and can't list it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Listener, Request, Responder};

/// The socket's name in its folder.
pub(crate) const SOCKET: &str = "status.sock";

/// Where it lies: `/run/heirlock-status`, where the runtime directory is `/run/heirlock`.
pub(crate) fn folder(runtime_directory: &Path) -> PathBuf {
    let mut name = runtime_directory.file_name().map_or_else(|| "heirlock".into(), OsString::from);
    name.push("-status");
    runtime_directory.with_file_name(name)
}

/// Listens for the members of a group.
///
/// # Errors
/// Where another user may change the folder, or the socket can't be made.
pub(crate) fn listen(
    runtime_directory: &Path,
    gid: u32,
    reads: impl Fn(&Request, Responder) + Send + Sync + 'static,
) -> io::Result<Listener> {
    Listener::start_for_group(folder(runtime_directory).join(SOCKET), gid, reads)
}

#[cfg(test)]
mod tests;
