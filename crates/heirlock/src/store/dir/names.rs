//! The file names of records: no other module makes a file name of a record's key, or a key of a file name.

use std::ffi::OsStr;

use heirlock_core::RecordKey;
use heirlock_nsm::record::{FileKind, classify_file_name};

/// The folder of a generation that its records lie in: stock tools expect them there.
pub(super) const RECORDS: &str = "sm";

/// The name of a record's file.
pub(super) fn file_name(key: &RecordKey) -> &str {
    match key {
        RecordKey::Nsm(client) => client.as_str(),
    }
}

/// The key of the record that lies in a file of this name, or why it can be none. `None` for a name that belongs to unfinished
/// work.
pub(super) fn key_of(file_name: &OsStr) -> Option<Result<RecordKey, String>> {
    match classify_file_name(file_name) {
        FileKind::Hidden => None,
        FileKind::Temporary if file_name.as_encoded_bytes().starts_with(b".") => None,
        FileKind::Temporary => {
            Some(Err("expected a client's name, found that of a temporary file; remove it".to_owned()))
        }
        FileKind::Refused(error) => Some(Err(error.to_string())),
        FileKind::Record(client) => Some(Ok(RecordKey::Nsm(client))),
    }
}

#[cfg(test)]
mod tests {
    use heirlock_nsm::MonName;

    use super::*;

    #[test]
    fn the_key_of_a_records_file_is_the_key_that_it_was_named_by() {
        for client in ["10.0.0.1", "fe80::1%eth0", "client.example.org"] {
            let key = RecordKey::Nsm(MonName::parse(client).unwrap());
            assert_eq!(key_of(OsStr::new(file_name(&key))), Some(Ok(key)));
        }
    }

    #[test]
    fn a_hidden_name_is_of_no_record_and_a_name_that_no_client_has_is_refused() {
        for hidden in [".10.0.0.1", ".10.0.0.1.new", ".aside.1"] {
            assert_eq!(key_of(OsStr::new(hidden)), None, "{hidden}");
        }
        for refused in ["10.0.0.1.new", "a\nb", "a b"] {
            assert!(matches!(key_of(OsStr::new(refused)), Some(Err(_))), "{refused}");
        }
    }
}
