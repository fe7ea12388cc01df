//! Log lines on their way out of the program.
//!
//! A reader may stop reading: a full pipe, a terminal that was stopped, a journal that hangs. So no thread that has something
//! to say writes it. Lines go into a queue, and a thread of this module writes them. Where the queue is full, lines are lost;
//! they are counted, and the count is written in their place.
//!
//! `tracing-appender` does the same for a writer of bytes. It is not used: the journal takes events and not bytes, it bounds
//! the number of lines and not their size, and the lines that wait in it can't be flushed before a program kills itself.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::limits::{LOG_FLUSH_TIME_MAX, LOG_QUEUE_BYTES_MAX};
use crate::threads;
use crate::words::counted;

/// Bytes that each line takes up besides its text.
const LINE_BYTES: usize = 64;

/// The queue of this program, if it logs.
static QUEUE: OnceLock<Box<dyn Flush>> = OnceLock::new();

thread_local! {
    /// This is the thread that writes the lines.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Waits until all lines that were put into the queue are written, for a second at most: before the program ends, in
/// any way.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LOG_FLUSH_TIME_MAX);
    }
}

/// A queue, of any kind of lines.
trait Flush: Send + Sync {
    /// Whether all was written within this time.
    fn flush(&self, limit: Duration) -> bool;
}

/// Lines that wait to be written.
#[derive(Debug)]
pub(crate) struct LogQueue<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting<T> {
    entries: VecDeque<Entry<T>>,
    /// The bytes that they take up.
    bytes: usize,
    /// Lines that were lost after the last of them.
    lost: usize,
    /// A line was taken out, and may not be written yet.
    is_writing: bool,
}

#[derive(Debug)]
enum Entry<T> {
    /// A line, and the bytes that it takes up.
    Line(T, usize),
    /// So many lines were lost here.
    Lost(usize),
}

impl<T> Clone for LogQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> LogQueue<T> {
    /// Begins to write lines in a thread of its own. The first queue of a program is the one that [`flush`] waits for.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(crate) fn start(write: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let queue = Self::without_thread();
        let written = queue.clone();
        threads::start("log", move || written.write_out(write))?;
        let _ = QUEUE.set(Box::new(queue.clone()));
        Ok(queue)
    }

    fn without_thread() -> Self {
        let waiting = Waiting { entries: VecDeque::new(), bytes: 0, lost: 0, is_writing: false };
        Self(Arc::new(Shared { waiting: Mutex::new(waiting), changed: Condvar::new() }))
    }

    /// Has a line written whose text has so many bytes. It waits for nothing: where there is no room the line is lost.
    pub(crate) fn put(&self, line: T, bytes: usize) {
        let bytes = bytes.saturating_add(LINE_BYTES);
        let mut waiting = self.lock();
        // A line of the writing thread itself takes the place of a lost one, and is written next.
        if WRITES.get() {
            waiting.bytes += bytes;
            waiting.entries.push_front(Entry::Line(line, bytes));
            return;
        }
        let has_room = waiting.bytes.saturating_add(bytes) <= LOG_QUEUE_BYTES_MAX;
        // A line that is larger than the whole queue is written where nothing else waits.
        if !has_room && !waiting.entries.is_empty() {
            waiting.lost += 1;
            return;
        }
        if waiting.lost > 0 {
            let lost = std::mem::take(&mut waiting.lost);
            waiting.entries.push_back(Entry::Lost(lost));
        }
        waiting.bytes += bytes;
        waiting.entries.push_back(Entry::Line(line, bytes));
        drop(waiting);
        self.0.changed.notify_all();
    }

    fn write_out(&self, mut write: impl FnMut(T)) {
        WRITES.set(true);
        loop {
            match self.next() {
                Entry::Line(line, _) => write(line),
                Entry::Lost(lost) => {
                    tracing::error!(
                        lost,
                        "{} of the log were lost: the reader of the log did not take them in time",
                        counted(lost, "line")
                    );
                }
            }
        }
    }

    /// The next entry, once there is one.
    fn next(&self) -> Entry<T> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        loop {
            if let Some(entry) = waiting.next() {
                waiting.is_writing = true;
                return entry;
            }
            self.0.changed.notify_all();
            waiting = self.0.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn next(&mut self) -> Option<Entry<T>> {
        match self.entries.pop_front() {
            Some(Entry::Line(line, bytes)) => {
                self.bytes -= bytes;
                Some(Entry::Line(line, bytes))
            }
            Some(lost) => Some(lost),
            None if self.lost > 0 => Some(Entry::Lost(std::mem::take(&mut self.lost))),
            None => None,
        }
    }

    fn is_written(&self) -> bool {
        self.entries.is_empty() && self.lost == 0 && !self.is_writing
    }
}

