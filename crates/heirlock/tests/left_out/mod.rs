//! Tests that can't run here are shown as left out, and not as passed.

use std::fs::OpenOptions;
use std::io::Write;

/// `./test` names a file here, and shows at its end what was written to it.
const FILE: &str = "HEIRLOCK_LEFT_OUT";

/// The test that runs has done nothing, or not all: something isn't here that it needs.
///
/// # Panics
/// Where that can't be noted: it would go unseen.
pub(crate) fn leave_out(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("left out: {test}: it needs {needs}");
    if let Some(file) = std::env::var_os(FILE) {
        let line = format!("{test}: it needs {needs}\n");
        let noted = OpenOptions::new().create(true).append(true).open(file);
        // One write for the whole line: tests append at the same time.
        let noted = noted.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(noted.is_ok(), "what is left out can't be noted: {noted:?}");
    }
}
