//! The results of the last drills, one of each service, in the local directory: they outlive a boot.

use std::path::Path;

use crate::control::report::DrillStatus;
use crate::files::{if_present, trusted};
use crate::limits::DRILLS_BYTES_MAX;

/// The file.
const FILE: &str = "drills.json";

/// The results that an earlier agent kept. A file that can't be read is said, and taken for none: the next drill writes it anew.
pub(crate) fn load(local_directory: &Path) -> Vec<DrillStatus> {
    let path = local_directory.join(FILE);
    let read = if_present(trusted::read(&path, DRILLS_BYTES_MAX)).map_err(|error| error.to_string());
    let parsed = read.and_then(|bytes| match bytes {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        None => Ok(Vec::new()),
    });
    parsed.unwrap_or_else(|why| {
        tracing::warn!(file = %path.display(), why, "the results of the last drills can't be read from {}, and the next one writes them anew: {why}", path.display());
        Vec::new()
    })
}

/// Puts a result in the place of the service's last one. Those of services that are not configured any more go.
pub(crate) fn put(drills: &mut Vec<DrillStatus>, drill: DrillStatus, is_configured: impl Fn(&str) -> bool) {
    drills.retain(|kept| kept.service != drill.service && is_configured(&kept.service));
    drills.push(drill);
    drills.sort_by(|one, other| one.service.cmp(&other.service));
}

/// Keeps them, durably.
///
/// # Errors
/// Where the file can't be written; in words.
pub(crate) fn save(local_directory: &Path, drills: &[DrillStatus]) -> Result<(), String> {
    let path = local_directory.join(FILE);
    let written = serde_json::to_vec_pretty(drills).map_err(std::io::Error::from);
    let written = written.and_then(|bytes| trusted::replace(&path, &bytes, 0o600, true));
    written.map_err(|error| format!("can't write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use heirlock_core::drill::Verdict;

    use super::*;

    fn drill(service: &str, at_s: u64) -> DrillStatus {
        DrillStatus {
            service: service.to_owned(),
            verdict: Verdict::LeavesOut,
            at_s,
            took_ms: 2_900,
            clients: 3,
            left_out: 1,
            unreached: vec!["192.0.2.21".to_owned()],
            why: None,
            until_told_ms: Some(2_400),
        }
    }

    #[test]
    fn the_last_drill_of_each_configured_service_is_kept_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), Vec::new());
        let mut drills = vec![drill("gone", 1), drill("nfs", 1), drill("home", 1)];
        put(&mut drills, drill("nfs", 2), |service| service != "gone");
        assert_eq!(drills, [drill("home", 1), drill("nfs", 2)]);
        save(folder.path(), &drills).unwrap();
        assert_eq!(load(folder.path()), drills);
    }

    #[test]
    fn a_file_that_can_t_be_read_is_taken_for_none_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "[{\"service\": 7}]"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(load(folder.path()), Vec::new(), "{text}");
        }
        save(folder.path(), &[drill("nfs", 2)]).unwrap();
        assert_eq!(load(folder.path()), [drill("nfs", 2)]);
    }
}