impl<T: Send + 'static> Flush for LogQueue<T> {
    fn flush(&self, limit: Duration) -> bool {
        // It would wait for itself.
        if WRITES.get() {
            return false;
        }
        let unwritten = |waiting: &mut Waiting<T>| !waiting.is_written();
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, unwritten);
        let (waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.is_written()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Long, for a machine that does much else.
    const PATIENCE: Duration = Duration::from_secs(120);

    const LINE: usize = LOG_QUEUE_BYTES_MAX / 8;

    /// A queue whose reader takes a line each time that it is let, and the lines that it took.
    fn with_a_slow_reader() -> (LogQueue<usize>, Sender<()>, Receiver<usize>) {
        let ((lets, let_on), (takes, taken)) = (channel(), channel());
        let queue = LogQueue::start(move |line| {
            // Where the test has let go, it takes all that is left.
            let _ = let_on.recv();
            let _ = takes.send(line);
        });
        (queue.unwrap(), lets, taken)
    }

    #[test]
    fn lines_are_written_in_their_order_and_a_flush_waits_for_them() {
        let (queue, lets, taken) = with_a_slow_reader();
        (0..5).for_each(|line| queue.put(line, 10));
        assert!(!queue.flush(Duration::from_millis(20)), "none of them is written");
        (0..4).for_each(|_| lets.send(()).unwrap());
        assert!(!queue.flush(Duration::from_millis(20)), "the last of them is not written");
        lets.send(()).unwrap();
        assert!(queue.flush(PATIENCE));
        assert_eq!(taken.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_reader_of_the_log_that_takes_nothing_makes_no_thread_wait_and_no_queue_grow() {
        let (queue, lets, taken) = with_a_slow_reader();
        (0..1000).for_each(|line| queue.put(line, LINE));
        let bytes = queue.lock().bytes;
        assert!(bytes <= LOG_QUEUE_BYTES_MAX, "{bytes}");
        drop(lets);
        assert!(queue.flush(PATIENCE));
        let taken: Vec<usize> = taken.try_iter().collect();
        // One may have been in the reader's hands.
        assert!(taken.is_sorted() && taken[0] == 0 && (7..=8).contains(&taken.len()), "{taken:?}");
    }

    #[test]
    fn lost_log_lines_are_counted_in_their_place() {
        let queue = LogQueue::without_thread();
        (0..10).for_each(|line| queue.put(line, LINE));
        let taken = queue.lock().next();
        assert!(matches!(taken, Some(Entry::Line(0, _))));
        queue.put(10, LINE);
        queue.put(11, LINE);
        let mut order = Vec::new();
        let mut waiting = queue.lock();
        while let Some(entry) = waiting.next() {
            order.push(match entry {
                Entry::Line(line, _) => line.to_string(),
                Entry::Lost(lost) => format!("{lost} lost"),
            });
        }
        assert_eq!(order, ["1", "2", "3", "4", "5", "6", "3 lost", "10", "1 lost"]);
        assert!(waiting.is_written() && waiting.bytes == 0);
    }

    #[test]
    fn a_line_that_is_larger_than_the_queue_is_written_where_nothing_else_waits() {
        let queue = LogQueue::without_thread();
        queue.put("long", LOG_QUEUE_BYTES_MAX * 2);
        queue.put("short", 1);
        let mut waiting = queue.lock();
        assert!(matches!(waiting.next(), Some(Entry::Line("long", _))));
        assert!(matches!(waiting.next(), Some(Entry::Lost(1))));
    }
}
