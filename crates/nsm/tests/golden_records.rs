//! Monitor records and state files as real programs wrote them, and as a reader may find them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the report")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use heirlock_nsm::record::{FileKind, RecordError, classify_file_name, parse_record, render_record};
use heirlock_nsm::state::StateError;
use heirlock_nsm::{MonitorLine, StateNumber};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn bytes(path: &str) -> Vec<u8> {
    fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of a folder, by name.
fn folder(path: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(fixture(path))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn lines(path: &str) -> Vec<MonitorLine> {
    let parsed = parse_record(&bytes(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(parsed.problems, [], "{path}");
    parsed.lines
}

fn line(path: &str) -> MonitorLine {
    match <[MonitorLine; 1]>::try_from(lines(path)) {
        Ok([line]) => line,
        Err(found) => panic!("{path}: expected one line, found {}", found.len()),
    }
}

#[test]
fn every_real_record_is_printed_back_to_the_byte() {
    let mut seen = 0;
    for directory in ["linux-nfs-utils-2.6.2/sm", "ganesha-4.3/sm"] {
        for (name, written) in folder(directory) {
            let kind = classify_file_name(OsStr::new(&name));
            assert!(matches!(&kind, FileKind::Record(n) if n.as_str() == name), "{name}: {kind:?}");
            let parsed = parse_record(&written).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(parsed.problems, [], "{name}");
            assert_eq!(render_record(&parsed.lines), written, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 12, "all of them");
}

#[test]
fn a_file_may_hold_several_registrations() {
    let lines = lines("linux-nfs-utils-2.6.2/sm/127.1.0.1");
    let told: Vec<_> =
        lines.iter().map(|l| (l.proc_, l.cookie[0], l.mon_name.as_str(), l.my_name.as_str())).collect();
    assert_eq!(told, [(16, 0x99, "127.1.0.1", "primary.example.test"), (24, 0x11, "127.1.0.1", "p")]);
    assert!(lines.iter().all(|l| (l.prog, l.vers) == (100_021, 3)));
}

#[test]
fn a_file_may_hold_two_names_of_its_client() {
    let lines = lines("linux-nfs-utils-2.6.2/sm/client4.example.test");
    let names: Vec<_> = lines.iter().map(|l| l.mon_name.as_str()).collect();
    assert_eq!(names, ["client4.example.test", "127.1.0.4"]);
}

#[test]
fn a_file_is_named_by_the_resolver_of_the_moment_and_not_by_its_mon_name() {
    assert_eq!(line("linux-nfs-utils-2.6.2/sm/client2.example.test").mon_name.as_str(), "127.1.0.2");
    assert_eq!(line("linux-nfs-utils-2.6.2/sm/client3.example.test").mon_name.as_str(), "client3");
    assert_eq!(line("synthetic/linux-odd/sm/client9.example.test").mon_name.as_str(), "192.0.2.9");
}

#[test]
fn ganesha_registers_version_4_with_a_zero_cookie() {
    let line = line("ganesha-4.3/sm/client2.example.test");
    assert_eq!((line.prog, line.vers, line.proc_, line.cookie), (100_021, 4, 16, [0; 16]));
}

#[test]
fn ipv6_clients_have_ipv6_names_and_a_first_word_of_ipv4() {
    for name in ["2001:db8::5", "fe80::1%lo"] {
        let line = line(&format!("linux-nfs-utils-2.6.2/sm/{name}"));
        assert_eq!((line.mon_name.as_str(), line.my_addr), (name, 0x0100_007f));
    }
}

#[test]
fn a_my_name_is_kept_however_long_it_is_and_with_what_became_of_its_blanks() {
    assert_eq!(line("linux-nfs-utils-2.6.2/sm/127.1.0.30").my_name.as_str().len(), 980);
    assert_eq!(line("linux-nfs-utils-2.6.2/sm/127.1.0.9").my_name.as_str(), "my_host_name");
}

#[test]
fn a_big_endian_server_s_first_word_is_printed_back_as_it_was() {
    let path = "synthetic/linux-odd/sm/127.1.0.9";
    let line = line(path);
    assert_eq!(line.my_addr, 0x7f00_0001);
    assert_eq!(render_record(&[line]), bytes(path));
}

#[test]
fn of_an_odd_directory_the_records_are_read_and_the_rest_is_named() {
    let mut read = Vec::new();
    let mut refused = Vec::new();
    for (name, bytes) in folder("synthetic/linux-odd/sm") {
        match classify_file_name(OsStr::new(&name)) {
            FileKind::Record(_) => match parse_record(&bytes) {
                Ok(parsed) => read.push((name, parsed.lines.len())),
                Err(error) => refused.push((name, error.to_string())),
            },
            kind => refused.push((name, format!("{kind:?}"))),
        }
    }
    let read: Vec<_> = read.iter().map(|(name, lines)| (name.as_str(), *lines)).collect();
    assert_eq!(
        read,
        [("127.1.0.1", 1), ("127.1.0.6", 1), ("127.1.0.8", 2), ("127.1.0.9", 1), ("client9.example.test", 1)]
    );
    let refused: Vec<_> = refused.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    assert_eq!(
        refused,
        [
            (".127.1.0.3.new", "Temporary"),
            ("127.1.0.2.new", "Temporary"),
            ("127.1.0.4", "expected a monitor record, found an empty file"),
            ("127.1.0.5", "line 1, line: expected 69 characters and two names, found \"garbage\""),
            (
                "127.1.0.7",
                "line 1, line: expected 69 characters and two names, \
                 found \"0100007f 000186b5 00000003 00000010 1122…\""
            ),
        ]
    );
}

#[test]
fn a_missing_final_newline_is_tolerated_and_no_other_end_is() {
    let path = "synthetic/linux-odd/sm/127.1.0.6";
    let whole = bytes(path);
    assert_eq!(render_record(&lines(path)), [whole.as_slice(), b"\n"].concat());
    // Cut anywhere before my_name begins, the line is torn. Cut inside my_name it can't be told from a whole one: rpc.statd
    // writes a line at once, and the store keeps whatever the next scan finds.
    let names_end = whole.len() - "primary.example.test".len();
    for end in 0..names_end {
        assert!(parse_record(&whole[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn state_files_are_read_as_the_program_that_wrote_them_meant() {
    let state = |path: &str| StateNumber::parse_file(&bytes(path));
    assert_eq!(state("linux-nfs-utils-2.6.2/state"), Ok(StateNumber(3)));
    assert_eq!(state("synthetic/state/empty"), Err(StateError::Empty));
    assert_eq!(state("synthetic/state/short"), Err(StateError::Length(2)));
    assert_eq!(state("synthetic/state/illumos_ascii_7"), Err(StateError::Length(10)));
    assert_eq!(
        state("synthetic/state/illumos_ascii_7").unwrap_err().to_string(),
        "a state file: expected 4 bytes, found 10"
    );
}

/// The numbers that nfs-utils 2.6.2 was seen to send, by the file it found: (file, number sent, file after).
#[test]
#[cfg(target_endian = "little")]
fn restarts_count_as_sm_notify_was_seen_to_count() {
    let seen: [(&str, u32, [u8; 4]); 7] = [
        ("missing", 3, [3, 0, 0, 0]),
        ("empty", 3, [3, 0, 0, 0]),
        ("short", 3, [3, 0, 0, 0]),
        ("le_3", 5, [5, 0, 0, 0]),
        ("le_4", 7, [7, 0, 0, 0]),
        ("le_5", 7, [7, 0, 0, 0]),
        ("le_maxint", 0x8000_0001, [1, 0, 0, 0x80]),
    ];
    for (file, sent, after) in seen {
        let before = match file {
            "missing" => None,
            file => StateNumber::parse_file(&bytes(&format!("synthetic/state/{file}"))).ok(),
        };
        let next = StateNumber::after_restart(before);
        assert_eq!((next.0, next.render_file()), (sent, after), "{file}");
        assert!(next.is_odd(), "{file}");
    }
    // It reads the number after the largest positive one as a negative one; we read the same 32 bits.
    let wrapped = StateNumber::parse_file(&bytes("synthetic/state/le_negative"));
    assert_eq!(wrapped, Ok(StateNumber((-2_147_483_647_i32).cast_unsigned())));
    // A file from a machine of the other byte order can't be told from a large number: it is still passed, never met.
    let foreign = StateNumber::parse_file(&bytes("synthetic/state/be_5")).unwrap();
    assert_eq!(foreign, StateNumber(0x0500_0000));
    assert!(StateNumber::after_restart(Some(foreign)) > foreign);
}

/// `sm-notify -n` sends 5 by a file that holds 4, and by one that holds 5, and leaves both alone.
#[test]
fn an_even_state_number_stands_for_the_odd_one_above_it() {
    assert_eq!(StateNumber(4).next_odd(), StateNumber(5));
    assert_eq!(StateNumber(5).next_odd(), StateNumber(7));
}

/// The bad records that an administrator may meet, each with what is said of it.
mod bad_input {
    use super::*;

    const HEAD: &str = "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908";

    fn why(record: &str) -> String {
        parse_record(record.as_bytes()).expect_err(record).to_string()
    }

    #[test]
    fn a_record_with_a_path_is_refused() {
        let said = "line 1, mon_name: expected a name, found one with '/' in it";
        assert_eq!(why(&format!("{HEAD} ../../etc/passwd nfs-a\n")), said);
        assert_eq!(why(&format!("{HEAD} /etc/passwd nfs-a\n")), said);
        assert_eq!(
            why(&format!("{HEAD} .. nfs-a\n")),
            "line 1, mon_name: expected a name, found one that begins with a dot"
        );
    }

    #[test]
    fn a_record_with_control_characters_is_refused_and_they_are_shown_escaped() {
        assert_eq!(
            why(&format!("{HEAD} a\u{1b}[2Jb nfs-a\n")),
            "line 1, mon_name: expected a name, found one with '\\u{1b}' in it"
        );
        assert_eq!(
            why(&format!("{HEAD} a\0b nfs-a\n")),
            "line 1, mon_name: expected a name, found one with '\\0' in it"
        );
        assert_eq!(
            why(&format!("{HEAD} 10.0.0.1 nfs\ra\n")),
            "line 1, my_name: expected a name, found one with '\\r' in it"
        );
        assert_eq!(
            why(&format!("{HEAD} 10.0.0.1 nfs\u{1b}[2Ja\n")),
            "line 1, my_name: expected a name, found one with '\\u{1b}' in it"
        );
        let garbage = why("\u{7}\u{1b}]0;x\u{7}\n");
        assert_eq!(
            garbage,
            "line 1, line: expected 69 characters and two names, found \"\\x07\\x1b]0;x\\x07\""
        );
    }

    #[test]
    fn a_record_with_an_over_long_name_is_refused() {
        assert_eq!(
            why(&format!("{HEAD} {} nfs-a\n", "x".repeat(256))),
            "line 1, mon_name: expected a name of at most 255 bytes, found 256"
        );
        assert_eq!(
            why(&format!("{HEAD} 10.0.0.1 {}\n", "x".repeat(1025))),
            "line 1, my_name: expected a name of at most 1024 bytes, found 1025"
        );
    }

    #[test]
    fn a_record_with_an_empty_name_is_refused() {
        assert_eq!(why(&format!("{HEAD}  nfs-a\n")), "line 1, mon_name: expected a name, found nothing");
        assert_eq!(why(&format!("{HEAD} 10.0.0.1 \n")), "line 1, my_name: expected a name, found nothing");
    }

    #[test]
    fn a_record_with_a_wrong_field_count_is_refused() {
        let two = "line 1, names: expected two names, found \"10.0.0.1\"";
        assert_eq!(why(&format!("{HEAD} 10.0.0.1\n")), two);
        assert_eq!(
            why(&format!("{HEAD} 10.0.0.1 nfs-a extra\n")),
            "line 1, my_name: expected a name, found one with ' ' in it"
        );
        assert_eq!(
            why(&format!("{} 10.0.0.1 nfs-a\n", &HEAD[9..])),
            "line 1, word: expected 8 hexadecimal digits and a blank, found \"998877665\""
        );
        assert_eq!(
            why("0100007f 000186b5 00000003\n"),
            "line 1, line: expected 69 characters and two names, found \"0100007f 000186b5 00000003\""
        );
        assert_eq!(why("\n"), "line 1, line: expected 69 characters and two names, found \"\"");
    }

    #[test]
    fn a_record_with_a_damaged_cookie_is_refused() {
        let damaged = HEAD.replace("0908", "090g");
        let said = why(&format!("{damaged} 10.0.0.1 nfs-a\n"));
        assert_eq!(
            said,
            "line 1, cookie: expected 32 hexadecimal digits and a blank, found \"99887766554433220f0e0d0c0b0a090g \""
        );
    }

    #[test]
    fn a_file_without_end_is_refused_before_it_is_read() {
        let huge = vec![b'0'; 64 * 1024 + 1];
        let error = parse_record(&huge).unwrap_err();
        assert_eq!(error, RecordError::TooLarge { what: "bytes", max: 65_536, found: 65_537 });
        assert_eq!(error.to_string(), "expected a monitor record of at most 65536 bytes, found 65537");
    }

    #[test]
    fn lines_beyond_the_bound_are_said_to_be_too_many_and_the_others_are_kept() {
        let line = format!("{HEAD} 10.0.0.1 n\n");
        let parsed = parse_record(line.repeat(300).as_bytes()).unwrap();
        assert_eq!(parsed.lines.len(), 256);
        assert_eq!(parsed.problems, [RecordError::TooLarge { what: "lines", max: 256, found: 257 }]);
    }

    #[test]
    fn a_bad_line_is_left_alone_and_the_others_of_its_file_are_kept() {
        let good = format!("{HEAD} 10.0.0.1 nfs-a\n");
        let bad = format!("{HEAD} ../x nfs-a\n");
        let parsed = parse_record(format!("{good}{bad}{good}").as_bytes()).unwrap();
        assert_eq!(render_record(&parsed.lines), format!("{good}{good}").as_bytes());
        let said: Vec<_> = parsed.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["line 2, mon_name: expected a name, found one with '/' in it"]);
    }
}
