//! A folder that another user or another server may write to.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "the one place where they are careful"))]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    Advice, AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid,
    fadvise, fchmod, fchown, fstat, linkat, mkdirat, openat, openat2, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::{expect_at_most, expect_file, if_present, read_whole, unless_absent};

/// The beginning of a temporary name. Every status monitor ignores hidden files.
const TEMPORARY: &str = ".heirlock.";

/// Bytes of a file that is tried: more than the few that a full file system may still have in its last block.
const TRIED_BYTES: usize = 16 * 1024;

/// How often another temporary name is tried where one is taken.
const NAMES_TRIED_MAX: usize = 16;

/// How many names a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// One. A second name may be that of a file of another folder, whose text must not be read here.
    One,
    /// Any number: the store gives one file a name in several generations.
    Any,
}

/// What the list of a folder says of an entry. It may be wrong by now, and a file system may say of none what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Whether it is a file.
    pub(crate) kind: FileType,
    /// The number of the file, as its [`Stamp`](super::Stamp) has it. A folder that another file system is mounted on has another one.
    pub(crate) inode: Option<u64>,
}

impl Listed {
    /// Nothing is said: no list was read.
    pub(crate) const NOWHERE: Self = Self { kind: FileType::Unknown, inode: None };
}

/// The owner of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The user's that heirlock runs as.
    Ours,
    /// The user's that the folder belongs to, as rpc.statd's own files are.
    OfFolder,
    /// This user's and this group's.
    User(u32, u32),
}

/// A file that has its bytes, and not yet its name.
#[derive(Debug)]
#[must_use]
pub(crate) struct Temporary(OsString);

