//! Monitor records: the files in which nfs-utils' rpc.statd remembers whom to tell of a restart
//! (support/nsm/file.c).
//!
//! A file is called like the client, by whatever name the resolver of the moment made of it, and holds one line for
//! each registration: four hexadecimal words (address, program, version and procedure of the downcall), 16 bytes of
//! cookie, the client's name as it was registered, the server's own name.

use std::ffi::OsStr;
use std::fmt;

use crate::limits;
use crate::name::{MonName, MyName, NameError};

/// Where the words end and the cookie begins, and where the cookie ends.
const COOKIE_AT: usize = 36;
const NAMES_AT: usize = 69;

/// One line of a monitor record. Every field is printed back as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorLine {
    /// Where the downcall goes: always loopback, as the hexadecimal word reads. nfs-utils prints the address as the
    /// machine holds it, so big-endian servers write `7f000001` and others `0100007f`. It says nothing of the client.
    pub my_addr: u32,
    /// The program of the downcall: 100021.
    pub prog: u32,
    /// Its version: 3 from Linux, 4 from Ganesha.
    pub vers: u32,
    /// Its procedure: 16, or 24.
    pub proc_: u32,
    /// The identity of the client in the lock manager's memory: meaningless anywhere else, and after a reboot.
    pub cookie: [u8; 16],
    /// The client, as it was registered.
    pub mon_name: MonName,
    /// The server's own name.
    pub my_name: MyName,
}

/// The lines of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedRecord {
    /// Lines that are whole, in their order; at least one.
    pub lines: Vec<MonitorLine>,
    /// Lines that are not, and why.
    pub problems: Vec<RecordError>,
}

/// Why bytes are no monitor record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordError {
    /// Nothing is in it: rpc.statd creates a file before it writes it.
    Empty,
    /// More than any record has.
    TooLarge {
        /// what is counted: "bytes" or "lines"
        what: &'static str,
        /// the bound
        max: usize,
        /// how many were found
        found: usize,
    },
    /// A line that is not as rpc.statd writes it.
    Line {
        /// which, from 1
        number: usize,
        /// which part of it
        field: &'static str,
        /// what should be there
        expected: &'static str,
        /// the start of what is there, escaped
        found: String,
    },
    /// A name in a line that is none.
    Name {
        /// which line, from 1
        number: usize,
        /// which name
        field: &'static str,
        /// why it is none
        error: NameError,
    },
}

/// The kind of a file in a status monitor's directory, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A client's record.
    Record(MonName),
    /// A temporary file of nfs-utils: `<client>.new` before 2.8.2, `.<client>.new` since.
    Temporary,
    /// Hidden: not a record.
    Hidden,
    /// Neither.
    Refused(NameError),
}

/// The note on a temporary file that stays.
pub const TEMPORARY_LEFT: &str = "a temporary file that rpc.statd was writing when it ended: it may hold a registration that is \
    nowhere else; look at it, then remove it";

/// Tells a record from what else lies in the directory.
#[must_use]
pub fn classify_file_name(name: &OsStr) -> FileKind {
    let Some(text) = name.to_str() else { return FileKind::Refused(NameError::NotText) };
    if text.ends_with(".new") {
        return FileKind::Temporary;
    }
    if text.starts_with('.') {
        return FileKind::Hidden;
    }
    match MonName::parse(text) {
        Ok(name) => FileKind::Record(name),
        Err(error) => FileKind::Refused(error),
    }
}

/// Reads a whole file. A missing newline at its end is tolerated, as nfs-utils does.
///
/// # Errors
/// Where not one line of it is whole.
pub fn parse_record(bytes: &[u8]) -> Result<ParsedRecord, RecordError> {
    if bytes.is_empty() {
        return Err(RecordError::Empty);
    }
    let (max, found) = (limits::RECORD_FILE_BYTES_MAX, bytes.len());
    if found > max {
        return Err(RecordError::TooLarge { what: "bytes", max, found });
    }
    // Nearly every record has one line, and a vector that grows makes room for four.
    let (mut lines, mut problems) = (Vec::with_capacity(1), Vec::new());
    for (number, line) in (1..).zip(bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|b| *b == b'\n')) {
        if number > limits::RECORD_LINES_MAX {
            let (max, found) = (limits::RECORD_LINES_MAX, number);
            problems.push(RecordError::TooLarge { what: "lines", max, found });
            break;
        }
        match parse_line(line, number) {
            Ok(line) => lines.push(line),
            Err(error) => problems.push(error),
        }
    }
    match problems.first() {
        Some(error) if lines.is_empty() => Err(error.clone()),
        _ => Ok(ParsedRecord { lines, problems }),
    }
}

