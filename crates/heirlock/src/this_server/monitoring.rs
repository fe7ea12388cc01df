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
        let port = settings.capture.port;
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
        let wanted = move |wanted| drop(inbox.send(News::Monitor(wanted)));
        // Its sockets and its threads are where its lock manager asks, and so are the threads that they begin.
        let (monitor, number) = options.host.within("enter", || {
            let sockets = match options.host.has_our_network() {
                true => Sockets::open(port),
                // Sockets that were handed over are not there.
                false => Sockets::bind(port),
            };
            let sockets = sockets.context("can't have the status monitor's sockets")?;
            monitor::start(&options, peers, sockets, prepare, turns, wanted)
        })??;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::mpsc::channel;

    use crate::agent::testing::settings_in;
    use crate::config::Settings;
    use crate::host::testing::Instance;
    use crate::this_server::ThisServer;
    use crate::watchdog::Turns;

    /// The names of this program's threads in this network namespace.
    fn threads_in(namespace: &Path) -> BTreeSet<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let is_there =
            |task: &std::path::PathBuf| fs::read_link(task.join("ns/net")).is_ok_and(|n| n == namespace);
        let name =
            |task: std::path::PathBuf| Some(fs::read_to_string(task.join("comm")).ok()?.trim().to_owned());
        tasks.filter(is_there).filter_map(name).collect()
    }

    #[test]
    fn a_status_monitor_works_in_the_network_of_its_lock_manager() {
        let Some(instance) = Instance::as_root(&["--net"], "ip link set lo up") else { return };
        // Here another program has its port.
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::clone(&settings_in(&directory));
        settings.capture.port = port;
        let (inbox, _messages) = channel();
        let (_, mut lock_manager) = ThisServer::begun(instance.host.clone(), &settings.into(), inbox);
        lock_manager.begin_monitoring(Turns::unwatched()).unwrap();
        let connect = move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop);
        instance.host.start("connects", connect).unwrap().join().unwrap().unwrap();
        let namespace = fs::read_link(format!("/proc/{}/ns/net", instance.host.process)).unwrap();
        let there = threads_in(&namespace);
        for name in ["status-monitor", "downcalls", "registration"] {
            assert!(there.contains(name), "{name} is not among {there:?}");
        }
        let here = threads_in(&fs::read_link("/proc/thread-self/ns/net").unwrap());
        assert!(!here.contains("enter"), "{here:?}");
    }
}
