//! `heirlock records export`: the records of a service as a status monitor keeps them, for stock `sm-notify -P`.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use heirlock_core::{Generation, ServiceName};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat, syncfs};
use serde::Serialize;

use crate::config::Settings;

use super::super::exit::{Exit, Failed};
use super::{Left, Newest, left_of};

/// What was written.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Exported {
    pub(in crate::cli) service: ServiceName,
    pub(in crate::cli) generation: Generation,
    pub(in crate::cli) state_number: Option<u32>,
    pub(in crate::cli) records: usize,
    pub(in crate::cli) directory: String,
    /// From where its clients expect to be told.
    pub(in crate::cli) address: Option<String>,
    /// Records that can't be read.
    pub(in crate::cli) left: Vec<Left>,
}

/// Writes the newest generation of a service into an empty directory.
pub(super) fn export(
    settings: &Settings,
    service: &ServiceName,
    newest: &Newest,
    directory: &Path,
) -> Result<Exported, Failed> {
    let shown = directory.display();
    refuse_unless_empty(directory)?;
    let failed = |error: io::Error| {
        Failed::new(
            Exit::Failed,
            format!("can't write {shown}: {error}; what is in it is not whole, empty it"),
        )
    };
    Target::open(directory).and_then(|target| target.write(newest)).map_err(failed)?;
    let configured = settings.service(service);
    Ok(Exported {
        service: service.clone(),
        generation: newest.generation,
        state_number: newest.contents.state.map(|state| state.0),
        records: newest.contents.records.len(),
        directory: shown.to_string(),
        address: configured.and_then(|service| service.addresses.first()).map(ToString::to_string),
        left: left_of(&newest.contents),
    })
}

/// Anything that lies there already would be told of a restart as well, or be written over.
fn refuse_unless_empty(directory: &Path) -> Result<(), Failed> {
    let shown = directory.display();
    let refused = |what: String| Err(Failed::new(Exit::Refused, what));
    match std::fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => refused(format!("expected an empty directory, found files in {shown}; name another one")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(directory).or_else(|error| {
                refused(format!("can't create {shown}: {error}; name a directory whose parent exists"))
            })
        }
        Err(error) => refused(format!("expected an empty directory, can't read {shown}: {error}")),
    }
}

/// The directory that is written. `sm-notify` gives its rights away to the directory's owner, so all in it must be
/// that user's; and since that user may be at work in it, nothing is reached by a path.
struct Target {
    directory: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

impl Target {
    fn open(directory: &Path) -> io::Result<Self> {
        let file = File::open(directory)?;
        let metadata = file.metadata()?;
        let ours = rustix::process::geteuid().as_raw() == metadata.uid()
            && rustix::process::getegid().as_raw() == metadata.gid();
        let owner = (!ours).then(|| (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())));
        Ok(Self { directory: file.into(), owner })
    }

    fn write(&self, newest: &Newest) -> io::Result<()> {
        let sm = self.folder("sm")?;
        self.folder("sm.bak")?;
        for (client, bytes) in &newest.contents.records {
            self.file(&sm, client.as_str(), bytes, 0o600)?;
        }
        if let Some(state) = newest.contents.state {
            self.file(&self.directory, "state", &state.render_file(), 0o644)?;
        }
        Ok(syncfs(&self.directory)?)
    }

    fn folder(&self, name: &str) -> io::Result<OwnedFd> {
        mkdirat(&self.directory, name, Mode::from(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(&self.directory, name, flags, Mode::empty())?;
        self.give(&folder)?;
        Ok(folder)
    }

    fn file(&self, folder: &OwnedFd, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, name, flags, Mode::from(0o600))?;
        fchmod(&file, Mode::from(mode))?;
        self.give(&file)?;
        File::from(file).write_all(bytes)
    }

    fn give(&self, to: impl AsFd) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => Ok(fchown(to, Some(user), Some(group))?),
            None => Ok(()),
        }
    }
}
