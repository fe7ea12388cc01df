//! Clients that register at once while another program has left much unwritten on the disk: what a sync of the whole file
//! system would wait for.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::{Advice, fadvise};

use super::asker::{Asked, ask};
use super::rounds::row;
use super::{Row, Tool};
use crate::bench::agent::{Server, Store};
use crate::bench::clients::{address, record};
use crate::bench::site::{Site, monitor_port};
use crate::bench::{Options, ground};

/// MB that the other program has written and not synced, as each burst begins.
pub(super) const UNWRITTEN_MB: usize = 300;

/// Clients of one burst.
pub(super) const BURSTS: [usize; 2] = [10, 64];

/// Bursts of each program, in turn.
const ROUNDS: usize = 20;

/// How long a burst may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bursts of so many clients: by the bare loop, and by an agent that holds two services.
pub(super) fn measure(options: &Options, burst: usize) -> Result<[Row; 2]> {
    let site = Site::new()?;
    let store = Store::new(&site)?;
    let server = Server::new(&site, &store, &options.heirlock, "nfs-a", "nsm")?;
    let _agent = server.start()?;
    let (port, folder) = (monitor_port()?, ground::folder()?);
    let (mut bare, mut heirlock) = (none(), none());
    for round in 0..ROUNDS {
        let clients = round * burst..(round + 1) * burst;
        let others = leave_unwritten(&folder.join(format!("{round}.bare")))?;
        add(&mut bare, syncs_of_each(&folder.join("sm"), clients.clone())?);
        drop(others);
        let _others = leave_unwritten(&folder.join(format!("{round}.heirlock")))?;
        add(&mut heirlock, ask(port, clients, 1, burst, PATIENCE)?);
    }
    let row = |tool, asked| Row { unwritten_mb: UNWRITTEN_MB, ..row(tool, ROUNDS * burst, burst, asked) };
    Ok([row(Tool::BareSyncs, bare), row(Tool::Heirlock, heirlock)])
}

fn none() -> Asked {
    Asked { micros: Vec::new(), total: Duration::ZERO, refused: 0 }
}

fn add(all: &mut Asked, burst: Asked) {
    all.micros.extend(burst.micros);
    all.total += burst.total;
    all.refused += burst.refused;
}

/// The other program's file. What is not written yet when it goes never is.
struct Others(PathBuf);

impl Drop for Others {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Under a name that is new: ext4 begins at once to write a file that was emptied and filled again (auto_da_alloc).
fn leave_unwritten(path: &Path) -> Result<Others> {
    let others = Others(path.to_owned());
    let mut file = File::create_new(path)?;
    let piece = vec![b'x'; 1_000_000];
    for _ in 0..UNWRITTEN_MB {
        file.write_all(&piece)?;
    }
    Ok(others)
}

/// A record for each client, whose writing begins at once; then each is synced, takes its name, and the folder is synced.
fn syncs_of_each(folder: &Path, clients: Range<usize>) -> Result<Asked> {
    fs::create_dir_all(folder)?;
    let began = Instant::now();
    let names: Vec<String> = clients.map(|index| address(index).to_string()).collect();
    let mut files = Vec::with_capacity(names.len());
    for name in &names {
        let mut file = File::create(folder.join(format!(".{name}")))?;
        file.write_all(record(name).as_bytes())?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
        files.push(file);
    }
    for (file, name) in files.iter().zip(&names) {
        file.sync_all()?;
        fs::rename(folder.join(format!(".{name}")), folder.join(name))?;
    }
    File::open(folder)?.sync_all()?;
    let micros = names.iter().map(|_| began.elapsed().as_secs_f64() * 1e6).collect();
    Ok(Asked { micros, total: began.elapsed(), refused: 0 })
}
