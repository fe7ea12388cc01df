//! The least cost of each half: the syncs without requests, and the requests without writes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::asker::Asked;
use crate::bench::clients::{address, record};

/// Writes a record for each client, durable under its own name; so many share their syncs.
pub(in crate::bench) fn syncs(folder: &Path, clients: usize, at_once: usize) -> Result<Asked> {
    fs::create_dir_all(folder)?;
    let began = Instant::now();
    let mut micros = Vec::with_capacity(clients);
    for first in (0..clients).step_by(at_once) {
        let asked = Instant::now();
        let portion: Vec<String> =
            (first..clients.min(first + at_once)).map(|index| address(index).to_string()).collect();
        for name in &portion {
            let mut file = File::create(folder.join(format!(".{name}")))?;
            file.write_all(record(name).as_bytes())?;
            if at_once == 1 {
                file.sync_all()?;
            }
        }
        if at_once > 1 {
            rustix::fs::syncfs(File::open(folder)?)?;
        }
        for name in &portion {
            fs::rename(folder.join(format!(".{name}")), folder.join(name))?;
        }
        File::open(folder)?.sync_all()?;
        micros.extend(portion.iter().map(|_| asked.elapsed().as_secs_f64() * 1e6));
    }
    Ok(Asked { micros, total: began.elapsed(), refused: 0 })
}

/// Grants whatever it is asked and does nothing else.
pub(super) struct Granter {
    pub(super) port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Granter {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || grant(&listener, &asked));
        Ok(Self { port, stop, thread: Some(thread) })
    }
}

impl Drop for Granter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn grant(listener: &TcpListener, stop: &AtomicBool) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(Duration::from_millis(50).subsec_nanos()) };
    let mut streams: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut ready = vec![PollFd::new(listener, PollFlags::IN)];
        ready.extend(streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
        if poll(&mut ready, Some(&timeout)).is_err() {
            return;
        }
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut at = 0;
        streams.retain_mut(|stream| {
            at += 1;
            !ready[at] || answer(stream)
        });
        if ready[0]
            && let Ok((stream, _)) = listener.accept()
        {
            let _ = stream.set_nodelay(true);
            streams.push(stream);
        }
    }
}

/// `false` where the connection is over.
fn answer(stream: &mut TcpStream) -> bool {
    let mut question = [0; 1024];
    let Ok(length @ 8..) = stream.read(&mut question) else { return false };
    let words = [0x8000_0000 | 32, 0, 1, 0, 0, 0, 0, 0, 7].map(u32::to_be_bytes);
    let mut answer = words.concat();
    answer[4..8].copy_from_slice(&question[..length][4..8]);
    stream.write_all(&answer).is_ok()
}
