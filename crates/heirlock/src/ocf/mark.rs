//! The note that a resource was started on this node and not stopped since, as OCF agents keep it: a folder that ends with the boot.

use std::io;
use std::path::PathBuf;

use heirlock_core::ServiceName;

use crate::files::trusted;

/// Where resource agents keep such notes, unless Pacemaker says another place (ocf-directories, resource-agents).
const FOLDER: &str = "/run/resource-agents";

/// The note of one resource.
#[derive(Debug)]
pub(super) struct Mark(PathBuf);

impl Mark {
    pub(super) fn of(agent: &str, service: &ServiceName) -> Self {
        let folder = std::env::var_os("HA_RSCTMP").filter(|folder| !folder.is_empty());
        let folder = folder.map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
        Self(folder.join(format!("heirlock-{agent}-{service}")))
    }

    /// Whether it is there. Where that can't be seen it is: a resource that may be active must be stopped.
    pub(super) fn is_set(&self) -> bool {
        match trusted::stat_of_link(&self.0) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    pub(super) fn set(&self) -> Result<(), String> {
        let made = self.0.parent().map_or(Ok(()), |folder| trusted::make_folders(folder, 0o755));
        let written = made.and_then(|()| trusted::replace(&self.0, b"", 0o600, false));
        written.map_err(|error| format!("the note {} can't be written: {error}", self.0.display()))
    }

    pub(super) fn clear(&self) -> Result<(), String> {
        match trusted::remove(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("the note {} can't be removed: {error}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}
