//! The boot of this server that runs: a memory of one boot says nothing of the next.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Host;
use crate::files::trusted;

/// Below /proc (Documentation/admin-guide/sysctl/kernel.rst, `random`).
const FILE: &str = "sys/kernel/random/boot_id";

impl Host {
    /// The boot that runs.
    ///
    /// # Errors
    /// Where the kernel does not tell: then nothing may be taken for this boot's.
    pub(crate) fn boot(&self) -> io::Result<String> {
        let text = trusted::read_system(self.proc(FILE))?;
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} is empty"))),
            id => Ok(id.to_owned()),
        }
    }

    /// When it began (`btime` of /proc/stat); `None` where the kernel does not tell.
    pub(crate) fn booted_at(&self) -> Option<SystemTime> {
        let stat = trusted::read_system(self.proc("stat")).ok()?;
        let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Tree;

    #[test]
    fn a_boot_has_the_kernels_name_for_it_and_none_where_the_kernel_gives_none() {
        let here = Host::here();
        let id = here.boot().unwrap();
        assert!(id.len() == 36 && id == here.boot().unwrap(), "a UUID: {id}");
        let tree = Tree::new();
        assert!(tree.host().boot().is_err());
        for (text, id) in [("b00t\n", Some("b00t")), ("\n", None)] {
            tree.put(&format!("/proc/{FILE}"), text);
            assert_eq!(tree.host().boot().ok().as_deref(), id);
        }
    }

    #[test]
    fn a_boot_began_when_the_kernel_says() {
        let tree = Tree::new();
        assert_eq!(tree.host().booted_at(), None);
        tree.put("/proc/stat", "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(tree.host().booted_at(), Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert!(Host::here().booted_at().unwrap() < SystemTime::now());
    }
}
