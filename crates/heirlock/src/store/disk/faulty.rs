//! A disk in memory that behaves as badly as a disk may: changes that were not synced may be lost, kept or torn at a crash, in
//! any combination, and any step may fail.
//!
//! It is harsher than most file systems: names of one folder become durable independently of each other, fsync of a
//! file says nothing of its name, and bytes that an fsync failed to write are never written by a later one (as on
//! Linux).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use super::{Disk, Owner, Reader, Sharer};
use crate::files::syncs::Unsynced;
use crate::files::{Listed, Stamp};

/// A fault. Steps are counted from the disk's beginning; looking is no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The power fails before this step; nothing works from then on.
    CrashBefore(u64),
    /// This one step fails.
    Once(u64, Errno),
    /// Every step from this one on fails; on a full disk, only those that need room.
    From(u64, Errno),
    /// Everything fails, looking included.
    All(Errno),
}

/// The unsynced changes that are still there after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    Nothing,
    Everything,
    /// Some of it, torn at places; which is drawn from this seed.
    Some(u64),
}

/// One disk; clones are the same disk.
#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

struct State {
    nodes: Vec<Node>,
    /// How often files of a name were read.
    reads: BTreeMap<OsString, u64>,
    /// Comes before the next file that two folders share.
    meanwhile: Option<Meanwhile>,
    steps: u64,
    fault: Fault,
    off: bool,
}

type Meanwhile = Box<dyn FnOnce(&FaultyDisk) + Send>;

#[derive(Clone)]
enum Node {
    File {
        now: Vec<u8>,
        durable: Vec<u8>,
        /// How many of the first bytes a failed sync has given up.
        given_up: usize,
    },
    Folder {
        now: BTreeMap<String, usize>,
        durable: BTreeMap<String, usize>,
        unsynced: Vec<NameChange>,
    },
}

/// A change of a folder that happens whole or not at all: names, and the files that they stand for from then on.
type NameChange = Vec<(String, Option<usize>)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Room,
    NoRoom,
}

impl FaultyDisk {
    /// An empty disk without a fault.
    pub(crate) fn new() -> Self {
        Self::of(vec![folder(BTreeMap::new())])
    }

    fn of(nodes: Vec<Node>) -> Self {
        let (reads, meanwhile) = (BTreeMap::new(), None);
        Self(Arc::new(Mutex::new(State {
            nodes,
            reads,
            meanwhile,
            steps: 0,
            fault: Fault::None,
            off: false,
        })))
    }

    /// Sets the fault from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// How many steps were made or tried.
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// How often files of this name were read, in all folders.
    pub(crate) fn reads(&self, name: &str) -> u64 {
        self.state().reads.get(OsStr::new(name)).copied().unwrap_or_default()
    }

    /// Another server is faster: it does this before the next file gets a name in a second folder.
    pub(crate) fn meanwhile(&self, done: impl FnOnce(&Self) + Send + 'static) {
        self.state().meanwhile = Some(Box::new(done));
    }

    /// The disk as it is found after a crash now.
    pub(crate) fn after_crash(&self, survives: Survives) -> Self {
        let mut random = fastrand::Rng::with_seed(match survives {
            Survives::Some(seed) => seed,
            _ => 0,
        });
        let nodes = self.state().nodes.iter().map(|node| found(node, survives, &mut random)).collect();
        Self::of(nodes)
    }

