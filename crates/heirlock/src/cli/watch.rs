//! A text that is shown anew in its place, on a terminal, until the user interrupts it.
//!
//! In a pipe there is no place to show it in: it would be one text after another, of which most say the same. A script asks
//! for `--json` as often as it likes.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::exit::{Exit, Failed};
use super::output::Output;
use super::render::Look;
use crate::limits::WATCH_INTERVAL;

/// A screen of its own, without a cursor, on which a long line does not go on below (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

/// The screen as it was before.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How soon an interruption is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Lines of a terminal that does not tell how many it has.
const ROWS: usize = 24;

/// Shows the text that this makes until the user interrupts it.
pub(super) fn watch(output: &Output, text: impl Fn(&Look) -> String) -> Result<Exit, Failed> {
    if !io::stdout().is_terminal() {
        let what = "expected a terminal for --watch, found a pipe or a file; without --watch the status is printed once, and \
                    --json is for scripts";
        return Err(Failed::new(Exit::Usage, what));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Failed::new(Exit::Failed, format!("can't wait for Ctrl-C: {error}")))?;
    }
    let screen = Screen::enter()?;
    while !interrupted.load(Ordering::SeqCst) {
        screen.show(&text(&output.look_now()))?;
        let shown = Instant::now();
        while shown.elapsed() < WATCH_INTERVAL && !interrupted.load(Ordering::SeqCst) {
            thread::sleep(LOOK_INTERVAL);
        }
    }
    Ok(Exit::Done)
}

/// The terminal, which is given back as it was.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failed> {
        write(ENTER)?;
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "there is something to show on")]
    fn show(&self, text: &str) -> Result<(), Failed> {
        let rows = tcgetwinsize(io::stdout()).map_or(ROWS, |size| usize::from(size.ws_row));
        write(&frame(text, if rows == 0 { ROWS } else { rows }))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failed::new(Exit::Failed, format!("can't write to the terminal: {error}")))
}

/// The text over what was shown before it: each line ends what stood there, and so does the last one. What finds no place is
/// counted.
fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() <= rows;
    let shown = if fits { lines.len() } else { rows.saturating_sub(1) };
    let mut frame = "\x1b[H".to_owned();
    for (at, line) in lines.iter().take(shown).enumerate() {
        frame.push_str(if at == 0 { "" } else { "\r\n" });
        frame.push_str(line);
        frame.push_str("\x1b[K");
    }
    if !fits {
        frame.push_str(&format!("\r\n… {} more lines\x1b[K", lines.len() - shown));
    }
    frame + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_and_never_scrolls() {
        assert_eq!(frame("a\nb\n", 5), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        let lines: Vec<String> = (0..30).map(|at| at.to_string()).collect();
        let shown = frame(&lines.join("\n"), 10);
        assert_eq!(shown.matches("\r\n").count(), 9, "ten lines, and none below them");
        assert!(shown.ends_with("8\x1b[K\r\n… 21 more lines\x1b[K\x1b[J"), "{shown:?}");
        assert_eq!(frame("a\nb", 1), "\x1b[H\r\n… 2 more lines\x1b[K\x1b[J");
    }
}
