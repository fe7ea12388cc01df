//! One look at a status monitor's directory.

use std::io;
use std::path::{Path, PathBuf};

use heirlock_core::ledger::{Folder, Problem, Scan, ScannedFile};
use heirlock_core::{Record, limits};
use heirlock_nsm::record::{FileKind, RecordError, TEMPORARY_LEFT, classify_file_name, parse_record};
use heirlock_nsm::{MonName, limits as nsm_limits};
use thiserror::Error;

use super::memory::Memory;
use crate::files::{self, Links, Listed, Stamp, WallTime};

/// Why a directory can't be looked at.
#[derive(Debug, Error)]
pub(crate) enum ScanError {
    /// It can't be read.
    #[error("can't read {path}: {source}; is that where rpc.statd keeps its records (state-directory)?")]
    Unreadable {
        /// which
        path: PathBuf,
        /// why
        #[source]
        source: io::Error,
    },
    /// It holds more files than any server has clients.
    #[error("{path} holds more than {max} files; it is damaged, or another program fills it", max = limits::RECORDS_MAX)]
    TooMany {
        /// which
        path: PathBuf,
    },
}

/// Looks at both folders of a state directory. A missing `sm.bak` is an empty one; without `sm` there is no look.
pub(crate) fn scan(state_directory: &Path) -> Result<Scan, ScanError> {
    look(state_directory, &mut Memory::default())
}

/// The same, but opens only those files that may hold something else than what is remembered of them.
pub(crate) fn look(state_directory: &Path, memory: &mut Memory) -> Result<Scan, ScanError> {
    let mut scan = Scan::default();
    look_at_folder(state_directory, Folder::Sm, memory, &mut scan)?;
    match look_at_folder(state_directory, Folder::SmBak, memory, &mut scan) {
        Err(ScanError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        looked => looked?,
    }
    Ok(scan)
}

fn look_at_folder(
    state_directory: &Path,
    folder: Folder,
    memory: &mut Memory,
    scan: &mut Scan,
) -> Result<(), ScanError> {
    let records = memory.of(folder);
    records.begin();
    // Before any file is looked at: a file that changes during the look is not old.
    let began = WallTime::now();
    let name = match folder {
        Folder::Sm => "sm",
        Folder::SmBak => "sm.bak",
    };
    let path = state_directory.join(name);
    let unreadable = |source: io::Error| ScanError::Unreadable { path: path.clone(), source };
    let directory = files::Folder::open(state_directory).and_then(|above| above.folder(name));
    let directory = directory.map_err(unreadable)?;
    let names = match directory.entries(limits::RECORDS_MAX) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(ScanError::TooMany { path }),
        names => names.map_err(unreadable)?,
    };
    for (file_name, listed) in names {
        let problem = |why: String, may_be_in_the_making| {
            let path = format!("{name}/{}", file_name.as_encoded_bytes().escape_ascii());
            Problem { path, why, may_be_in_the_making }
        };
        let client = match classify_file_name(&file_name) {
            FileKind::Hidden => continue,
            FileKind::Temporary => {
                scan.problems.push(problem(TEMPORARY_LEFT.to_owned(), true));
                continue;
            }
            FileKind::Refused(error) => {
                scan.problems.push(problem(error.to_string(), false));
                continue;
            }
            FileKind::Record(client) => client,
        };
        if let Some(bytes) = records.recall(&directory, &client) {
            scan.files.push(ScannedFile { folder, name: client, bytes });
            continue;
        }
        records.opening();
        match read_record(&directory, &client, listed) {
            Ok(Some((stamp, bytes))) => match parse_record(&bytes) {
                Ok(parsed) => {
                    let is_whole = parsed.problems.is_empty();
                    // Lines that are torn are spoken of; those that are whole count.
                    scan.problems
                        .extend(parsed.problems.iter().map(|error| problem(error.to_string(), true)));
                    let bytes = if is_whole { records.keep(&client, stamp, bytes, began) } else { bytes };
                    scan.files.push(ScannedFile { folder, name: client, bytes });
                }
                Err(error) => scan.problems.push(problem(error.to_string(), may_grow(&error))),
            },
            Ok(None) => {}
            Err(error) => scan.problems.push(problem(error.to_string(), false)),
        }
    }
    records.end();
    Ok(())
}

