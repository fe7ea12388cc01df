//! The rounds of one case: quick programs run several times in turn, and the median counts; the other programs run once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::asker::{Asked, ask};
use super::bare::{self, Granter};
use super::{Row, Tool};
use crate::bench::agent::{SERVICE, Server, Store};
use crate::bench::clients::{Clients, address, record};
use crate::bench::etcd::{Etcd, Putter};
use crate::bench::played::Kernel;
use crate::bench::report::percentile;
use crate::bench::site::{Host, Running, Site, monitor_port, wait_for};
use crate::bench::{Options, ground};

/// Names that an adoption announces to each client.
const NAMES: usize = 3;

/// How long heirlock may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(options: &Options, clients: usize, at_once: usize) -> Result<Vec<Row>> {
    let mut rounds: Vec<Vec<Row>> = Vec::new();
    for _ in 0..options.repeat.max(1) {
        let mut round = bare(clients, at_once)?;
        round.extend(heirlock(options, clients, at_once)?);
        rounds.push(round);
    }
    let mut rows: Vec<Row> = (0..rounds[0].len()).map(|case| median(&rounds, case)).collect();
    for tool in [Tool::Statd, Tool::StatdCallout] {
        rows.push(statd(options, tool, clients, at_once)?);
    }
    Ok(rows)
}

fn median(rounds: &[Vec<Row>], case: usize) -> Row {
    let mut tries: Vec<&Row> = rounds.iter().map(|round| &round[case]).collect();
    tries.sort_by(|a, b| a.total_ms.total_cmp(&b.total_ms));
    tries[tries.len() / 2].clone()
}

pub(super) fn row(tool: Tool, clients: usize, at_once: usize, mut asked: Asked) -> Row {
    let row = Row {
        tool,
        clients,
        at_once,
        unwritten_mb: 0,
        answered: asked.micros.len(),
        refused: asked.refused,
        total_ms: asked.total.as_secs_f64() * 1e3,
        half_us: percentile(&mut asked.micros, 50),
        most_us: percentile(&mut asked.micros, 99),
    };
    eprintln!(
        "mon: {} {} of {clients}, {at_once} at a time: {:.1} ms",
        tool.words(),
        row.answered,
        row.total_ms
    );
    row
}

fn bare(clients: usize, at_once: usize) -> Result<Vec<Row>> {
    let syncs = bare::syncs(&ground::folder()?.join("sm"), clients, at_once)?;
    let granter = Granter::start()?;
    let granted = ask(granter.port, 0..clients, 1, at_once, PATIENCE)?;
    Ok(vec![row(Tool::BareSyncs, clients, at_once, syncs), row(Tool::BareRpc, clients, at_once, granted)])
}

/// The same with heirlock's store in etcd, beside puts to the same member and heirlock's store in a folder.
pub(super) fn measure_in_etcd(options: &Options, clients: usize, at_once: usize) -> Result<Vec<Row>> {
    let mut rounds: Vec<Vec<Row>> = Vec::new();
    for _ in 0..options.repeat.max(1) {
        let mut round = bare(clients, at_once)?;
        round.extend(heirlock(options, clients, at_once)?);
        let site = Site::new()?;
        let etcd = Etcd::start(&site)?;
        round.push(row(Tool::BarePuts, clients, at_once, puts(clients, at_once)?));
        let own = puts_by_heirlock(options, clients, at_once)?;
        round.push(row(Tool::BarePutsByHeirlock, clients, at_once, own));
        let [first, again] = registered(options, &site, &Store::in_etcd(&etcd), clients, at_once)?;
        round.push(row(Tool::HeirlockInEtcd, clients, at_once, first));
        round.push(row(Tool::HeirlockInEtcdAgain, clients, at_once, again));
        rounds.push(round);
    }
    Ok((0..rounds[0].len()).map(|case| median(&rounds, case)).collect())
}

