//! `heirlock-lab-guest`: the lab's program inside a guest. It is the lab's own program under another name, so
//! that a guest needs no interpreter and always speaks the lab's own language.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::limits::OUTPUT_BYTES_MAX;
use crate::rpc;
use crate::wire::{self, AGENT_PORT, Ending, Ran};

/// The name under which the lab's program is this one.
pub const NAME: &str = "heirlock-lab-guest";

/// Runs the program with its arguments, without the name.
pub fn main(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["agent"] => agent(),
        ["lock", file, seconds] => lock(file, seconds, None),
        ["lock", file, seconds, listener] => lock(file, seconds, Some(listener)),
        ["try-lock", file] => lock(file, "0", None),
        ["time-lock", file] => time_lock(file),
        ["announce", address, neighbour] => announce(address, neighbour),
        ["unmonitor", client, server] => unmonitor(client, server),
        _ => Err(anyhow::anyhow!(
            "usage: {NAME} agent | lock FILE SECONDS [LISTENER] | try-lock FILE | time-lock FILE | announce ADDRESS NEIGHBOUR \
             | unmonitor CLIENT SERVER"
        )),
    };
    outcome.unwrap_or_else(|error| {
        println!("{NAME}: {error:#}");
        ExitCode::from(2)
    })
}

/// Runs the commands that the lab sends, each in a process group of its own, as many at a time as come.
fn agent() -> Result<ExitCode> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, AGENT_PORT)).context("can't listen")?;
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => drop(thread::spawn(move || answer(stream))),
            Err(error) => println!("{NAME}: {error}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(mut stream: TcpStream) {
    let outcome = wire::read_request(&mut BufReader::new(&stream)).and_then(|(command, limit)| {
        let ran = run_shell(&command, limit)
            .unwrap_or_else(|error| Ran { ending: Ending::Exit(126), output: format!("{NAME}: {error}\n") });
        wire::send_answer(&mut stream, &ran)
    });
    if let Err(error) = outcome {
        println!("{NAME}: {error}"); // to the console: the lab has gone away
    }
}

/// The output goes to a file, not a pipe: a daemon that the command leaves behind may keep it open for ever.
fn run_shell(command: &str, limit: Duration) -> io::Result<Ran> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let path = format!("/run/lab/output.{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let output = OpenOptions::new().create(true).append(true).open(&path)?;
    let errors = output.try_clone()?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    let ending = loop {
        if let Some(status) = child.try_wait()? {
            break ending_of(status);
        }
        if Instant::now() > deadline {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process_group(group, Signal::KILL)?;
            }
            // Not waited for: a process that waits for a dead NFS server can't be killed at once.
            break Ending::TimeLimit;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let mut bytes = Vec::new();
    File::open(&path)?.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    std::fs::remove_file(&path)?;
    Ok(Ran { ending, output: String::from_utf8_lossy(&bytes).into_owned() })
}

fn ending_of(status: ExitStatus) -> Ending {
    status.code().map_or_else(|| Ending::Signal(status.signal().unwrap_or(0)), Ending::Exit)
}

/// Asks for an exclusive POSIX lock on the whole file and reports the answer in one line; holds it for that many
/// seconds. `LOCKED`: exit code 0. `DENIED` (another process has it): 1. `FAILED <why>`: 3, e.g. ENOLCK where the
/// server can't protect the lock. A listener, where an address is given, hears that the lock is asked for, and of the
/// lock before any other program does; both words are this guest's time in microseconds.
fn lock(file: &str, seconds: &str, listener: Option<&str>) -> Result<ExitCode> {
    let seconds = seconds.parse().with_context(|| format!("expected seconds, found {seconds:?}"))?;
    let listener = listener.map(connected).transpose()?;
    let file =
        OpenOptions::new().read(true).write(true).open(file).with_context(|| format!("can't open {file}"))?;
    tell(listener.as_ref())?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            tell(listener.as_ref())?;
            println!("LOCKED");
            thread::sleep(Duration::from_secs(seconds));
            Ok(ExitCode::SUCCESS)
        }
        Err(Errno::AGAIN | Errno::ACCESS) => {
            println!("DENIED");
            Ok(ExitCode::from(1))
        }
        Err(errno) => {
            println!("FAILED {errno}");
            Ok(ExitCode::from(3))
        }
    }
}

/// As `try-lock`, and how long the answer took, in microseconds, in a second line: how long a process is started
/// doesn't count.
fn time_lock(file: &str) -> Result<ExitCode> {
    let began = Instant::now();
    let ending = lock(file, "0", None)?;
    println!("{}", began.elapsed().as_micros());
    Ok(ending)
}

fn tell(listener: Option<&UdpSocket>) -> Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    listener.send(now.as_micros().to_string().as_bytes())?;
    Ok(())
}

fn connected(listener: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(listener).with_context(|| format!("no program can listen at {listener}"))?;
    Ok(socket)
}

/// Tells the whole network where `address` lives now. `ip addr add` announces nothing, and clients would go
/// on sending to the dead server. The kernel does it for us: to reach a neighbour that it doesn't know it
/// broadcasts an ARP request *from the sending address*, and a host that has an entry for that address takes the new
/// one (net/ipv4/arp.c, `arp_process`). So the neighbour need not exist. It asks three times, a second apart
/// (`mcast_solicit`), which outlives the second in which an entry that is quite new does not change (`locktime`).
fn announce(address: &str, neighbour: &str) -> Result<ExitCode> {
    let socket = UdpSocket::bind((address, 0))
        .with_context(|| format!("{address} is not an address of this server"))?;
    // Port 9 is discard (RFC 863).
    let sent =
        socket.send_to(b"here", (neighbour, 9)).with_context(|| format!("can't send to {neighbour}"))?;
    if sent != 4 {
        bail!("sent {sent} bytes of 4");
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the status monitor of this server with SM_UNMON to forget a client, in the words of lockd (X/Open XNFS,
/// chapter 11; fs/lockd/mon.c): the names are those of the record, the procedure is NLM's number 16. It is what newer
/// kernels do for every client when NFS stops, whatever locks it holds.
fn unmonitor(client: &str, server: &str) -> Result<ExitCode> {
    const STATUS_MONITOR: u32 = 100_024;
    let socket = rpc::privileged_socket()?;
    let port = rpc::port_of(&socket, Ipv4Addr::LOCALHOST, STATUS_MONITOR, 1)?;
    let mut arguments = [rpc::opaque(client.as_bytes()), rpc::opaque(server.as_bytes())].concat();
    arguments.extend([100_021_u32, 3, 16].iter().flat_map(|word| word.to_be_bytes()));
    rpc::call(&socket, Ipv4Addr::LOCALHOST, port, [STATUS_MONITOR, 1, 3], &arguments)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_of_a_guests_command_are_told_apart() {
        let status = |command: &str| ending_of(Command::new("sh").args(["-c", command]).status().unwrap());
        assert_eq!(status("exit 3"), Ending::Exit(3));
        assert_eq!(status("kill -9 $$"), Ending::Signal(9));
    }
}
