//! `heirlock callout`: the program that rpc.statd runs before it answers SM_MON (statd -H), where rpc.statd is kept.
//!
//! rpc.statd waits for it without a limit of its own, and lockd waits for rpc.statd: so it asks the agent, waits no longer
//! than `capture.callout-timeout`, and always ends well. A message that the agent did not acknowledge is noted in a spool
//! beside the records, and reported. It must be quick, so nothing is set up that it does not need.

mod listener;
mod spool;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use heirlock_nsm::{MonName, MyName};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config;

pub(crate) use heirlock_agent::status_monitor::Said;
pub(crate) use listener::Listener;
pub(crate) use spool::Spool;

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "callout.sock";

/// The callout as a program of its own; under this name heirlock itself is one too, since statd -H takes no arguments.
pub(crate) const PROGRAM: &str = "heirlock-callout";

/// Bytes of everything that is said: two names, and the bytes around them.
const SAID_BYTES_MAX: usize = 4 * 1024;

const USAGE: &str = "\
Run by rpc.statd for each client (statd -H); see capture.mode \"callout\"

Usage: heirlock callout add-client CLIENT [SERVER]
       heirlock callout del-client CLIENT [SERVER]
       heirlock callout sm-notify NAME ADDRESS [STATE]

rpc.statd says these words by itself. 'heirlock-callout' is the same as a
small program, which 'heirlock enable' names in nfs.conf.";

/// The same, as its manual page has it.
pub(crate) const SYNOPSIS: &str = "\
heirlock-callout add-client CLIENT [SERVER]
heirlock-callout del-client CLIENT [SERVER]
heirlock-callout sm-notify NAME ADDRESS [STATE]";

/// The text below it: an example, and the meaning of the exit code.
pub(crate) const HELP: &str = "\
Examples: rpc.statd runs it, it is not typed:
  /usr/local/bin/heirlock-callout add-client 192.0.2.1 nfs-a

Exit codes:
  0  always: rpc.statd goes on, whether it worked or not";

const ACKNOWLEDGED: &[u8] = b"durable\n";

/// Parses the arguments of statd (event, mon_name, my_name) or those in CTDB's order (event, mon_name). The names come
/// from the network.
pub(crate) fn parse(arguments: &[Vec<u8>]) -> Result<Said, String> {
    let texts: Vec<String> =
        arguments.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    let [event, rest @ ..] = texts.as_slice() else {
        return Err("expected an event, found nothing".into());
    };
    let mon_name = || {
        let name = rest.first().ok_or("expected a client's name, found nothing")?;
        MonName::parse(name).map_err(|error| error.to_string())
    };
    match event.as_str() {
        "add-client" => {
            let my_name = rest.get(1).map(|name| name.replace([' ', '\t', '\r', '\n'], "_"));
            let my_name = my_name.map(|name| MyName::parse(&name)).transpose();
            Ok(Said::Add { mon_name: mon_name()?, my_name: my_name.map_err(|error| error.to_string())? })
        }
        "del-client" => Ok(Said::Del { mon_name: mon_name()? }),
        "sm-notify" => Ok(Said::Notified(rest.to_vec())),
        other => Err(format!("expected add-client, del-client or sm-notify, found {:?}", short(other))),
    }
}

/// The arguments of a callout, where the program was called as one.
#[must_use]
pub fn arguments(mut all: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let program = PathBuf::from(all.next()?);
    let rest: Vec<OsString> = all.collect();
    if program.file_name().is_some_and(|name| name == PROGRAM) {
        return Some(rest);
    }
    let (first, arguments) = rest.split_first()?;
    (first == "callout").then(|| arguments.to_vec())
}

/// Tells the agent, within the time limit. It always succeeds, since rpc.statd must not be held up.
#[must_use]
pub fn main(arguments: &[OsString]) -> ExitCode {
    let began = Instant::now();
    if arguments.first().is_none_or(|first| first == "--help" || first == "-h") {
        println!("{USAGE}\n\n{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.clone().into_vec()).collect();
    let said = match parse(&arguments) {
        Ok(said) => said,
        Err(why) => {
            eprintln!("heirlock callout: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let place = Place::find();
    if let Err(why) = tell(&place.runtime_directory, &arguments, began + place.time_limit) {
        eprintln!("heirlock callout: {}: not durable before its lock is granted: {why}", shown(&arguments));
        // A client that is gone or restarted needs no protection.
        if matches!(said, Said::Add { .. })
            && let Err(error) = Spool::in_state_directory(&place.state_directory).append(&arguments)
        {
            eprintln!("heirlock callout: can't note it for the agent either: {error}");
        }
    }
    ExitCode::SUCCESS
}

/// Where to ask, and for how long.
struct Place {
    runtime_directory: PathBuf,
    state_directory: PathBuf,
    time_limit: Duration,
}

impl Place {
    /// As the configuration says; where the status monitor's user may not read it, as it says by default.
    fn find() -> Self {
        let path =
            std::env::var_os("HEIRLOCK_CONFIG").map_or("/etc/heirlock/heirlock.toml".into(), PathBuf::from);
        // rpc.statd runs us where its records lie.
        let here = || std::env::current_dir().unwrap_or_else(|_| "/var/lib/nfs".into());
        match config::load(&path) {
            Ok(settings) => Self {
                runtime_directory: settings.runtime_directory,
                state_directory: if settings.state_directory_is_set {
                    settings.state_directory
                } else {
                    here()
                },
                time_limit: settings.capture.callout_timeout,
            },
            Err(_) => Self {
                runtime_directory: "/run/heirlock".into(),
                state_directory: here(),
                time_limit: Duration::from_secs(1),
            },
        }
    }
}

fn tell(runtime_directory: &Path, arguments: &[Vec<u8>], deadline: Instant) -> Result<(), String> {
    let in_words = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the agent did not answer in time".to_owned(),
        _ => format!("no agent answers at {}: {error}", runtime_directory.join(SOCKET).display()),
    };
    let answer = ask(runtime_directory, &arguments.join(&0), deadline).map_err(in_words)?;
    match answer.as_slice() {
        ACKNOWLEDGED => Ok(()),
        [] => Err("the agent went away".into()),
        other => Err(String::from_utf8_lossy(other).trim().to_owned()),
    }
}

fn ask(runtime_directory: &Path, message: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where too many wait already, this fails at once instead of waiting without a limit.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(runtime_directory.join(SOCKET))?)?;
    socket.set_nonblocking(false)?;
    let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(message)?;
    stream.shutdown(Shutdown::Write)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(answer),
            count if answer.len() < SAID_BYTES_MAX => answer.extend(&buffer[..count]),
            _ => return Ok(answer),
        }
    }
}

fn shown(arguments: &[Vec<u8>]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| short(&String::from_utf8_lossy(word))).collect();
    words.join(" ")
}

fn short(text: &str) -> String {
    text.escape_debug().take(64).collect()
}

/// The arguments in the bytes of a message.
fn from_message(message: &[u8]) -> Vec<Vec<u8>> {
    message.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests;
