//! heirlock as the status monitor of this server: its thread is begun, and its directory follows what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use heirlock_agent::News;
use heirlock_core::monitor::{Rules, key};
use heirlock_nsm::record::parse_record;
use heirlock_nsm::{MonName, MonitorLine};

use super::ThisLockManager;
use crate::host::Host;
use crate::monitor::directory::Directory;
use crate::monitor::sockets::Sockets;
use crate::monitor::{self, Options, SharedMonitor, Trust};
use crate::watchdog::Turns;

/// The status monitor's directory, once it was read. The thread that reads it at the start fills it in.
pub(super) type Read = Arc<Mutex<Option<Directory>>>;

impl ThisLockManager {
    /// Becomes the status monitor; its thread counts its turns.
    ///
    /// Where an earlier run of this boot has left what it was told, its clients are answered from now on, before the store
    /// and the status monitor's directory are read; [`News::DirectoryRead`] tells when that is read. Else it is read first,
    /// and the answer says of which clients the files are to follow.
    ///
    /// # Errors
    /// Where another status monitor runs, or what it needs can't be opened.
    pub(crate) fn begin_monitoring(&mut self, turns: Turns) -> Result<Option<BTreeSet<MonName>>> {
        let settings = &self.settings;
        let options = Options {
            rules: Rules {
                mon_timeout: settings.capture.mon_timeout,
                when_unprotected: settings.capture.when_unprotected,
            },
            state_directory: settings.state_directory.clone(),
            runtime_directory: settings.runtime_directory.clone(),
            rpcbind_port: settings.notify.rpcbind_port,
            rpcbind_socket: self.workshop.host.rpcbind_socket(),
            host: self.workshop.host.clone(),
            trust: Trust::PRIVILEGED,
        };
        let sockets =
            Sockets::open(settings.capture.port).context("can't have the status monitor's sockets")?;
        let mut differing = None;
        let (directory, placed) = (Arc::clone(&self.directory), self.conveyor.placed());
        let (host, state_directory) = (options.host.clone(), settings.state_directory.clone());
        let prepare = |monitor: &SharedMonitor| {
            if !monitor.resumes() {
                differing = Some(read(&directory, &host, &state_directory, monitor, &placed)?);
            }
            Ok(())
        };
        let (inbox, peers) = (self.workshop.inbox.clone(), self.workshop.lock_manager.peers());
        let (monitor, number) = monitor::start(&options, peers, sockets, prepare, turns, move |wanted| {
            let _ = inbox.send(News::Monitor(wanted));
        })?;
        self.monitor = Some(monitor.clone());
        self.answered_number = Some(number);
        if differing.is_none() {
            let told = |read| News::DirectoryRead(Box::new(read));
            self.workshop.in_thread("directory", told, move |_| {
                read(&directory, &host, &state_directory, &monitor, &placed)
                    .map_err(|error| format!("{error:#}"))
            });
        }
        Ok(differing)
    }

    /// Reads the directory, now.
    pub(super) fn read_now(&self) -> Result<BTreeSet<MonName>> {
        match &self.monitor {
            Some(monitor) => read(
                &self.directory,
                &self.workshop.host,
                &self.settings.state_directory,
                monitor,
                &self.conveyor.placed(),
            ),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Makes the files of a client say what is registered.
    pub(super) fn update(&mut self, client: &MonName, lines: &[MonitorLine]) -> Result<(), String> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(directory) = directory.as_mut() else {
            return Err("the status monitor's directory was not read yet".to_owned());
        };
        // The conveyor waits, and adds its lines to the file that is written here.
        let _held = self.conveyor.hold();
        directory.update(client, lines, &self.conveyor.placed()).map_err(|error| error.to_string())
    }
}

/// Makes the status monitor know the contents of the directory, and answers of which clients the files are to follow. The first reading
/// stays, for it knows the files that were written since.
fn read(
    into: &Read,
    host: &Host,
    state_directory: &Path,
    monitor: &SharedMonitor,
    placed: &BTreeMap<MonName, Vec<u8>>,
) -> Result<BTreeSet<MonName>> {
    let (mut directory, mut found) = Directory::open(host, state_directory)
        .with_context(|| format!("can't read {}", state_directory.join("sm").display()))?;
    let mut conveyed: BTreeMap<MonName, Vec<MonitorLine>> = BTreeMap::new();
    for parsed in placed.values().filter_map(|bytes| parse_record(bytes).ok()) {
        parsed.lines.into_iter().for_each(|line| conveyed.entry(key(&line.mon_name)).or_default().push(line));
    }
    found.retain(|(line, _)| !conveyed.get(&key(&line.mon_name)).is_some_and(|of| of.contains(line)));
    monitor.found(found);
    let differing = directory.differing(&monitor.clients(), |client| monitor.lines(client), &conveyed);
    into.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(directory);
    Ok(differing)
}
