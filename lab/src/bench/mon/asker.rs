//! The clients that ask for SM_MON: one after the other, each over a connection of its own, as lockd does; or as many
//! at a time as Ganesha's workers do, each over a connection that stays.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bench::clients::address;
use crate::rpc::{opaque, privileged_stream, word};

/// Bytes of an accepted answer: mark, header, result, number.
const ANSWER: usize = 4 + 24 + 8;

/// A client that is refused asks again after this.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// The requests, and how long each answer took.
#[derive(Debug)]
pub(in crate::bench) struct Asked {
    /// Microseconds for each that was granted.
    pub(in crate::bench) micros: Vec<f64>,
    /// From the first question to the last answer; of several bursts, their sum.
    pub(super) total: Duration,
    /// Questions that were answered by STAT_FAIL, and asked again.
    pub(super) refused: usize,
}

/// Registers the clients of these indexes, so many at a time; gives up what is left when time is up.
pub(super) fn ask(
    port: u16,
    clients: Range<usize>,
    cookie: u8,
    at_once: usize,
    patience: Duration,
) -> Result<Asked> {
    let began = Instant::now();
    let (micros, refused) = match at_once {
        1 => one_by_one(port, clients, cookie, began + patience)?,
        _ => at_a_time(port, clients, cookie, at_once, began + patience)?,
    };
    Ok(Asked { micros, total: began.elapsed(), refused })
}

fn one_by_one(port: u16, clients: Range<usize>, cookie: u8, until: Instant) -> Result<(Vec<f64>, usize)> {
    let (mut micros, mut refused) = (Vec::with_capacity(clients.len()), 0);
    for index in clients {
        let asked = Instant::now();
        if asked >= until {
            break;
        }
        while !register(port, index, cookie)? {
            refused += 1;
            thread::sleep(REFUSED_PAUSE);
        }
        micros.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok((micros, refused))
}

/// Asks for one client over a connection of its own: whether it is monitored.
pub(in crate::bench) fn register(port: u16, index: usize, cookie: u8) -> Result<bool> {
    let mut stream = connect(port)?;
    stream.write_all(&question(index, cookie))?;
    answered(&mut stream)
}

/// Takes a client's registration back, over a connection of its own (SM_UNMON).
pub(in crate::bench) fn unregister(port: u16, index: usize) -> Result<()> {
    let mut stream = connect(port)?;
    let mut call: Vec<u8> =
        [u32::try_from(index).unwrap_or(0), 0, 2, 100_024, 1, 3, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
    call.extend(opaque(address(index).to_string().as_bytes()));
    call.extend(opaque(b"nfs-a"));
    call.extend([100_021_u32, 3, 16].map(u32::to_be_bytes).concat());
    let mark = 0x8000_0000 | u32::try_from(call.len()).unwrap_or(0);
    stream.write_all(&[mark.to_be_bytes().to_vec(), call].concat())?;
    // Its result is a number without a meaning for us.
    Ok(stream.read_exact(&mut [0; ANSWER - 4])?)
}

/// A connection, and the answer that it waits for.
struct Worker {
    stream: TcpStream,
    asked: Option<(usize, Instant)>,
}

fn at_a_time(
    port: u16,
    clients: Range<usize>,
    cookie: u8,
    at_once: usize,
    until: Instant,
) -> Result<(Vec<f64>, usize)> {
    let connected =
        (0..at_once.min(clients.len())).map(|_| Ok(Worker { stream: connect(port)?, asked: None }));
    let mut workers: Vec<Worker> = connected.collect::<Result<_>>()?;
    let (mut micros, mut refused, mut next) = (Vec::with_capacity(clients.len()), 0, clients.start);
    loop {
        for worker in workers.iter_mut().filter(|worker| worker.asked.is_none()) {
            if next < clients.end {
                worker.asked = Some((next, Instant::now()));
                worker.stream.write_all(&question(next, cookie))?;
                next += 1;
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if micros.len() == clients.len() || left.is_zero() {
            return Ok((micros, refused));
        }
        for at in readable(&workers, left)? {
            let Worker { stream, asked } = &mut workers[at];
            let Some((index, began)) = *asked else { continue };
            if answered(stream)? {
                micros.push(began.elapsed().as_secs_f64() * 1e6);
                *asked = None;
            } else {
                refused += 1;
                thread::sleep(REFUSED_PAUSE);
                stream.write_all(&question(index, cookie))?;
            }
        }
    }
}

/// Those that have an answer.
fn readable(workers: &[Worker], patience: Duration) -> Result<Vec<usize>> {
    let mut fds: Vec<PollFd<'_>> =
        workers.iter().map(|worker| PollFd::new(&worker.stream, PollFlags::IN)).collect();
    let timeout =
        Timespec { tv_sec: i64::try_from(patience.as_secs())?, tv_nsec: patience.subsec_nanos().into() };
    poll(&mut fds, Some(&timeout))?;
    Ok((0..fds.len()).filter(|at| !fds[*at].revents().is_empty()).collect())
}

/// From a privileged port, as lockd and Ganesha ask: heirlock registers for no other program.
fn connect(port: u16) -> Result<TcpStream> {
    let stream = privileged_stream((Ipv4Addr::LOCALHOST, port).into()).context("no program listens")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// SM_MON as lockd encodes it, as one record.
fn question(index: usize, cookie: u8) -> Vec<u8> {
    let mut call: Vec<u8> =
        [u32::try_from(index).unwrap_or(0), 0, 2, 100_024, 1, 2, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
    call.extend(opaque(address(index).to_string().as_bytes()));
    call.extend(opaque(b"nfs-a"));
    call.extend([100_021_u32, 3, 16].map(u32::to_be_bytes).concat());
    call.extend([cookie; 16]);
    let mark = 0x8000_0000 | u32::try_from(call.len()).unwrap_or(0);
    [mark.to_be_bytes().to_vec(), call].concat()
}

/// Reads an answer: whether the client is monitored.
fn answered(stream: &mut TcpStream) -> Result<bool> {
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer).context("no answer")?;
    match word(&answer, 28) {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        found => bail!("expected STAT_SUCC or STAT_FAIL, found {found:?}"),
    }
}
