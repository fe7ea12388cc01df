//! `heirlock records export`: the records of a service as a status monitor keeps them, for stock `sm-notify -P`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use heirlock_core::{Generation, ServiceName};
use serde::Serialize;

use crate::config::Settings;
use crate::files::syncs::Syncs;
use crate::files::{Folder, Owner, trusted};

use super::super::exit::{Exit, Failed};
use super::{Left, Newest, left_of};

/// The result of an export.
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
        Failed::new(Exit::Failed, format!("can't write {shown}: {error}; its content is not whole, empty it"))
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
    match Folder::open(directory).and_then(|folder| folder.names(0)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            refused(format!("expected an empty directory, found files in {shown}; name another one"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => trusted::make_folder(directory, 0o700)
            .or_else(|error| {
                refused(format!("can't create {shown}: {error}; name a directory whose parent exists"))
            }),
        Err(error) => refused(format!("expected an empty directory, can't read {shown}: {error}")),
    }
}

/// The directory that is written. `sm-notify` gives its rights away to the directory's owner, so all in it must be
/// that user's; and since that user may be at work in it, nothing is reached by a path.
struct Target {
    directory: Folder,
    owner: (u32, u32),
}

impl Target {
    fn open(directory: &Path) -> io::Result<Self> {
        let directory = Folder::open(directory)?;
        let stat = directory.stat()?;
        Ok(Self { directory, owner: (stat.st_uid, stat.st_gid) })
    }

    fn write(&self, newest: &Newest) -> io::Result<()> {
        let (sm, sm_bak) = (self.folder("sm")?, self.folder("sm.bak")?);
        let owner = Owner::User(self.owner.0, self.owner.1);
        let syncs = Syncs::new("export-sync", Arc::default());
        let mut batch = syncs.batch();
        for (client, bytes) in newest.contents.records.conveyed() {
            let name = client.as_str();
            batch.add((), || Ok(Box::new(sm.create_begun(name, bytes, 0o600, owner)?)))?;
        }
        if let Some(state) = newest.contents.state {
            self.directory.create("state", &state.render_file(), 0o644, owner, true)?;
        }
        batch.end().into_iter().try_for_each(|((), synced)| synced)?;
        [&sm, &sm_bak, &self.directory].into_iter().try_for_each(Folder::sync)?;
        // The directory may have been made a moment ago.
        match self.directory.path().parent() {
            Some(above) if !above.as_os_str().is_empty() => Folder::open(above)?.sync(),
            _ => Folder::open(Path::new("."))?.sync(),
        }
    }

    fn folder(&self, name: &str) -> io::Result<Folder> {
        self.directory.make_folder(name, 0o700)?;
        let folder = self.directory.folder(name)?;
        let ours = folder.stat()?;
        if (ours.st_uid, ours.st_gid) != self.owner {
            folder.set_owner(self.owner.0, self.owner.1)?;
        }
        Ok(folder)
    }
}
