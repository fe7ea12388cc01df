//! A text that is shown nowhere: a password, or a token.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::files::trusted;

/// It can be neither printed nor debugged, so that no log line, status, error or panic has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// This text.
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// For the one place that sends it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Bytes of the longest file of a password.
const PASSWORD_BYTES_MAX: usize = 4096;

/// The first line of a file that its owner alone can read.
///
/// # Errors
/// Where it is not so, in words that have nothing of it.
pub(super) fn read_password(path: &Path) -> Result<Secret, String> {
    check_rights(path)?;
    let text = trusted::read_text(path, PASSWORD_BYTES_MAX)
        .map_err(|error| format!("can't read {}: {error}", path.display()))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line.to_owned())),
        None => Err(format!("{}: expected a password in its first line, found none", path.display())),
    }
}

/// Fails where another user could read a secret file, or put another one in its place.
///
/// # Errors
/// The finding and the remedy.
pub(super) fn check_rights(path: &Path) -> Result<(), String> {
    let found = trusted::stat(path).map_err(|error| format!("can't look at {}: {error}", path.display()))?;
    let us = rustix::process::geteuid().as_raw();
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    if uid != us && uid != 0 {
        let path = path.display();
        return Err(format!(
            "{path}: expected a file of user {us}, found one of user {uid}; give it to that user"
        ));
    }
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!(
            "{path}: expected a file that only its owner reads, found mode {mode:04o}; say chmod 0600 {path}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_is_read_from_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let said = || read_password(&file).err().unwrap();
        assert!(said().contains("can't look at"), "{}", said());
        fs::write(&file, "s3cret\nnothing of that\n").unwrap();
        for mode in [0o644, 0o640, 0o620, 0o604] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let said = said();
            assert!(said.contains(&format!("mode {mode:04o}")) && said.contains("chmod 0600"), "{said}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert!(read_password(&file).ok().unwrap().reveal() == "s3cret");
        fs::write(&file, "\ns3cret").unwrap();
        assert!(said().contains("found none") && !said().contains("s3cret"));
    }
}