/// Puts a record for each client, so many in one transaction.
fn puts(clients: usize, at_once: usize) -> Result<Asked> {
    let mut putter = Putter::connect()?;
    let (began, mut micros) = (Instant::now(), Vec::with_capacity(clients));
    for first in (0..clients).step_by(at_once) {
        let names = (first..clients.min(first + at_once)).map(|index| address(index).to_string());
        let entries: Vec<(String, String)> =
            names.map(|name| (format!("/bare/{name}"), record(&name))).collect();
        let asked = Instant::now();
        putter.put(&entries)?;
        micros.extend(entries.iter().map(|_| asked.elapsed().as_secs_f64() * 1e6));
    }
    Ok(Asked { micros, total: began.elapsed(), refused: 0 })
}

/// The same through heirlock's own client.
fn puts_by_heirlock(options: &Options, clients: usize, at_once: usize) -> Result<Asked> {
    let names = (0..clients).map(|index| address(index).to_string());
    let keys: Vec<(String, String)> =
        names.map(|name| (format!("/by-heirlock/{name}"), record(&name))).collect();
    let each = Etcd::put_by_heirlock(&options.heirlock, &keys, at_once)?;
    ensure!(each.len() == clients.div_ceil(at_once), "{} transactions for {clients} clients", each.len());
    let total = Duration::from_secs_f64(each.iter().sum::<f64>() / 1e6);
    let micros =
        keys.chunks(at_once).zip(&each).flat_map(|(keys, took)| keys.iter().map(|_| *took)).collect();
    Ok(Asked { micros, total, refused: 0 })
}

fn heirlock(options: &Options, clients: usize, at_once: usize) -> Result<Vec<Row>> {
    let site = Site::new()?;
    let [first, again] = registered(options, &site, &Store::new(&site)?, clients, at_once)?;
    Ok(vec![row(Tool::Heirlock, clients, at_once, first), row(Tool::HeirlockAgain, clients, at_once, again)])
}

/// The clients register with the primary; it is lost; they register again with the server that has adopted them.
fn registered(
    options: &Options,
    site: &Site,
    store: &Store,
    clients: usize,
    at_once: usize,
) -> Result<[Asked; 2]> {
    let primary = Server::new(site, store, &options.heirlock, "nfs-a", "nsm")?;
    let agent = primary.start()?;
    let first = ask(monitor_port()?, 0..clients, 1, at_once, PATIENCE)?;
    drop(agent);
    let _kernel = Kernel::start()?;
    let living = site.among_clients(|| Clients::start(clients, |_| false, NAMES))?;
    let adoptive = Server::new(site, store, &options.heirlock, "nfs-b", "nsm")?;
    let _agent = adoptive.start()?;
    let mut adopting = Running::start(adoptive.heirlock(&["adopt", SERVICE, "--owner-fenced"]))?;
    wait_for("an adoption", || living.told() == clients || !adopting.lives())?;
    ensure!(living.told() == clients, "{} of {clients} clients were told by an adoption", living.told());
    let again = ask(monitor_port()?, 0..clients, 2, at_once, PATIENCE)?;
    living.stop()?;
    Ok([first, again])
}

fn statd(options: &Options, tool: Tool, clients: usize, at_once: usize) -> Result<Row> {
    let site = Site::new()?;
    let host = site.host("nfs-a")?;
    let callout = if tool == Tool::StatdCallout { Some(callout(&host)?) } else { None };
    let (_statd, port) = host.statd(callout.as_deref())?;
    Ok(row(tool, clients, at_once, ask(port, 0..clients, 1, at_once, options.patience)?))
}

/// The least that makes a client durable elsewhere before rpc.statd answers.
fn callout(host: &Host) -> Result<PathBuf> {
    let (kept, script) = (host.folder.join("kept"), host.folder.join("callout"));
    fs::create_dir(&kept)?;
    // rpc.statd runs it as its own user.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o777))?;
    let text = format!("#!/bin/sh\nexec dd of={}/$2 conv=fsync status=none < /dev/null\n", kept.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}
