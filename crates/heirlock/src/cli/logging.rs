//! Where the agent's log goes: one event a line, to the journal or to standard error. Both may stop reading, so lines get
//! there by a queue (`log_queue.rs`).

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::field::{Field, Value, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::exit::{Exit, Failed};
use crate::log_queue::{self, LogQueue};

/// The beginning of our fields' names in the journal: `journalctl HEIRLOCK_SERVICE=nfs`.
const FIELD_PREFIX: &str = "HEIRLOCK";

/// Fields of one event that reach the journal, its message among them.
const FIELDS_MAX: usize = 32;

/// Begins to log. `level` is a word, or a filter as `tracing` knows it.
pub(super) fn start(level: &str) -> Result<(), Failed> {
    let filter = filter(level)?;
    let journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr_file());
    let registry = tracing_subscriber::registry().with(filter);
    let started = match journal.then(tracing_journald::layer) {
        Some(Ok(journal)) => to_journal(registry, journal),
        // A journal that can't be reached is no reason not to protect clients.
        Some(Err(_)) | None => to_stderr(registry),
    };
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%backtrace, "heirlock has a fault, please report it: {panic}");
        // A panic ends the program.
        log_queue::flush();
    }));
    started.map_err(|error| Failed::new(Exit::Failed, format!("can't begin to log: {error}")))
}

fn to_stderr<S>(registry: S) -> Result<()>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = LogQueue::start(|line: Vec<u8>| write_whole(&mut io::stderr().lock(), &line))?;
    registry
        .with(tracing_subscriber::fmt::layer().with_writer(ToStderr(lines)).with_ansi(ansi))
        .try_init()?;
    Ok(())
}

fn to_journal<S>(registry: S, journal: tracing_journald::Layer) -> Result<()>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let journal = tracing_subscriber::registry().with(journal.with_field_prefix(Some(FIELD_PREFIX.into())));
    let events = LogQueue::start(move |event: OwnedEvent| event.give_to(&journal))?;
    registry.with(ToJournal(events)).try_init()?;
    Ok(())
}

/// Writes all of it, or as much as can ever be written. Standard error may be shared with a program that made it
/// non-blocking.
fn write_whole(to: &mut (impl Write + AsFd), mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if poll(&mut [PollFd::new(to, PollFlags::OUT)], None).is_err() {
                    return;
                }
            }
            // It has no reader any more.
            Err(_) => return,
        }
    }
}

/// Puts each line into the queue, whole: the layer that makes the lines writes each one at once.
struct ToStderr(LogQueue<Vec<u8>>);

impl<'a> MakeWriter<'a> for ToStderr {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &ToStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line.to_vec(), line.len());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts each event into the queue.
struct ToJournal(LogQueue<OwnedEvent>);

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let event = OwnedEvent::of(event);
        let bytes = event.fields.iter().map(|(field, value)| field.name().len() + value.len()).sum();
        self.0.put(event, bytes);
    }
}

/// An event that outlives the call that it was made by.
#[derive(Debug)]
struct OwnedEvent {
    metadata: &'static Metadata<'static>,
    /// In words, as the journal would write them.
    fields: Vec<(Field, String)>,
}

impl OwnedEvent {
    fn of(event: &Event<'_>) -> Self {
        let mut owned = Self { metadata: event.metadata(), fields: Vec::new() };
        event.record(&mut owned);
        owned
    }

    /// Has a subscriber take it as if it happened now.
    fn give_to(&self, subscriber: &impl Subscriber) {
        // Without a field there is no message either.
        let Some((any, _)) = self.fields.first() else { return };
        let mut values: [(&Field, Option<&dyn Value>); FIELDS_MAX] = [(any, None); FIELDS_MAX];
        for (place, (field, value)) in values.iter_mut().zip(&self.fields) {
            *place = (field, Some(value));
        }
        subscriber.event(&Event::new(self.metadata, &self.metadata.fields().value_set(&values)));
    }
}

impl Visit for OwnedEvent {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.clone(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.push((field.clone(), format!("{value:?}")));
    }
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
    use std::io::{PipeReader, Read};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;
    use crate::threads;

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

    /// A stand-in for the journal: the events as they reach it.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<OwnedEvent>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(OwnedEvent::of(event));
        }
    }

    #[test]
    fn an_event_reaches_the_journal_from_another_thread_with_all_its_fields() {
        let (seen, kept) = (Seen::default(), Seen::default());
        let made = tracing_subscriber::registry().with(kept.clone());
        tracing::subscriber::with_default(made, || {
            let service = "nfs";
            tracing::warn!(%service, count = 7, text = "a \"word\"", none = ?None::<u8>, "{service}: seven");
        });
        let event = kept.0.lock().unwrap().pop().unwrap();
        let journal = tracing_subscriber::registry().with(seen.clone());
        threads::start("log", move || event.give_to(&journal)).unwrap().join().unwrap();
        let event = seen.0.lock().unwrap().pop().unwrap();
        let mut fields: Vec<_> =
            event.fields.iter().map(|(field, value)| (field.name(), value.as_str())).collect();
        fields.sort_unstable();
        let expected = [
            ("count", "7"),
            ("message", "nfs: seven"),
            ("none", "None"),
            ("service", "nfs"),
            ("text", "a \"word\""),
        ];
        assert_eq!((fields.as_slice(), *event.metadata.level()), (&expected[..], tracing::Level::WARN));
    }

    #[test]
    fn a_pipe_that_somebody_made_non_blocking_gets_every_byte() {
        let (reader, mut writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let line = "x".repeat(1024 * 1024);
        let read = threads::start("reads", move || {
            let mut reader: PipeReader = reader;
            let (mut read, mut buffer) = (0, vec![0; 10_000]);
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                read += count;
                std::thread::sleep(Duration::from_micros(100));
            }
            read
        });
        write_whole(&mut writer, line.as_bytes());
        drop(writer);
        assert_eq!(read.unwrap().join().unwrap(), line.len());
    }
}
