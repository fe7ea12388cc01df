//! The protocol between the lab and a guest's agent: one command per TCP connection.
//!
//! Request: `<time limit in ms> <length>\n<shell command>`. Answer: `<ending>\n<output>`, where the ending is
//! an exit code, `signal <number>` or `time limit`; the end of the connection ends the output.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use crate::limits::{OUTPUT_BYTES_MAX, REQUEST_BYTES_MAX};

/// Where a guest's agent listens.
pub const AGENT_PORT: u16 = 99;

/// How a command in a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// By the agent, at its time limit; with all of its process group.
    TimeLimit,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimeLimit => write!(f, "time limit"),
        }
    }
}

impl Ending {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("exit", rest)) => rest.strip_prefix("code ")?.parse().ok().map(Self::Exit),
            Some(("signal", number)) => number.parse().ok().map(Self::Signal),
            Some(("time", "limit")) => Some(Self::TimeLimit),
            _ => None,
        }
    }
}

/// The result of a command that ran in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// Its output, both streams in one; at most [`OUTPUT_BYTES_MAX`].
    pub output: String,
}

/// Sends a request.
///
/// # Errors
/// As the stream gives them.
pub fn send_request(stream: &mut impl Write, command: &str, limit: Duration) -> io::Result<()> {
    stream.write_all(format!("{} {}\n{command}", limit.as_millis(), command.len()).as_bytes())?;
    stream.flush()
}

/// Reads a request: the command and its time limit.
///
/// # Errors `InvalidData` for a header that is none, a length above [`REQUEST_BYTES_MAX`] or a command that
/// is not UTF-8.
pub fn read_request(stream: &mut impl BufRead) -> io::Result<(String, Duration)> {
    let mut header = String::new();
    stream.by_ref().take(64).read_line(&mut header)?;
    let (limit_ms, length) = header
        .trim_end()
        .split_once(' ')
        .and_then(|(limit, length)| Some((limit.parse::<u64>().ok()?, length.parse::<usize>().ok()?)))
        .filter(|(_, length)| *length <= REQUEST_BYTES_MAX)
        .ok_or_else(|| invalid(format!("expected '<ms> <length>', found {header:?}")))?;
    let mut command = vec![0; length];
    stream.read_exact(&mut command)?;
    let command = String::from_utf8(command).map_err(|error| invalid(error.to_string()))?;
    Ok((command, Duration::from_millis(limit_ms)))
}

/// Sends an answer.
///
/// # Errors
/// As the stream gives them.
pub fn send_answer(stream: &mut impl Write, ran: &Ran) -> io::Result<()> {
    stream.write_all(format!("{}\n{}", ran.ending, ran.output).as_bytes())?;
    stream.flush()
}

/// Reads an answer from what came until the connection ended.
///
/// # Errors
/// `InvalidData` where the guest died in the middle.
pub fn parse_answer(bytes: &[u8]) -> io::Result<Ran> {
    let text = String::from_utf8_lossy(bytes);
    let (ending, output) = text.split_once('\n').ok_or_else(|| {
        invalid(format!("expected an answer of the guest's agent, the connection ended after {text:?}"))
    })?;
    let ending = Ending::parse(ending)
        .ok_or_else(|| invalid(format!("expected how the command ended, found {ending:?}")))?;
    Ok(Ran { ending, output: output.to_owned() })
}

/// The most an answer can take, in bytes.
pub const ANSWER_BYTES_MAX: u64 = OUTPUT_BYTES_MAX * 3 + 64; // a byte that is not UTF-8 becomes three

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_as_sent() {
        let mut wire = Vec::new();
        send_request(&mut wire, "echo ä\nexit 3", Duration::from_millis(1500)).unwrap();
        assert_eq!(
            read_request(&mut wire.as_slice()).unwrap(),
            ("echo ä\nexit 3".to_owned(), Duration::from_millis(1500))
        );
        for ending in [Ending::Exit(3), Ending::Signal(9), Ending::TimeLimit] {
            let ran = Ran { ending, output: "two\nlines\n".to_owned() };
            let mut wire = Vec::new();
            send_answer(&mut wire, &ran).unwrap();
            assert_eq!(parse_answer(&wire).unwrap(), ran);
        }
    }

    #[test]
    fn a_message_that_is_no_request_or_answer_is_refused() {
        for bad in ["", "7\n", "x 3\nabc", "1 9999999\nabc", "1 5\nabc"] {
            assert!(read_request(&mut bad.as_bytes()).is_err(), "{bad:?}");
        }
        for bad in ["", "exit code 0", "exit code x\n", "3\n"] {
            assert!(parse_answer(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
