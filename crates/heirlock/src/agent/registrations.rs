//! Who was registered when the lock manager recognised, kept where the agent's next start finds it: it decides who has
//! come back.

use std::path::Path;

use heirlock_core::takeover::{REGISTRATIONS_BYTES_MAX, Registrations};

use crate::files::trusted;

/// In the runtime directory: a boot ends the life that was recognised, and empties it.
const NAME: &str = "registered-before";

/// Keeps them for the run that they were noted for.
pub(crate) fn keep(runtime_directory: &Path, registrations: &Registrations) {
    let file = runtime_directory.join(NAME);
    // No sync: it is of use to this boot alone.
    if let Err(error) = trusted::replace(&file, registrations.render().as_bytes(), 0o600, false) {
        tracing::warn!(file = %file.display(), %error, "who is registered now can't be noted in {}, so after an interruption clients that came back before will be reported as acknowledged: {error}", file.display());
    }
}

/// Takes up what an earlier agent kept for this run.
pub(crate) fn recall(runtime_directory: &Path, run: &str) -> Option<Registrations> {
    let file = runtime_directory.join(NAME);
    let text = trusted::read_text(&file, REGISTRATIONS_BYTES_MAX).ok();
    let noted = text.and_then(|text| Registrations::parse(&text, run));
    if noted.is_none() {
        tracing::warn!(file = %file.display(), run, "nothing in {} tells who was registered when the lock manager recognised, so clients that came back since are reported as acknowledged", file.display());
    }
    noted
}
