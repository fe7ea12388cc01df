//! Whether the store can be written, and since when clients are unprotected.

use heirlock_core::Moment;

/// What is known of the store's health.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    error: Option<String>,
    since: Option<(Moment, u64)>,
}

impl Health {
    /// A write or read failed. Said at once, and again only if the reason changes.
    pub(crate) fn failed(&mut self, now: Moment, error: &str) {
        if self.error.as_deref() != Some(error) {
            tracing::error!(%error, "the store fails, and clients that it doesn't know are unprotected: {error}");
        }
        self.error = Some(error.to_owned());
        self.since.get_or_insert((now, super::clock::wall_s()));
    }

    /// Everything that was to be written is durable, and everything that this server holds was looked for and found.
    pub(crate) fn worked(&mut self) {
        if self.error.take().is_some() {
            tracing::info!(
                "the store works again: all that this server holds is in it, and everything has been caught up"
            );
        }
        self.since = None;
    }

    /// What fails.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Since when, in seconds since 1970.
    pub(crate) fn unprotected_since_s(&self) -> Option<u64> {
        self.since.map(|(_, wall)| wall)
    }
}
