//! Files: monitor records, state numbers, the configuration.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use heirlock::config;
use heirlock_nsm::record::{FileKind, classify_file_name, parse_record, render_record};
use heirlock_nsm::{MonitorLine, StateNumber};

/// A monitor record, and a file name.
pub fn record(bytes: &[u8]) {
    match parse_record(bytes) {
        Ok(parsed) => {
            assert!(!parsed.lines.is_empty(), "a record without a line was accepted");
            let rendered = render_record(&parsed.lines);
            let again = parse_record(&rendered).expect("a written value is read");
            assert_eq!((again.lines.as_slice(), again.problems.len()), (parsed.lines.as_slice(), 0));
            if parsed.problems.is_empty() && bytes.ends_with(b"\n") {
                assert_eq!(rendered, bytes, "a whole record is printed back to the byte");
            }
            parsed.problems.iter().for_each(|problem| is_printable(&problem.to_string()));
        }
        Err(error) => is_printable(&error.to_string()),
    }
    let _ = MonitorLine::parse(bytes);
    if let FileKind::Record(name) = classify_file_name(OsStr::from_bytes(bytes)) {
        let path = Path::new("sm").join(name.as_str());
        assert_eq!(
            (path.parent(), path.file_name()),
            (Some(Path::new("sm")), Some(OsStr::from_bytes(bytes)))
        );
    }
}

/// A `state` file.
pub fn state(bytes: &[u8]) {
    let before = StateNumber::parse_file(bytes);
    match before {
        Ok(number) => assert_eq!(number.render_file(), bytes),
        Err(ref error) => is_printable(&error.to_string()),
    }
    let after = StateNumber::after_restart(before.as_ref().ok().copied());
    assert!(after.is_odd() && Ok(after) != before, "{after} follows {before:?}");
}

/// A configuration.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = config::parse(Path::new("heirlock.toml"), text) {
        assert!(error.to_string().contains("heirlock.toml"), "{error}");
    }
}

/// Messages reach logs and terminals.
fn is_printable(message: &str) {
    assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
}
