//! Where the agent's log goes: one event a line, to the journal or to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::exit::{Exit, Failed};

/// What the journal's own fields begin with: `journalctl HEIRLOCK_SERVICE=nfs`.
const FIELD_PREFIX: &str = "HEIRLOCK";

/// Begins to log. `level` is a word, or a filter as `tracing` knows it.
pub(super) fn start(level: &str) -> Result<(), Failed> {
    let filter = filter(level)?;
    let journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr_file());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match journal.then(tracing_journald::layer) {
        Some(Ok(layer)) => registry.with(layer.with_field_prefix(Some(FIELD_PREFIX.into()))).try_init(),
        // A journal that can't be reached is no reason not to protect anybody.
        Some(Err(_)) | None => to_stderr(registry),
    };
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%backtrace, "heirlock has a fault, please report it: {panic}");
    }));
    started.map_err(|error| Failed::new(Exit::Failed, format!("can't begin to log: {error}")))
}

fn to_stderr<S>(registry: S) -> Result<(), TryInitError>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ansi)).try_init()
}

fn filter(level: &str) -> Result<EnvFilter, Failed> {
    EnvFilter::builder().parse(level).map_err(|error| {
        let what = format!(
            "--log: expected error, warn, info, debug, trace or a filter such as info,heirlock::store=debug, found {level:?}: {error}"
        );
        Failed::new(Exit::Usage, what)
    })
}

/// Device and inode of standard error.
fn stderr_file() -> Option<(u64, u64)> {
    rustix::fs::fstat(io::stderr()).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// systemd says which stream leads to the journal (systemd.exec(5)); a redirected one doesn't.
fn is_journal(stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let Some((device, inode)) = stream.and_then(|text| text.split_once(':')) else { return false };
    match (device.parse(), inode.parse()) {
        (Ok(device), Ok(inode)) => stderr == Some((device, inode)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_error_is_the_journal_only_where_systemd_says_so_of_this_very_file() {
        assert!(is_journal(Some("8:1234"), Some((8, 1234))));
        assert!(!is_journal(Some("8:1234"), Some((8, 1235))));
        assert!(!is_journal(Some("nonsense"), Some((8, 1234))));
        assert!(!is_journal(None, Some((8, 1234))));
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert!(filter("info").is_ok() && filter("warn,heirlock::store=debug").is_ok());
        let error = filter("heirlock=loud").unwrap_err();
        assert!(error.message.contains("heirlock=loud"), "{}", error.message);
    }
}