/// Writes a whole file.
#[must_use]
pub fn render_record(lines: &[MonitorLine]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.len() * 128);
    for line in lines {
        line.render(&mut bytes);
    }
    bytes
}

/// Two digits for each byte. A look renders every line that it finds, so nothing is allocated for that.
fn render_hex(bytes: &mut Vec<u8>, of: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for byte in of {
        bytes.extend([byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]));
    }
}

impl MonitorLine {
    /// Reads one line, with or without its newline.
    ///
    /// # Errors
    /// Where it is not as rpc.statd writes it.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        parse_line(line.strip_suffix(b"\n").unwrap_or(line), 1)
    }

    /// Writes one line, byte for byte as rpc.statd does.
    pub fn render(&self, bytes: &mut Vec<u8>) {
        for word in [self.my_addr, self.prog, self.vers, self.proc_] {
            render_hex(bytes, &word.to_be_bytes());
            bytes.push(b' ');
        }
        render_hex(bytes, &self.cookie);
        for name in [self.mon_name.as_str(), self.my_name.as_str()] {
            bytes.push(b' ');
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.push(b'\n');
    }

    /// How many bytes [`MonitorLine::render`] writes.
    #[must_use]
    pub fn rendered_len(&self) -> usize {
        let names = [self.mon_name.as_str(), self.my_name.as_str()];
        // Each name has a blank or the newline after it.
        NAMES_AT + names.map(|name| name.len() + 1).iter().sum::<usize>()
    }

    /// A line that no lock manager registered: it names the client and the server. Its cookie is zero, as
    /// Ganesha's are.
    #[must_use]
    #[allow(clippy::host_endian_bytes)] // nfs-utils prints the address as the machine holds it
    pub fn generated(mon_name: MonName, my_name: MyName) -> Self {
        let my_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        Self { my_addr, prog: 100_021, vers: 4, proc_: 16, cookie: [0; 16], mon_name, my_name }
    }
}

fn parse_line(line: &[u8], number: usize) -> Result<MonitorLine, RecordError> {
    let wrong =
        |field, expected, found: &[u8]| RecordError::Line { number, field, expected, found: excerpt(found) };
    let words = line.get(..COOKIE_AT).ok_or_else(|| wrong("line", "69 characters and two names", line))?;
    let mut numbers = [0; 4];
    for (value, word) in numbers.iter_mut().zip(words.chunks(9)) {
        *value = parse_word(word).ok_or_else(|| wrong("word", "8 hexadecimal digits and a blank", word))?;
    }
    let hex =
        line.get(COOKIE_AT..NAMES_AT).ok_or_else(|| wrong("line", "69 characters and two names", line))?;
    let cookie =
        parse_cookie(hex).ok_or_else(|| wrong("cookie", "32 hexadecimal digits and a blank", hex))?;
    let names = &line[NAMES_AT..];
    let blank = names.iter().position(|b| *b == b' ').ok_or_else(|| wrong("names", "two names", names))?;
    let text = |field, bytes| std::str::from_utf8(bytes).map_err(|_| wrong(field, "text", bytes));
    let named = |field| move |error| RecordError::Name { number, field, error };
    let mon_name = MonName::parse(text("mon_name", &names[..blank])?).map_err(named("mon_name"))?;
    let my_name = MyName::parse(text("my_name", &names[blank + 1..])?).map_err(named("my_name"))?;
    let [my_addr, prog, vers, proc_] = numbers;
    Ok(MonitorLine { my_addr, prog, vers, proc_, cookie, mon_name, my_name })
}

fn parse_word(word: &[u8]) -> Option<u32> {
    let (digits, blank) = word.split_at_checked(8)?;
    (blank == b" ").then_some(())?;
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | nibble(*digit)?))
}