    /// Every path on it, hidden ones too.
    pub(crate) fn paths(&self) -> Vec<String> {
        let state = self.state();
        let mut paths = Vec::new();
        let mut folders = vec![(String::new(), 0)];
        while let Some((above, at)) = folders.pop() {
            let Node::Folder { now, .. } = &state.nodes[at] else { continue };
            for (name, id) in now {
                let path = format!("{above}/{name}");
                folders.push((path.clone(), *id));
                paths.push(path);
            }
        }
        paths.sort();
        paths
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let state = self.state();
        state.look().ok()?;
        let id = state.find(path).ok()?;
        match &state.nodes[id] {
            Node::File { now, .. } => Some(Stamp::without_times(id, now.len())),
            Node::Folder { .. } => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn folder(names: BTreeMap<String, usize>) -> Node {
    Node::Folder { now: names.clone(), durable: names, unsynced: Vec::new() }
}

/// One file or folder as it is found after a crash.
fn found(node: &Node, survives: Survives, random: &mut fastrand::Rng) -> Node {
    match node {
        Node::Folder { durable, unsynced, .. } => {
            let mut names = durable.clone();
            for change in unsynced {
                let kept = match survives {
                    Survives::Nothing => false,
                    Survives::Everything => true,
                    Survives::Some(_) => random.bool(),
                };
                if kept {
                    apply(&mut names, change);
                }
            }
            folder(names)
        }
        Node::File { now, durable, given_up } => {
            let written = as_written(now, durable, *given_up);
            let bytes = match survives {
                Survives::Nothing => durable.clone(),
                Survives::Everything => written,
                Survives::Some(_) => written[..random.usize(durable.len()..=written.len())].to_vec(),
            };
            Node::File { now: bytes.clone(), durable: bytes, given_up: 0 }
        }
    }
}

/// A file's bytes as they get to the disk: those that a failed sync has given up never do.
fn as_written(now: &[u8], durable: &[u8], given_up: usize) -> Vec<u8> {
    let mut written = now.to_vec();
    for byte in written.iter_mut().take(given_up).skip(durable.len()) {
        *byte = 0;
    }
    written
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

impl State {
    fn step(&mut self, needs: Needs) -> io::Result<()> {
        self.look()?;
        let step = self.steps;
        self.steps += 1;
        match self.fault {
            Fault::CrashBefore(at) if step == at => {
                self.off = true;
                Err(Errno::IO.into())
            }
            Fault::Once(at, error) if step == at => Err(error.into()),
            Fault::From(_, Errno::NOSPC) if needs == Needs::NoRoom => Ok(()),
            Fault::From(from, error) if step >= from => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn look(&self) -> io::Result<()> {
        match self.fault {
            _ if self.off => Err(Errno::IO.into()),
            Fault::All(error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for name in path.to_str().unwrap().split('/').filter(|name| !name.is_empty()) {
            match &self.nodes[at] {
                Node::Folder { now, .. } => at = *now.get(name).ok_or(io::Error::from(Errno::NOENT))?,
                Node::File { .. } => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }

    fn names(&self, id: usize) -> io::Result<&BTreeMap<String, usize>> {
        match &self.nodes[id] {
            Node::Folder { now, .. } => Ok(now),
            Node::File { .. } => Err(Errno::NOTDIR.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok((self.find(path.parent().unwrap())?, name))
    }

    fn change(&mut self, id: usize, change: NameChange) -> io::Result<()> {
        match &mut self.nodes[id] {
            Node::Folder { now, unsynced, .. } => {
                apply(now, &change);
                unsynced.push(change);
                Ok(())
            }
            Node::File { .. } => Err(Errno::NOTDIR.into()),
        }
    }

    /// Gives a new name to what exists or is new.
    fn name(&mut self, path: &Path, id: usize) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if self.names(parent)?.contains_key(&name) {
            return Err(Errno::EXIST.into());
        }
        self.change(parent, vec![(name, Some(id))])
    }

    fn put(&mut self, id: usize, bytes: &[u8]) -> io::Result<()> {
        let written = self.step(Needs::Room);
        // A write that fails may have been done in part.
        let part = if written.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        if let (Node::File { now, .. }, false) = (&mut self.nodes[id], self.off) {
            now.extend_from_slice(part);
        }
        written
    }

    fn sync(&mut self, ids: &[usize]) -> io::Result<()> {
        let synced = self.step(Needs::Room);
        for id in ids {
            match &mut self.nodes[*id] {
                Node::File { now, durable, given_up } if synced.is_ok() => {
                    *durable = as_written(now, durable, *given_up);
                }
                Node::File { now, durable, given_up } if now != durable => *given_up = now.len(),
                Node::Folder { now, durable, unsynced } if synced.is_ok() => {
                    durable.clone_from(now);
                    unsynced.clear();
                }
                _ => {}
            }
        }
        synced
    }

    fn remove_all(&mut self, parent: usize, name: &str, id: usize) -> io::Result<()> {
        if let Node::Folder { now, .. } = &self.nodes[id] {
            for (name, child) in now.clone() {
                self.remove_all(id, &name, child)?;
            }
        }
        self.step(Needs::NoRoom)?;
        self.change(parent, vec![(name.to_owned(), None)])
    }
}

/// One folder of the disk.
struct FolderOf<'a> {
    disk: &'a FaultyDisk,
    path: PathBuf,
}

impl Reader for FolderOf<'_> {
    /// It says nothing of any of its names.
    fn entries(&self) -> io::Result<Vec<(OsString, Listed)>> {
        let names = self.disk.list(&self.path)?;
        Ok(names.into_iter().map(|name| (name, Listed::NOWHERE)).collect())
    }

    fn read(&self, name: &OsStr, _: Listed, max: usize) -> io::Result<(Vec<u8>, Option<Stamp>)> {
        let stamp = self.stamp(name);
        self.disk.read(&self.path.join(name), max).map(|bytes| (bytes, stamp))
    }

    fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        self.disk.stamp(&self.path.join(name))
    }
}

/// Two folders of the disk.
struct TwoOf<'a>(FolderOf<'a>, FolderOf<'a>);

impl Sharer for TwoOf<'_> {
    fn stamp(&self, name: &OsStr) -> Option<Stamp> {
        self.0.stamp(name)
    }

    fn link(&self, name: &OsStr, stamp: &Stamp) -> io::Result<bool> {
        let meanwhile = self.0.disk.state().meanwhile.take();
        meanwhile.into_iter().for_each(|done| done(self.0.disk));
        self.0.disk.link(&self.0.path.join(name), &self.1.path.join(name))?;
        Ok(self.1.stamp(name).is_some_and(|there| there.is_of_the_same_bytes(stamp)))
    }
}

impl Disk for FaultyDisk {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.look()?;
        let name = path.file_name().unwrap_or_default().to_owned();
        *state.reads.entry(name).or_default() += 1;
        match &state.nodes[state.find(path)?] {
            Node::File { now, .. } if now.len() > max => Err(io::ErrorKind::FileTooLarge.into()),
            Node::File { now, .. } => Ok(now.clone()),
            Node::Folder { .. } => Err(Errno::ISDIR.into()),
        }
    }

    fn reader<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Reader + 'a>> {
        Ok(Box::new(FolderOf { disk: self, path: folder.to_owned() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        state.look()?;
        Ok(state.names(state.find(path)?)?.keys().map(OsString::from).collect())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Needs::Room)?;
        if let Ok(id) = state.find(path) {
            return state.names(id).map(|_| ());
        }
        state.nodes.push(folder(BTreeMap::new()));
        let id = state.nodes.len() - 1;
        state.name(path, id)
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        let state = self.state();
        state.look()?;
        let is_folder = matches!(state.nodes[state.find(path)?], Node::Folder { .. });
        Ok(Owner { is_folder, uid: rustix::process::geteuid().as_raw(), mode: 0o700 })
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        self.state().find(path).map(|_| ())
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut state = self.state();
        state.step(Needs::Room)?;
        state.nodes.push(Node::File { now: Vec::new(), durable: Vec::new(), given_up: 0 });
        let id = state.nodes.len() - 1;
        state.name(path, id)?;
        state.put(id, bytes)?;
        if sync { state.sync(&[id]) } else { Ok(()) }
    }

    fn begin_to_write(&self, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn Unsynced>> {
        self.write(path, bytes, false)?;
        let id = self.state().find(path)?;
        Ok(Box::new(Begun { disk: self.clone(), id }))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.state().find(path).is_err() {
            self.write(path, b"", false)?;
        }
        let mut state = self.state();
        let id = state.find(path)?;
        state.put(id, bytes)?;
        state.sync(&[id])
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Needs::Room)?;
        let id = state.find(from)?;
        if let Ok(there) = state.find(to) {
            match (&state.nodes[id], &state.nodes[there]) {
                (Node::Folder { .. }, Node::Folder { now, .. }) if !now.is_empty() => {
                    return Err(Errno::NOTEMPTY.into());
                }
                (Node::File { .. }, Node::Folder { .. }) => return Err(Errno::ISDIR.into()),
                _ => {}
            }
        }
        let ((parent, from), (other, to)) = (state.parent(from)?, state.parent(to)?);
        assert_eq!(parent, other, "between folders a rename is not modelled");
        state.change(parent, vec![(from, None), (to, Some(id))])
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Needs::Room)?;
        let id = state.find(from)?;
        state.name(to, id)
    }

    fn sharer<'a>(&'a self, from: &Path, to: &Path) -> io::Result<Box<dyn Sharer + 'a>> {
        let of = |path: &Path| FolderOf { disk: self, path: path.to_owned() };
        Ok(Box::new(TwoOf(of(from), of(to))))
    }

    fn written_at_s(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.look()?;
        // It keeps no times.
        state.find(path).map(|_| 0)
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.look()?;
        let id = state.find(path)?;
        let mut counts: HashMap<usize, u64> = HashMap::new();
        for node in &state.nodes {
            if let Node::Folder { now, .. } = node {
                now.values().for_each(|id| *counts.entry(*id).or_default() += 1);
            }
        }
        Ok(counts[&id])
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Needs::NoRoom)?;
        let (parent, name) = state.parent(path)?;
        if matches!(state.nodes[state.find(path)?], Node::Folder { .. }) {
            return Err(Errno::ISDIR.into());
        }
        state.change(parent, vec![(name, None)])
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path)?;
        let (parent, name) = state.parent(path)?;
        state.remove_all(parent, &name, id)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path)?;
        state.names(id)?;
        state.sync(&[id])
    }

    fn for_one_call(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }
}

/// A file of this disk that was written and not synced.
struct Begun {
    disk: FaultyDisk,
    id: usize,
}

impl Unsynced for Begun {
    fn sync(self: Box<Self>) -> io::Result<()> {
        self.disk.state().sync(&[self.id])
    }
}
