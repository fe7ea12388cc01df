//! A server's rpc.statd, as lockd uses it to watch a client: it writes a monitor record.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use heirlock_nsm::record::render_record;
use heirlock_nsm::{MonName, MonitorLine, MyName};

/// Writes a client's record as nfs-utils does (support/nsm/file.c): under its final name at once, and where that
/// exists already, with one line more by a temporary file.
///
/// One thing is left out: nfs-utils opens with `O_SYNC`. No server of the demo loses power, and 5,000 syncs in a row
/// would be most of its time.
pub(super) fn register(sm: &Path, client: Ipv4Addr, my_name: &MyName) -> io::Result<()> {
    let name = MonName::from_address(client.into());
    let path = sm.join(name.as_str());
    let mut cookie = [0; 16];
    fastrand::fill(&mut cookie);
    // lockd registers as version 3 with a cookie of its own; the rest is as in any generated line.
    let line = MonitorLine { vers: 3, cookie, ..MonitorLine::generated(name.clone(), my_name.clone()) };
    let bytes = render_record(&[line]);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(&bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::read(&path)?;
            let temporary = sm.join(format!("{name}.new"));
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&[there, bytes].concat())?;
            fs::rename(&temporary, &path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use heirlock_nsm::record::parse_record;

    use super::*;

    #[test]
    fn a_record_is_one_that_a_status_monitor_would_write_and_a_second_line_joins_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let client = Ipv4Addr::new(127, 201, 0, 1);
        let path = directory.path().join("127.201.0.1");
        for (lines, server) in [(1, "nfs-a"), (2, "nfs-b")] {
            register(directory.path(), client, &MyName::parse(server).unwrap()).unwrap();
            let parsed = parse_record(&fs::read(&path).unwrap()).unwrap();
            assert_eq!((parsed.lines.len(), parsed.problems.len()), (lines, 0));
            assert_eq!(parsed.lines[lines - 1].my_name.as_str(), server);
            assert_eq!(parsed.lines[lines - 1].mon_name.as_str(), "127.201.0.1");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