fn parse_cookie(hex: &[u8]) -> Option<[u8; 16]> {
    let (digits, blank) = hex.split_at_checked(32)?;
    (blank == b" ").then_some(())?;
    let mut cookie = [0; 16];
    for (byte, pair) in cookie.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).ok()?;
    }
    Some(cookie)
}

/// Lower case alone: a file of nfs-utils is printed back to the byte.
fn nibble(digit: u8) -> Option<u32> {
    match digit {
        b'0'..=b'9' => Some(u32::from(digit - b'0')),
        b'a'..=b'f' => Some(u32::from(digit - b'a') + 10),
        _ => None,
    }
}

fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii().to_string();
    if bytes.len() > SHOWN { format!("{shown}…") } else { shown }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Empty => f.write_str("expected a monitor record, found an empty file"),
            RecordError::TooLarge { what, max, found } => {
                write!(f, "expected a monitor record of at most {max} {what}, found {found}")
            }
            RecordError::Line { number, field, expected, found } => {
                write!(f, "line {number}, {field}: expected {expected}, found \"{found}\"")
            }
            RecordError::Name { number, field, error } => write!(f, "line {number}, {field}: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "0100007f 000186b5 00000003 00000010 99887766554433220f0e0d0c0b0a0908 127.1.0.1 nfs-a\n";

    #[test]
    fn a_line_is_printed_back_to_the_byte() {
        let parsed = parse_record(LINE.as_bytes()).unwrap();
        assert_eq!(parsed.lines[0].prog, 100_021);
        assert_eq!(parsed.lines[0].cookie[..2], [0x99, 0x88]);
        assert_eq!(render_record(&parsed.lines), LINE.as_bytes());
        assert_eq!(parsed.lines[0].rendered_len(), LINE.len());
    }

    #[test]
    fn a_torn_line_does_not_take_the_whole_ones_with_it() {
        let torn = format!("{LINE}{}", &LINE[..50]);
        let parsed = parse_record(torn.as_bytes()).unwrap();
        assert_eq!((parsed.lines.len(), parsed.problems.len()), (1, 1));
        assert!(parsed.problems[0].to_string().starts_with("line 2, "), "{}", parsed.problems[0]);
    }

    #[test]
    fn a_fault_in_a_record_is_named_with_its_place() {
        let error = |text: &str| parse_record(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(""), "expected a monitor record, found an empty file");
        assert_eq!(
            error("garbage\n"),
            "line 1, line: expected 69 characters and two names, found \"garbage\""
        );
        let path = LINE.replace("127.1.0.1", "../../x");
        assert_eq!(error(&path), "line 1, mon_name: expected a name, found one with '/' in it");
        let upper = LINE.replace("000186b5", "000186B5");
        assert_eq!(
            error(&upper),
            "line 1, word: expected 8 hexadecimal digits and a blank, found \"000186B5 \""
        );
        let one_name = LINE.replace(" nfs-a", "");
        assert_eq!(error(&one_name), "line 1, names: expected two names, found \"127.1.0.1\"");
    }

    #[test]
    fn temporary_and_hidden_files_are_no_records() {
        let kind = |name: &str| classify_file_name(OsStr::new(name));
        assert_eq!(kind("127.1.0.1.new"), FileKind::Temporary);
        assert_eq!(kind(".127.1.0.1.new"), FileKind::Temporary);
        assert_eq!(kind(".127.1.0.1.heirlock"), FileKind::Hidden);
        assert_eq!(kind("a b"), FileKind::Refused(NameError::Character(' ')));
        assert!(matches!(kind("client1"), FileKind::Record(_)));
    }

    #[test]
    fn a_generated_line_reads_like_ganeshas() {
        let line = MonitorLine::generated(MonName::parse("10.0.0.1").unwrap(), MyName::parse("nfs").unwrap());
        let mut bytes = Vec::new();
        line.render(&mut bytes);
        assert_eq!(MonitorLine::parse(&bytes), Ok(line));
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.ends_with(" 000186b5 00000004 00000010 00000000000000000000000000000000 10.0.0.1 nfs\n"),
            "{text}"
        );
    }
}
