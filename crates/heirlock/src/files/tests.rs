use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

const MAX: usize = 100;

fn ground() -> (tempfile::TempDir, Folder) {
    let directory = tempfile::tempdir().unwrap();
    let folder = Folder::open(directory.path()).unwrap();
    (directory, folder)
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Everything that a hostile neighbour may put in the place of a file.
fn no_files(at: &Path) -> Vec<&'static str> {
    fs::write(at.join("outside"), "a secret").unwrap();
    symlink(at.join("outside"), at.join("link")).unwrap();
    symlink("/dev/zero", at.join("endless")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    fs::create_dir(at.join("folder")).unwrap();
    pipe(&at.join("pipe"));
    drop(UnixListener::bind(at.join("socket")).unwrap());
    vec!["link", "endless", "dangling", "folder", "pipe", "socket"]
}

#[test]
fn nothing_but_a_file_is_opened_and_the_error_says_what_it_is() {
    let (directory, folder) = ground();
    let at = directory.path();
    let said = |name| {
        let read = folder.read(name, Links::Any, MAX).unwrap_err().to_string();
        let opened = folder.open_to_append(name, MAX).unwrap_err().to_string();
        assert_eq!(read, opened);
        read
    };
    let expected = ["symbolic link", "symbolic link", "symbolic link", "folder", "pipe", "socket"];
    for (name, expected) in no_files(at).into_iter().zip(expected) {
        let said = said(name);
        assert!(said.contains("expected a file") && said.contains(expected), "{name}: {said}");
    }
    assert_eq!(fs::read_to_string(at.join("outside")).unwrap(), "a secret");
    assert!(!at.join("nowhere").exists());
}

#[test]
fn nothing_that_took_the_place_of_a_listed_file_is_read_instead() {
    let (directory, folder) = ground();
    let listed = Listed { kind: FileType::RegularFile, inode: Some(1) };
    for name in no_files(directory.path()) {
        let _ = folder.open_listed(name, listed, Links::Any).unwrap_err();
    }
    let (mut file, stat) = folder.open_listed("outside", listed, Links::One).unwrap();
    assert_eq!(
        read_whole(&mut file, &stat, MAX).unwrap(),
        b"a secret",
        "what the list said is no more than a hint"
    );
}

#[test]
fn a_list_names_files_as_files_with_the_number_that_their_stamps_have() {
    let (directory, folder) = ground();
    no_files(directory.path());
    for (name, listed) in folder.entries(MAX).unwrap() {
        let stat = folder.stat_of(&name).unwrap();
        if listed.kind == FileType::RegularFile {
            assert_eq!(name, "outside");
        }
        assert_eq!(listed.inode.map(Inode::from), Some(Stamp::of(&stat).inode()), "{}", name.display());
    }
}

#[test]
fn a_file_that_is_read_keeps_the_time_of_its_last_reading() {
    let (directory, folder) = ground();
    fs::write(directory.path().join("file"), "text").unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    let times = fs::FileTimes::new().set_accessed(long_ago);
    fs::File::options().write(true).open(directory.path().join("file")).unwrap().set_times(times).unwrap();
    assert_eq!(folder.read("file", Links::One, MAX).unwrap(), b"text");
    assert_eq!(fs::metadata(directory.path().join("file")).unwrap().accessed().unwrap(), long_ago);
}

#[test]
fn a_time_that_no_clock_shows_counts_as_1970() {
    let (directory, folder) = ground();
    let path = directory.path().join("file");
    fs::write(&path, "text").unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for (seconds, shown) in [(-1, 0), (0, 0), (1_700_000_000, 1_700_000_000)] {
        let at = if seconds < 0 {
            UNIX_EPOCH - Duration::from_secs(1)
        } else {
            UNIX_EPOCH + Duration::from_secs(shown)
        };
        file.set_times(fs::FileTimes::new().set_modified(at)).unwrap();
        let stat = folder.stat_of("file").unwrap();
        assert_eq!(written_at(&stat), UNIX_EPOCH + Duration::from_secs(shown), "{seconds}");
    }
}

#[test]
fn nothing_but_a_file_is_replaced_and_nothing_temporary_stays() {
    let (directory, folder) = ground();
    let names = no_files(directory.path());
    for name in &names {
        folder.replace(name, b"new", 0o600, Owner::OfFolder, false).unwrap_err();
        folder.create(name, b"new", 0o600, Owner::Ours, false).unwrap_err();
    }
    assert_eq!(fs::read_to_string(directory.path().join("outside")).unwrap(), "a secret");
    assert_eq!(folder.names(MAX).unwrap().len(), names.len() + 1);
    folder.replace("outside", b"new", 0o640, Owner::OfFolder, true).unwrap();
    let found = fs::metadata(directory.path().join("outside")).unwrap();
    assert_eq!((found.len(), found.mode() & 0o777), (3, 0o640));
}

#[test]
fn a_file_with_a_second_name_is_read_where_that_is_meant() {
    let (directory, folder) = ground();
    fs::write(directory.path().join("one"), "text").unwrap();
    fs::hard_link(directory.path().join("one"), directory.path().join("two")).unwrap();
    assert_eq!(folder.read("two", Links::Any, MAX).unwrap(), b"text");
    let error = folder.read("two", Links::One, MAX).unwrap_err().to_string();
    assert!(error.contains("one name") && error.contains('2'), "{error}");
    folder.open_to_append("two", MAX).unwrap_err();
}

#[test]
fn a_file_is_read_to_the_bound_and_not_beyond() {
    let (directory, folder) = ground();
    fs::write(directory.path().join("full"), vec![b'x'; MAX]).unwrap();
    assert_eq!(folder.read("full", Links::One, MAX).unwrap().len(), MAX);
    folder.open_to_append("full", MAX).unwrap();
    fs::write(directory.path().join("more"), vec![b'x'; MAX + 1]).unwrap();
    let sparse = fs::File::create(directory.path().join("sparse")).unwrap();
    sparse.set_len(8 << 30).unwrap();
    for name in ["more", "sparse"] {
        let error = folder.read(name, Links::One, MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        folder.open_to_append(name, MAX).unwrap_err();
        trusted::read(&directory.path().join(name), MAX).unwrap_err();
    }
    // A file that grows while it is read.
    assert_eq!(read_sized(io::repeat(b'x'), 0, MAX).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn a_name_never_leads_out_of_its_folder() {
    let (_directory, folder) = ground();
    for name in ["", ".", "..", "../x", "a/b", "/etc/passwd"] {
        folder.read(name, Links::Any, MAX).unwrap_err();
        folder.create(name, b"", 0o600, Owner::Ours, false).unwrap_err();
        folder.remove(name).unwrap_err();
        assert!(folder.folder(name).is_err(), "{name}");
        assert!(folder.rename("x", &folder, name).is_err(), "{name}");
    }
}

#[test]
fn a_folder_below_is_never_one_that_a_link_leads_to() {
    let (directory, folder) = ground();
    let at = directory.path();
    fs::create_dir_all(at.join("a/b")).unwrap();
    fs::write(at.join("a/b/file"), "text").unwrap();
    symlink(at.join("a"), at.join("link")).unwrap();
    symlink("../..", at.join("a/b/up")).unwrap();
    let inner = folder.below(Path::new("a/b")).unwrap();
    assert_eq!(inner.read("file", Links::One, MAX).unwrap(), b"text");
    assert_eq!(inner.path(), at.join("a/b"));
    assert!(folder.below(Path::new("")).is_ok());
    for path in ["link", "link/b", "a/b/up", "a/..", "/etc", ".."] {
        assert!(folder.below(Path::new(path)).is_err(), "{path}");
    }
    let error = folder.below(Path::new("link/b")).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert!(folder.below(Path::new("nothing")).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
}

#[test]
fn an_open_folder_stays_the_one_that_was_opened() {
    let (directory, folder) = ground();
    let at = directory.path();
    fs::create_dir(at.join("sm")).unwrap();
    fs::create_dir(at.join("etc")).unwrap();
    let sm = folder.folder("sm").unwrap();
    fs::rename(at.join("sm"), at.join("moved")).unwrap();
    symlink("etc", at.join("sm")).unwrap();
    sm.replace("10.0.0.1", b"line", 0o600, Owner::OfFolder, false).unwrap();
    assert!(at.join("moved/10.0.0.1").exists() && !at.join("etc/10.0.0.1").exists());
}

#[test]
fn a_folder_is_removed_with_all_in_it_and_nothing_that_a_link_leads_to() {
    let (directory, folder) = ground();
    let at = directory.path();
    fs::create_dir_all(at.join("old/sm")).unwrap();
    fs::create_dir(at.join("kept")).unwrap();
    fs::write(at.join("kept/file"), "text").unwrap();
    symlink("../kept", at.join("old/link")).unwrap();
    pipe(&at.join("old/sm/10.0.0.1"));
    folder.remove_folder("old", 2, MAX).unwrap();
    assert_eq!(folder.names(MAX).unwrap(), ["kept"]);
    assert!(at.join("kept/file").exists());
}

#[test]
fn a_file_that_a_kill_left_behind_is_tidied_and_no_other() {
    let (directory, folder) = ground();
    let _left = folder.prepare(b"half", 0o600, Owner::Ours, false).unwrap();
    for name in ["10.0.0.1", ".heirlock-callouts", "10.0.0.2.new"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    assert_eq!(folder.names(4).unwrap().len(), 4);
    assert_eq!(folder.names(3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    let planted = folder.path().join(".heirlock.0");
    fs::create_dir(&planted).unwrap();
    folder.tidy(MAX).unwrap();
    fs::remove_dir(planted).unwrap();
    let mut names = folder.names(MAX).unwrap();
    names.sort();
    assert_eq!(names, [".heirlock-callouts", "10.0.0.1", "10.0.0.2.new"]);
}

#[test]
fn an_administrators_link_is_followed_and_no_pipe_or_device_is_opened() {
    let (directory, _folder) = ground();
    let at = directory.path();
    no_files(at);
    assert_eq!(trusted::read(&at.join("link"), MAX).unwrap(), b"a secret");
    for (name, what) in [("endless", "a device"), ("pipe", "a pipe"), ("folder", "a folder")] {
        let error = trusted::read(&at.join(name), MAX).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

/// A file of /proc/sys has no size, and gives its text to the first read alone (proc_dointvec in kernel/sysctl.c): a read of a byte
/// is told the first digit, and then the end.
#[test]
fn a_file_of_the_kernel_without_a_size_is_read_whole_in_one_read() {
    struct Once(Option<&'static [u8]>);
    impl io::Read for Once {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let told = self.0.take().unwrap_or_default();
            let length = told.len().min(room.len());
            room[..length].copy_from_slice(&told[..length]);
            Ok(length)
        }
    }
    assert_eq!(read_sized(Once(Some(b"15\n")), 0, 100).unwrap(), b"15\n");
    let told = trusted::read_system("/proc/sys/kernel/ostype").unwrap();
    assert_eq!(told, "Linux\n");
    // And one that is longer than any room for it.
    let table = vec![b'x'; 100_000];
    assert_eq!(read_sized(&table[..], 0, 200_000).unwrap(), table);
    assert_eq!(read_sized(&table[..], 10, 200_000).unwrap(), table, "it has grown");
    assert!(read_sized(&table[..], 0, 1_000).is_err());
}
