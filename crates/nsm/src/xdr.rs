//! XDR (RFC 4506), as much of it as these programs use: a bounded reader over a slice, and a writer.

use std::fmt;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The type that was being read.
    pub type_name: &'static str,
    /// The fault.
    pub problem: Problem,
}

/// A fault in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The bytes ended too early.
    Missing {
        /// how many were wanted
        wanted: usize,
        /// how many were left
        left: usize,
    },
    /// Bytes are left over.
    Trailing(usize),
    /// A length above its bound.
    TooLong {
        /// the bound
        max: usize,
        /// what the wire says
        found: u32,
    },
    /// More of something than its bound.
    TooMany {
        /// the bound
        max: usize,
        /// what the wire says
        found: u32,
    },
    /// A value that has no meaning here.
    Value {
        /// what was expected
        expected: &'static str,
        /// what was found
        found: u32,
    },
    /// Padding that isn't zero.
    Padding,
    /// A string that is no UTF-8.
    NotText,
    /// A text that means nothing here.
    Text {
        /// what was expected
        expected: &'static str,
        /// the start of what was found, escaped
        found: String,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.type_name;
        match &self.problem {
            Problem::Missing { wanted, left } => {
                write!(f, "{name}: expected {wanted} more bytes, found {left}")
            }
            Problem::Trailing(count) => write!(f, "{name}: expected its end, found {count} more bytes"),
            Problem::TooLong { max, found } => {
                write!(f, "{name}: expected at most {max} bytes, found {found}")
            }
            Problem::TooMany { max, found } => write!(f, "{name}: expected at most {max}, found {found}"),
            Problem::Value { expected, found } => write!(f, "{name}: expected {expected}, found {found}"),
            Problem::Padding => write!(f, "{name}: expected zero padding, found something else"),
            Problem::NotText => write!(f, "{name}: expected text, found bytes that are none"),
            Problem::Text { expected, found } => write!(f, "{name}: expected {expected}, found \"{found}\""),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads XDR from a slice; never allocates by what the wire says before it has checked it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes that have not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// Where fewer than four bytes are left.
    pub fn u32(&mut self, type_name: &'static str) -> Result<u32, DecodeError> {
        let (word, rest) = self.bytes.split_first_chunk::<4>().ok_or(DecodeError {
            type_name,
            problem: Problem::Missing { wanted: 4, left: self.bytes.len() },
        })?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*word))
    }

    /// An unsigned hyper integer.
    ///
    /// # Errors
    /// Where fewer than eight bytes are left.
    pub fn u64(&mut self, type_name: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from(self.u32(type_name)?) << 32 | u64::from(self.u32(type_name)?))
    }

    /// A signed integer.
    ///
    /// # Errors
    /// Where fewer than four bytes are left.
    pub fn i32(&mut self, type_name: &'static str) -> Result<i32, DecodeError> {
        self.u32(type_name).map(u32::cast_signed)
    }

    /// A boolean: 0 or 1.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn bool(&mut self, type_name: &'static str) -> Result<bool, DecodeError> {
        match self.u32(type_name)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError { type_name, problem: Problem::Value { expected: "0 or 1", found } }),
        }
    }

    /// Opaque bytes of a fixed length, with their padding.
    ///
    /// # Errors
    /// Where too few are left, or the padding isn't zero.
    pub fn opaque_fixed(&mut self, type_name: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        let padded = length.next_multiple_of(4);
        let missing = Problem::Missing { wanted: padded, left: self.bytes.len() };
        let (whole, rest) =
            self.bytes.split_at_checked(padded).ok_or(DecodeError { type_name, problem: missing })?;
        let (bytes, padding) = whole.split_at(length);
        if padding.iter().any(|b| *b != 0) {
            return Err(DecodeError { type_name, problem: Problem::Padding });
        }
        self.bytes = rest;
        Ok(bytes)
    }

    /// Opaque bytes of a length of their own, at most `max`.
    ///
    /// # Errors
    /// Where they are longer, or too few are left.
    pub fn opaque(&mut self, type_name: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let found = self.u32(type_name)?;
        match usize::try_from(found) {
            Ok(length) if length <= max => self.opaque_fixed(type_name, length),
            _ => Err(DecodeError { type_name, problem: Problem::TooLong { max, found } }),
        }
    }

    /// A string of at most `max` bytes.
    ///
    /// # Errors
    /// Where it is longer, cut short, or no UTF-8.
    pub fn string(&mut self, type_name: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.opaque(type_name, max)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError { type_name, problem: Problem::NotText })
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Where bytes are left over.
    pub fn finish(self, type_name: &'static str) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError { type_name, problem: Problem::Trailing(left) }),
        }
    }
}

/// Writes XDR.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An unsigned integer.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// An unsigned hyper integer.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// A signed integer.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.u32(value.cast_unsigned())
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(u32::from(value))
    }

    /// Opaque bytes of a fixed length, padded.
    pub fn opaque_fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Opaque bytes with their length. The caller has bounded them: all types here are far below 4 GiB.
    pub fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).opaque_fixed(bytes)
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.opaque(text.as_bytes())
    }

    /// Bytes that are XDR already.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    /// The bytes that were written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: Option<DecodeError>) -> String {
        error.expect("it is refused").to_string()
    }

    #[test]
    fn a_fault_in_xdr_is_said_with_the_expected_value() {
        let reader = Reader::new;
        assert_eq!(said(reader(b"\0\0\0").u32("a").err()), "a: expected 4 more bytes, found 3");
        assert_eq!(said(reader(&[0; 7]).u64("a").err()), "a: expected 4 more bytes, found 3");
        assert_eq!(said(reader(b"\0\0\0\x02").bool("a").err()), "a: expected 0 or 1, found 2");
        let two = b"\0\0\0\x02ab\0\0";
        assert_eq!(reader(two).opaque("a", 2), Ok(b"ab".as_slice()));
        assert_eq!(said(reader(two).opaque("a", 1).err()), "a: expected at most 1 bytes, found 2");
        assert_eq!(said(reader(&two[..7]).opaque("a", 2).err()), "a: expected 4 more bytes, found 3");
        assert_eq!(said(reader(two).finish("a").err()), "a: expected its end, found 8 more bytes");
        let not_text = b"\0\0\0\x02\xff\xfe\0\0";
        assert_eq!(
            said(reader(not_text).string("a", 2).err()),
            "a: expected text, found bytes that are none"
        );
        let huge = b"\xff\xff\xff\xff";
        assert_eq!(said(reader(huge).opaque("a", 9).err()), "a: expected at most 9 bytes, found 4294967295");
    }

    #[test]
    fn xdr_padding_that_is_not_zero_is_refused() {
        for at in 5..8 {
            let mut padded = *b"\0\0\0\x01a\0\0\0";
            padded[at] = 77;
            let error = Reader::new(&padded).opaque("a", 9).err();
            assert_eq!(said(error), "a: expected zero padding, found something else");
        }
    }
}
