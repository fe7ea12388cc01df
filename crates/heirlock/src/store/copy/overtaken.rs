//! A disk on which something happens before one of its operations.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::disk::faulty::FaultyDisk;
use super::super::disk::{Disk, Owner, Reader, Sharer};
use crate::files::syncs::Unsynced;

/// What happens.
type Happens = Box<dyn FnOnce() + Send>;

/// The disk; clones are the same one.
#[derive(Clone)]
pub(super) struct Overtaken {
    disk: FaultyDisk,
    /// How many operations come before it.
    next: Arc<Mutex<(usize, Option<Happens>)>>,
}

impl Overtaken {
    pub(super) fn new(disk: FaultyDisk, after: usize, happens: impl FnOnce() + Send + 'static) -> Self {
        Self { disk, next: Arc::new(Mutex::new((after, Some(Box::new(happens))))) }
    }

    /// Whether it has happened.
    pub(super) fn has_happened(&self) -> bool {
        self.next.lock().unwrap().1.is_none()
    }

    fn disk(&self) -> &FaultyDisk {
        let mut next = self.next.lock().unwrap();
        let happens = if next.0 == 0 { next.1.take() } else { None };
        next.0 = next.0.saturating_sub(1);
        drop(next);
        if let Some(happens) = happens {
            happens();
        }
        &self.disk
    }
}

impl Disk for Overtaken {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        self.disk().read(path, max)
    }

    fn reader<'a>(&'a self, folder: &Path) -> io::Result<Box<dyn Reader + 'a>> {
        self.disk().reader(folder)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.disk().list(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.disk().make_folder(path)
    }

    fn owner(&self, path: &Path) -> io::Result<Owner> {
        self.disk().owner(path)
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        self.disk().protect(path)
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.disk().write(path, bytes, sync)
    }

    fn begin_to_write(&self, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn Unsynced>> {
        self.disk().begin_to_write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk().append(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().link(from, to)
    }

    fn sharer<'a>(&'a self, from: &Path, to: &Path) -> io::Result<Box<dyn Sharer + 'a>> {
        self.disk().sharer(from, to)
    }

    fn links(&self, path: &Path) -> io::Result<u64> {
        self.disk().links(path)
    }

    fn written_at_s(&self, path: &Path) -> io::Result<u64> {
        self.disk().written_at_s(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.disk().sync_folder(path)
    }

    fn for_one_call(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }
}