/// rpc.statd creates a file, then writes it; anything short may be on its way to a record.
fn may_grow(error: &RecordError) -> bool {
    matches!(error, RecordError::Empty | RecordError::Line { .. })
}

/// A record's bytes, and the file's stamp from before they were read; `None` where the file vanished meanwhile.
fn read_record(
    directory: &files::Folder,
    name: &MonName,
    listed: Listed,
) -> io::Result<Option<(Stamp, Record)>> {
    let Some((file, stat)) = files::if_present(directory.open_listed(name.as_str(), listed, Links::One))?
    else {
        return Ok(None);
    };
    let bytes = files::read_whole(file, &stat, nsm_limits::RECORD_FILE_BYTES_MAX)?;
    Ok(Some((Stamp::of(&stat), bytes.into())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 nfs-a\n";

    fn state_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sm")).unwrap();
        fs::create_dir(directory.path().join("sm.bak")).unwrap();
        directory
    }

    #[test]
    fn records_of_both_folders_are_found_and_nothing_else() {
        let directory = state_directory();
        let sm = directory.path().join("sm");
        for name in ["127.1.0.1", "127.1.0.2.new", ".127.1.0.3.new", ".x.heirlock"] {
            fs::write(sm.join(name), LINE).unwrap();
        }
        fs::create_dir(sm.join("a-folder")).unwrap();
        fs::write(directory.path().join("sm.bak/192.0.2.50"), LINE).unwrap();
        let scan = scan(directory.path()).unwrap();
        let names: Vec<_> = scan.files.iter().map(|f| (f.folder, f.name.as_str())).collect();
        assert_eq!(names, [(Folder::Sm, "127.1.0.1"), (Folder::SmBak, "192.0.2.50")]);
        let problems: Vec<&str> = scan.problems.iter().map(|problem| problem.path.as_str()).collect();
        let mut problems = problems;
        problems.sort_unstable();
        assert_eq!(problems, ["sm/.127.1.0.3.new", "sm/127.1.0.2.new", "sm/a-folder"]);
    }

    #[test]
    fn a_file_that_is_no_record_is_named_and_left_alone() {
        let directory = state_directory();
        let sm = directory.path().join("sm");
        fs::write(sm.join("empty"), "").unwrap();
        fs::write(sm.join("garbage"), "hello\n").unwrap();
        fs::write(sm.join("a\nb"), LINE).unwrap();
        fs::write(sm.join("huge"), vec![b'x'; nsm_limits::RECORD_FILE_BYTES_MAX + 1]).unwrap();
        symlink("/etc/passwd", sm.join("link")).unwrap();
        let scan = scan(directory.path()).unwrap();
        assert_eq!(scan.files, []);
        let mut problems: Vec<_> =
            scan.problems.iter().map(|p| (p.path.as_str(), p.may_be_in_the_making)).collect();
        problems.sort_unstable();
        let expected = [
            ("sm/a\\nb", false),
            ("sm/empty", true),
            ("sm/garbage", true),
            ("sm/huge", false),
            ("sm/link", false),
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = scan(directory.path()).unwrap_err().to_string();
        assert!(error.contains("sm") && error.contains("state-directory"), "{error}");
    }

    #[test]
    fn the_records_of_nfs_utils_are_read_to_the_byte() {
        let directory = state_directory();
        let two = format!("{LINE}{}", LINE.trim_end());
        fs::write(directory.path().join("sm/client1.example.test"), &two).unwrap();
        assert_eq!(scan(directory.path()).unwrap().files[0].bytes, *two.as_bytes());
    }
}
