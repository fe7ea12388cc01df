//! The notes of this server for its next agent, in its runtime directory, which a boot empties, and in its local one.

use std::fmt;
use std::path::{Path, PathBuf};

use heirlock_core::grace::Remembered;
use heirlock_core::taken_away::TakenAway;
use heirlock_core::takeover::{REGISTRATIONS_BYTES_MAX, Registrations};

use crate::config::Settings;
use crate::files::{self, trusted};

/// Since when grace has been open, and when it was last seen closed. A boot ends every life, and empties the runtime
/// directory.
const GRACE: &str = "grace.json";

/// Bytes of it: one life, and two times.
const GRACE_BYTES_MAX: usize = 64 * 1024;

/// The clients that were registered when the lock manager recognised: they decide which clients have come back. A boot
/// ends the life that was recognised.
const REGISTRATIONS: &str = "registered-before";

/// The services whose address a release took away, and that this server may hold still. A boot leaves it: the store says then whose
/// they are.
const TAKEN_AWAY: &str = "addresses-taken-away.json";

/// Bytes of it: a name and a number for each service.
const TAKEN_AWAY_BYTES_MAX: usize = 1024 * 1024;

/// As long as it exists, this server is being maintained.
const MAINTENANCE: &str = "maintenance";

/// The text of that file.
const REMARK: &str = "while this file exists, the server's silence is no reason to adopt\n";

/// The note on grace of this boot. A crash may have torn the file, so that it can't be read: then nothing is known, as before the
/// first start.
pub(super) fn grace(runtime_directory: &Path) -> Option<Remembered> {
    let bytes = trusted::read(&runtime_directory.join(GRACE), GRACE_BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Notes what is known of grace.
pub(super) fn note_grace(runtime_directory: &Path, noted: &Remembered) {
    let file = runtime_directory.join(GRACE);
    // No sync: it is of use to this boot alone.
    let written = serde_json::to_vec(noted)
        .map_err(Into::into)
        .and_then(|bytes| trusted::replace(&file, &bytes, 0o600, false));
    if let Err(error) = written {
        tracing::warn!(file = %file.display(), %error, "what was seen of grace can't be noted in {}, so a run that is interrupted now may not go on: {error}", file.display());
    }
}

/// The clients that were registered before, as an earlier agent noted them for this run.
pub(super) fn registrations(runtime_directory: &Path, run: &str) -> Option<Registrations> {
    let file = runtime_directory.join(REGISTRATIONS);
    let text = trusted::read_text(&file, REGISTRATIONS_BYTES_MAX).ok();
    let noted = text.and_then(|text| Registrations::parse(&text, run));
    if noted.is_none() {
        tracing::warn!(file = %file.display(), run, "nothing in {} tells which clients were registered when the lock manager recognised, so clients that came back since are reported as acknowledged", file.display());
    }
    noted
}

/// Notes the registered clients, for their run.
pub(super) fn note_registrations(runtime_directory: &Path, registrations: &Registrations) {
    let file = runtime_directory.join(REGISTRATIONS);
    // No sync: it is of use to this boot alone.
    if let Err(error) = trusted::replace(&file, registrations.render().as_bytes(), 0o600, false) {
        tracing::warn!(file = %file.display(), %error, "the clients that are registered now can't be noted in {}, so after an interruption clients that came back before will be reported as acknowledged: {error}", file.display());
    }
}

/// The addresses that releases were to take away; none where nothing was ever noted.
pub(super) fn taken_away(local_directory: &Path) -> Result<TakenAway, String> {
    let file = local_directory.join(TAKEN_AWAY);
    let in_words = |error: &dyn fmt::Display| format!("can't read {}: {error}", file.display());
    match files::if_present(trusted::read(&file, TAKEN_AWAY_BYTES_MAX)) {
        Ok(None) => Ok(TakenAway::default()),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| in_words(&error)),
        Err(error) => Err(in_words(&error)),
    }
}

/// Notes them. A loss of power leaves what was noted before, or this.
pub(super) fn note_taken_away(local_directory: &Path, noted: &TakenAway) -> Result<(), String> {
    let file = local_directory.join(TAKEN_AWAY);
    let bytes = serde_json::to_vec(noted).map_err(|error| error.to_string())?;
    let written = trusted::replace(&file, &bytes, 0o600, true);
    written.map_err(|error| format!("can't write {}: {error}", file.display()))
}

/// Whether this server is being maintained.
pub(super) fn is_maintained(settings: &Settings) -> bool {
    maintenance_file(settings).exists()
}

/// It is from now on, or is no more.
pub(super) fn maintain(settings: &Settings, on: bool) -> Result<(), String> {
    let file = maintenance_file(settings);
    let kept = match on {
        true => trusted::replace(&file, REMARK.as_bytes(), 0o644, true),
        false => files::unless_absent(trusted::remove(&file)),
    };
    kept.map_err(|error| format!("can't change {}: {error}", file.display()))
}

fn maintenance_file(settings: &Settings) -> PathBuf {
    settings.local_directory.join(MAINTENANCE)
}
