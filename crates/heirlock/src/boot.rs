//! The boot of this server that runs: a memory of one boot says nothing of the next.

use std::io;
use std::path::Path;

use crate::files::trusted;

/// Below /proc (Documentation/admin-guide/sysctl/kernel.rst, `random`).
const FILE: &str = "sys/kernel/random/boot_id";

/// The boot that runs.
///
/// # Errors
/// Where the kernel does not tell: then nothing may be taken for this boot's.
pub(crate) fn id() -> io::Result<String> {
    id_below(Path::new("/proc"))
}

/// The same, of the host whose /proc that is.
///
/// # Errors
/// As [`id`].
pub(crate) fn id_below(proc: &Path) -> io::Result<String> {
    let text = trusted::read_system(proc.join(FILE))?;
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} is empty"))),
        id => Ok(id.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_boot_is_what_the_kernel_calls_it_and_nothing_where_it_does_not() {
        let here = id().unwrap();
        assert!(here.len() == 36 && here == id().unwrap(), "a UUID: {here}");
        let tree = tempfile::tempdir().unwrap();
        assert!(id_below(tree.path()).is_err());
        fs::create_dir_all(tree.path().join(FILE).parent().unwrap()).unwrap();
        for (text, id) in [("b00t\n", Some("b00t")), ("\n", None)] {
            fs::write(tree.path().join(FILE), text).unwrap();
            assert_eq!(id_below(tree.path()).ok().as_deref(), id);
        }
    }
}