/// An open folder. Everything is reached from its descriptor: a link that takes the place of one of the folders above it
/// afterwards leads nowhere else. Names are single components; a path is refused.
#[derive(Debug)]
pub(crate) struct Folder {
    at: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// A folder that the configuration or the command line names. Links on the way there are an administrator's.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { at, path: path.to_owned() })
    }

    /// A folder in this one, and never one that a link leads to.
    pub(crate) fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = component(name.as_ref())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = openat(&self.at, name, flags, Mode::empty()).map_err(|error| self.no_folder(name, error))?;
        Ok(Self { at, path: self.path.join(name) })
    }

    /// A folder somewhere below this one: no component of the path may be a link, or lead up again.
    pub(crate) fn below(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let is_name = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.components().all(is_name) {
            return Err(not_a_name(path.as_os_str()));
        }
        let from_here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match openat2(&self.at, from_here, flags, Mode::empty(), resolve) {
            Ok(at) => Ok(Self { at, path: self.path.join(path) }),
            // A kernel before 5.6, or a container's filter of system calls, whose error for links is hard to read.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::LOOP | Errno::XDEV) => self.walk(path),
            Err(error) => Err(error.into()),
        }
    }

    fn walk(&self, path: &Path) -> io::Result<Self> {
        let mut folder = Self { at: self.at.try_clone()?, path: self.path.clone() };
        for part in path.components() {
            if let Component::Normal(name) = part {
                folder = folder.folder(name)?;
            }
        }
        Ok(folder)
    }

    /// Where it was found. For people: another folder may lie there now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's own metadata.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.at)?)
    }

    /// The metadata of an entry; of a link itself, and not of its target.
    pub(crate) fn stat_of(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        Ok(statat(&self.at, component(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The names of all entries, in no order. More than `max` are an error of the kind `FileTooLarge`.
    pub(crate) fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        Ok(self.entries(max)?.into_iter().map(|(name, _)| name).collect())
    }

    /// The same, and what the list says of each.
    pub(crate) fn entries(&self, max: usize) -> io::Result<Vec<(OsString, Listed)>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.at)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() >= max {
                let why = format!("expected a folder of at most {max} files, found more");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            let listed = Listed { kind: entry.file_type(), inode: Some(entry.ino()) };
            names.push((OsString::from_vec(name.to_vec()), listed));
        }
        Ok(names)
    }

    /// Opens a file for reading, and says what it was when it was opened. Anything else of that name isn't opened at all:
    /// a device may do something already by being opened.
    pub(crate) fn open_file(&self, name: impl AsRef<OsStr>, links: Links) -> io::Result<(File, Stat)> {
        self.open_listed(name, Listed::NOWHERE, links)
    }

    /// The same, of a name that [`Self::entries`] listed a moment ago. What was listed as a file isn't looked at once more before
    /// it is opened: with very many of them that is a sixth of the time.
    pub(crate) fn open_listed(
        &self,
        name: impl AsRef<OsStr>,
        listed: Listed,
        links: Links,
    ) -> io::Result<(File, Stat)> {
        let name = component(name.as_ref())?;
        if listed.kind != FileType::RegularFile {
            self.expect_file(name)?;
        }
        self.open_seen(name, OFlags::RDONLY, links)
    }

    /// Refuses an entry that is no file.
    fn expect_file(&self, name: &OsStr) -> io::Result<()> {
        expect_file(&statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens an entry that was a file a moment ago.
    fn open_seen(&self, name: &OsStr, how: OFlags, links: Links) -> io::Result<(File, Stat)> {
        // It may be another one by now.
        let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // A time of the last reading is of no use to any of these files, and the disk would have to keep it.
        let file = match openat(&self.at, name, flags | OFlags::NOATIME, Mode::empty()) {
            // Only the file's owner and root may leave that time as it is (open(2)).
            Err(Errno::PERM) => openat(&self.at, name, flags, Mode::empty())?,
            opened => opened?,
        };
        let stat = fstat(&file)?;
        expect_file(&stat)?;
        if links == Links::One && stat.st_nlink > 1 {
            let found = format!("expected a file with one name, found one with {}; remove it", stat.st_nlink);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, found));
        }
        Ok((File::from(file), stat))
    }

    /// All of a file, of at most `max` bytes.
    pub(crate) fn read(&self, name: impl AsRef<OsStr>, links: Links, max: usize) -> io::Result<Vec<u8>> {
        let (file, stat) = self.open_file(name, links)?;
        read_whole(file, &stat, max)
    }

    /// Opens a file that bytes are added to, and makes it, with mode 0600, where there is none. A file of `max` bytes or more
    /// is refused.
    pub(crate) fn open_to_append(&self, name: impl AsRef<OsStr>, max: usize) -> io::Result<File> {
        let name = component(name.as_ref())?;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.make_file(name, OFlags::APPEND, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
            let opened = self
                .expect_file(name)
                .and_then(|()| self.open_seen(name, OFlags::WRONLY | OFlags::APPEND, Links::One));
            match opened {
                // It was taken away between the two.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tried < NAMES_TRIED_MAX => {}
                Err(error) => return Err(error),
                Ok((file, stat)) => {
                    expect_at_most(max, u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
                    return Ok(file);
                }
            }
        }
    }

    /// A new file with these bytes; durable if `sync`. An entry that is there already, a link too, is an error.
    pub(crate) fn create(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: u32,
        owner: Owner,
        sync: bool,
    ) -> io::Result<()> {
        let file = self.make_file(component(name.as_ref())?, OFlags::empty(), mode)?;
        self.fill(file, bytes, mode, owner, sync)
    }

    /// The same, whose bytes are on their way to the disk: its sync will find them written, or wait for that alone.
    pub(crate) fn create_begun(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: u32,
        owner: Owner,
    ) -> io::Result<File> {
        let mut file = self.make_file(component(name.as_ref())?, OFlags::empty(), mode)?;
        self.write_to(&mut file, bytes, mode, owner)?;
        write_out(&file);
        Ok(file)
    }

    /// A file that was written before, whose bytes are on their way to the disk from now on.
    pub(crate) fn begin_to_sync(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        // Nothing is read of it.
        let (file, _) = self.open_file(name, Links::Any)?;
        write_out(&file);
        Ok(file)
    }

    /// Writes a file that was just made, and gives it away then.
    fn fill(&self, mut file: File, bytes: &[u8], mode: u32, owner: Owner, sync: bool) -> io::Result<()> {
        self.write_to(&mut file, bytes, mode, owner)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    fn write_to(&self, file: &mut File, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        file.write_all(bytes)?;
        // The mode that was asked for may have been cut by the umask.
        fchmod(&*file, Mode::from_raw_mode(mode))?;
        self.give(file, owner)
    }

    fn make_file(&self, name: &OsStr, how: OFlags, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | how;
        Ok(File::from(openat(&self.at, name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Puts these bytes in the place of a file, or makes it. A reader finds all of the old bytes or all of the new
    /// ones. An entry that is no file is an error, and stays.
    pub(crate) fn replace(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: u32,
        owner: Owner,
        sync: bool,
    ) -> io::Result<()> {
        let temporary = self.prepare(bytes, mode, owner, sync)?;
        self.put(&temporary, name)?;
        if sync { self.sync() } else { Ok(()) }
    }

    /// The same, durable, with the owner and the mode of the file that is there; else the folder's owner's.
    pub(crate) fn replace_as_it_is(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: u32,
    ) -> io::Result<()> {
        let name = name.as_ref();
        let (mode, owner) = match if_present(self.stat_of(name))? {
            Some(old) => (old.st_mode & 0o7777, Owner::User(old.st_uid, old.st_gid)),
            None => (mode, Owner::OfFolder),
        };
        self.replace(name, bytes, mode, owner, true)
    }

    /// A file with these bytes and a random name; durable if `sync`.
    pub(crate) fn prepare(&self, bytes: &[u8], mode: u32, owner: Owner, sync: bool) -> io::Result<Temporary> {
        let (temporary, file) = self.make_temporary(mode)?;
        let filled = self.fill(file, bytes, mode, owner, sync);
        self.unless_failed(temporary, filled).map(|(temporary, ())| temporary)
    }

    /// The same, whose bytes are on their way to the disk.
    pub(crate) fn prepare_begun(
        &self,
        bytes: &[u8],
        mode: u32,
        owner: Owner,
    ) -> io::Result<(Temporary, File)> {
        let (temporary, mut file) = self.make_temporary(mode)?;
        let filled = self.write_to(&mut file, bytes, mode, owner);
        self.unless_failed(temporary, filled.map(|()| file)).inspect(|(_, file)| write_out(file))
    }

    fn unless_failed<T>(&self, temporary: Temporary, filled: io::Result<T>) -> io::Result<(Temporary, T)> {
        match filled {
            Ok(filled) => Ok((temporary, filled)),
            Err(error) => {
                // The failure before this one is the one to be told.
                let _ = self.discard(&temporary);
                Err(error)
            }
        }
    }

    fn make_temporary(&self, mode: u32) -> io::Result<(Temporary, File)> {
        let mut tried = 0;
        loop {
            tried += 1;
            let name = OsString::from(format!("{TEMPORARY}{:016x}", fastrand::u64(..)));
            match self.make_file(&name, OFlags::empty(), mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_TRIED_MAX => {}
                made => return made.map(|file| (Temporary(name), file)),
            }
        }
    }

    /// Gives a file away that was just made. Only root may; in a folder of our own there is nothing to give.
    fn give(&self, file: &File, owner: Owner) -> io::Result<()> {
        let (uid, gid) = match owner {
            Owner::Ours => return Ok(()),
            Owner::User(uid, gid) => (uid, gid),
            Owner::OfFolder => {
                let folder = self.stat()?;
                (folder.st_uid, folder.st_gid)
            }
        };
        let ours = fstat(file)?;
        if ours.st_uid == uid && (ours.st_gid == gid || owner == Owner::OfFolder) {
            return Ok(());
        }
        Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Gives a temporary file its name. It goes in the place of a file, and of nothing else.
    pub(crate) fn put(&self, temporary: &Temporary, name: impl AsRef<OsStr>) -> io::Result<()> {
        let put = component(name.as_ref()).and_then(|name| {
            unless_absent(self.expect_file(name))?;
            Ok(renameat(&self.at, &temporary.0, &self.at, name)?)
        });
        if put.is_err() {
            let _ = self.discard(temporary);
        }
        put
    }

    /// Makes a hidden file, gives it to the folder's owner, fills it, makes it durable, and removes it.
    ///
    /// # Errors
    /// Where any of that fails.
    pub(crate) fn try_to_write(&self) -> io::Result<()> {
        let tried = self.prepare(&[b'.'; TRIED_BYTES], 0o600, Owner::OfFolder, true)?;
        self.discard(&tried)
    }

    /// The same, where nothing has that name: else it is an error of the kind `AlreadyExists`, and the file is gone.
    pub(crate) fn put_new(&self, temporary: &Temporary, name: impl AsRef<OsStr>) -> io::Result<()> {
        let put = component(name.as_ref()).and_then(|name| {
            let Temporary(from) = temporary;
            match renameat_with(&self.at, from, &self.at, name, RenameFlags::NOREPLACE) {
                // Not every file system can, NFS for one.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    linkat(&self.at, from, &self.at, name, AtFlags::empty())?;
                    self.discard(temporary)
                }
                put => Ok(put?),
            }
        });
        if put.is_err() {
            let _ = self.discard(temporary);
        }
        put
    }

    /// Removes a temporary file that is not to have a name.
    pub(crate) fn discard(&self, temporary: &Temporary) -> io::Result<()> {
        Ok(unlinkat(&self.at, &temporary.0, AtFlags::empty())?)
    }

    /// Removes the temporary files that a kill left behind. No other process may be at work in the folder. A folder of such a
    /// name was left by no kill, and stays; a file that can't be removed keeps no other from being removed.
    pub(crate) fn tidy(&self, max: usize) -> io::Result<()> {
        let mut failed = Ok(());
        for name in self.names(max)?.iter().filter(|name| name.as_bytes().starts_with(TEMPORARY.as_bytes())) {
            match unlinkat(&self.at, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::ISDIR | Errno::NOENT) => {}
                Err(error) => failed = Err(error.into()),
            }
        }
        failed
    }

    /// Renames an entry. It goes in the place of a file, or of an empty folder if it is a folder.
    pub(crate) fn rename(
        &self,
        from: impl AsRef<OsStr>,
        to: &Folder,
        name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        Ok(renameat(&self.at, component(from.as_ref())?, &to.at, component(name.as_ref())?)?)
    }

    /// Gives a file another name, if nothing has that name.
    pub(crate) fn link(
        &self,
        from: impl AsRef<OsStr>,
        to: &Folder,
        name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (from, name) = (component(from.as_ref())?, component(name.as_ref())?);
        self.expect_file(from)?;
        Ok(linkat(&self.at, from, &to.at, name, AtFlags::empty())?)
    }

    /// The same for an entry of any kind but a folder; of a link, the link itself. The caller looks at the entry that has the new
    /// name then.
    pub(crate) fn link_as_it_is(
        &self,
        from: impl AsRef<OsStr>,
        to: &Folder,
        name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (from, name) = (component(from.as_ref())?, component(name.as_ref())?);
        Ok(linkat(&self.at, from, &to.at, name, AtFlags::empty())?)
    }

    /// Removes an entry that is no folder.
    pub(crate) fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.at, component(name.as_ref())?, AtFlags::empty())?)
    }

    /// A new folder.
    pub(crate) fn make_folder(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
        Ok(mkdirat(&self.at, component(name.as_ref())?, Mode::from_raw_mode(mode))?)
    }

    /// Gives the folder these rights, with any umask.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(&self.at, Mode::from_raw_mode(mode))?)
    }

    /// Gives the folder to a user and a group.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(fchown(&self.at, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Takes the folder's lock without waiting; `false` where another process holds it. It is held as long as this is open.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.at, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Exchanges two entries.
    pub(crate) fn exchange(&self, one: impl AsRef<OsStr>, other: impl AsRef<OsStr>) -> io::Result<()> {
        let (one, other) = (component(one.as_ref())?, component(other.as_ref())?);
        Ok(renameat_with(&self.at, one, &self.at, other, RenameFlags::EXCHANGE)?)
    }

    /// Removes a folder and all that is in it: at most `depth` folders below each other, of at most `max` names each.
    pub(crate) fn remove_folder(&self, name: impl AsRef<OsStr>, depth: usize, max: usize) -> io::Result<()> {
        let name = component(name.as_ref())?;
        let folder = self.folder(name)?;
        for entry in folder.names(max)? {
            let stat = match folder.stat_of(&entry) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                stat => stat?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth > 0 => folder.remove_folder(&entry, depth - 1, max)?,
                _ => folder.remove(&entry)?,
            }
        }
        Ok(unlinkat(&self.at, name, AtFlags::REMOVEDIR)?)
    }

    /// Makes the names in the folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.at)?)
    }

    /// Why a folder in this one can't be opened: of a link, the kernel says that it is no directory.
    fn no_folder(&self, name: &OsStr, error: Errno) -> io::Error {
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        match error {
            Errno::LOOP | Errno::NOTDIR if self.stat_of(name).is_ok_and(is_link) => io::Error::new(
                io::ErrorKind::NotADirectory,
                "expected a folder, found a symbolic link, which is not followed; mount or move the folder here",
            ),
            error => error.into(),
        }
    }
}

/// Has a file written out, and does not wait for that. As sync_file_range(2) does, Linux begins to write a file out when it is told
/// that its pages are not needed any more (mm/fadvise.c). A file system that ignores this writes the file at its sync.
fn write_out(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// A name that can't lead out of the folder it is looked for in.
fn component(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    let leads_on = bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/');
    if leads_on { Err(not_a_name(name)) } else { Ok(name) }
}

fn not_a_name(found: &OsStr) -> io::Error {
    let found = found.as_bytes().escape_ascii();
    io::Error::new(io::ErrorKind::InvalidInput, format!("expected the name of a file, found \"{found}\""))
}
